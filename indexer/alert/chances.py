"""How likely watched positions become liquidatable, for rules such as `chance 20%/1d`: asked now and then, not at each block."""

import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from indexer.adapter import Liquidation
from indexer.alert.rules import HUNDRED, Kind
from indexer.alert.watches import Watch
from indexer.forecast.forecast import REFINED, Plan, forecast
from indexer.forecast.pending import Coming
from indexer.model import Position, PositionKey
from indexer.risk.scenario import GROUPS
from indexer.risk.simulate import seconds_per_block
from indexer.snapshot.tracked import TrackedDeployment
from indexer.store.books import Book, Stored
from indexer.store.rows import Snapshot

#: seconds after which it is asked again, and the move of a price after which it is asked before
INTERVAL, MOVED = 600, 0.01

Prices = dict[tuple[str, str], int]


class Chance(NamedTuple):
    """p_unsafe by horizon in seconds, in per cent scaled by 1e18, None where there is no forecast; and what is pending."""

    percent: Mapping[int, int | None]
    coming: Coming | None


@dataclass(slots=True)
class Chances:
    """Forecasts for the rules of watched wallets; `groups` are those of the configuration."""

    groups: Mapping[str, Sequence[str]]
    at: int | None = None
    prices: Prices | None = None

    def of(
        self,
        conn: sqlite3.Connection,
        watched: Mapping[str, Watch],
        snapshots: Sequence[Snapshot],
        tracked: Mapping[str, TrackedDeployment],
    ) -> dict[tuple[str, PositionKey], Chance]:
        """What the rules need, by deployment and position; empty where none is due or no rule asks."""
        horizons = {rule.seconds for watch in watched.values() for rule in watch.rules if rule.kind is Kind.CHANCE}
        wallets = {watch.wallet for watch in watched.values() if any(r.kind is Kind.CHANCE for r in watch.rules)}
        now = max((one.block.timestamp for one in snapshots), default=0)
        prices = prices_of(snapshots)
        if not horizons or not self._due(now, prices):
            return {}
        self.at, self.prices = now, prices
        books, positions = [], {}
        for snapshot in snapshots:
            followed = tracked[snapshot.deployment]
            if isinstance(followed.adapter, Liquidation):
                found = held(snapshot, followed, wallets)
                if found:
                    where = conn, followed.adapter, snapshot.chain_id, snapshot.block.number
                    books.append(Book(snapshot.chain_id, followed.adapter, snapshot.market, Stored(*where)))
                    positions[snapshot.deployment] = found
        paces = {book.chain_id: seconds_per_block(conn, book.chain_id) for book in books}
        plan = Plan(tuple(sorted(horizons)), refined=REFINED)
        found_ = forecast(conn, books, plan, {**GROUPS, **self.groups}, paces, positions=positions)
        return {
            (desk.book.name, case.key): Chance(
                {
                    seconds: None if case.hits is None else case.hits[n] * HUNDRED // case.paths
                    for n, seconds in enumerate(plan.horizons)
                },
                case.coming,
            )
            for desk in found_.desks
            for case in desk.cases
        }

    def _due(self, now: int, prices: Prices) -> bool:
        if self.at is None or self.prices is None or not 0 <= now - self.at < INTERVAL:
            return True
        return any(abs(price - self.prices.get(key, price)) > MOVED * price for key, price in prices.items())


def prices_of(snapshots: Sequence[Snapshot]) -> Prices:
    """The present price of each asset of each deployment."""
    return {
        (snapshot.deployment, row.group or row.asset): row.price
        for snapshot in snapshots
        for row in snapshot.market.assets
        if row.price is not None
    }


def held(snapshot: Snapshot, followed: TrackedDeployment, wallets: Collection[str]) -> list[Position]:
    """The positions of these wallets that a snapshot has rows of."""
    keys = sorted(row.key for row in snapshot.parts.rows() if not set(row.people).isdisjoint(wallets))
    return [position for position in map(followed.position, keys) if position is not None]
