"""Watching: rules and their hysteresis, price paths on every protocol, reorgs, and a database of watched wallets alone."""

import json
import random
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.alert.rules import (
    Rule,
    below,
)
from indexer.alert.tables import open_crossings
from indexer.alert.watcher import Watcher
from indexer.alert.watches import Policy, Watch, add
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.delivery.channels import Channel
from indexer.model import WAD, Accounts, PositionKey
from indexer.reads.multicall import PinnedReader
from indexer.report import outlook
from indexer.settings import Alerts, Settings
from indexer.snapshot.everyone import build
from indexer.snapshot.known import KnownDeployment
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.sync import Outcome, Sync
from indexer.units import scaled
from tests.devnet import compound_v2
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.worlds import every_protocol, rewound
from tests.disturbed import Forks
from tests.faulty import FaultyNode
from tests.truth import adapter_of, named_in_logs, raw, rows_of, sync_once, wrong_rows

ROOT = Path(__file__).parents[2]

Told = tuple[str, str]

# rules ------------------------------------------------------------------------------------------------------------------


# price paths on the contracts -----------------------------------------------------------------------------------------


class Nowhere(Channel):
    """A channel whose messages stay in the outbox."""

    key = place = "nowhere"

    def deliver(self, alert: Any, at_send: Any) -> None:
        raise AssertionError


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Any]]:
    with every_protocol(3, 12) as found:
        yield found


@pytest.fixture
def undone(markets: list[Devnet]) -> Iterator[list[Devnet]]:
    """All markets on one node; what a test does to them is undone."""
    with rewound(markets):
        yield markets


@dataclass
class Victim:
    """A position whose health hangs on one price: `symbol` as its devnet names it."""

    market: Devnet
    wallet: str
    key: PositionKey
    symbol: str
    health: int

    def move(self, factor: float, price: int) -> None:
        self.market.set_price(self.symbol, int(price * factor))


FOUND: dict[tuple[Any, ...], list[Victim]] = {}


def victims(markets: Sequence[Devnet], path: Path) -> list[Victim]:
    """One position of each market, chosen once a node, before a test changes anything; `path` is scratch."""
    places = (markets[0].node, *(market.name for market in markets))
    if places not in FOUND:
        FOUND[places] = chosen(markets, path)
    return FOUND[places]


def chosen(markets: Sequence[Devnet], path: Path) -> list[Victim]:
    """Positions with a health factor between 1.05 and 5 and one dear collateral that is not also their debt."""
    sync_once(path, markets[0].node.url, markets, "borrowers")
    found = []
    for market in markets:
        for (account, group), row in sorted(rows_of(path, market.name).items()):
            health = int(row["health_factor_raw"] or 0)
            if not 105 * WAD // 100 < health < 5 * WAD:
                continue
            held = raw(path, f"select symbol, side, value_usd, is_collateral from balances where deployment = '{market.name}' and account = '{account}' and position_group = '{group}'")  # fmt: skip
            collateral = sorted((b for b in held if b[3] and b[2]), key=lambda b: -b[2])
            if not collateral or collateral[0][2] < 0.8 * sum(b[2] for b in collateral):
                continue
            symbol = group.split("-")[0] if group else collateral[0][0]
            if symbol in {"WETH", "USDC", "DAI"} or symbol in {b[0] for b in held if b[1] == "debt"}:
                continue
            names = getattr(market, "markets", {symbol: None}) if market.protocol == "compound-v2" else {symbol: None}
            symbol = symbol if symbol in names else next(n for n in names if n.endswith(symbol))
            found.append(Victim(market, row["wallet"], PositionKey(account, group), symbol, health))
            break
    assert [v.market.protocol for v in found] == [m.protocol for m in markets]
    return found


@contextmanager
def watching(path: Path, url: str, markets: Sequence[Devnet], **alerts: Any) -> Iterator[Sync]:
    """What `watch run` does, one snapshot at a time, with its alerts left in the outbox."""
    chain = Chain("devnet", CHAIN_ID, [url], MULTICALL3)
    with Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(m) for m in markets], Accounts.WATCHED, Settings(behind_seconds=0.2))
        watcher = Watcher(chain.name, Policy.of(Alerts(**alerts)), [Nowhere()], "https://explorer.example/")
        sync.committer.planners.append(watcher.plan)
        yield sync
    chain.close()


