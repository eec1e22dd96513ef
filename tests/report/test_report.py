"""Reports against the contracts' own balances and against SQL over the same file; what they look like; how they fail."""

import io
import json
import re
import shutil
import sqlite3
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.cli.main import main
from indexer.history import accrual
from indexer.queries import book as book_queries
from indexer.queries import holders as holders_queries
from indexer.queries.holders import Held, held
from indexer.queries.spread import LARGEST
from indexer.report import book as report_book
from indexer.report import charts
from indexer.report import wallet as report_wallet
from indexer.report.book import Chosen
from indexer.report.charts import Bars, Lines
from indexer.report.document import Form, Report, Section, write
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.text.values import iso
from tests.devnet import aave_v3, compound_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.truth import sync_once

DAY = 86_400
SCALED, BALANCE = "0x1da24f3e", "0x70a08231"  # selectors of scaledBalanceOf(address), balanceOf(address)
HOSTILE = "<script>alert(1)</script>|[x](http://evil.example)\x1b[2J\u202e`*_"
ALL = Chosen([], [])

Run = Callable[..., Result]


@dataclass
class Synced:
    """A file synced three times, with a copy as of each: three quiet days, then activity and three more days."""

    folder: Path
    markets: list[Devnet]
    aave: AaveV3
    blocks: list[int]

    @property
    def path(self) -> Path:
        return self.folder / "indexer.db"

    def copy(self, number: int) -> Path:
        return self.folder / f"{number}.db"

    def sync(self) -> None:
        outcome = sync_once(self.path, self.aave.node.url, self.markets)
        assert not outcome.failed
        self.blocks.append(outcome.block.number)
        shutil.copy(self.path, self.copy(len(self.blocks) - 1))


def pass_days(node: Anvil, days: int) -> None:
    node.rpc("evm_increaseTime", days * DAY)
    node.rpc("evm_mine")


@pytest.fixture(scope="module")
def synced(needs_node: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Synced]:
    folder = tmp_path_factory.mktemp("report")
    with Anvil() as node:
        node.place_multicall3()
        aave = aave_v3.deploy(node, "3.6")
        markets: list[Devnet] = [aave, compound_v3.deploy(node), maker.deploy(node)]
        for market in markets:
            market.populate(seed=1, users=40)
        (folder / "indexer.toml").write_text(config_toml(CHAIN_ID, node.url, markets))
        found = Synced(folder, markets, aave, [])
        found.sync()
        pass_days(node, 3)
        found.sync()
        for market in markets:
            market.step(seed=7)
        pass_days(node, 3)
        found.sync()
        yield found


@pytest.fixture
def conn(synced: Synced) -> Iterator[sqlite3.Connection]:
    connection = open_readonly(synced.path)
    yield connection
    connection.close()


