"""What `indexer sync` is asked for, and which flags do not go together."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from indexer.jobs.measuring import METRICS_FLAGS
from indexer.jobs.watching import ALERT_FLAGS
from indexer.terminal.options import Moment
from indexer.terminal.output import Output


@dataclass(frozen=True)
class Wanted:
    """What a sync is asked for, by the names of its flags; `flags` are those of the connection and of alerts."""

    accounts: str
    to: str
    follow: bool
    no_history: bool
    supplies: bool
    dry_run: bool
    accept_reorg: bool
    cross_check: int | None
    refresh_seconds: float | None
    every: float | None
    liquidations: bool
    prices: bool
    watch: bool
    lake: Path | None
    lake_prune: bool
    webhook: str | None
    since: int | Moment | None
    output: Output
    flags: dict[str, Any]

    @property
    def streams(self) -> bool:
        """Whether the changes of the list go somewhere."""
        return self.follow and (self.webhook is not None or self.output.lines)


def check(wanted: Wanted) -> None:
    """Refuses flags that do not go together."""
    for wrong, why in (*_of_streams(wanted), *_of_kinds(wanted)):
        if wrong:
            raise click.UsageError(why)


def _of_streams(wanted: Wanted) -> tuple[tuple[bool, str], ...]:
    """Of what is told to others: changes, alerts, metrics, the lake; and how far back."""
    once = wanted.follow or wanted.dry_run
    alerts = any(wanted.flags[name] not in (None, (), False) for name in ALERT_FLAGS)
    return (
        (
            wanted.webhook is not None and not wanted.follow,
            "--webhook is for --follow: it tells what changes from block to block",
        ),
        (
            wanted.output.asked and not wanted.dry_run and not (wanted.follow and wanted.output.lines),
            "a sync prints no rows, so it takes no --json, --output and the like; with --dry-run they print the plan, "
            "afterwards `indexer export` writes rows",
        ),
        (wanted.lake_prune and wanted.lake is None, "--lake-prune is for --lake: months leave once a lake holds them"),
        (wanted.lake is not None and wanted.dry_run, "--lake is written after snapshots, and --dry-run takes none"),
        (
            any(wanted.flags[name] is not None for name in METRICS_FLAGS) and not wanted.follow,
            "--metrics and --metrics-file are for --follow; of one sync, `indexer status` tells",
        ),
        (wanted.watch and not wanted.follow, "--watch is for --follow; `indexer watch check` judges once"),
        (
            alerts and not wanted.watch,
            "--notify, --command, --stdout, --hysteresis and --target are for --follow --watch",
        ),
        (
            wanted.since is not None and not (wanted.liquidations or wanted.streams or (wanted.prices and not once)),
            "--since is for --liquidations or --prices, and for --follow with --nl or --webhook",
        ),
        (
            wanted.streams and isinstance(wanted.since, Moment),
            "--since of a stream is a block: that of the last line that was read",
        ),
    )


def _of_kinds(wanted: Wanted) -> tuple[tuple[bool, str], ...]:
    """Of what one sync, a followed chain and a plan have for themselves."""
    once = wanted.follow or wanted.dry_run
    seconds = wanted.refresh_seconds
    return (
        (wanted.accept_reorg and once, "--accept-reorg is for one sync: run it alone, then --follow"),
        (
            wanted.liquidations and once,
            "--liquidations is for one sync: run it alone, then --follow keeps the table up to date",
        ),
        (wanted.prices and wanted.dry_run, "--prices is for a sync: --dry-run reads nothing"),
        (
            wanted.every is not None and (not wanted.follow or not math.isfinite(wanted.every)),
            "--every is for --follow, and a number of seconds such as 12",
        ),
        (
            seconds is not None and not wanted.follow,
            "--refresh-seconds is for --follow: one sync brings every row to its block",
        ),
        (
            seconds is not None and not math.isfinite(seconds),
            f"--refresh-seconds is a number of seconds such as 600, not {seconds}",
        ),
        (
            wanted.supplies and once,
            "--supplies is for one sync: --follow reads them by itself, --dry-run reads nothing",
        ),
        (
            wanted.follow and wanted.to.isdecimal(),
            f"--follow needs a block that moves on, such as latest or latest:-64, not {wanted.to}",
        ),
    )
