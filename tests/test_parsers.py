"""Every place that parses text or bytes, and what bounds it: a parser that is added without a bound fails here."""

import ast
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.boundary.stored_json import SMALL, require_room, stored_object
from indexer.cli.main import main
from indexer.errors import StoreError
from indexer.logs import lean
from indexer.store.database import LARGEST_VALUE
from indexer.store.store import Store
from tests.memory import peak
from tests.sources import one_process, sources

#: calls that turn text or bytes into values that may be far larger, by the end of their dotted names. Not among them are
#: `int`, `bytes.fromhex` and the like: what bounds their text bounds their value.
PARSERS = {
    "json.loads", "json.load", "json.JSONDecoder", "json.Decoder", "validate_json", "msgspec.convert", "tomllib.loads",
    "tomllib.load", "csv.reader", "csv.DictReader", "decompressobj", "decompress", "GzipFile", "ZipFile", "literal_eval",
    "eval", "exec", "marshal.loads", "marshal.load", "Decimal", "_ABI.decode", "ParquetFile", "read_table",
    "extract_statements", "parse_qsl", "query_params", "SimpleCookie", "fromisoformat", "strptime", "parsedate_to_datetime",
    "shlex.split", "frombuffer", "read_text", "read_bytes", "readline", "stream.read", "stdin.read", "handle.read", "raw.read",
}  # fmt: skip
#: modules that run or amplify what they read; nobody here needs them
FORBIDDEN = {"pickle", "shelve", "yaml", "xml", "tarfile", "zipfile", "bz2", "lzma", "gzip"}
#: and who may: the sample database is a file of this package
#: prices come as .csv.gz, and are unpacked line by line
ALLOWED = {("indexer/jobs/demo.py", "lzma"), ("indexer/backtest/series.py", "gzip")}

INSTALLED = "written by whoever installed this copy, and trusted like its code"
OURS = "a file of this package"
OWN_PROCESSES = "from a process that this one started or that the same user runs, in a file that only they may write"
SPOOLED = "a temporary file without a name, which this process wrote a moment ago"
QUERY = "serve.server_of: h11 takes 64 kB of a request's head; asked.text_of: LONGEST characters of a value"
ARRAYS = "arrays of numbers that this process filled"
RAW = "a `_raw` column: whatever it holds, it is shown by way of a float"

