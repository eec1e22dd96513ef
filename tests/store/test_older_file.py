"""A file that an older version wrote (six devnet markets, all verified then) opens, means the same and goes on.

`older/` was made by `make demo`'s own steps with 12 users a market, at the last commit before the packages.
"""

import gzip
from pathlib import Path

import pytest

from indexer.adapter import Liquidation
from indexer.config import load
from indexer.model import Accounts
from indexer.risk.evaluate import status
from indexer.risk.liquidation import outlook
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.store import Store
from tests.truth import adapter_of

OLDER = Path(__file__).parent / "older"
CHAIN_ID = 1337
DEPLOYMENTS = load(OLDER / "indexer.toml", {}).deployments
NAMES = sorted(name for name, deployment in DEPLOYMENTS.items() if deployment.chain == "devnet")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    path = tmp_path / "indexer.db"
    path.write_bytes(gzip.decompress((OLDER / "indexer.db.gz").read_bytes()))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_what_an_older_version_wrote_goes_on(name: str, older: Path) -> None:
    adapter = adapter_of(DEPLOYMENTS[name])
    with Store(older) as store:
        work = TrackedDeployment(store, CHAIN_ID, adapter, Accounts.BORROWERS)
        market = work.previous
        assert market is not None
        work.market = market
        assert not any(work.discovery(market.block.number).values()), "nothing of history is asked for again"
        assert work.activity_gap(market.block.number) == []
        rows = store.conn.execute(
            "select account, position_group, health_factor_raw, debt_value_raw, status from positions where deployment = ?",
            (name,),
        ).fetchall()
        known = {tuple(position.key): position for position in work.held()}
    assert len(rows) == len(known) > 10
    for account, group, health_factor, debt, as_written in rows:
        position = known[account, group]
        health = adapter.evaluate(market, position)
        assert (str(health.health_factor) if health.health_factor is not None else None) == health_factor
        assert str(health.debt_value) == debt
        assert status(health, verified=market.exact) == as_written
        assert isinstance(adapter, Liquidation)
        assert outlook(adapter, market, position).health.has_debt == health.has_debt
