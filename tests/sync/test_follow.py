"""The live tail against a real node: hundreds of blocks with reorgs and faults, WebSocket or polling, interrupts."""

import os
import platform
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from indexer.chain import heads as announcing
from indexer.chain.client import Chain
from indexer.chain.heads import Heads
from indexer.memory import share_one_heap
from indexer.model import Accounts, Deployment
from indexer.settings import Settings
from indexer.store.store import Store
from indexer.sync import follow as following
from indexer.sync.follow import follow
from indexer.sync.sync import Outcome, Sync
from tests.devnet import aave_v3, compound_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Actions, random_action
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.disturbed import FAULTS, FORKS, QUICK, Forks
from tests.faulty import FaultyNode
from tests.truth import adapter_of, deployment_of, raw, rows_of, sync_once, token_holders, wrong_aave_rows, wrong_rows

BLOCKS = 300
SETTLED = 150
#: faults whose answers are large: the heap keeps the size that the largest of them needed once
SWELLING = ("deep-json", "gzip-bomb", "long-error")
#: how often each is met before memory is compared: as an answer to each kind of request, of which a block takes few
SWELLED = 6
COMPARE_EVERY = 75


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[tuple[AaveV3, CompoundV3]]:
    with Anvil() as node:
        node.place_multicall3()
        aave, comet = aave_v3.deploy(node, "3.6"), compound_v3.deploy(node)
        aave.populate(5, 12)
        comet.populate(5, 12)
        yield aave, comet


@pytest.fixture
def market(markets: tuple[AaveV3, CompoundV3]) -> Iterator[AaveV3]:
    """The Aave market alone; what a test does to it is undone."""
    with markets[0].rewound():
        yield markets[0]


# hundreds of blocks --------------------------------------------------------------------------------------------------


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def follow_in_a_child(path: Path, url: str, deployments: list[Deployment], told: Connection) -> None:
    """The tail as a process of its own, which sends (block hash, resident bytes) of each snapshot."""
    following.BACKOFF_SECONDS = (0.05,)
    share_one_heap()

    def tell(outcome: Outcome, lag: float) -> None:
        told.send((outcome.block.hash, resident_bytes()))

    with closing(Chain("devnet", CHAIN_ID, [url], MULTICALL3, **QUICK)) as chain, Store(path) as store, store.lock():  # type: ignore[arg-type]
        sync = Sync(store, chain, [adapter_of(d) for d in deployments], Accounts.ALL, Settings())
        with closing(Heads([url])) as heads:
            follow(sync, heads, tell, poll_seconds=0.1, behind_seconds=0.3)


class Tail:
    """A tail in a process of its own; `memory` is what it held after its last snapshot, `highest` after any, in bytes."""

    def __init__(self, path: Path, url: str, markets: tuple[Devnet, ...]) -> None:
        self.told, theirs = FORKS.Pipe(duplex=False)
        deployments = [deployment_of(market) for market in markets]
        self.process = FORKS.Process(target=follow_in_a_child, args=(path, url, deployments, theirs))
        self.process.start()
        theirs.close()
        self.at = ""
        self.memory = self.highest = self.snapshots = 0

    def reach(self, node: Anvil, seconds: float = 60) -> None:
        """Wait until it has taken a snapshot of the node's head."""
        head = node.block()["hash"]
        deadline = time.monotonic() + seconds
        while self.at != head or self.told.poll(0):
            assert self.told.poll(max(deadline - time.monotonic(), 0)), "the tail does not reach the head"
            self.at, self.memory = self.told.recv()
            self.highest = max(self.highest, self.memory)
            self.snapshots += 1

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.told.close()


