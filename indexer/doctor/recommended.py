"""The table of a chain as its endpoints were found to be, for the user's configuration."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from indexer.config import ChainConfig
from indexer.doctor.finding import Finding
from indexer.reads.guards import GUARDS

#: how much a filter says, the least first
BLOOMS = ("none", "partial", "exact")


def chain_table(config: ChainConfig, examined: Sequence[Sequence[Finding]]) -> Mapping[str, Any]:
    """The measured keys of the chain's table, from what was found at each usable endpoint.

    What holds at every endpoint counts: the loosest guard, the least that a bloom filter says, the narrowest range of logs.
    What was not measured stays as configured.
    """
    guards = [guard for guard in _values(examined, "guard") if guard in GUARDS]
    blooms = [bloom for bloom in _values(examined, "bloom") if bloom in BLOOMS]
    ranges = [span for span in _values(examined, "log range") if span > 0]
    table: dict[str, Any] = {
        "guard": max(guards, key=list(GUARDS).index, default=config.guard),
        "bloom": min(blooms, key=BLOOMS.index, default=config.bloom),
    }
    if ranges or config.max_log_range is not None:
        table["max_log_range"] = min(ranges, default=config.max_log_range)
    return table


def _values(examined: Iterable[Iterable[Finding]], check: str) -> list[Any]:
    return [
        finding.value
        for findings in examined
        for finding in findings
        if finding.check == check and finding.value is not None
    ]


def toml(name: str, table: Mapping[str, Any]) -> str:
    """The table as it stands in indexer.toml; it changes only the keys that it gives."""
    values = [f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"' for key, value in table.items()]
    return "\n".join([f"[chains.{name}]", *values, ""])
