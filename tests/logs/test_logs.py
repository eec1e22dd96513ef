"""Logs of any range: every block once whatever the provider's limits, nothing taken on trust, omissions found."""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.abi import topic
from indexer.chain.blocks import Header, parse_header
from indexer.chain.bloom import bloom_of, suspects
from indexer.chain.client import Chain
from indexer.chain.connect import connect as configured
from indexer.chain.errors import TooBigError
from indexer.chain.limits import FIRST_WINDOW, LogLimit
from indexer.chain.null_logs import logs_or_null
from indexer.config import load
from indexer.errors import ChainError, PrunedError, ReorgError
from indexer.logs import ranges, recent_logs
from indexer.logs.block_logs import by_hashes
from indexer.logs.log_filter import Chunk, Filter, events_of
from indexer.logs.omissions import by_receipts
from indexer.model import Event
from tests.devnet.emitting import emit, node_with_logs
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.tiny_contracts import EOA, address

ADDRESSES = [address(100 + i) for i in range(5)]
TOPICS = [topic(f"Event{i}()") for i in range(4)]
BLOCKS = 60
WANTED = ADDRESSES[:3], TOPICS[:3]


def logs_of(serial: int, count: int) -> list[tuple[str, int]]:
    """So many logs, their topic by their number."""
    return [(TOPICS[number % len(TOPICS)], number) for number in range(serial, serial + count)]


def fill(node: Anvil, blocks: int = BLOCKS) -> None:
    """Blocks of none to many logs; block 30 has very many."""
    nonce, serial = 0, 0
    for number in range(1, blocks + 1):
        for i, where in enumerate(ADDRESSES):
            count = 60 if number == 30 else (number * (i + 3)) % 7 - 2
            if count > 0:
                emit(node, where, logs_of(serial, count), nonce)
                nonce, serial = nonce + 1, serial + count
        node.rpc("evm_mine")


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with node_with_logs(ADDRESSES, fill) as anvil:
        yield anvil


@pytest.fixture(scope="module")
def faulty(node: Anvil) -> Iterator[FaultyNode]:
    with FaultyNode(node.url, seed=1, lag=3) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def calm(faulty: FaultyNode) -> None:
    faulty.faults = {}
    faulty.range_cap = faulty.result_cap = faulty.size_cap = faulty.address_cap = None
    faulty.silent_cap = faulty.slow_range = None
    faulty.limit_code, faulty.limit_text = -32600, "up to a {cap} block range"
    faulty.omit_blocks, faulty.omit_receipts = set(), False
    faulty.history_from = 0
    faulty.injected.clear()
    faulty.calls.clear()


class Truth(list[Event]):
    """A list with a short repr."""

    def __repr__(self) -> str:
        return f"<{len(self)} events>"


@pytest.fixture(scope="module")
def truth(node: Anvil) -> Truth:
    """What the node itself answers for all blocks."""
    raws = node.rpc("eth_getLogs", {"fromBlock": "0x0", "toBlock": hex(BLOCKS)})
    return Truth(events_of(raws, Filter((), ()), 0, BLOCKS))


def connect(*urls: str, **options: Any) -> Chain:
    settings: dict[str, Any] = {"backoff": 0.01, "attempts": 6} | options
    chain = Chain("devnet", CHAIN_ID, urls, MULTICALL3, **settings)
    chain.check()
    return chain


def wanted_of(events: Sequence[Event], addresses: Sequence[str], topics: Sequence[str]) -> list[Event]:
    return [event for event in events if event.address in addresses and event.topic0 in topics]


def joined(chunks: Sequence[Chunk], first: int, last: int) -> list[Event]:
    """The events of chunks that must cover first..last, each block once, ascending."""
    at = first
    for chunk in chunks:
        assert chunk.from_block == at
        assert chunk.to_block >= at
        assert all(chunk.from_block <= event.block_number <= chunk.to_block for event in chunk.events)
        at = chunk.to_block + 1
    assert at == last + 1
    return [event for chunk in chunks for event in chunk.events]


# history