@pytest.fixture
def run(synced: Synced, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(synced.folder)
    return lambda *arguments: CliRunner().invoke(main, [str(argument) for argument in arguments])


def rows(conn: sqlite3.Connection, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in conn.execute(sql, values)]


def wallets(conn: sqlite3.Connection) -> list[str]:
    return [wallet for (wallet,) in rows(conn, "select wallet from wallets order by debt_usd desc")]


# accrued interest --------------------------------------------------------------------------------------------------


def asked(node: Anvil, token: str, selector: str, account: str, block: int) -> int:
    call = {"to": token, "data": selector + account[2:].zfill(64)}
    return int(node.rpc("eth_call", call, hex(block)), 16)


def wrong_interest(path: Path, node: Anvil, deployment: str, blocks: list[int]) -> tuple[int, int, list[str]]:
    """How many balances of an Aave market were asked of the contracts, how many of them changed, what is wrong."""
    wrong, asked_for, changed = [], 0, 0
    conn = open_readonly(path)
    for row in conn.execute("select * from accruals where deployment = ?", (deployment,)):
        key = [row[name] for name in ("chain_id", "deployment", "account", "position_group")]
        token = row["market"]
        seen = [block for block in blocks if block >= row["first_block"]]
        scaled = [asked(node, token, SCALED, row["account"], block) for block in seen]
        amounts = [asked(node, token, BALANCE, row["account"], block) for block in seen]
        expected = sum(amounts[i + 1] - amounts[i] for i in range(len(seen) - 1) if scaled[i] == scaled[i + 1])
        symbol, decimals = conn.execute(
            "select symbol, decimals from assets where chain_id = ? and asset = ?", (row["chain_id"], row["asset"])
        ).fetchone()
        same = [
            line
            for line in accrual.measured(conn, key)
            if (line.symbol, line.side, line.decimals) == (symbol, row["side"], decimals)
        ]
        asked_for += 1
        changed += len(set(scaled)) > 1
        if expected not in [line.interest for line in same]:
            wrong.append(f"{row['account']} {symbol} {row['side']}: {same}, not {expected}")
    conn.close()
    return asked_for, changed, wrong


def test_interest_is_what_the_tokens_balances_grew_while_their_scaled_balances_stood_still(synced: Synced) -> None:
    asked_for, changed, wrong = wrong_interest(synced.path, synced.aave.node, synced.aave.name, synced.blocks)
    assert wrong == []
    assert asked_for > 50
    assert 3 < changed < asked_for


def test_interest_of_every_protocol_is_the_growth_between_the_snapshots_files(synced: Synced) -> None:
    place = "deployment, account, position_group, market, asset, side"
    kept = []
    for number in range(3):
        with sqlite3.connect(synced.copy(number)) as conn:
            found = conn.execute(f"select {place}, scaled_raw, amount_raw from balances")
            kept.append({tuple(row[:6]): (row[6], int(row[7])) for row in found})
        conn.close()
    conn = open_readonly(synced.path)
    checked: dict[str, int] = {}
    for row in conn.execute("select * from accruals"):
        where = tuple(row[name] for name in place.split(", "))
        values = [snapshot.get(where, ("0", 0)) for snapshot in kept]
        expected = sum(b[1] - a[1] for a, b in pairwise(values) if a[0] == b[0])
        interest = int(row["interest_raw"])
        if row["scaled_raw"] == values[-1][0]:
            interest += values[-1][1] - int(row["start_amount_raw"])
        assert interest == expected, where
        checked[row["deployment"]] = checked.get(row["deployment"], 0) + (expected > 0)
    conn.close()
    assert set(checked) == {market.name for market in synced.markets}
    assert all(count > 3 for count in checked.values())


def test_the_time_around_a_change_is_told_as_unmeasured(synced: Synced, conn: sqlite3.Connection) -> None:
    times = dict(rows(conn, "select number, timestamp from blocks"))
    gap = times[synced.blocks[2]] - times[synced.blocks[1]]
    found = rows(conn, "select unmeasured_seconds, start_block, first_block from accruals")
    assert {(seconds, start == synced.blocks[2]) for seconds, start, first in found if first == synced.blocks[0]} == {
        (0, False),
        (gap, True),
    }


def test_what_stands_still_by_itself_has_no_interest(conn: sqlite3.Connection) -> None:
    assert rows(conn, "select count(*) from accruals where deployment = 'maker' and side = 'supply'") == [(0,)]
    assert rows(conn, "select count(*) from accruals where deployment = 'maker' and side = 'debt'")[0][0] > 20


def test_after_a_reorganisation_interest_is_that_of_the_chain_that_stays(synced: Synced, tmp_path: Path) -> None:
    aave, path = synced.aave, tmp_path / "reorg.db"
    node = aave.node

    def sync() -> int:
        return sync_once(path, node.url, [aave], behind_seconds=0.0).block.number

    with aave.rewound():
        first = sync()
        with aave.rewound():
            aave.step(seed=21)
            sync()
        pass_days(node, 1)
        aave.step(seed=22)
        second = sync()
        pass_days(node, 1)
        third = sync()
        asked_for, changed, wrong = wrong_interest(path, node, aave.name, [first, second, third])
    assert wrong == []
    assert changed < asked_for


def test_a_chain_that_is_shorter_after_a_reorganisation_still_tells_who_changed(synced: Synced, tmp_path: Path) -> None:
    aave, path = synced.aave, tmp_path / "shorter.db"
    node = aave.node
    with aave.rewound():
        first = sync_once(path, node.url, [aave], behind_seconds=0.0).block.number
        with aave.rewound():
            pass_days(node, 1)
            node.rpc("anvil_mine", hex(150))
            orphan = sync_once(path, node.url, [aave], behind_seconds=0.0).block.number
        aave.step(seed=23)
        # Below what is final, which takes the operator's word where there is no second endpoint.
        second = sync_once(path, node.url, [aave], behind_seconds=0.0, accept_reorg=True).block.number
        assert first < second <= orphan
        _, changed, wrong = wrong_interest(path, node, aave.name, [first, second])
    assert wrong == []
    assert changed > 0


def test_a_change_below_the_reorganised_blocks_is_not_lost(synced: Synced, tmp_path: Path) -> None:
    aave, path = synced.aave, tmp_path / "below.db"
    node = aave.node
    with aave.rewound():
        first = sync_once(path, node.url, [aave], behind_seconds=0.0).block.number
        aave.step(seed=24)
        with aave.rewound():
            pass_days(node, 1)
            sync_once(path, node.url, [aave], behind_seconds=0.0)
        pass_days(node, 2)
        second = sync_once(path, node.url, [aave], behind_seconds=0.0).block.number
        conn = open_readonly(path)
        unmeasured = rows(
            conn,
            "select count(*) from balances left join accruals a "
            "using (chain_id, deployment, account, position_group, market, asset, side) where a.account is null",
        )
        conn.close()
        _, _, wrong = wrong_interest(path, node, aave.name, [first, second])
    assert unmeasured == [(0,)]
    assert wrong == []


def test_a_stored_value_that_does_not_fit_is_unknown_interest(synced: Synced, tmp_path: Path) -> None:
    path = tmp_path / "odd.db"
    shutil.copy(synced.path, path)
    with Store(path) as store:
        store.conn.row_factory = sqlite3.Row
        key = tuple(store.conn.execute("select chain_id, deployment, account, position_group from accruals").fetchone())
        assert None not in [line.interest for line in accrual.measured(store.conn, key)]
        store.conn.execute("update accruals set scaled_raw = '77'")
        assert {line.interest for line in accrual.measured(store.conn, key)} == {None}


# a wallet ----------------------------------------------------------------------------------------------------------


def test_the_summary_of_every_wallet_is_that_of_the_view(conn: sqlite3.Connection) -> None:
    checked = 0
    for wallet, supply, debt, net, worst in rows(
        conn, "select wallet, collateral_usd, debt_usd, net_usd, health_factor_raw from wallets"
    ):
        mine = [row for row in report_wallet.positions(conn, [wallet]) if row["wallet"] == wallet]
        total = report_wallet.summary(mine)
        assert (total["supply_usd"], total["debt_usd"]) == (supply, debt)
        assert total["equity_usd"] == net
        assert total["health_factor"] == (None if worst is None else Decimal(worst).scaleb(-18))
        checked += net is not None
    assert checked > 60


def test_a_wallet_owns_all_that_it_supplied(conn: sqlite3.Connection) -> None:
    """What backs no debt is its own too: not flagged, or flagged where the reserve's threshold is 0 (Aave V2)."""
    more = 0
    for wallet, collateral in rows(conn, "select wallet, collateral_usd from wallets where collateral_usd is not null"):
        supplied = rows(
            conn,
            "select sum(value_usd) from balances join positions using (chain_id, deployment, account, position_group) "
            f"where side = 'supply' and wallet = '{wallet}'",
        )[0][0]
        counted = rows(conn, f"select sum(collateral_usd) from positions where wallet = '{wallet}'")[0][0]
        assert collateral == pytest.approx(supplied or 0, rel=1e-9)
        assert collateral >= counted * (1 - 1e-9)
        more += collateral > counted * (1 + 1e-9)
    assert more


def test_margin_use_is_the_debt_in_per_cent_of_the_limit(conn: sqlite3.Connection) -> None:
    (wallet,) = rows(conn, "select wallet from positions where protocol = 'aave-v3' and debt_usd > 100 limit 1")[0]
    row = report_wallet.positions(conn, [wallet])[0]
    limit, debt = int(row["liquidation_limit_raw"]), int(row["debt_value_raw"])
    assert row["margin_use_percent"] == 100 * debt / limit
    assert row["limit_usd"] == limit / 10**8
    assert float(row["health_factor"]) == pytest.approx(100 / row["margin_use_percent"], rel=1e-4)
    assert row["fall_percent"] == max(100 - row["margin_use_percent"], 0)


def test_net_exposures_of_all_wallets_are_the_balances_to_the_last_unit(conn: sqlite3.Connection) -> None:
    sums: dict[str, int] = {}
    for account, group, deployment in rows(conn, "select account, position_group, deployment from positions"):
        key = {"chain_id": CHAIN_ID, "deployment": deployment, "account": account, "position_group": group}
        for line in report_wallet.exposure(report_wallet.balances(conn, [key]), 1.0):
            assert line["net"] is not None
            sums[line["asset"]] = sums.get(line["asset"], 0) + line["net_raw"]
    expected: dict[str, int] = {}
    for asset, side, raw in rows(conn, "select asset, side, amount_raw from balances"):
        expected[asset] = expected.get(asset, 0) + (int(raw) if side == "supply" else -int(raw))
    assert sums == expected


def test_one_asset_on_both_sides_is_netted() -> None:
    base = {"chain_id": 1, "asset": "0xAA", "symbol": "WETH", "decimals": 18}
    held = [
        base | {"side": "supply", "amount_raw": str(10**30 + 1), "value_usd": 50.0},
        base | {"side": "debt", "amount_raw": str(10**30), "value_usd": 20.0},
        base | {"side": "debt", "amount_raw": "3", "value_usd": 10.0, "asset": "0xaa"},
    ]
    (line,) = report_wallet.exposure(held, 40.0)
    assert line["net_raw"] == -2
    assert line["net"] == Decimal("-0.000000000000000002")
    assert (line["net_usd"], line["net_equity_percent"]) == (20.0, 50.0)
    (unknown,) = report_wallet.exposure([*held, base | {"side": "supply", "amount_raw": "1", "value_usd": None}], 40.0)
    assert (unknown["net_raw"], unknown["net_usd"], unknown["net_equity_percent"]) == (-1, None, None)


def test_changes_are_between_the_kept_rows_and_now(synced: Synced, conn: sqlite3.Connection) -> None:
    times = dict(rows(conn, "select number, timestamp from blocks"))
    old = open_readonly(synced.copy(0))
    (wallet, *then) = rows(
        old,
        "select wallet, health_factor_raw, collateral_usd, debt_usd from positions where deployment = ? and debt_usd > 100",
        synced.aave.name,
    )[0]
    old.close()
    mine = report_wallet.positions(conn, [wallet])
    (line,) = report_wallet.changes(conn, mine, times[synced.blocks[0]])
    assert line["then_block"] == synced.blocks[0]
    assert line["health_factor_then"] == Decimal(then[0]).scaleb(-18)
    assert [line["then_collateral_usd"], line["then_debt_usd"]] == then[1:]
    assert line["net_change_usd"] == (mine[0]["collateral_usd"] - mine[0]["debt_usd"]) - (then[1] - then[2])
    (before,) = report_wallet.changes(conn, mine, times[synced.blocks[0]] - 1)
    assert [before[name] for name in ("then_block", "health_factor_then", "net_change_usd")] == [None, None, None]


# the book ----------------------------------------------------------------------------------------------------------


def holders(conn: sqlite3.Connection) -> Held:
    return held(conn, ALL.sql, ALL.values)


def test_deployments_sum_up_what_export_writes(conn: sqlite3.Connection, run: Run) -> None:
    positions = json.loads(run("export", "positions").stdout)
    for line in report_book.by_deployment(book_queries.blocks(conn, ALL), holders(conn)):
        mine = [row for row in positions if row["deployment"] == line["deployment"]]
        debts = [row["debt_usd"] for row in mine if row["debt_usd"] is not None]
        assert line["positions"] == len(mine)
        assert line["with_debt"] == sum(row["status"] != "no-debt" for row in mine)
        assert line["debt_usd"] == pytest.approx(sum(debts), rel=1e-12)
        assert line["liquidatable"] == sum(row["status"] == "liquidatable" for row in mine)
        assert {row["block_time"] for row in mine} == {line["block_time"]}


def test_assets_sum_up_balances_to_the_last_unit(conn: sqlite3.Connection) -> None:
    found = {line["asset"]: line for line in report_book.by_asset(conn, holders(conn))}
    sums = {asset: {"supply_raw": 0, "collateral_raw": 0, "debt_raw": 0} for asset in found}
    for asset, side, collateral, raw in rows(conn, "select asset, side, is_collateral, amount_raw from balances"):
        sums[asset][f"{side}_raw"] += int(raw)
        if side == "supply" and collateral:
            sums[asset]["collateral_raw"] += int(raw)
    assert {a: {name: int(line[name] or 0) for name in sums[a]} for a, line in found.items()} == sums
    for asset, line in found.items():
        (expected,) = rows(conn, "select total(value_usd) from balances where asset = ? and side = 'debt'", asset)
        assert line["debt_usd"] == pytest.approx(expected[0], rel=1e-12)


def test_buckets_count_every_debtor_once_by_exact_digits(conn: sqlite3.Connection) -> None:
    _, lines = report_book.by_health(holders(conn))
    debtors = rows(conn, "select health_factor_raw, debt_usd from positions where status <> 'no-debt'")
    assert sum(line["positions"] for line in lines) == len(debtors)
    bounds = [int(Decimal(str(bound)) * 10**18) for bound in report_book.BOUNDS] + [2**300]
    for line, low, high in zip(lines, bounds, bounds[1:], strict=False):
        assert line["positions"] == sum(low <= int(raw) < high for raw, _ in debtors if raw), line
    by_protocol = sum(line["debt_usd"] for line in lines)
    assert by_protocol == pytest.approx(sum(debt or 0 for _, debt in debtors))


def test_a_health_factor_one_unit_below_1_is_in_the_bucket_below(tmp_path: Path) -> None:
    with Store(tmp_path / "x.db") as store:
        store.register(1, "d", "p", "borrowers")
        for digit, raw in enumerate((10**18 - 1, 10**18)):
            store.conn.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, wallet, health_factor_raw, "
                "health_factor, debt_usd, status, block_number, block_hash) "
                "values (1, 'd', 'p', ?1, '', ?1, ?2, 1.0, 5.0, 'x', 1, '')",
                (str(digit), str(raw)),
            )
        _, lines = report_book.by_health(holders(store.conn))
    assert {line["health_factor_from"]: line["positions"] for line in lines if line["positions"]} == {
        "0.9 to 1": 1,
        "1 to 1.05": 1,
    }


