"""Tables on terminals of any width: what is left out, shortened or broken there, and what never is."""

import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len as cell_width

from indexer.text.table import folded, write_table
from indexer.text.values import shown

ADDRESS = "0x41ee1dded0fa5c6b0873982459cb596b8d68c9bb"
COLUMNS = "deployment wallet status health_factor debt_usd collateral_usd blocked_by".split()
ROWS = [
    ("compound-v2", ADDRESS, "liquidatable", Decimal("0.99999"), 31534.92, 32500.0, None),
    ("maker", ADDRESS, "at-risk", Decimal("11.05"), 4.5, 5.0, None),
    ("maker", ADDRESS, "healthy", None, None, 5.0, None),
    ("aave-v3", ADDRESS, "healthy", Decimal("2.5"), 8.0, 20.0, None),
]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(width: int, columns=COLUMNS, rows=ROWS, **how) -> str:
    stream = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(width))
        patch.setenv("TERM", "dumb")
        write_table(columns, rows, stream, **how)
    return stream.getvalue()


def test_with_room_everything_is_whole_and_numbers_are_below_each_other():
    assert drawn(200).splitlines()[:3] == [
        "deployment   wallet                                      status        health_factor   debt_usd  collateral_usd  blocked_by",
        f"compound-v2  {ADDRESS}  liquidatable         0.9999  31,534.92       32,500.00           -",
        f"maker        {ADDRESS}  at-risk             11.0500       4.50            5.00           -",
    ]  # fmt: skip


def test_a_list_without_room_has_short_addresses_broken_headings_and_no_empty_columns():
    assert drawn(80, droppable=True).splitlines() == [
        "                                         health_             collateral_",
        "deployment   wallet        status         factor   debt_usd          usd",
        "compound-v2  0x41ee..c9bb  liquidatable   0.9999  31,534.92    32,500.00",
        "maker        0x41ee..c9bb  at-risk       11.0500       4.50         5.00",
        "maker        0x41ee..c9bb  healthy             -          -         5.00",
        "aave-v3      0x41ee..c9bb  healthy        2.5000       8.00        20.00",
    ]


def test_a_list_with_less_room_says_which_columns_it_leaves_out():
    stream = Terminal()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "62")
        patch.setenv("TERM", "dumb")
        assert write_table(COLUMNS, ROWS, stream, droppable=True) == ["collateral_usd"]
    assert max(map(len, stream.getvalue().splitlines())) <= 62


def test_a_column_that_is_too_wide_leaves_its_room_to_those_behind_it():
    rows = [("maker", "x" * 70, 5.0)] * 4
    table = drawn(40, ["deployment", "note", "debt_usd"], rows, droppable=True).splitlines()
    assert [line.split() for line in table[-4:]] == [["maker", "5.00"]] * 4


def test_a_list_of_nobody_is_no_table():
    assert drawn(80, rows=[], droppable=True) == ""
    assert drawn(200, rows=[]).split() == COLUMNS


def test_the_parts_of_a_wide_table_name_the_account_in_each():
    columns = "deployment position_group account side amount value_usd is_collateral block_number".split()
    rows = [
        ("compound-v2-devnet", "ETH-A", ADDRESS, side, 1_234_567.5, 12_345_678.25, 1, 21_000_000) for side in "ab" * 3
    ]
    tables = drawn(80, columns, rows).rstrip("\n").split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert [line.split()[:4] for line in table.splitlines()[-6:]] == [
            ["compound-v2-devnet", "ETH-A", "0x41ee..c9bb", side] for side in "ab" * 3
        ]


def test_a_number_in_the_first_column_tells_rows_apart_too():
    columns = ["change_percent", *(f"protocol_{n}_debt_usd" for n in range(9))]
    tables = drawn(60, columns, [(-10.0 * n, *[1_234_567.5] * 9) for n in range(5)]).rstrip("\n").split("\n\n")
    assert len(tables) > 1
    for table in tables:
        assert [line.split()[0] for line in table.splitlines()[-5:]] == ["0.00", "-10.00", "-20.00", "-30.00", "-40.00"]


