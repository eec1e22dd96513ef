"""The data dictionary: whole, of the types that the tables have, and the same wherever it is told."""

import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner
from pyarrow import parquet

from indexer.cli.main import main
from indexer.forecast.rows import LISTED
from indexer.forecast.sums import BOOK_COLUMNS, PART_COLUMNS
from indexer.history.history import MOVEMENT_COLUMNS
from indexer.queries import exports
from indexer.queries.queries import STATUS_COLUMNS
from indexer.risk.opportunity_rows import COLUMNS as OPPORTUNITY_COLUMNS
from indexer.risk.simulate import ASSET_COLUMNS, OUTCOME_COLUMNS
from indexer.schema.dictionary import dictionary
from indexer.store.database import open_readonly
from indexer.store.liquidations import ADDED, LIQUIDATION_COLUMNS
from indexer.store.store import Store

REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference-tables.md"
#: sqlite-utils keeps its own books in it
FOREIGN = {"_sqlite_migrations"}
UNITS = {"flag", "UTC", "unix seconds", "JSON", "USD", "ratio", "fraction", "%", "count", "block", "seconds", "address"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Store(tmp_path / "indexer.db") as store:
        return Path(store.path)


def schema(path: Path) -> dict[str, dict[str, str]]:
    """Every table and view of a file: its columns and their declared types, "" where SQLite knows none."""
    with sqlite3.connect(path) as conn:
        names = [name for (name,) in conn.execute("select name from sqlite_master where type in ('table', 'view')")]
        found = {
            name: {row[1]: row[2].lower() for row in conn.execute(f"pragma table_xinfo({name})")}
            for name in names
            if name not in FOREIGN
        }
    conn.close()
    return found


def test_every_column_of_every_table_and_view_is_in_it_and_nothing_else(path: Path) -> None:
    told = {table.name: set(table.columns) for table in dictionary().tables.values()}
    assert told == {name: set(columns) for name, columns in schema(path).items()}


def test_types_are_those_of_the_tables(path: Path) -> None:
    told = dictionary().tables
    differ = [
        (name, column, kind, told[name].columns[column].type)
        for name, columns in schema(path).items()
        for column, kind in columns.items()
        if kind and kind != told[name].columns[column].type
    ]
    assert differ == []


def test_every_column_says_what_it_means_and_numbers_their_unit() -> None:
    for table in dictionary():
        for name, told in table.columns.items():
            assert told.type in {"integer", "real", "text"}, (table.name, name)
            assert told.meaning, (table.name, name)
            assert told.source, (table.name, name)
            assert told.unit or told.type != "real", (table.name, name)
            assert "|" not in "".join(told), (table.name, name)
            assert not name.endswith("_usd") or told.unit == "USD" or name == "price_usd", (table.name, name)
            assert not name.endswith("_raw") or (told.type == "text" and told.unit), (table.name, name)


@pytest.mark.parametrize(
    "columns",
    [
        exports.MARKET_COLUMNS,
        exports.WALLET_COLUMNS,
        STATUS_COLUMNS,
        MOVEMENT_COLUMNS,
        OPPORTUNITY_COLUMNS,
        OUTCOME_COLUMNS,
        ASSET_COLUMNS,
        LISTED,
        BOOK_COLUMNS,
        PART_COLUMNS,
    ],
)
def test_every_column_that_a_command_lists_is_in_it(columns: list[str]) -> None:
    assert [name for name in columns if dictionary().column(name) is None and name != "id"] == []


def test_lists_of_commands_are_whole() -> None:
    told = {name: set(table.columns) for name, table in dictionary().lists.items()}
    assert told["opportunities"] == set(OPPORTUNITY_COLUMNS)
    assert told["movements"] == set(MOVEMENT_COLUMNS)
    assert told["liquidations"] | {*LIQUIDATION_COLUMNS} == {*LIQUIDATION_COLUMNS, *ADDED, "wallet", "block_time"}
    assert told["simulate"] == set(OUTCOME_COLUMNS)
    assert told["simulate-assets"] == set(ASSET_COLUMNS)
    assert told["forecast"] == set(LISTED)
    assert told["forecast-book"] == set(BOOK_COLUMNS)
    assert told["forecast-parts"] == set(PART_COLUMNS)


def test_rows_of_a_block_name_its_time_in_both_ways(path: Path) -> None:
    for name, columns in schema(path).items():
        if "block_timestamp" in columns and name != "blocks":
            assert "block_time" in columns, name


def test_the_reference_is_what_the_command_prints() -> None:
    result = CliRunner().invoke(main, ["schema", "--markdown"])
    assert result.exit_code == 0
    assert REFERENCE.read_text() == result.stdout, "run: indexer schema --markdown > docs/reference-tables.md"


def test_a_file_tells_its_own_schema_with_a_comment_on_each_column(path: Path) -> None:
    result = CliRunner().invoke(main, ["--db", str(path), "schema", "balances", "--sql"])
    assert "    amount_raw text not null, -- the balance at the row's block" in result.stdout
    assert "primary key (chain_id, deployment, account, position_group, market, asset, side)" in result.stdout
    everything = CliRunner().invoke(main, ["--db", str(path), "schema", "--sql"]).stdout
    with sqlite3.connect(":memory:") as conn:
        conn.executescript(everything)  # comments may not swallow a comma
        names = {name for (name,) in conn.execute("select name from sqlite_master where type in ('table', 'view')")}
    conn.close()
    assert names >= dictionary().tables.keys()


def test_rows_name_table_column_type_unit_meaning_and_source() -> None:
    rows = json.loads(CliRunner().invoke(main, ["schema", "wallets", "--json"]).stdout)
    (supply,) = [row for row in rows if row["column"] == "supply_usd"]
    assert list(supply) == ["table", "column", "type", "unit", "meaning", "source"]
    assert (supply["table"], supply["type"], supply["unit"]) == ("wallets", "real", "USD")
    everything = json.loads(CliRunner().invoke(main, ["schema"]).stdout)
    assert len(everything) == sum(len(table.columns) for table in dictionary().tables.values())


def test_an_unknown_table_is_told_with_what_is_meant() -> None:
    result = CliRunner().invoke(main, ["schema", "walets"])
    assert result.exit_code != 0
    assert "did you mean 'wallets'" in result.stderr


def test_datasette_gets_every_table(path: Path) -> None:
    told = json.loads(CliRunner().invoke(main, ["--db", "somewhere/lending.db", "schema", "--datasette"]).stdout)
    tables = told["databases"]["lending"]["tables"]
    assert {name: set(table["columns"]) for name, table in tables.items()} == {
        name: set(columns) for name, columns in schema(path).items()
    }


def test_a_parquet_file_says_what_its_columns_mean(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.parquet"
    with Store(path) as store, store.transaction() as conn:
        conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_timestamp, state)"
            " values (1, 'core', 'aave-v3', 'all', 7, 1700000000, 'ok')"
        )
    result = CliRunner().invoke(main, ["--db", str(path), "export", "markets", "--output", str(out)])
    assert result.exit_code == 0, result.output
    fields = parquet.read_schema(out)
    assert fields.field("ltv").metadata[b"meaning"] == b"the part of the asset's value that may be borrowed"
    assert fields.field("borrow_rate").metadata[b"unit"] == b"fraction a year"
    assert all(field.metadata for field in fields)