@pytest.mark.parametrize("looked_at", [1, 9, 12, 100, 1_000_000])
def test_the_largest_wallets_are_those_of_sql(
    conn: sqlite3.Connection, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders_queries, "REMEMBERED", looked_at)
    held = holders(conn)
    found = report_book.largest(conn, ALL, 1.0, held.spreads()["all"][0], held)
    expected = rows(
        conn,
        "select wallet, total(debt_usd) as debt from positions group by wallet order by debt desc, wallet limit 10",
    )
    assert [(line["wallet"], line["debt_usd"]) for line in found] == expected


@pytest.mark.parametrize("remembered", [1, LARGEST, LARGEST + 3, 100])
def test_of_wallets_that_owe_the_same_the_first_by_name_are_listed(
    tmp_path: Path, remembered: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holders_queries, "REMEMBERED", remembered)
    with Store(tmp_path / "x.db") as store:
        store.register(1, "d", "p", "borrowers")
        for number in range(LARGEST + 5):
            store.conn.execute(
                "insert into positions (chain_id, deployment, protocol, account, position_group, wallet, debt_usd, status, "
                "block_number, block_hash) values (1, 'd', 'p', ?, '', ?, 7.0, 'x', 1, '')",
                (f"{LARGEST + 5 - number:02}", f"{number:02}"),
            )
        held = holders(store.conn)
        found = report_book.largest(store.conn, ALL, 1.0, held.spreads()["all"][0], held)
    assert [line["wallet"] for line in found] == [f"{number:02}" for number in range(LARGEST)]


