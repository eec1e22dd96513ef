"""Files of hourly prices: SYMBOLUSDT_1h.csv or .csv.gz with the columns unix (start of the hour, UTC) and close."""

import csv
import gzip
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from indexer.errors import ConfigError
from indexer.forecast.model import Floats, hourly

HOUR = 3_600
#: characters
LONGEST_LINE = 10_000
MOST_LINES = 5_000_000
FILE = re.compile(r"([A-Z0-9]+?)(?:USDT|USDC|USD)_1h\.csv(?:\.gz)?")


class Series(NamedTuple):
    """Log closes by the full hour at which each was known, from `first` (unix seconds) on; gaps are filled forward."""

    first: int
    log: Floats

    def row(self, at: int) -> int:
        """The row of a full hour; may lie outside."""
        return (at - self.first) // HOUR

    @property
    def last(self) -> int:
        return self.first + (len(self.log) - 1) * HOUR


def bounded(stream: TextIO, path: Path) -> Iterator[str]:
    """The lines of a file, one in memory at a time. Raises `ConfigError` for one that is too long, or for too many."""
    for number, line in enumerate(iter(lambda: stream.readline(LONGEST_LINE), ""), 1):
        if len(line) == LONGEST_LINE or number > MOST_LINES:
            raise ConfigError(
                f"{path}, line {number:,}: at most {MOST_LINES:,} lines of {LONGEST_LINE:,} characters are read; is "
                "this a file of prices?"
            )
        yield line


def records(path: Path, columns: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The lines of a CSV file, gzipped or not. Raises `ConfigError` for one without these columns."""
    try:
        with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as stream:
            lines = csv.DictReader(bounded(stream, path))
            missing = [name for name in columns if name not in (lines.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path} has no column {', '.join(missing)}; it needs {', '.join(columns)}")
            yield from lines
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error


def load(path: Path) -> Series:
    """One file. Raises `ConfigError` for a line that is no price of a full hour, with its number."""
    known: dict[int, float] = {}
    for number, line in enumerate(records(path, ("unix", "close")), 2):
        try:
            at, close = int(line["unix"]), float(line["close"])
        except (TypeError, ValueError):
            at, close = 1, 0.0
        if at % HOUR or not (0 < close < math.inf):
            raise ConfigError(
                f"{path}, line {number}: unix must be the full hour in seconds and close a price above 0, "
                f"not {line['unix']!r} and {line['close']!r}"
            )
        known[at + HOUR] = close  # the close of an hour is known when the hour is over
    if not known:
        raise ConfigError(f"{path} has no prices")
    times = np.array(sorted(known), np.int64)
    closes = np.array([known[int(at)] for at in times])
    return Series(int(times[0]), np.log(hourly(times, closes, int(times[-1]), int(times[-1] - times[0]) // HOUR)))


def load_all(folder: Path) -> Mapping[str, Series]:
    """Symbol -> prices of every file of a folder, by name. Raises `ConfigError` where there is none."""
    return {symbol: load(path) for symbol, path in files(folder).items()}


def files(folder: Path) -> dict[str, Path]:
    """Symbol -> its file, by name. Raises `ConfigError` where there is none."""
    found = {match[1]: path for path in sorted(folder.glob("*")) if (match := FILE.fullmatch(path.name))}
    if not found:
        raise ConfigError(f"{folder} has no prices: files are called SYMBOLUSDT_1h.csv or .csv.gz")
    return found
