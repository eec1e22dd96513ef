"""What a user may tune."""

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

from indexer.units import AT_RISK_BELOW

Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
#: what each aggregate compares with the header of the pinned block, see indexer/reads/guards.py
Guard = Literal["full", "number", "arbsys", "timestamp", "none"]
Factor = Annotated[float, msgspec.Meta(ge=1)]


@dataclass(frozen=True, slots=True)
class Settings:
    """[settings] of the configuration; the defaults suit a public endpoint."""

    at_risk_below: Factor = AT_RISK_BELOW
    keep_blocks: Positive = 256  # blocks below the last snapshot of which hashes are kept for reorgs
    keep_seconds: Seconds = 3600.0  # and those of this time, which is more blocks where they come fast
    audit_sample: Count = 10  # random rows compared with the contracts after each snapshot, per deployment
    audit_at_risk: Count = 20  # likewise the rows with the lowest health factors
    cross_check: Count = 0  # rows per deployment that a second endpoint is asked about at each snapshot
    read_chunk: Positive = 1_000  # positions read and saved together
    repin_seconds: Seconds = 120.0  # seconds after which a long read continues at a newer block
    recent_blocks: Positive = 64  # blocks below the target whose logs are asked for by hash and checked
    quiet_blocks: Count = 1_024  # and this many of those since the last snapshot, where bloom filters are useful
    #: --follow and watch evaluate everyone whose health factor may be below this exactly at every block
    exact_below: Factor = 1.25
    refresh_seconds: Seconds = 600.0  # and the others at least this often, in seconds; 0: everyone at every block
    #: --follow takes a snapshot at most every so many seconds; None: at each block, 12 s apart where blocks come faster
    #: than one a second
    every_seconds: Seconds | None = None
    behind_seconds: Seconds = 4.0  # seconds for which a node may be behind the last snapshot before it is believed


@dataclass(frozen=True, slots=True)
class Alerts:
    """[alerts] of the configuration: where alerts go and when; a flag of `watch` overrides its key."""

    urls: tuple[str, ...] = ()  # of apprise; "${NAME}" takes an environment variable
    command: str | None = None  # gets the alert as JSON on its standard input
    stdout: bool = False  # JSON lines; the default where no other channel is given
    below: tuple[Annotated[float, msgspec.Meta(gt=0, le=1000)], ...] = (
        1.1,
    )  # the rules of a wallet without rules of its own
    drop_percent: Annotated[float, msgspec.Meta(gt=0, lt=100)] | None = None
    hysteresis_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] = 2.0
    target: Annotated[float, msgspec.Meta(gt=0, le=1000)] = (
        1.5  # the health factor that the suggested repayments and additions lead to
    )
    blind_after_seconds: Seconds = 600.0  # rows older than this raise an alert of kind `blind`; 0: never
    expire_hours: Annotated[float, msgspec.Meta(gt=0)] = 72.0  # an alert that is not delivered by then is given up
