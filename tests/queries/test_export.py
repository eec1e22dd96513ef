"""Rows in every format: exact numbers, harmless strings, whole files; and which rows an export takes."""

import csv
import io
import json
import os
import sqlite3
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.errors import ConfigError, IndexerError
from indexer.queries import exports, ranking
from indexer.queries.exports import Kind
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.terminal import output
from indexer.terminal.output import Format, Output
from indexer.text.values import cell_text, printable
from indexer.text.values import shown as shown_text

HOSTILE = [
    "\x1b[2J\x1b]0;owned\x07",
    "\x9b31m",
    "[red]x[/red]",
    "[link=file:///etc/passwd]x[/link]",
    "a\nb\rc\td",
    "\u202eCDSU",
    "US\u200bDC",
    "\x7f\x00",
]
FORMULAS = ["=HYPERLINK(1)", "+1+1", "-2+3", "@SUM(A1)", " =1", "\uff1d1+1"]


def text(kind: Format, columns, *rows, headers: bool = True) -> str:
    stream = io.StringIO()
    output.write(columns, rows, kind, stream, headers=headers)
    return stream.getvalue()


# formats -----------------------------------------------------------------------------------------------------------


def test_json_is_one_array():
    assert json.loads(text(Format.JSON, ["a", "b"], (1, None), ("x", 0.5))) == [
        {"a": 1, "b": None},
        {"a": "x", "b": 0.5},
    ]
    assert text(Format.JSON, ["a"]) == "[]\n"


def test_nl_is_one_object_a_line():
    assert text(Format.NL, ["a"], (1,), (2,)) == '{"a": 1}\n{"a": 2}\n'
    assert text(Format.NL, ["a"]) == ""


def test_json_keeps_integers_exact():
    rows = json.loads(text(Format.JSON, ["raw", "small", "big"], (str(2**255), 2**53, 2**53 + 1)))
    assert rows == [{"raw": str(2**255), "small": 2**53, "big": str(2**53 + 1)}]


def test_json_carries_what_json_cannot():
    rows = json.loads(text(Format.JSON, ["a", "b", "c"], (float("inf"), b"\x01\xff", {"k": [2**60]})))
    assert rows == [{"a": "inf", "b": "0x01ff", "c": {"k": [str(2**60)]}}]


def test_csv_and_tsv_quote_what_they_must():
    assert text(Format.CSV, ["a", "b"], ('x,"y"', None), (1, 1.5)) == 'a,b\n"x,""y""",\n1,1.5\n'
    assert text(Format.TSV, ["a", "b"], ("x,y", True)) == "a\tb\nx,y\tTrue\n"
    assert text(Format.CSV, ["a"], (1,), headers=False) == "1\n"


def test_csv_floats_are_not_shortened():
    assert text(Format.CSV, ["health_factor"], (1.0999999999999999,)) == "health_factor\n1.0999999999999999\n"


def test_a_table_shows_every_cell_in_full():
    account = "0x" + "ab" * 20
    table = text(Format.TABLE, ["account", "debt_usd", "health_factor", "symbol"], (account, 1234567.891, None, "WETH"))
    assert account in table
    assert "1,234,567.89" in table
    assert table.splitlines()[1].split()[2] == "-"


def test_a_table_lines_up_wide_and_nested_cells():
    written = text(
        Format.TABLE, ["symbol", "debt_usd", "of"], ("\u4ef7\u5024", 5.0, {"a": 1, "b": 2}), ("X", 12345.0, "c")
    )
    assert written == (
        "symbol   debt_usd  of\n"
        "\u4ef7\u5024         5.00  a 1\n"
        "                   b 2\n"
        "X       12,345.00  c\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.99999999, "0.9999"),
        (1.0, "1.0000"),
        (1.1, "1.1000"),
        (0.0, "0.0000"),
        (9999.99999, "9,999.9999"),
        (12345.6789, "1.23e+04"),
        (2e30, "2e+30"),
    ],
)
def test_a_health_factor_is_cut_so_that_below_one_never_reads_as_one(value, shown):
    assert shown_text("health_factor", value) == shown


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.5"), (1e-9, "1e-09"), (1234.5, "1,234.5"), (3.0, "3"), (0.0, "0"), (1e18, "1e+18")]
)
def test_amounts_are_short_and_never_shown_as_nothing(value, shown):
    assert shown_text("amount", value) == shown


# harmless ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in Format if kind is not Format.PARQUET])
@pytest.mark.parametrize("hostile", HOSTILE)
def test_no_string_steers_a_terminal(kind, hostile):
    written = text(kind, [hostile], (hostile,))
    assert not set(written.replace("\n", "").replace("\t", "" if kind is Format.TSV else "\t")) & set(
        "\x00\x07\x1b\x7f\x9b\r\t\u200b\u202e"
    )


