"""What is wrong with the oracles of a position's prices, for the rule `oracle`: as the last sync of prices saw them."""

import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from indexer.adapter import Liquidation
from indexer.model import PositionKey
from indexer.prices.oracles import PROBLEMS, rows
from indexer.snapshot.tracked import TrackedDeployment
from indexer.text.values import printable

#: a peg is judged by what the price was in so many days
USUAL_DAYS = 30


class Oracles:
    """The oracles of one deployment's prices at one snapshot; nothing is read before somebody asks."""

    def __init__(self, conn: sqlite3.Connection, tracked: TrackedDeployment) -> None:
        self.conn, self.tracked = conn, tracked
        self.known: dict[str, list[dict[str, Any]]] | None = None

    def wrong(self, key: PositionKey) -> Sequence[str] | None:
        """What is wrong with those that the position's health hangs on; None where no price of it has a followed oracle."""
        position = self.tracked.position(key)
        adapter, market = self.tracked.adapter, self.tracked.market
        if position is None:
            return None
        if isinstance(adapter, Liquidation):
            keys = {price.key for price in adapter.exposure(market, position)}
        else:
            keys = {key.group or balance.asset for balance in adapter.balances(market, position)}
        mine = [row for price in sorted(keys) for row in self._rows().get(price, [])]
        return [words(row) for row in mine if row["state"] in PROBLEMS] if mine else None

    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """The rows of `indexer oracles` by what a price is called in the protocol: its asset, of Maker the ilk."""
        if self.known is None:
            self.known = defaultdict(list)
            name = self.tracked.name
            for row in rows(self.conn, self.tracked.chain_id, None, deployment=name, days=USUAL_DAYS):
                if row["kind"] != "snapshot":
                    self.known[row["position_group"] or row["asset"]].append(row)
        return self.known


def words(row: dict[str, Any]) -> str:
    """What is wrong with one oracle, in a few words."""
    name, feed = printable(row["symbol"]), printable(row["description"] or row["feed"])
    said = {
        "stale": f"has not answered for {row['age_seconds']:,} s, its heartbeat is {row['heartbeat_seconds'] or 0:,} s",
        "overdue": f"is overdue: {row['age_seconds']:,} s old, its heartbeat is {row['heartbeat_seconds'] or 0:,} s",
        "depeg": f"is off its peg: {row['answer']:.4f}" if row["answer"] is not None else "is off its peg",
        "capped": "is cut at its cap",
    }
    return f"the oracle of {name} ({feed}) {said[row['state']]}"
