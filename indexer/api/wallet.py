"""One person's positions over all protocols, and what could liquidate them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from indexer.address import checked_address
from indexer.api.positions import Balance, Position
from indexer.api.rows import Record
from indexer.errors import ConfigError
from indexer.units import scaled

if TYPE_CHECKING:
    from indexer.report.outlook import Held

TARGET = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class LiquidationPrice(Record):
    """The nearest price of one asset at which a position becomes liquidatable, if all other prices stay.

    Prices are in `unit`, and in USD where that is known; `_raw` in the oracle's own integer: at `safe_price_raw` the position
    is safe, at `liquidation_price_raw`, its neighbour, it is not. `distance_percent` below 0 is a fall.
    """

    chain_id: int
    deployment: str
    account: str
    position_group: str
    key: str
    symbol: str
    role: str
    price: float
    liquidation_price: float
    unit: str
    price_usd: float | None
    liquidation_price_usd: float | None
    distance_percent: float
    price_raw: int
    safe_price_raw: int
    liquidation_price_raw: int
    price_decimals: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy(Record):
    """The smallest amount to `repay` or `add` (`act`) with which a position reaches a health factor.

    `amount` is in whole tokens, `amount_raw` in the token's smallest unit; `refused` says why the contracts would not take it
    now.
    """

    chain_id: int
    deployment: str
    account: str
    position_group: str
    act: str
    asset: str
    market: str
    symbol: str
    amount: float
    amount_raw: int
    value_usd: float | None
    health_factor: float | None
    health_factor_raw: int | None
    refused: str | None


class Wallet:
    """The positions of one or several wallets, the largest debt first, with their balances.

    `left_out` says what could not be read or computed, and why: nothing is left out without a word.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        positions: Iterable[Position],
        held: Iterable["Held"],
        left_out: Sequence[str] = (),
    ) -> None:
        self.addresses = tuple(addresses)
        self.positions = tuple(positions)
        self.left_out = tuple(left_out)
        self._held = tuple(held)
        self._outlooks: dict[int, Mapping[tuple[Any, ...], Mapping[str, Any]]] = {}

    @property
    def balances(self) -> tuple[Balance, ...]:
        """All balances of all positions."""
        return tuple(balance for position in self.positions for balance in position.balances or ())

    @cached_property
    def _together(self) -> Mapping[str, Any]:
        from indexer.report.together import together

        return together([position.as_row() for position in self.positions])

    @property
    def supply_usd(self) -> float | None:
        """All that is supplied, also what backs no debt; None while a part of it is unknown."""
        found: float | None = self._together["supply_usd"]
        return found

    @property
    def debt_usd(self) -> float | None:
        """All debt; None while a part of it is unknown."""
        found: float | None = self._together["debt_usd"]
        return found

    @property
    def net_usd(self) -> float | None:
        """What is supplied less all debt; None while a part of it is unknown."""
        found: float | None = self._together["net_usd"]
        return found

    @property
    def health_factor_raw(self) -> int | None:
        """The lowest health factor of the positions, scaled by 1e18; None without debt."""
        return min((p.health_factor_raw for p in self.positions if p.health_factor_raw is not None), default=None)

    @property
    def health_factor(self) -> float | None:
        """The lowest health factor of the positions."""
        found: float | None = self._together["health_factor"]
        return found

    def liquidation_prices(self) -> list[LiquidationPrice]:
        """For each position and asset, the price at which it becomes liquidatable; see `indexer show`."""
        return [LiquidationPrice.from_row(row) for row in self._told("liquidation_prices", TARGET)]

    def to_reach(self, health_factor: float) -> list[Remedy]:
        """What to repay or to add so that each position reaches that health factor; nothing for those above it.

        Raises `ConfigError` for a health factor outside 1 to 1,000.
        """
        if not 1 <= health_factor <= 1_000:
            raise ConfigError(f"{health_factor} is no target: a health factor from 1 to 1000")
        return [Remedy.from_row(row) for row in self._told("to_target", health_factor)]

    def seconds_to_liquidation(self) -> dict[tuple[int, str, str, str], int | None]:
        """By key, the seconds until interest alone makes a position with debt liquidatable; None: not in ten years."""
        found = self._ahead(TARGET)
        return {p.key: found[p.key]["seconds_to_liquidation_by_interest"] for p in self.positions if p.key in found}

    def _told(self, what: str, target: float) -> Iterator[dict[str, Any]]:
        found = self._ahead(target)
        for position in self.positions:
            chain_id, deployment, account, group = position.key
            place = {"chain_id": chain_id, "deployment": deployment, "account": account, "position_group": group}
            for row in found.get(position.key, {}).get(what, ()):
                yield {**place, **row}

    def _ahead(self, target: float) -> Mapping[tuple[Any, ...], Mapping[str, Any]]:
        from indexer.report.outlook import outlooks

        goal = scaled(target)
        if goal not in self._outlooks:
            self._outlooks[goal] = outlooks(self._held, goal)
        return self._outlooks[goal]


def addresses_of(given: Sequence[str]) -> list[str]:
    """The addresses in lower case, each once. Raises `ConfigError` for what is none, or fails its checksum."""
    if not given:
        raise ConfigError("say whose positions: at least one address")
    try:
        return list(dict.fromkeys(checked_address(text) for text in given))
    except ValueError as error:
        raise ConfigError(str(error)) from error
