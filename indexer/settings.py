"""What a user may tune, and where a run tells how far it is."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from indexer.units import AT_RISK_BELOW

Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Factor = Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)]


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may tune, in [settings] of the configuration; each has a default that suits a public endpoint."""

    at_risk_below: Factor = AT_RISK_BELOW
    keep_blocks: Positive = 256  # hashes of snapshot blocks kept for reorgs
    audit_sample: Count = 10  # random rows compared with the contracts after each snapshot, per deployment
    audit_at_risk: Count = 20  # and the worst rows
    cross_check: Count = 0  # rows a deployment that a second endpoint is asked about too, at each snapshot
    read_chunk: Positive = 2_500  # positions read and saved at once
    repin_seconds: Seconds = 120.0  # a read that takes longer goes on at a newer block
    recent_blocks: Positive = 64  # blocks below the target whose logs are asked by hash and checked
    quiet_blocks: Count = 1_024  # and so many of those since the last snapshot, where bloom filters tell enough
    #: of --follow and watch: everyone whose health factor may be below has all digits of the newest block
    exact_below: Factor = 1.25
    refresh_seconds: Seconds = 600.0  # and how old the digits of the others may be; 0: nobody's are older
    behind_seconds: Seconds = 4.0  # how long a node may be behind the last snapshot before it is believed


@dataclass(frozen=True, slots=True)
class Alerts:
    """Where alerts go and when, in [alerts] of the configuration; a flag of `watch` outweighs its key."""

    urls: tuple[str, ...] = ()  # of apprise; "${NAME}" takes an environment variable
    command: str | None = None  # gets the alert as JSON on its standard input
    stdout: bool = False  # JSON, one object a line; the default where no other channel is given
    below: tuple[Annotated[float, Field(gt=0, le=1000, strict=True)], ...] = (
        1.1,
    )  # the rules of a wallet that was given none
    drop_percent: Annotated[float, Field(gt=0, lt=100, strict=True)] | None = None
    hysteresis_percent: Annotated[float, Field(ge=0, le=100, strict=True)] = 2.0
    target: Annotated[float, Field(gt=0, le=1000, strict=True)] = (
        1.5  # the health factor that "what to repay or add" leads to
    )
    blind_after_seconds: Seconds = 600.0  # rows older than this raise an alert of kind `blind`; 0: never
    expire_hours: Annotated[float, Field(gt=0, strict=True)] = 72.0  # an alert nobody took by then is given up
