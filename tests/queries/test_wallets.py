"""The view `wallets`: what it says of any positions is what a plain definition says, and one wallet is found by index."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from indexer.queries import exports, ranking
from indexer.schema import migrations, wallets
from indexer.store.database import open_readonly
from indexer.store.rows import OF_ADDRESSES
from indexer.store.store import Store

WALLETS = tuple("0x" + digit * 40 for digit in "abc")
PLACES = ((1, "aave-v2"), (1, "maker"), (10, "aave-v2"))
#: exact in binary, so that no order of addition matters; None is unknown
USD = st.none() | st.integers(0, 40).map(lambda n: n / 4)
POSITIONS = st.dictionaries(
    st.tuples(st.sampled_from(PLACES), st.sampled_from(WALLETS), st.sampled_from(("", "ETH-A"))),
    st.fixed_dictionaries(
        {
            "wallet": st.sampled_from((*WALLETS, WALLETS[0].upper().replace("X", "x"))),
            "health": st.none() | st.sampled_from((0, 1, 10**18 - 1, 10**18, 3 * 10**18)),
            "collateral": USD,
            "debt": USD,
            "status": st.sampled_from(("healthy", "at-risk", "no-debt")),
            "block": st.integers(1, 3),
            "supplies": st.lists(USD, max_size=3),
            "owed": st.lists(USD, max_size=1),
        }
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def conn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """An empty database with the view as it was before it used an index, as `plain_wallets`."""
    with closing(sqlite3.connect(":memory:")) as connection:
        path = tmp_path_factory.mktemp("wallets") / "indexer.db"
        with Store(path) as store:
            store.conn.backup(connection)
        connection.execute(wallets.WALLETS.replace("view wallets", "view plain_wallets"))
        yield connection


def put(conn: sqlite3.Connection, found: dict[Any, Any]) -> None:
    conn.execute("delete from positions")
    conn.execute("delete from balances")
    for ((chain_id, deployment), account, group), p in found.items():
        conn.execute(
            "insert into positions (chain_id, deployment, protocol, account, position_group, wallet, health_factor_raw,"
            " health_factor, collateral_usd, debt_usd, status, block_number, block_hash)"
            " values (?, ?, 'p', ?, ?, ?, ?, ?, ?, ?, ?, ?, '0x00')",
            (
                chain_id, deployment, account, group, p["wallet"], None if p["health"] is None else str(p["health"]),
                None if p["health"] is None else p["health"] / 10**18, p["collateral"], p["debt"], p["status"], p["block"],
            ),
        )  # fmt: skip
        for side, values in (("supply", p["supplies"]), ("debt", p["owed"])):
            for n, usd in enumerate(values):
                conn.execute(
                    "insert into balances values (?, ?, ?, ?, ?, ?, 'T', ?, '1', '1', 1.0, ?, 1, 1)",
                    (chain_id, deployment, account, group, f"0x{n:040x}", f"0x{n:040x}", side, usd),
                )


SAME = "lower(wallet), positions, collateral_usd, debt_usd, net_usd, health_factor, oldest_block_number"


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(POSITIONS)
def test_wallets_are_what_the_plain_definition_says(conn: sqlite3.Connection, found: dict[Any, Any]) -> None:
    put(conn, found)
    told = conn.execute(f"select {SAME} from wallets order by 1").fetchall()
    assert told == conn.execute(f"select {SAME} from plain_wallets order by 1").fetchall()
    for wallet in WALLETS:
        one = conn.execute(f"select {SAME} from wallets where wallet = ?", (wallet,)).fetchall()
        assert one == [row for row in told if row[0] == wallet]
    # among equals the plain definition leaves open which position is named, so the one named is judged by itself
    for wallet, raw, *key in conn.execute(
        "select wallet, health_factor_raw, worst_chain_id, worst_deployment, worst_account, worst_position_group from wallets"
    ).fetchall():
        of_wallet = [p for p in found.items() if p[1]["wallet"].lower() == wallet.lower()]
        (worst,) = [p for (place, *rest), p in of_wallet if [*place, *rest] == key]
        assert raw == (None if worst["health"] is None else str(worst["health"]))
        ranks = [(p["health"] is None, (p["health"] or 0) / 10**18, *place) for (place, *_), p in of_wallet]
        assert (worst["health"] is None, (worst["health"] or 0) / 10**18, *key[:2]) == min(ranks)


def test_columns_are_those_of_the_plain_definition(conn: sqlite3.Connection) -> None:
    columns = [
        [column[0] for column in conn.execute(f"select * from {view}").description]
        for view in ("wallets", "plain_wallets")
    ]
    assert columns[0] == [*columns[1], "supply_usd"]


@pytest.mark.parametrize(
    ("sql", "values"),
    [
        ("select * from wallets where wallet = ?", 1),
        (f"select * from ({OF_ADDRESSES})", 1),
        ("select * from at_risk", 0),
    ],
)
def test_rows_are_found_by_an_index(conn: sqlite3.Connection, sql: str, values: int) -> None:
    plan = [step for *_, step in conn.execute(f"explain query plan {sql}", [json.dumps(WALLETS[:1])] * values)]
    assert not [step for step in plan if step.startswith("SCAN positions") or step in ("SCAN p", "SCAN worst")]


def test_a_database_of_before_has_the_same_wallets_after_its_migration(tmp_path: Path) -> None:
    path = tmp_path / "indexer.db"
    with Store(path) as store:
        conn = store.conn
        put(conn, {((1, "maker"), WALLETS[0], "ETH-A"): {
            "wallet": WALLETS[1], "health": 10**18, "collateral": 3.0, "debt": 2.0, "status": "healthy", "block": 7, "supplies": [4.0], "owed": [],
        }})  # fmt: skip
        for index in ("positions_by_wallet", "positions_by_owner", "positions_at_risk", "positions_unknown"):
            conn.execute(f"drop index {index}")
        conn.execute("drop view wallets")
        conn.execute(wallets.WALLETS)
        conn.execute(f"delete from {migrations.TABLE} where name like '%reading'")
        conn.commit()
        before = conn.execute("select * from wallets").fetchall()
    with Store(path):
        pass
    with closing(open_readonly(path)) as conn:
        assert [tuple(row) for row in conn.execute("select * from wallets")] == [tuple(row) for row in before]


def held(*wallets: list[float]) -> dict[Any, Any]:
    """Positions at risk with these debts and as much collateral, by wallet."""
    return {
        ((1, f"d{n}"), wallet, ""): {
            "wallet": wallet, "health": 10**18, "collateral": usd, "debt": usd, "status": "at-risk", "block": 1,
            "supplies": [usd], "owed": [],
        }
        for wallet, debts in zip(WALLETS, wallets, strict=False)
        for n, usd in enumerate(debts)
    }  # fmt: skip


#: the largest position is of one wallet, and the largest sum of another
SPREAD = held([5.0, 1.0], [4.0, 4.0])


@pytest.mark.slow
@given(POSITIONS, st.integers(1, 4), st.integers(1, 3), st.sampled_from(sorted(ranking.RANKS)))
@example(SPREAD, 1, 1, "debt")
@example(SPREAD, 1, 2, "debt")
@example(SPREAD, 1, 1, "collateral")
@example(SPREAD, 1, 2, "collateral")
@example(SPREAD, 1, 1, "risk")
@example(SPREAD, 1, 2, "risk")
def test_top_lists_whom_adding_up_every_wallet_would_list(
    conn: sqlite3.Connection, found: dict[Any, Any], limit: int, few: int, by: str
) -> None:
    put(conn, found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW", few)
        patch.setattr(ranking, "LOOKS", (1, 2))
        _, rows = ranking.top(conn, by, limit=limit)
        told = [tuple(row) for row in rows]
    names, source = ", ".join(exports.WALLET_NAMES), exports.WALLET_SOURCE
    some = "where p.debt_at_risk_usd > 0 or p.debt_at_risk_usd is null" if by == "risk" else ""
    whole = conn.execute(f"select {names} from {source} {some} order by {ranking.RANKS[by]}, p.wallet limit {limit}")
    assert told == whole.fetchall()
