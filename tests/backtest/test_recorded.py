"""Forecasts of the database as they were made, judged by the prices and liquidations that its tables hold."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.backtest import recorded
from indexer.cli.main import main
from indexer.store.store import Store

DAY = 86_400
START = 1_700_000_000
ETH, BTC = "0x" + "e" * 40, "0x" + "b" * 40
WALLET = "0x%040x"


def exposures(limit: float, debt: float, cap: float | None = None) -> str:
    """Ether worth `limit` against dollars."""
    return json.dumps({"terms": [[{ETH: 1}, limit, 0.0, cap]], "constant": [0.0, debt]})


def write(path: Path, forecasts: list[tuple[int, int, int, int, str]], *, known_until: int) -> None:
    """A file with hourly ether that falls by 10 % at noon of day 2 and comes back, and (wallet, at, horizon, hits, exposures)."""
    with Store(path) as store:
        conn = store.conn
        conn.execute(
            "insert into deployments (chain_id, deployment, protocol, accounts, block_number, block_timestamp, state, "
            "liquidations_from_block) values (1, 'aave-v3-core', 'aave-v3', 'all', 999, ?, 'ok', 1)",
            (known_until,),
        )
        conn.execute("insert into feeds (chain_id, address, kind, decimals) values (1, ?, 'chainlink', 8)", (ETH,))
        for hour in range((known_until - START) // 3_600 + 25):
            at = START - DAY + hour * 3_600
            answer = 900.0 if at == START + 2 * DAY + 12 * 3_600 else 1_000.0
            conn.execute(
                "insert into feed_prices (chain_id, feed, phase, round, block_timestamp, in_force_timestamp, answer_raw, answer) "
                "values (1, ?, 1, ?, ?, ?, ?, ?)",
                (ETH, hour, at, at, str(int(answer * 1e8)), answer),
            )
        for wallet, at, horizon, hits, told in forecasts:
            conn.execute(
                "insert into forecasts (chain_id, deployment, account, position_group, horizon_seconds, hits, exposures, model, "
                "seed, paths, prices_until, block_number, block_timestamp, kept) "
                "values (1, 'aave-v3-core', ?, '', ?, ?, ?, 'm', 0, 1000, ?, ?, ?, 1)",
                (WALLET % wallet, horizon, hits, told, at, (at - START) // 12 + 10, at),
            )
        conn.execute(
            "insert into liquidations (chain_id, deployment, protocol, block_number, block_hash, log_index, block_timestamp, "
            "transaction_hash, account, position_group) values (1, 'aave-v3-core', 'aave-v3', ?, '0x1', 0, ?, '0x2', ?, '')",
            ((2 * DAY + 13 * 3_600) // 12 + 10, START + 2 * DAY + 13 * 3_600, WALLET % 1),
        )
        conn.commit()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Three wallets, forecast each day for a day and a week ahead; the first is liquidated, the third reaches a cap."""
    rows = [
        (wallet, START + day * DAY, horizon, hits, exposures(*terms))
        for day in range(5)
        for horizon in (DAY, 7 * DAY)
        for wallet, hits, terms in ((1, 300, (1.05, 1.0)), (2, 10, (1.5, 1.0)), (3, 0, (1.05, 1.0, 0.5)))
    ]
    write(tmp_path / "made.db", rows, known_until=START + 8 * DAY)
    return tmp_path / "made.db"


def test_left_alone_is_judged_by_later_prices_and_liquidated_by_later_logs(made: Path) -> None:
    with Store(made) as store:
        samples, remarks = recorded.samples(store.conn, None, None)
    found = {(one.name, one.horizon): one for one in samples}
    assert set(found) == {(f"aave-v3 {what}", h) for what in ("left alone", "liquidated") for h in (24, 168)}
    day = found["aave-v3 left alone", 24]
    # of 5 days, that of the fall; the capped wallet is below its debt at any price
    assert [bool(y) for y in day.y] == [came for at in range(5) for came in (at == 2, False, True)]
    assert day.health.tolist() == pytest.approx([1.05, 1.5, 1.05] * 5)
    assert day.p.tolist() == pytest.approx([0.3, 0.01, 0.0] * 5)
    assert [bool(y) for y in found["aave-v3 liquidated", 24].y] == [
        came for at in range(5) for came in (at == 2, False, False)
    ]
    week = found["aave-v3 left alone", 168]
    assert len(week.y) == 2 * 3  # days 0 and 1: later ones are not over
    assert [bool(y) for y in week.y] == [True, False, True] * 2
    assert remarks == ["9 of 30 forecasts reach beyond the last price: judged when it has come"]


def test_a_forecast_of_a_feed_without_answers_is_not_judged(tmp_path: Path) -> None:
    unknown = json.dumps({"terms": [[{BTC: 1}, 1.5, 0.0, None]], "constant": [0.0, 1.0]})
    write(tmp_path / "a.db", [(1, START, DAY, 5, unknown)], known_until=START + 3 * DAY)
    with Store(tmp_path / "a.db") as store:
        samples, _ = recorded.samples(store.conn, None, None)
    assert [one.name for one in samples] == ["aave-v3 liquidated"]


def test_the_command_judges_the_database_and_says_where_there_is_nothing(made: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["--db", str(made), "backtest", "--format", "json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["as_of"].startswith("forecasts of 2023-11-14 to 2023-11-18 as they were made")
    (scores,) = (section["rows"] for section in found["sections"] if section["title"] == "Scores")
    assert {row["sample"] for row in scores} == {"aave-v3 left alone"}  # few events: nothing is calibrated on them
    Store(tmp_path / "empty.db").close()
    result = CliRunner().invoke(main, ["--db", str(tmp_path / "empty.db"), "backtest"])
    assert result.exit_code == 0, result.output
    assert "no forecasts in that time" in result.output