def test_all_wanted_logs_and_the_hash_of_each_last_block(node: Anvil, truth: list[Event]) -> None:
    chain = connect(node.url)
    chain.log_limit.window = 7
    seen: list[tuple[int, int]] = []
    chunks = list(ranges.fetch(chain, 3, 50, *WANTED, on_progress=lambda block, total: seen.append((block, total))))
    events = joined(chunks, 3, 50)
    assert events == [event for event in wanted_of(truth, *WANTED) if 3 <= event.block_number <= 50]
    assert [chunk.end_hash for chunk in chunks] == [node.block(chunk.to_block)["hash"] for chunk in chunks]
    assert [block for block, _ in seen] == [chunk.to_block for chunk in chunks]
    assert seen[-1] == (50, len(events))
    assert list(ranges.fetch(chain, 9, 8, *WANTED)) == []


def test_a_node_without_limits_needs_one_request(node: Anvil) -> None:
    chain = connect(node.url)
    before = chain.requests
    list(ranges.fetch(chain, 0, BLOCKS, *WANTED))
    assert chain.requests - before == 1


LIMIT_TEXTS = [
    "up to a {cap} block range",
    "this block range should work: [{first}, {last}]",
    "Try with this block range [{first}, {last}]",
    "block range is too wide",
    "eth_getLogs is limited to a {span} range",
    "eth_getLogs exceeds the range allowed for your plan ({span} > {cap})",
    "words that nobody has ever seen",
]


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    span=st.tuples(st.integers(0, BLOCKS), st.integers(0, BLOCKS)).map(lambda pair: (min(pair), max(pair))),
    window=st.integers(1, 100),
    range_limit=st.none() | st.integers(1, 20),
    response=st.none() | st.integers(1, 60) | st.integers(12_000, 40_000),
    most_addresses=st.none() | st.integers(1, 3),
    text=st.sampled_from(LIMIT_TEXTS),
    code=st.sampled_from([-32600, -32602, -32000, -32005, -32614, 35]),
    addresses=st.sets(st.sampled_from(ADDRESSES), min_size=1),
    topics=st.sets(st.sampled_from(TOPICS), min_size=1),
)
def test_every_log_comes_once_whatever_the_limits(
    faulty: FaultyNode,
    truth: list[Event],
    span: tuple[int, int],
    window: int,
    range_limit: int | None,
    response: int | None,
    most_addresses: int | None,
    text: str,
    code: int,
    addresses: set[str],
    topics: set[str],
) -> None:
    faulty.range_cap = range_limit
    if response is not None and response < 100:
        faulty.result_cap, faulty.size_cap = response, None
    else:
        faulty.result_cap, faulty.size_cap = None, response
    faulty.address_cap, faulty.limit_text, faulty.limit_code = most_addresses, text, code
    chain = connect(faulty.url, backoff=0.001)
    chain.log_limit.window = window
    chunks = list(ranges.fetch(chain, *span, sorted(addresses), sorted(topics)))
    wanted = wanted_of(truth, sorted(addresses), sorted(topics))
    assert joined(chunks, *span) == [event for event in wanted if span[0] <= event.block_number <= span[1]]


def test_a_named_limit_is_taken_at_its_word(faulty: FaultyNode) -> None:
    faulty.range_cap = 10
    chain = connect(faulty.url)
    before = chain.requests
    list(ranges.fetch(chain, 0, 59, *WANTED))
    assert chain.requests - before == 1 + 6
    assert faulty.injected["range-cap"] == 1


def test_a_limit_that_the_configuration_knows_is_never_exceeded(faulty: FaultyNode, tmp_path: Path) -> None:
    faulty.range_cap = 10
    file = tmp_path / "indexer.toml"
    file.write_text(f"[chains.devnet]\nchain_id = {CHAIN_ID}\nrpc = ['{faulty.url}']\nmax_log_range = 10\n")
    config = load(file, {})
    with configured(config, config.chain("devnet")) as chain:
        chunks = list(ranges.fetch(chain, 0, 59, *WANTED))
    assert [chunk.to_block for chunk in chunks] == [9, 19, 29, 39, 49, 59]
    assert faulty.injected["range-cap"] == 0