def table_of(text: str, title: str) -> list[dict[str, str]]:
    """The table under a title of a Markdown report."""
    lines = text.split(f"\n## {title}", 1)[1].split("\n## ", 1)[0].splitlines()
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [dict(zip(header, line, strict=True)) for line in body]


def test_falls_begin_with_who_is_liquidatable_now(conn: sqlite3.Connection, run: Run) -> None:
    text = run("report", "book", "--format", "md").stdout
    lines = table_of(text, "Liquidatable if prices fall: everything but stablecoins")
    assert [line["change_percent"] for line in lines] == ["0.00", "-10.00", "-20.00", "-30.00"]
    (now,) = rows(conn, "select count(*), total(debt_usd) from positions where status = 'liquidatable'")
    assert (int(lines[0]["positions"]), lines[0]["debt_usd"]) == (now[0], f"{now[1]:,.2f}")
    counts = [int(line["positions"]) for line in lines]
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_a_fall_is_what_a_sync_finds_after_it(synced: Synced, run: Run, tmp_path: Path) -> None:
    aave = synced.aave
    text = run("report", "book", "--deployment", aave.name, "--fall", "WETH", "--format", "md").stdout
    line = table_of(text, "Liquidatable if prices fall: WETH")[2]
    assert line["change_percent"] == "-20.00"
    with aave.rewound():
        at = aave.node.rpc("eth_getBlockByNumber", hex(synced.blocks[-1]), False)["timestamp"]
        aave.node.rpc("evm_setNextBlockTimestamp", int(at, 16) + 1)
        aave.move_price("WETH", Fraction(8, 10))
        sync_once(tmp_path / "fallen.db", aave.node.url, [aave])
    with sqlite3.connect(tmp_path / "fallen.db") as conn:
        sql = "select count(*), total(debt_usd), total(collateral_usd) from positions where status = 'liquidatable'"
        count, debt, collateral = conn.execute(sql).fetchone()
    conn.close()
    assert int(line["positions"]) == count
    assert float(line["debt_usd"].replace(",", "")) == pytest.approx(debt, rel=1e-6)
    assert float(line["collateral_usd"].replace(",", "")) == pytest.approx(collateral, rel=1e-6)


