"""Reorgs of the local node's chain, at every depth and moment: no row of an orphaned block survives."""

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.devnet import aave_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.aave_v3_scenario import Actions
from tests.devnet.maker import WAD, Maker
from tests.devnet.node import Anvil
from tests.devnet.send import account
from tests.disturbed import FORKS, QUICK, Forks, Moment, sync_in_a_child
from tests.faulty import FaultyNode
from tests.truth import deployment_of, raw, rows_of, sync_once, token_holders, wrong_aave_rows, wrong_rows


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[tuple[AaveV3, Maker]]:
    with Anvil() as node:
        node.place_multicall3()
        aave, vat = aave_v3.deploy(node, "3.6"), maker.deploy(node)
        aave.populate(3, 12)
        vat.populate(3, 12)
        yield aave, vat


@pytest.fixture
def market(markets: tuple[AaveV3, Maker]) -> Iterator[AaveV3]:
    """The Aave market alone; what a test does to it is undone."""
    with markets[0].rewound():
        yield markets[0]


@pytest.fixture
def forks(market: AaveV3) -> Iterator[Forks]:
    found = Forks([market], random.Random(1))
    yield found
    found.close()


def perform(market: AaveV3, act: Callable[[Actions], object]) -> None:
    """One transaction of Aave's scenario in a block of its own."""
    sender, to, data, _ = act(Actions(market)).transaction  # type: ignore[attr-defined]
    market.sender.transact({"to": to, "data": data}, sender, "a move", check=True)


def newcomer(market: AaveV3, label: str) -> str:
    """Somebody new with collateral and debt."""
    who = account(label)
    market.sender.fund(who)
    perform(market, lambda act: act.supply(who, "WETH", 10**19))
    perform(market, lambda act: act.borrow(who, "USDC", 10**9))
    return who


def check(path: Path, market: AaveV3) -> None:
    """Every row is of the head and what the contracts answer there, and nobody is missing or invented."""
    node = market.node
    assert wrong_aave_rows(path, market, token_holders(market)) == []
    assert wrong_rows(path, node, [market])[1] == []
    head = node.block()
    assert raw(path, "select distinct block_number, block_hash from positions") == [
        (int(head["number"], 16), head["hash"])
    ]


# depths ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2, 7, 30, 100])
def test_a_reorg_of_any_depth_reads_only_who_was_touched(
    market: AaveV3, forks: Forks, tmp_path: Path, depth: int
) -> None:
    path = tmp_path / "depth.db"
    sync_once(path, market.node.url, [market])
    forks.mark()
    supplier = market.cast["supplier"]
    perform(market, lambda act: act.withdraw(supplier, "WETH", 10**15))
    forks.other_blocks(depth - 1)
    sync_once(path, market.node.url, [market])
    assert forks.take_back(depth + 1) == depth
    with FaultyNode(market.node.url) as second:  # the node calls what is 64 blocks old final
        outcome = sync_once(path, [market.node.url, second.url], [market])
    check(path, market)
    assert outcome.read <= 2, "positions that no event touched were read again"
    told = raw(path, "select json_extract(detail, '$.confirmed_by') from audits where kind = 'reorg'")
    assert told == [("second endpoint" if depth > 64 else None,)]


