"""The backtest on recorded data: every vault of Maker's ETH-B up to August 2022 and hourly prices up to 2024.

What is expected was measured apart from this code, with other prototypes on the same data: counts, baselines, and the bounds
that the model must reach. The short form makes few paths once a day; the long one is the whole table.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from indexer.backtest import evidence, maker, series, vaults
from indexer.backtest.barriers import Barrier
from indexer.backtest.evidence import ENOUGH, Evidence, Settings, bound
from indexer.backtest.leads import Lead
from indexer.backtest.sample import Judged, Score, judged
from indexer.progress import NoProgress

SHARED = Path(__file__).parents[3] / "shared" / "foresight"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="no recorded prices and vaults at ../shared/foresight"),
]


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.fixture(scope="module")
def daily() -> dict[int, Judged]:
    """Horizon -> ETH-B left alone, once a day, with 200 paths."""
    folder = SHARED / "maker_ethb"
    happened, prices = vaults.events(folder), series.load(SHARED / "prices" / "ETHUSDT_1h.csv.gz")
    times = maker.decisions(happened, prices, None, at("2022-09-01"), 24)
    found = maker.run(folder, prices, happened, times, 24, 0, 200)
    assert (found.rebuild.barks, found.rebuild.bites) == (59, 16)
    assert found.rebuild.barks_same >= 54
    assert found.rebuild.bites_same >= 15
    assert found.oracle.first_liquidations == 85
    assert found.oracle.below[1] >= 0.97
    assert found.oracle.below[0] == pytest.approx(0.87, abs=0.015)  # one of 85 is 0.012
    assert found.oracle.below[2] == pytest.approx(0.54, abs=0.015)
    return {one.horizon: judged(one) for one in maker.left_alone(found, 24)}


def test_the_vault_days_are_those_that_were_counted(daily: dict[int, Judged]) -> None:
    assert {h: (len(one.sample.y), int(one.sample.y.sum())) for h, one in daily.items()} == {
        4: (66_869, 233),
        24: (66_869, 872),
        168: (66_869, 3_491),
    }
    assert daily[24].blocks == 24


def test_the_baselines_are_those_that_were_measured(daily: dict[int, Judged]) -> None:
    for horizon, static, ewma in ((4, 0.0091, 0.0076), (24, 0.0347, 0.0284), (168, 0.1255, 0.1358)):
        assert score(daily[horizon], "static").log_loss.value == pytest.approx(static, abs=5.1e-5)
        assert score(daily[horizon], "EWMA").log_loss.value == pytest.approx(ewma, abs=5.1e-5)
    assert score(daily[24], "HF isotonic").log_loss.value == pytest.approx(0.0341, abs=5e-4)


def test_few_paths_once_a_day_are_already_better_than_static(daily: dict[int, Judged]) -> None:
    assert score(daily[24], "model").log_loss.value <= 0.0300
    assert below(score(daily[24], "static"))
    assert score(daily[24], "model").auc.value >= 0.97


# the whole table ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Evidence:
    return evidence.of_files(SHARED, Settings(None, at("2024-12-20"), 24, 0, 2_000), NoProgress())


def score(one: Judged, name: str) -> Score:
    return next(score for score in one.scores if score.forecast == name)


def below(one: Score) -> bool:
    """Whether the model's whole interval lies below this baseline."""
    return one.difference is not None and one.difference.below_zero is True


def mean(one: Score) -> float:
    assert one.difference is not None
    assert one.difference.value is not None
    return one.difference.value


def of(found: Evidence, name: str, every: int, horizon: int) -> Judged:
    (one,) = (j for j in found.samples if (j.sample.name, j.sample.every, j.sample.horizon) == (name, every, horizon))
    return one


@pytest.mark.long
@pytest.mark.parametrize(
    ("every", "horizon", "log_loss", "brier", "auc", "beaten", "beaten_in_the_mean"),
    [
        (24, 24, 0.0285, 0.0082, 0.983, ["static", "HF isotonic"], {"EWMA": 0.0}),
        (4, 24, 0.0280, 0.0080, 0.985, ["static", "HF isotonic"], {"EWMA": -0.001}),
        (24, 4, 0.0073, 1.0, 0.0, ["static", "EWMA"], {}),
        (4, 4, 0.0060, 1.0, 0.0, ["static", "EWMA", "HF isotonic"], {}),
        (24, 168, 0.124, 1.0, 0.0, [], {"static": 0.0, "EWMA": 0.0, "HF isotonic": 0.0}),
    ],
)
def test_vaults_left_alone(
    whole: Evidence, every: int, horizon: int, log_loss: float, brier: float, auc: float, beaten: list[str],
    beaten_in_the_mean: dict[str, float],
) -> None:  # fmt: skip
    one = of(whole, "ETH-B left alone", every, horizon)
    model = score(one, "model")
    assert model.log_loss.value <= log_loss
    assert model.brier.value <= brier
    assert model.auc.value >= auc
    assert [name for name in beaten if not below(score(one, name))] == []
    assert [name for name, limit in beaten_in_the_mean.items() if mean(score(one, name)) >= limit] == []