def test_the_book_can_be_of_one_protocol(run: Run) -> None:
    text = run("report", "book", "--protocol", "maker", "--format", "md").stdout
    assert {row["protocol"] for row in table_of(text, "By deployment")} == {"maker"}
    assert {row["deployment"] for row in table_of(text, "Concentration")} == {"all", "maker"}
    assert [row["symbol"] for row in table_of(text, "By asset") if row["debt_usd"] != "0.00"] == ["DAI"]


# top ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "column"), [("debt", "debt_usd"), ("collateral", "collateral_usd"), ("risk", "debt_at_risk_usd")]
)
def test_top_ranks_wallets_as_sql_does(conn: sqlite3.Connection, run: Run, by: str, column: str) -> None:
    assert len(json.loads(run("top", "--by", by, "--limit", "7").stdout)) == 7
    found = json.loads(run("top", "--by", by, "--limit", "60").stdout)
    values = [row[column] for row in found]
    assert values == sorted(values, reverse=True)
    if by == "risk":
        sql = (
            "select total(debt_usd) as x from positions where status in ('at-risk', 'liquidatable') "
            "group by wallet having x > 0 order by x desc limit 60"
        )
    else:
        sql = f"select {column} from wallets order by {column} desc limit 60"
    assert values == [value for (value,) in rows(conn, sql)]
    assert {row["oldest_block_number"] for row in found} == {
        max(n for (n,) in rows(conn, "select block_number from deployments"))
    }
    assert all(row["oldest_block_time"].endswith("Z") for row in found)


