"""What each wallet holds: the sums of few and of many values are the same, and a report is the same each time."""

import os
import subprocess
import sys
from array import array
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.queries.holders import Holdings, few_by_wallet, held, many_by_wallet
from indexer.report.book import top_share
from indexer.store.database import open_readonly
from tests.recorded import CONFIG, recorded

WALLETS = st.integers(-(2**63), 2**63 - 1) | st.integers(-3, 3)
USD = st.floats(0, 1e15)


@given(st.lists(st.tuples(WALLETS, USD), max_size=60))
@example([])
@example([(7, 0.1), (-7, 0.2), (7, 0.3), (7, 0.7)])
def test_few_and_many_values_add_up_to_the_same_digits(rows: list[tuple[int, float]]) -> None:
    held = Holdings(array("q", [wallet for wallet, _ in rows]), array("d", [value for _, value in rows]))
    few = few_by_wallet(held)
    assert sorted(few) == sorted(many_by_wallet(held))
    assert len(few) == len({wallet for wallet, _ in rows})


@given(st.lists(st.floats(0.01, 1e12), min_size=1, max_size=10))
def test_ten_who_hold_everything_hold_100_percent(values: list[float]) -> None:
    assert top_share(values) == 100


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
            expected = sorted(usd for (where, _), usd in wallets.items() if where == asset)
            assert sorted(each) == pytest.approx(expected)
    conn.close()


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