def test_what_would_steer_is_spelt_out():
    assert printable("\x1b[31mUSDC\u202e\n") == r"\x1b[31mUSDC\u202e\n"
    assert printable("USD\u20ae0 \u0394") == "USD\u20ae0 \u0394"


@pytest.mark.parametrize("hostile", HOSTILE[2:4])
def test_a_table_prints_markup_as_it_is(hostile):
    assert hostile in text(Format.TABLE, ["symbol"], (hostile,))


@pytest.mark.parametrize("kind", [Format.CSV, Format.TSV])
@pytest.mark.parametrize("formula", FORMULAS)
def test_a_spreadsheet_sees_text_not_a_formula(kind, formula):
    dialect = "excel" if kind is Format.CSV else "excel-tab"
    header, row = csv.reader(io.StringIO(text(kind, [formula], (formula,))), dialect=dialect)
    assert header[0].startswith("'")
    assert row[0].startswith("'")


@pytest.mark.parametrize(
    "number", ["-5", "+1.5", "1e-7", "115792089237316195423570985008687907853269984665640564039457"]
)
def test_numbers_are_no_formulas(number):
    assert text(Format.CSV, ["n"], (number,)) == f"n\n{number}\n"
    assert text(Format.CSV, ["n"], (-5,)) == "n\n-5\n"


@given(st.text())
def test_json_gives_every_string_back(value):
    assert json.loads(text(Format.JSON, ["s"], (value,))) == [{"s": value}]


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cf", "Cs", "Zl", "Zp"])))
def test_csv_gives_printable_strings_back(value):
    (row,) = csv.reader(io.StringIO(text(Format.CSV, ["s", "t"], (value, "."), headers=False)))
    assert row[0].removeprefix("'") == value.removeprefix("'")


# files -------------------------------------------------------------------------------------------------------------


CELLS = (
    st.sampled_from(["", None, 'a"b', '"', "a,b", "a\tb", ",", "x"]) | st.floats() | st.integers() | st.text(max_size=5)
)


@pytest.mark.parametrize(("kind", "dialect"), [(Format.CSV, "excel"), (Format.TSV, "excel-tab")])
@given(rows=st.integers(1, 3).flatmap(lambda n: st.lists(st.lists(CELLS, min_size=n, max_size=n), min_size=1)))
def test_lines_are_those_of_the_csv_module(kind, dialect, rows):
    stream = io.StringIO()
    writer = csv.writer(stream, dialect, lineterminator="\n")
    writer.writerows([cell_text(cell) for cell in row] for row in rows)
    assert text(kind, *rows) == stream.getvalue()


def test_a_file_is_replaced_at_once_and_keeps_its_mode(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("old")
    path.chmod(0o640)
    before = path.stat().st_ino
    output.write_file(path, lambda stream: output.write(["a"], [(1,)], Format.CSV, stream))
    assert path.read_text() == "a\n1\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_ino != before
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_export_leaves_the_old_file(tmp_path: Path):
    path = tmp_path / "rows.csv"
    path.write_text("old")

    def rows():
        yield (1,)
        raise sqlite3.OperationalError("disk I/O error")

    with pytest.raises(sqlite3.OperationalError):
        output.write_file(path, lambda stream: output.write(["a"], rows(), Format.CSV, stream))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_and_what_it_names_is_replaced(tmp_path: Path):
    (tmp_path / "disk").mkdir()
    link = tmp_path / "rows.csv"
    link.symlink_to(tmp_path / "disk" / "real.csv")
    output.write_file(link, lambda stream: output.write(["a"], [(1,)], Format.CSV, stream))
    assert link.is_symlink()
    assert (tmp_path / "disk" / "real.csv").read_text() == "a\n1\n"


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    output.write_file(pipe, lambda stream: output.write(["a"], [(1,)], Format.CSV, stream))
    assert os.read(reader, 100) == b"a\n1\n"
    os.close(reader)
    assert pipe.is_fifo()


def test_an_unwritable_place_is_one_clear_error(tmp_path: Path):
    with pytest.raises(IndexerError, match=r"cannot write .*nowhere/rows\.csv: No such file or directory"):
        output.write_file(tmp_path / "nowhere" / "rows.csv", lambda stream: None)


@click.command()
@output.output_options
def rows_command(output: Output) -> None:
    output.write(["a"], [(1,)])


@pytest.mark.parametrize(
    ("flags", "written"),
    [
        ([], '[{"a": 1}]\n'),
        (["--json"], '[{"a": 1}]\n'),
        (["--nl"], '{"a": 1}\n'),
        (["--csv"], "a\n1\n"),
        (["--tsv", "--no-headers"], "1\n"),
        (["--table"], "a\n1\n"),
        (["-t", "--no-headers"], "1\n"),
    ],
)
def test_flags_choose_the_format(flags, written):
    result = CliRunner().invoke(rows_command, flags)
    assert (result.exit_code, result.stdout) == (0, written)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a.json", '[{"a": 1}]\n'),
        ("a.ndjson", '{"a": 1}\n'),
        ("a.CSV", "a\n1\n"),
        ("a.tsv", "a\n1\n"),
        ("a", '[{"a": 1}]\n'),
        ("a.b.csv", "a\n1\n"),
    ],
)
def test_the_file_name_chooses_the_format(tmp_path, name, written):
    result = CliRunner().invoke(rows_command, ["--output", str(tmp_path / name)])
    assert (result.exit_code, result.stdout) == (0, "")
    assert (tmp_path / name).read_text() == written


