"""A pass over everyone finds who fits a market and makes rows, which stay right until something makes them void."""

from collections.abc import Collection, Hashable, Iterable, Sequence
from dataclasses import replace

import pytest

from indexer.adapter import Reader
from indexer.model import Accounts, Block, Deployment, PositionKey
from indexer.snapshot.everyone import Everyone, evaluate
from indexer.snapshot.known import KnownDeployment
from indexer.store.rows import PositionRow
from protocols.aave_v3 import AaveV3
from protocols.aave_v3.market import AaveV3Market
from protocols.aave_v3.position import AaveV3Position

MODES = (0, 0, 1, 2, 1, 0, 2)
BEFORE, NOW = (Block(number, f"0x{number}", "0x", 12 * number) for number in (1, 2))


class Recording(AaveV3):
    """Remembers by whom it fits a market, and whom it read; `silent` change silently."""

    given: list[PositionKey]
    fits: AaveV3Market | None = None
    silent: Collection[PositionKey] = ()

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.asked: list[PositionKey] = []

    def fit_group(self, market: AaveV3Market, position: AaveV3Position) -> Hashable | None:
        return position.mode or None

    def fit(self, read: Reader, market: AaveV3Market, positions: Iterable[AaveV3Position]) -> AaveV3Market:
        self.given = [position.key for position in positions]
        return self.fits or market

    def changes_silently(self, market: AaveV3Market, position: AaveV3Position) -> bool:
        return position.key in self.silent

    def read_positions(self, read: Reader, market: AaveV3Market, keys: Sequence[PositionKey]) -> list[AaveV3Position]:
        self.asked += keys
        return [replace(position(int(key.account, 16), 0), block_number=NOW.number, mode=9) for key in keys]

    read_health = read_positions


class AtNow:
    """Nothing is read from it."""

    block = NOW


READ: Reader = AtNow()  # type: ignore[assignment]


def position(n: int, mode: int) -> AaveV3Position:
    return AaveV3Position(
        key=PositionKey(f"0x{n:040x}"),
        block_number=1,
        configuration=0,
        mode=mode,
        supplied={},
        borrowed={"0xdebt": 1},
        stable={},
        discounts={},
        amounts={},
    )


@pytest.fixture
def known() -> KnownDeployment:
    deployment = Deployment(
        name="d", protocol="aave-v3", chain="c", start_block=0, addresses={"pool_addresses_provider": "0x1"}
    )
    found = KnownDeployment(1, Recording(deployment), Accounts.BORROWERS)
    found.market = AaveV3Market(block=NOW, revision="now", version="3.5", pool="0xp", oracle="0xo", pool_revision=1)
    found.previous = replace(found.market, block=BEFORE)
    take(found, 0, len(MODES))
    return found


def take(known: KnownDeployment, first: int, last: int) -> None:
    positions = [position(n, MODES[n % len(MODES)]) for n in range(first, last)]
    known.touch({one.key: (1, 1) for one in positions})
    known.take([one.key for one in positions], positions, 1)


class Watching:
    """Remembers whose rows it saw since they were begun."""

    def __init__(self) -> None:
        self.seen: list[PositionKey] = []

    def begin(self) -> None:
        self.seen.clear()

    def see(self, rows: Sequence[PositionRow]) -> None:
        self.seen += [row.key for row in rows]


def everyone(known: KnownDeployment) -> Everyone:
    return Everyone(known, READ, 1.05, Watching())


def fitted_by(known: KnownDeployment) -> list[PositionKey]:
    known.fit(READ)
    return known.adapter.given  # type: ignore[no-any-return]


def keys_of(rows: Iterable[PositionRow]) -> list[PositionKey]:
    return [row.key for row in rows]


def test_one_of_each_group_fits_a_market_once_everyone_was_gone_through(known: KnownDeployment) -> None:
    assert fitted_by(known) == [one.key for one in known.held()]
    assert [*everyone(known)] == [*known.held()]
    assert fitted_by(known) == [position(2, 1).key, position(3, 2).key]


def test_who_is_read_after_that_counts_too(known: KnownDeployment) -> None:
    for _ in everyone(known):
        pass
    take(known, 7, 10)
    assert fitted_by(known) == [one.key for one in known.held()]


def test_a_pass_that_ends_early_has_found_no_groups(known: KnownDeployment) -> None:
    next(iter(everyone(known)))
    assert fitted_by(known) == [one.key for one in known.held()]


def test_rows_are_made_while_others_add_up_and_not_again(known: KnownDeployment) -> None:
    watching = Watching()
    through = Everyone(known, READ, 1.05, watching)
    assert [*through] == [*known.held()]
    rows = evaluate(known, READ, watching)
    assert rows is through.rows
    assert keys_of(rows.rows()) == watching.seen == [one.key for one in known.held()]


@pytest.mark.parametrize("change", ["read again", "fitted otherwise", "new code", "never fitted"])
def test_rows_that_something_made_void_are_made_again(known: KnownDeployment, change: str) -> None:
    watching = Watching()
    if change == "new code":
        known.previous = replace(known.previous, revision="old")  # type: ignore[type-var]
    if change == "never fitted":
        known.previous = None
    through = Everyone(known, READ, 1.05, watching)
    assert len([*through]) == len(MODES)
    if change == "read again":
        take(known, 7, 8)
    if change == "fitted otherwise":
        known.adapter.fits = replace(known.market, base_unit=10**6)
    rows = evaluate(known, READ, watching)
    assert rows is not through.rows
    assert (through.rows is None) == (change in ("new code", "never fitted"))
    assert keys_of(rows.rows()) == watching.seen == [one.key for one in known.held()]


@pytest.mark.parametrize("few", [0, 20])
def test_who_changes_silently_is_read_before_their_row_is_made(
    known: KnownDeployment, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Before anything is computed where they are many; else each is left out until the pass is through, and read then."""
    monkeypatch.setattr("indexer.snapshot.known.PART", 3)
    monkeypatch.setattr("indexer.snapshot.known.FEW", few)
    silent = [position(n, 0).key for n in (1, 2, 5)]
    known.adapter.silent = {*silent}
    at_once = silent if few == 0 else silent[:2]  # of the first PART
    assert known.to_read(READ) == at_once
    known.read(READ, known.to_read(READ))
    rest = [one.key for one in known.held() if one.key not in {*silent} - {*at_once}]
    found = [*everyone(known)]
    assert [one.key for one in found] == [*rest, *(key for key in silent if key not in at_once)]
    assert {one.key for one in found if one.block_number == READ.block.number} == {*silent}
    assert {row.key for row in evaluate(known, READ, Watching()).rows()} == {one.key for one in known.held()}
    assert known.adapter.asked == silent
