"""What `indexer forecast` says, keeps and refuses, on made-up books of all five protocols with a made-up past."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from indexer.alert.rules import below
from indexer.alert.watches import Watch, add
from indexer.cli.main import main
from indexer.forecast import calibration, rows
from indexer.store.reorgs import roll_back
from indexer.store.store import Store
from tests.bench.population import populate
from tests.forecast.past import constant, feed_of, fill
from tests.truth import raw

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 90 positions of six deployments, half of them near the boundary, and 40 days of prices."""
    folder = tmp_path_factory.mktemp("forecast")
    populate(folder / "large.db", folder / "bench.toml", 120, near=0.5)
    fill(folder / "large.db", folder / "bench.toml")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    for name in ("large.db", "bench.toml"):
        shutil.copy(made / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Run:
    def run(*arguments: str, code: int = 0) -> Result:
        place = ("--config", str(folder / "bench.toml"), "--db", str(folder / "large.db"))
        result = CliRunner().invoke(main, [*place, "forecast", *arguments])
        assert result.exit_code == code, result.output
        return result

    return run


def told(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found


def someone(folder: Path, condition: str = "true") -> str:
    """A wallet with debt near the boundary."""
    ((account, _),) = raw(
        folder / "large.db",
        f"select account, health_factor from positions where status in ('at-risk', 'healthy') and {condition} "
        "and health_factor > 1.02 order by health_factor limit 1",
    )
    return str(account)


SMALL = ("--within", "1d", "--paths", "200", "--json")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digits_and_another_seed_others(run: Run) -> None:
    first = run(*SMALL).stdout
    assert run(*SMALL).stdout == first
    assert run(*SMALL, "--seed", "1").stdout != first


@pytest.mark.slow
def test_with_exact_every_count_is_the_same(run: Run, folder: Path) -> None:
    hits: list[int] = []
    for deployment in ("aave-v3-core", "aave-v2-main", "maker-core"):
        wallet = someone(folder, f"deployment = '{deployment}'")
        few = (wallet, "--within", "1h,12h", "--paths", "100", "--json")
        plain, exact = (told(run(*few, *also)) for also in ((), ("--exact",)))
        assert plain == exact
        hits += [row["hits"] for row in plain]
    assert any(hits)


@pytest.mark.slow
def test_more_paths_decide_where_the_chance_is_open_and_somebody_looks(run: Run, folder: Path) -> None:
    asked = ("--within", "3d", "--json")
    few = {key(row): row for row in told(run(*asked, "--paths", "2000"))}
    near = {k for k, row in few.items() if row["hits"] is not None and 0.001 <= row["hits"] / 2_000 <= 0.5}
    at_risk = "select deployment, account, position_group from positions where status = 'at-risk'"
    risky = set(raw(folder / "large.db", at_risk))
    healthy = sorted(near - risky)
    watched = few[healthy[0]]["wallet"]
    with Store(folder / "large.db") as store:
        add(store, [Watch(watched, "", None, (below("1.1"),))])
    found = {key(row): row for row in told(run(*asked))}
    seen = {k for k in near if k in risky or few[k]["wallet"] == watched}
    assert len(near) > len(seen) > 1, "of those with an open chance somebody is looked at, and somebody is not"
    assert {k for k, row in found.items() if row["paths"] == 10_000} == seen
    for k in seen:
        p, more = few[k]["hits"] / 2_000, found[k]["hits"]
        assert few[k]["hits"] <= more, "the paths of all are among them"
        assert abs(more / 10_000 - p) < 5 * (p * (1 - p) / 2_000) ** 0.5
        assert found[k]["p_unsafe"] == more / 10_000
    assert all(found[k] == few[k] for k in few.keys() - seen)
    alone = told(run(watched, *asked))
    assert [row["hits"] for row in alone] == [found[key(row)]["hits"] for row in alone]


def key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["deployment"], row["account"], row["position_group"]


@pytest.mark.slow
def test_a_longer_horizon_is_never_safer(run: Run) -> None:
    found: dict[tuple[str, str, str], list[int]] = {}
    for row in sorted(
        told(run("--within", "1h,1d,3d", "--paths", "200", "--json")), key=lambda r: r["horizon_seconds"]
    ):
        if row["hits"] is not None:
            found.setdefault((row["deployment"], row["account"], row["position_group"]), []).append(row["hits"])
    assert all(hits == sorted(hits) for hits in found.values())
    assert any(hits[-1] > hits[0] for hits in found.values())


@pytest.mark.slow
def test_prices_that_never_moved_make_nobody_unsafe_and_nobody_certain(run: Run, folder: Path) -> None:
    fill(folder / "large.db", folder / "bench.toml", past=constant)
    found = [row for row in told(run(*SMALL)) if row["hits"] is not None and row["pending_kind"] is None]
    assert len(found) > 30
    assert {(row["hits"], row["p_unsafe"], row["p_unsafe_bound"]) for row in found} == {(0, None, 3 / 200)}


@pytest.mark.parametrize(
    ("past", "note"),
    [
        ({"days": 29}, "short history of "),
        ({"ago": 4 * 3_600}, "stale price of "),
        ({"ago": 4 * 3_600, "beat": None}, "stale price of "),
        ({"without": ("WETH", "wstETH", "WBTC", "USDC", "DAI", "USDT")}, "no price history of "),
    ],
)
def test_without_a_past_there_is_no_chance_and_the_reason_is_told(
    run: Run, folder: Path, past: dict[str, Any], note: str
) -> None:
    fill(folder / "large.db", folder / "bench.toml", **past)
    found = [row for row in told(run(*SMALL)) if row["note"] and row["note"].startswith(note)]
    assert found
    assert {(row["hits"], row["p_unsafe"], row["p_unsafe_bound"], row["p_liquidated"]) for row in found} == {
        (None,) * 4
    }


def test_a_book_without_any_chance_has_unknown_sums_and_not_none(run: Run, folder: Path) -> None:
    fill(folder / "large.db", folder / "bench.toml", days=29)
    for row in told(run("book", *SMALL)):
        assert row["positions"] > 0
        assert (row["forecast"], row["expected_positions"], row["expected_debt_usd"], row["es_99_bad_debt_usd"]) == (
            *(0, None, None, None),
        )


@pytest.mark.slow
@pytest.mark.parametrize("ago", [0, 4 * 3_600], ids=["in time", "stale"])
def test_a_future_price_changes_nothing(run: Run, folder: Path, ago: int) -> None:
    """Neither a chance nor the reason why there is none: an answer that comes later makes no feed younger."""
    fill(folder / "large.db", folder / "bench.toml", ago=ago)
    before = run(*SMALL).stdout
    assert ("stale price of " in before) == bool(ago)
    with Store(folder / "large.db") as store, store.transaction() as conn:
        conn.execute(
            "insert into feed_prices select chain_id, feed, phase, round + 100000, block_number, block_timestamp + ?1, "
            "in_force_timestamp + ?1, answer_raw / 2, answer / 2, invalid from feed_prices p where round = "
            "(select max(round) from feed_prices q where (q.chain_id, q.feed) = (p.chain_id, p.feed))",
            (ago + 3_600,),
        )
    assert run(*SMALL).stdout == before


#: standard deviation of an hour, and answers an hour of feeds that move between the hours
DEVIATION, LOOKS = 0.05, 12
STABLE = ("USDC", "USDT", "DAI")


def steady(symbol: str, answers: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Everything moves as one, but for what is stable; the last three days show DEVIATION without chance."""
    if symbol in STABLE:
        return np.ones(answers + 1)
    rng = np.random.default_rng(3)
    half = rng.standard_normal(answers // LOOKS // 2) * DEVIATION
    hourly = np.concatenate([half, -half])  # without a trend
    hourly[-72:] = np.where(rng.random(72) < 0.5, -DEVIATION, DEVIATION)
    ends = np.concatenate([[0.0], np.cumsum(hourly)])
    return np.exp(np.interp(np.arange(answers + 1) / LOOKS, np.arange(len(ends)), ends) - ends[-1])


def barrier(exposures: str) -> float | None:
    """How far everything that moves may fall, of 1, before limit and debt are equal; None where a fall does no harm."""
    told = json.loads(exposures)
    stable = {feed_of(symbol) for symbol in STABLE}
    moves = sum(limit - debt for feeds, limit, debt, _ in told["terms"] if not feeds.keys() <= stable)
    stays = sum(limit - debt for feeds, limit, debt, _ in told["terms"] if feeds.keys() <= stable)
    stays += told["constant"][0] - told["constant"][1]
    return -stays / moves if moves > 0 else None


@pytest.mark.slow
def test_answers_between_the_hours_count_for_a_few_hours(run: Run, folder: Path) -> None:
    fill(folder / "large.db", folder / "bench.toml", past=steady, days=32, looks=LOOKS)
    found = told(run("--within", "1h,4h", "--json"))
    barriers = {
        key: barrier(text)
        for *key_, text in raw(
            folder / "large.db", "select deployment, account, position_group, exposures from forecasts"
        )
        for key in [tuple(key_)]
        if text
    }
    steps = np.random.default_rng(4).standard_normal((40_000, 4 * LOOKS), dtype=np.float32) * (DEVIATION / LOOKS**0.5)
    lowest = np.exp(np.minimum.accumulate(np.cumsum(steps, axis=1), axis=1))
    errors: dict[int, list[float]] = {1: [], 4: []}
    for row in found:
        hours = row["horizon_seconds"] // 3_600
        falls_to = barriers.get((row["deployment"], row["account"], row["position_group"]))
        truth = float((lowest[:, hours * LOOKS - 1] < falls_to).mean()) if falls_to else 0.0
        if 0.02 < truth < 0.8:
            errors[hours].append(row["hits"] / row["paths"] - truth)
    assert all(len(values) > 5 and abs(np.mean(values)) < 0.025 for values in errors.values()), errors


def test_who_is_liquidatable_has_no_chance(run: Run, folder: Path) -> None:
    there = raw(
        folder / "large.db", "select deployment, account, position_group from positions where status = 'liquidatable'"
    )
    found = {
        (row["deployment"], row["account"], row["position_group"]): (row["note"], row["hits"], row["p_unsafe_bound"])
        for row in told(run(*SMALL))
    }
    assert there
    assert {found[key] for key in there} == {("liquidatable now", None, None)}


@pytest.mark.slow
def test_the_book_adds_up_what_the_rows_say(run: Run) -> None:
    positions, book = told(run(*SMALL)), told(run("book", *SMALL))
    (whole,) = (row for row in book if row["deployment"] == "all")
    chances = [(row["hits"] / row["paths"], row["debt_usd"] or 0.0) for row in positions if row["hits"] is not None]
    assert whole["expected_positions"] == pytest.approx(sum(p for p, _ in chances))
    assert whole["expected_debt_usd"] == pytest.approx(sum(p * debt for p, debt in chances), rel=1e-3)
    assert whole["forecast"] == len(chances)
    assert (
        0 < whole["expected_debt_usd"] < whole["var_95_debt_usd"] <= whole["es_95_debt_usd"] <= whole["es_99_debt_usd"]
    )
    for by in ("wallet", "asset"):
        parts = told(run("book", *SMALL, "--by", by))
        assert sum(row["expected_debt_usd"] for row in parts) == pytest.approx(whole["expected_debt_usd"])
        assert sum(row["share_percent"] for row in parts) == pytest.approx(100)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--within", "0h"), ("--within", "31d"), ("--within", "1x"), ("--within", "90m"), ("--within", ""),
        ("--paths", "99"), ("--paths", "1000001"), ("--seed", "-1"), ("book", "0x" + "11" * 20),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_refused_and_changes_nothing(
    run: Run, folder: Path, arguments: tuple[str, ...]
) -> None:
    run(*arguments, code=2)
    assert raw(folder / "large.db", "select count(*) from forecasts") == [(0,)]


# what is kept ---------------------------------------------------------------------------------------------------------


def row(number: int, timestamp: int, kept: int = 1, **values: Any) -> rows.ForecastRow:
    told = {
        "chain_id": 1, "deployment": "d", "account": "0xab", "position_group": "", "horizon_seconds": 86_400, "hits": 20,
        "p_unsafe": 0.01, "p_unsafe_bound": None, "p_liquidated": None, "pending_price_raw": None, "pending_at": None,
        "pending_kind": None, "exposures": None, "model": "m", "seed": 0, "paths": 2_000, "prices_until": timestamp,
        "block_number": number, "block_timestamp": timestamp, "note": None, "kept": kept,
    }  # fmt: skip
    return rows.ForecastRow(**{**told, **values})


def test_the_newest_stays_and_of_who_is_near_the_last_of_each_day(tmp_path: Path) -> None:
    day = 86_400
    with Store(tmp_path / "a.db") as store:
        for number, (at, kept) in enumerate([(0, 1), (5, 1), (day, 0), (2 * day, 1), (2 * day + 9, 0)], 1):
            with store.transaction() as conn:
                rows.write(conn, [row(number, at, kept)])
        numbers = "select block_number from forecasts order by 1"
        assert store.conn.execute(numbers).fetchall() == [(2,), (5,)]
        with store.transaction() as conn:
            rows.write(conn, [row(6, 401 * day)])
        assert store.conn.execute(numbers).fetchall() == [(6,)]


@pytest.fixture
def outcomes(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """A deployment with 400 forecasts of 1 % and of 10 %, all over, whose liquidations are known."""
    with Store(tmp_path / "a.db") as store:
        remember(store)
        yield store.conn


def remember(store: Store) -> None:
    store.conn.execute(
        "insert into deployments (chain_id, deployment, protocol, block_number, block_timestamp, "
        "liquidations_from_block, state, accounts) values (1, 'd', 'aave-v3', 900, 900000, 0, 'ok', 'all')"
    )
    with store.transaction() as conn:
        rows.write(conn, [row(n, n, account=f"0x{n:040x}", p_unsafe=0.01 if n % 2 else 0.1) for n in range(1, 801)])


def refit(conn: sqlite3.Connection, now: int) -> None:
    calibration.save(conn, calibration.due(conn, [86_400], now))


def liquidate(conn: sqlite3.Connection, numbers: range) -> None:
    columns = [row[1] for row in conn.execute("pragma table_info(liquidations)")]
    known = {"chain_id": 1, "deployment": "d", "position_group": "", "protocol": "aave-v3", "log_index": 0}
    for n in numbers:
        values = {**known, "account": f"0x{n:040x}", "block_number": n + 1, "block_timestamp": n + 60}
        given = [values.get(name, f"0x{n:064x}" if name.endswith("hash") else None) for name in columns]
        conn.execute(f"insert into liquidations values ({', '.join('?' * len(given))})", given)


def test_liquidations_teach_only_where_enough_happened(outcomes: sqlite3.Connection) -> None:
    liquidate(outcomes, range(2, 100, 2))  # 49 of those with 10 %
    refit(outcomes, 1_000_000)
    assert calibration.knots(outcomes) == {}
    liquidate(outcomes, range(1, 2))
    refit(outcomes, 1_000_000)
    assert calibration.knots(outcomes) == {("aave-v3", 86_400): [(0.01, 1 / 400), (0.1, 49 / 400)]}
    liquidate(outcomes, range(200, 300, 2))
    refit(outcomes, 1_000_000 + 29 * 86_400)
    assert calibration.knots(outcomes)["aave-v3", 86_400][-1] == (0.1, 49 / 400), "a fit lasts a month"
    refit(outcomes, 1_000_000 + 31 * 86_400)
    assert calibration.knots(outcomes)["aave-v3", 86_400][-1] == (0.1, 99 / 400)


def test_chances_are_learnt_where_everyone_is_forecast_and_known_to_all(run: Run, folder: Path) -> None:
    with Store(folder / "large.db") as store:
        remember(store)
        liquidate(store.conn, range(2, 200, 2))
    wallet = someone(folder, "protocol = 'aave-v3'")
    assert {row["p_liquidated"] for row in told(run(wallet, *SMALL))} == {None}
    assert raw(folder / "large.db", "select * from calibrations") == []
    run(*SMALL)
    assert raw(folder / "large.db", "select protocol, horizon_seconds, events from calibrations") == [
        ("aave-v3", 86_400, 99)
    ]
    after = told(run(wallet, *SMALL))
    assert [row["p_liquidated"] is None for row in after if row["protocol"] == "aave-v3"] == [
        row["p_unsafe"] is None for row in after if row["protocol"] == "aave-v3"
    ]


def test_forecasts_that_are_not_over_and_unknown_liquidations_teach_nothing(outcomes: sqlite3.Connection) -> None:
    liquidate(outcomes, range(2, 200, 2))
    outcomes.execute("update deployments set block_timestamp = 86000")
    refit(outcomes, 1_000_000)
    outcomes.execute("update deployments set block_timestamp = 900000, liquidations_from_block = null")
    refit(outcomes, 1_000_000)
    assert calibration.knots(outcomes) == {}


@pytest.mark.parametrize(
    ("given", "fit"),
    [
        ([(0.1, 0), (0.2, 1)], [(0.1, 0.0), (0.2, 1.0)]),
        ([(0.1, 1), (0.2, 0)], [(0.1, 0.5), (0.2, 0.5)]),
        ([(0.1, 0), (0.2, 1), (0.3, 0), (0.4, 1)], [(0.1, 0.0), (0.2, 0.5), (0.3, 0.5), (0.4, 1.0)]),
        ([(0.5, 1), (0.5, 0), (0.5, 0), (0.5, 0)], [(0.5, 0.25)]),
    ],
)
def test_the_fit_never_falls(given: list[tuple[float, int]], fit: list[tuple[float, float]]) -> None:
    assert calibration.knots_of(given) == fit


def test_forecasts_of_blocks_that_left_the_chain_go_with_them(tmp_path: Path) -> None:
    with Store(tmp_path / "a.db") as store:
        for chain_id, block in ((1, 10), (1, 11), (2, 11)):
            store.conn.execute(
                "insert into forecasts (chain_id, deployment, account, position_group, horizon_seconds, model, seed, paths, "
                "prices_until, block_number, block_timestamp, kept) values (?, 'd', '0xa', '', 3600, 'm', 0, 100, 0, ?, 0, 1)",
                (chain_id, block),
            )
        with store.transaction() as conn:
            roll_back(conn, 1, 10, "0xdead")
        left = store.conn.execute("select chain_id, block_number from forecasts order by 1, 2").fetchall()
    assert [tuple(row) for row in left] == [(1, 10), (2, 11)]
