"""The database's own forecasts, as they were made, against the prices and liquidations that came; nothing is made again."""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from indexer.backtest.sample import Sample
from indexer.boundary.stored_json import stored_object
from indexer.forecast.model import Floats
from indexer.queries.prices import Series, in_force
from indexer.store.shards import at, each

HOUR = 3_600


class Forecast(NamedTuple):
    """A forecast as it was made, and whether the position was liquidated within its horizon; None where nobody knows."""

    chain_id: int
    protocol: str
    account: str
    horizon: int
    at: int
    p: float
    exposures: Mapping[str, Any]
    liquidated: bool | None


FORECASTS = """
select f.chain_id, d.protocol, f.account, f.horizon_seconds, f.block_timestamp, (f.hits + 0.0) / f.paths, f.exposures,
    case when d.liquidations_from_block <= f.block_number and f.block_timestamp + f.horizon_seconds <= d.block_timestamp then
        exists (select 1 from liquidations l where (l.chain_id, l.deployment, l.account, l.position_group)
            = (f.chain_id, f.deployment, f.account, f.position_group)
            and l.block_number > f.block_number and l.block_timestamp <= f.block_timestamp + f.horizon_seconds) end
from forecasts f join deployments d using (chain_id, deployment)
where f.hits is not null and f.exposures is not null and f.block_timestamp >= ?1 and f.block_timestamp < ?2
order by f.block_timestamp, f.chain_id, f.deployment, f.account, f.position_group, f.horizon_seconds
"""
ALWAYS = 2**62


def samples(conn: sqlite3.Connection, since: int | None, until: int | None) -> tuple[list[Sample], list[str]]:
    """Two samples a protocol and horizon, unsafe if left alone and liquidated; and remarks on what cannot be judged yet."""
    made = forecasts(conn, since, until)
    if not made:
        return [], ["no forecasts in that time: `indexer forecast` makes them"]
    newest: dict[int, int] = {}
    for part in each(conn):
        newest |= part.execute(
            "select chain_id, max(in_force_timestamp) from feed_prices where invalid is null group by 1"
        )
    prices = {
        chain: in_force(at(conn, chain), chain, newest[chain])
        for chain in {one.chain_id for one in made}
        if newest.get(chain)
    }
    over = [one for one in made if one.at + one.horizon <= newest.get(one.chain_id, 0)]
    remarks = [
        f"{len(made) - len(over):,} of {len(made):,} forecasts reach beyond the last price: judged when it has come"
    ]
    groups = defaultdict(list)
    for one in over:
        groups[one.protocol, one.horizon].append(one)
    found = []
    for (protocol, horizon), of in sorted(groups.items()):
        windows = {
            (chain, when): Window(prices[chain], when, horizon) for chain, when in {(f.chain_id, f.at) for f in of}
        }
        alone = [(one, came) for one in of if (came := windows[one.chain_id, one.at].unsafe(one)) is not None]
        if alone:
            found.append(sample(f"{protocol} left alone", "unsafe", horizon, alone, calibrated=False))
        known = [(one, one.liquidated) for one in of if one.liquidated is not None]
        if known:
            found.append(sample(f"{protocol} liquidated", "liquidated", horizon, known, calibrated=True))
    return found, remarks if len(over) < len(made) else []


def forecasts(conn: sqlite3.Connection, since: int | None, until: int | None) -> list[Forecast]:
    """Every forecast of that time with its paths counted, by time and chain."""
    rows = [row for part in each(conn) for row in part.execute(FORECASTS, (since or 0, until or ALWAYS))]
    found = [
        Forecast(
            chain,
            protocol,
            account,
            horizon,
            made,
            p,
            stored_object(exposures, f"forecasts.exposures of {account}"),
            None if came is None else bool(came),
        )
        for chain, protocol, account, horizon, made, p, exposures, came in rows
    ]
    return sorted(found, key=lambda one: (one.at, one.chain_id))


def sample(name: str, label: str, horizon: int, of: Sequence[tuple[Forecast, bool]], *, calibrated: bool) -> Sample:
    times = np.array([one.at for one, _ in of], np.int64)
    return Sample(
        name=name, label=label, every=None, horizon=horizon // HOUR, first=int(times[0]), times=times,
        health=np.array([health(one) for one, _ in of]), p=np.array([one.p for one, _ in of]),
        y=np.array([came for _, came in of], bool), baselines={}, calibrated=calibrated,
    )  # fmt: skip


def health(one: Forecast) -> float:
    """Limit over debt at the prices of the forecast."""
    limit, debt = (one.exposures["constant"][i] + sum(term[1 + i] for term in one.exposures["terms"]) for i in (0, 1))
    return limit / debt if debt > 0 else float("inf")


class Window:
    """The answers of a chain's feeds at every change within (at, at + horizon], relative to those in force at `at`."""

    def __init__(self, prices: Mapping[str, Series], at: int, horizon: int) -> None:
        self.known = {feed for feed, series in prices.items() if len(series) and series.times[0] <= at}
        within = {feed: np.frombuffer(prices[feed].times, np.int64) for feed in self.known}
        changes = [times[(times > at) & (times <= at + horizon)] for times in within.values()]
        moments = np.unique(np.concatenate([np.array([at], np.int64), *changes]))
        self.relative = {}
        for feed, times in within.items():
            answers = np.frombuffer(prices[feed].answers, np.float64)
            in_force_then = answers[np.searchsorted(times, moments, side="right") - 1]
            self.relative[feed] = in_force_then / in_force_then[0]

    def unsafe(self, one: Forecast) -> bool | None:
        """Whether the position, left alone, had limit < debt at any change; None where a feed's answers are unknown.

        Debt and collateral are those of the forecast, without later interest: below 1e-3 of the health factor in a week.
        """
        limit, debt = one.exposures["constant"]
        net: Floats | float = limit - debt
        for factors, of_limit, of_debt, cap in one.exposures["terms"]:
            if not self.known.issuperset(factors):
                return None
            price: Floats | float = 1.0
            for feed, exponent in factors.items():
                price = price * self.relative[feed] ** exponent
            net = net + (of_limit - of_debt) * (price if cap is None else np.minimum(price, cap))
        return bool(np.any(np.asarray(net) < 0))
