"""Topics, and raw logs read strictly whatever a node sends."""

import json
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.abi import topic
from indexer.chain.blocks import quantity
from indexer.errors import RetryableError
from indexer.logs.log_filter import LogParser
from indexer.model import Event

WORD = "0x" + "ab" * 32
LOG: dict[str, Any] = {
    "address": "0x" + "Aa" * 20,
    "topics": [WORD, "0x" + "00" * 12 + "cc" * 20],
    "data": "0x" + "00" * 31 + "07",
    "blockNumber": "0x10",
    "blockHash": "0x" + "01" * 32,
    "transactionHash": "0x" + "02" * 32,
    "transactionIndex": "0x0",
    "logIndex": "0x3",
    "removed": False,
}


def test_topics_are_the_keccak_of_the_canonical_text() -> None:
    transfer = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert topic("Transfer(address,address,uint256)") == transfer


@pytest.mark.parametrize(
    "text",
    [
        "Transfer(address, address, uint256)",
        "Transfer(address indexed,address,uint256)",
        "Transfer(address,address,uint)",
        "Transfer(address,int[])",
        "Transfer",
        "Transfer(address",
        "(address)",
    ],
)
def test_a_text_that_is_not_canonical_would_hash_to_another_topic(text: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        topic(text)


def test_a_log_becomes_an_event_in_lower_case() -> None:
    event = LogParser()(LOG)
    assert event == Event(
        "0x" + "aa" * 20,
        (WORD, "0x" + "00" * 12 + "cc" * 20),
        bytes(31) + b"\7",
        16,
        "0x" + "01" * 32,
        "0x" + "02" * 32,
        3,
    )
    assert event.topic_address(1) == "0x" + "cc" * 20
    assert event.word(0) == 7
    assert event.word(1) is None
    assert LogParser()({**LOG, "topics": [], "data": "0x"}).topic0 == ""


@pytest.mark.parametrize("field", [field for field in LOG if field not in {"transactionIndex", "removed"}])
@pytest.mark.parametrize(
    "value", [None, 7, "", "0x", "0xzz", "0x 1", [None], ["0x12"], [WORD] * 5, "0x0_1", "-0x1", "0x00 00", {}]
)
def test_a_malformed_log_is_a_bad_answer(field: str, value: Any) -> None:
    if field == "data" and value in ("0x", ""):
        return
    with pytest.raises(RetryableError):
        LogParser()({**LOG, field: value})
    with pytest.raises(RetryableError):
        LogParser()({key: kept for key, kept in LOG.items() if key != field})


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.text(string.hexdigits).map("0x".__add__),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@given(st.dictionaries(st.sampled_from(list(LOG)), anything))
def test_no_answer_of_a_node_ends_in_another_error(changes: dict[str, Any]) -> None:
    try:
        event = LogParser()({**LOG, **changes})
    except RetryableError:
        return
    assert json.dumps(event.topics)
    assert len(bytes.fromhex(event.address[2:])) == 20
    assert all(
        len(bytes.fromhex(entry[2:])) == 32 for entry in (*event.topics, event.block_hash, event.transaction_hash)
    )


@given(st.binary(max_size=200), st.lists(st.binary(min_size=32, max_size=32), max_size=4))
def test_arbitrary_words_survive(data: bytes, topics: list[bytes]) -> None:
    event = LogParser()({**LOG, "data": "0x" + data.hex(), "topics": ["0x" + entry.hex() for entry in topics]})
    assert event.data == data
    assert [bytes.fromhex(entry[2:]) for entry in event.topics] == topics
    for i in range(8):
        piece = data[32 * i : 32 * i + 32]
        assert event.word(i) == (int.from_bytes(piece) if len(piece) == 32 else None)
        clean = len(piece) == 32 and not any(piece[:12])
        assert event.word_address(i) == ("0x" + piece[12:].hex() if clean else None)


@given(st.integers(0, 2**256 - 1))
def test_quantities_round_trip(value: int) -> None:
    assert quantity(hex(value)) == value
