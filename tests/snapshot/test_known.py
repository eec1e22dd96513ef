"""A market is fitted by one position of each group where a pass over everyone has found them, else by everyone."""

from collections.abc import Hashable, Iterable

import pytest

from indexer.adapter import Reader
from indexer.model import Accounts, Deployment, PositionKey
from indexer.snapshot.known import KnownDeployment
from protocols.aave_v3 import AaveV3
from protocols.aave_v3.market import AaveV3Market
from protocols.aave_v3.position import AaveV3Position

MODES = (0, 0, 1, 2, 1, 0, 2)


class Recording(AaveV3):
    """Remembers by whom it fits a market."""

    given: list[PositionKey]

    def fit_group(self, market: AaveV3Market, position: AaveV3Position) -> Hashable | None:
        return position.mode or None

    def fit(self, read: Reader, market: AaveV3Market, positions: Iterable[AaveV3Position]) -> AaveV3Market:
        self.given = [position.key for position in positions]
        return market


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
    take(found, 0, len(MODES))
    return found


def take(known: KnownDeployment, first: int, last: int) -> None:
    positions = [position(n, MODES[n % len(MODES)]) for n in range(first, last)]
    known.take([one.key for one in positions], positions, 1)


def fitted_by(known: KnownDeployment) -> list[PositionKey]:
    known._fit(None)  # type: ignore[arg-type]  # nobody reads here
    return known.adapter.given  # type: ignore[no-any-return]


def test_one_of_each_group_fits_a_market_once_everyone_was_gone_through(known: KnownDeployment) -> None:
    assert fitted_by(known) == [one.key for one in known.held()]
    assert [*known.surveyed()] == [*known.held()]
    assert fitted_by(known) == [position(2, 1).key, position(3, 2).key]


def test_who_is_read_after_that_counts_too(known: KnownDeployment) -> None:
    for _ in known.surveyed():
        pass
    take(known, 7, 10)
    assert fitted_by(known) == [one.key for one in known.held()]


def test_a_pass_that_ends_early_has_found_no_groups(known: KnownDeployment) -> None:
    next(iter(known.surveyed()))
    assert fitted_by(known) == [one.key for one in known.held()]