#: module, function and parser -> what bounds it
BOUNDED = {
    ("abi.abi", "json.loads"): OURS,
    ("accounts_file.lines", "readline"): "sixteen cells of LONGEST_CELL, then refused",
    ("accounts_file.of_csv", "csv.reader"): "lines of at most 16 cells, LARGEST_FILE and MOST_ROWS",
    ("accounts_file.of_parquet", "ParquetFile"): "LARGEST_FILE, LARGEST_UNPACKED and MOST_ROWS",
    ("arrow.as_type", "fromisoformat"): "a generated column, by the types of the dictionary",
    ("at_risk.rows", "query_params"): QUERY,
    ("at_risk.shown", "query_params"): QUERY,
    ("band.is_syncing", "read_text"): "a table of the kernel's",
    ("book.largest", "Decimal"): RAW,
    ("books.<module>", "json.Decoder"): "a type",
    ("books._decoder", "json.Decoder"): "used behind require_room; it bounds the depth itself",
    ("bounded_json.<module>", "json.JSONDecoder"): "`loads` uses it behind require_size and too_deep",
    ("budget._loaded", "json.loads"): OWN_PROCESSES,
    ("budget.reserve", "handle.read"): OWN_PROCESSES,
    ("chain_process.run", "json.loads"): OWN_PROCESSES,
    ("chain_process.run", "readline"): OWN_PROCESSES,
    ("channels.__init__", "shlex.split"): "a setting, which config.read bounds, or an argument",
    ("codec.generic", "_ABI.decode"): "MOST_READS of an answer whose size exchange.py and limits.py bound",
    ("config.load", "read_text"): OURS,
    ("config.parse", "tomllib.loads"): "LARGEST_FILE and DEEPEST",
    ("config.read", "stream.read"): "LARGEST_FILE",
    ("demo.demo", "decompress"): OURS,
    ("demo.demo", "read_bytes"): OURS,
    ("dictionary.dictionary", "read_text"): OURS,
    ("dictionary.dictionary", "tomllib.loads"): OURS,
    ("dispatch.work", "json.loads"): "one line from the process that started this one",
    ("dispatch.work", "readline"): OWN_PROCESSES,
    ("endpoint.retry_after", "parsedate_to_datetime"): "a header, which http.client bounds; LONGEST_PATIENCE",
    ("exchange._received", "raw.read"): "PIECE by PIECE, as many as limits.most_bytes allows",
    ("exchange._unpacked", "decompress"): "LARGEST_RATIO and PLAUSIBLE, PIECE by PIECE",
    ("exchange._unpacked", "decompressobj"): "LARGEST_RATIO and PLAUSIBLE, PIECE by PIECE",
    ("extras.requirement", "json.loads"): INSTALLED,
    ("factors.gathered", "frombuffer"): ARRAYS,
    ("gathered._told", "read_text"): OWN_PROCESSES,
    ("guard.cookies", "SimpleCookie"): QUERY,
    ("guard.token_of", "stream.read"): "LONGEST_FILE",
    ("guard.unknown", "parse_qsl"): QUERY,
    ("installation.editable_folder", "json.loads"): INSTALLED,
    ("installation.require_content", "read_bytes"): INSTALLED,
    ("lake.month_begins", "strptime"): "a month of MONTH's shape, or one that month_of made",
    (
        "lake.run",
        "extract_statements",
    ): "DuckDB's memory_limit; it reads the lake's folder alone, and its errors are one line",
    ("lean.<module>", "json.Decoder"): "`decoded` uses it behind require_size; it bounds the depth itself",
    ("message.factor", "Decimal"): RAW,
    ("messages.understood", "json.loads"): OWN_PROCESSES,
    ("opportunities.of", "query_params"): QUERY,
    ("options.moment", "fromisoformat"): "an argument; any ValueError is one line",
    ("plugins.deployment_files", "read_text"): INSTALLED,
    ("prices.scaled", "Decimal"): "a float",
    ("recorded.__init__", "frombuffer"): ARRAYS,
    ("series.bounded", "readline"): "LONGEST_LINE and MOST_LINES",
    ("pruned._parts", "ParquetFile"): "a group at a time, of at most LARGEST_GROUP rows and their bytes",
    (
        "pruning._rows",
        "ParquetFile",
    ): "BATCH rows at a time, of a file that was just written or that `pruned_history` names",
    ("series.records", "csv.DictReader"): "LONGEST_LINE and MOST_LINES; csv.Error is one line",
    ("services.build_response", "raw.read"): "LARGEST_ANSWER",
    ("services.seconds_of", "parsedate_to_datetime"): "a header, which http.client bounds; outbox.LONGEST_PAUSE",
    ("simulation.percent", "Decimal"): "what the caller of this process gave",
    ("spool.__iter__", "marshal.loads"): SPOOLED,
    ("spool._stored", "marshal.loads"): SPOOLED,
    ("spread.many_spreads", "frombuffer"): ARRAYS,
    ("typed.typed", "msgspec.convert"): "config.parse bounds the file and its depth before",
    ("units.least_at", "Decimal"): "a float",
    ("units.scaled", "Decimal"): "two digits of an exponent, and 18 decimals",
    ("values.for_people", "Decimal"): RAW,
    ("vaults.seconds", "strptime"): "a cell of a line of LONGEST_LINE; a ValueError is one line",
    ("volatility.arrays", "frombuffer"): ARRAYS,
    ("wallet.exact", "Decimal"): RAW,
    ("wallet.of", "query_params"): QUERY,
    ("wallet.rows", "query_params"): QUERY,
    ("wallet.shown", "query_params"): QUERY,
    ("wallet.tokens", "Decimal"): RAW,
    ("wallets_file.of_csv", "csv.reader"): "LARGEST_FILE; csv.Error is one line",
    ("watched.import_", "stream.read"): "LARGEST_FILE",
    ("what_if.rows", "query_params"): QUERY,
    ("what_if.shown", "query_params"): QUERY,
}