@pytest.mark.parametrize(
    ("column", "value", "text"),
    [
        ("health_factor", Decimal("0.99999"), "0.9999"),
        ("health_factor", Decimal("9999.99999"), "9,999.9999"),
        ("health_factor", Decimal("93161590.9039"), "9.32e+07"),
        ("profit_usd", -1e-18, "0.00"),
        ("profit_usd", -0.006, "-0.01"),
    ],
)
def test_a_number_has_the_digits_that_tell_something(column, value, text):
    assert shown(column, value) == text


def test_wide_means_as_it_is():
    assert drawn(20, wide=True) == drawn(300)


def test_few_rows_are_turned():
    assert drawn(60, rows=ROWS[:1]).splitlines() == [
        "deployment      compound-v2",
        f"wallet          {ADDRESS}",
        "status          liquidatable",
        "health_factor   0.9999",
        "debt_usd        31,534.92",
        "collateral_usd  32,500.00",
        "blocked_by      -",
    ]


def test_other_tables_lose_nothing_and_repeat_what_tells_their_rows_apart():
    tables = drawn(50).split("\n\n")
    assert len(tables) == 3
    assert all(table.splitlines()[-1].startswith("aave-v3") for table in tables)
    assert "31,534.92" in drawn(50)
    assert "0.9999" in drawn(50)


def test_text_breaks_at_blanks_only():
    note = "no price of DEAD from its oracle since the last three snapshots, and from nobody else"
    table = drawn(60, ["deployment", "note", "block_number"], [("maker", note, 1160)] * 4, droppable=True)
    words = note.split()
    assert [word for line in table.splitlines()[1:] for word in line.split() if word in words] == words * 4
    assert max(map(len, table.splitlines())) <= 60


NAMES = st.text(st.sampled_from("abcdefgh_"), min_size=1, max_size=16)
CELLS = st.one_of(
    st.none(),
    st.integers(-(10**15), 10**15),
    st.floats(-1e12, 1e12),
    st.just(ADDRESS),
    st.lists(st.text(st.sampled_from("abcxyz-"), min_size=1, max_size=12), max_size=9).map(" ".join),
)


@pytest.mark.slow
@given(
    names=st.lists(NAMES, min_size=5, max_size=14, unique=True), data=st.data(), width=st.sampled_from([80, 120, 200]),
    droppable=st.booleans(),
)  # fmt: skip
def test_no_line_is_wider_than_the_terminal_and_no_word_is_broken(names, data, width, droppable):
    rows = data.draw(st.lists(st.tuples(*[CELLS] * len(names)), max_size=6))
    whole = drawn(10_000, names, rows)
    table = drawn(width, names, rows, droppable=droppable)
    assert all(cell_width(line) <= width for line in table.splitlines())
    known = {*whole.split(), "0x41ee..c9bb"}
    heads = {part for name in names for part in name.replace("_", "_ ").split()}
    for word in table.split():
        assert word in known or word in names or any(part in heads for part in word.replace("_", "_ ").split()), word


def test_a_number_and_its_per_cent_stay_together():
    assert folded("it has to fall (by -36.68 %), or to rise", 26) == ["it has to fall (by", "-36.68 %), or to rise"]


@given(st.lists(st.text(st.sampled_from("ab1."), min_size=1, max_size=30), min_size=1), st.integers(1, 40))
def test_folding_keeps_every_word(words, width):
    lines = folded(" ".join(words), width)
    assert [word for line in lines for word in line.split()] == words
    assert all(len(line) <= width or " " not in line for line in lines)


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_status_has_a_colour_besides_its_word_where_that_is_wanted(monkeypatch, environment, coloured):
    for name, value in {"TERM": "xterm", "COLUMNS": "200", **environment}.items():
        monkeypatch.setenv(name, value)
    if "NO_COLOR" not in environment:
        monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    write_table(COLUMNS, ROWS, stream)
    assert ("\x1b[1;31mliquidatable\x1b[0m" in stream.getvalue()) is coloured
    assert ("\x1b[33mat-risk\x1b[0m" in stream.getvalue()) is coloured
    assert ("\x1b" in stream.getvalue()) is coloured


def test_only_a_status_is_coloured(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    write_table(["symbol"], [("liquidatable",)], stream, headers=False)
    assert stream.getvalue() == "liquidatable\n"


def test_without_a_terminal_a_table_is_whole_and_plain(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    stream = io.StringIO()
    write_table(COLUMNS, ROWS, stream)
    assert stream.getvalue() == drawn(300)
