"""Price rules: what they are, when they tell, and that they are judged with what the oracles answer."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from indexer.alert.prices import PriceRule, decide, parse
from indexer.alert.rules import Event, State, below, drop
from indexer.alert.tables import open_crossings
from indexer.alert.watches import Watch
from indexer.cli.main import main
from indexer.model import WAD
from indexer.store.database import open_readonly
from tests.alert.test_watch import outbox, watch, watching
from tests.devnet.node import CHAIN_ID
from tests.devnet.worlds import together
from tests.truth import raw

MARGIN = 2 * WAD // 100


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Any]]:
    """An oracle that counts in USD and one that counts in ETH."""
    with together(("aave-3.6", "aave-v2"), seed=1, users=12) as found:
        yield found


@pytest.fixture
def undone(markets: list[Any]) -> Iterator[list[Any]]:
    with markets[0].rewound():
        yield markets


def tell(rule: PriceRule, path: Sequence[float | None]) -> list[tuple[int, Event]]:
    state, told = State(), []
    for place, price in enumerate(path):
        state, event = decide(rule, state, [] if price is None else [int(price * WAD)], MARGIN)
        told += [] if event is None else [(place, event)]
    return told


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("ETH<2000", "ETH<2000"),
        (" weth < 2,000.50 USD", "ETH<2000.5"),
        ("wbtc>$150_000", "WBTC>150000"),
        ("0x" + "AB" * 20 + "<1", "0x" + "ab" * 20 + "<1"),
        ("DAI<0.985", "DAI<0.985"),
    ],
)
def test_a_rule_is_written_in_one_way(text: str, rule: str) -> None:
    assert str(parse(text)) == rule
    assert parse(rule) == parse(text)


@pytest.mark.parametrize(
    "text", ["ETH", "ETH<", "<2000", "ETH<0", "ETH<-1", "ETH=2000", "ETH<2000<3", "ETH<1e400", "0x12<5", "E\x1bTH<5", "ETH<two"]
)  # fmt: skip
def test_anything_else_is_no_rule(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_crossing_is_told_once_until_the_price_is_back_beyond_the_margin() -> None:
    fall = [2100, 2000, 1999.99, 1990, 2001, 1995, 2040, 2041, 1999]
    assert tell(parse("ETH<2000"), fall) == [(2, Event.CROSSED), (7, Event.RECOVERED), (8, Event.CROSSED)]
    rise = [2000, 2000.01, 1999, 1961, 1960, 1959, 2001]
    assert tell(parse("ETH>2000"), rise) == [(1, Event.CROSSED), (5, Event.RECOVERED), (6, Event.CROSSED)]


def test_an_unknown_price_decides_nothing() -> None:
    assert tell(parse("ETH<2000"), [None, 1900, None, 1900, None, 2100]) == [(1, Event.CROSSED), (5, Event.RECOVERED)]


def test_the_lowest_of_several_prices_decides_a_fall_and_the_highest_a_rise() -> None:
    apart = [1990 * WAD, 2100 * WAD]
    assert decide(parse("ETH<2000"), State(), apart, MARGIN)[1] is Event.CROSSED
    assert decide(parse("ETH>2050"), State(), apart, MARGIN)[1] is Event.CROSSED
    assert decide(parse("ETH<2000"), State(armed=False, open=True), apart, MARGIN)[1] is None


@given(st.lists(st.one_of(st.none(), st.integers(1, 300)), max_size=30), st.integers(10, 250), st.booleans())
def test_events_take_turns_and_none_is_missed(path: list[int | None], threshold: int, falls: bool) -> None:
    rule = PriceRule("ETH", falls, threshold * WAD)
    told = tell(rule, path)
    assert [event for _, event in told] == [Event.CROSSED, Event.RECOVERED] * (len(told) // 2) + [Event.CROSSED] * (
        len(told) % 2
    )
    crossed = [
        i for i, price in enumerate(path) if price is not None and (price < threshold if falls else price > threshold)
    ]
    if crossed:
        assert told[0] == (crossed[0], Event.CROSSED)


def test_rules_are_judged_with_what_the_oracles_answer(undone: list[Any], tmp_path: Path, monkeypatch: Any) -> None:
    """V3 says WETH in USD; V2 says USDC in ETH, whose inverse is ETH in USD: the lowest of both decides."""
    three, two = undone
    path = tmp_path / "watched.db"
    monkeypatch.chdir(tmp_path)
    added = CliRunner().invoke(
        main, ["--db", "watched.db", "watch", "add", "--price", "ETH<1500", "--price", "LINK>1000"]
    )
    assert added.exit_code == 0, added.output
    start = three.price("WETH")
    blocks = []
    walk = [(1.0, 2000), (1.0, 1499), (1.0, 1520), (1.0, 1600), (1499 * 10**8 / start, 1600), (1.0, 1600)]
    with watching(path, three.node.url, undone) as sync:
        for factor, ether in walk:
            three.set_price("WETH", int(start * factor))
            two.set_price("USDC", WAD // ether)
            sync.snapshot()
            blocks.append(three.node.block_number())
    told = [(b["rule"], b["event"], blocks.index(b["block_number"]), b["deployment"]) for b in outbox(path)]
    assert told == [
        ("ETH<1500", "crossed", 1, two.name),
        ("ETH<1500", "recovered", 3, two.name),
        ("ETH<1500", "crossed", 4, three.name),
        ("ETH<1500", "recovered", 5, two.name),
    ]
    first = outbox(path)[0]
    assert first["price_usd"] == pytest.approx(1499, rel=1e-9)
    assert first["price_before_usd"] == pytest.approx(2000, rel=1e-9)
    assert "WETH at 1,499.00 USD, was 2,000.00 USD; below 1,500 USD" in first["text"]
    assert f"others say: {three.name} " in first["text"]
    assert {q["deployment"] for q in first["prices"]} == {two.name, three.name}
    assert [b["crossing"] for b in outbox(path)] == [1, 1, 2, 2]
    assert raw(path, "select kind, wallet, deployment, account from alerts limit 1") == [("price", None, None, None)]
    with closing(open_readonly(path)) as conn:
        assert open_crossings(conn, CHAIN_ID) == 0


def test_a_snapshot_that_is_not_committed_tells_nothing_and_the_next_one_does(
    undone: list[Any], tmp_path: Path
) -> None:
    three, path = undone[0], tmp_path / "watched.db"
    with watching(path, three.node.url, [three]) as sync:
        assert CliRunner().invoke(main, ["--db", str(path), "watch", "add", "--price", "ETH<1500"]).exit_code == 0
        sync.snapshot()
        three.set_price("WETH", 1400 * 10**8)

        def fail(*_: Any) -> None:
            raise RuntimeError("killed before the commit")

        sync.committer.riders.append(fail)
        with pytest.raises(RuntimeError):
            sync.snapshot()
        sync.committer.riders.pop()
        assert outbox(path) == []
        sync.snapshot()
        sync.snapshot()
    assert [(b["rule"], b["event"]) for b in outbox(path)] == [("ETH<1500", "crossed")]


def test_a_rule_of_nothing_is_refused_where_markets_are_known(undone: list[Any], tmp_path: Path) -> None:
    three, path = undone[0], tmp_path / "watched.db"
    with watching(path, three.node.url, [three]) as sync:
        sync.snapshot()
    program = ["--db", str(path), "watch"]
    refused = CliRunner().invoke(main, [*program, "add", "--price", "LINK>9", "--price", "LINNK<9"])
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "no synced market has LINNK; did you mean 'link'?" in refused.stderr
    assert json.loads(CliRunner().invoke(main, [*program, "list", "--prices", "--json"]).stdout) == []
    assert CliRunner().invoke(main, [*program, "add", "--price", "LINK>9"]).exit_code == 0
    with watching(path, three.node.url, [three]) as sync:
        three.node.mine(1)
        sync.snapshot()
    (row,) = json.loads(CliRunner().invoke(main, [*program, "list", "--prices", "--json"]).stdout)
    (stored,) = raw(path, "select price_usd from markets where symbol = 'LINK'")
    assert (row["rule"], row["price_usd"], row["open"]) == ("LINK>9", stored[0], int(stored[0] > 9))
    assert CliRunner().invoke(main, [*program, "remove", "link > 9"]).exit_code == 0
    assert CliRunner().invoke(main, [*program, "remove", "link > 9"]).exit_code == 1
    assert raw(path, "select * from price_states") == []


def test_a_fall_names_the_high_it_fell_from(undone: list[Any], tmp_path: Path) -> None:
    three, path = undone[0], tmp_path / "watched.db"
    user, symbol, health = fragile(three)
    watch(path, Watch(user, None, None, (drop("2%"), below(0.01))))
    price = three.price(symbol)
    with watching(path, three.node.url, [three]) as sync:
        sync.snapshot()
        highs = [three.answer(user)[5]]
        three.set_price(symbol, price * 120 // 100)
        sync.snapshot()
        highs.append(three.answer(user)[5])
        three.set_price(symbol, price * 90 // 100)
        sync.snapshot()
        now = three.answer(user)[5]
    (body,) = [b for b in outbox(path) if b["rule"] == "drop 2%" and b["event"] == "crossed"]
    assert body["fell_from_health_factor_raw"] == str(max(highs))
    high = f"{max(highs) * 10_000 // WAD / 10_000:.4f}"
    assert f"fell {100 * (max(highs) - now) / max(highs):.3g} % from {high}" in body["text"]
    assert health == highs[0]


def fragile(market: Any) -> tuple[str, str, int]:
    """A borrower, an asset whose price moves the health factor as it moves itself, and the health factor."""
    for user in sorted(market.borrowers):
        health = market.answer(user)[5]
        for symbol in market.reserves if 10**18 < health < 10**20 else ():
            with market.rewound():
                market.move_price(symbol, 0.8)
                fallen = market.answer(user)[5]
            if fallen * 100 < health * 90:
                return user, symbol, health
    raise AssertionError("no price moves anybody")
