"""The table `changes`: replayed from an empty list it gives at each step the list of the database."""

import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from indexer.chain.client import Chain
from indexer.model import Accounts
from indexer.settings import Settings
from indexer.store import changes
from indexer.store.store import Store
from indexer.sync.sync import Sync
from tests.devnet import aave_v3, compound_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.compound_v3 import CompoundV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.disturbed import QUICK, Forks
from tests.streaming import at_risk, replayed
from tests.sync.test_follow import one_block
from tests.truth import adapter_of, raw

STEPS = 40


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[tuple[AaveV3, CompoundV3]]:
    with Anvil() as node:
        node.place_multicall3()
        aave, comet = aave_v3.deploy(node, "3.6"), compound_v3.deploy(node)
        aave.populate(5, 20)
        comet.populate(5, 20)
        yield aave, comet


@pytest.fixture
def scene(markets: tuple[AaveV3, CompoundV3]) -> Iterator[tuple[AaveV3, CompoundV3]]:
    with markets[0].rewound(), markets[1].rewound():
        yield markets


@pytest.fixture
def worker(scene: tuple[AaveV3, CompoundV3], tmp_path: Path) -> Iterator[Sync]:
    chain = Chain("devnet", CHAIN_ID, [scene[0].node.url], MULTICALL3, **QUICK)  # type: ignore[arg-type]
    with closing(chain), Store(tmp_path / "list.db") as store, store.lock():
        yield Sync(store, chain, [adapter_of(m) for m in scene], Accounts.BORROWERS, Settings(behind_seconds=0.1))


def lines(path: Path, after: int = 0) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        found = changes.lines_after(conn, CHAIN_ID, after, 10**6)
    assert found is not None
    return found


def shaken(aave: AaveV3, comet: CompoundV3, rng: random.Random) -> None:
    """A block or two after which others are at risk."""
    one_block(aave, comet, rng)
    if rng.random() < 0.5:
        aave.move_price(rng.choice(["WETH", "WBTC", "LINK"]), rng.choice([0.85, 0.93, 1.08, 1.15]))


@pytest.mark.disturbed
@pytest.mark.parametrize("following", [False, True])
def test_replaying_gives_the_list_of_each_step(
    worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path, following: bool
) -> None:
    """Through random activity, prices and reorganisations, also where only the step back was taken as yet."""
    path, rng = tmp_path / "list.db", random.Random(7)
    worker.following = following
    forks = Forks(scene, rng)
    worker.snapshot()
    try:
        for step in range(STEPS):
            if step % 3 == 0:
                forks.mark()
            shaken(*scene, rng)
            if forks.points and rng.random() < 0.25:
                forks.take_back()
                if worker.canon.heal(worker.canon.target("latest")):
                    worker.markets.tracked.clear()
                assert replayed(lines(path)) == at_risk(path)
            worker.snapshot()
            assert replayed(lines(path)) == at_risk(path)
            assert lines(path)[-1]["kind"] == "block"
            assert lines(path)[-1]["block_hash"] == scene[0].node.block()["hash"]
    finally:
        forks.close()
    told = lines(path)
    assert {line["kind"] for line in told} == {"entered", "changed", "left", "reorged", "block"}
    assert [line["id"] for line in told] == sorted({line["id"] for line in told})


def test_a_block_at_which_nothing_changes_is_told_all_the_same(tmp_path: Path) -> None:
    """A reader knows how far the list goes; a step back that changes nothing is no news."""
    path, place = tmp_path / "list.db", changes.Place(5, "0x" + "11" * 32, 1_700_000_000)
    with Store(path) as store:
        for always in (True, False):
            with store.transaction() as conn, changes.noted(conn, CHAIN_ID, place, always=always):
                pass
    (line,) = lines(path)
    assert (line["kind"], line["block_number"], line["block_hash"]) == ("block", 5, place.hash)
    assert replayed([line]) == {}


