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
from indexer.model import PositionKey
from indexer.reads.multicall import PinnedReader
from indexer.snapshot.everyone import build
from indexer.snapshot.known import KnownDeployment
from tests import disturbed, faulty_modes
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.devnet.worlds import every_protocol
from tests.disturbed import (
    EVERYONE,
    FORKS,
    IN_COMPANY,
    OMISSIONS,
    PRUNED_HISTORY,
    Company,
    Forks,
    alone_again,
    disturb,
    in_company,
    sync_in_a_child,
    watch_once,
)
from tests.faulty import FaultyNode
from tests.mirror import Mirror
from tests.truth import adapter_of, deployment_of, named_in_logs, raw, rows_of, sync_once, wrong_rows

RUNS, LONG_RUNS, GROUPS = 100, 1000, 10
#: how many processes may share the groups, each with markets of its own: the longest of all tests must not be one queue
LANES = 2


@dataclass
class Report:
    """What the campaign did, printed at its end."""

    runs: int = 0
    syncs: int = 0
    failed: int = 0
    kills: int = 0
    reorged_blocks: int = 0
    rows: int = 0
    told: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    company: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.runs} runs, {self.syncs} syncs ({self.failed} gave up with an error), {self.kills} kills, "
            f"{self.reorged_blocks} blocks reorganised, {self.faults.total()} faults injected, "
            f"{self.company.total()} syncs beside a faithful node, {self.rows} rows compared with the contracts, "
            f"{self.told} alerts, points of history and lines of interest with a faithful file, 0 wrong"
        )


REPORT = Report()


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Devnet]]:
    with every_protocol(7, 16) as found:
        yield found
        print(REPORT)


@dataclass
class Run:
    """One seed: two of the markets, one file, and everything that happens to them."""

    seed: int
    rng: random.Random
    markets: list[Devnet]
    mirror: Mirror
    audits: dict[str, int]
    inherited: bool
    orphaned: int = 0
    #: the node lied, or told nothing of long ago: not all that is in the mirror can be in the file
    doubtful: bool = False
    #: a lie was read by a sync that ended before it had asked anybody else about it
    unasked: bool = False

    @property
    def path(self) -> Path:
        return self.mirror.file

    @property
    def node(self) -> Anvil:
        return self.markets[0].node

    @property
    def operator(self) -> dict[str, bool]:
        """What is 64 blocks old is final here: beyond that, and below a file of another history, an operator is needed."""
        return {"accept_reorg": self.inherited or self.orphaned >= 64}

    @property
    def asking(self) -> dict[str, int]:
        """A lie that was left behind is found like any other wrong row, by whoever compares it with the contracts."""
        return {"audit_sample": EVERYONE} if self.unasked else {}

    @classmethod
    def of(cls, seed: int, everything: list[Devnet], folder: Path) -> "Run":
        rng = random.Random(seed)
        markets = rng.sample(everything, 2)
        accounts = rng.choice(["borrowers", "borrowers", "all"])
        # Without the self-audit, which would mend what it finds, most runs show the machinery behind it alone.
        audits = {} if rng.random() < 0.25 else {"audit_sample": 0, "audit_at_risk": 0}
        deployments = {market.name: deployment_of(market) for market in markets}
        mirror = Mirror(folder / f"{seed}.db", folder / f"{seed}.mirror.db", deployments, accounts)
        inherited = rng.random() < 0.3 and (folder / "before.db").exists()
        if inherited:  # a file of another history: the chain below it was rewound
            shutil.copy(folder / "before.db", mirror.file)
            shutil.copy(folder / "before.db", mirror.path)
        people = sorted({account for market in markets for account, _ in named_in_logs(market)})
        mirror.begin([] if inherited else rng.sample(people, 6))
        return cls(seed, rng, markets, mirror, audits, inherited)

    def happen(self, forks: Forks) -> None:
        """People act, blocks are mined, and some of them are reorganised."""
        forks.mark()
        for market in self.rng.sample(self.markets, self.rng.randint(0, 2)):
            market.step(self.rng.randrange(10**6))
        self.node.mine(self.rng.randint(0, 3), interval=self.rng.choice([1, 12, 3600]))
        while forks.points and self.rng.random() < 0.4:
            self.orphaned += forks.take_back()

    def disturbed_sync(self, faulty: FaultyNode) -> None:
        """One sync by a node that does what it should not, at times beside a faithful one; half of them may be killed."""
        rng = self.rng
        disturb(faulty, rng, self.node.block_number())
        company = Company("alone", [faulty.url], {})
        if rng.random() < 0.25:
            company = in_company(faulty, rng, self.path, self.markets, rng.choice(IN_COMPANY))
            REPORT.company[company.name] += 1
        self.doubtful |= bool(faulty.lies) or PRUNED_HISTORY in faulty.faults
        child = FORKS.Process(
            target=sync_in_a_child,
            args=(self.path, company.urls, list(self.mirror.deployments.values()), self.mirror.accounts),
            kwargs=self.audits | self.asking | self.operator | company.settings,
        )
        child.start()
        child.join(rng.uniform(0, 1.0) if rng.random() < 0.5 else None)
        if child.exitcode is None:
            child.kill()
            child.join()
            REPORT.kills += 1
        honest = not faulty.lies
        self.unasked = child.exitcode != 0 and (self.unasked or not honest)
        alone_again(faulty)
        assert child.exitcode in (0, 1, -9), f"seed {self.seed}: a sync ended with {child.exitcode}"
        REPORT.syncs += 1
        REPORT.failed += child.exitcode == 1
        self.mirror.follow(self.node.url, **self.operator)
        if child.exitcode == 0:
            self.compare(believed_only=not honest)

    def compare(self, *, believed_only: bool = False) -> None:
        """Every row is what the contracts say, or where the node lied every row that the file believes itself."""
        checked, wrong = wrong_rows(self.path, self.node, self.markets)
        if believed_only:
            doubted = {row[0] for row in raw(self.path, "select account from positions where status = 'unverified'")}
            wrong = [line for line in wrong if line.split()[1] not in doubted]
        assert not wrong, f"seed {self.seed}: {len(wrong)} of {checked}: {wrong[:5]}"
        REPORT.rows += checked

    def end(self, faulty: FaultyNode) -> None:
        """A last sync by the faithful node: all is right and nothing is lost."""
        omitted, accounts = any(faulty.injected[name] for name in OMISSIONS), self.mirror.accounts
        self.unasked |= bool(faulty.injected["lies"])
        watch_once(
            self.path,
            self.node.url,
            list(self.mirror.deployments.values()),
            accounts,
            **(self.audits | self.asking | self.operator),
        )
        self.mirror.follow(self.node.url, **self.operator)
        self.compare()
        told, wrong = self.mirror.differences(whole=not (omitted or self.doubtful))
        assert not wrong, f"seed {self.seed}: {len(wrong)} of {told}: {wrong[:5]}"
        REPORT.told += told
        if not (omitted or self.doubtful):
            causes = raw(self.path, "select detail from audits where kind = 'reconciliation'")
            before = raw(self.mirror.path, "select detail from audits where kind = 'reconciliation'")
            assert len(causes) == len(before), f"seed {self.seed}: repaired without a cause: {causes[-1]}"
        for market in self.markets:
            known, named = set(rows_of(self.path, market.name)), named_in_logs(market)
            missing = named - known
            if omitted:  # who owes nothing any more leaves no trace in any sum
                missing = {key for key in missing if owes(market, key)}
            assert not missing, f"seed {self.seed}: {market.name} misses {missing}"
            if accounts == "borrowers" and market.protocol != "maker" and not self.inherited:
                assert known <= named, f"seed {self.seed}: {market.name} invents {known - named}"


