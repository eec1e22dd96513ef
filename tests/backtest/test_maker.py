"""A Maker book rebuilt and forecast: what is known when, and what the events of a folder make of it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from indexer.backtest import barriers, evidence, maker, mixed, series, vaults
from indexer.errors import ConfigError
from indexer.progress import NoProgress
from tests.backtest.files import BEGIN, DAY, HOUR, walks, when, write_ilk, write_prices
from tests.backtest.files import vaults as opened

HOURS = 260 * 24
#: the hour from which the planted prices differ
CUT = BEGIN + 200 * DAY


def run(folder: Path, closes: dict[str, np.ndarray], rows: dict[str, Any]) -> maker.Run:
    write_prices(folder, closes)
    path = write_ilk(folder, rows)
    prices = series.load_all(folder / "prices")["ETH"]
    happened = vaults.events(path)
    times = np.arange(BEGIN + 40 * DAY, BEGIN + 250 * DAY, 12 * HOUR)
    return maker.run(path, prices, happened, times, 12, 0, 100)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], dict[str, Any], maker.Run]:
    closes = walks(HOURS)
    rows = opened(closes["ETH"])
    return closes, rows, run(tmp_path_factory.mktemp("whole"), closes, rows)


@pytest.mark.slow
def test_planted_future_prices_and_events_change_no_forecast(whole: Any, tmp_path: Path) -> None:
    """Every price after a moment is halved and every vault emptied after it: forecasts up to it are the same digits."""
    closes, rows, before = whole
    halved = {name: prices.copy() for name, prices in closes.items()}
    for prices in halved.values():
        prices[(CUT - BEGIN) // HOUR :] /= 2  # the close of the hour that begins at the cut is known an hour later
    emptied = rows | {"withdrawals": [(CUT + 1, vault, -0.5 * ink) for at, vault, ink in rows["deposits"] if at < CUT]}
    emptied = {kind: [*emptied[kind]] for kind in emptied}
    after = run(tmp_path, halved, emptied)
    past = before.book.times <= CUT
    counts = before.counted[past]
    assert counts.sum() > 500
    assert np.array_equal(before.p[:, past][:, counts], after.p[:, past][:, counts])
    assert np.array_equal(before.counted[past], after.counted[past])
    for one, other in zip(maker.left_alone(before, 12), maker.left_alone(after, 12), strict=True):
        for name, values in one.baselines.items():
            assert np.array_equal(values[one.times <= CUT], other.baselines[name][other.times <= CUT]), name
    assert not np.array_equal(before.p[:, ~past], after.p[:, ~past])


@pytest.mark.slow
def test_planted_future_prices_change_nothing_of_prices_alone_and_of_invented_positions(tmp_path: Path) -> None:
    closes = walks(HOURS)
    halved = {
        name: np.where(np.arange(HOURS) >= (CUT - BEGIN) // HOUR, prices / 2, prices) for name, prices in closes.items()
    }
    times = np.arange(CUT - 14 * DAY, CUT - 7 * DAY + 1, DAY)
    found = []
    for number, prices in enumerate((closes, halved)):
        loaded = series.load_all(write_prices(tmp_path / str(number), prices) / "prices")
        alone = barriers.judged("ETH", loaded["ETH"], times, 0, 100)
        found.append((alone, mixed.samples(loaded, times, 24, 0, 100, lambda _: None)))
    assert repr(found[0][0]) == repr(found[1][0])
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert np.array_equal(one.p, other.p)
        assert np.array_equal(one.y, other.y)


@pytest.mark.slow
def test_labels_are_prices_in_force_an_hour_after_they_are_known(whole: Any) -> None:
    """Each label again, hour by hour, from the closes themselves."""
    closes, _, found = whole
    rng = np.random.default_rng(0)
    for sample in maker.left_alone(found, 12):
        events = np.flatnonzero(sample.y)
        for i in [*rng.choice(events, 20), *rng.integers(0, len(sample.y), 40)]:
            known = int(sample.times[i] - BEGIN) // HOUR - 1  # the candle that ended at the decision
            lowest = closes["ETH"][known : known + sample.horizon].min()
            assert sample.y[i] == (sample.health[i] * lowest / closes["ETH"][known] < 1)


def test_a_known_price_that_only_waits_is_certain(whole: Any) -> None:
    """A vault that is safe at the price in force and unsafe at the next one is unsafe an hour later, whatever comes."""
    for sample in maker.left_alone(whole[2], 12):
        waiting = sample.health < 1
        assert waiting.any()
        assert sample.y[waiting].all()
        assert (sample.p[waiting] == 1).all()


@pytest.mark.slow
def test_a_run_that_begins_later_calibrates_on_what_was_before_it_too(tmp_path: Path) -> None:
    closes = walks(150 * 24)
    write_prices(tmp_path, closes)
    path = write_ilk(tmp_path, opened(closes["ETH"]))
    prices, happened = series.load_all(tmp_path / "prices")["ETH"], vaults.events(path)
    times = maker.decisions(happened, prices, None, None, 12)
    later = times[times >= BEGIN + 90 * DAY]
    whole, part = (maker.run(path, prices, happened, these, 12, 0, 100) for these in (times, later))
    assert whole.before is None
    for all_, rest in zip(maker.left_alone(whole, 12), maker.left_alone(part, 12), strict=True):
        assert rest.before is not None
        assert 0 < len(rest.y) < len(all_.y)
        for name in ("times", "health", "y"):
            joined = np.concatenate([getattr(rest.before, name), getattr(rest, name)])
            assert np.array_equal(joined, getattr(all_, name)), name
        assert np.array_equal(all_.p[-len(rest.p) :], rest.p)


def test_a_vault_counts_while_the_price_in_force_leaves_it_safe(whole: Any) -> None:
    closes, rows, found = whole
    ink = {vault: amount for _, vault, amount in rows["deposits"]}
    opened_at = {vault: at for at, vault, _ in rows["borrows"]}
    ended = {vault: at for at, vault, *_ in rows["liquidations"]}
    for row in range(len(found.book.times)):
        at = int(found.book.times[row])
        price = closes["ETH"][(at - BEGIN) // HOUR - 2]
        for column, vault in enumerate(found.book.vaults):
            if vault in opened_at:
                owed = 10_000 * 1.05 ** ((at - opened_at[vault]) / (365 * DAY))
                open_ = opened_at[vault] <= at < ended.get(vault, at + 1)
                assert found.counted[row, column] == (open_ and ink[vault] * price / 1.3 >= owed), (row, vault)


def test_the_rebuild_is_held_against_the_logs_of_liquidations(whole: Any) -> None:
    found = whole[2]
    assert found.rebuild.barks == found.rebuild.barks_same > 10
    assert found.oracle.first_liquidations > 0


def test_what_remains_of_whole_units_of_collateral_is_nothing(tmp_path: Path) -> None:
    at = BEGIN + DAY
    rows = {
        "creations": [(at, 1), (at, 2)],
        "deposits": [(at, 1, 10.4), (at, 2, 10.6)],
        "borrows": [(at, 1, 100.0), (at, 2, 100.0)],
        "liquidations": [(at + HOUR, 1, 10, 100.0), (at + HOUR, 2, 10, 50.0)],
    }
    path = write_ilk(tmp_path, rows)
    book = vaults.rebuilt(path, vaults.events(path), np.array([at, at + 2 * HOUR]))
    assert book.ink.tolist() == [[10.4, 10.6], [0.0, pytest.approx(0.6)]]
    assert book.debt[1] == pytest.approx([0.0, 50.0], abs=0.01)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("prices/ETHUSDT_1h.csv", "unix,open\n1,2\n", "has no column close"),
        ("prices/ETHUSDT_1h.csv", "unix,close\n3600,1\n3601,1\n", "line 3: unix must be the full hour"),
        ("prices/ETHUSDT_1h.csv", "unix,close\n3600,0\n", "line 2: unix must be the full hour"),
        ("prices/ETHUSDT_1h.csv", "unix,close\n3600,nan\n", "line 2"),
        ("prices/ETHUSDT_1h.csv", "unix,close\n", "has no prices"),
        ("prices/other.csv", "", "has no prices: files are called"),
        ("maker_ethb/ethb_borrows.csv", "A\n1\n", "has no column BLOCK_NUMBER"),
        ("maker_ethb/ethb_borrows.csv", f"BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,DAI_MINTED\n1,{when(BEGIN)},1,x\n", "'x' is no"),
        ("maker_ethb/ethb_borrows.csv", "BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,DAI_MINTED\n1,yesterday,1,1\n", "'yesterday' is no"),
        ("maker_ethb/ethb_borrows.csv", f"BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,DAI_MINTED\nb,{when(BEGIN)},1,1\n", "'b' is no"),
        ("maker_ethb/ETHB-Parameter-Changes.csv", "TIMESTAMP,PARAMETER,TO_VALUE\n", "JUG.ilks.duty"),
        ("maker_ethb/more_borrows.csv", "", "must have one file"),
    ],
)  # fmt: skip
def test_files_that_are_wrong_are_named(tmp_path: Path, name: str, text: str, told: str) -> None:
    closes = walks(60 * 24)
    if name != "prices/other.csv":
        write_prices(tmp_path, {"BTC": closes["BTC"]} if name.startswith("prices") else closes)
    write_ilk(tmp_path, opened(closes["ETH"], count=3))
    (tmp_path / "prices").mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=told):
        evidence.of_files(tmp_path, evidence.Settings(None, None, 24, 0, 100), NoProgress())


def test_an_ilk_without_prices_of_its_collateral_says_which_file_is_missing(tmp_path: Path) -> None:
    closes = walks(60 * 24)
    write_prices(tmp_path, {"BTC": closes["BTC"]})
    write_ilk(tmp_path, opened(closes["ETH"], count=3))
    with pytest.raises(ConfigError, match=r"add ETHUSDT_1h\.csv"):
        evidence.of_files(tmp_path, evidence.Settings(None, None, 24, 0, 100), NoProgress())