def one_block(aave: AaveV3, comet: CompoundV3, rng: random.Random) -> None:
    """One block with something in it: a move of somebody, or of a price."""
    kind = rng.choice(["aave", "aave", "comet", "price"])
    if kind == "price":
        aave.move_price(rng.choice(["WETH", "WBTC", "LINK"]), rng.uniform(0.99, 1.01))
    elif kind == "comet":
        who, other = rng.sample(comet.users, 2)
        comet.transfer(who, other, rng.randint(1, 50) * comet.unit, check=False)
    else:
        who = rng.choice([*aave.crowd, *aave.cast.values()])
        for action in random_action(aave, rng, Actions(aave), who)[:1] or [Actions(aave).supply(who, "WETH", 10**15)]:
            sender, to, data, _ = action.transaction
            aave.sender.transact({"to": to, "data": data}, sender, "a move", check=False)


@pytest.mark.disturbed
def test_three_hundred_blocks_with_reorgs_and_faults(markets: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    path, rng = tmp_path / "tail.db", random.Random(1)
    aave, comet = markets
    node = aave.node
    mined = reorganised = compared = settled = 0
    with aave.rewound(), comet.rewound(), FaultyNode(node.url, seed=1) as faulty:
        forks, tail = Forks(markets, rng), Tail(path, faulty.url, markets)
        try:
            tail.reach(node)
            while mined < BLOCKS:
                forks.mark()
                faulty.faults = {name: rng.uniform(0.05, 0.15) for name in rng.sample(FAULTS, 2)}
                for _ in range(rng.randint(1, 4)):
                    one_block(aave, comet, rng)
                    mined += 1
                    if rng.random() < 0.4:
                        tail.reach(node)
                while forks.points and rng.random() < 0.45:
                    before = node.block_number()
                    orphaned = forks.take_back()
                    reorganised += orphaned
                    mined += node.block_number() - before + orphaned
                    if rng.random() < 0.5:
                        tail.reach(node)
                if mined // COMPARE_EVERY > compared or mined >= BLOCKS:
                    compared += 1
                    faulty.faults = {}
                    node.mine(1)
                    tail.reach(node)
                    checked, wrong = wrong_rows(path, node, markets)
                    assert checked > 40
                    assert wrong == []
                    assert raw(path, "select distinct block_number from deployments") == [(node.block_number(),)]
                    assert wrong_aave_rows(path, aave, token_holders(aave)) == []
                if mined >= SETTLED and not settled:
                    for fault in SWELLING:
                        faulty.faults, met = {fault: 0.3}, faulty.injected[fault]
                        while faulty.injected[fault] < met + SWELLED:
                            one_block(aave, comet, rng)
                            mined += 1
                            tail.reach(node)
                    settled = tail.highest
            assert tail.process.is_alive()
        finally:
            forks.close()
            tail.stop()
        print(
            f"{mined} blocks, {reorganised} of them orphaned, {tail.snapshots} snapshots, {faulty.injected.total()} "
            f"faults, {settled / 2**20:.1f} MiB after {SETTLED} blocks, {tail.memory / 2**20:.1f} MiB at the end"
        )
        assert reorganised > 30
        assert faulty.injected.total() > 100
        assert tail.snapshots > 60
        assert tail.memory < settled * 1.1, f"{settled} bytes, then {tail.memory}"


# heads and polling ---------------------------------------------------------------------------------------------------


class Follower:
    """A tail in a thread; `blocks` are the numbers of its snapshots."""

    def __init__(self, path: Path, url: str, heads: Heads, market: Devnet, **options: Any) -> None:
        self.blocks: list[int] = []
        self._heads = heads
        self._chain = Chain("devnet", CHAIN_ID, [url], MULTICALL3, **QUICK)  # type: ignore[arg-type]
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(path, market, options))
        self._thread.start()

    def _run(self, path: Path, market: Devnet, options: dict[str, Any]) -> None:
        with Store(path) as store:
            sync = Sync(store, self._chain, [adapter_of(market)], Accounts.BORROWERS)
            follow(sync, self._heads, self._tell, until=self._ended.is_set, **options)

    def _tell(self, outcome: Outcome, _lag: float) -> None:
        self.blocks.append(outcome.block.number)

    def reaches(self, number: int, seconds: float = 20) -> bool:
        return eventually(lambda: self.blocks[-1:] == [number], seconds)

    def close(self) -> None:
        self._ended.set()
        self._heads._news.set()
        self._thread.join(30)
        assert not self._thread.is_alive()
        self._heads.close()
        self._chain.close()


