"""Lists of accounts from a file: what `indexer accounts export` writes, or what a friend, a subgraph or a warehouse gave.

Nothing in it is believed but that it may be worth asking about an account, so that all a wrong list can do is cost time.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from indexer.address import checked_address
from indexer.errors import ConfigError
from indexer.extras import how_to_install
from indexer.model import PositionKey

if TYPE_CHECKING:
    import pyarrow as pa

#: bytes of a file, and what an address with all that stands beside it takes of them, unpacked, at most
LARGEST_FILE = 512 * 2**20
LARGEST_UNPACKED = 2 * 2**30
MOST_ROWS = 10_000_000
LONGEST_CELL = 4_096
BATCH = 65_536
#: columns by the names that other programs give them
ALIASES = {
    "account": "account", "address": "account", "wallet": "account", "user": "account", "borrower": "account",
    "position_group": "position_group", "group": "position_group", "ilk": "position_group",
    "deployment": "deployment", "chain": "chain", "chain_id": "chain_id",
}  # fmt: skip
FORMATS = {".csv": "csv", ".tsv": "csv", ".txt": "csv", ".parquet": "parquet"}
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

#: where a row stands, and its cells by our names of the columns
Row = tuple[str, Mapping[str, str]]


class Place(NamedTuple):
    """A deployment as a file may name it: its chain, and what a group of its positions looks like ("" for none)."""

    chain_id: int
    chain: str
    deployment: str
    group_pattern: str


@dataclass(frozen=True, slots=True)
class Accounts:
    """What a file names: accounts by deployment, and how many rows were of other deployments than those chosen."""

    keys: dict[Place, dict[PositionKey, None]] = field(default_factory=dict)
    left_out: int = 0


def load(path: Path, places: Mapping[str, Place], chosen: Sequence[str], chain: str | None) -> Accounts:
    """The accounts that a file names, of the chosen deployments and that chain (all if empty or None).

    `places` are the deployments that may be named; rows that name none are of the only chosen one. ConfigError names the
    first line that is wrong.
    """
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path}: a list of accounts ends in {', '.join(FORMATS)}")
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ConfigError(f"{path}: larger than {LARGEST_FILE >> 20} MB: split it")
        rows = of_parquet(path) if kind == "parquet" else of_csv(path)
        return accounts_of(path, rows, places, chosen, chain)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def accounts_of(
    path: Path, rows: Iterable[Row], places: Mapping[str, Place], chosen: Sequence[str], chain: str | None
) -> Accounts:
    keys: dict[Place, dict[PositionKey, None]] = {}
    count = left_out = 0
    for where, cells in rows:
        count += 1
        if count > MOST_ROWS:
            raise ConfigError(f"{path}: more than {MOST_ROWS:,} rows: split it")
        place = place_of(where, cells, places, chosen)
        if (chosen and place.deployment not in chosen) or (chain and place.chain != chain):
            left_out += 1
            continue
        keys.setdefault(place, {})[key_of(where, cells, place)] = None
    if not count:
        raise ConfigError(f"{path}: no account in it")
    return Accounts(keys, left_out)


def place_of(where: str, cells: Mapping[str, str], places: Mapping[str, Place], chosen: Sequence[str]) -> Place:
    """The deployment that a row is of. ConfigError where it names none or one that nobody knows."""
    name = cells.get("deployment", "")
    if not name and len(chosen) != 1:
        raise ConfigError(f"{where}: says of no deployment: name the one that all such rows are of with --deployment")
    place = places.get(name or chosen[0])
    if place is None:
        raise ConfigError(
            f"{where}: unknown deployment {shown(name)}: `indexer protocols` lists those that are known; "
            "--deployment chooses rows"
        )
    chain, chain_id = cells.get("chain", ""), cells.get("chain_id", "")
    if (chain and chain != place.chain) or (chain_id and chain_id != str(place.chain_id)):
        raise ConfigError(
            f"{where}: {place.deployment} is on {place.chain} (chain id {place.chain_id}), not on {shown(chain or chain_id)}"
        )
    return place


def key_of(where: str, cells: Mapping[str, str], place: Place) -> PositionKey:
    """The position that a row names. ConfigError for what no position of that deployment can be."""
    try:
        account = checked_address(cells.get("account", ""))
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    group = cells.get("position_group", "")
    if group and not place.group_pattern:
        raise ConfigError(f"{where}: positions of {place.deployment} have no group, here it is {shown(group)}")
    if place.group_pattern and not re.fullmatch(place.group_pattern, group, re.ASCII):
        raise ConfigError(
            f"{where}: positions of {place.deployment} need a position_group such as ETH-A, not {shown(group)}"
        )
    return PositionKey(account, group)


def shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


# files ----------------------------------------------------------------------------------------------------------------


def of_csv(path: Path) -> Iterator[Row]:
    """The rows of a CSV with a header, or of one account a line; lines that are blank or begin with # do not count."""
    with path.open("rb") as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        names: list[str | None] | None = None
        number = 0
        try:
            reader = csv.reader(lines(path, text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            for row in reader:
                number, cells = reader.line_num, [cell.strip() for cell in row]
                if not any(cells) or cells[0].startswith("#"):
                    continue
                where = f"{path}: line {number}"
                if names is None:
                    names = header(where, cells)
                    if names is not None:
                        continue
                    names = ["account"]
                if len(cells) != len(names):
                    raise ConfigError(f"{where}: {len(cells)} cells, the header has {len(names)} columns")
                yield where, {name: cell for name, cell in zip(names, cells, strict=True) if name is not None}
        except csv.Error as error:
            raise ConfigError(f"{path}: line {number + 1}: {error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: line {number + 1} or behind it is no text in UTF-8 ({error.reason})") from None


def lines(path: Path, text: io.TextIOWrapper) -> Iterator[str]:
    """Its lines, none of them endless."""
    number = 0
    while line := text.readline(16 * LONGEST_CELL):
        number += 1
        if len(line) == 16 * LONGEST_CELL:
            raise ConfigError(f"{path}: line {number}: longer than {16 * LONGEST_CELL} characters")
        yield line


def header(where: str, cells: Sequence[str]) -> list[str | None] | None:
    """Our names of the columns, None for one that says nothing here; None for a first line that is an account itself."""
    if len(cells) == 1 and ADDRESS.fullmatch(cells[0]):
        return None
    names = [ALIASES.get(cell.lower()) for cell in cells]
    for name in set(names) - {None}:
        if names.count(name) > 1:
            raise ConfigError(f"{where}: two columns mean {name}")
    if "account" not in names:
        raise ConfigError(f"{where}: the header must have a column account (and may have deployment, position_group)")
    return names


def of_parquet(path: Path) -> Iterator[Row]:
    """The rows of a Parquet file, read piece by piece; texts that repeat are not repeated in memory."""
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError:
        raise ConfigError(f"{path}: Parquet needs pyarrow: {how_to_install('parquet')}") from None
    try:
        with parquet.ParquetFile(path) as file:
            names = header(str(path), file.schema_arrow.names)
            wanted = [column for column, name in zip(file.schema_arrow.names, names or (), strict=False) if name]
            bounded(path, file.metadata)
        with parquet.ParquetFile(path, read_dictionary=wanted) as file:
            number = 0
            for batch in file.iter_batches(BATCH, columns=wanted):
                for row in rows_of(batch):
                    number += 1
                    cells = {ALIASES[name.lower()]: text(path, number, row[name]) for name in wanted}
                    yield f"{path}: row {number}", cells
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise ConfigError(f"{path}: no Parquet that can be read: {shown(str(error))}") from None


def rows_of(batch: "pa.RecordBatch") -> Iterator[dict[str, Any]]:
    """A batch's rows; one at a time where a cell is too long, as each row has a copy of a text that the file has once."""
    step = 1 if any(map(too_long, batch.columns)) else 1_024
    for start in range(0, batch.num_rows, step):
        yield from batch.slice(start, step).to_pylist()


def too_long(column: Any) -> bool:
    """Whether a cell of a column is longer than is allowed."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import compute  # noqa: PLC0415

    values = column.dictionary if isinstance(column, pa.DictionaryArray) else column
    kind = values.type
    if not any(
        is_kind(kind)
        for is_kind in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    ):
        return False
    longest = compute.max(compute.binary_length(values)).as_py()
    return longest is not None and longest > LONGEST_CELL


def bounded(path: Path, metadata: Any) -> None:
    """ConfigError for a file that says of itself that it is too large."""
    if metadata.num_rows > MOST_ROWS:
        raise ConfigError(f"{path}: more than {MOST_ROWS:,} rows: split it")
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    if size > LARGEST_UNPACKED:
        raise ConfigError(f"{path}: unpacks to more than {LARGEST_UNPACKED >> 20} MB: split it")


def text(path: Path, number: int, value: Any) -> str:
    """A cell as text: a number as its digits, bytes of an address as 0x hex."""
    if value is None:
        return ""
    if isinstance(value, bytes) and len(value) == 20:
        return "0x" + value.hex()
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ConfigError(f"{path}: row {number}: {type(value).__name__} where a text is due")
    cell = str(value).strip()
    if len(cell) > LONGEST_CELL:
        raise ConfigError(f"{path}: row {number}: a cell of {len(cell)} characters")
    return cell