def test_top_of_risk_lists_nobody_without_any(run: Run) -> None:
    found = json.loads(run("top", "--by", "risk", "--limit", "1000").stdout)
    assert all(row["debt_at_risk_usd"] is None or row["debt_at_risk_usd"] > 0 for row in found)
    assert len(found) < len(json.loads(run("top", "--limit", "1000").stdout))


# how it looks ------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Collects tags and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def written(report: Report, form: Form) -> str:
    stream = io.StringIO()
    write(report, form, stream)
    return stream.getvalue()


def hostile() -> Report:
    chart = Bars(HOSTILE, "USD", [(HOSTILE, 5.0), ("none", None), ("less", -2.0)])
    lines = Lines(HOSTILE, "1 = x", {HOSTILE: [(0, 1.5), (10, None), (20, 0.5)]}, guide=1.0)
    section = Section(HOSTILE, [HOSTILE, "debt_usd"], [[HOSTILE, 1.5]], [HOSTILE], [chart, lines])
    return Report(HOSTILE, HOSTILE, [section])


def test_html_takes_nothing_from_a_symbol_and_nothing_from_outside() -> None:
    text = written(hostile(), Form.HTML)
    page = Page(text)
    assert not {"script", "a", "img", "link", "iframe"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        assert not {"src", "href", "onload", "onclick"} & attributes.keys()
    assert "default-src 'none'" in text
    assert "&lt;script&gt;" in text
    assert not set("\x1b\u202e") & set(text)


def test_markdown_takes_nothing_from_a_symbol() -> None:
    text = written(hostile(), Form.MARKDOWN)
    body = [line for line in text.splitlines() if not line.startswith("    ")]
    assert not any(re.search(r"(?<!\\)(?:[<`*\[]|://)", line) for line in body)
    row = next(line for line in body if line.endswith("| 1.50 |"))
    assert len(re.split(r"(?<!\\)\|", row)) == 4
    assert not set("\x1b\u202e") & set(text)


def test_a_terminal_is_not_steered() -> None:
    text = written(hostile(), Form.TERMINAL)
    assert not set("\x1b\u202e") & set(text)
    assert "<script>" in text


@pytest.mark.parametrize("form", Form)
def test_every_form_tells_block_time_and_units(conn: sqlite3.Connection, run: Run, synced: Synced, form: Form) -> None:
    (at,) = rows(conn, "select distinct strftime('%Y-%m-%dT%H:%M:%SZ', block_timestamp, 'unixepoch') from deployments")
    for what in ("book", wallets(conn)[0]):
        result = run("report", what, "--format", form.value)
        assert result.exit_code == 0, result.output
        assert f"block {synced.blocks[-1]} of {at[0]} (UTC)" in result.stdout.replace("\\", "")
        # programs read units in the names of columns, people beside the charts
        assert ("debt_usd" if form in (Form.JSON, Form.CSV) else "(USD)") in result.stdout


def test_charts_are_whole_svg_with_title_unit_and_caption(run: Run, synced: Synced) -> None:
    text = run("report", "book", "--format", "html").stdout
    pictures = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) >= 5
    for picture in pictures:
        root = ET.fromstring(picture)
        words = ["".join(element.itertext()) for element in root.iter() if element.tag.endswith("text")]
        assert words[0].endswith("(USD)")
        assert f"block {synced.blocks[-1]} of " in words[-1]
        width = float(root.attrib["width"])
        for element in root.iter():
            if element.tag.endswith("rect") and "x" in element.attrib:
                assert float(element.attrib["x"]) >= 0
                assert float(element.attrib["x"]) + float(element.attrib["width"]) <= width


