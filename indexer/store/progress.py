"""How far syncs are: what a run writes down while it works, and what follows from it for each deployment."""

import sqlite3
import time
from collections.abc import Mapping
from typing import Any

from indexer.model import Coverage
from indexer.store.imported import discovered
from indexer.store.shards import at
from indexer.text.values import age


def tell(conn: sqlite3.Connection, run: int | None, **columns: int) -> None:
    """Writes down how far a run is, inside the caller's transaction: columns of `runs`."""
    if run is None:
        return
    names = ", ".join(f"{name} = ?" for name in columns)
    conn.execute(
        f"update runs set told_at = ?, {names} where id = ?",  # noqa: S608 - names are ours
        (int(time.time()), *columns.values(), run),
    )


def how_far(conn: sqlite3.Connection, deployment: Mapping[str, Any]) -> dict[str, Any]:
    """Of a row of `deployments`: `percent` of the blocks whose logs name its accounts, and which `blocks` are done of how
    many (`blocks_wanted`); `logs` and `positions_wanted` of the last run of its chain; `seconds_left` at that run's pace.

    None where that is unknown; nothing is left where all logs are there. `progress` says it in words, None where there is
    nothing to say.
    """
    where = (deployment["chain_id"], deployment["deployment"])
    run = _last_run(conn, where[0])
    known = {"logs": run.get("logs"), "positions_wanted": run.get("positions_wanted")}
    (target,) = conn.execute("select max(number) from blocks where chain_id = ?", where[:1]).fetchone()
    start = deployment["start_block"]
    if target is None or start is None or deployment["accounts"] == "watched":
        return {**known, "percent": None, "blocks": None, "blocks_wanted": None, "seconds_left": None, "progress": None}
    wanted = max(target - start + 1, 1)
    whole = deployment["coverage"] == Coverage.HISTORY and deployment["block_number"] is not None
    done = wanted if whole else min(len(discovered(conn, where)), wanted)
    left = 0 if done == wanted else _seconds(run, "blocks", wanted - done)
    if done == wanted and run.get("finished_at") is None and deployment["block_number"] is None:
        left = _seconds(run, "positions", (run.get("positions_wanted") or 0) - (run.get("positions_read") or 0))
    share = 100 * done / wanted
    return {
        **known,
        "percent": round(share, 1),
        "blocks": done,
        "blocks_wanted": wanted,
        "seconds_left": left,
        "progress": None if whole else f"{_percent(share)} %{'' if not left else f', about {age(left)} left'}",
    }


def _percent(share: float) -> str:
    """Whole percent, and never 100 of what is not complete."""
    return str(100 if share == 100 else min(int(share), 99))


def _last_run(conn: sqlite3.Connection, chain_id: int) -> dict[str, Any]:
    cursor = conn.execute("select * from runs where chain_id = ? order by id desc limit 1", (chain_id,))
    row = cursor.fetchone()
    return {} if row is None else dict(zip([column[0] for column in cursor.description], row, strict=True))


def _seconds(run: Mapping[str, Any], stage: str, count: int) -> int | None:
    """How long so many blocks or positions take at the pace of a run; None where it has none in that stage yet."""
    done = run.get("blocks") if stage == "blocks" else run.get("positions_read")
    began, told = run.get("stage_began_at"), run.get("told_at")
    if not done or began is None or told is None:
        return None
    return int(max(told - began, 1) * count / done)


def left_out(conn: sqlite3.Connection) -> list[tuple[str, str]]:
    """How far each deployment is, in words, if any lacks logs: ("aave-v3-core", "100 %"), ("compound-v2", "34 %, ...")."""
    cursor = conn.execute("select * from deployments where accounts <> 'watched' order by chain_id, deployment")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor]
    waiting = [row for row in rows if row["complete_from"] is None and row["coverage"] != Coverage.SUMS]
    if all(how_far(at(conn, row["chain_id"]), row)["progress"] is None for row in waiting):
        return []
    found = [(row["deployment"], how_far(at(conn, row["chain_id"]), row)) for row in rows]
    return [(name, far["progress"] or "100 %") for name, far in found if far["percent"] is not None]