def one_run(seed: int, everything: list[Devnet], folder: Path) -> None:
    run = Run.of(seed, everything, folder)
    with ExitStack() as stack:
        faulty = stack.enter_context(FaultyNode(run.node.url, seed=seed, lag=run.rng.randint(1, 4)))
        for market in everything:
            stack.enter_context(market.rewound())
        forks = Forks(everything, run.rng)
        stack.callback(forks.close)
        for _ in range(run.rng.randint(1, 3)):
            run.happen(forks)
            run.disturbed_sync(faulty)
        run.end(faulty)
        REPORT.faults += faulty.injected
        REPORT.reorged_blocks += run.orphaned
    shutil.move(run.path, folder / "before.db")
    run.mirror.path.unlink()
    REPORT.runs += 1


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
@pytest.mark.parametrize("markets", range(LANES), indirect=True)
@pytest.mark.parametrize("turn", range(GROUPS // LANES))
def test_random_runs_end_right(
    turn: int, markets: list[Devnet], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    group = turn * LANES + request.node.callspec.params["markets"]
    for seed in range(group * RUNS // GROUPS, (group + 1) * RUNS // GROUPS):
        one_run(seed, markets, tmp_path)


@pytest.mark.disturbed
@pytest.mark.long
@pytest.mark.parametrize("markets", [0], indirect=True)
def test_many_random_runs_end_right(markets: list[Devnet], tmp_path: Path) -> None:
    deadline = time.monotonic() + float(os.environ.get("CAMPAIGN_SECONDS", "36000"))
    for seed in range(RUNS, RUNS + LONG_RUNS):
        if time.monotonic() > deadline:
            break
        one_run(seed, markets, tmp_path)


def test_every_mode_of_the_faulty_node_is_drawn() -> None:
    faults = {*disturbed.FAULTS, *disturbed.SLOW_FAULTS, *disturbed.PROPERTIES, disturbed.BESIDE, PRUNED_HISTORY}
    assert faults == faulty_modes.FAULTS
    node = FaultyNode("http://127.0.0.1:1")
    ways, statuses = set(), set()
    for seed in range(50):
        disturbed.disturb(node, random.Random(seed), 100)
        ways.add(node.edit)
        statuses.add(node.status)
    assert ways == {*disturbed.WAYS.values()}
    assert statuses == {*disturbed.STATUSES.values()}


@pytest.mark.disturbed
@pytest.mark.parametrize("markets", [0], indirect=True)
def test_a_backend_without_logs_for_a_block_that_it_does_not_know_hides_nobody(
    markets: list[Devnet], tmp_path: Path
) -> None:
    """A load balancer's other backends know it; the header's bloom filter shows that logs are missing."""
    market, path = markets[0], tmp_path / "indexer.db"
    with market.rewound(), FaultyNode(market.node.url, seed=3, lag=3) as faulty:
        sync_once(path, market.node.url, [market], "borrowers", audit_sample=0, audit_at_risk=0)
        faulty.faults = {"lagging": 0.5, "unknown-hash-empty": 1.0}
        for seed in range(4):
            market.step(seed)
            sync_once(
                path,
                faulty.url,
                [market],
                "borrowers",
                audit_sample=0,
                audit_at_risk=0,
                chain_options={"backoff": 0.01},
            )
            assert wrong_rows(path, market.node, [market])[1] == []
        assert faulty.injected["unknown-hash-empty"] > 0
        assert named_in_logs(market) <= set(rows_of(path, market.name))
