"""Values that no version of this program writes, in the database and the configuration, end a command in one line."""

import resource
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import config
from indexer.cli.main import main
from indexer.errors import ConfigError
from tests.devnet import aave_v3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import config_toml

HOSTILE = [
    "",
    "abc",
    "0x10",
    "-",
    "1e5",
    "1e999999999",
    "nan",
    "9" * 5_000,
    "١٢",
    "\x00",
    "\ud7ff\x1b[2J",
    "[]",
    "{}",
    "null",
    "[" * 20_000,
]
#: what one command may take, with much room, and what it may add to the most memory held so far
SECONDS = 20
MEMORY = 512 * 2**20
LONG = "x" * 2**20
ANYTHING: list[Any] = [
    None,
    "",
    "\x00",
    "a\x00b",
    "\x1b[2J\r\n\x07",
    "\u202egnp.exe",
    "<script>alert(1)</script>",
    "[bold red]x[/] [/nothing]",
    "=HYPERLINK(1)",
    LONG,
    "[" * 2**20,
    b"\xff\xfe\x00",
    b"\xff" * 2**20,
    0,
    -1,
    2**63 - 1,
    -(2**63),
    1.5,
    1e308,
    float("inf"),
    float("-inf"),
    float("nan"),
    "nan",
    "9" * 5_000,
    "1e999999999",
    "{}",
    "[]",
    "null",
    '{"a": [1, {"b": null}]}',
    "2026-13-45T99:99:99Z",
]
#: readers of every kind of row
VERBS = [
    ("status",),
    ("at-risk", "--table"),
    ("export", "positions", "--csv"),
    ("export", "balances", "--json"),
    ("export", "markets", "--csv"),
    ("movements", "--min", "0"),
    ("report", "book"),
    ("simulate", "--days", "30"),
    ("top",),
]


@pytest.fixture(scope="module")
def folder(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("content")
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, "3.6")
        market.populate(seed=3, users=12)
        (folder / "indexer.toml").write_text(config_toml(CHAIN_ID, node.url, [market]))
        options = ["--config", str(folder / "indexer.toml"), "--db", str(folder / "good.db")]
        assert CliRunner().invoke(main, [*options, "sync", "--chain", "devnet"]).exit_code == 0
        yield folder


def places(path: Path) -> list[tuple[str, str]]:
    """Every text column whose content is read as a number or as JSON."""
    with closing(sqlite3.connect(path)) as conn:
        return [
            (table, column)
            for (table,) in conn.execute(
                "select name from sqlite_master where type = 'table' and name not like '%sql%'"
            )
            for (column,) in conn.execute("select name from pragma_table_info(?) where type = 'TEXT'", (table,))
            if column.endswith("_raw") or column in ("market", "state", "addresses", "options")
            if conn.execute(f"select 1 from {table} limit 1").fetchone()
        ]


@pytest.mark.parametrize(
    ("table", "column", "value", "verb", "told"),
    [
        (
            "positions",
            "health_factor_raw",
            "abc",
            ("at-risk", "--below", "100", "--table"),
            "health_factor_raw is 'abc'",
        ),
        ("snapshots", "market", "{}", ("simulate", "--days", "30"), "a stored market of aave-v3-6-devnet is damaged"),
        (
            "deployments",
            "addresses",
            "[" * 2**20,
            ("simulate", "--days", "30"),
            "aave-v3-6-devnet.addresses is damaged",
        ),
        ("deployments", "options", "7", ("simulate", "--days", "30"), "aave-v3-6-devnet.options is damaged"),
        ("states", "state", "[", ("simulate", "--days", "30"), "a stored position of aave-v3-6-devnet is damaged"),
    ],
)
def test_it_is_named(folder: Path, table: str, column: str, value: str, verb: tuple[str, ...], told: str) -> None:
    path = folder / "named.db"
    shutil.copy(folder / "good.db", path)
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(f"update {table} set {column} = ?", (value,))
    result = CliRunner().invoke(main, ["--config", str(folder / "indexer.toml"), "--db", str(path), *verb])
    assert result.exit_code == 1, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert told in line
    assert "run `indexer sync` again" in line


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_foreign_text_in_the_database_is_one_line(folder: Path, data: st.DataObject) -> None:
    path = folder / "foreign.db"
    shutil.copy(folder / "good.db", path)
    table, column = data.draw(st.sampled_from(places(path)))
    value = data.draw(st.sampled_from(HOSTILE) | st.text(max_size=40).filter(lambda text: "\x00" not in text))
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute(f"update or ignore {table} set {column} = ?", (value,))
    for verb in VERBS:
        result = CliRunner().invoke(main, ["--config", str(folder / "indexer.toml"), "--db", str(path), *verb])
        assert result.exception is None or isinstance(result.exception, SystemExit), (table, column, value, verb)
        assert result.exit_code in (0, 1), (table, column, value, verb, result.output)
        if result.exit_code:
            errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
            assert len(errors) == 1, result.stderr
            assert len(errors[0]) < 1_000