def test_a_suggestion_of_the_very_range_asked_for_ends(faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.range_cap = 9
    faulty.limit_text = "Log response size exceeded. this block range should work: [{first}, {last}]"
    chunks = list(ranges.fetch(connect(faulty.url), 0, BLOCKS, *WANTED))
    assert joined(chunks, 0, BLOCKS) == wanted_of(truth, *WANTED)


def test_one_block_over_the_cap_is_not_asked_for_again(faulty: FaultyNode) -> None:
    faulty.range_cap = 9
    faulty.limit_text = "eth_getLogs is limited to a 10 block range"
    chain = connect(faulty.url)
    list(ranges.fetch(chain, 0, BLOCKS, *WANTED))
    assert faulty.injected["range-cap"] == 2


def test_a_single_block_that_is_too_much_is_read_by_addresses_topics_and_receipts(
    faulty: FaultyNode, truth: list[Event]
) -> None:
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number == 30]
    assert len(wanted) == 135
    for cap in (60, 20, 5):
        faulty.result_cap = cap
        (chunk,) = ranges.fetch(connect(faulty.url), 30, 30, *WANTED)
        assert chunk.events == wanted
    assert faulty.calls["eth_getBlockReceipts"] > 0
    faulty.faults = {"receipts-unsupported": 1}
    with pytest.raises(ChainError, match="logs of block 30 cannot be read"):
        list(ranges.fetch(connect(faulty.url), 30, 30, *WANTED))


def test_many_addresses_are_split_only_when_the_provider_complains(
    node: Anvil, faulty: FaultyNode, truth: list[Event]
) -> None:
    many = [address(10_000 + i) for i in range(397)] + ADDRESSES[:3]
    chain = connect(node.url)
    before = chain.requests
    assert joined(list(ranges.fetch(chain, 0, BLOCKS, many, TOPICS)), 0, BLOCKS) == wanted_of(truth, many, TOPICS)
    assert chain.requests - before == 1
    faulty.address_cap = 100
    limited = connect(faulty.url)
    assert joined(list(ranges.fetch(limited, 0, BLOCKS, many, TOPICS)), 0, BLOCKS) == wanted_of(truth, many, TOPICS)
    assert limited.log_limit.addresses == 100


@pytest.mark.parametrize(
    "fault",
    [
        *("429", "500", "502", "reset", "truncated", "html", "wrong-id", "null", "internal", "rate-limit-error"),
        *(
            "batch-missing",
            "batch-reordered",
            "batch-duplicate",
            "batch-swapped",
            "batch-unsupported",
            "ignores-filter",
        ),
    ],
)
def test_passing_faults_lose_no_log(faulty: FaultyNode, truth: list[Event], fault: str) -> None:
    faulty.faults = {fault: 1 if fault in {"batch-unsupported", "ignores-filter"} else 0.3}
    for _ in range(20):  # windows in flight come in any order, so no seed says whether one of them is hit
        chain = connect(faulty.url, attempts=9)
        chain.log_limit.cap = 5
        assert joined(list(ranges.fetch(chain, 0, BLOCKS, *WANTED)), 0, BLOCKS) == wanted_of(truth, *WANTED)
        if faulty.injected[fault]:
            break
    assert faulty.injected[fault] > 0