def watch(path: Path, *watches: Watch) -> None:
    with Store(path) as store:
        add(store, watches)


def outbox(path: Path, account: str | None = None) -> list[dict[str, Any]]:
    bodies = [json.loads(body) for (body,) in raw(path, "select body from alerts order by number")]
    return [body for body in bodies if account in (None, body["account"])]


def contract_health(victim: Victim) -> int | None:
    """The contract's own answer now."""
    chain = Chain("devnet", CHAIN_ID, [victim.market.node.url], MULTICALL3)
    adapter, read = adapter_of(victim.market), PinnedReader(chain, chain.block("latest"))
    deployment = KnownDeployment(CHAIN_ID, adapter, wallets=lambda: [victim.wallet])
    build(deployment, read)
    (answer,) = adapter.contract_answers(read, deployment.market, [victim.key])
    chain.close()
    found = answer.columns["health_factor_raw"]
    return None if found is None else int(found)


def expected(path: Sequence[int | None], thresholds: Sequence[int]) -> list[tuple[str, str, int]]:
    """(event, threshold, place) that a path of health factors must be told by, in order."""
    crossed: set[int] = set()
    told = []
    for place, health in enumerate(path):
        ends = [t for t in sorted(crossed) if health is None or health * 50 > t * 51]
        begins = [t for t in sorted(thresholds, reverse=True) if health is not None and health < t and t not in crossed]
        crossed = (crossed - set(ends)) | set(begins)
        told += [("recovered", str(t), place) for t in ends] + [("crossed", str(t), place) for t in begins]
    return told


