"""Whatever a node answers is a value, or an error of one of three classes: again, elsewhere, final. In bounded time."""

import json
import time
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import eth_abi
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from indexer.chain.blocks import LATEST_TIME, parse_header
from indexer.chain.client import Chain
from indexer.chain.endpoint import Endpoint
from indexer.chain.errors import BadAnswerError, read_by
from indexer.chain.exchange import Reply
from indexer.chain.heads import head_number
from indexer.errors import ChainError, RetryableError
from indexer.logs.block_logs import block_logs
from indexer.logs.log_filter import EVERYTHING, Filter, events_of
from indexer.logs.omissions import receipt_logs
from indexer.logs.windows import range_cap
from indexer.model import Block, Failed, Read
from indexer.reads.codec import decode_aggregate, decode_read
from tests.tiny_contracts import EOA, address

SCALARS = st.one_of(
    st.none(), st.booleans(), st.floats(allow_nan=False), st.text(max_size=20),
    st.integers(-(2**70), 2**300), st.integers(-(2**70), 2**300).map(hex),
    st.sampled_from(["0x", "0X1", "0x" + "f" * 64, "0x" + "0" * 64, "\ud800", "latest", "-0x1", "0x٣", " 0x1", 10**4000]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
HASH = "0x" + "ab" * 32
HEADER = {"number": "0x5", "hash": HASH, "parentHash": HASH, "timestamp": "0x64", "logsBloom": "0x" + "00" * 256}
LOG = {
    "address": EOA, "topics": [HASH], "data": "0x", "blockNumber": "0x5", "blockHash": HASH, "transactionHash": HASH,
    "transactionIndex": "0x0", "logIndex": "0x0", "removed": False,
}  # fmt: skip
BLOCK = Block(5, HASH, HASH, 100)


def paths(value: Any) -> list[tuple[Any, ...]]:
    """Where values stand inside a value."""
    if isinstance(value, dict):
        return [(), *((key, *rest) for key in value for rest in paths(value[key]))]
    return (
        [(), *((i, *rest) for i in range(len(value)) for rest in paths(value[i]))] if isinstance(value, list) else [()]
    )


@st.composite
def spoilt(draw: st.DrawFn, right: Any) -> Any:
    """A right answer of which one or two values are others, or gone."""
    value = deepcopy(right)
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(paths(value)))
        if not path:
            return draw(VALUES)
        where = value
        for step in path[:-1]:
            where = where[step]
        if draw(st.booleans()) and isinstance(where, dict):
            del where[path[-1]]
        else:
            where[path[-1]] = draw(VALUES)
    return value


def tamed(work: Callable[[], Any]) -> Any:
    """What `work` returns; None where it raises what the retry policy knows."""
    try:
        return work()
    except (RetryableError, ChainError):
        return None


# JSON-RPC


class Answering:
    """A transport that answers with the bytes given."""

    def __init__(self, content: bytes, status: int = 200) -> None:
        self.reply = Reply(status, {"Retry-After": "9" * 400}, bytearray(content))

    def post(self, *_: Any) -> Reply:
        return self.reply


def endpoint(content: bytes, status: int = 200) -> Endpoint:
    found = Endpoint("http://node.example/v2/k3yk3yk3yk3y", 1)
    found._transport = Answering(content, status)  # type: ignore[assignment]
    return found


ERROR = {"code": -32000, "message": "header not found", "data": {"data": "0x08"}}
STATUS = st.sampled_from([200, 200, 204, 301, 400, 401, 404, 413, 429, 500, 502, 503, 504, 524, 599])


@given(spoilt({"jsonrpc": "2.0", "id": 1, "result": HEADER}) | spoilt({"id": 1, "error": ERROR}), STATUS)
def test_any_answer_to_a_request_is_a_value_or_a_known_error(answer: Any, status: int) -> None:
    content = json.dumps(answer).encode()
    tamed(lambda: endpoint(content, status).send("eth_getBlockByNumber", ["0x5", False]))


@given(spoilt([{"id": 1, "result": "0x1"}, {"id": 2, "error": ERROR}]), STATUS)
def test_any_answer_to_a_batch_is_values_and_known_errors(answer: Any, status: int) -> None:
    content = json.dumps(answer).encode()
    values = tamed(lambda: endpoint(content, status).send_batch([("a", []), ("b", [])]))
    assert values is None or len(values) == 2


@given(st.binary(max_size=200), STATUS)
def test_any_bytes_are_a_known_error(content: bytes, status: int) -> None:
    tamed(lambda: endpoint(content, status).send("eth_chainId", []))


@given(st.integers(-(2**70), 2**70) | SCALARS, st.text(max_size=300) | SCALARS, VALUES)
def test_any_error_object_is_a_known_error(code: Any, message: Any, data: Any) -> None:
    for asked in (1, 5):
        error = endpoint(b"").error("eth_call", {"code": code, "message": message, "data": data}, asked)
        assert isinstance(error, RetryableError | ChainError)
        assert str(error).isprintable()


@given(st.text(max_size=400) | st.from_regex(r"(range|block|limit|max|[0-9]|0x|[ ,.\[\]-]){1,40}"))
def test_any_words_of_a_limit_are_a_number_or_none(text: str) -> None:
    found = range_cap(text)
    assert found is None or isinstance(found, int)


MESSAGE = {"jsonrpc": "2.0", "method": "eth_subscription", "params": {"subscription": "0x1", "result": HEADER}}


@given(spoilt(MESSAGE).map(json.dumps) | st.text(max_size=100) | st.binary(max_size=100))
@example("[" * 10**6)
@example('{"params":' * 10**5)
def test_any_message_is_the_number_of_a_head_or_ends_the_connection(message: str | bytes) -> None:
    try:
        assert 0 <= head_number(message) < 2**63
    except (TypeError, ValueError):
        return


# blocks and logs


@given(spoilt(HEADER))
@example(HEADER | {"timestamp": hex(2**64 + 5)})
@example(HEADER | {"number": hex(2**63)})
def test_any_header_is_a_block_with_a_time_that_can_be_written_or_a_bad_answer(raw: Any) -> None:
    header = tamed(lambda: read_by(parse_header, raw))
    if header is not None:
        assert 0 <= header.block.number < 2**63
        assert 0 <= header.block.timestamp <= LATEST_TIME
        assert header.bloom is None or len(header.bloom) == 256


@given(spoilt([LOG, LOG | {"logIndex": "0x1"}, LOG | {"blockNumber": "0x6", "blockHash": "0x" + "cd" * 32}]))
def test_any_logs_are_events_of_the_range_or_a_bad_answer(raws: Any) -> None:
    for wanted in (EVERYTHING, Filter.of([EOA], [HASH])):
        events = tamed(lambda wanted=wanted: read_by(events_of, raws, wanted, 5, 6))
        for event in events or []:
            assert event.block_number in {5, 6}
            assert 0 <= event.log_index < 2**63
    for found in (tamed(lambda: read_by(block_logs, raws, EVERYTHING, BLOCK)), tamed(lambda: receipts(raws))):
        assert all(event.block_hash == HASH for event in found or [])


def receipts(raws: Any) -> Any:
    return read_by(receipt_logs, [{"logs": raws}, {"logs": []}], BLOCK)


@given(spoilt([{"logs": [LOG]}, {"logs": []}]))
def test_any_receipts_are_the_events_of_the_block_or_a_bad_answer(raw: Any) -> None:
    assert all(event.block_hash == HASH for event in tamed(lambda: read_by(receipt_logs, raw, BLOCK)) or [])


# aggregates


@given(
    st.lists(st.tuples(st.booleans(), st.binary(max_size=70)), max_size=5),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**256 - 1) | st.integers(0, 300)), max_size=3),
    st.integers(0, 3),
)
def test_any_words_for_an_aggregate_are_answers_within_it_or_a_bad_answer(
    results: list[tuple[bool, bytes]], changes: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(eth_abi.encode(["(bool,bytes)[]"], [results]))
    for word, value in changes:
        if 32 * word + 32 <= len(data):
            data[32 * word : 32 * word + 32] = value.to_bytes(32)
    content = bytes(data[: len(data) - 32 * cut])
    try:
        found = decode_aggregate(content, len(results))
    except BadAnswerError:
        return
    assert len(found) == len(results)
    assert all(len(answer) <= len(content) for _, answer in found)


def word(value: int) -> bytes:
    return value.to_bytes(32)


@pytest.mark.parametrize("kind", ["uint256[][]", "string[]", "(address,string)[]", "bytes[][]"])
def test_return_data_of_many_pointers_to_one_value_is_no_bomb(kind: str) -> None:
    """With 100 kB it took half a minute and filled hundreds of megabytes."""
    count = 1_500
    pointers = b"".join(word(32 * count) for _ in range(count))
    data = word(32) + word(count) + pointers + word(count) + word(32) * count
    tracemalloc.start()
    started = time.monotonic()
    answer = decode_read(Read(EOA, f"all()({kind})"), True, data)
    assert isinstance(answer, Failed)
    assert time.monotonic() - started < 20
    assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    tracemalloc.stop()


def test_long_return_data_of_an_honest_contract_is_read_whole() -> None:
    tokens = [(f"TOKEN{i}", address(i)) for i in range(1, 500)]
    data = eth_abi.encode(["(string,address)[]", "uint256[][]"], [tokens, [list(range(20))] * 50])
    answer = decode_read(Read(EOA, "all()((string,address)[],uint256[][])"), True, data)
    assert answer == (tuple(tokens), (tuple(range(20)),) * 50)


def test_whatever_trips_over_an_answer_is_that_endpoints_fault() -> None:
    chain = Chain("devnet", 1, ["http://node.example"], address(1), attempts=2, backoff=0.001)
    (only,) = chain.in_turn()
    only.verified = True
    only._transport = Answering(json.dumps({"id": 1, "result": {"a": 1}}).encode())  # type: ignore[assignment]
    for trip in (lambda raw: raw["b"], lambda raw: raw.lower(), lambda raw: 1 // 0, lambda raw: raw + 1, int):
        only._ids = iter([1] * 9)  # type: ignore[assignment]
        with pytest.raises(ChainError, match="cannot be read"):
            chain.request("eth_x", [], trip)