def test_a_flag_says_how_to_write_a_file_whose_ending_does_not(tmp_path):
    CliRunner().invoke(rows_command, ["--nl", "-o", str(tmp_path / "a.log")])
    assert (tmp_path / "a.log").read_text() == '{"a": 1}\n'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "a.xlsx"], "'a.xlsx' has none of the endings that choose a format: .json, "),
        (["-o", "a.txt"], "'a.txt' has none of the endings that choose a format: .json, "),
        (["--nl", "-o", "a.csv"], "'a.csv' ends as csv does, but nl was asked for; choose one"),
        (["--table", "-o", "a.json"], "'a.json' ends as json does, but table was asked for; choose one"),
    ],
)
def test_a_file_is_never_written_in_another_format_than_its_ending_says(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(rows_command, arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_two_formats_exclude_each_other():
    result = CliRunner().invoke(rows_command, ["--csv", "--json"])
    assert result.exit_code == 2
    assert "--json and --csv exclude each other" in result.stderr


# what is exported --------------------------------------------------------------------------------------------------

POSITIONS = [
    # deployment, protocol, account, health factor, debt in USD, status
    ("maker", "maker", "0x" + "1" * 40, 0.5, 100.0, "liquidatable"),
    ("maker", "maker", "0x" + "2" * 40, 1.05, 5000.0, "at-risk"),
    ("maker", "maker", "0x" + "3" * 40, 1.05, 100.0, "at-risk"),
    ("sparklend", "aave-v3", "0x" + "2" * 40, 3.0, 9000.0, "healthy"),
    ("sparklend", "aave-v3", "0x" + "4" * 40, None, 0.0, "no-debt"),
    ("sparklend", "aave-v3", "0x" + "5" * 40, None, None, "unpriceable"),
    ("sparklend", "aave-v3", "0x" + "6" * 40, 1.02, 70.0, "unverified"),
]


@pytest.fixture
def conn(tmp_path: Path):
    """A database with the positions above, each with one balance of its debt."""
    path = tmp_path / "indexer.db"
    with Store(path) as store, store.transaction() as db:
        for deployment, protocol, account, health, debt, status in POSITIONS:
            db.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, owner, owner_via, wallet,"
                " health_factor_raw, health_factor, collateral_usd, debt_usd, status, block_number, block_hash)"
                " values (1, ?, ?, ?, '', ?, 'self', ?, ?, ?, 10000.0, ?, ?, 7, '0x00')",
                (
                    deployment,
                    protocol,
                    account,
                    account,
                    account,
                    health and str(int(health * 1e18)),
                    health,
                    debt,
                    status,
                ),
            )
            db.execute(
                "insert into balances values (1, ?, ?, '', '0xaa', '0xbb', 'DAI', 'debt', '1', '1', 1e-18, ?, 1, 7)",
                (deployment, account, debt),
            )
        db.execute(
            "insert into markets (chain_id, deployment, protocol, position_group, asset, market, symbol, decimals,"
            " block_number) values (1, 'maker', 'maker', 'ETH-A', '0xaa', '0xbb', 'WETH', 18, 7)"
        )
    connection = open_readonly(path)
    yield connection
    connection.close()


def selected(conn, kind: Kind, **filters) -> list[str]:
    """The digit each selected row's account or wallet is made of, in order."""
    columns, rows = exports.select(conn, kind, **filters)
    return [row[columns.index("wallet" if kind is Kind.WALLETS else "account")][-1] for row in rows]


def test_at_risk_rows_are_ranked_by_debt_then_health(conn):
    assert selected(conn, Kind.AT_RISK) == ["2", "1", "3"]


def test_below_takes_every_lower_health_factor_whatever_its_status(conn):
    assert selected(conn, Kind.AT_RISK, below=1.03) == ["1", "6"]
    assert selected(conn, Kind.AT_RISK, below=4) == ["2", "2", "1", "3", "6"]


def test_positions_are_all_debt_at_risk_first_and_unknown_debts_last(conn):
    assert selected(conn, Kind.POSITIONS) == ["2", "1", "3", "2", "6", "4", "5"]


def test_below_is_exact_where_a_float_is_not(tmp_path: Path):
    path = tmp_path / "indexer.db"
    with Store(path) as store, store.transaction() as db:
        for digit, raw in enumerate(("0", "999999999999999999", "1000000000000000000", "10")):
            db.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, health_factor_raw,"
                " health_factor, status, block_number, block_hash) values (1, 'd', 'p', ?, '', ?, ?, 'healthy', 7, '')",
                (str(digit), raw, int(raw) / 1e18),
            )
    with open_readonly(path) as conn:
        assert sorted(selected(conn, Kind.POSITIONS, below=1)) == ["0", "1", "3"]
        assert sorted(selected(conn, Kind.POSITIONS, below=1.1)) == ["0", "1", "2", "3"]
        assert selected(conn, Kind.POSITIONS, below=0) == []
        assert len(selected(conn, Kind.POSITIONS, below=float("inf"))) == 4
    conn.close()