def test_beyond_the_kept_window_everything_is_read_again(market: AaveV3, forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "window.db"
    forks.mark()
    perform(market, lambda act: act.withdraw(market.cast["supplier"], "WETH", 10**15))
    forks.other_blocks(70)
    sync_once(path, market.node.url, [market], keep_blocks=8, keep_seconds=0)
    kept = raw(path, "select number from blocks order by number")
    assert kept[0][0] > market.node.block_number() - 70, "the test needs a reorg below every kept hash"
    forks.take_back(75)
    outcome = sync_once(path, market.node.url, [market], keep_blocks=8, keep_seconds=0, accept_reorg=True)
    check(path, market)
    assert outcome.read == outcome.positions
    told = "json_extract(detail, '$.ancestor'), json_extract(detail, '$.confirmed_by')"
    assert raw(path, f"select {told} from audits where kind = 'reorg'") == [(-1, "operator")]


def test_a_chain_that_got_shorter_and_grows_again(market: AaveV3, forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "shorter.db"
    sync_once(path, market.node.url, [market])
    forks.mark()
    newcomer(market, "too late")
    forks.other_blocks(3)
    sync_once(path, market.node.url, [market])
    forks.go_back()
    sync_once(path, market.node.url, [market], behind_seconds=0.2)
    check(path, market)
    forks.other_blocks(1)
    sync_once(path, market.node.url, [market], behind_seconds=0.2)
    check(path, market)


# who was touched ---------------------------------------------------------------------------------------------------------


def test_an_account_touched_only_in_an_orphaned_block_is_as_before(
    market: AaveV3, forks: Forks, tmp_path: Path
) -> None:
    """What it did there shows in no sum, and no sample is compared: only the reorg itself tells."""
    path, who = tmp_path / "touched.db", market.cast["supplier"]
    unaudited = {"audit_sample": 0, "audit_at_risk": 0}
    sync_once(path, market.node.url, [market], **unaudited)
    before = rows_of(path, market.name)[who, ""]
    forks.mark()
    perform(market, lambda act: act.use_as_collateral(who, "WETH", False))
    sync_once(path, market.node.url, [market], **unaudited)
    assert rows_of(path, market.name)[who, ""]["collateral_value_raw"] == "0" != before["collateral_value_raw"]
    forks.take_back(1)
    sync_once(path, market.node.url, [market], **unaudited)
    check(path, market)


def test_who_is_found_only_in_an_orphaned_block_is_gone(market: AaveV3, forks: Forks, tmp_path: Path) -> None:
    path = tmp_path / "found.db"
    sync_once(path, market.node.url, [market])
    forks.mark()
    orphan = newcomer(market, "orphan")
    sync_once(path, market.node.url, [market])
    assert (orphan, "") in rows_of(path, market.name)
    forks.take_back(4)
    heir = newcomer(market, "heir")
    sync_once(path, market.node.url, [market])
    assert {(orphan, ""), (heir, "")} & set(rows_of(path, market.name)) == {(heir, "")}
    check(path, market)
    for table in ("events", "states", "balances"):
        assert raw(path, f"select count(*) from {table} where account = '{orphan}'") == [(0,)]


def test_a_vault_whose_number_another_vault_takes_over(markets: tuple[AaveV3, Maker], tmp_path: Path) -> None:
    vat, path = markets[1], tmp_path / "vault.db"
    with vat.rewound():
        forks = Forks([vat], random.Random(1))
        sync_once(path, vat.node.url, [vat])
        forks.mark()
        first = vat.open_vault("ETH-A", account("first owner"))
        vat.fill_vault(first, 30 * WAD, 500 * WAD)
        urn = vat.vaults[first][1]
        sync_once(path, vat.node.url, [vat])
        assert rows_of(path, vat.name)[urn, "ETH-A"]["owner"] == account("first owner")
        forks.take_back(1)
        second = vat.open_vault("ETH-B", account("second owner"))
        assert (second, vat.vaults[second][1]) == (first, urn), "the manager gives the number and the urn again"
        vat.fill_vault(second, 40 * WAD, 500 * WAD)
        sync_once(path, vat.node.url, [vat])
        rows = rows_of(path, vat.name)
        assert (urn, "ETH-A") not in rows
        assert rows[urn, "ETH-B"]["owner"] == account("second owner")
        assert wrong_rows(path, vat.node, [vat])[1] == []
        forks.close()


# moments ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False], ids=["first sync", "refresh"])
def test_a_reorg_right_before_any_request_of_a_snapshot(market: AaveV3, tmp_path: Path, first: bool) -> None:
    base, path = tmp_path / "base.db", tmp_path / "moment.db"
    if not first:
        sync_once(base, market.node.url, [market])
    number = count = 1
    while number <= count:
        with market.rewound():
            forks = Forks([market], random.Random(number))
            forks.mark()
            orphan = newcomer(market, "orphan")
            forks.other_blocks(2)
            path.unlink(missing_ok=True)
            if not first:
                path.write_bytes(base.read_bytes())

            def reorganise(request: int, at: int = number, forks: Forks = forks) -> None:
                if request == at:
                    forks.take_back(1)
                    newcomer(market, "heir")
                    forks.other_blocks(4)

            with Moment(market.node.url, reorganise) as node:
                # nothing is audited: what is found wrong there would be mended
                sync_once(path, node.url, [market], chain_options=QUICK, audit_sample=0, audit_at_risk=0)
                count = max(count, node.requests if number == 1 else 0)
            check(path, market)
            assert (orphan, "") not in rows_of(path, market.name)
            assert (account("heir"), "") in rows_of(path, market.name)
            forks.close()
        number += 1
    assert count > 8


@pytest.mark.parametrize("first", [True, False], ids=["first sync", "refresh"])
def test_a_reorg_after_a_sync_was_killed_with_its_logs_saved(market: AaveV3, tmp_path: Path, first: bool) -> None:
    path = tmp_path / "killed.db"
    if not first:
        sync_once(path, market.node.url, [market])
    forks = Forks([market], random.Random(1))
    forks.mark()
    orphan = newcomer(market, "orphan")
    forks.other_blocks(2)
    child = FORKS.Process(target=sync_in_a_child)

    def kill_behind_the_logs(request: int) -> None:
        if request > 3 and raw(path, f"select 1 from events where account = '{orphan}'"):
            child.kill()

    with Moment(market.node.url, kill_behind_the_logs) as node:
        child = FORKS.Process(target=sync_in_a_child, args=(path, node.url, [deployment_of(market)]))
        child.start()
        child.join()
        assert child.exitcode == -9
    forks.take_back(1)
    newcomer(market, "heir")
    forks.other_blocks(4)
    sync_once(path, market.node.url, [market])
    check(path, market)
    assert (orphan, "") not in rows_of(path, market.name)
    forks.close()


# a chain that goes on -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repin_seconds", [0.0, 120.0], ids=["new pin at each chunk", "one pin"])
def test_people_act_while_a_long_first_read_goes_on(market: AaveV3, tmp_path: Path, repin_seconds: float) -> None:
    """What is in no sum changes, behind and before each account is read."""
    path, users = tmp_path / "long.db", itertools.cycle(market.users)

    def act(request: int) -> None:
        for who in itertools.islice(users, 3) if 5 < request < 40 else ():
            flag = bool(market.user_reserves(who)["WETH"][8])
            sender, to, data, _ = Actions(market).use_as_collateral(who, "WETH", not flag).transaction
            market.sender.transact({"to": to, "data": data}, sender, "a move", check=False)
            market.node.mine(1)

    with Moment(market.node.url, act) as node:
        options = {"read_chunk": 3, "repin_seconds": repin_seconds, "audit_sample": 0, "audit_at_risk": 0}
        outcome = sync_once(path, node.url, [market], chain_options=QUICK, **options)
        assert outcome.read > outcome.positions * (repin_seconds == 0), "who was touched meanwhile is read again"
    rows = rows_of(path, market.name)
    known = {account for account, _ in rows}
    assert wrong_aave_rows(path, market, known) == []
    assert token_holders(market) - known == set()
