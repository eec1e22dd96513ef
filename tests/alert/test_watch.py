"""Watching: rules and their hysteresis, price paths on every protocol, reorgs, and a database of watched wallets alone."""

import json
import random
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from eth_abi.abi import encode
from eth_utils.address import to_checksum_address
from hypothesis import given
from hypothesis import strategies as st
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from indexer.alert.rules import (
    LIQUIDATABLE,
    UNKNOWN,
    Event,
    Reading,
    Rule,
    State,
    below,
    chance,
    decide,
    drop,
    in_order,
    parse,
)
from indexer.alert.watcher import Watcher
from indexer.alert.watches import Policy, Watch, add, open_crossings, watches
from indexer.chain import connect
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.delivery.channels import Channel
from indexer.jobs.watch import watch as watch_group
from indexer.jobs.watched import warn_of_moved_names
from indexer.model import WAD, Accounts, PositionKey, Status
from indexer.reads.multicall import PinnedReader
from indexer.report import outlook
from indexer.settings import Alerts, Settings
from indexer.snapshot.known import KnownDeployment, build
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.sync import Outcome, Sync
from indexer.terminal.options import Session
from indexer.units import scaled
from tests.devnet import compound_v2
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.worlds import every_protocol, rewound
from tests.disturbed import Forks
from tests.faulty import FaultyNode
from tests.tiny_contracts import EOA
from tests.truth import adapter_of, named_in_logs, raw, rows_of, sync_once, wrong_rows

ROOT = Path(__file__).parents[2]
TWO_PERCENT = WAD // 50
MARGIN = (51, 50)  # 1.02, as a fraction

Told = tuple[str, str]

# rules ------------------------------------------------------------------------------------------------------------------


def tell(rule: Rule, readings: Sequence[Reading], state: State | None = None) -> list[tuple[int, Event]]:
    """(place, event) of everything a rule tells on a path."""
    state, told = state or State(), []
    for place, reading in enumerate(readings):
        state, event = decide(rule, state, reading, TWO_PERCENT)
        if event is not None:
            told.append((place, event))
    return told


def at(*values: float | None) -> list[Reading]:
    """Verified readings; None is a position without debt."""
    return [Reading(None, Status.NO_DEBT, 0) if v is None else Reading(scaled(v), Status.HEALTHY, 1) for v in values]


def chances(*percents: float | None) -> list[Reading]:
    """Healthy readings with a chance within a day, in per cent; None where none was asked."""
    return [
        Reading(2 * WAD, Status.HEALTHY, 1, {} if p is None else {86_400: scaled(p), 3_600: 99 * WAD}) for p in percents
    ]


def test_a_chance_tells_once_until_it_is_below_the_margin() -> None:
    path = chances(10, 19.99, 20, 50, None, 19.7, 25, 19.5, None, 20.1)
    assert tell(chance("20%/1d"), path) == [(2, Event.CROSSED), (7, Event.RECOVERED), (9, Event.CROSSED)]
    unknown = Reading(2 * WAD, Status.HEALTHY, 1, {86_400: None})
    assert tell(chance("20%/1d"), [*chances(30), unknown, unknown, Reading(None, Status.NO_DEBT, 0)]) == [
        (0, Event.CROSSED), (3, Event.RECOVERED)
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["20%/1d", "0.5%/12h", "99.9%/30d"])
def test_a_chance_is_written_as_it_is_read(text: str) -> None:
    assert parse(str(chance(text))) == chance(text)
    assert str(chance(text)) == f"chance {text}"


@pytest.mark.parametrize("text", ["20%", "0%/1d", "100%/1d", "20%/0h", "20%/31d", "20%/90m", "x/1d", "1.2.3%/1d", ""])
def test_what_is_no_chance_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no (chance|number)"):
        chance(text)


def test_below_tells_once_until_it_is_above_the_margin() -> None:
    path = at(1.3, 1.1, 1.0999, 1.05, 1.11, 1.09, 1.122, 1.09, 1.1221, 1.0999, None)
    assert tell(below("1.1"), path) == [
        (2, Event.CROSSED), (8, Event.RECOVERED), (9, Event.CROSSED), (10, Event.RECOVERED)
    ]  # fmt: skip


def test_below_compares_exact_integers() -> None:
    threshold = 11 * WAD // 10
    around = [Reading(threshold, Status.HEALTHY, 1), Reading(threshold - 1, Status.HEALTHY, 1)]
    assert tell(below(1.1), around) == [(1, Event.CROSSED)]
    margin = threshold * 51 // 50
    assert tell(
        below(1.1), [Reading(margin, Status.HEALTHY, 1), Reading(margin + 1, Status.HEALTHY, 1)], State(False, True)
    ) == [(1, Event.RECOVERED)]


def test_a_wallet_that_is_below_from_the_start_is_told() -> None:
    assert tell(below(1.1), at(1.0)) == [(0, Event.CROSSED)]


@pytest.mark.parametrize(("rule", "fall"), [(below(1.1), 1.0), (drop("10%"), 1.2)])
def test_a_recovery_is_told_once(rule: Rule, fall: float) -> None:
    assert tell(rule, at(2.0, fall, 2.0, 2.0, 2.5, None, None)) == [(1, Event.CROSSED), (2, Event.RECOVERED)]


