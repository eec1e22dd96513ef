"""A row that a screen calls settled makes no point of history, by the exact rule."""

from fractions import Fraction

from hypothesis import example, given
from hypothesis import strategies as st

from indexer.history.history import worth_keeping
from indexer.model import WAD, Block, Deployment, PositionKey, Status
from indexer.snapshot.keys import Keys
from indexer.snapshot.screen import Screen
from indexer.store.rows import POSITION_COLUMNS, PositionRow
from protocols.aave_v3 import AaveV3
from protocols.aave_v3.market import AaveV3Market
from protocols.aave_v3.position import AaveV3Position

KEY = PositionKey("0x" + "1" * 40)
MARKET = AaveV3Market(
    block=Block(1, "0x1", "0x", 12), revision="r", version="3.5", pool="0xp", oracle="0xo", pool_revision=1
)
POSITION = AaveV3Position(
    key=KEY,
    block_number=1,
    configuration=0,
    mode=0,
    supplied={},
    borrowed={"0xdebt": 1},
    stable={},
    discounts={},
    amounts={},
)
statuses = st.sampled_from([*Status])
healths = st.none() | st.integers(0, 10**20)


def row(status: Status, health: int | None) -> PositionRow:
    empty = PositionRow._make([None] * len(POSITION_COLUMNS))
    return empty._replace(
        account=KEY.account,
        position_group=KEY.group,
        status=status.value,
        health_factor_raw=None if health is None else str(health),
        health_factor=None if health is None else health / WAD,
        block_timestamp=12,
    )


def screened(point: PositionRow) -> tuple[Screen, Keys]:
    """A screen of one position, whose last point is that of this row."""
    deployment = Deployment("d", "aave-v3", "c", 0, {"pool_addresses_provider": "0x1"})
    screen, known = Screen(AaveV3(deployment), MARKET, exact_below=1.25, refresh_seconds=600), Keys()
    known.touch(KEY, 1)
    screen.put(0, MARKET, POSITION)
    screen.took(known, [point], {tuple(KEY): (point.status, point.health_factor_raw)}, ())
    return screen, known


@given(statuses, healths, statuses, healths, st.fractions(-1, 1))
@example(Status.HEALTHY, 10**18, Status.HEALTHY, 10**18 + 10**16, Fraction(0))
@example(Status.HEALTHY, 10**18, Status.HEALTHY, 10**18 - 10**16, Fraction(0))
@example(Status.NO_DEBT, None, Status.NO_DEBT, None, Fraction(0))
@example(Status.NO_DEBT, None, Status.HEALTHY, None, Fraction(0))
@example(Status.AT_RISK, 10**18, Status.AT_RISK, 10**18, Fraction(0))
def test_a_settled_row_makes_no_point(
    last: Status, before: int | None, status: Status, health: int | None, near: Fraction
) -> None:
    for now in (health, None if before is None else int(before * (1 + near / 90))):
        screen, known = screened(row(last, before))
        if screen.settled(known, [row(status, now)]):
            assert not worth_keeping(
                (last.value, None if before is None else str(before)), status, None if now is None else str(now)
            )


def test_who_hardly_moved_is_settled_and_nobody_else() -> None:
    screen, known = screened(row(Status.HEALTHY, 2 * WAD))
    assert screen.settled(known, [row(Status.HEALTHY, 2 * WAD + WAD // 100)]) == {tuple(KEY)}
    assert not screen.settled(known, [row(Status.HEALTHY, 2 * WAD + WAD // 50)])
    assert not screen.settled(known, [row(Status.NO_DEBT, 2 * WAD)])


def test_a_point_counts_from_then_on_whoever_asked_for_it() -> None:
    """Whoever was read again makes one however near the last is: the next is measured from it."""
    screen, known = screened(row(Status.HEALTHY, 1_000 * WAD))
    new = row(Status.HEALTHY, 1_009 * WAD)
    settled = screen.settled(known, [new])
    assert settled
    screen.took(known, [new], {tuple(KEY): (new.status, new.health_factor_raw)}, settled)
    assert not screen.settled(known, [row(Status.HEALTHY, 998 * WAD)])
    assert screen.settled(known, [row(Status.HEALTHY, 1_018 * WAD)])


def test_a_row_without_a_new_point_leaves_the_last_one() -> None:
    screen, known = screened(row(Status.HEALTHY, 1_000 * WAD))
    new = row(Status.HEALTHY, 1_009 * WAD)
    screen.took(known, [new], {}, screen.settled(known, [new]))
    assert not screen.settled(known, [row(Status.HEALTHY, 1_018 * WAD)])
