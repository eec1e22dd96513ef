"""What pages show: the numbers of the file, the rows of `export`, and clear words where there is nothing to show."""

import json
import os
import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from indexer.cli.main import main
from indexer.queries.paging import page
from indexer.store.store import Store
from indexer.terminal.options import Session
from indexer.text.values import printable, shown
from indexer.web import at_risk
from indexer.web.app import PAGES, TYPES, application
from indexer.web.desk import Desk
from tests.recorded import CONFIG
from tests.web.conftest import HOSTILE

PART = {"HX-Request": "true"}
FIELDS = (
    "whom wallet protocol deployment status below min_debt sort after target price.ETH price. also days sweep min_profit"
).split()
HOSTILE_VALUES = [
    "nan", "-inf", "1e309", "5e-324", "-0.0", "9" * 3_999, "9" * 4_001, "\0", "\udce4", "\u0663", "[" * 3_000, "'", "%", "{{7*7}}",
    "ETH=+" + "9" * 3_900 + "%", "ETH=0..-99:0.0000001", "ETH=-1..1:1", "ETH=-20% " * 300,
]  # fmt: skip


def rows_of(database: Path, sql: str, *values: Any) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(database)) as conn:
        conn.row_factory = sqlite3.Row
        return [dict(row) for row in conn.execute(sql, values)]


