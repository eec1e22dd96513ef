"""What each wallet holds: the sums of few and of many values are the same, and a report is the same each time."""

import os
import subprocess
import sys
from array import array
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.queries import holders
from indexer.queries.holders import held
from indexer.queries.spread import LARGEST, Spread, few_spreads, many_spreads
from indexer.store.database import open_readonly
from tests.recorded import CONFIG, recorded

WALLETS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
USD = st.floats(0, 1e15)


def spreads(rows: list[tuple[int, float]]) -> tuple[Spread, Spread]:
    """By a dictionary, and by NumPy."""
    columns = array("q", [wallet for wallet, _ in rows]), array("d", [value for _, value in rows])
    return few_spreads(*columns)[0], many_spreads(*columns)[0]


@given(st.lists(st.tuples(WALLETS, USD), max_size=60))
@example([])
@example([(7, 0.1), (-7, 0.2), (7, 0.3), (7, 0.7)])
@example([(n, 1.0) for n in range(LARGEST + 1)])
def test_few_and_many_values_add_up_to_the_same_digits(rows: list[tuple[int, float]]) -> None:
    few, many = spreads(rows)
    assert few == many
    assert few.wallets == len({wallet for wallet, value in rows if value})


@given(st.lists(st.floats(0.01, 1e12), min_size=1, max_size=LARGEST))
def test_ten_who_hold_everything_hold_100_percent(values: list[float]) -> None:
    assert {one.top10_percent for one in spreads([*enumerate(values)])} == {100}


@given(st.lists(st.floats(min_value=0, max_value=1e12), max_size=50))
def test_concentration_lies_between_equal_shares_and_one_holder(values: list[float]) -> None:
    for wallets, share, index, _ in spreads([*enumerate(values)]):
        if sum(values):
            assert index is not None
            assert share is not None
            assert 10_000 / len(values) * (1 - 1e-9) <= index <= 10_000 * (1 + 1e-9)
            assert min(10 / len(values), 1) * 100 * (1 - 1e-9) <= share <= 100 * (1 + 1e-9)
        else:
            assert (wallets, share, index) == (0, None, None)


def test_concentration_of_known_shares() -> None:
    assert spreads([(1, 60.0), (2, 30.0), (2, 10.0)]) == (Spread(2, 100, 5200, (60, 40)),) * 2
    assert spreads([*enumerate([1.0] * 20)]) == (Spread(20, 50, 500, (1,) * 11),) * 2


def test_each_asset_is_what_the_rows_add_up_to(tmp_path: Path) -> None:
    conn = open_readonly(recorded(tmp_path / "indexer.db"))
    found = held(conn, "true", [])
    for which in ("b.side = 'debt'", "b.side <> 'debt' and b.is_collateral"):
        rows = conn.execute(
            "select b.asset, p.wallet, b.amount_raw, b.value_usd from balances b join positions p "
            f"using (chain_id, deployment, account, position_group) where {which}"
        ).fetchall()
        amounts: dict[str, int] = {}
        wallets: dict[tuple[str, str], float] = {}
        for asset, wallet, raw, usd in rows:
            amounts[asset] = amounts.get(asset, 0) + int(raw)
            if usd is not None:
                wallets[asset, wallet] = wallets.get((asset, wallet), 0.0) + usd
        unknown = Counter(asset for asset, _, _, usd in rows if usd is None)
        assert len(rows) > 50
        for (_, asset), one in found.assets().items():
            of_all, each = (one.debt, one.debts) if "= 'debt'" in which else (one.collateral, one.collaterals)
            assert (of_all.amount, of_all.unvalued) == (amounts.get(asset, 0), unknown[asset])
            values = sorted((usd for (where, _), usd in wallets.items() if where == asset), reverse=True)
            shares = [100 * usd / sum(values) for usd in values] if sum(values) else []
            assert each.wallets == sum(usd > 0 for usd in values)
            assert each.top10_percent == (pytest.approx(sum(shares[:LARGEST])) if shares else None)
            assert each.hhi == (pytest.approx(sum(share**2 for share in shares)) if shares else None)
    conn.close()


def test_many_values_are_added_up_by_numpy_to_the_same_digits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(open_readonly(recorded(tmp_path / "indexer.db"))) as conn:
        few = held(conn, "true", [])
        told = few.assets(), few.spreads()
        monkeypatch.setattr(holders, "MANY", 1)
        monkeypatch.setattr(holders, "few_spreads", None)
        assert told == (few.assets(), few.spreads())


@pytest.mark.slow
def test_a_report_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    """Python numbers texts anew in each process, and so the wallets."""
    words = [sys.executable, "-m", "indexer", "--config", str(CONFIG), "--db", str(recorded(tmp_path / "indexer.db"))]
    reports = {
        subprocess.run(
            [*words, "report", "book", "--format", "json"],
            env={**os.environ, "PYTHONHASHSEED": str(seed)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in range(3)
    }
    assert len(reports) == 1