@pytest.mark.parametrize(
    "chart",
    [
        Bars("empty", "USD", []),
        Bars("zeros", "USD", [("a", 0.0), ("b", None)]),
        Bars("tiny", "USD", [("a", 1e-9)]),
        Lines("one point", "", {"a": [(5, 1.0)]}),
        Lines("same value", "", {"a": [(5, 1.0), (6, 1.0)]}, guide=1.0),
        Lines("unknown", "", {"a": [(5, None), (6, None)]}),
        Lines("large", "", {"a": [(0, 1e30), (10**9, 0.0)]}, guide=1.0),
        Lines("none", "", {}),
    ],
    ids=lambda chart: chart.title,
)
def test_a_chart_of_little_or_odd_data_is_still_one(chart: charts.Chart) -> None:
    picture = charts.svg(chart, "block 1")
    ET.fromstring(picture)
    assert "nan" not in picture
    assert "inf" not in picture.replace("info", "")
    assert charts.text(chart).startswith(chart.title)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.00"),
        (0.0012, "0.0012"),
        (999.99, "999.99"),
        (999.999, "1.00k"),
        (999_999, "1.00M"),
        (-999_999, "-1.00M"),
        (999_994, "999.99k"),
        (1_234_567, "1.23M"),
        (999_999_999, "1.00B"),
        (5e12, "5.00T"),
        (1.5e16, "15,000.00T"),
    ],
)
def test_a_number_on_an_axis_is_below_a_thousand_of_its_unit(value: float, text: str) -> None:
    assert charts.short(value) == text


def test_ticks_of_a_line_that_hardly_moves_can_be_told_apart() -> None:
    picture = charts.svg(Lines("x", "", {"a": [(0, 1.0000001), (5, 1.0000003)]}, guide=1.0), "block 1")
    told = re.findall(r'text-anchor="end">([\d.]+)<', picture)
    assert len(told) == len(set(told)) > 1


def test_a_sparkline_shows_the_lowest_of_each_part() -> None:
    series = [(i, 0.99999 if i == 500 else 2.0) for i in range(1000)]
    _, _, line, told = charts.text(Lines("x", "", {"a": series})).splitlines()
    assert line.count("▁") == 1
    assert "lowest 0.9999," in told


