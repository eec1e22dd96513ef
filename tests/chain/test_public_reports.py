"""What public bug reports of other indexers tell of nodes and tokens, tried on this one; each names its report."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.errors import BadAnswerError
from indexer.errors import RetryableError
from indexer.logs.log_filter import EVERYTHING, events_of
from protocols.common import symbol_of

HASH, OTHER = "0x" + "ab" * 32, "0x" + "cd" * 32
LOG = {
    "address": "0x" + "11" * 20, "topics": [HASH], "data": "0x", "blockNumber": "0x5", "blockHash": HASH,
    "transactionHash": HASH, "transactionIndex": "0x0", "logIndex": "0x0", "removed": False,
}  # fmt: skip


def events(*logs: dict[str, Any]) -> list[Any]:
    return events_of(logs, EVERYTHING, 5, 5)


def test_logs_of_a_block_that_left_the_chain_beside_those_in_its_place() -> None:
    """graphprotocol/graph-node 5661: one answer has both, the former marked `removed`; the subgraph was stuck for good."""
    gone = LOG | {"blockHash": OTHER, "transactionHash": OTHER, "removed": True}
    assert events(gone, LOG) == events(LOG, gone) == events(LOG)
    with pytest.raises(BadAnswerError, match="two hashes for block 5"):
        events(gone | {"removed": False}, LOG)


def test_a_log_that_comes_twice_is_one_event() -> None:
    """filecoin-project/ref-fvm 1350, ponder-sh/ponder 1374: events were counted twice, or broke the insert."""
    assert events(LOG, LOG) == events(LOG)


def test_two_logs_of_one_number_are_a_bad_answer() -> None:
    """blockscout/blockscout PR 10880: clients number two logs of a transaction alike; another endpoint is asked."""
    with pytest.raises(BadAnswerError, match="two logs numbered 0 in block 5"):
        events(LOG, LOG | {"data": "0x01"})
    per_transaction = LOG | {"transactionHash": OTHER, "transactionIndex": "0x1"}  # besu PR 4355, lotus 11630
    assert len(events(LOG, per_transaction)) == 2


@pytest.mark.parametrize("number", ["0x4", "0x6"])
def test_logs_of_a_block_that_was_not_asked_for_are_a_bad_answer(number: str) -> None:
    """ethereum/go-ethereum 25300: asked for a block that is still to come, nodes answer with others."""
    with pytest.raises(BadAnswerError, match=r"for 5\.\.5"):
        events(LOG | {"blockNumber": number})


@pytest.mark.parametrize("field", ["blockNumber", "blockHash", "transactionHash", "transactionIndex", "logIndex"])
def test_a_log_of_the_pending_block_is_a_bad_answer(field: str) -> None:
    """theinterfold/interfold PR 1880: where it stands is null, as it stands nowhere yet."""
    with pytest.raises(RetryableError):
        events(LOG | {field: None})


@pytest.mark.parametrize(
    ("text", "word", "symbol"),
    [
        ("MKR", b"", "MKR"),
        ("", b"MKR" + bytes(29), "MKR"),  # aave/protocol-subgraphs PR 105, rotki
        ("4d4b52" + "00" * 29, b"", "MKR"),  # vultisig/vultisig-android 4873: MKR on Arbitrum
        ("FACE", b"", "FACE"),
        ("ab" * 32, b"", "ab" * 32),
        ("00" * 32, b"", "00" * 32),
        ("", bytes(32), "0x12"),
        ("", b"\xff\xfe" + bytes(30), "\ufffd\ufffd"),
    ],
)
def test_a_symbol_is_what_people_call_the_token(text: str, word: bytes, symbol: str) -> None:
    assert symbol_of(text, word, "0x12") == symbol


@given(st.text(max_size=64), st.binary(max_size=32))
def test_any_symbol_is_a_text(text: str, word: bytes) -> None:
    assert isinstance(symbol_of(text, word, "0x12"), str)
    assert symbol_of(text, word, "0x12")
