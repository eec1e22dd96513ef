"""The page Sync: how far each deployment is, what the last runs asked, and what the last audits found."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from starlette.requests import Request

from indexer.queries import queries as reading
from indexer.queries.desk import audits, runs
from indexer.text.values import age, iso
from indexer.web.band import band
from indexer.web.desk import Desk
from indexer.web.render import Shown, table

COLUMNS = "state deployment chain protocol accounts block_number age percent time_left requests revision note".split()
RUN_COLUMNS = "started finished chain block_number requests retries logs positions_read".split()
AUDIT_COLUMNS = "time deployment kind checked mismatches block_number detail".split()


def shown(desk: Desk, _request: Request) -> Shown:
    now = time.time()
    with desk.read() as conn:
        above = band(conn, desk.session.db)
        found = reading.status(conn, desk.session.chain_name, now, counted=False)
        checks, ran = audits(conn), runs(conn)
    states = [
        {
            **row,
            "age": age(row["age_seconds"]),
            "time_left": None if not row["seconds_left"] else age(row["seconds_left"]),
        }
        for row in found
    ]
    for row in ran:
        row["chain"] = desk.session.chain_name(row["chain_id"])
        row["started"] = iso(row["started_at"])
        row["finished"] = None if row["finished_at"] is None else iso(row["finished_at"])
    for row in checks:
        row["time"] = iso(row["at"])
    return Shown(
        "Sync",
        "sync.html",
        {
            "states": table("Deployments", COLUMNS, states, key=("chain", "deployment")) if states else None,
            "runs": table("Last runs", RUN_COLUMNS, ran, key=("started", "chain")) if ran else None,
            "audits": table("Last audits", AUDIT_COLUMNS, checks, key=("time", "deployment", "kind"))
            if checks
            else None,
            "mismatches": sum(row["mismatches"] for row in checks),
        },
        above,
        twin="/sync.{form}?",
    )


def rows(desk: Desk, _request: Request) -> tuple[Sequence[str], Iterable[Any]]:
    """The rows of `indexer status`."""
    with desk.read() as conn:
        return reading.STATUS_COLUMNS, reading.status(conn, desk.session.chain_name, time.time())