def test_what_a_rule_remembers_is_whether_it_may_tell_and_what_waits() -> None:
    told, _ = decide(below(1.1), State(), at(1.0)[0], TWO_PERCENT)
    assert told == State(armed=False, open=True)
    assert decide(below(1.1), told, at(2.0)[0], TWO_PERCENT)[0] == State()
    # 90 % of 2e18 + 3 is 1.8e18 + 2.7, cut
    told, _ = decide(drop(10), State(reference=2 * WAD + 3), at(1.5)[0], TWO_PERCENT)
    assert told == State(open=True, reference=3 * WAD // 2, crossed=1_800_000_000_000_000_002)
    assert decide(drop(10), told, at(2.0)[0], TWO_PERCENT)[0] == State(reference=2 * WAD)


@pytest.mark.parametrize("text", ["0", "0%", "100", "-1%", "much"])
def test_no_fall_is_a_fall_of_nothing_or_of_everything(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no fall to watch for|is no number"):
        drop(text)


@pytest.mark.parametrize("text", ["0", "1000.000000000000000001", "-1", "much"])
def test_no_health_factor_is_a_threshold_of_nothing_or_beyond_a_thousand(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no health factor to watch for|is no number"):
        below(text)
    assert below("1000").threshold == 1000 * WAD


def test_the_least_number_is_a_threshold() -> None:
    assert (below("0.000000000000000001").threshold, drop("0.000000000000000001").threshold) == (1, 1)


def test_a_fall_is_measured_from_the_highest_since_the_last_alert() -> None:
    path = at(2.0, 1.9, 2.2, 1.99, 1.98, 1.85, 1.79, 1.78, 1.82, 1.9)
    assert tell(drop("10%"), path) == [(4, Event.CROSSED), (7, Event.CROSSED), (8, Event.RECOVERED)]


def test_a_health_factor_of_zero_falls_no_further() -> None:
    assert tell(drop("10%"), at(0.0, 0.0)) == []
    assert tell(drop("10%"), at(1.0, 0.0, 0.0)) == [(1, Event.CROSSED)]


def test_a_fall_begins_anew_behind_a_time_without_debt() -> None:
    assert tell(drop(10), at(5.0, None, 1.5, 1.4, 1.35)) == [(4, Event.CROSSED)]
    assert tell(drop(10), at(2.0, 1.0, None, 1.0)) == [(1, Event.CROSSED), (2, Event.RECOVERED)]


def test_unknown_is_told_once_and_never_counts_as_safe() -> None:
    blind, doubtful = Reading(None, Status.UNPRICEABLE, None), Reading(3 * WAD, Status.UNVERIFIED, 1)
    path = [*at(1.0), blind, doubtful, doubtful, *at(1.0), *at(1.5)]
    assert tell(UNKNOWN, path) == [(1, Event.CROSSED), (4, Event.RECOVERED)]
    assert tell(below(1.1), path) == [(0, Event.CROSSED), (4, Event.CROSSED), (5, Event.RECOVERED)]
    assert tell(UNKNOWN, [Reading(None, Status.UNVERIFIED, 0)]) == []
    # once it told, a rule is not armed and waits for the end
    assert decide(UNKNOWN, State(), blind, TWO_PERCENT) == (State(armed=False, open=True), Event.CROSSED)


def test_the_contracts_verdict_is_told_whatever_the_health_factor() -> None:
    deprecated, doubtful = Reading(2 * WAD, Status.LIQUIDATABLE, 1), Reading(2 * WAD, Status.UNVERIFIED, 1)
    path = [*at(2.0), deprecated, deprecated, doubtful, *at(2.0), deprecated, *at(None)]
    assert tell(LIQUIDATABLE, path) == [
        (1, Event.CROSSED), (4, Event.RECOVERED), (5, Event.CROSSED), (6, Event.RECOVERED)
    ]  # fmt: skip
    assert tell(below(1.1), path) == []
    assert decide(LIQUIDATABLE, State(), deprecated, TWO_PERCENT) == (State(armed=False, open=True), Event.CROSSED)


def test_the_verdict_is_told_after_what_is_unknown_and_before_every_number() -> None:
    rules = [below(1.1), drop(10), LIQUIDATABLE, below(1.2), UNKNOWN]
    assert in_order(rules) == [UNKNOWN, LIQUIDATABLE, drop(10), below(1.2), below(1.1)]


healths = st.one_of(st.none(), st.integers(0, 3 * WAD))
statuses = st.sampled_from(["healthy", "healthy", "unverified"])


@given(st.lists(st.tuples(healths, statuses), max_size=30), st.integers(1, 2 * WAD))
def test_below_never_repeats_itself_and_never_misses(path: list[tuple[int | None, str]], threshold: int) -> None:
    readings = [Reading(h, Status.NO_DEBT if h is None else s, 0 if h is None else 1) for h, s in path]
    rule = Rule(below(1).kind, threshold)
    told = dict(tell(rule, readings))
    quiet = False  # told, and not above the margin since
    for place, reading in enumerate(readings):
        health = reading.health_factor
        if health is not None and health < threshold:
            assert (told.get(place) is Event.CROSSED) == (not quiet)
            quiet = True
        elif health is None or health * MARGIN[1] > threshold * MARGIN[0]:
            assert told.get(place) is not Event.CROSSED
            quiet = False
        else:
            assert place not in told
        if told.get(place) is Event.RECOVERED:
            assert reading.trusted
            assert not quiet


@given(st.lists(st.integers(1, 3 * WAD), max_size=30), st.integers(1, 99))
def test_a_fall_is_told_only_where_it_is_one(path: list[int], percent: int) -> None:
    since: list[int] = []
    told = dict(tell(drop(percent), [Reading(h, Status.HEALTHY, 1) for h in path]))
    for place, health in enumerate(path):
        fell = bool(since) and health * 100 <= max(since) * (100 - percent)
        assert (told.get(place) is Event.CROSSED) == fell
        since = [health] if fell else [*since, health]


@pytest.mark.parametrize("text", ["below 1.1", "below 0.95", "drop 10%", "drop 2.5%", "unknown", "liquidatable"])
def test_a_rule_is_read_as_it_is_written(text: str) -> None:
    assert str(parse(text)) == text


# price paths on the contracts -----------------------------------------------------------------------------------------


class Nowhere(Channel):
    """A channel whose messages stay in the outbox."""

    key = place = "nowhere"

    def deliver(self, alert: Any, at_send: Any) -> None:
        raise AssertionError


@pytest.fixture(scope="module")
def markets(needs_node: None) -> Iterator[list[Any]]:
    with every_protocol(3, 12) as found:
        yield found


@pytest.fixture
def undone(markets: list[Devnet]) -> Iterator[list[Devnet]]:
    """All markets on one node; what a test does to them is undone."""
    with rewound(markets):
        yield markets


@dataclass
class Victim:
    """A position whose health hangs on one price: `symbol` as its devnet names it."""

    market: Devnet
    wallet: str
    key: PositionKey
    symbol: str
    health: int

    def move(self, factor: float, price: int) -> None:
        self.market.set_price(self.symbol, int(price * factor))


FOUND: dict[tuple[Any, ...], list[Victim]] = {}


def victims(markets: Sequence[Devnet], path: Path) -> list[Victim]:
    """One position of each market, chosen once a node, before a test changes anything; `path` is scratch."""
    places = (markets[0].node, *(market.name for market in markets))
    if places not in FOUND:
        FOUND[places] = chosen(markets, path)
    return FOUND[places]


def chosen(markets: Sequence[Devnet], path: Path) -> list[Victim]:
    """Positions with a health factor between 1.05 and 5 and one dear collateral that is not also their debt."""
    sync_once(path, markets[0].node.url, markets, "borrowers")
    found = []
    for market in markets:
        for (account, group), row in sorted(rows_of(path, market.name).items()):
            health = int(row["health_factor_raw"] or 0)
            if not 105 * WAD // 100 < health < 5 * WAD:
                continue
            held = raw(path, f"select symbol, side, value_usd, is_collateral from balances where deployment = '{market.name}' and account = '{account}' and position_group = '{group}'")  # fmt: skip
            collateral = sorted((b for b in held if b[3] and b[2]), key=lambda b: -b[2])
            if not collateral or collateral[0][2] < 0.8 * sum(b[2] for b in collateral):
                continue
            symbol = group.split("-")[0] if group else collateral[0][0]
            if symbol in {"WETH", "USDC", "DAI"} or symbol in {b[0] for b in held if b[1] == "debt"}:
                continue
            names = getattr(market, "markets", {symbol: None}) if market.protocol == "compound-v2" else {symbol: None}
            symbol = symbol if symbol in names else next(n for n in names if n.endswith(symbol))
            found.append(Victim(market, row["wallet"], PositionKey(account, group), symbol, health))
            break
    assert [v.market.protocol for v in found] == [m.protocol for m in markets]
    return found


@contextmanager
def watching(path: Path, url: str, markets: Sequence[Devnet], **alerts: Any) -> Iterator[Sync]:
    """What `watch run` does, one snapshot at a time, with its alerts left in the outbox."""
    chain = Chain("devnet", CHAIN_ID, [url], MULTICALL3)
    with Store(path) as store, store.lock():
        sync = Sync(store, chain, [adapter_of(m) for m in markets], Accounts.WATCHED, Settings(behind_seconds=0.2))
        watcher = Watcher(chain.name, Policy.of(Alerts(**alerts)), [Nowhere()], "https://explorer.example/")
        sync.committer.planners.append(watcher.plan)
        yield sync
    chain.close()


def watch(path: Path, *watches: Watch) -> None:
    with Store(path) as store:
        add(store, watches)


def outbox(path: Path, account: str | None = None) -> list[dict[str, Any]]:
    bodies = [json.loads(body) for (body,) in raw(path, "select body from alerts order by number")]
    return [body for body in bodies if account in (None, body["account"])]


def contract_health(victim: Victim) -> int | None:
    """The contract's own answer now."""
    chain = Chain("devnet", CHAIN_ID, [victim.market.node.url], MULTICALL3)
    adapter, read = adapter_of(victim.market), PinnedReader(chain, chain.block("latest"))
    deployment = KnownDeployment(CHAIN_ID, adapter, wallets=lambda: [victim.wallet])
    build(deployment, read)
    (answer,) = adapter.contract_answers(read, deployment.market, [victim.key])
    chain.close()
    found = answer.columns["health_factor_raw"]
    return None if found is None else int(found)


def expected(path: Sequence[int | None], thresholds: Sequence[int]) -> list[tuple[str, str, int]]:
    """(event, threshold, place) that a path of health factors must be told by, in order."""
    crossed: set[int] = set()
    told = []
    for place, health in enumerate(path):
        ends = [t for t in sorted(crossed) if health is None or health * 50 > t * 51]
        begins = [t for t in sorted(thresholds, reverse=True) if health is not None and health < t and t not in crossed]
        crossed = (crossed - set(ends)) | set(begins)
        told += [("recovered", str(t), place) for t in ends] + [("crossed", str(t), place) for t in begins]
    return told


def test_price_paths_on_every_protocol_are_told_as_the_contracts_answer(undone: list[Devnet], tmp_path: Path) -> None:
    rng = random.Random(11)
    found = victims(undone, tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    for victim in found:
        rules = tuple(Rule(below(1).kind, victim.health * percent // 100) for percent in (97, 85, 70))
        watch(path, Watch(victim.wallet, f"the {victim.market.protocol} one", None, rules))
    prices = [victim.market.price(victim.symbol) for victim in found]
    walks: dict[PositionKey, list[int | None]] = {victim.key: [] for victim in found}
    node = undone[0].node
    with watching(path, node.url, undone) as sync:
        blocks = []
        for step in range(9):
            for victim, price in zip(found, prices, strict=True):
                if step:
                    victim.move(rng.choice([1.05, 1.0, 0.98, 0.965, 0.95, 0.86, 0.84, 0.72, 0.68]), price)
            sync.snapshot()
            blocks.append(node.block_number())
            for victim in found:
                walks[victim.key].append(contract_health(victim))
    for victim in found:
        thresholds = [victim.health * percent // 100 for percent in (97, 85, 70)]
        told = [
            (body["event"], str(scaled(body["threshold_health_factor"])), blocks.index(body["block_number"]))
            for body in outbox(path, victim.key.account)
            if body["position_group"] == victim.key.group and body["rule"].startswith("below")
        ]
        assert told == expected(walks[victim.key], thresholds), victim
        assert len(told) >= 2, victim
        for body in outbox(path, victim.key.account):
            place = blocks.index(body["block_number"])
            if (body["account"], body["position_group"]) == victim.key:
                assert body["health_factor_raw"] == str(walks[victim.key][place])
                assert place == 0 or body["health_factor_before_raw"] == str(walks[victim.key][place - 1])
    checked, wrong = wrong_rows(path, node, undone)
    assert checked >= len(found)
    assert wrong == []


def prices(path: Path, victim: Victim) -> dict[str, float]:
    """Asset -> USD of what a position holds or owes, as stored."""
    return dict(
        raw(
            path,
            "select asset, m.price_usd from markets m join balances b using (chain_id, deployment, asset) "
            f"where account = '{victim.key.account}' and b.position_group = '{victim.key.group}' "
            "and m.position_group in ('', b.position_group)",
        )
    )


def test_an_alert_says_what_a_person_needs(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, *(Watch(v.wallet, "mine", None, (Rule(below(1).kind, v.health * 95 // 100),)) for v in found))
    with watching(path, undone[0].node.url, undone, target=6.0) as sync:
        sync.snapshot()
        before = {victim.key: prices(path, victim) for victim in found}
        for victim in found:  # close to liquidation, where interest alone leads to it
            victim.move(min(0.9, 1.0005 * WAD / victim.health), victim.market.price(victim.symbol))
        block = sync.snapshot().block
    deployments = {market.name: adapter_of(market).deployment for market in undone}
    for victim in found:
        (body,) = [
            b
            for b in outbox(path, victim.key.account)
            if b["position_group"] == victim.key.group and b["rule"].startswith("below")
        ]
        row = rows_of(path, victim.market.name)[victim.key]
        assert (body["event"], body["label"], body["wallet"]) == ("crossed", "mine", victim.wallet)
        assert (body["health_factor_before_raw"], body["health_factor_raw"]) == (str(victim.health), row["health_factor_raw"])  # fmt: skip
        assert (body["debt_usd"], body["collateral_usd"]) == (row["debt_usd"], row["collateral_usd"])
        assert (body["block_number"], body["block_hash"]) == (block.number, block.hash)
        assert body["explorer_url"] == f"https://explorer.example/address/{victim.key.account}"
        after = prices(path, victim)
        moved = {
            c["asset"]: (c["price_before_usd"], c["price_usd"])
            for c in body["price_changes"]
            if c["change_percent"] < -5
        }
        assert moved == {a: (before[victim.key][a], p) for a, p in after.items() if p < before[victim.key][a] * 0.95}
        assert moved
        falls = [p for p in body["liquidation_prices"] if p["collateral"] and not p["debt"]]
        assert falls
        for price in falls:
            distance = (price["liquidation_price"] / price["price"] - 1) * 100
            assert distance == pytest.approx(price["distance_percent"], rel=1e-6, abs=1e-6)
        assert body["target_health_factor"] == "6"
        assert "add" in {remedy["act"] for remedy in body["to_target"]}
        with closing(open_readonly(path)) as conn:
            shown = outlook.stored(conn, deployments, [victim.wallet], 6 * WAD)
        told = shown[(CHAIN_ID, victim.market.name, *victim.key)]
        assert body["seconds_to_liquidation_by_interest"] == told["seconds_to_liquidation_by_interest"]
        for words in ("mine", body["explorer_url"], f"{block.number:,}", "liquidation if", "health factor of 6", "UTC"):
            assert words in body["text"], body["text"]


def test_a_deprecated_market_is_told_at_any_health_until_the_contract_says_no(needs_node: None, tmp_path: Path) -> None:
    with Anvil() as node:
        node.place_multicall3()
        market = compound_v2.deploy(node)
        market.populate(3, 12)
        debtor, factor = market.cast["deprecated-debtor"], 60 * WAD // 100
        market.set_collateral_factor("BAT", factor)
        assert not market.is_deprecated("BAT")
        path = tmp_path / "watched.db"
        watch(path, Watch(debtor, None, None, (below(0.1),)))
        with watching(path, node.url, [market]) as sync:
            sync.snapshot()
            assert outbox(path) == []
            market.deprecate("BAT")
            assert market.is_deprecated("BAT")
            sync.snapshot()
            sync.snapshot()
            (told,) = outbox(path)
            assert (told["rule"], told["event"], told["status"]) == ("liquidatable", "crossed", "liquidatable")
            assert int(told["health_factor_raw"]) > WAD
            assert told["title"].startswith("Liquidatable: ")
            assert "the contract allows liquidation now" in told["text"]
            with closing(open_readonly(path)) as conn:
                assert open_crossings(conn, CHAIN_ID) == 1
            market.set_collateral_factor("BAT", factor)
            sync.snapshot()
    assert [(b["rule"], b["event"]) for b in outbox(path)] == [
        ("liquidatable", "crossed"),
        ("liquidatable", "recovered"),
    ]


def test_a_missing_price_is_told_once_and_so_is_its_return(undone: list[Devnet], tmp_path: Path) -> None:
    market: Any = next(m for m in undone if m.protocol == "aave-v2")
    (victim,) = victims([market], tmp_path / "everyone.db")
    path, price = tmp_path / "watched.db", market.price(victim.symbol)
    watch(path, Watch(victim.wallet, None, None, (below(0.1),)))
    with watching(path, market.node.url, [market]) as sync:
        for raw_price in (price, 0, 0, price, price):
            market.set_price(victim.symbol, raw_price)
            sync.snapshot()
    assert [(b["rule"], b["event"], b["status"] == "unpriceable") for b in outbox(path)] == [
        ("unknown", "crossed", True), ("unknown", "recovered", False)
    ]  # fmt: skip


def test_a_reorg_neither_repeats_a_crossing_nor_leaves_it_open(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path, price = tmp_path / "watched.db", market.price(victim.symbol)
    watch(path, Watch(victim.wallet, None, None, (Rule(below(1).kind, victim.health * 95 // 100),)))
    forks = Forks([market], random.Random(1))
    with watching(path, market.node.url, [market]) as sync:
        sync.snapshot()
        forks.mark()
        victim.move(0.9, price)
        sync.snapshot()
        forks.go_back()  # the price falls on the new chain as well, in another block
        forks.other_blocks(2)
        victim.move(0.9, price)
        sync.snapshot()
        assert [b["event"] for b in outbox(path)] == ["crossed"]
        victim.move(1.0, price)
        sync.snapshot()
        forks.mark()
        victim.move(0.8, price)
        sync.snapshot()
        assert [b["event"] for b in outbox(path)] == ["crossed", "recovered", "crossed"]
        forks.take_back(3)  # and this time it does not
        sync.snapshot()
        sync.snapshot()
    forks.close()
    assert [(b["event"], b["crossing"]) for b in outbox(path)] == [
        ("crossed", 1), ("recovered", 1), ("crossed", 2), ("recovered", 2)
    ]  # fmt: skip
    assert len({b["id"] for b in outbox(path)}) == 4


def test_a_snapshot_that_is_not_committed_queues_nothing(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, Watch(victim.wallet, None, None, (below(900),)))

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with watching(path, market.node.url, [market]) as sync:
        sync.committer.riders.append(fail)
        with pytest.raises(KeyboardInterrupt):
            sync.snapshot()
        assert outbox(path) == []
        sync.committer.riders.pop()
        sync.snapshot()
    assert [b["event"] for b in outbox(path)] == ["crossed"]


def test_a_wallet_watched_again_counts_its_crossings_on(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    for _ in range(2):
        watch(path, Watch(victim.wallet, None, None, (below(900),)))
        with watching(path, market.node.url, [market]) as sync:
            sync.snapshot()
        assert CliRunner().invoke(main, ["--db", str(path), "watch", "remove", victim.wallet]).exit_code == 0
    assert [b["crossing"] for b in outbox(path)] == [1, 2]


# a database of watched wallets alone ----------------------------------------------------------------------------------


def test_watching_alone_asks_no_logs_and_as_much_each_block(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path, node = tmp_path / "watched.db", undone[0].node
    watch(path, *(Watch(v.wallet, None, None, ()) for v in found[-2:]))
    with FaultyNode(node.url) as proxy, watching(path, proxy.url, undone) as sync:
        first = sync.snapshot()
        for _ in range(2):  # until what is read at every block is known, and asked at once
            node.mine(1)
            sync.snapshot()
        outcomes: list[Outcome] = []
        for seed in range(6):
            for market in undone if seed % 2 else []:
                market.step(seed)
            node.mine(1)
            outcomes.append(sync.snapshot())
        assert proxy.calls["eth_getLogs"] == 0
    counts = [outcome.requests for outcome in outcomes]
    print(f"first snapshot: {first.requests} requests, then {counts} for {len(undone)} deployments")
    assert max(counts) - min(counts) <= 2  # hashes kept at growing distances come and go
    assert first.requests < 100
    wallets = {v.wallet for v in found[-2:]}
    assert {row[0] for row in raw(path, "select distinct wallet from positions")} == wallets
    assert wrong_rows(path, node, undone)[1] == []


def test_a_later_sync_fills_the_history_and_a_later_watch_keeps_it(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone, tmp_path / "everyone.db")
    path, node = tmp_path / "watched.db", undone[0].node
    watch(path, *(Watch(v.wallet, None, None, ()) for v in found))
    watch(path, *(Watch(user, None, None, ()) for user in undone[0].users))  # those who only supply are no borrowers
    with watching(path, node.url, undone) as sync:
        sync.snapshot()
    for market in undone:
        market.step(1)
    sync_once(path, node.url, undone, "borrowers")
    for market in undone:
        known, named = set(rows_of(path, market.name)), named_in_logs(market)
        assert named <= known
        assert known == named or market.protocol == "maker"  # unused vaults of the CdpManager are known there
        market.step(2)
    assert wrong_rows(path, node, undone)[1] == []
    before = {market.name: set(rows_of(path, market.name)) for market in undone}
    with watching(path, node.url, undone) as sync:
        sync.snapshot()
    assert {name for (name,) in raw(path, "select distinct accounts from deployments")} == {"borrowers"}
    for market in undone:
        assert before[market.name] <= set(rows_of(path, market.name))
        assert named_in_logs(market) <= set(rows_of(path, market.name))
    assert wrong_rows(path, node, undone)[1] == []


def test_positions_opened_and_given_while_watching_are_found(undone: list[Devnet], tmp_path: Path) -> None:
    market: Any = next(m for m in undone if m.protocol == "maker")
    path = tmp_path / "watched.db"
    person = "0x" + "ab" * 20
    watch(path, Watch(person, None, None, ()))
    with watching(path, market.node.url, [market]) as sync:
        assert sync.snapshot().positions == 0
        market.open_by_proxy("ETH-A", person, 20 * WAD, 1000 * WAD)
        assert sync.snapshot().positions == 1
    ((via, wallet),) = raw(path, "select owner_via, wallet from positions")
    assert (via, wallet) == ("cdp-manager+ds-proxy", person)
    assert wrong_rows(path, market.node, [market])[1] == []


# the commands ----------------------------------------------------------------------------------------------------------

ADDRESS = "0x47ac0fb4f2d84898e4d9e7b4dab3c24507a6d503"
Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run `indexer watch` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(connect, "Chain", lambda *a, **k: Chain(*a, **{**k, "attempts": 1}))
    return lambda *arguments: CliRunner().invoke(main, ["watch", *map(str, arguments)])


def one_line(result: Result, code: int) -> str:
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def listed(run: Run) -> dict[str, tuple[str | None, str]]:
    return {row["wallet"]: (row["label"], row["rules"]) for row in json.loads(run("list", "--json").stdout)}


@pytest.mark.parametrize("command", sorted(watch_group.commands))
def test_every_command_has_help_with_an_example(run: Run, command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert re.search(rf"Examples?:\n +indexer watch {command}", result.stdout)


def test_without_a_command_there_is_the_help(run: Run) -> None:
    result = run()
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Commands:" in result.stdout


@pytest.mark.parametrize("arguments", [["run"], ["check"], ["remove", ADDRESS]])
def test_an_empty_database_says_what_to_do(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    assert "watch add" in one_line(run(*arguments), 1)
    assert list(tmp_path.glob("*.db")) == []
    result = run("list", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, [])
    assert "watch add" in result.stderr


def test_add_list_and_remove(run: Run) -> None:
    assert run("add", to_checksum_address(ADDRESS), "--label", "treasury", "--below", "1.2", "--below", "1.05", "--drop", "10%").exit_code == 0  # fmt: skip
    assert run("add", EOA).exit_code == 0
    assert listed(run) == {ADDRESS: ("treasury", "drop 10%, below 1.2, below 1.05"), EOA: (None, "below 1.1")}
    assert run("add", ADDRESS, "--below", "1.3").exit_code == 0
    assert listed(run)[ADDRESS] == ("treasury", "below 1.3")
    assert run("remove", "treasury").exit_code == 0
    assert listed(run) == {EOA: (None, "below 1.1")}
    assert "not watched" in one_line(run("remove", ADDRESS), 1)


@pytest.mark.parametrize(
    "arguments",
    [
        ["0x1234"],
        [to_checksum_address(ADDRESS).replace("F", "f", 1)],
        [ADDRESS, "--below", "0"],
        [ADDRESS, "--below", "low"],
        [ADDRESS, "--below", "nan"],
        [ADDRESS, "--drop", "100%"],
        [ADDRESS, "--drop", "-5"],
        ["somebody"],
    ],
)
def test_wrong_input_is_one_line_and_changes_nothing(run: Run, tmp_path: Path, arguments: list[str]) -> None:
    one_line(run("add", *arguments), 2)
    assert list(tmp_path.glob("*.db")) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("wallets.txt", f"# mine\n{ADDRESS}\n\n{EOA}\n"),
        ("wallets.csv", f"label,wallet,below,drop\ntreasury,{ADDRESS},1.2 1.05,\n,{EOA},,5%\n"),
        ("wallets.json", json.dumps([{"wallet": ADDRESS, "label": "treasury", "below": [1.2, "1.05"]}, EOA])),
        ("wallets", json.dumps([ADDRESS, EOA])),
        ("excel.csv", f"\ufeffAddress\n{ADDRESS}\n{EOA}\n"),
        ("semicolons.csv", f"wallet;label;below\n{ADDRESS};treasury;1.2 1.05\n{EOA};;\n"),
        ("named.csv", f"sep=;\nwallet;label;below\n{ADDRESS};treasury;1.2 1.05\n{EOA};;\n"),
        ("pipes.txt", f"sep=|\nwallet|label|below\n{ADDRESS}|treasury|1.2 1.05\n{EOA}||\n"),
        ("tabs.tsv", f"wallet\tlabel\tbelow\n{ADDRESS}\ttreasury\t1.2 1.05\n{EOA}\t\t\n"),
        ("tabs.txt", f"wallet\tlabel\n{ADDRESS}\tmine\n{EOA}\t\n"),
        ("trailing.csv", f"wallet,label,below,\n{ADDRESS},treasury,1.2 1.05,\n,,,\n\n{EOA},,,\n,,\n"),
        (
            "safe.csv",
            f"address,name,chainId\n{to_checksum_address(ADDRESS)},mine,1\n{ADDRESS},mine,137\neth:{EOA},,1\n",
        ),
        ("prefixed.txt", f"eth:{ADDRESS}\narb1:{EOA}\n"),
        ("twice.txt", f"{ADDRESS}\n{to_checksum_address(ADDRESS)}\n{EOA}\n"),
        ("headless.csv", f"{ADDRESS},mine\n{EOA},\n"),
        ("crlf.csv", f"wallet,label\r\n{ADDRESS},mine\r\n{EOA},\r\n"),
    ],
)
def test_import_takes_every_form(run: Run, tmp_path: Path, name: str, text: str) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
        with suppress(FileNotFoundError):
            (tmp_path / "indexer.db").unlink()
        (tmp_path / name).write_bytes(text.removeprefix("\ufeff").encode(encoding))
        result = run("import", name)
        assert result.exit_code == 0, result.output
        assert set(listed(run)) == {ADDRESS, EOA}
        if "treasury" in text:
            assert listed(run)[ADDRESS] == ("treasury", "below 1.2, below 1.05")
        elif "mine" in text and "#" not in text:
            assert listed(run)[ADDRESS][0] == "mine"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", f"{ADDRESS}\n0x12\n", "line 2"),
        ("a.csv", f"wallet,below\n{ADDRESS},1.1\n{ADDRESS.upper().replace('X', 'x')},1.2\n", "line 3.*twice"),
        ("a.csv", f"wallet,label\n{ADDRESS},{'x' * 200_000}\n", "line 2.*field limit"),
        ("a.csv", f"wallet,label\n{ADDRESS},a\x00b\n", "line 2.*control"),
        ("a.csv", f"wallet,label\n{ADDRESS},a,b\n", "line 2.*more cells"),
        ("a.json", "[" * 200_000, "nested more than"),
        ("a.json", '[{"wallet": "' + "\\\\ud800" * 3 + '"}]', "entry 1"),
        ("a.json", '[{"wallet": 1' + "0" * 5_000 + "}]", "JSON"),
        ("a.csv", f"wallet,below\n{ADDRESS},high\n", "line 2"),
        ("a.csv", f"account,below\n{ADDRESS},1\n", "column wallet"),
        ("a.csv", f"wallet,belw\n{ADDRESS},1\n", "belw.*below"),
        ("a.json", '[{"wallet": 7}]', "entry 1"),
        ("a.json", "{", "JSON"),
        ("a.txt", "# nobody\n", "no address"),
    ],
)
def test_import_of_a_wrong_file_names_the_place_and_changes_nothing(
    run: Run, tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    assert re.search(message, one_line(run("import", name), 2))
    assert list(tmp_path.glob("*.db")) == []


def name_service(httpserver: HTTPServer, chain_id: int, address: str) -> str:
    """The URL of a node on which every ENS name points to this address."""

    def answer(request: Request) -> Response:
        call = json.loads(request.data)
        result: Any = {"number": "0x1", "timestamp": hex(int(time.time()))}
        if call["method"] == "eth_chainId":
            result = hex(chain_id)
        elif (
            call["method"] == "eth_call"
        ):  # UniversalResolver.resolve(name, data) -> (what addr(node) answers, resolver)
            result = "0x" + encode(["bytes", "address"], [encode(["address"], [address]), EOA]).hex()
        return Response(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": result}))

    httpserver.clear()
    httpserver.expect_request("/").respond_with_handler(answer)
    return httpserver.url_for("/")


@pytest.mark.parametrize("chain_id", [1, 137])
def test_an_ens_name_is_asked_of_mainnet_and_of_no_other_chain(run: Run, httpserver: HTTPServer, chain_id: int) -> None:
    url = name_service(httpserver, chain_id, ADDRESS)
    result = run("add", "vitalik.eth", "--rpc-url", url)
    if chain_id != 1:
        assert f"serves chain id {chain_id}" in one_line(result, 1)
        return
    assert result.exit_code == 0, result.output
    assert listed(run) == {ADDRESS: (None, "below 1.1")}
    assert run("remove", "vitalik.eth").exit_code == 0


def test_an_ens_name_has_one_spelling(run: Run, httpserver: HTTPServer, tmp_path: Path) -> None:
    url = name_service(httpserver, 1, ADDRESS)
    assert run("add", " Vitalik.ETH ", "--rpc-url", url).exit_code == 0
    (row,) = json.loads(run("list", "--json").stdout)
    assert row["ens"] == "vitalik.eth"
    assert run("remove", "VITALIK.eth").exit_code == 0
    assert listed(run) == {}
    (tmp_path / "names.csv").write_text("wallet,label\nVitalik.eth,him\n")
    assert run("import", "names.csv", "--rpc-url", url).exit_code == 0
    assert listed(run) == {ADDRESS: ("him", "below 1.1")}
    assert run("remove", "vitalik.eth").exit_code == 0
    for name in ("a..eth", "a b.eth", "\udc80.eth"):
        assert "is no ENS name" in one_line(run("add", name, "--rpc-url", url), 2)


def test_a_name_that_moved_is_warned_of_and_changes_nothing(
    run: Run,
    httpserver: HTTPServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = name_service(httpserver, 1, ADDRESS)
    assert run("add", "vitalik.eth", "--rpc-url", url).exit_code == 0
    assert run("add", EOA).exit_code == 0
    monkeypatch.setenv("MAINNET_RPC_URL", url)
    session = Session(None, tmp_path / "indexer.db")
    with Store(session.db) as store:
        known = watches(store.conn)
    warn_of_moved_names(session, known)
    assert capsys.readouterr().err == ""
    name_service(httpserver, 1, EOA)
    warn_of_moved_names(session, known)
    assert f"vitalik.eth points to {EOA} now; {ADDRESS} is still watched" in capsys.readouterr().err
    assert set(listed(run)) == {ADDRESS, EOA}
    monkeypatch.setenv("MAINNET_RPC_URL", "http://127.0.0.1:9/secretkey123456789")
    warn_of_moved_names(Session(None, session.db), known)
    error = capsys.readouterr().err
    assert "were not looked up again" in error
    assert "secretkey" not in error


def test_an_ens_name_without_a_mainnet_endpoint_says_what_to_do(run: Run) -> None:
    line = one_line(run("add", "vitalik.eth", "--rpc-url", "http://127.0.0.1:9/secretkey123456789"), 1)
    assert "MAINNET_RPC_URL" in line
    assert "secretkey" not in line


def test_labels_are_cut_and_hold_no_control_characters(run: Run, tmp_path: Path) -> None:
    assert run("add", ADDRESS, "--label", "x" * 200_000).exit_code == 0
    assert listed(run)[ADDRESS.lower()][0] == "x" * 64
    for label in ("a\x1b[31m", "a\nb", "a\udc80b"):
        assert "control characters" in one_line(run("add", ADDRESS, "--label", label), 2)
    (tmp_path / "w.json").write_text(json.dumps([{"wallet": ADDRESS, "label": "a\x00b"}]))
    assert "entry 1" in one_line(run("import", "w.json"), 1 + 1)
    assert listed(run)[ADDRESS.lower()][0] == "x" * 64
    (path,) = tmp_path.glob("*.db")
    with closing(sqlite3.connect(path)) as conn, conn:  # as an older version kept it
        conn.execute("update watches set label = ?", ("y" * 200_000,))
        assert [watch.label for watch in watches(conn)] == ["y" * 64]
    assert listed(run)[ADDRESS.lower()][0] == "y" * 64


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--notify", "nonsense://x"], "apprise"),
        (["--command", "no-such-program-at-all"], "no program"),
        (["--command", "true {nobody}"], "nobody"),
        (["--command", ""], "no program"),
        (["--hysteresis", "-1"], "hysteresis"),
        (["--hysteresis", "nan"], "finite"),
        (["--hysteresis", "1e-20"], "18 decimals"),
        (["--target", "nan"], "finite"),
    ],
)
def test_wrong_channels_are_one_line(run: Run, flags: list[str], message: str) -> None:
    assert run("add", ADDRESS).exit_code == 0
    assert message in one_line(run("check", *flags), 2)


def test_the_alerts_section_is_checked_and_keeps_its_secrets(run: Run, tmp_path: Path) -> None:
    assert run("add", ADDRESS).exit_code == 0
    for text, message in [
        ("[alerts]\nurl = ['tgram://secret123']\n", "unknown key alerts.url"),
        ("[alerts]\nurls = 'tgram://secret123'\n", "alerts.urls"),
        ("[alerts]\nurls = ['tgram://${NO_SUCH_NAME}/x']\n", "NO_SUCH_NAME"),
        ("[alerts]\nbelow = [0]\n", "alerts.below"),
        ("[alerts]\nbelow = [1e-20]\n", "18 decimals"),
    ]:
        (tmp_path / "indexer.toml").write_text(text)
        line = one_line(run("check"), 2)
        assert message in line
        assert "secret123" not in line


def test_check_tells_on_standard_output_and_by_its_exit_code(undone: list[Devnet], tmp_path: Path) -> None:
    market = undone[0]
    (victim,) = victims([market], tmp_path / "everyone.db")
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]) + "\n[alerts]\nblind_after_seconds = 0\nbelow = [900]\n")  # fmt: skip

    def check(*flags: str) -> tuple[int, list[dict[str, Any]]]:
        done = subprocess.run(
            [sys.executable, "-m", "indexer", "watch", "check", "--chain", "devnet", "--max-age", "9999d", *flags],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    watch(tmp_path / "indexer.db", Watch(victim.wallet, "mine", None, ()))
    code, lines = check("--exit-code")
    assert (code, [(a["event"], a["label"], a["rule"]) for a in lines]) == (3, [("crossed", "mine", "below 900")])
    assert check("--command", "false", "--exit-code") == (3, [])
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, market.node.url, [market]) + "\n[alerts]\nblind_after_seconds = 0\nbelow = [800]\n")  # fmt: skip
    assert check("--command", "false") == (1, [])
    assert raw(tmp_path / "indexer.db", "select place, state from deliveries order by number") == [
        ("stdout", "delivered"), ("command false", "pending")
    ]  # fmt: skip
    assert check("--stdout") == (0, [])


def test_watch_add_works_while_another_process_watches(undone: list[Devnet], tmp_path: Path) -> None:
    found = victims(undone[:2], tmp_path / "everyone.db")
    path = tmp_path / "watched.db"
    watch(path, Watch(found[0].wallet, None, None, ()))
    with watching(path, undone[0].node.url, undone[:2]) as sync:
        assert sync.snapshot().positions == 1
        assert CliRunner().invoke(main, ["--db", str(path), "watch", "add", found[1].wallet]).exit_code == 0
        undone[0].node.mine(1)
        assert sync.snapshot().positions == 2


def test_the_outbox_survives_in_the_public_tables(tmp_path: Path) -> None:
    with Store(tmp_path / "new.db"):
        pass
    with sqlite3.connect(tmp_path / "new.db") as conn:
        for table in ("watches", "alerts"):
            assert conn.execute(f"select count(*) from {table}").fetchone() == (0,)
