"""What becomes of a node's answers: windows that grow and shrink, limits read from words, logs checked, bloom filters."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.bloom import bloom_of, suspects
from indexer.chain.errors import TooBigError
from indexer.chain.limits import FIRST_WINDOW, LARGEST_WINDOW, LogLimit
from indexer.errors import RetryableError
from indexer.logs import ranges
from indexer.logs.log_filter import Filter, events_of
from indexer.logs.windows import range_cap, results_cap
from indexer.model import Block
from tests.logs.test_logs import ADDRESSES, LIMIT_TEXTS, TOPICS, joined
from tests.tiny_contracts import EOA


class Provider:
    """A stand-in for a chain of millions of blocks: only its limits are real."""

    def __init__(self, cap: int | None, most: int | None, density: int, text: str, room: int) -> None:
        self.cap, self.most, self.density, self.text = cap, most, density, text
        self.log_limit = LogLimit()
        self.retries = 0
        self.room = room
        self.asked = 0

    def batch(self, calls: Any, parse: Callable[[Any], Any], *, splittable: bool) -> list[Any]:
        self.asked += 1
        first, last = (int(calls[0][1][0][key], 16) for key in ("fromBlock", "toBlock"))
        span = last - first + 1
        if self.cap is not None and span > self.cap:
            raise TooBigError(self.text.format(cap=self.cap, span=span, first=hex(first), last=hex(last)))
        if self.most is not None and span * self.density > self.most:
            raise TooBigError(f"query returned more than {self.most} results")
        return [[], Block(last, f"0x{last:064x}", "", 0)]


@pytest.mark.slow
@given(
    cap=st.none() | st.integers(500, 60_000),
    most=st.none() | st.integers(2_000, 20_000),
    density=st.integers(0, 3),
    text=st.sampled_from(LIMIT_TEXTS),
    total=st.integers(1, 500_000),
    room=st.integers(1, 8),
)
def test_the_window_finds_the_limits_with_few_refusals(
    cap: int | None, most: int | None, density: int, text: str, total: int, room: int
) -> None:
    provider = Provider(cap, most, density, text, room)
    chunks = list(ranges.fetch(provider, 7, 6 + total, [EOA], TOPICS))  # type: ignore[arg-type]
    joined(chunks, 7, 6 + total)
    best = min(cap or LARGEST_WINDOW, (most or 10**9) // max(density, 1), LARGEST_WINDOW)
    assert provider.asked <= 30 + 4 * (room - 1) + 2.5 * total / best


def test_the_window_grows_to_its_bound_and_shrinks_by_load() -> None:
    limit = LogLimit()
    for _ in range(20):
        limit.fits(limit.size, 10, 0.1)
    assert limit.size == LARGEST_WINDOW
    limit.fits(limit.size, 100_000, 0.1)
    assert limit.size == LARGEST_WINDOW // 4
    limit.fits(limit.size, 10, 20)
    assert limit.size == LARGEST_WINDOW // 16
    limit.fits(3, 10, 20)
    assert limit.size == LARGEST_WINDOW // 16
    assert LogLimit().size == FIRST_WINDOW


CAPS: list[tuple[str, int | None]] = [
    ("Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit on the response size, or you can request any block range with a cap of 10K logs in the response. Based on your parameters and the response size limit, this block range should work: [0x0, 0x5a4d]", 23118),
    ("eth_getLogs: Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range. (-32600)", 10),
    ("query returned more than 10000 results. Try with this block range [0x1, 0x2]. (-32005)", 2),
    ("query returned more than 10000 results (-32005)", None),
    ("range 1000000 exceeds limit of 10000", 10000),
    ("invalid params range 9009594 is bigger than range limit 2000", 2000),
    ("eth_getLogs is limited to a 10,000 range", 10000),
    ("eth_getLogs requests are limited to a 1,000 block range", 1000),
    ("eth_getLogs is limited to 0 - 10000 blocks range", 10000),
    ("block range is too wide (-32600)", None),
    ("Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits#evm-range", None),
    ("ranges over 10000 blocks are not supported on freetier", 10000),
    ("query exceeds max results 20000, retry with the range 6000000-6000509", 510),
    ("request exceeded max allowed range: query exceeds max results 2000, retry with the range 64862334-64862849", 516),
    ("query exceeds max block range 100000", 100000),
    ("exceed maximum block range: 50000", 50000),
    ("requested range too large (-32012)", None),
    ("block range too large (-32000)", None),
    ("block range too large (2000), maximum allowed is 1000 blocks", 1000),
    ("Block range too large; currently limited to 100 blocks", 100),
    ("Requested range exceeds maximum RPC range limit (-32005)", None),
    ("logs matched by query exceeds limit of 10000", None),
    ("requested too many blocks from 1 to 5000, maximum is set to 2048", 2048),
    ("Maximum allowed number of requested blocks is 3500", 3500),
    ("Max range: 800", 800),
    ("eth_getLogs exceeds the range allowed for your plan (5000 > 3000)", 3000),
    ("please limit the query to at most 1000 blocks", 1000),
    ("block range greater than 20000 max", 20000),
    ("eth_getLogs range is too large, max is 10k blocks", 10000),
    ("maximum [from, to] blocks distance: 1000", 1000),
    ("block range is too wide (maximum 1024)", 1024),
    ("block range exceeds 1000", 1000),
    ("up to a 10,000 block range", 10000),
    ("limit exceeded (-32005)", None),
    ("no complete answer within 30 s; a smaller request may do", None),
    ("HTTP 502; a smaller request may do", None),
    ("Response is too big (-32008)", None),
    ("response size should not greater than 10000000 bytes", None),
    ("exactly 1000 results, there may be more", None),
    ("Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range", 2000),
    ("Query timeout exceeded. Consider reducing your block range. (-32005)", None),
    ("query exceeds limit of 10000 logs", None),
    ("must not exceed 25 blocks", 25),
    ("eth_getLogs is limited to a 5 range, upgrade from discover plan", 5),
    ("maximum 10000 blocks per request", 10000),
    ("query must be smaller than size 1024", None),
    ("block range is larger than max block range, block range = 5120, max block range = 5000", 5000),  # enviodev/hyperindex 605
    ("Exceeded maximum block-range: 1000", 1000),
    ("log query range must be less than or equal to 800 blocks", 800),
    ("query block range exceeds server limit, narrow your filter: 5", None),  # erigontech/erigon PR 20424
    ("block range too large, max range: 100", 100),  # 0xPolygon/cdk-erigon PR 1706
]  # fmt: skip


@pytest.mark.parametrize(("text", "cap"), CAPS)
def test_the_range_that_a_refusal_allows_is_read_from_its_words(text: str, cap: int | None) -> None:
    assert range_cap(text) == cap


@pytest.mark.parametrize(
    ("text", "logs"),
    [
        ("query returned more than 10000 results", 10_000),
        ("query exceeds max results 20000, retry with the range 25766988-25775072", 20_000),  # base/base 2421
        ("a cap of 10K logs in the response", 10_000),
        ("max results exceeded", 0),
        ("block range exceeds 1000", None),
    ],
)
def test_the_number_of_logs_that_a_refusal_allows_is_read_from_its_words(text: str, logs: int | None) -> None:
    assert results_cap(text) == logs


def raw_log(number: int, index: int, **changes: Any) -> dict[str, Any]:
    log = {
        "address": ADDRESSES[0],
        "topics": [TOPICS[0]],
        "data": "0x",
        "blockNumber": hex(number),
        "blockHash": f"0x{number:064x}",
        "transactionHash": f"0x{index:064x}",
        "logIndex": hex(index),
        "removed": False,
    }
    return log | changes


ONE = Filter.of(ADDRESSES[:1], TOPICS[:1])


def test_logs_are_sorted_and_each_is_kept_once() -> None:
    raws = [raw_log(5, 1), raw_log(4, 9), raw_log(5, 0), raw_log(5, 1)]
    assert [(event.block_number, event.log_index) for event in events_of(raws, ONE, 4, 5)] == [(4, 9), (5, 0), (5, 1)]


def test_what_was_not_asked_for_is_dropped() -> None:
    raws = [
        raw_log(5, 0),
        raw_log(5, 1, address=ADDRESSES[1]),
        raw_log(5, 2, topics=[TOPICS[1]]),
        raw_log(5, 3, topics=[]),
        raw_log(5, 4, removed=True),
        raw_log(5, 5, address=ADDRESSES[0].upper().replace("X", "x")),
    ]
    assert [event.log_index for event in events_of(raws, ONE, 5, 5)] == [0, 5]


@pytest.mark.parametrize(
    "raws",
    [
        [raw_log(3, 0)],
        [raw_log(7, 0)],
        [raw_log(5, 0), raw_log(5, 1, blockHash="0x" + "ab" * 32)],
        [raw_log(5, 0), raw_log(5, 0, data="0x01")],
        [raw_log(5, 0, blockNumber=None)],
        ["log"],
    ],
)
def test_what_cannot_be_true_is_a_bad_answer(raws: list[Any]) -> None:
    with pytest.raises(RetryableError):
        events_of(raws, ONE, 4, 6)


def test_blooms_of_recorded_mainnet_receipts_are_reproduced(shared: Path) -> None:
    recorded = json.loads(gzip.decompress((shared / "mainnet" / "lending_receipts.json.gz").read_bytes()))
    checked = 0
    for entry in recorded if isinstance(recorded, list) else recorded.values():
        receipt = entry["receipt"]
        events = events_of(receipt["logs"], Filter((), ()), 0, 10**9)
        bloom = bytes.fromhex(receipt["logsBloom"][2:])
        assert bloom_of(events) == bloom
        pairs = {(event.address, event.topic0) for event in events}
        assert suspects(bloom, pairs, []) == sorted(pairs)
        checked += 1
    assert checked == 27
