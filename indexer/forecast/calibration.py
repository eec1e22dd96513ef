"""How often positions with some p_unsafe were liquidated: isotonic regression of what happened, by protocol and horizon.

Owners act: most positions that would become unsafe if left alone are repaid in time. What share is not, only the past of
the same protocol tells, and only where enough happened.
"""

import json
import sqlite3
from collections.abc import Sequence

import numpy as np

from indexer.boundary.stored_json import stored_array
from indexer.errors import StoreError
from indexer.forecast.isotonic import fitted

#: liquidations below which nothing is said
LEAST_EVENTS = 50
#: seconds after which a fit is made anew
MONTH = 30 * 86_400

#: forecasts whose horizon is over, with p_unsafe or what stands for it, and whether the position was liquidated in it;
#: only of times and deployments of which every liquidation is known
OUTCOMES = """
select case when f.hits in (0, f.paths) then (f.hits + 0.0) / f.paths else f.p_unsafe end,
    exists (select 1 from liquidations l where (l.chain_id, l.deployment, l.account, l.position_group)
        = (f.chain_id, f.deployment, f.account, f.position_group)
        and l.block_number > f.block_number and l.block_timestamp <= f.block_timestamp + f.horizon_seconds),
    f.block_timestamp
from forecasts f join deployments d using (chain_id, deployment)
where d.protocol = ?1 and f.horizon_seconds = ?2 and f.hits is not null and f.kept
    and d.liquidations_from_block <= f.block_number and f.block_timestamp + f.horizon_seconds < d.block_timestamp
    and f.block_timestamp + f.horizon_seconds < ?3
order by f.block_timestamp, f.chain_id, f.deployment, f.account, f.position_group
"""


def refit(conn: sqlite3.Connection, horizons: Sequence[int], now: int) -> None:
    """Writes down a new fit for each protocol and horizon whose last one is a month old, from what is over by `now`."""
    for (protocol,) in conn.execute("select distinct protocol from deployments").fetchall():
        for seconds in horizons:
            (last,) = conn.execute(
                "select max(fitted_at) from calibrations where protocol = ? and horizon_seconds = ?",
                (protocol, seconds),
            ).fetchone()
            if last is not None and now - last < MONTH:
                continue
            outcomes = conn.execute(OUTCOMES, (protocol, seconds, now)).fetchall()
            events = sum(happened for _, happened, _ in outcomes)
            if events < LEAST_EVENTS:
                continue
            fit = knots_of([(p, happened) for p, happened, _ in outcomes])
            conn.execute(
                "insert or replace into calibrations values (?, ?, ?, ?, ?, ?, ?, ?)",
                (protocol, seconds, now, json.dumps(fit), len(outcomes), events, outcomes[0][2], outcomes[-1][2]),
            )


def knots(conn: sqlite3.Connection) -> dict[tuple[str, int], list[tuple[float, float]]]:
    """The newest fit of each protocol and horizon that rests on enough liquidations."""
    rows = conn.execute(
        "select protocol, horizon_seconds, knots from calibrations where events >= ? order by fitted_at",
        (LEAST_EVENTS,),
    )
    return {(protocol, seconds): _knots(text, f"calibrations.knots of {protocol}") for protocol, seconds, text in rows}


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
