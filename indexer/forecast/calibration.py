"""How often positions with some p_unsafe were liquidated: isotonic regression of what happened, by protocol and horizon.

Owners act: most positions that would become unsafe if left alone are repaid in time. What share is not, only the past of
the same protocol tells, and only where enough happened.
"""

import json
import sqlite3
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from indexer.boundary.stored_json import stored_array
from indexer.errors import StoreError
from indexer.forecast import rows
from indexer.forecast.isotonic import fitted
from indexer.queries.known import protocols

#: liquidations below which nothing is said
LEAST_EVENTS = 50
#: seconds after which a fit is made anew
MONTH = 30 * 86_400


class Fit(NamedTuple):
    """One row of `calibrations`: what became of so many forecasts, of which `events` were liquidated."""

    protocol: str
    horizon_seconds: int
    fitted_at: int
    knots: str
    forecasts: int
    events: int
    first_at: int
    last_at: int


def due(conn: sqlite3.Connection, horizons: Sequence[int], now: int) -> list[Fit]:
    """A new fit for each protocol and horizon whose last one is a month old, from what is over by `now`; written down by `save`."""
    found = []
    for protocol in protocols(conn):
        for seconds in horizons:
            last = rows.last_fit(conn, protocol, seconds)
            if last is not None and now - last < MONTH:
                continue
            outcomes = rows.outcomes(conn, protocol, seconds, now)
            events = sum(happened for _, happened, _ in outcomes)
            if events < LEAST_EVENTS:
                continue
            fit = knots_of([(p, happened) for p, happened, _ in outcomes])
            first, last = outcomes[0][2], outcomes[-1][2]
            found.append(Fit(protocol, seconds, now, json.dumps(fit), len(outcomes), events, first, last))
    return found


def save(conn: sqlite3.Connection, fits: Iterable[Fit]) -> None:
    """Writes fits down, in the caller's transaction."""
    for fit in fits:
        rows.save_fit(conn, fit)


def knots(conn: sqlite3.Connection, new: Iterable[Fit] = ()) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """The newest fit of each protocol and horizon that rests on enough liquidations; `new` ones are not written down yet."""
    fits = [*rows.fits(conn, LEAST_EVENTS), *((fit.protocol, fit.horizon_seconds, fit.knots) for fit in new)]
    return {(protocol, seconds): _knots(text, f"calibrations.knots of {protocol}") for protocol, seconds, text in fits}


def _knots(text: str, where: str) -> list[tuple[float, float]]:
    try:
        return [(float(p), float(share)) for p, share in stored_array(text, where)]
    except (TypeError, ValueError):
        raise StoreError(
            f"{where} are damaged: empty the table calibrations, and the next forecast fits them again"
        ) from None


def knots_of(outcomes: Sequence[tuple[float, int]]) -> list[tuple[float, float]]:
    """The fit of what happened on p, as knots at both ends of each step."""
    p, happened = np.array(outcomes, np.float64).T
    curve = fitted(p, happened > 0)
    return list(dict.fromkeys(zip(curve.scores.tolist(), curve.frequencies.tolist(), strict=True)))


def liquidated(chance: float | None, knots: Sequence[tuple[float, float]]) -> float | None:
    """`p_liquidated` for a p_unsafe; None without one, and where history has not taught enough."""
    if chance is None or not knots:
        return None
    return float(np.interp(chance, [p for p, _ in knots], [share for _, share in knots]))