#: the same in the forms for people and programs, and what is asked of a wallet or of everything
FORMS = [
    ("status", "--table"),
    ("at-risk", "--below", "9", "--csv"),
    ("show", "WALLET"),
    ("show", "WALLET", "--table"),
    ("report", "WALLET"),
    ("report", "book", "--format", "html"),
    ("simulate", "WALLET", "--shock", "WETH=-20%"),
    ("query", "--table", "select * from TABLE"),
    ("query", "--json", "select * from TABLE"),
]


def spoilt(folder: Path, table: str, column: str, value: object) -> Path:
    """A copy of the database with this value in each row of a column, whatever its type, as where a table was not strict."""
    path = folder / "spoilt.db"
    shutil.copy(folder / "good.db", path)
    schema = "replace(sql, ') strict', ')')"
    for kind in ("text", "integer", "real", "blob"):
        schema = f"replace({schema}, '{kind} not null', '{kind}')"
    with closing(sqlite3.connect(path)) as conn, conn:
        conn.execute("pragma writable_schema = on")
        conn.execute(f"update sqlite_master set sql = {schema} where type = 'table'")
    with closing(sqlite3.connect(path)) as conn, conn, suppress(sqlite3.IntegrityError):  # a row's number stays one
        conn.execute("pragma ignore_check_constraints = on")
        conn.execute(f"update or ignore {table} set {column} = ?", (value,))
    return path


def shown_or_told(folder: Path, path: Path, words: list[str], what: object) -> None:
    began = time.monotonic()
    result = CliRunner().invoke(main, ["--config", str(folder / "indexer.toml"), "--db", str(path), *words])
    assert time.monotonic() - began < SECONDS, what
    assert result.exception is None or isinstance(result.exception, SystemExit), what
    assert result.exit_code in (0, 1, 2), (what, result.output[:2_000])
    errors = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == (result.exit_code != 0), (what, result.stderr[:2_000])
    assert all(len(line) < 1_000 for line in errors), what
    assert "Traceback" not in result.output, what
    assert "\x1b[2J" not in result.stderr, what
    assert "--table" not in words or "\x1b[2J" not in result.stdout, what
    assert "html" not in words or "<script>alert" not in result.stdout, what


@pytest.mark.parametrize(
    ("table", "column"),
    [("balances", "symbol"), ("assets", "symbol"), ("deployments", "note"), ("positions", "blocked_by")],
)
def test_controls_are_spelt_out_for_people(folder: Path, table: str, column: str) -> None:
    path = spoilt(folder, table, column, "\x1b[2J\r\n\x07")
    with closing(sqlite3.connect(path)) as conn:
        (wallet,) = conn.execute("select wallet from positions order by health_factor limit 1").fetchone()
    for verb in VERBS + FORMS:
        words = [word.replace("TABLE", table).replace("WALLET", wallet) for word in verb]
        shown_or_told(folder, path, words, (table, column, verb))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_value_in_any_column_is_shown_or_told_in_one_line(folder: Path, data: st.DataObject) -> None:
    with closing(sqlite3.connect(folder / "good.db")) as conn:
        tables = "select name from sqlite_master where type = 'table' and name not like '%sql%' order by name"
        columns = [
            (table, column)
            for (table,) in conn.execute(tables).fetchall()
            if conn.execute(f"select 1 from {table} limit 1").fetchone()
            for (column,) in conn.execute("select name from pragma_table_info(?)", (table,)).fetchall()
        ]
        (wallet,) = conn.execute("select wallet from positions order by health_factor limit 1").fetchone()
    table, column = data.draw(st.sampled_from(columns))
    text = st.text(max_size=40)
    value = data.draw(st.sampled_from(ANYTHING) | text | st.binary(max_size=8))
    path = spoilt(folder, table, column, value)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for verb in VERBS + FORMS:
        words = [word.replace("TABLE", table).replace("WALLET", wallet) for word in verb]
        shown_or_told(folder, path, words, (table, column, repr(value)[:60], verb))
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1_024 < MEMORY, (table, column)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(
    st.text(max_size=200)
    | st.recursive(
        st.sampled_from(["1", "nan", '"x"', "[]", "{}", "1979-05-27"]),
        lambda inner: st.lists(inner, max_size=2).map(lambda parts: f"[{', '.join(parts)}]"),
    ).map("[settings]\nat_risk_below = {}".format)
    | st.sampled_from(["[" * 20_000, "a." * 50_000 + "b = 1", 'a = "' + "x" * 10**6, "x = " + "{a=" * 5_000])
)
def test_any_text_as_a_configuration_is_taken_or_refused(text: str) -> None:
    message = ""
    try:
        config.parse(text, "indexer.toml")
    except ConfigError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 2_000
