"""Accounts cut out of logs without looking closely are those that the exact way finds; what is odd goes the exact way."""

import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.errors import BadAnswerError
from indexer.errors import RetryableError
from indexer.logs import lean as lean_logs
from indexer.logs.lean import decoded, looked_through, named
from indexer.logs.log_filter import Filter, events_of
from indexer.model import Shape

POOL, OTHER = "0x" + "aa" * 20, "0x" + "bb" * 20
BORROW, TRANSFER = "0x" + "01" * 32, "0x" + "02" * 32
SHAPES = {
    (POOL, BORROW): Shape(topics=4, words=4, accounts=(2,)),
    (POOL, TRANSFER): Shape(topics=1, words=3, account_words=(0, 1), unless_zero=2),
}
WANTED = Filter.of([POOL], [BORROW, TRANSFER])
ACCOUNTS = [f"{n:040x}" for n in (0, 1, 0xABCDEF, 2**160 - 1)]


def word(digits: str) -> str:
    return f"{digits:0>64}"


def log(event: str, one: str, other: str, value: int, block: int, index: int) -> dict[str, Any]:
    topics = [event, "0x" + word("5"), "0x" + word(one), "0x" + word("0")] if event == BORROW else [event]
    data = "0x" + (word("7") * 4 if event == BORROW else word(one) + word(other) + word(f"{value:x}"))
    return {
        "address": POOL, "topics": topics, "data": data, "blockNumber": hex(block), "blockHash": f"0x{block + 1:064x}",
        "transactionHash": f"0x{index:064x}", "transactionIndex": "0x0", "logIndex": hex(index), "removed": False,
    }  # fmt: skip


def oddities(rng: random.Random, raw: dict[str, Any]) -> dict[str, Any]:
    """The same log in a way that some node or contract might have."""
    topics, data = raw["topics"], raw["data"]
    odd = [
        {"topics": topics[:-1]},
        {"topics": [*topics, "0x" + word("1")][:4]},
        {"data": data + word("9")},
        {"data": data[:-64]},
        {"data": "0x"},
        {"removed": True},
        {"address": raw["address"].upper().replace("0X", "0x")},
        {"address": OTHER},
        {"topics": [topic.upper().replace("0X", "0x") for topic in topics]},
        {"topics": [topics[0], *["0x" + "f" * 64 for _ in topics[1:]]]},
        {"data": "0x" + "f" * (len(data) - 2)},
        {"more": {"nested": [1, 2]}},
    ]
    return {**raw, **rng.choice(odd)}


def exactly(raws: list[dict[str, Any]]) -> dict[str, tuple[int, int]]:
    """Whom the logs name, by their events."""
    touched: dict[str, tuple[int, int]] = {}
    for event in events_of(raws, WANTED, 0, 100):
        if event.topic0 == BORROW:
            accounts = [event.topic_address(2)]
        else:
            accounts = [event.word_address(0), event.word_address(1)] if event.word(2) else []
        for account in accounts:
            if account is not None and account[2:] != ACCOUNTS[0]:
                first, last = touched.get(account, (event.block_number, event.block_number))
                touched[account] = (min(first, event.block_number), max(last, event.block_number))
    return touched


def answer(raws: list[Any]) -> bytearray:
    return bytearray(json.dumps({"jsonrpc": "2.0", "id": 1, "result": raws}).encode())


@given(st.integers(0, 2**32), st.integers(0, 40), st.floats(0, 0.6))
def test_no_account_is_lost_or_invented_however_odd_the_logs_are(seed: int, count: int, share: float) -> None:
    rng = random.Random(seed)
    raws = []
    for index in range(count):
        event, value = rng.choice([BORROW, TRANSFER]), rng.choice([0, 1])
        raw = log(event, rng.choice(ACCOUNTS), rng.choice(ACCOUNTS), value, rng.randrange(100), index)
        raws.append(oddities(rng, raw) if rng.random() < share else raw)
    found = decoded(answer(raws))
    assert found is not None
    lean = named(found, SHAPES, WANTED, 0, 100)
    touched: dict[str, tuple[int, int]] = {}
    parts = [*lean.touched.values(), exactly([raw for i, raw in enumerate(raws) if of_events(raw, lean.events)])]
    for part in parts:
        for account, (first, last) in part.items():
            before = touched.get(account, (first, last))
            touched[account] = (min(first, before[0]), max(last, before[1]))
    assert touched == exactly(raws)
    assert lean.count == len(raws)


def of_events(raw: dict[str, Any], events: list[Any]) -> bool:
    return any(event.log_index == int(raw["logIndex"], 16) for event in events)


def test_plain_logs_need_no_event() -> None:
    raws = [log(BORROW, ACCOUNTS[2], "", 0, 7, 1), log(TRANSFER, ACCOUNTS[1], ACCOUNTS[3], 1, 9, 2)]
    found = decoded(answer(raws))
    assert found is not None
    lean = named(found, SHAPES, WANTED, 0, 100)
    assert lean.events == []
    assert lean.touched == {
        (POOL, BORROW): {"0x" + ACCOUNTS[2]: (7, 7)},
        (POOL, TRANSFER): {"0x" + ACCOUNTS[1]: (9, 9), "0x" + ACCOUNTS[3]: (9, 9)},
    }


@pytest.mark.parametrize(
    "change",
    [{"blockNumber": "0x65"}, {"blockNumber": "seven"}, {"topics": [BORROW, "0x" + word("5"), "0x" + "0" * 24 + "g" * 40, "0x" + word("0")]}],
)  # fmt: skip
def test_what_cannot_be_true_is_a_bad_answer(change: dict[str, Any]) -> None:
    found = decoded(answer([{**log(BORROW, ACCOUNTS[1], "", 0, 7, 1), **change}]))
    assert found is not None
    with pytest.raises(BadAnswerError):
        named(found, SHAPES, WANTED, 0, 100)


def test_an_odd_log_is_read_as_strictly_as_ever() -> None:
    raw = log(BORROW, ACCOUNTS[1], "", 0, 7, 1)
    found = decoded(answer([{**raw, "data": "0xzz"}]))
    assert found is not None
    with pytest.raises(RetryableError, match="malformed log"):
        named(found, SHAPES, WANTED, 0, 100)


@pytest.mark.parametrize(
    "content",
    [
        b"<html>", b"[]", b'{"id":1}', b'{"id":1,"result":null}', b'{"id":1,"result":[{"address":1}]}', b"[" * 200_000,
        b'{"id":1,"result":[],"error":{"code":1}}', b'{"id":"x","result":[]}', b'{"id":1,"x":' + b"[" * 100_000,
        b'{"id":1,"result":[null]}', b"\xff\xfe",
    ],
)  # fmt: skip
def test_any_other_answer_is_left_to_the_general_way(content: bytes) -> None:
    assert decoded(bytearray(content)) is None


def test_answers_are_looked_through_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The logs of an answer take ten times the memory of its bytes, so several in flight must not be taken apart at once."""
    inside: list[int] = []
    most: list[int] = []

    def slowly(*given: Any) -> Any:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.02)
        inside.pop()
        return named(*given)

    monkeypatch.setattr(lean_logs, "named", slowly)
    content = answer([log(BORROW, ACCOUNTS[2], "", 0, 7, 1)])
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda _: looked_through(content, SHAPES, WANTED, 0, 100), range(8))]
    assert [one and (one.id, one.none, one.named.count) for one in found] == [(1, False, 1)] * 8
    assert most == [1] * 8
