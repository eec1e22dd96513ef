"""What a user may tune, and where a run tells how far it is."""

from dataclasses import dataclass
from typing import Annotated, Protocol

from pydantic import Field

from indexer.evaluate import AT_RISK_BELOW

Positive = Annotated[int, Field(ge=1, strict=True)]
Count = Annotated[int, Field(ge=0, strict=True)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False, strict=True)]
Factor = Annotated[float, Field(ge=1, allow_inf_nan=False, strict=True)]


class Progress(Protocol):
    """Where a sync tells how far it is; units are blocks, logs and positions."""

    def start(self, name: str, total: int, unit: str) -> None: ...
    def advance(self, name: str, count: int) -> None: ...
    def done(self, name: str) -> None: ...


class NoProgress:
    """Says nothing."""

    def start(self, name: str, total: int, unit: str) -> None: ...
    def advance(self, name: str, count: int) -> None: ...
    def done(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Settings:
    """What a user may tune, in [settings] of the configuration; each has a default that suits a public endpoint."""

    at_risk_below: Factor = AT_RISK_BELOW
    keep_blocks: Positive = 256  # hashes of snapshot blocks kept for reorgs
    audit_sample: Count = 10  # random rows compared with the contracts after each snapshot, per deployment
    audit_at_risk: Count = 20  # and the worst rows
    read_chunk: Positive = 500  # positions read and saved at once
    repin_seconds: Seconds = 120.0  # a read that takes longer goes on at a newer block
    recent_blocks: Positive = 64  # blocks below the target whose logs are asked by hash and checked
    behind_seconds: Seconds = 4.0  # how long a node may be behind the last snapshot before it is believed