def test_price_paths_on_every_protocol_are_told_as_the_contracts_answer(undone: list[Devnet], tmp_path: Path) -> None:
    rng = random.Random(11)
    found = victims(undone, tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    for victim in found:
        rules = tuple(Rule(below(1).kind, victim.health * percent // 100) for percent in (97, 85, 70))
        watch(path, Watch(victim.wallet, f"the {victim.market.protocol} one", None, rules))
    prices = [victim.market.price(victim.symbol) for victim in found]
    walks: dict[PositionKey, list[int | None]] = {victim.key: [] for victim in found}
    node = undone[0].node
    with watching(path, node.url, undone) as sync:
        blocks = []
        for step in range(9):
            for victim, price in zip(found, prices, strict=True):
                if step:
                    victim.move(rng.choice([1.05, 1.0, 0.98, 0.965, 0.95, 0.86, 0.84, 0.72, 0.68]), price)
            sync.snapshot()
            blocks.append(node.block_number())
            for victim in found:
                walks[victim.key].append(contract_health(victim))
    for victim in found:
        thresholds = [victim.health * percent // 100 for percent in (97, 85, 70)]
        told = [
            (body["event"], str(scaled(body["threshold_health_factor"])), blocks.index(body["block_number"]))
            for body in outbox(path, victim.key.account)
            if body["position_group"] == victim.key.group and body["rule"].startswith("below")
        ]
        assert told == expected(walks[victim.key], thresholds), victim
        assert len(told) >= 2, victim
        for body in outbox(path, victim.key.account):
            place = blocks.index(body["block_number"])
            if (body["account"], body["position_group"]) == victim.key:
                assert body["health_factor_raw"] == str(walks[victim.key][place])
                assert place == 0 or body["health_factor_before_raw"] == str(walks[victim.key][place - 1])
    checked, wrong = wrong_rows(path, node, undone)
    assert checked >= len(found)
    assert wrong == []


def prices(path: Path, victim: Victim) -> dict[str, float]:
    """Asset -> USD of what a position holds or owes, as stored."""
    return dict(
        raw(
            path,
            "select asset, m.price_usd from markets m join balances b using (chain_id, deployment, asset) "
            f"where account = '{victim.key.account}' and b.position_group = '{victim.key.group}' "
            "and m.position_group in ('', b.position_group)",
        )
    )


def test_an_alert_says_what_a_person_needs(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, *(Watch(v.wallet, "mine", None, (Rule(below(1).kind, v.health * 95 // 100),)) for v in found))
    with watching(path, undone[0].node.url, undone, target=6.0) as sync:
        sync.snapshot()
        before = {victim.key: prices(path, victim) for victim in found}
        for victim in found:  # close to liquidation, where interest alone leads to it
            victim.move(min(0.9, 1.0005 * WAD / victim.health), victim.market.price(victim.symbol))
        block = sync.snapshot().block
    deployments = {market.name: adapter_of(market).deployment for market in undone}
    for victim in found:
        (body,) = [
            b
            for b in outbox(path, victim.key.account)
            if b["position_group"] == victim.key.group and b["rule"].startswith("below")
        ]
        row = rows_of(path, victim.market.name)[victim.key]
        assert (body["event"], body["label"], body["wallet"]) == ("crossed", "mine", victim.wallet)
        assert (body["health_factor_before_raw"], body["health_factor_raw"]) == (str(victim.health), row["health_factor_raw"])  # fmt: skip
        assert (body["debt_usd"], body["collateral_usd"]) == (row["debt_usd"], row["collateral_usd"])
        assert (body["block_number"], body["block_hash"]) == (block.number, block.hash)
        assert body["explorer_url"] == f"https://explorer.example/address/{victim.key.account}"
        after = prices(path, victim)
        moved = {
            c["asset"]: (c["price_before_usd"], c["price_usd"])
            for c in body["price_changes"]
            if c["change_percent"] < -5
        }
        assert moved == {a: (before[victim.key][a], p) for a, p in after.items() if p < before[victim.key][a] * 0.95}
        assert moved
        falls = [p for p in body["liquidation_prices"] if p["collateral"] and not p["debt"]]
        assert falls
        for price in falls:
            distance = (price["liquidation_price"] / price["price"] - 1) * 100
            assert distance == pytest.approx(price["distance_percent"], rel=1e-6, abs=1e-6)
        assert body["target_health_factor"] == "6"
        assert "add" in {remedy["act"] for remedy in body["to_target"]}
        with closing(open_readonly(path)) as conn:
            shown = outlook.stored(conn, deployments, [victim.wallet], 6 * WAD)
        told = shown[(CHAIN_ID, victim.market.name, *victim.key)]
        assert body["seconds_to_liquidation_by_interest"] == told["seconds_to_liquidation_by_interest"]
        for words in ("mine", body["explorer_url"], f"{block.number:,}", "liquidation if", "health factor of 6", "UTC"):
            assert words in body["text"], body["text"]


def test_a_deprecated_market_is_told_at_any_health_until_the_contract_says_no(needs_node: None, tmp_path: Path) -> None:
    with Anvil() as node:
        node.place_multicall3()
        market = compound_v2.deploy(node)
        market.populate(3, 12)
        debtor, factor = market.cast["deprecated-debtor"], 60 * WAD // 100
        market.set_collateral_factor("BAT", factor)
        assert not market.is_deprecated("BAT")
        path = tmp_path / "watched.db"
        watch(path, Watch(debtor, None, None, (below(0.1),)))
        with watching(path, node.url, [market]) as sync:
            sync.snapshot()
            assert outbox(path) == []
            market.deprecate("BAT")
            assert market.is_deprecated("BAT")
            sync.snapshot()
            sync.snapshot()
            (told,) = outbox(path)
            assert (told["rule"], told["event"], told["status"]) == ("liquidatable", "crossed", "liquidatable")
            assert int(told["health_factor_raw"]) > WAD
            assert told["title"].startswith("Liquidatable: ")
            assert "the contract allows liquidation now" in told["text"]
            with closing(open_readonly(path)) as conn:
                assert open_crossings(conn, CHAIN_ID) == 1
            market.set_collateral_factor("BAT", factor)
            sync.snapshot()
    assert [(b["rule"], b["event"]) for b in outbox(path)] == [
        ("liquidatable", "crossed"),
        ("liquidatable", "recovered"),
    ]


def test_a_missing_price_is_told_once_and_so_is_its_return(undone: list[Devnet], tmp_path: Path) -> None:
    market: Any = next(m for m in undone if m.protocol == "aave-v2")
    (victim,) = victims([market], tmp_path / "everyone.db")
    path, price = tmp_path / "watched.db", market.price(victim.symbol)
    watch(path, Watch(victim.wallet, None, None, (below(0.1),)))
    with watching(path, market.node.url, [market]) as sync:
        for raw_price in (price, 0, 0, price, price):
            market.set_price(victim.symbol, raw_price)
            sync.snapshot()
    assert [(b["rule"], b["event"], b["status"] == "unpriceable") for b in outbox(path)] == [
        ("unknown", "crossed", True), ("unknown", "recovered", False)
    ]  # fmt: skip


def test_a_reorg_neither_repeats_a_crossing_nor_leaves_it_open(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path, price = tmp_path / "watched.db", market.price(victim.symbol)
    watch(path, Watch(victim.wallet, None, None, (Rule(below(1).kind, victim.health * 95 // 100),)))
    forks = Forks([market], random.Random(1))
    with watching(path, market.node.url, [market]) as sync:
        sync.snapshot()
        forks.mark()
        victim.move(0.9, price)
        sync.snapshot()
        forks.go_back()  # the price falls on the new chain as well, in another block
        forks.other_blocks(2)
        victim.move(0.9, price)
        sync.snapshot()
        assert [b["event"] for b in outbox(path)] == ["crossed"]
        victim.move(1.0, price)
        sync.snapshot()
        forks.mark()
        victim.move(0.8, price)
        sync.snapshot()
        assert [b["event"] for b in outbox(path)] == ["crossed", "recovered", "crossed"]
        forks.take_back(3)  # and this time it does not
        sync.snapshot()
        sync.snapshot()
    forks.close()
    assert [(b["event"], b["crossing"]) for b in outbox(path)] == [
        ("crossed", 1), ("recovered", 1), ("crossed", 2), ("recovered", 2)
    ]  # fmt: skip
    assert len({b["id"] for b in outbox(path)}) == 4


def test_a_snapshot_that_is_not_committed_queues_nothing(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, Watch(victim.wallet, None, None, (below(900),)))

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with watching(path, market.node.url, [market]) as sync:
        sync.committer.riders.append(fail)
        with pytest.raises(KeyboardInterrupt):
            sync.snapshot()
        assert outbox(path) == []
        sync.committer.riders.pop()
        sync.snapshot()
    assert [b["event"] for b in outbox(path)] == ["crossed"]


def test_a_wallet_watched_again_counts_its_crossings_on(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    for _ in range(2):
        watch(path, Watch(victim.wallet, None, None, (below(900),)))
        with watching(path, market.node.url, [market]) as sync:
            sync.snapshot()
        assert CliRunner().invoke(main, ["--db", str(path), "watch", "remove", victim.wallet]).exit_code == 0
    assert [b["crossing"] for b in outbox(path)] == [1, 2]


# a database of watched wallets alone ----------------------------------------------------------------------------------


def test_watching_alone_asks_no_logs_and_as_much_each_block(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path, node = tmp_path / "watched.db", undone[0].node
    watch(path, *(Watch(v.wallet, None, None, ()) for v in found[-2:]))
    with FaultyNode(node.url) as proxy, watching(path, proxy.url, undone) as sync:
        first = sync.snapshot()
        for _ in range(2):  # until what is read at every block is known, and asked at once
            node.mine(1)
            sync.snapshot()
        outcomes: list[Outcome] = []
        for seed in range(6):
            for market in undone if seed % 2 else []:
                market.step(seed)
            node.mine(1)
            outcomes.append(sync.snapshot())
        assert proxy.calls["eth_getLogs"] == 0
    counts = [outcome.requests for outcome in outcomes]
    print(f"first snapshot: {first.requests} requests, then {counts} for {len(undone)} deployments")
    quiet, busy = counts[::2], counts[1::2]
    for alike in (quiet, busy):
        assert max(alike) - min(alike) <= 2  # hashes kept at growing distances come and go
    assert max(busy) - min(quiet) <= 3  # what changed leads to another round of reads
    assert first.requests < 100
    wallets = {v.wallet for v in found[-2:]}
    assert {row[0] for row in raw(path, "select distinct wallet from positions")} == wallets
    assert wrong_rows(path, node, undone)[1] == []


def test_a_later_sync_fills_the_history_and_a_later_watch_keeps_it(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path, node = tmp_path / "watched.db", undone[0].node
    watch(path, *(Watch(v.wallet, None, None, ()) for v in found))
    watch(path, *(Watch(user, None, None, ()) for user in undone[0].users))  # those who only supply are no borrowers
    with watching(path, node.url, undone) as sync:
        sync.snapshot()
    for market in undone:
        market.step(1)
    sync_once(path, node.url, undone, "borrowers")
    for market in undone:
        known, named = set(rows_of(path, market.name)), named_in_logs(market)
        assert named <= known
        assert known == named or market.protocol == "maker"  # unused vaults of the CdpManager are known there
        market.step(2)
    assert wrong_rows(path, node, undone)[1] == []
    before = {market.name: set(rows_of(path, market.name)) for market in undone}
    with watching(path, node.url, undone) as sync:
        sync.snapshot()
    assert {name for (name,) in raw(path, "select distinct accounts from deployments")} == {"borrowers"}
    for market in undone:
        assert before[market.name] <= set(rows_of(path, market.name))
        assert named_in_logs(market) <= set(rows_of(path, market.name))
    assert wrong_rows(path, node, undone)[1] == []


def test_positions_opened_and_given_while_watching_are_found(undone: list[Devnet], tmp_path: Path) -> None:
    market: Any = next(m for m in undone if m.protocol == "maker")
    path = tmp_path / "watched.db"
    person = "0x" + "ab" * 20
    watch(path, Watch(person, None, None, ()))
    with watching(path, market.node.url, [market]) as sync:
        assert sync.snapshot().positions == 0
        market.open_by_proxy("ETH-A", person, 20 * WAD, 1000 * WAD)
        assert sync.snapshot().positions == 1
    ((via, wallet),) = raw(path, "select owner_via, wallet from positions")
    assert (via, wallet) == ("cdp-manager+ds-proxy", person)
    assert wrong_rows(path, market.node, [market])[1] == []


# the commands ----------------------------------------------------------------------------------------------------------


def test_check_tells_on_standard_output_and_by_its_exit_code(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]) + "\n[alerts]\nblind_after_seconds = 0\nbelow = [900]\n")  # fmt: skip

    def check(*flags: str) -> tuple[int, list[dict[str, Any]]]:
        done = subprocess.run(
            [sys.executable, "-m", "indexer", "watch", "check", "--chain", "devnet", "--max-age", "9999d", *flags],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    watch(tmp_path / "indexer.db", Watch(victim.wallet, "mine", None, ()))
    code, lines = check("--exit-code")
    assert (code, [(a["event"], a["label"], a["rule"]) for a in lines]) == (3, [("crossed", "mine", "below 900")])
    assert check("--command", "false", "--exit-code") == (3, [])
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]) + "\n[alerts]\nblind_after_seconds = 0\nbelow = [800]\n")  # fmt: skip
    assert check("--command", "false") == (1, [])
    assert raw(tmp_path / "indexer.db", "select place, state from deliveries order by number") == [
        ("stdout", "delivered"), ("command false", "pending")
    ]  # fmt: skip
    assert check("--stdout") == (0, [])


def test_watch_add_works_while_another_process_watches(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone[:2], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, Watch(found[0].wallet, None, None, ()))
    with watching(path, undone[0].node.url, undone[:2]) as sync:
        assert sync.snapshot().positions == 1
        assert CliRunner().invoke(main, ["--db", str(path), "watch", "add", found[1].wallet]).exit_code == 0
        undone[0].node.mine(1)
        assert sync.snapshot().positions == 2


def test_the_outbox_survives_in_the_public_tables(tmp_path: Path) -> None:
    with Store(tmp_path / "new.db"):
        pass
    with sqlite3.connect(tmp_path / "new.db") as conn:
        for table in ("watches", "alerts"):
            assert conn.execute(f"select count(*) from {table}").fetchone() == (0,)
