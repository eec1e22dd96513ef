"""What the file holds, read when somebody asks: it changes with a commit and with nothing else.

So a snapshot that fails leaves the time of the data where it was, and a file that cannot be read tells nothing.
"""

import logging
import sqlite3
import threading
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from indexer.boundary.stored_json import stored_object
from indexer.errors import StoreError
from indexer.metrics.meters import PREFIX
from indexer.store.database import open_readonly

log = logging.getLogger(__name__)

DEPTHS = (1, 2, 3, 5, 10, 32, 64, 128, 256)
STATES = ("new", "ok", "incomplete", "unverified", "failed")
BUSY_MS = 2_000
Key = tuple[str, ...]


class FileRows(Collector):
    """A collector of prometheus_client; counters begin at 0 when it is made."""

    def __init__(self, database: Path) -> None:
        self.database = database
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None
        self._seen: tuple[int, int] | None = None
        self._found: list[Metric] = []
        self._audit: int | None = None
        self._audits: Count[Key] = Count()
        self._omitted: Count[Key] = Count()
        self._depths: dict[Key, list[int]] = {}
        self._reorgs: set[tuple[str, str]] = set()
        self._deliveries: Count[Key] | None = None
        self._alerts: Count[Key] = Count()

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the file."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All samples, made anew only if somebody has committed since; none while the file cannot be read."""
        with self._lock:
            try:
                conn = self._connection()
                (version,) = conn.execute("pragma data_version").fetchone()
                seen = self.database.stat().st_ino, int(version)
                if seen != self._seen:
                    conn.execute("begin")
                    try:
                        self._found = [*self._gauges(conn), *self._counters(conn)]
                    finally:
                        conn.execute("commit")
                    self._seen = seen
            except (StoreError, sqlite3.Error, OSError) as error:
                log.warning("the file cannot be read, so its metrics are left out: %s", error)
                self._let_go()
                return
            found = list(self._found)
        yield from found

    def _connection(self) -> sqlite3.Connection:
        if self._conn is not None and self._seen is not None and self.database.stat().st_ino != self._seen[0]:
            self._let_go()
        if self._conn is None:
            self._conn = open_readonly(self.database, busy_ms=BUSY_MS, any_thread=True)
        return self._conn

    def _let_go(self) -> None:
        if self._conn is not None:
            with suppress(sqlite3.Error):
                self._conn.close()
        self._conn, self._seen, self._found = None, None, []

    def _gauges(self, conn: sqlite3.Connection) -> Iterator[Metric]:
        deployments = conn.execute(
            "select chain_id, coalesce(chain, cast(chain_id as text)) as chain, deployment, state, block_number, block_timestamp"
            " from deployments order by chain_id, deployment"
        ).fetchall()
        chains = {row["chain_id"]: row["chain"] for row in deployments}
        place = ["chain", "deployment"]
        block = GaugeMetricFamily(f"{PREFIX}_synced_block", "The block of a deployment's rows.", labels=place)
        time = GaugeMetricFamily(
            f"{PREFIX}_data_timestamp_seconds", "The time of that block; alert on time() less this.", labels=place
        )
        state = GaugeMetricFamily(
            f"{PREFIX}_deployment_state", "1 for the state that a deployment is in.", labels=[*place, "state"]
        )
        for row in deployments:
            where = [row["chain"], row["deployment"]]
            if row["block_number"] is not None:
                block.add_metric(where, row["block_number"])
                time.add_metric(where, row["block_timestamp"])
            for name in STATES:
                state.add_metric([*where, name], float(row["state"] == name))
        yield from (block, time, state)
        positions = GaugeMetricFamily(f"{PREFIX}_positions", "Positions by status.", labels=[*place, "status"])
        debt = GaugeMetricFamily(f"{PREFIX}_debt_usd", "Their known debt in USD.", labels=[*place, "status"])
        for row in conn.execute(
            "select chain_id, deployment, status, count(*) as positions, count(debt_usd) as known, total(debt_usd) as debt"
            " from positions group by chain_id, deployment, status"
        ):
            where = [chains.get(row["chain_id"], str(row["chain_id"])), row["deployment"], row["status"]]
            positions.add_metric(where, row["positions"])
            if row["known"]:
                debt.add_metric(where, row["debt"])
        yield from (positions, debt)
        (waiting,) = conn.execute(
            "select count(*) from deliveries where state not in ('delivered', 'expired')"
        ).fetchone()
        yield GaugeMetricFamily(f"{PREFIX}_alert_queue", "Alerts that wait to be delivered.", value=waiting)

    def _counters(self, conn: sqlite3.Connection) -> Iterator[Metric]:
        self._count_audits(conn)
        self._count_alerts(conn)
        yield family(
            "audits", "Comparisons with the contracts' own answers.", ["chain", "deployment", "result"], self._audits
        )
        yield family("omitted_logs", "Logs that a node left out and that were recovered.", ["chain"], self._omitted)
        reorgs = {chain: len(depths) for chain, depths in self._depths.items()}
        yield family("reorgs", "How often blocks left the chain after they were synced.", ["chain"], reorgs)
        depth = HistogramMetricFamily(f"{PREFIX}_reorg_depth", "How many blocks left the chain.", labels=["chain"])
        for chain, depths in self._depths.items():
            buckets = [(str(float(bound)), float(sum(one <= bound for one in depths))) for bound in DEPTHS]
            depth.add_metric([*chain], [*buckets, ("+Inf", float(len(depths)))], float(sum(depths)))
        yield depth
        yield family("alerts", "Alerts by channel and what became of them.", ["channel", "outcome"], self._alerts)

    def _count_audits(self, conn: sqlite3.Connection) -> None:
        """Counts the audits since the last look; those from before the start are not this process's."""
        (newest,) = conn.execute("select coalesce(max(id), 0) from audits").fetchone()
        if self._audit is None:
            self._audit = newest
        rows = conn.execute(
            "select a.id, coalesce(d.chain, cast(a.chain_id as text)) as chain, a.deployment, a.kind, a.mismatches, a.detail,"
            " a.block_hash from audits a left join deployments d using (chain_id, deployment) where a.id > ? order by a.id",
            (self._audit,),
        )
        for row in rows:
            if row["kind"] == "omitted-logs":
                self._omitted[(row["chain"],)] += row["mismatches"]
            elif row["kind"] == "reorg":
                self._count_reorg(row)
            else:
                self._audits[row["chain"], row["deployment"], "mismatch" if row["mismatches"] else "ok"] += 1
        self._audit = max(newest, self._audit)

    def _count_reorg(self, row: Mapping[str, Any] | sqlite3.Row) -> None:
        """One reorg has a row for each deployment."""
        detail = stored_object(row["detail"] or "{}", "audits.detail")
        one = row["chain"], str(detail.get("orphaned_hash"))
        if one not in self._reorgs:
            self._reorgs.add(one)
            depth = max(int(detail.get("orphaned_block", 0)) - int(detail.get("ancestor", 0)), 0)
            self._depths.setdefault((row["chain"],), []).append(depth)

    def _count_alerts(self, conn: sqlite3.Connection) -> None:
        """Adds what was delivered or given up since the last look; a channel is named by its kind, as a place may be secret."""
        now: Count[Key] = Count()
        for place, state, count in conn.execute(
            "select place, state, count(*) from deliveries where state in ('delivered', 'expired') group by place, state"
        ):
            now[place.partition(":")[0].partition(" ")[0], state] += count
        before = now if self._deliveries is None else self._deliveries
        for key, count in now.items():
            self._alerts[key] += max(count - before[key], 0)
        self._deliveries = now


def family(name: str, words: str, labels: list[str], counted: Mapping[Key, int]) -> CounterMetricFamily:
    """A counter, whose name prometheus_client ends with _total."""
    found = CounterMetricFamily(f"{PREFIX}_{name}", words, labels=labels)
    for key, count in sorted(counted.items()):
        found.add_metric([*key], count)
    return found
