"""Random runs of everything that can happen: activity, reorgs, faults of the node, kills. Afterwards all is right.

Every run is a seed. `pytest -m long` runs more of them.
"""

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.model import PositionKey
from indexer.sync.snapshot import KnownDeployment, build
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import every_protocol
from tests.disturbed import FORKS, OMISSIONS, Forks, drawn, sync_in_a_child
from tests.faulty import FaultyNode
from tests.truth import adapter_of, deployment_of, named_in_logs, raw, rows_of, sync_once, wrong_rows

RUNS, LONG_RUNS, GROUPS = 100, 1000, 10


@dataclass
class Report:
    """What the campaign did, printed at its end."""

    runs: int = 0
    syncs: int = 0
    failed: int = 0
    kills: int = 0
    reorged_blocks: int = 0
    rows: int = 0
    faults: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.syncs} syncs ({self.failed} gave up with an error), {self.kills} kills, "
            f"{self.reorged_blocks} blocks reorganised, {self.faults.total()} faults injected, "
            f"{self.rows} rows compared with the contracts, 0 wrong"
        )


REPORT = Report()


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(7, 16) as found:
        yield found
        print(REPORT)


def one_run(seed: int, everything: list[Devnet], folder: Path) -> None:
    rng = random.Random(seed)
    markets = rng.sample(everything, 2)
    node = markets[0].node
    deployments = [deployment_of(market) for market in markets]
    accounts = rng.choice(["borrowers", "borrowers", "all"])
    path = folder / f"{seed}.db"
    # Without the self-audit, which would mend what it finds, most runs show the machinery behind it alone.
    audits = {} if rng.random() < 0.25 else {"audit_sample": 0, "audit_at_risk": 0}
    inherited = rng.random() < 0.3 and (folder / "before.db").exists()
    if inherited:
        shutil.copy(folder / "before.db", path)  # a file of another history: the chain below it was rewound
    repairs = raw(path, "select count(*) from audits where kind = 'reconciliation'") if path.exists() else [(0,)]
    with ExitStack() as stack:
        faulty = stack.enter_context(FaultyNode(node.url, seed=seed, lag=rng.randint(1, 4)))
        for market in everything:
            stack.enter_context(market.rewound())
        forks = Forks(everything, rng)
        stack.callback(forks.close)
        orphaned = 0
        for _ in range(rng.randint(1, 3)):
            forks.mark()
            for market in rng.sample(markets, rng.randint(0, 2)):
                market.step(rng.randrange(10**6))
            node.mine(rng.randint(0, 3), interval=rng.choice([1, 12, 3600]))
            while forks.points and rng.random() < 0.4:
                orphaned += forks.take_back()
            # What is 64 blocks old is final here: beyond that, and below a file of another history, an operator is needed.
            operator = {"accept_reorg": inherited or orphaned >= 64}
            faulty.faults = drawn(rng)
            faulty.range_cap = rng.choice([None, None, 7, 100])
            faulty.batch_cap = rng.choice([None, None, None, 7])
            faulty.silent_cap = rng.choice([None, None, None, 100]) if "bloom" not in str(faulty.faults) else None
            child = FORKS.Process(
                target=sync_in_a_child, args=(path, faulty.url, deployments, accounts), kwargs=audits | operator
            )
            child.start()
            if rng.random() < 0.5:
                child.join(rng.uniform(0, 1.0))
            else:
                child.join()
            if child.exitcode is None:
                child.kill()
                child.join()
                REPORT.kills += 1
            assert child.exitcode in (0, 1, -9), f"seed {seed}: a sync ended with {child.exitcode}"
            REPORT.syncs += 1
            REPORT.failed += child.exitcode == 1
            if child.exitcode == 0:
                compare(seed, path, node, markets)
        REPORT.faults += faulty.injected
        REPORT.reorged_blocks += orphaned
        sync_once(path, node.url, deployments, accounts, behind_seconds=0.2, **audits, **operator)
        compare(seed, path, node, markets)
        if not any(faulty.injected[name] for name in OMISSIONS):
            told = raw(path, "select deployment, detail from audits where kind = 'reconciliation'")
            assert len(told) == repairs[0][0], f"seed {seed}: repaired without a cause: {told[-1]}"
        for market in markets:
            known, named = set(rows_of(path, market.name)), named_in_logs(market)
            missing = named - known
            if any(faulty.injected[name] for name in OMISSIONS):  # who owes nothing any more leaves no trace in any sum
                missing = {key for key in missing if owes(market, key)}
            assert not missing, f"seed {seed}: {market.name} misses {missing}"
            if accounts == "borrowers" and market.protocol != "maker" and not inherited:
                assert known <= named, f"seed {seed}: {market.name} invents {known - named}"
    shutil.copy(path, folder / "before.db")
    path.unlink()
    REPORT.runs += 1


def compare(seed: int, path: Path, node: Anvil, markets: list[Devnet]) -> None:
    checked, wrong = wrong_rows(path, node, markets)
    assert not wrong, f"seed {seed}: {len(wrong)} of {checked}: {wrong[:5]}"
    REPORT.rows += checked


def owes(market: Devnet, key: tuple[str, str]) -> bool:
    """Whether the contracts say that this account has debt now."""
    chain = Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3)
    adapter, read = adapter_of(market), PinnedReader(chain, chain.block("latest"))
    deployment = KnownDeployment(CHAIN_ID, adapter)
    deployment.touch({PositionKey(*key): (read.block.number, read.block.number)})
    build(deployment, read)
    (answer,) = adapter.contract_answers(read, deployment.market, [PositionKey(*key)])
    chain.close()
    return any(amount for (_, side), amount in answer.amounts.items() if side == "debt")


@pytest.mark.disturbed
@pytest.mark.parametrize("group", range(GROUPS))
def test_random_runs_end_right(group: int, markets: list[Devnet], tmp_path: Path) -> None:
    for seed in range(group * RUNS // GROUPS, (group + 1) * RUNS // GROUPS):
        one_run(seed, markets, tmp_path)


@pytest.mark.disturbed
@pytest.mark.long
def test_many_random_runs_end_right(markets: list[Devnet], tmp_path: Path) -> None:
    deadline = time.monotonic() + float(os.environ.get("CAMPAIGN_SECONDS", "36000"))
    for seed in range(RUNS, RUNS + LONG_RUNS):
        if time.monotonic() > deadline:
            break
        one_run(seed, markets, tmp_path)
