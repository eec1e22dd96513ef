"""What is pending comes true: a price that waits in an OSM, on Maker's real Vat and Spotter."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from tests.devnet import maker
from tests.devnet.maker import Maker
from tests.devnet.node import Anvil
from tests.prices.test_special_feeds import fill
from tests.truth import raw

HOUR = 3_600


@pytest.fixture(scope="module")
def vault(needs_node: None) -> Iterator[Maker]:
    with Anvil() as node:
        node.place_multicall3()
        market = maker.deploy(node)
        market.populate(1, 12)
        yield market


def told(path: Path, *arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(main, ["--db", str(path), "forecast", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def poke(vault: Maker, price: int) -> None:
    """An hour later the OSM takes a new price into its queue, and the Spotter the one that waited before."""
    vault.node.mine(1, interval=HOUR)
    vault.sender.send(vault.values["ETH"], "poke(bytes32)", [price.to_bytes(32)], sender=vault.feeder)
    vault.sender.send(vault.modules["ETH"], "poke()")
    for ilk in ("ETH-A", "ETH-C"):
        vault.sender.send(vault.addresses["spotter"], "poke(bytes32)", [vault.ilks[ilk].key])


STATUSES = (
    "select position_group, account, status from positions where position_group like 'ETH-%' and status <> 'no-debt'"
)


def test_a_queued_price_is_pending_until_it_is_in_force_and_makes_liquidatable_whom_it_said(
    vault: Maker, tmp_path: Path
) -> None:
    path, price = tmp_path / "indexer.db", vault.price("ETH")
    with vault.rewound():
        poke(vault, price)
        poke(vault, price)
        fill(path, vault)
        before = {(group, account): status for group, account, status in raw(path, STATUSES)}
        poke(vault, price // 3)
        fill(path, vault)
        zzz = vault.sender.call(vault.modules["ETH"], "zzz()(uint64)")
        pending = {
            (row["position_group"], row["account"]): (row["pending_kind"], row["pending_price_raw"], row["pending_at"])
            for row in told(path, "--within", "1h", "--paths", "100")
            if row["pending_kind"] == "osm"
        }
        poke(vault, price)
        fill(path, vault)
        after = {(group, account): status for group, account, status in raw(path, STATUSES)}
    fell = {key for key, status in after.items() if status == "liquidatable" != before[key]}
    assert len(fell) > 2
    assert pending == dict.fromkeys(fell, ("osm", str(price // 3), zzz + HOUR))