def test_a_least_debt_keeps_unknown_debts(conn):
    assert selected(conn, Kind.POSITIONS, min_debt=100) == ["2", "1", "3", "2", "5"]


def test_protocols_filter(conn):
    assert selected(conn, Kind.POSITIONS, protocols=["maker"]) == ["2", "1", "3"]
    assert selected(conn, Kind.BALANCES, protocols=["maker"], min_debt=1000) == ["2"]
    assert selected(conn, Kind.WALLETS, protocols=["maker"]) == ["2", "1", "3"]


def test_a_wallet_is_ranked_by_its_whole_debt(conn):
    columns, rows = exports.select(conn, Kind.WALLETS, min_debt=14000)
    row, unknown = rows
    assert unknown[0] == "0x" + "5" * 40
    assert dict(zip(columns, row, strict=True)) | {"health_factor_raw": ""} == {
        "wallet": "0x" + "2" * 40, "positions": 2, "collateral_usd": 20000.0, "debt_usd": 14000.0, "net_usd": 6000.0,
        "health_factor_raw": "", "health_factor": 1.05, "worst_chain_id": 1, "worst_deployment": "maker",
        "worst_account": "0x" + "2" * 40, "worst_position_group": "", "oldest_block_number": 7,
        "supply_usd": 20000.0, "debt_at_risk_usd": 5000.0, "oldest_block_time": None,
    }  # fmt: skip
    assert selected(conn, Kind.WALLETS, below=1) == ["1"]


@pytest.fixture
def unvalued(tmp_path: Path):
    """Wallets by the debt in USD of their positions at risk: 1 has 50, 2 has 70 and an unknown one, 3 an unknown one.

    4 has an unknown debt that is not at risk.
    """
    path = tmp_path / "unvalued.db"
    rows = [("1", 50.0, "at-risk"), ("2", 70.0, "liquidatable"), ("2", None, "at-risk"), ("3", None, "liquidatable")]
    with Store(path) as store, store.transaction() as db:
        for number, (wallet, debt, status) in enumerate([*rows, ("4", None, "healthy")]):
            db.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, owner, wallet,"
                " debt_usd, status, block_number, block_hash) values (1, 'd', 'p', ?, ?, ?, ?, ?, ?, 7, '0x00')",
                (wallet, str(number), wallet, wallet, debt, status),
            )
    connection = open_readonly(path)
    yield connection
    connection.close()


def test_the_riskiest_wallets_include_those_whose_debt_at_risk_is_unknown(unvalued):
    """They come last: nobody can say that they are less at risk than the others."""
    columns, rows = ranking.top(unvalued, "risk", limit=10)
    found = [(row[columns.index("wallet")], row[columns.index("debt_at_risk_usd")]) for row in rows]
    assert found == [("1", 50.0), ("2", None), ("3", None)]


def test_markets_have_no_debt_filter(conn):
    columns, rows = exports.select(conn, Kind.MARKETS, protocols=["maker"])
    assert [row[columns.index("symbol")] for row in rows] == ["WETH"]
    for filters in ({"below": 1.1}, {"min_debt": 1}):
        with pytest.raises(ConfigError, match="markets have no debtor"):
            exports.select(conn, Kind.MARKETS, **filters)


@pytest.mark.parametrize(
    ("kind", "table"),
    [(Kind.POSITIONS, "positions"), (Kind.BALANCES, "balances"), (Kind.MARKETS, "markets"), (Kind.WALLETS, "wallets")],
)
def test_an_export_has_every_column_of_its_table_in_order(conn, kind, table):
    own = {Kind.WALLETS: ["debt_at_risk_usd", "oldest_block_time"]}.get(kind, ["block_time", "block_timestamp"])
    own = ["block_time"] if kind is Kind.POSITIONS else own  # the table has it as a number
    assert exports.select(conn, kind)[0] == [row[1] for row in conn.execute(f"pragma table_info({table})")] + own
