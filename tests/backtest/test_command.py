"""`indexer backtest` from files to page, and what it refuses."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from tests.backtest.files import vaults, walks, write_ilk, write_prices

pytestmark = pytest.mark.slow

DAYS = 215


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    closes = walks(DAYS * 24)
    write_prices(folder, closes)
    write_ilk(folder, vaults(closes["ETH"], count=120))
    return folder


def run(*arguments: str | Path) -> str:
    result = CliRunner().invoke(main, ["backtest", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return result.stdout


def section(found: dict[str, Any], title: str) -> list[dict[str, Any]]:
    (one,) = (section for section in found["sections"] if section["title"] == title)
    return list(one["rows"])


def test_from_files_to_a_page_that_says_first_what_is_not_proven(data: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    out = run("--data", data, "--paths", "100", "--html", page, "--format", "json")
    found = json.loads(out)
    titles = [section["title"] for section in found["sections"]]
    assert titles[:3] == ["What is not proven", "What is shown", "Scores"]
    verdicts = {row["verdict"] for row in found["sections"][0]["rows"]}
    assert verdicts <= {"not proven", "contradicted"}
    assert {row["verdict"] for row in found["sections"][1]["rows"]} == {"shown"}
    scores = found["sections"][2]["rows"]
    assert {row["sample"] for row in scores} >= {"ETH-B left alone", "invented positions"}
    model = [row for row in scores if row["forecast"] == "model" and row["sample"] == "ETH-B left alone"]
    assert [(row["every_h"], row["horizon_h"]) for row in model] == [(e, h) for e in (24, 4) for h in (4, 24, 168)]
    assert all(row["log_loss_low"] <= row["log_loss"] <= row["log_loss_high"] for row in model)
    text = page.read_text()
    assert text.index("What is not proven") < text.index("What is shown") < text.index("Reliability")
    assert text.count("<svg") >= 3
    assert "://" not in re.sub(r'xmlns="[^"]*"', "", text)
    assert run("--data", data, "--paths", "100", "--format", "json") == out


def test_a_shorter_time_holds_fewer_decisions_with_the_same_forecasts(data: Path) -> None:
    """The generator is seeded by the time of the decision, so a forecast does not depend on where a run begins."""
    whole = json.loads(run("--data", data, "--paths", "100", "--until", "2022-07-22", "--format", "json"))
    part = json.loads(
        run("--data", data, "--paths", "100", "--from", "2022-07-15", "--until", "2022-07-22", "--format", "json")
    )
    ours, theirs = (
        [row for row in section(found, "Prices alone") if row["forecast"] == "model" and row["symbol"] == "ETH"]
        for found in (whole, part)
    )
    assert ours[0]["times"] > theirs[0]["times"] == 7
    assert theirs[0]["first"] == "2022-07-15"


@pytest.mark.parametrize("name", ["page.md", "page.txt", "page.csv", "page.json", "page.html"])
def test_the_ending_chooses_the_form(data: Path, tmp_path: Path, name: str) -> None:
    run("--data", data, "--paths", "100", "--from", "2022-07-15", "--until", "2022-07-18", "--output", tmp_path / name)
    assert "What is not proven" in (tmp_path / name).read_text()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--step", "0h"], "is no step"),
        (["--step", "8d"], "is no step"),
        (["--step", "day"], "is no step"),
        (["--paths", "99"], "--paths"),
        (["--from", "7d"], "is no date"),
        (["--from", "2022-09-01", "--until", "2022-09-01"], "--from must lie before --until"),
        (["--seed", "-1"], "--seed"),
    ],
)
def test_what_cannot_be_asked_is_refused(data: Path, arguments: list[str], told: str) -> None:
    result = CliRunner().invoke(main, ["backtest", "--data", str(data), *arguments])
    assert result.exit_code == 2
    assert told in result.stderr