@pytest.mark.long
@pytest.mark.parametrize(("every", "observations", "events"), [(24, 66_869, 872), (4, 401_433, 5_232)])
def test_what_is_forecast_comes_as_often(whole: Evidence, every: int, observations: int, events: int) -> None:
    one = of(whole, "ETH-B left alone", every, 24)
    assert (len(one.sample.y), int(one.sample.y.sum())) == (observations, events)
    assert [
        (bin_.low, bin_.probability, bin_.frequency.value)
        for bin_ in one.bins
        if bin_.observations >= ENOUGH
        and abs(bin_.frequency.value - bin_.probability) > bound(bin_.probability, often=every <= 4)
    ] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("rule", "median", "shares", "proven"),
    [(1.1, 14.0, {12: 0.60, 24: 0.35}, ["median", 12, 24]), (1.05, 4.5, {4: 0.62}, [4, 12])],
)
def test_it_warns_earlier_at_the_same_load(
    whole: Evidence, rule: float, median: float, shares: dict[int, float], proven: Sequence[int | str]
) -> None:
    found: dict[str, Lead] = {lead.alarm: lead for _, lead in whole.leads if lead.rule == rule}
    model, difference = found["model"], found["model minus rule"]
    assert model.episodes == 85
    assert model.median.value >= median
    assert {hours for hours, least in shares.items() if model.warned[hours].value < least} == set()
    statistics = {"median": difference.median, **difference.warned}
    assert [name for name in proven if not statistics[name].above_zero] == []
    assert difference.median.value > 0


@pytest.mark.long
def test_calibrated_on_older_liquidations_it_is_better_than_the_health_factor(whole: Evidence) -> None:
    one = of(whole, "ETH-B liquidated", 24, 24)
    assert score(one, "model").events == 57
    assert below(score(one, "HF isotonic"))


@pytest.mark.long
def test_prices_of_ether_alone(whole: Evidence) -> None:
    found = {one.horizon: one for one in whole.barriers if one.symbol == "ETH"}
    assert found[24].times == 1_522
    assert {h: found[h].model.value <= limit for h, limit in ((4, 0.126), (24, 0.291), (168, 0.465))} == dict.fromkeys(
        (4, 24, 168), True
    )
    assert max(one.gap for one in found.values()) <= 0.03
    for horizon, static, ewma in ((4, 0.1609, 0.1372), (24, 0.3313, 0.3042), (168, 0.4892, 0.4842)):
        assert found[horizon].baselines["static"].value == pytest.approx(static, abs=5.1e-5)
        assert found[horizon].baselines["EWMA"].value == pytest.approx(ewma, abs=5.1e-5)


@pytest.mark.long
@pytest.mark.parametrize("symbol", ["BTC", "LINK", "AAVE", "CRV"])
def test_prices_of_others_alone(whole: Evidence, symbol: str) -> None:
    found: dict[int, Barrier] = {one.horizon: one for one in whole.barriers if one.symbol == symbol}
    for horizon in (4, 24):
        assert all(found[horizon].differences[name].below_zero for name in ("static", "EWMA")), horizon
        assert found[horizon].gap <= 0.035
    assert all(found[168].differences[name].value < 0 for name in ("static", "EWMA"))
    assert found[168].gap <= 0.035
    assert found[24].differences["EWMA hourly"].value < 0


@pytest.mark.long
def test_invented_positions_under_real_joint_prices(whole: Evidence) -> None:
    one = of(whole, "invented positions", 24, 24)
    (recall,) = (a.recall.value for a in one.alarms if a.rule == 1.05 and a.forecast == "model")
    assert score(one, "model").auc.value >= 0.94
    assert recall >= 0.89
    assert below(score(one, "HF isotonic"))
    assert np.isfinite(one.sample.p).all()
