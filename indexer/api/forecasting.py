"""How likely positions become liquidatable, and when."""

import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from indexer.api.rows import Rows

if TYPE_CHECKING:
    from indexer.forecast import forecast as computing
    from indexer.model import Deployment
    from indexer.queries.scope import Scope

HOUR, DAY = 3_600, 86_400
#: an hour, a day and a week
HORIZONS = (HOUR, DAY, 7 * DAY)


class Forecast:
    """What may become of positions that are LEFT ALONE, at each horizon; all rows of it are over the same paths of prices.

    `p_unsafe` is the chance to fail the contract's health test within the time, or where no path failed, or all did,
    `p_unsafe_bound` bounds it; `p_liquidated` is what the past makes of it, unknown until 50 liquidations taught it. `pending_*`
    is decided already, without any chance. `remarks` say who has no forecast, and why.
    """

    def __init__(
        self, found: "computing.Forecast | None", listed: Sequence[Mapping[str, Any]], remarks: Iterable[str]
    ) -> None:
        self._found, self._listed = found, listed
        self.remarks = tuple(remarks)

    def by_position(self) -> Rows:
        """A row for each position and horizon, the likeliest first: the rows of `indexer forecast`."""
        from indexer.forecast.rows import LISTED

        return Rows.of(LISTED, self._listed, self.remarks)

    def by_deployment(self) -> Rows:
        """Expected debt, value at risk and expected shortfall, in USD: the rows of `indexer forecast book`."""
        from indexer.forecast.listed import book_rows
        from indexer.forecast.sums import BOOK_COLUMNS

        rows = [] if self._found is None else book_rows(self._found)
        return Rows.of(BOOK_COLUMNS, rows, self.remarks)

    def by_wallet(self) -> Rows:
        """What each wallet adds to the expected debt, in USD: the rows of `indexer forecast book --by wallet`."""
        return self._parts("by_wallet")

    def by_asset(self) -> Rows:
        """The same by collateral: the rows of `indexer forecast book --by asset`."""
        return self._parts("by_asset")

    def _parts(self, of: str) -> Rows:
        from indexer.forecast.listed import parts
        from indexer.forecast.sums import PART_COLUMNS

        return Rows.of(PART_COLUMNS, [] if self._found is None else parts(self._found, of), self.remarks)


def forecasted(
    conn: sqlite3.Connection,
    known: "Mapping[str, Deployment]",
    groups: Mapping[str, Sequence[str]],
    scope: "Scope",
    *,
    horizons: Sequence[int],
    paths: int | None,
    seed: int,
    exact: bool,
    protocols: Sequence[str],
) -> Forecast:
    """The forecast of what the file holds of the scope. Raises `ConfigError` for a horizon (seconds) that is none."""
    from indexer.forecast import listed

    plan = listed.planned(horizons or HORIZONS, paths, seed, exact=exact)
    said: list[str] = []
    books = listed.chosen(conn, known, say=said.append, wallets=scope.wallets, protocols=protocols, scope=scope)
    if not books:
        return Forecast(None, [], said)
    found = listed.computed(conn, books, plan, groups)
    rows = [row for part in listed.told(conn, found, int(time.time())) for row in part.listed]
    return Forecast(found, rows if scope.wallets else listed.ranked(rows), [*said, *listed.remarks(found, rows)])