def test_the_history_chart_holds_every_kept_point(conn: sqlite3.Connection) -> None:
    (wallet,) = rows(conn, "select wallet from positions where status = 'liquidatable' order by debt_usd desc limit 1")[
        0
    ]
    mine = report_wallet.positions(conn, [wallet])
    chart = report_wallet.history(conn, mine)
    assert chart is not None
    series = next(iter(chart.series.values()))
    kept = rows(
        conn,
        "select block_timestamp, cast(health_factor_raw as real) / 1e18 from health_history where account = ? and deployment = ?"
        " order by block_number",
        mine[0]["account"],
        mine[0]["deployment"],
    )
    assert len(kept) > 1
    assert [at for at, _ in series[: len(kept)]] == [at for at, _ in kept]
    assert [value for _, value in series[: len(kept)]] == pytest.approx([value for _, value in kept])
    assert series[-1] == (mine[0]["block_timestamp"], float(mine[0]["health_factor"]))


# as a command ------------------------------------------------------------------------------------------------------


def test_the_file_name_chooses_the_form_and_the_file_is_whole(run: Run, tmp_path: Path) -> None:
    for name, start in (("a.html", "<!DOCTYPE html>"), ("a.md", "# Lending book"), ("a.txt", "Lending book")):
        path = tmp_path / name
        path.write_text("old")
        result = run("report", "book", "--output", path)
        assert (result.exit_code, result.stdout) == (0, ""), result.output
        assert path.read_text().startswith(start)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.md", "a.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nobody"], "or write book"),
        (["report", "book", "--since", "2100-01-01"], "so it holds nothing since"),
        (
            ["report", "book", "--output", "book.xlsx"],
            "'book.xlsx' has none of the endings that choose a format: .md, ",
        ),
        (["report", "book", "--output", "book.md", "--format", "html"], "ends as md does, but html was asked for"),
        (["report", "0x" + "1" * 40, "--since", "soon"], "is no time"),
        (["report", "0x" + "1" * 40, "--fall", "WETH"], "are for `report book`"),
        (["report", "book", "--fall", "WETHH"], "WETH"),
        (["report", "book", "--format", "pdf"], "pdf"),
        (["top", "--by", "fame"], "fame"),
        (["top", "--limit", "0"], "0"),
    ],
)
def test_bad_input_is_one_line_and_code_2(run: Run, arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line


@pytest.mark.parametrize("arguments", [["report", "book"], ["report", "0x" + "1" * 40], ["top"]])
def test_an_empty_database_says_what_to_do(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    with Store(tmp_path / "empty.db"):
        pass
    result = run("--db", tmp_path / "empty.db", *arguments)
    assert result.exit_code == 0
    assert "run `indexer sync`" in result.stderr


def test_a_stranger_is_told(run: Run) -> None:
    result = run("report", "0x" + "12" * 20)
    assert (result.exit_code, result.stdout) == (0, "")
    assert "has no position in indexer.db" in result.stderr


def test_deployments_that_no_configuration_names_are_told(synced: Synced, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    shutil.copy(synced.path, "older.db")
    arguments = ["--db", "older.db", "report", "book", "--deployment", synced.aave.name]
    assert "Not computed for" not in CliRunner().invoke(main, arguments).stdout, "the file explains itself"
    with sqlite3.connect("older.db") as older:
        older.execute("update deployments set addresses = null")
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0
    assert f"Not computed for {synced.aave.name}" in result.stdout


def test_a_since_in_days_and_with_a_zone(run: Run, conn: sqlite3.Connection) -> None:
    wallet = wallets(conn)[0]
    for since, title in (("2023-01-01", "2023-01-01T00:00:00Z"), ("2023-01-01T02:00:00+02:00", "2023-01-01T00:00:00Z")):
        assert f"Change since {title}" in run("report", wallet, "--since", since).stdout
    (last,) = conn.execute("select max(block_timestamp) from deployments").fetchone()
    assert f"Change since {iso(last - 7 * 86_400)}" in run("report", wallet, "--since", "7d").stdout
    beyond = run("report", wallet, "--since", iso(last + 60))
    assert (beyond.exit_code, beyond.stdout) == (2, "")
    assert f"the data ends at {iso(last)}" in beyond.stderr