class Calls(ast.NodeVisitor):
    """The calls of parsers in one module, by function."""

    def __init__(self, module: str) -> None:
        self.module = module
        self.inside: list[str] = []
        self.found: set[tuple[str, str]] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.inside.append(node.name)
        self.generic_visit(node)
        self.inside.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if node.args and all(isinstance(one, ast.Constant) for one in node.args):
            if isinstance(node.func, ast.Attribute):
                self.visit(node.func.value)
            return
        if isinstance(node.func, ast.Name):
            self.note(node.func.id)
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.note(ast.unparse(node))
        self.generic_visit(node)

    def note(self, name: str) -> None:
        found = next((one for one in PARSERS if name == one or name.endswith(f".{one}")), None)
        if found is not None and (self.inside or found != "Decimal"):  # else it is a constant of ours
            self.found.add((f"{self.module}.{self.inside[-1] if self.inside else '<module>'}", found))


def calls() -> set[tuple[str, str]]:
    """(module.function, parser) of every call in the product."""
    found = set()
    for source in sources():
        calls = Calls(source.path.stem)
        calls.visit(source.tree)
        found |= calls.found
    return found


@one_process
def test_every_parser_has_a_bound() -> None:
    """Add a new one to the list only with what bounds its bytes, its depth, and what they may unpack to."""
    found = calls()
    assert sorted(found - BOUNDED.keys()) == []
    assert sorted(BOUNDED.keys() - found) == [], "no longer there"


@one_process
def test_no_module_imports_what_runs_or_swells_or_hides_a_parsers_name() -> None:
    whole, parts = set(), set()
    for source in sources():
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Import):
                whole |= {(source.name, alias.name.partition(".")[0]) for alias in node.names}
            if isinstance(node, ast.ImportFrom):
                parts.add((source.name, (node.module or "").partition(".")[0]))
    assert {one for one in whole | parts if one[1] in FORBIDDEN} == ALLOWED
    assert {name for _, name in parts} & {"json", "tomllib", "csv", "zlib", "struct", "msgspec", "ast"} == set()


@one_process
def test_python_itself_bounds_the_digits_of_a_number() -> None:
    assert 0 < sys.get_int_max_str_digits() <= 4_300
    assert not any("set_int_max_str_digits" in source.text for source in sources())


@pytest.mark.parametrize("where", ["error", "content"])
def test_logs_beside_something_that_swells_are_not_unpacked(where: str) -> None:
    content = bytearray(b'{"id":1,"result":[],"%s":[%s[]]}' % (where.encode(), b"[]," * 2_000_000))
    assert peak(lambda: lean.decoded(content)) < 16 * 2**20
    assert lean.decoded(content) is None


@pytest.mark.parametrize(
    "text", ["[" * 10**6, "{}," * 10**6, "[]", "null", '"a"', "", None, 7, "{'a': 1}", "[NaN]", "\ud800"]
)
def test_what_is_no_object_in_a_column_names_its_place(text: object) -> None:
    with pytest.raises(StoreError, match=r"^changes\.body of id 7 is damaged"):
        stored_object(text, "changes.body of id 7")


def test_a_column_that_swells_is_not_unpacked() -> None:
    swelling = "[" + "[]," * SMALL + "[]]"

    def refused() -> None:
        with pytest.raises(ValueError, match="MB of memory"):
            require_room(swelling)

    assert peak(refused) < 16 * 2**20
    assert require_room("[]," * 100) == "[]," * 100


@pytest.mark.slow
def test_a_value_beyond_all_bounds_in_the_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "indexer.db"
    with Store(path) as store:
        store.conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, state) values (1, 'a', 'aave-v3', 'all', 'ok')"
        )
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("update deployments set note = cast(zeroblob(?) as text)", (LARGEST_VALUE + 1,))
    for words in (
        ["status"],
        ["export", "positions"],
        ["sync", "--rpc-url", "http://127.0.0.1:9", "--chain", "mainnet"],
    ):
        ended = CliRunner().invoke(main, ["--db", str(path), *words])
        assert ended.exit_code in (0, 1)
        assert "Traceback" not in ended.output
    ended = CliRunner().invoke(main, ["--db", str(path), "query", "select * from deployments"])
    assert ended.exit_code == 1
    assert f"{path} holds a value of more than 64 MB, which this program never writes: restore a copy" in ended.stderr