def eventually(holds: Callable[[], bool], seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Wire:
    """Forwards connections to a node, and can cut them all."""

    def __init__(self, port: int) -> None:
        self.port, self.open = port, True
        self.ends: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.listener.getsockname()[1]}"

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                if not self.open:
                    near.close()
                    continue
                far = socket.create_connection(("127.0.0.1", self.port))
                self.ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pump, args=(source, target), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        self.open = False
        for end in self.ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.ends.clear()

    def close(self) -> None:
        self.cut()
        self.listener.close()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without news nothing happens for minutes; a lost connection is tried again at once."""
    monkeypatch.setattr(following, "HEARTBEAT_SECONDS", 300.0)
    monkeypatch.setattr(announcing, "RECONNECT_SECONDS", 0.05)


def test_heads_wake_the_tail_and_polling_takes_over(market: AaveV3, tmp_path: Path, patient: None) -> None:
    node = market.node
    with closing(Wire(node.port)) as wire:
        heads = Heads([wire.url])
        assert eventually(lambda: heads.connected)
        with closing(Follower(tmp_path / "heads.db", node.url, heads, market, poll_seconds=0.05)) as tail:
            for _ in range(3):
                node.mine(1)
                assert tail.reaches(node.block_number())
            time.sleep(0.5)  # now it waits for news
            wire.cut()
            assert eventually(lambda: not heads.connected)
            node.mine(1)
            assert tail.reaches(node.block_number()), "no polling after the connection was lost"
            wire.open = True
            assert eventually(lambda: heads.connected), "no second connection"
            node.mine(1)
            assert tail.reaches(node.block_number())


def test_an_endpoint_without_websocket_is_polled(market: AaveV3, tmp_path: Path, patient: None) -> None:
    with FaultyNode(market.node.url) as plain:
        heads = Heads([plain.url])
        with closing(Follower(tmp_path / "poll.db", plain.url, heads, market, poll_seconds=0.05)) as tail:
            for _ in range(2):
                market.node.mine(1)
                assert tail.reaches(market.node.block_number())
            assert not heads.connected


@pytest.mark.disturbed
def test_a_head_announced_too_early_is_asked_for_again(market: AaveV3, tmp_path: Path, patient: None) -> None:
    node = market.node
    with FaultyNode(node.url, lag=1) as backend:
        heads = Heads([node.url])
        assert eventually(lambda: heads.connected)
        with closing(Follower(tmp_path / "early.db", backend.url, heads, market, poll_seconds=0.05)) as tail:
            assert tail.reaches(node.block_number())
            backend.faults = {"lagging": 1.0}
            node.mine(1)
            time.sleep(0.3)
            backend.faults = {}
            assert tail.reaches(node.block_number())


# nodes that lag or are down --------------------------------------------------------------------------------------------


@pytest.mark.disturbed
def test_a_node_that_lags_rolls_nothing_back(market: AaveV3, tmp_path: Path) -> None:
    path, node = tmp_path / "lag.db", market.node
    node.mine(3)
    with FaultyNode(node.url, lag=3) as backend:
        heads = Heads([])
        with closing(Follower(path, backend.url, heads, market, poll_seconds=0.02)) as tail:
            assert tail.reaches(node.block_number())
            for share in (0.5, 1.0, 0.5):
                backend.faults = {"lagging": share}
                for _ in range(2):
                    node.mine(1)
                    time.sleep(0.3)
                assert raw(path, "select count(*) from positions where status = 'unverified'") == [(0,)]
            backend.faults = {}
            assert tail.reaches(node.block_number())
            assert tail.blocks == sorted(tail.blocks), "went back"
            assert backend.injected["lagging"] > 0
    assert raw(path, "select count(*) from audits where kind = 'reorg'") == [(0,)]


@pytest.mark.disturbed
@pytest.mark.parametrize("to", ["latest:-3", "finalized"])
def test_a_tail_of_older_blocks_rolls_nothing_back_either(market: AaveV3, tmp_path: Path, to: str) -> None:
    path, node = tmp_path / "older.db", market.node
    sync_once(path, node.url, [market], "borrowers")  # a newer snapshot, which has to go back once
    with (
        FaultyNode(node.url, lag=2, faults={"lagging": 0.5}) as backend,
        closing(Follower(path, backend.url, Heads([]), market, poll_seconds=0.02, to=to)) as tail,
    ):
        for _ in range(8):
            node.mine(1)
            time.sleep(0.1)
            wanted = int(node.rpc("eth_getBlockByNumber", to.partition(":")[0], False)["number"], 16)
            assert tail.reaches(wanted - 3 * (to == "latest:-3"))
        assert tail.blocks == sorted(tail.blocks), "went back"
        assert backend.injected["lagging"] > 0
    known = {account for account, _ in rows_of(path, market.name)}
    assert wrong_aave_rows(path, market, known) == []


def test_a_tail_survives_a_node_that_is_down_and_skips_to_the_newest_block(
    market: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "BACKOFF_SECONDS", (0.1,))
    path, node = tmp_path / "down.db", market.node
    with (
        FaultyNode(node.url) as backend,
        closing(Follower(path, backend.url, Heads([]), market, poll_seconds=0.02)) as tail,
    ):
        assert tail.reaches(node.block_number())
        backend.down = True
        node.mine(10)
        market.step(1)
        time.sleep(1)
        before = len(tail.blocks)
        backend.down = False
        assert tail.reaches(node.block_number())
        assert len(tail.blocks) == before + 1
    assert wrong_rows(path, node, [market])[1] == []


# interrupts ------------------------------------------------------------------------------------------------------------

LINE = re.compile(
    r"devnet block (\d+): \d+ positions?, \d+ wallets? at risk; \d+ logs?, \d+ read, \d+ requests?, [\d,]+ (s|min|h|days) old"
    r"(; of \d+ positions the supplies that back no debt are not read yet)?\n"
)


@contextmanager
def command(path: Path, url: str, market: AaveV3, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """`indexer sync --follow` as people start it."""
    config = path.with_suffix(".toml")
    config.write_text(config_toml(CHAIN_ID, url, [market]))
    arguments = ["--config", str(config), "--db", str(path), "sync", "--chain", "devnet", "--follow", *flags]
    process = subprocess.Popen([sys.executable, "-m", "indexer", *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


#: glibc reserves this much address space for each heap of a thread's own, at a multiple of it
HEAP = 64 * 2**20


def heaps_of_threads(pid: int) -> int:
    """How many heaps a process has besides the one that all its threads share."""
    found = 0
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split(maxsplit=5)
        first, last = (int(end, 16) for end in span.split("-"))
        found += not name and rights == "rw-p" and first % HEAP == 0 and last - first < HEAP
    return found


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no heap a thread")
def test_the_threads_of_a_tail_share_one_heap(market: AaveV3, tmp_path: Path) -> None:
    """Else each keeps the size of the largest answer that it ever took."""
    with command(tmp_path / "heaps.db", market.node.url, market) as process:
        assert process.stderr is not None
        assert LINE.fullmatch(process.stderr.readline())
        market.node.mine(1)
        assert LINE.fullmatch(process.stderr.readline())
        assert heaps_of_threads(process.pid) == 0


def test_rows_are_as_new_as_the_flag_says(market: AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "refreshed.db"
    for seconds, kept in (("0", False), ("600", True)):
        with command(path, market.node.url, market, "--refresh-seconds", seconds) as process:
            assert process.stderr is not None
            assert LINE.fullmatch(process.stderr.readline())
            market.node.mine(1)
            assert LINE.fullmatch(process.stderr.readline())
        older = raw(path, "select count(*) from positions where block_number < (select block_number from deployments)")
        assert (older[0][0] > 0) == kept


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--refresh-seconds", "60"], ["--follow", "--refresh-seconds", "-1"]])
def test_an_age_of_rows_is_for_a_sync_that_follows(tmp_path: Path, flags: list[str]) -> None:
    path = tmp_path / "refused.db"
    words = [sys.executable, "-m", "indexer", "--db", str(path), "sync", *flags]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--refresh-seconds" in done.stderr
    assert not path.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_an_interrupt_names_the_last_snapshot(
    market: AaveV3, tmp_path: Path, number: signal.Signals, busy: bool
) -> None:
    path, node = tmp_path / "stop.db", market.node
    with FaultyNode(node.url, hang_seconds=60) as backend, command(path, backend.url, market) as process:
        assert process.stderr is not None
        line = LINE.fullmatch(process.stderr.readline())
        assert line is not None
        last = node.block_number()
        assert int(line[1]) == last
        if busy:  # the next snapshot is stuck in the middle when the signal comes
            sent = backend.requests
            node.mine(1)
            assert eventually(lambda: backend.requests > sent + 2)
            backend.faults = {"hang": 1.0}
            market.step(1)
            assert eventually(lambda: backend.injected["hang"] > 0)
            last = raw(path, "select max(block_number) from deployments")[0][0]
        else:
            time.sleep(0.5)  # a signal in the middle of writing that line would write it twice
        process.send_signal(number)
        told = process.stderr.read()
        assert process.wait(30) == 0
        stopped = f"Stopped. The last snapshot is of block {last}; the same command goes on from there.\n"
        assert told.endswith(stopped)
        assert told.count("\n") == (1 if not busy else 1 + len(LINE.findall(told)))
    assert raw(path, "pragma integrity_check") == [("ok",)]
    assert raw(path, "select distinct block_number from positions") == [(last,)]
    assert wrong_rows(path, node, [market])[1] == []
    sync_once(path, node.url, [market], "borrowers")
    assert wrong_aave_rows(path, market, market.borrowers) == []


def test_an_interrupt_before_the_first_snapshot_says_so(market: AaveV3, tmp_path: Path) -> None:
    path = tmp_path / "first.db"
    with FaultyNode(market.node.url, hang_seconds=60) as backend, command(path, backend.url, market) as process:
        assert process.stderr is not None
        assert eventually(lambda: backend.calls["eth_call"] > 1)
        backend.faults = {"hang": 1.0}
        assert eventually(lambda: backend.injected["hang"] > 0)
        process.terminate()
        told = process.stderr.read()
        assert process.wait(30) == 0
    assert told == "Stopped before the first snapshot. What was saved stays; the same command goes on from there.\n"
    sync_once(path, market.node.url, [market], "borrowers")
    assert wrong_aave_rows(path, market, market.borrowers) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_while_the_node_is_looked_for_ends_as_well(
    market: AaveV3, tmp_path: Path, number: signal.Signals
) -> None:
    path = tmp_path / "none.db"
    with (
        FaultyNode(market.node.url, hang_seconds=60, faults={"hang": 1.0}) as backend,
        command(path, backend.url, market) as process,
    ):
        assert process.stderr is not None
        assert eventually(lambda: backend.injected["hang"] > 0)
        process.send_signal(number)
        told = process.stderr.read()
        assert process.wait(30) == 0
    assert told == "Stopped before the first snapshot. What was saved stays; the same command goes on from there.\n"
    assert not path.exists()