def command(database: Path, *arguments: str) -> str:
    result = CliRunner().invoke(main, ["--config", str(CONFIG), "--db", str(database), *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def cells(text: str) -> list[dict[str, str]]:
    """The rows of all tables, each cell by its heading."""
    found = []
    for row in re.findall(r"<tr data-key=.*?</tr>", text, re.DOTALL):
        parts = re.findall(r'<td [^>]*data-name="([^"]*)">(.*?)</td>', row, re.DOTALL)
        found.append(
            {name: unescape(re.sub(r'<span class="short".*?</span>|<[^>]+>', "", cell)) for name, cell in parts}
        )
    return found


def test_the_list_has_the_numbers_of_the_file(client: TestClient, database: Path) -> None:
    expected = rows_of(
        database,
        "select * from positions where status in ('at-risk', 'liquidatable') order by debt_usd desc, health_factor",
    )
    listed = cells(client.get("/").text)
    assert len(listed) == len(expected) > 30
    for row, cell in zip(expected, listed, strict=True):
        assert cell["Wallet"] == row["wallet"]
        assert cell["Status"] == row["status"]
        assert cell["Debt (USD)"] == shown("debt_usd", row["debt_usd"])
        assert cell["Collateral (USD)"] == shown("collateral_usd", row["collateral_usd"])
        if row["health_factor_raw"] is None:
            assert cell["Health factor"] == "-"
        elif row["health_factor"] < 1_000:  # cut, not rounded
            digits = row["health_factor_raw"].rjust(19, "0")
            assert cell["Health factor"] == f"{digits[:-18]}.{digits[-18:-14]}"


def test_cards_have_the_sums_of_the_file(client: TestClient, database: Path) -> None:
    text = client.get("/").text
    for row in rows_of(
        database,
        "select status, sum(debt_usd) as debt, count(*) as n from positions where status in ('at-risk', 'liquidatable') group by 1",
    ):
        assert f"${row['debt']:,.2f}" in text
        assert f"{row['n']} position" in text
    (whole,) = rows_of(database, "select sum(debt_usd) as debt, sum(collateral_usd) as collateral from positions")
    assert f"${whole['debt']:,.2f}" in text
    assert f"${whole['collateral']:,.2f}" in text


@pytest.mark.parametrize(
    ("query", "flags"),
    [("", []), ("below=1.5", ["--below", "1.5"]), ("min_debt=5000", ["--min-debt", "5000"]),
     ("protocol=aave-v3", ["--protocol", "aave-v3"]), ("deployment=maker&below=3", ["--deployment", "maker", "--below", "3"])],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "csv"])
def test_twins_are_what_export_writes(
    client: TestClient, database: Path, query: str, flags: list[str], form: str
) -> None:
    answer = client.get(f"/at-risk.{form}?{query}")
    assert answer.text == command(database, "export", "at-risk", *flags, f"--{form}")
    assert answer.headers["content-type"].startswith({"json": "application/json", "csv": "text/csv"}[form])


def test_the_twin_of_a_wallet_has_the_rows_of_show(client: TestClient, database: Path) -> None:
    (row,) = rows_of(database, "select wallet from positions where protocol = 'maker' and debt_usd > 0 limit 1")
    told = json.loads(command(database, "show", row["wallet"], "--json"))
    assert client.get(f"/wallet/{row['wallet']}.json").json() == [
        {name: value for name, value in one.items() if name != "outlook"} for one in told
    ]


def test_the_same_address_shows_the_next_commit(client: TestClient, database: Path) -> None:
    (row,) = rows_of(
        database, "select account from positions where status = 'liquidatable' order by debt_usd desc limit 1"
    )
    for debt in (1_000_000.25, 2_000_000.5):
        with closing(sqlite3.connect(database)) as conn, conn:
            conn.execute("update positions set debt_usd = ? where account = ?", (debt, row["account"]))
        assert cells(client.get("/").text)[0]["Debt (USD)"] == shown("debt_usd", debt)


def test_a_status_filter_keeps_that_status(client: TestClient, database: Path) -> None:
    for status in ("liquidatable", "at-risk", "healthy", "unpriceable"):
        expected = rows_of(database, "select account from positions where status = ?", status)
        assert len(client.get(f"/at-risk.json?status={status}").json()) == len(expected) > 0


@pytest.mark.parametrize("order", ["debt", "health", "collateral"])
def test_pages_by_key_hold_every_row_once_in_order(database: Path, order: str) -> None:
    """Among positions without a debt and without a health factor too."""
    with closing(sqlite3.connect(database)) as conn:
        found: list[tuple[Any, ...]] = []
        after = None
        while True:
            one = page(
                conn, order=order, limit=7, after=after, statuses=["healthy", "no-debt", "unpriceable", "liquidatable"]
            )
            found += [tuple(row) for row in one.rows]
            after = one.after
            if after is None:
                break
        everything = page(
            conn, order=order, limit=1_000, statuses=["healthy", "no-debt", "unpriceable", "liquidatable"]
        )
    assert found == [tuple(row) for row in everything.rows]
    assert len(set(found)) == len(found) > 100
    at = everything.columns.index(
        {"debt": "debt_usd", "health": "health_factor", "collateral": "collateral_usd"}[order]
    )
    values = [row[at] for row in everything.rows]
    known = [value for value in values if value is not None]
    assert values == [*sorted(known, reverse=order != "health"), *[None] * (len(values) - len(known))]


def test_the_next_page_goes_on_behind_the_last_row_though_rows_moved(
    client: TestClient, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(at_risk, "ROWS", 10)
    first = client.get("/?below=2").text
    (following,) = re.findall(r'href="([^"]*after=[^"]*)"', first)
    shown_first = [row["Wallet"] + row["Deployment"] for row in cells(first)]
    with closing(sqlite3.connect(database)) as conn, conn:  # the largest debt is repaid: offsets would skip a row
        conn.execute("update positions set debt_usd = 1 where debt_usd = (select max(debt_usd) from positions)")
    second = client.get(unescape(following)).text
    query = dict(parse_qsl(urlsplit(unescape(following)).query))
    assert query["below"] == "2"
    expected = rows_of(
        database,
        "select wallet, deployment from positions where health_factor < 2 order by debt_usd desc, health_factor, chain_id, deployment, account, position_group",
    )
    names = [row["wallet"] + row["deployment"] for row in expected]
    begins = names.index(shown_first[-1]) + 1
    assert [row["Wallet"] + row["Deployment"] for row in cells(second)] == names[begins : begins + 10]
    assert 'href="/?below=2"' in second


@pytest.mark.parametrize(
    "query",
    ["below=nan", "below=-1", "below=x", "below=1e999", "min_debt=inf", "protocol=aave-v33", "deployment=x", "status=x", "sort=x",
     "after=1", "after=[]", "after=%7B%7D", "after=[NaN,1,1,1,1,1,1,1]", "after=[[],1,1,1,1,1,1,1]", "wallet=nobody", "wallet=0x12",
     "wallet=%40nobody", "after=" + "[" * 3000],
)  # fmt: skip
def test_what_no_row_can_have_is_refused_and_not_read_as_nobody(client: TestClient, query: str) -> None:
    for path in ("/", "/at-risk.json"):
        answer = client.get(f"{path}?{query}")
        assert answer.status_code == 400, answer.text
        assert "Nobody" not in answer.text


@pytest.mark.slow
def test_whatever_an_address_asks_is_answered_or_refused(client: TestClient) -> None:
    """Any page and twin, any field, hostile values: rows, or what is wrong with it, never a defect."""
    rng = random.Random(11)
    somebody = "0x" + "12" * 20
    paths = ["/", "/wallet", *(page.replace("{whom}", somebody) for page in PAGES)]
    paths += [f"{path}.{form}" for path in paths[2:] for form in TYPES]
    for _ in range(150):
        path, field, value = rng.choice(paths), rng.choice(FIELDS), rng.choice(HOSTILE_VALUES)
        answer = client.get(f"{path}?{field}={quote(value, errors='surrogateescape')}", follow_redirects=False)
        assert answer.status_code in (200, 303, 400, 404), (path, field, value[:40])


def test_a_part_is_what_is_on_the_page_without_its_head(client: TestClient) -> None:
    part = client.get("/?below=2", headers=PART)
    assert "<html" not in part.text
    assert cells(part.text) == cells(client.get("/?below=2").text)
    assert 'id="band"' in part.text


# strangers' names --------------------------------------------------------------------------------------------------------


def test_hostile_names_are_shown_as_they_are_and_obeyed_by_nothing(desk: Desk, database: Path) -> None:
    """Symbols come from strangers' contracts, labels from imported lists."""
    with Store(database) as store:
        (wallet,) = store.conn.execute(
            "select wallet from positions where status = 'liquidatable' and deployment like 'aave%'"
        ).fetchone()
        store.conn.execute("update balances set symbol = ?", (HOSTILE,))
        store.conn.execute("insert into watches values (?, ?, null, 0)", (wallet, HOSTILE))
        store.conn.execute("insert into watch_groups values (?, ?)", ("g", wallet))
        store.conn.commit()
    with TestClient(application(desk), base_url="http://localhost") as client:
        for path in ("/wallet", f"/wallet/{wallet}", "/wallet/@g", f"/?wallet={HOSTILE.replace('&', '%26')}"):
            text = re.sub(r' value="[^"]*"', "", client.get(path).text)  # a field holds what was typed
            assert "<script>alert" not in text, path
            assert "\u202e" not in text, path
            assert "49" not in re.findall(r"{{.*?}}", text)
        assert printable(HOSTILE) in unescape(client.get("/wallet").text)
        assert printable(HOSTILE) in unescape(client.get(f"/wallet/{wallet}").text)


def test_braces_in_an_address_are_only_braces(client: TestClient) -> None:
    for path in ("/opportunities?x={y}", "/wallet/0x" + "12" * 20 + "?x={0}", "/?x={form}"):
        assert client.get(path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/wallet/%3Cscript%3Ealert(1)",
        "/wallet?whom=%3Cscript%3Ealert(1)",
        "/?protocol=%3Cscript%3E",
    ],
)
def test_what_an_address_says_is_not_markup(client: TestClient, path: str) -> None:
    text = client.get(path).text
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


# the file ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[tuple[Path, TestClient]]:
    """Pages over a file that is not there yet."""
    path = tmp_path / "later.db"
    desk = Desk(Session(CONFIG, path), query_seconds=60, wait_seconds=60)
    with TestClient(application(desk), base_url="http://localhost", raise_server_exceptions=False) as found:
        yield path, found


def test_a_file_that_is_not_there_or_not_ours_is_named(elsewhere: tuple[Path, TestClient]) -> None:
    path, client = elsewhere
    for wrong in (None, b"no database at all" * 100):
        if wrong is not None:
            path.write_bytes(wrong)
        answer = client.get("/")
        assert answer.status_code == 503
        assert str(path) in unescape(answer.text)
        assert client.get("/at-risk.json").status_code == 503
        assert client.get("/healthz").json() == {"status": "unreadable"}
    path.unlink()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("create table theirs (a)")
    assert "another program" in client.get("/").text


def test_an_empty_file_says_what_to_do(elsewhere: tuple[Path, TestClient]) -> None:
    path, client = elsewhere
    with Store(path):
        pass
    text = client.get("/").text
    assert "indexer sync --follow" in text
    assert "Nobody is at risk" not in text
    assert client.get("/healthz").json()["status"] == "empty"
    calls = client.get("/opportunities").text
    assert "Nothing can be listed yet" in calls
    assert "Nobody is at risk" not in calls
    assert client.get("/sync").status_code == 200
    assert client.get("/at-risk.json").json() == []


def test_a_first_sync_says_how_far_it_is_and_how_long_it_takes(desk: Desk, database: Path) -> None:
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute("delete from positions")
        conn.execute(
            "update deployments set block_number = null, block_timestamp = null, state = 'new', start_block = 1"
        )
        conn.execute("update synced_ranges set to_block = from_block + 100 where to_block > from_block + 100")
        conn.execute("update runs set finished_at = null, blocks = 100, stage_began_at = 1000, told_at = 1060")
    with TestClient(application(desk), base_url="http://localhost") as client:
        text = client.get("/").text
    assert "first sync" in text
    assert re.search(r"aave-v3-6-devnet \d+(\.\d)? %", text)
    assert re.search(r"About \d+ (s|min|h) left", text)
    assert "Nobody is at risk" not in text


def test_a_locked_file_is_said_and_comes_back(desk: Desk, database: Path) -> None:
    """No page has looked at the file before: whoever reads it keeps others from locking it all."""
    client = TestClient(application(desk), base_url="http://localhost")
    with closing(sqlite3.connect(database, isolation_level=None)) as conn:
        conn.execute("pragma locking_mode = exclusive")
        conn.execute("pragma journal_mode = delete")
        conn.execute("begin exclusive")
        answer = client.get("/")
        assert answer.status_code == 503
        assert "locked" in answer.text
        conn.execute("rollback")
    assert client.get("/").status_code == 200
    desk.close()


def test_a_slow_query_ends_with_the_filter_to_narrow(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.query_seconds = 0.05
    endless = "select count(*) from (with recursive n(i) as (select 1 union all select i + 1 from n) select i from n)"
    monkeypatch.setattr(at_risk, "endangered", lambda conn: conn.execute(endless).fetchall())
    with TestClient(application(desk), base_url="http://localhost") as client:
        answer = client.get("/")
        assert answer.status_code == 503
        assert "narrow" in answer.text
        assert client.get("/sync").status_code == 200


def test_a_file_of_a_newer_version_is_said(client: TestClient, database: Path) -> None:
    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            "insert into _sqlite_migrations (migration_set, name, applied_at) values ('lending-indexer', '9999_later', '')"
        )
    answer = client.get("/")
    assert answer.status_code == 503
    assert "newer version" in answer.text


def test_old_rows_are_called_stale_everywhere(client: TestClient) -> None:
    for path in ("/", "/sync", "/wallet"):
        text = client.get(path).text
        assert 'id="band" class="stale"' in text
        assert "No sync is running" in text
    assert client.get("/healthz").status_code == 503
    assert client.get("/healthz").json()["status"] == "stale"


def test_fresh_rows_are_stale_only_while_no_sync_runs(client: TestClient, database: Path) -> None:
    import time

    with closing(sqlite3.connect(database)) as conn, conn:
        conn.execute("update deployments set block_timestamp = ?", (int(time.time()),))
    if os.uname().sysname == "Linux":
        assert "No sync is running" in client.get("/").text
    with Store(database) as store, store.lock():
        text = client.get("/").text
        assert 'id="band" class="ok"' in text
        assert client.get("/healthz").json()["status"] == "ok"


# the other pages ---------------------------------------------------------------------------------------------------------


def test_the_book_has_the_sums_of_the_file(client: TestClient, database: Path) -> None:
    text = client.get("/book").text
    for row in rows_of(database, "select deployment, total(debt_usd) as debt, count(*) as n from positions group by 1"):
        (line,) = re.findall(rf"<tr><td [^>]*>{row['deployment']}</td>.*?</tr>", text)[:1]
        assert f">{row['debt']:,.2f}<" in line
        assert f">{row['n']}<" in line
    assert "<svg" in text
    assert client.get("/book.csv").text == command(database, "export", "markets", "--csv")


@pytest.mark.parametrize(
    ("query", "flags"),
    [("price.eth=-20", ["--shock", "eth=-20%"]),
     ("price.WETH=-35&price.LINK=10", ["--shock", "WETH=-35%", "--shock", "LINK=+10%"]),
     ("price.eth=-20&days=30", ["--shock", "eth=-20%", "--days", "30"]),
     ("also=ETH-A%3D-10%25+LINK%3D-30%25", ["--shock", "ETH-A=-10%", "--shock", "LINK=-30%"]),
     ("sweep=eth", ["--sweep", "eth=0..-60%"]), ("days=10&sweep=WBTC%3D0..-30%25%3A10%25", ["--days", "10", "--sweep", "WBTC=0..-30%:10%"])],
)  # fmt: skip
@pytest.mark.parametrize("form", ["json", "csv"])
def test_a_scenario_is_simulate_to_the_digit(
    client: TestClient, database: Path, query: str, flags: list[str], form: str
) -> None:
    assert client.get(f"/what-if.{form}?{query}").text == command(database, "simulate", *flags, f"--{form}")


def test_the_page_of_a_scenario_has_its_rows_and_its_command(client: TestClient, database: Path) -> None:
    expected = json.loads(command(database, "simulate", "--shock", "eth=-20%", "--json"))
    text = client.get("/what-if?price.eth=-20").text
    listed = [cell for cell in cells(text) if "Health factor after" in cell]
    assert [cell["Wallet"] for cell in listed] == [row["wallet"] for row in expected] != []
    assert f"${sum(row['debt_usd'] for row in expected):,.2f}" in text
    assert "indexer simulate --shock eth=-20%" in text


def test_a_wallet_under_other_prices_is_simulate_to_the_digit(client: TestClient, database: Path) -> None:
    (row,) = rows_of(
        database, "select wallet from positions where deployment = 'aave-v3-6-devnet' and status = 'healthy' limit 1"
    )
    told = client.get(f"/wallet/{row['wallet']}.json?price.WETH=-20").text
    assert told == command(database, "simulate", row["wallet"], "--shock", "WETH=-20%", "--json")


@pytest.mark.parametrize(
    "query",
    [
        "price.eth=-100",
        "price.eth=x",
        "price.nothing=-20",
        "days=-1",
        "days=99999",
        "also=x",
        "sweep=x%3D1",
        "sweep=nothing",
    ],
)
def test_an_impossible_scenario_is_refused(client: TestClient, query: str) -> None:
    for path in ("/what-if", "/what-if.json"):
        assert client.get(f"{path}?{query}").status_code == 400


def test_one_scenario_is_computed_at_a_time(desk: Desk) -> None:
    desk.wait_seconds = 0.01
    with TestClient(application(desk), base_url="http://localhost") as client:
        with desk.alone():
            answer = client.get("/what-if?price.eth=-20")
            assert answer.status_code == 429
            assert "another scenario" in answer.text
            assert client.get("/what-if").status_code == 200
        assert client.get("/what-if?price.eth=-20").status_code == 200


def test_opportunities_are_those_of_the_command(client: TestClient, database: Path) -> None:
    for query, flags in (
        ("", []),
        ("min_profit=100", ["--min-profit", "100"]),
        ("protocol=maker", ["--protocol", "maker"]),
    ):
        told = command(database, "opportunities", *flags, "--json")
        assert client.get(f"/opportunities.json?{query}").text == told
        listed = [cell["Wallet"] for cell in cells(client.get(f"/opportunities?{query}").text)]
        assert listed == [row["wallet"] for row in json.loads(told)]


def test_without_a_stored_forecast_the_page_says_how_to_get_one(client: TestClient) -> None:
    text = client.get("/forecast").text
    assert "No forecast is stored" in text
    assert "indexer forecast" in text


def test_a_stored_forecast_is_shown_with_its_age_and_never_as_zero(client: TestClient, database: Path) -> None:
    row, other = rows_of(database, "select * from positions where debt_usd > 0 order by debt_usd desc limit 2")
    given: dict[str, Any] = {
        "horizon_seconds": 86_400, "hits": 0, "p_unsafe": None, "p_unsafe_bound": 0.0015, "p_liquidated": None, "pending_price_raw": "1",
        "pending_at": 1_713_710_000, "pending_kind": "osm", "exposures": None, "model": "m", "seed": 0, "paths": 2_000,
        "prices_until": 1, "block_number": 1_052, "block_timestamp": 1_713_706_733, "note": None, "kept": 0,
    }  # fmt: skip
    with closing(sqlite3.connect(database)) as conn, conn:
        for of, changes in (
            (row, {}),
            (
                other,
                {
                    "hits": 250,
                    "p_unsafe": 0.125,
                    "p_unsafe_bound": None,
                    "p_liquidated": 0.01,
                    "pending_kind": None,
                    "pending_at": None,
                },
            ),
        ):
            values = {
                **{name: of[name] for name in ("chain_id", "deployment", "account", "position_group")},
                **given,
                **changes,
            }
            conn.execute(
                f"insert into forecasts ({', '.join(values)}) values ({', '.join('?' * len(values))})",
                [*values.values()],
            )
    first, second = cells(client.get("/forecast").text)
    assert (first["Wallet"], first["Left alone"], first["Liquidated"]) == (row["wallet"], "below 0.15 %", "-")
    assert first["Pending"] == "liquidatable by osm at 2024-04-21T14:33:20Z"
    assert re.fullmatch(r"\d+ days old", first["Age"])
    assert (second["Left alone"], second["Liquidated"], second["Pending"]) == ("12.5 %", "1.0 %", "-")


def test_alerts_show_rules_states_and_deliveries(client: TestClient, database: Path) -> None:
    assert "Nobody is watched" in client.get("/alerts").text
    (row,) = rows_of(
        database,
        "select * from positions where status = 'liquidatable' and protocol = 'maker' and debt_usd > 0 limit 1",
    )
    command(database, "watch", "add", row["wallet"], "--label", "treasury", "--below", "1.3")
    command(database, "watch", "add", "--price", "ETH<2000")
    with closing(sqlite3.connect(database)) as conn, conn:
        key = [row[name] for name in ("chain_id", "deployment", "account", "position_group", "wallet")]
        conn.execute(
            "insert into watch_states values (?, ?, ?, ?, ?, 'below 1.3', 0, 1, 1, null, null, ?, 1052)",
            [*key, row["health_factor_raw"]],
        )
        conn.execute(
            "insert into alerts (number, id, kind, chain_id, deployment, account, position_group, wallet, rule, crossing, event, health_factor_raw,"
            " health_factor, block_number, block_hash, block_timestamp, body, created_at)"
            " values (1, 'a', 'position', ?, ?, ?, ?, ?, 'below 1.3', 1, 'crossed', ?, ?, 1052, '0x', 1, '{}', 1713706733)",
            [*key, row["health_factor_raw"], row["health_factor"]],
        )
        conn.execute(
            "insert into deliveries (number, channel, place, state, error) values (1, 'c', 'p', 'trying', 'refused')"
        )
    text = client.get("/alerts").text
    alert, state, price, rule = cells(text)
    assert (alert["Label"], alert["Event"], alert["Delivered"], alert["Waiting"], alert["Error"]) == (
        "treasury",
        "crossed",
        "0",
        "1",
        "refused",
    )
    assert alert["Time"] == "2024-04-21T13:38:53Z"
    assert state["State"] == "crossed"
    assert price["Rule"] == "ETH<2000"
    assert rule["Rules"] == "below 1.3"
    assert client.get("/alerts.json").json()[0]["wallet"] == row["wallet"]


def test_every_page_and_twin_answers_on_an_empty_and_on_a_full_file(
    client: TestClient, elsewhere: tuple[Path, TestClient]
) -> None:
    path, empty = elsewhere
    with Store(path):
        pass
    for one in PAGES:
        where = one.replace("{whom}", "0x" + "12" * 20)
        for found in (client, empty):
            for ending in ("", ".json", ".csv"):
                assert found.get(where + ending).status_code == 200, where + ending