def test_pruned_history_is_asked_elsewhere_or_said(node: Anvil, faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.faults = {"pruned-history": 1}
    faulty.history_from = 40
    both = connect(faulty.url, node.url)
    assert joined(list(ranges.fetch(both, 0, BLOCKS, *WANTED)), 0, BLOCKS) == wanted_of(truth, *WANTED)
    alone = connect(faulty.url)
    with pytest.raises(PrunedError, match="pruned history"):
        list(ranges.fetch(alone, 39, BLOCKS, *WANTED))
    late = [event for event in wanted_of(truth, *WANTED) if event.block_number >= 40]
    assert joined(list(ranges.fetch(alone, 40, BLOCKS, *WANTED)), 40, BLOCKS) == late


def test_a_range_beyond_the_head_is_never_taken_for_empty(node: Anvil) -> None:
    with pytest.raises(ChainError, match="is not known"):
        list(ranges.fetch(connect(node.url, attempts=2), BLOCKS - 3, BLOCKS + 5, *WANTED))


@pytest.mark.parametrize("cap", [100, 200])
def test_logs_cut_off_at_a_round_number_without_a_word_are_asked_for_in_pieces(
    faulty: FaultyNode, truth: list[Event], cap: int
) -> None:
    faulty.silent_cap = cap
    wanted = wanted_of(truth, ADDRESSES, TOPICS)
    assert joined(list(ranges.fetch(connect(faulty.url), 0, BLOCKS, ADDRESSES, TOPICS)), 0, BLOCKS) == wanted
    assert faulty.injected["silent-cap"] > 0


def test_logs_cut_off_at_an_odd_number_are_found_when_they_are_asked_for_again(
    faulty: FaultyNode, truth: list[Event]
) -> None:
    faulty.silent_cap = 47
    chain = connect(faulty.url)
    first = joined(list(ranges.fetch(chain, 0, BLOCKS, *WANTED)), 0, BLOCKS)
    assert len(first) == 47 < len(wanted_of(truth, *WANTED))  # sums find that out
    assert joined(list(ranges.fetch(chain, 0, BLOCKS, *WANTED)), 0, BLOCKS) == wanted_of(truth, *WANTED)


def test_a_window_that_timed_out_is_not_tried_again_soon(faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.slow_range, faulty.hang_seconds = 1, 5
    chain = connect(faulty.url, timeout=0.6)
    chain.log_limit.window = 2
    started = time.monotonic()
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number < 15]
    assert joined(list(ranges.fetch(chain, 0, 14, *WANTED)), 0, 14) == wanted
    assert faulty.injected["slow-range"] == 2  # both rounds of the first window
    assert time.monotonic() - started < 12
    limit = LogLimit()
    limit.refused(5000, None, lasting=False, seconds=60)
    for _ in range(900):
        limit.fits(limit.size, 10, 1.0)
    assert limit.size == 2500
    limit.refused(5000, None, lasting=False)
    for _ in range(20):
        limit.fits(limit.size, 10, 1.0)
    assert limit.size > 5000


def test_null_for_no_logs_is_learnt_of_a_node_that_never_says_it_otherwise(
    faulty: FaultyNode, truth: list[Event]
) -> None:
    faulty.faults = {"null-logs": 1}
    chain = connect(faulty.url)
    nobody = [address(77)]
    assert joined(list(ranges.fetch(chain, 0, BLOCKS, nobody, TOPICS)), 0, BLOCKS) == []
    assert chain.retries <= 3
    before = chain.requests
    assert joined(list(ranges.fetch(chain, 0, BLOCKS, nobody, TOPICS)), 0, BLOCKS) == []
    assert joined(list(ranges.fetch(chain, 0, BLOCKS, *WANTED)), 0, BLOCKS) == wanted_of(truth, *WANTED)
    assert chain.requests - before <= 3
    with pytest.raises(ChainError, match="BlockOutOfRange"):
        list(ranges.fetch(chain, BLOCKS + 1, BLOCKS + 5, *WANTED))


def test_nulls_where_there_may_be_logs_prove_nothing() -> None:
    class Forgetful:
        """Answers null whenever it is asked for these logs, though it knows the block and says [] for none."""

        masked, null_logs = "http://node", 0

        def send(self, method: str, params: list[Any]) -> Any:
            return {} if method.startswith("eth_getBlock") else []

    wanted = {"fromBlock": "0x1", "toBlock": "0x5", "address": address(1)}
    node = Forgetful()
    assert [logs_or_null(node, wanted, None, lambda: None) for _ in range(20)] == [None] * 20  # type: ignore[arg-type]


def test_null_is_no_word_for_none_of_a_node_that_also_answers_an_empty_list(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    nobody = [address(77)]
    list(ranges.fetch(chain, 0, BLOCKS, nobody, TOPICS))
    faulty.faults = {"null-logs": 1}
    with pytest.raises(ChainError, match="is not known"):
        list(ranges.fetch(chain, 0, BLOCKS, nobody, TOPICS))


def test_log_indexes_counted_in_each_transaction_lose_no_log(faulty: FaultyNode, truth: list[Event]) -> None:
    def places(events: Sequence[Event]) -> list[tuple[int, str, str, bytes]]:
        return [(event.block_number, event.transaction_hash, event.address, event.data) for event in events]

    faulty.faults = {"log-index-per-transaction": 1}
    chain = connect(faulty.url)
    assert places(joined(list(ranges.fetch(chain, 0, BLOCKS, *WANTED)), 0, BLOCKS)) == places(wanted_of(truth, *WANTED))
    faulty.omit_blocks = {41, 52}
    chunks = last_blocks(chain, 31, BLOCKS)
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert places(joined(chunks, 31, BLOCKS)) == places(wanted)
    assert sum(chunk.omitted for chunk in chunks) == sum(event.block_number in {41, 52} for event in wanted)


def test_a_rate_limit_is_not_taken_for_too_many_blocks(faulty: FaultyNode) -> None:
    chain = connect(faulty.url, attempts=3)
    faulty.faults = {"429": 1}
    with pytest.raises(ChainError, match="429") as caught:
        list(ranges.fetch(chain, 0, BLOCKS, *WANTED))
    assert not isinstance(caught.value, TooBigError)
    assert chain.log_limit.size == FIRST_WINDOW


# the window


# nothing on trust


# bloom filters


# the last blocks


def test_suspects_are_wanted_pairs_that_may_be_there_and_did_not_come(truth: list[Event]) -> None:
    block = [event for event in truth if event.block_number == 30]
    bloom = bloom_of(block)
    pairs = [*product(ADDRESSES, TOPICS)]
    assert suspects(bloom, pairs, block) == []
    left = [event for event in block if (event.address, event.topic0) != (ADDRESSES[1], TOPICS[2])]
    assert suspects(bloom, pairs, left) == [(ADDRESSES[1], TOPICS[2])]
    assert suspects(bytes(256), pairs, []) == []


def last_blocks(chain: Chain, first: int, last: int, **options: Any) -> list[Chunk]:
    return list(recent_logs.fetch_recent(chain, first, last, *WANTED, chain.block(BLOCKS), **options))


def test_the_last_blocks_come_by_hash_in_few_requests(node: Anvil, truth: list[Event]) -> None:
    chain = connect(node.url)
    before = chain.requests
    chunks = last_blocks(chain, 31, BLOCKS)
    assert joined(chunks, 31, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert chunks[-1].end_hash == node.block(BLOCKS)["hash"]
    # headers, logs, and receipts of the blocks whose filters cannot exclude further logs
    assert chain.requests - before <= 1 + 2 + 30 // 8 + 1
    assert sum(chunk.omitted for chunk in chunks) == 0
    assert joined(last_blocks(chain, 40, 45), 40, 45) == [
        e for e in wanted_of(truth, *WANTED) if 40 <= e.block_number <= 45
    ]


@pytest.mark.parametrize("receipts", [True, False])
def test_omitted_logs_are_found_and_counted(faulty: FaultyNode, truth: list[Event], receipts: bool) -> None:
    """Wanted pairs that are missing: from the receipts, or where there are none from another look at all fetch."""
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    for attempt in range(5):
        faulty.rng.seed(attempt)
        faulty.faults = {"omitted-logs": 0.3} | ({} if receipts else {"receipts-unsupported": 1})
        chunks = last_blocks(connect(faulty.url, attempts=9), 31, BLOCKS)
        got = joined(chunks, 31, BLOCKS)
        missing = [event for event in wanted if event not in got]
        # a pair that came with some of its logs is beyond what a bloom filter tells
        pairs = {(event.block_number, event.address, event.topic0) for event in got}
        if receipts:
            assert all((event.block_number, event.address, event.topic0) in pairs for event in missing)
        assert [event for event in got if event not in wanted] == []
        assert sum(chunk.omitted for chunk in chunks) > 0


def test_blocks_with_all_their_logs_omitted_are_repaired(faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.omit_blocks = {41, 52}
    chunks = last_blocks(connect(faulty.url), 31, BLOCKS)
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert joined(chunks, 31, BLOCKS) == wanted
    assert sum(chunk.omitted for chunk in chunks) == sum(event.block_number in {41, 52} for event in wanted) > 0


def test_what_nobody_can_confirm_is_said(faulty: FaultyNode) -> None:
    faulty.omit_blocks = {41}
    faulty.faults = {"receipts-unsupported": 1}
    (chunk,) = last_blocks(connect(faulty.url, attempts=2), 31, BLOCKS)
    assert chunk.unconfirmed == (41,)
    assert chunk.omitted == 0


def test_a_second_endpoint_confirms_what_the_first_cannot(node: Anvil, faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.omit_blocks = {41}
    faulty.faults = {"receipts-unsupported": 1}
    chunks = last_blocks(connect(faulty.url, node.url), 31, BLOCKS)
    assert joined(chunks, 31, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]


def test_nodes_that_know_no_block_hash_in_filters_are_asked_by_number(faulty: FaultyNode, truth: list[Event]) -> None:
    faulty.faults = {"block-hash-unsupported": 1}
    chunks = last_blocks(connect(faulty.url), 51, BLOCKS)
    assert joined(chunks, 51, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 50]


def test_nodes_that_ignore_the_block_hash_and_have_no_receipts_cost_no_rounds(
    faulty: FaultyNode, truth: list[Event]
) -> None:
    faulty.faults = {"block-hash-ignored": 1, "receipts-unsupported": 1}
    chain = connect(faulty.url)
    before = chain.requests
    chunks = last_blocks(chain, 31, BLOCKS)
    assert joined(chunks, 31, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert chain.requests - before < 12
    before = chain.requests
    last_blocks(chain, 51, BLOCKS)
    assert chain.requests - before <= 5


def test_full_bloom_filters_are_checked_for_a_few_blocks_only(node: Anvil, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent_logs, "SPARSE", -1)
    monkeypatch.setattr(recent_logs, "false_positives", lambda bloom, pairs: 99.0)
    monkeypatch.setattr(recent_logs, "suspects", lambda *_: [("a", "b")])
    (chunk,) = last_blocks(connect(node.url), 31, BLOCKS, confirmations=3)
    assert chunk.unconfirmed == tuple(range(31, BLOCKS - 2))


@pytest.mark.parametrize("fault", ["lagging", "header-not-found", "429", "null", "batch-missing", "batch-unsupported"])
def test_backends_that_lag_or_fail_lose_no_recent_log(faulty: FaultyNode, truth: list[Event], fault: str) -> None:
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number > 50]
    target = connect(faulty.url).block(BLOCKS)
    for seed in range(4):
        faulty.rng.seed(seed)
        faulty.faults = {fault: 1 if fault == "batch-unsupported" else 0.3}
        chain = connect(faulty.url, attempts=9)
        chunks = list(recent_logs.fetch_recent(chain, 51, BLOCKS, *WANTED, target))
        assert joined(chunks, 51, BLOCKS) == wanted
    assert faulty.injected[fault] > 0


def test_blocks_that_do_not_lead_to_the_target_are_a_reorg(needs_node: None) -> None:
    with node_with_logs(ADDRESSES, partial(fill, blocks=6)) as own:
        chain = connect(own.url)
        target = chain.block(6)
        transaction = {"from": EOA, "to": EOA, "value": "0x0", "gas": "0x5208", "gasPrice": "0x0"}
        own.reorg(2, [(transaction, 0)])
        with pytest.raises(ReorgError):
            list(recent_logs.fetch_recent(chain, 2, 6, *WANTED, target))
        with pytest.raises(ReorgError):
            by_hashes(chain, Filter.of(*WANTED), [target])
        with FaultyNode(own.url, faults={"block-hash-unsupported": 1}) as proxy, pytest.raises(ReorgError):
            by_hashes(connect(proxy.url), Filter.of(*WANTED), [target])


def test_a_block_is_read_from_receipts_whatever_its_bloom_filter_says(node: Anvil, truth: list[Event]) -> None:
    header = parse_header(node.block(30))
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number == 30]
    for bloom in (header.bloom, bytes(256), b"\xff" * 256, None):
        assert by_receipts(connect(node.url), Header(header.block, bloom), Filter.of(*WANTED)) == wanted
    gone = Header(replace(header.block, hash="0x" + "11" * 32), header.bloom)
    with pytest.raises(ReorgError):
        by_receipts(connect(node.url, attempts=2), gone, Filter.of(*WANTED))


# bloom filters that do not fit their logs

WRONG_BLOOMS = ("bloom-zero", "bloom-ones", "bloom-lacks", "bloom-more", "bloom-0x", "bloom-null", "bloom-absent")


@pytest.mark.parametrize("fault", WRONG_BLOOMS)
def test_a_wrong_bloom_filter_on_every_block_costs_hardly_a_request(
    node: Anvil, faulty: FaultyNode, truth: list[Event], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def requests() -> tuple[int, int]:
        """HTTP requests and blocks asked for their receipts, in a look at the last blocks and in ten followed one by one."""
        chain = connect(faulty.url, backoff=0.5)  # which no try again would go without
        before, counted, receipts = faulty.requests, faulty.calls.total(), faulty.calls["eth_getBlockReceipts"]
        chunks = last_blocks(chain, 11, BLOCKS)
        assert joined(chunks, 11, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 10]
        assert sum(chunk.omitted for chunk in chunks) == 0
        for number in range(51, BLOCKS + 1):
            (chunk,) = recent_logs.fetch_recent(chain, number, number, *WANTED, chain.block(number))
            assert chunk.events == [event for event in wanted_of(truth, *WANTED) if event.block_number == number]
        assert chain.retries == 0
        asked = faulty.requests - before + (faulty.calls.total() - counted) // 100
        return asked, faulty.calls["eth_getBlockReceipts"] - receipts

    undisturbed, receipts = requests()
    caplog.clear()
    faulty.faults = {fault: 1}
    disturbed, more = requests()
    assert disturbed <= 1.5 * undisturbed
    if fault not in {"bloom-ones", "bloom-more"}:  # the logs are beyond doubt where the filter lacks them
        assert more <= (receipts if fault == "bloom-lacks" else 0)
    assert faulty.injected[fault] > 0
    assert caplog.text.count("said once") <= 1


def test_what_nobody_explains_in_block_after_block_is_asked_about_no_more(faulty: FaultyNode) -> None:
    faulty.faults = {"bloom-more": 1}
    chain = connect(faulty.url)
    for number in range(21, BLOCKS + 1):
        (chunk,) = recent_logs.fetch_recent(chain, number, number, *WANTED, chain.block(number))
        assert chunk.unconfirmed == (number,)
    assert faulty.calls["eth_getBlockReceipts"] == 4


@pytest.mark.parametrize("fault", WRONG_BLOOMS)
def test_a_bloom_filter_that_is_wrong_now_and_then_loses_no_log(
    faulty: FaultyNode, truth: list[Event], fault: str
) -> None:
    for seed in range(3):
        faulty.rng.seed(seed)
        faulty.faults = {fault: 0.2}
        chunks = last_blocks(connect(faulty.url), 31, BLOCKS)
        assert joined(chunks, 31, BLOCKS) == [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert faulty.injected[fault] > 0


def test_logs_that_a_node_omits_everywhere_are_found_at_another_or_said(
    node: Anvil, faulty: FaultyNode, truth: list[Event]
) -> None:
    faulty.omit_blocks, faulty.omit_receipts = {41, 52}, True
    wanted = [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    (chunk,) = last_blocks(connect(faulty.url), 31, BLOCKS)
    assert chunk.unconfirmed == (41, 52)
    assert chunk.events == [event for event in wanted if event.block_number not in {41, 52}]
    chunks = last_blocks(connect(faulty.url, node.url), 31, BLOCKS)
    assert joined(chunks, 31, BLOCKS) == wanted
    assert sum(chunk.omitted for chunk in chunks) == sum(event.block_number in {41, 52} for event in wanted) > 0
    assert all(not chunk.unconfirmed for chunk in chunks)


def test_a_second_opinion_is_not_asked_of_an_endpoint_that_drips(node: Anvil, faulty: FaultyNode) -> None:
    with FaultyNode(node.url, faults={"drip": 1}) as dripping:
        chain = connect(dripping.url, faulty.url, timeout=0.5, backoff=0.01)
        faulty.faults = {"bloom-more": 1}
        started = time.monotonic()
        for number in range(51, BLOCKS + 1):
            list(recent_logs.fetch_recent(chain, number, number, *WANTED, chain.block(number)))
        assert time.monotonic() - started < 10
        assert dripping.injected["drip"] <= 2


@pytest.mark.parametrize("kept", ["partial", "none"])
def test_where_bloom_filters_are_not_exact_nothing_is_asked_of_them(
    faulty: FaultyNode, truth: list[Event], kept: str
) -> None:
    faulty.faults = {"bloom-more": 1}
    chain = connect(faulty.url, bloom=kept)
    (chunk,) = last_blocks(chain, 31, BLOCKS)
    assert chunk.events == [event for event in wanted_of(truth, *WANTED) if event.block_number > 30]
    assert not chunk.unconfirmed
    assert faulty.calls["eth_getBlockReceipts"] == 0
    assert not recent_logs.quiet(chain, *WANTED, chain.block(BLOCKS))


def test_filters_are_believed_again_once_one_was_right(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    faulty.faults = {"bloom-more": 1}
    last_blocks(chain, 31, BLOCKS)
    assert not chain.blooms.trusted
    faulty.faults = {}
    last_blocks(chain, 31, BLOCKS)
    assert chain.blooms.trusted