# one name for one thing -----------------------------------------------------------------------------------------------


@pytest.fixture
def supplied(path: Path) -> Path:
    """A wallet with 70 USD that back its debt of 10 and 25 USD that back nothing."""
    with Store(path) as store, store.transaction() as conn:
        conn.execute("insert into blocks (chain_id, number, hash, block_timestamp) values (1, 7, '0x00', 1700000000)")
        conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_timestamp, state)"
            " values (1, 'core', 'aave-v3', 'all', 7, 1700000000, 'ok')"
        )
        account = "0x" + "1" * 40
        conn.execute(
            "insert into positions (chain_id, deployment, protocol, account, position_group, owner, wallet,"
            " collateral_usd, debt_usd, status, block_number, block_hash, block_timestamp)"
            " values (1, 'core', 'aave-v3', ?1, '', ?1, ?1, 70.0, 10.0, 'healthy', 7, '0x00', 1700000000)",
            (account,),
        )
        for asset, usd, backs in (("0xaa", 70.0, 1), ("0xbb", 25.0, 0)):
            conn.execute(
                "insert into balances values (1, 'core', ?, '', ?, ?, 'T', 'supply', '1', '1', 1.0, ?, ?, 7)",
                (account, asset, asset, usd, backs),
            )
    return path


def queried(path: Path, sql: str) -> tuple[list[dict[str, object]], str]:
    result = CliRunner().invoke(main, ["--db", str(path), "query", sql])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_an_old_query_gives_the_old_numbers_and_hears_the_new_name(supplied: Path) -> None:
    rows, said = queried(supplied, "select collateral_usd, net_usd from wallets")
    assert rows == [{"collateral_usd": 95.0, "net_usd": 85.0}]
    assert "wallets.collateral_usd is the old name of supply_usd and goes in 1.1: ask for supply_usd" in said
    rows, said = queried(supplied, "select w.Collateral_USD as held from wallets w")
    assert (rows, "supply_usd" in said) == ([{"held": 95.0}], True)
    rows, said = queried(supplied, "select timestamp from blocks")
    assert (rows, "blocks.timestamp is the old name of block_timestamp" in said) == ([{"timestamp": 1700000000}], True)


@pytest.mark.parametrize(
    "sql",
    [
        "select supply_usd from wallets",
        "select * from wallets",
        "select collateral_usd from positions",
        "select p.collateral_usd, w.supply_usd from wallets w join positions p using (wallet)",
    ],
)
def test_who_asks_by_the_new_names_hears_nothing(supplied: Path, sql: str) -> None:
    _, said = queried(supplied, sql)
    assert "old name" not in said


def test_the_new_names_have_the_same_numbers(supplied: Path) -> None:
    rows, _ = queried(supplied, "select supply_usd = collateral_usd as same, supply_usd from wallets")
    assert rows == [{"same": 1, "supply_usd": 95.0}]
    rows, _ = queried(
        supplied,
        "select block_time, block_timestamp from positions union all select block_time, block_timestamp from blocks",
    )
    assert rows == [{"block_time": "2023-11-14T22:13:20Z", "block_timestamp": 1700000000}] * 2


def test_time_has_one_name_in_every_export(supplied: Path) -> None:
    for kind in (exports.Kind.POSITIONS, exports.Kind.BALANCES, exports.Kind.MARKETS, exports.Kind.AT_RISK):
        with open_readonly(supplied) as conn:
            columns, _ = exports.select(conn, kind)
        conn.close()
        assert {"block_time", "block_timestamp"} <= set(columns), kind
        assert len(columns) == len(set(columns)), kind