def test_an_older_target_is_told_as_well(worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    path, node = tmp_path / "list.db", scene[0].node
    worker.snapshot()
    before = node.block_number()
    scene[0].move_price("WETH", 0.8)
    worker.snapshot()
    assert replayed(lines(path)) == at_risk(path)
    worker.snapshot(str(before))
    assert replayed(lines(path)) == at_risk(path)
    assert "reorged" not in {line["kind"] for line in lines(path)}


def test_nothing_is_told_of_a_commit_that_fails(worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    path = tmp_path / "list.db"
    worker.snapshot()
    told = lines(path)

    def fail(*_: Any) -> None:
        raise RuntimeError

    scene[0].move_price("WETH", 0.8)
    worker.committer.riders.append(lambda *_: fail)
    with pytest.raises(RuntimeError):
        worker.snapshot()
    assert lines(path) == told
    worker.committer.riders.pop()
    worker.snapshot()
    assert len(lines(path)) > len(told)
    assert replayed(lines(path)) == at_risk(path)


def test_whole_steps_expire_and_the_newest_stays(
    worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, node = tmp_path / "list.db", scene[0].node
    worker.snapshot()
    first = lines(path)[-1]
    node.mine(1, changes.KEPT_SECONDS - 1_000)
    scene[0].move_price("WETH", 0.95)
    worker.snapshot()
    assert lines(path)[0]["id"] == 1
    second = lines(path)[-1]
    node.mine(1, 2_000)
    scene[0].move_price("WETH", 0.95)
    worker.snapshot()
    assert lines(path)[0]["id"] == first["id"] + 1
    monkeypatch.setattr(changes, "KEPT_ROWS", 1)
    node.mine(1)
    worker.snapshot()
    assert lines(path)[0]["id"] > second["id"]
    node.mine(1, 2 * changes.KEPT_SECONDS)
    newest = lines(path)[-1]["id"]
    worker.snapshot()
    assert raw(path, "select min(id) > ? from changes".replace("?", str(newest))) == [(1,)]


def test_where_a_reader_is_caught_up_from(worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path) -> None:
    """From the first line of a block; a block before the oldest that is kept, or one nobody has seen, needs a snapshot."""
    path, node = tmp_path / "list.db", scene[0].node
    worker.snapshot()
    for _ in range(3):
        scene[0].move_price("WETH", 0.95)
        worker.snapshot()
    told = lines(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        blocks = sorted({line["block_number"] for line in told})
        for block in blocks:
            first = min(line["id"] for line in told if line["block_number"] == block)
            assert changes.start_of(conn, CHAIN_ID, block) == first - 1
        assert changes.start_of(conn, CHAIN_ID, blocks[0] - 1) is None
        assert changes.start_of(conn, CHAIN_ID, node.block_number() + 1) is None
        assert changes.start_of(conn, CHAIN_ID + 1, blocks[0]) is None
        conn.execute("delete from changes where id <= ?", (told[-1]["id"] - 1,))
        assert changes.lines_after(conn, CHAIN_ID, told[-1]["id"] - 1, 10) is None


def test_a_reader_of_an_orphaned_block_is_told_of_the_way_back(
    worker: Sync, scene: tuple[AaveV3, CompoundV3], tmp_path: Path
) -> None:
    path = tmp_path / "list.db"
    forks = Forks(scene, random.Random(3))
    worker.snapshot()
    forks.mark()
    scene[0].move_price("WETH", 0.8)
    scene[0].node.mine(3)
    worker.snapshot()
    seen = lines(path)
    forks.take_back(1)
    worker.snapshot()
    with closing(sqlite3.connect(path, isolation_level=None)) as conn:
        start = changes.start_of(conn, CHAIN_ID, seen[-1]["block_number"])
    assert start is not None
    assert start < seen[-1]["id"]
    mine = {line["id"]: line for line in [*seen, *lines(path, start)]}
    assert replayed(mine.values()) == at_risk(path)
    assert "reorged" in {line["kind"] for line in lines(path, start)}
