"""Parquet exports as other tools open them: exact strings, doubles, UTC times; files whole or not at all."""

import datetime as dt
import sqlite3
import sys
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from indexer.api.arrow import by_name, by_values
from indexer.cli.main import main
from indexer.extras import how_to_install
from indexer.history.history import MOVEMENT_COLUMNS
from indexer.queries.exports import Kind, select
from indexer.queries.queries import STATUS_COLUMNS
from indexer.risk.simulate import ASSET_COLUMNS, OUTCOME_COLUMNS
from indexer.store.database import open_readonly
from indexer.store.store import Store

LARGE = str(2**256 - 1)
TIME = 1_700_000_000
COMMITTED = dt.datetime.fromtimestamp(TIME, dt.UTC)


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A database with three positions, one with numbers that no float can hold and a symbol that is a formula."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "indexer.db"
    with Store(path) as store, store.transaction() as conn:
        conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_hash,"
            " block_timestamp, state) values (1, 'core', 'aave-v3', 'all', 7, '0x00', ?, 'ok')",
            (TIME,),
        )
        for digit, raw, health, debt, status in [
            ("1", LARGE, 0.5, 70.0, "liquidatable"),
            ("2", "1000000000000000001", 1.0, 90.5, "at-risk"),
            ("3", None, None, None, "unpriceable"),
        ]:
            account = "0x" + digit * 40
            conn.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, owner, wallet,"
                " collateral_value_raw, health_factor_raw, health_factor, debt_usd, status, block_number, block_hash)"
                " values (1, 'core', 'aave-v3', ?1, '', ?1, ?1, ?2, ?2, ?3, ?4, ?5, 7, '0x00')",
                (account, raw, health, debt, status),
            )
            conn.execute(
                "insert into balances values (1, 'core', ?, '', '0xaa', '0xbb', '=USD', 'supply', ?, ?, 0.1, ?, 1, 7)",
                (account, raw or "0", raw or "0", debt),
            )
        conn.execute(
            "insert into markets (chain_id, deployment, protocol, position_group, asset, market, symbol, decimals,"
            " price_raw, active, block_number) values (1, 'core', 'aave-v3', '', '0xaa', '0xbb', '=USD', 18, ?, 1, 7)",
            (LARGE,),
        )
    return path


def exported(*arguments: str) -> Path:
    path = Path("rows.parquet")
    result = CliRunner().invoke(main, ["export", *arguments, "--output", str(path)])
    assert (result.exit_code, result.stdout) == (0, ""), result.output
    return path


def test_duckdb_reads_exact_strings_and_doubles(db: Path) -> None:
    path = exported("positions")
    rows = duckdb.sql(
        f"select account, collateral_value_raw, health_factor, debt_usd from '{path}' order by account"
    ).fetchall()
    assert rows == [
        ("0x" + "1" * 40, LARGE, 0.5, 70.0),
        ("0x" + "2" * 40, "1000000000000000001", 1.0, 90.5),
        ("0x" + "3" * 40, None, None, None),
    ]
    (total,) = duckdb.sql(f"select sum(health_factor_raw::hugeint) from '{path}' where account like '0x2%'").fetchall()
    assert total == (1000000000000000001,)
    (when,) = duckdb.sql(f"select distinct epoch(block_time), typeof(block_time) from '{path}'").fetchall()
    assert when == (TIME, "TIMESTAMP WITH TIME ZONE")


def test_pandas_reads_exact_strings_and_utc_times(db: Path) -> None:
    frame = pd.read_parquet(exported("positions"))
    assert frame["health_factor_raw"].dropna().tolist() == ["1000000000000000001", LARGE]
    assert frame["debt_usd"].dtype == "float64"
    assert frame["block_number"].tolist() == [7, 7, 7]
    assert frame["block_time"].tolist() == [pd.Timestamp(COMMITTED)] * 3


@pytest.mark.parametrize("kind", Kind)
def test_every_export_holds_what_sql_gives_in_the_same_order(db: Path, kind: Kind) -> None:
    table = parquet.read_table(exported(kind.value))
    with open_readonly(db) as conn:
        columns, rows = select(conn, kind)
        expected = [tuple(row) for row in rows]
    conn.close()
    assert table.column_names == columns
    assert expected
    found = zip(*(column.to_pylist() for column in table.columns), strict=True)
    for ours, theirs in zip(found, expected, strict=True):
        for name, mine, value in zip(columns, ours, theirs, strict=True):
            assert mine == (COMMITTED if by_name(name) == "time" else value), name


@pytest.mark.parametrize("kind", Kind)
def test_types_do_not_depend_on_the_rows(db: Path, kind: Kind) -> None:
    full = parquet.read_schema(exported(kind.value))
    assert all(by_name(name) for name in full.names)
    with sqlite3.connect(db) as conn:
        for table in ("positions", "balances", "markets"):
            conn.execute(f"delete from {table}")
    conn.close()
    assert parquet.read_schema(exported(kind.value)) == full


@pytest.mark.parametrize("columns", [STATUS_COLUMNS, OUTCOME_COLUMNS, ASSET_COLUMNS, MOVEMENT_COLUMNS])
def test_what_other_commands_list_has_a_type_without_rows_too(columns: list[str]) -> None:
    assert all(map(by_name, columns))


def test_filters_and_rank_are_those_of_every_format(db: Path) -> None:
    assert parquet.read_table(exported("positions", "--min-debt", "80")).column("account").to_pylist() == [
        "0x" + "2" * 40,
        "0x" + "3" * 40,
    ]
    assert parquet.read_table(exported("at-risk", "--below", "1.01")).column("account").to_pylist() == ["0x" + "2" * 40]


def test_a_query_s_columns_take_the_type_of_their_values(db: Path) -> None:
    sql = "select 1 as small, 0.5 as part, 'x' as name, null as missing, 9223372036854775807 as large"
    result = CliRunner().invoke(main, ["query", sql, "-o", "rows.parquet"])
    assert result.exit_code == 0, result.output
    table = parquet.read_table("rows.parquet")
    assert table.to_pylist() == [{"small": 1, "part": 0.5, "name": "x", "missing": None, "large": 2**63 - 1}]
    assert table.schema.field("name").type == pa.string()


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ([1, None], "int"),
        ([1, 0.5], "real"),
        ([0.5, 2**53], "text"),
        ([2**53, 0.5], "text"),
        ([2**63], "text"),
        (["1"], "text"),
        ([], "int"),
    ],
)
def test_a_column_never_loses_a_digit(values: list[object], name: str) -> None:
    assert by_values(values) == name


def test_a_misleading_name_is_told_and_the_old_file_stays(db: Path) -> None:
    Path("rows.parquet").write_text("old")
    result = CliRunner().invoke(main, ["query", "select 'much' as debt_usd", "-o", "rows.parquet"])
    assert result.exit_code == 1
    assert "column debt_usd does not hold what its name says" in result.stderr
    assert Path("rows.parquet").read_text() == "old"
    assert [path.name for path in Path().iterdir() if not path.name.startswith("indexer.db")] == ["rows.parquet"]


def test_a_pipe_gets_the_bytes(db: Path) -> None:
    result = CliRunner().invoke(main, ["export", "wallets", "--parquet"])
    assert result.exit_code == 0
    assert parquet.read_table(pa.BufferReader(result.stdout_bytes)).num_rows == 3


def test_without_pyarrow_it_says_what_to_install(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    result = CliRunner().invoke(main, ["export", "wallets", "-o", "rows.parquet"])
    assert result.exit_code == 1
    assert how_to_install("parquet") in result.stderr
    assert not Path("rows.parquet").exists()
