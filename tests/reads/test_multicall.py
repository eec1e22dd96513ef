"""Pinned reads: every read answered once and in order whatever the node's limits, and never for another block."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from importlib import resources
from typing import Any

import eth_abi
import pytest
from eth_abi.exceptions import DecodingError
from eth_utils.abi import function_abi_to_4byte_selector
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer.abi import abi
from indexer.adapter import required
from indexer.chain.client import Chain
from indexer.chain.errors import BadAnswerError
from indexer.chain.limits import Limit
from indexer.errors import ChainError, PrunedError, ReadFailedError, ReorgError
from indexer.model import Failed, Read
from indexer.reads.codec import codec, decode_aggregate, decode_read, encode_aggregate, encode_read
from indexer.reads.guards import ARBSYS
from indexer.reads.multicall import FIRST_SIZE, NEWEST_SIGHTS, PinnedReader
from indexer.reads.probes import probes
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.tiny_contracts import (
    BLOCK_NUMBER,
    CALLER,
    COUNTER,
    ECHO,
    EOA,
    GAS_EATER,
    LOOP,
    PANIC_17,
    REVERT,
    REVERT_42,
    address,
)

CONTRACTS = {
    name: (address(i), code)
    for i, (name, code) in enumerate(
        {
            "echo": ECHO,
            "revert": REVERT,
            "revert_42": REVERT_42,
            "panic_17": PANIC_17,
            "eater": GAS_EATER,
            "loop": LOOP,
            "counter": COUNTER,
            "caller": CALLER,
            "number": BLOCK_NUMBER,
        }.items()
    )
}
AT = {name: where for name, (where, _) in CONTRACTS.items()}
BLOCKS = 20


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with Anvil() as anvil:
        anvil.place_multicall3()
        for where, code in CONTRACTS.values():
            anvil.set_code(where, code)
        anvil.rpc("anvil_setStorageAt", AT["echo"], hex(7), "0x" + (99).to_bytes(32).hex())
        anvil.mine(BLOCKS)
        yield anvil


@pytest.fixture(scope="module")
def faulty(node: Anvil) -> Iterator[FaultyNode]:
    with FaultyNode(node.url, seed=1) as proxy:
        yield proxy


@pytest.fixture(autouse=True)
def calm(faulty: FaultyNode) -> None:
    faulty.faults = {}
    faulty.gas_cap = faulty.size_cap = None
    faulty.injected.clear()


def connect(*urls: str, **options: Any) -> Chain:
    chain = Chain("devnet", CHAIN_ID, urls, MULTICALL3, **({"backoff": 0.01, "attempts": 6} | options))
    chain.check()
    return chain


def echo(value: int) -> Read:
    return Read(AT["echo"], "echo(uint256)(uint256)", (value,))


def number() -> Read:
    return Read(AT["number"], "number()(uint256)")


# answers


def test_reads_are_of_the_pinned_block_not_of_the_head(node: Anvil) -> None:
    chain = connect(node.url)
    for at in (3, 11, BLOCKS):
        reader = PinnedReader(chain, chain.block(at))
        assert reader.block.number == at
        assert reader([number(), Read(MULTICALL3, "getCurrentBlockTimestamp()(uint256)")]) == [
            at,
            reader.block.timestamp,
        ]


def test_a_failed_read_is_a_value_with_its_revert_data(node: Anvil) -> None:
    chain = connect(node.url)
    read = PinnedReader(chain, chain.block("latest"))
    reads = [
        echo(5),
        Read(AT["revert"], "x()(uint256)"),
        Read(AT["revert_42"], "x()(uint256)"),
        Read(EOA, "x()(uint256)"),
        Read(AT["echo"], "echo(uint256)(bool)", (2,)),
        Read(AT["echo"], "echo(uint256)(string)", (2**255,)),
        echo(6),
    ]
    five, empty, data, nobody, not_bool, not_string, six = read(reads)
    assert (five, six) == (5, 6)
    assert empty == Failed(reads[1], b"", "reverted without a reason")
    assert int.from_bytes(data.data) == 42
    assert not nobody
    assert "no such contract" in nobody.reason
    assert isinstance(not_bool, Failed)
    assert isinstance(not_string, Failed)
    assert read([]) == []


def test_a_text_is_cut_to_the_length_of_a_name_wherever_it_stands_in_an_answer(node: Anvil) -> None:
    read = PinnedReader(connect(node.url), connect(node.url).block("latest"))
    long, cut = "x" * 20_000, "x" * 64
    assert read(
        [
            Read(AT["echo"], "symbol(string)(string)", (long,)),
            Read(AT["echo"], "f(string[])(string[])", ([long, "short"],)),
            Read(
                AT["echo"],
                "f((uint256,string,(string,bool)[]))((uint256,string,(string,bool)[]))",
                ((7, long, [(long, True)]),),
            ),
            Read(AT["echo"], "f(uint256,string)(uint256,string)", (7, long)),
        ]
    ) == [cut, (cut, "short"), (7, cut, ((cut, True),)), (7, cut)]


def test_a_panic_is_told_in_words_like_every_other_reason(node: Anvil) -> None:
    read = PinnedReader(connect(node.url), connect(node.url).block("latest"))
    panicking = Read(AT["panic_17"], "x()(uint256)")
    (answer,) = read([panicking])
    assert answer.reason == "panicked: a number overflowed or fell below zero (0x11)"
    with pytest.raises(ReadFailedError) as raised:
        required(read, [panicking])
    assert str(raised.value) == f"{AT['panic_17']} does not answer x: {answer.reason}"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("4e487b71" + f"{0x12:064x}", "panicked: division by zero (0x12)"),
        ("4e487b71" + "f" * 64, "panicked: for a reason that Solidity does not name (0x" + "f" * 64 + ")"),
        ("4e487b71" + "00" * 31, "reverted with 0x4e487b71"),
        ("08c379a0" + f"{32:064x}{3:064x}" + b"hi\x07".hex(), "hi?"),
        ("08c379a0" + f"{32:064x}{2**255:064x}" + b"hi".hex(), "hi"),
        ("12345678", "reverted with 0x12345678"),
        ("12", "reverted with 0x12"),
    ],
)
def test_revert_data_is_told_in_words(data: str, reason: str) -> None:
    assert decode_read(number(), False, bytes.fromhex(data)).reason == reason


def test_the_prelude_comes_first_in_every_aggregate_and_is_forgotten(node: Anvil) -> None:
    chain = connect(node.url)
    read = PinnedReader(chain, chain.block("latest"))
    count = Read(AT["counter"], "count()(uint256)")
    assert read([count, count], [count] * 3) == [4, 5]
    answers = read([echo(i) for i in range(2 * FIRST_SIZE)] + [count], [count] * 3)
    assert answers == [*range(2 * FIRST_SIZE), 4]
    assert read([count]) == [1]


class Recovering(FaultyNode):
    """Down for its first four eth_calls."""

    def _refusal(self, method: str, params: list[Any]) -> tuple[str, int, str] | None:
        if method == "eth_call" and self.calls["eth_call"] <= 4:
            return "internal", -32603, "Internal error"
        return super()._refusal(method, params)


def test_one_read_with_a_prelude_is_asked_as_patiently_as_any_request(node: Anvil) -> None:
    with Recovering(node.url) as flaky:
        chain = connect(flaky.url)
        read = PinnedReader(chain, chain.block("latest"))
        count = Read(AT["counter"], "count()(uint256)")
        assert read([count], [count]) == [2]


def test_reads_with_a_sender_are_made_from_it(node: Anvil) -> None:
    chain = connect(node.url)
    read = PinnedReader(chain, chain.block("latest"))
    caller = Read(AT["caller"], "who()(address)")
    reads = [caller._replace(sender=EOA), caller, caller._replace(sender=address(77)), number()]
    reads += [Read(AT["revert_42"], "x()(uint256)", sender=EOA)]
    mine, pooled, other, at, failed = read(reads)
    assert (mine, pooled, other, at) == (EOA, MULTICALL3.lower(), address(77), BLOCKS)
    assert int.from_bytes(failed.data) == 42


# every read once, in order


KINDS = {
    "echo": lambda i: (echo(i), i),
    "number": lambda i: (number(), BLOCKS),
    "revert": lambda i: (Read(AT["revert"], "x()(uint256)"), Failed),
    "revert_42": lambda i: (Read(AT["revert_42"], "y()(uint256)"), Failed),
    "eater": lambda i: (Read(AT["eater"], "z()(uint256)"), Failed),
    "loop": lambda i: (Read(AT["loop"], "loop(uint256)(uint256)", (1 + 997 * i % 20_000,)), 1),
    "nobody": lambda i: (Read(EOA, "x()(uint256)"), Failed),
}


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    kinds=st.lists(st.sampled_from(sorted(KINDS)), max_size=120),
    gas=st.sampled_from([None, 3_000_000, 10_000_000, 50_000_000]),
    size=st.sampled_from([None, 3_000, 20_000]),
)
def test_every_read_is_answered_once_in_order_whatever_the_limits(
    faulty: FaultyNode, kinds: list[str], gas: int | None, size: int | None
) -> None:
    faulty.gas_cap, faulty.size_cap = gas, size
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    pairs = [KINDS[kind](i) for i, kind in enumerate(kinds)]
    for (_, wanted), answer in zip(pairs, read([asked for asked, _ in pairs]), strict=True):
        assert isinstance(answer, Failed) if wanted is Failed else answer == wanted


def test_the_size_is_learned_and_kept(faulty: FaultyNode) -> None:
    faulty.gas_cap = 12_000_000
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    reads = [Read(AT["loop"], "loop(uint256)(uint256)", (5_000,))] * 400  # 0.2 million gas each: some 50 fit
    before = chain.requests
    assert read(reads) == [1] * 400
    learning = chain.requests - before
    before = chain.requests
    assert read(reads) == [1] * 400
    assert chain.requests - before <= 16
    assert learning <= 24


def test_one_call_that_burns_all_gas_does_not_spoil_the_others(faulty: FaultyNode) -> None:
    faulty.gas_cap = 50_000_000
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    reads = [echo(i) for i in range(1_000)]
    reads[300] = Read(AT["eater"], "echo(uint256)(uint256)", (1,))
    before = chain.requests
    answers = read(reads)
    assert answers[:300] + answers[301:] == [*range(300), *range(301, 1_000)]
    assert isinstance(answers[300], Failed)
    assert chain.requests - before < 40


def test_thousands_of_honest_failures_cost_few_requests(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    reads = [Read(AT["revert"], "x(uint256)(uint256)", (i,)) for i in range(3_000)]
    for most in (6, 3):
        before = chain.requests
        assert all(isinstance(answer, Failed) for answer in read(reads))
        assert chain.requests - before <= most


@pytest.mark.parametrize("probe", [0, 1, 2], ids=["pairing", "nested", "blake2f"])
@pytest.mark.parametrize(("gas", "rounds", "calls"), [(40_000_000, 20_000, 3), (350_000_000, 150_000, 1)])
def test_a_starved_call_is_asked_again_with_enough_gas(
    faulty: FaultyNode, gas: int, rounds: int, calls: int, probe: int
) -> None:
    """What comes behind a gas eater has a 64th of the gas: it fails without data, and must not be believed."""
    faulty.gas_cap = gas
    chain = connect(faulty.url)
    chain.probe = probe
    read = PinnedReader(chain, chain.block("latest"))
    heavy = Read(AT["loop"], "loop(uint256)(uint256)", (rounds,))  # of 40 gas
    answers = read([Read(AT["eater"], "z()(uint256)"), *[heavy] * calls])
    assert answers[1:] == [1] * calls
    assert isinstance(answers[0], Failed)


@pytest.mark.parametrize("probe", [0, 1, 2], ids=["pairing", "nested", "blake2f"])
def test_honest_failures_among_many_reads_cost_nothing_more(faulty: FaultyNode, probe: int) -> None:
    chain = connect(faulty.url)
    chain.probe = probe
    read = PinnedReader(chain, chain.block("latest"))
    reads = [Read(AT["revert"], "x()(uint256)"), *[echo(i) for i in range(100)], Read(EOA, "x()(uint256)")]
    before = chain.requests
    assert read(reads)[1:-1] == [*range(100)]
    assert chain.requests - before == 1


def test_a_read_that_no_gas_suffices_for_is_a_failed_value(faulty: FaultyNode) -> None:
    faulty.gas_cap = 5_000_000
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    endless = Read(AT["loop"], "loop(uint256)(uint256)", (10**9,))
    first, last, failed = read([echo(1), echo(2), endless])
    assert (first, last) == (1, 2)
    assert isinstance(failed, Failed)
    faulty.gas_cap = 60_000  # so little is left behind it that the aggregate as a whole runs out
    assert isinstance(read([Read(AT["eater"], "z()(uint256)")])[0], Failed)


@pytest.mark.parametrize("code", [REVERT, "0x"], ids=["a call fails", "nothing there"])
@pytest.mark.parametrize("absent", [1, 2, 3])
def test_without_the_probe_of_gas_reads_still_come_right(
    node: Anvil, monkeypatch: pytest.MonkeyPatch, code: str, absent: int
) -> None:
    """The first probe that a node knows is asked; one at a time where it knows none."""
    nobody = "0x" + "00" * 19 + "ff"
    node.set_code(nobody, code)
    node.mine(1)
    chain = connect(node.url)
    known = probes(chain.multicall3)
    unlike = [replace(one, target=nobody, answer=b"there is none") for one in known[:absent]]
    monkeypatch.setattr("indexer.reads.multicall.probes", lambda _: [*unlike, *known[absent:]])
    read = PinnedReader(chain, chain.block("latest"))
    assert read([echo(1), echo(2)]) == [1, 2]
    assert chain.probe == absent % 3
    before = chain.requests
    assert read([echo(i) for i in range(100)]) == [*range(100)]
    assert (chain.requests - before == 1) == (absent < 3)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5_000)), max_size=200))
def test_a_limit_stays_within_its_bounds(steps: list[tuple[bool, int]]) -> None:
    limit = Limit(500, 5_000)
    for good, count in steps:
        asked = min(count, limit.size)
        if good:
            limit.fits(asked)
        else:
            limit.too_big(asked)
            assert limit.size <= max(1, asked // 2)
        assert 1 <= limit.size <= 5_000


# the node may lie about the block


def test_an_answer_for_another_block_is_asked_again(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block(5))
    faulty.faults = {"ignores-block": 0.3}
    for _ in range(8):
        assert read([number(), echo(1)]) == [5, 1]
    assert faulty.injected["ignores-block"] > 0


def test_a_node_that_always_ignores_the_block_is_left_or_named(node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"ignores-block": 1}
    chain = connect(faulty.url, node.url)
    assert PinnedReader(chain, chain.block(5))([number()]) == [5]
    alone = connect(faulty.url)
    with pytest.raises(ChainError, match="another block"):
        PinnedReader(alone, alone.block(5))([number()])
    with pytest.raises(ChainError, match="another block"):
        PinnedReader(alone, alone.block(5))([number()._replace(sender=EOA)])
    head = PinnedReader(alone, alone.block("latest"))
    assert head([number()]) == [BLOCKS] or head([number()])[0] > BLOCKS


@pytest.mark.parametrize(("guard", "noticed"), [("full", True), ("timestamp", True), ("none", False)])
def test_the_guard_can_be_loosened_for_chains_that_define_it_otherwise(
    faulty: FaultyNode, guard: Any, noticed: bool
) -> None:
    faulty.faults = {"ignores-block": 1}
    chain = connect(faulty.url, guard=guard)
    read = PinnedReader(chain, chain.block(5))
    if noticed:
        with pytest.raises(ChainError):
            read([number()])
    else:
        assert read([number()])[0] >= BLOCKS


@pytest.mark.parametrize(
    ("guard", "noticed"), [("full", True), ("number", True), ("arbsys", True), ("timestamp", False)]
)
def test_a_node_one_block_off_is_caught_where_four_blocks_share_a_second(
    needs_node: None, guard: Any, noticed: bool
) -> None:
    with Anvil() as node, FaultyNode(node.url) as ahead:
        node.place_multicall3()
        node.set_code(AT["number"], BLOCK_NUMBER)
        node.set_code(ARBSYS, BLOCK_NUMBER)
        node.mine(3)
        node.mine(4, interval=0)
        head = node.block_number()
        assert node.timestamp(head - 1) == node.timestamp(head)
        right = connect(node.url, guard=guard)
        assert PinnedReader(right, right.block(head - 1))([number()]) == [head - 1]
        ahead.faults = {"ignores-block": 1}  # it answers for the head
        wrong = connect(ahead.url, guard=guard, attempts=2)
        read = PinnedReader(wrong, wrong.block(head - 1))
        if noticed:
            with pytest.raises(ChainError, match="another block"):
                read([number()])
        else:
            assert read([number()]) == [head]


@pytest.mark.parametrize("guard", ["full", "number", "timestamp"])
def test_an_endpoint_that_keeps_no_state_is_named_in_one_line_and_not_asked_again(
    node: Anvil, faulty: FaultyNode, guard: Any
) -> None:
    faulty.faults = {"ignores-block": 1}
    alone = connect(faulty.url, guard=guard, attempts=7)
    with pytest.raises(PrunedError, match=r"^http://127[^\n]*: this endpoint keeps no state: [^\n]*$"):
        PinnedReader(alone, alone.block(5))([number()])
    assert faulty.injected["ignores-block"] == NEWEST_SIGHTS
    both = connect(faulty.url, node.url, guard=guard)
    assert PinnedReader(both, both.block(5))([number()]) == [5]


def test_another_block_of_the_same_second_is_told_by_its_parent(needs_node: None) -> None:
    """Two chains of one clock: only the hash of the parent tells their blocks apart."""
    with Anvil() as node, FaultyNode(node.url, faults={"ignores-block": 1}) as ignoring:
        node.place_multicall3()
        node.set_code(AT["number"], BLOCK_NUMBER)
        node.mine(2)
        then = int(node.block("latest")["timestamp"], 16)
        snapshot = node.rpc("evm_snapshot")
        blocks = []
        for data in ("0x01", "0x02"):
            for second in (then + 10, then + 20):
                node.rpc("evm_setNextBlockTimestamp", second)
                node.execute({"from": EOA, "to": EOA, "data": data, "gas": "0x10000", "gasPrice": "0x0"})
            chain = connect(node.url, attempts=2)
            blocks.append(chain.block("latest"))
            if data == "0x01":
                node.rpc("evm_revert", snapshot)
        one, other = blocks
        assert one.timestamp == other.timestamp
        assert one.number == other.number
        assert one.parent_hash != other.parent_hash
        with pytest.raises(ChainError, match="another block"):
            PinnedReader(connect(ignoring.url, attempts=2), one)([number()])
        assert PinnedReader(connect(ignoring.url, attempts=2), other)([number()]) == [other.number]


def test_where_blocks_cannot_be_named_by_hash_they_are_by_number_and_that_is_said(
    node: Anvil, faulty: FaultyNode, caplog: pytest.LogCaptureFixture
) -> None:
    faulty.faults = {"eip1898-refused": 1}
    chain = connect(faulty.url)
    for at in (3, 11):
        read = PinnedReader(chain, chain.block(at))
        assert read([number(), echo(1), number()._replace(sender=EOA)]) == [at, 1, at]
        assert chain.code(MULTICALL3, chain.block(at))
    assert read.storage([(AT["echo"], 7)]) == [99]
    assert caplog.text.count("by number") == 1
    assert faulty.injected["eip1898-refused"] == 1
    gone = PinnedReader(chain, replace(chain.block(5), hash="0x" + "11" * 32))
    with pytest.raises(ReorgError, match="left the canonical chain"):
        gone([number()])
    faulty.faults = {"eip1898-refused": 1, "ignores-block": 1}
    with pytest.raises(ChainError, match="another block"):
        PinnedReader(connect(faulty.url, attempts=2), chain.block(5))([number()])


def test_an_endpoint_that_names_blocks_by_hash_is_preferred(node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"eip1898-refused": 1}
    chain = connect(faulty.url, node.url)
    assert PinnedReader(chain, chain.block(5))([number()]) == [5]
    assert not chain.by_number


def test_a_block_that_is_gone_is_no_refusal_to_name_blocks_by_hash(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    gone = replace(chain.block(5), hash="0x" + "11" * 32)
    with pytest.raises(ReorgError):
        PinnedReader(chain, gone)([number()])
    assert not chain.by_number
    assert PinnedReader(chain, chain.block(5))([number()]) == [5]
    assert not chain.by_number


def test_a_server_that_fails_for_a_while_does_not_refuse_to_name_blocks_by_hash(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    block, before = chain.block(5), faulty.requests
    faulty.status = lambda number: 502 if number <= before + 5 else 200
    try:
        assert PinnedReader(chain, block)([number()]) == [5]
    finally:
        faulty.status = lambda _: 200
    assert faulty.injected["status 502"] == 5
    assert not chain.by_number


def test_a_lagging_backend_is_waited_for(faulty: FaultyNode) -> None:
    chain = connect(faulty.url, attempts=8)
    read = PinnedReader(chain, chain.block("latest"))
    faulty.faults = {"lagging": 0.4, "header-not-found": 0.1}
    for i in range(6):
        assert read([echo(i)]) == [i]
    assert faulty.injected["lagging"] > 0


def test_an_orphaned_block_is_a_reorg_and_pruned_state_says_so(needs_node: None) -> None:
    with Anvil() as own, FaultyNode(own.url) as proxy:
        own.place_multicall3()
        own.mine(3)
        chain = connect(proxy.url)
        block = chain.block("latest")
        proxy.faults = {"pruned": 1}
        with pytest.raises(PrunedError):
            PinnedReader(chain, block)([Read(MULTICALL3, "getBlockNumber()(uint256)")])
        proxy.faults = {}
        transaction = {"from": EOA, "to": EOA, "value": "0x0", "gas": "0x5208", "gasPrice": "0x0"}
        own.reorg(1, [(transaction, 0)])
        with pytest.raises(ReorgError):
            PinnedReader(chain, block)([Read(MULTICALL3, "getBlockNumber()(uint256)")])


def test_no_multicall_in_that_block_is_a_clear_error(needs_node: None) -> None:
    with Anvil() as own:
        own.mine(2)
        chain = connect(own.url)
        with pytest.raises(ChainError, match=r"no Multicall3 at 0xca11\w+ on devnet in block 2"):
            PinnedReader(chain, chain.block("latest"))([Read(EOA, "x()(uint256)")])


# storage


def test_storage_words_come_through_a_state_override(node: Anvil) -> None:
    chain = connect(node.url)
    read = PinnedReader(chain, chain.block("latest"))
    slots = [(AT["echo"], 7), (AT["echo"], 8), (EOA, 2**256 - 1), (AT["echo"].upper().replace("X", "x"), 7)]
    assert read.storage(slots) == [99, 0, 0, 99]
    assert read.storage([]) == []
    with pytest.raises(ValueError, match="Multicall3"):
        read.storage([(MULTICALL3, 0)])
    many = [(AT["echo"], i) for i in range(7_000)]
    assert read.storage(many) == [99 if i == 7 else 0 for i in range(7_000)]


@pytest.mark.parametrize("fault", ["override-unsupported", "override-ignored"])
def test_storage_is_none_where_the_node_takes_no_override(node: Anvil, faulty: FaultyNode, fault: str) -> None:
    faulty.faults = {fault: 1}
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    assert read.storage([(AT["echo"], 7)]) is None
    assert read([echo(3)]) == [3]
    if fault == "override-unsupported":
        assert read.storage([(AT["echo"], 7)]) is None
        assert faulty.injected[fault] == 1
        both = connect(faulty.url, node.url)
        assert PinnedReader(both, both.block("latest")).storage([(AT["echo"], 7)]) == [99]


@pytest.mark.parametrize(
    "error",
    [
        (-32602, "Expected 2 params, got 3"),
        (-32602, "Invalid params: unexpected field"),
        (-32000, "stateOverride is not supported"),
    ],
)
def test_an_override_is_refused_in_many_words(faulty: FaultyNode, error: tuple[int, str]) -> None:
    faulty.faults, faulty.override_refusal = {"override-unsupported": 1}, error
    chain = connect(faulty.url)
    read = PinnedReader(chain, chain.block("latest"))
    assert read.storage([(AT["echo"], 7), (AT["echo"], 8)]) is None


# codec


TYPES: dict[str, st.SearchStrategy[Any]] = {
    "uint256": st.integers(0, 2**256 - 1),
    "uint128": st.integers(0, 2**128 - 1),
    "uint8": st.integers(0, 255),
    "int256": st.integers(-(2**255), 2**255 - 1),
    "address": st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex()),
    "bool": st.booleans(),
    "bytes32": st.binary(min_size=32, max_size=32),
    "bytes": st.binary(max_size=70),
    "string": st.text(max_size=40),
    "uint256[]": st.lists(st.integers(0, 2**256 - 1), max_size=4).map(tuple),
    "(uint256,address)": st.tuples(
        st.integers(0, 2**256 - 1), st.binary(min_size=20, max_size=20).map(lambda raw: "0x" + raw.hex())
    ),
    "(bool,(uint8,bytes32))[]": st.lists(
        st.tuples(st.booleans(), st.tuples(st.integers(0, 255), st.binary(min_size=32, max_size=32))), max_size=3
    ).map(tuple),
}
typed = st.sampled_from(sorted(TYPES)).flatmap(lambda kind: st.tuples(st.just(kind), TYPES[kind]))


@given(st.lists(typed, max_size=4))
def test_the_codec_agrees_with_eth_abi(arguments: list[tuple[str, Any]]) -> None:
    types, values = [kind for kind, _ in arguments], tuple(value for _, value in arguments)
    read = Read(EOA, f"f({','.join(types)})({','.join(types)})", values)
    encoded = eth_abi.encode(types, values)
    assert encode_read(read)[4:] == encoded
    wanted: Any = tuple(values)
    assert decode_read(read, True, encoded) == (wanted[0] if len(wanted) == 1 else wanted)


@given(st.lists(st.sampled_from(sorted(TYPES)), min_size=1, max_size=3), st.binary(max_size=300), st.booleans())
def test_arbitrary_return_data_is_decoded_as_eth_abi_does_or_failed(types: list[str], data: bytes, words: bool) -> None:
    if words:  # small words: pointers and lengths that lead somewhere
        data = b"".join(bytes(31) + bytes([byte]) for byte in data[:12])
    answer = decode_read(Read(EOA, f"f()({','.join(types)})"), True, data)
    try:
        wanted = eth_abi.decode(types, data)
    except (DecodingError, ValueError, OverflowError):
        assert isinstance(answer, Failed)
    else:
        assert answer == (wanted[0] if len(types) == 1 else wanted)


@pytest.mark.parametrize(
    ("signature", "args"),
    [
        ("f(address)(uint256)", ("0x12",)),
        ("f(address)(uint256)", ("0x" + "zz" * 20,)),
        ("f(address)(uint256)", ("0x" + "11 " * 13 + " ",)),
        ("f(address)(uint256)", ()),
        ("f(uint256)(uint256)", (-1,)),
        ("f(uint256)(uint256)", (2**256,)),
        ("f(uint256)(uint256)", ("7",)),
        ("f(uint256)(uint256)", (1, 2)),
        ("f(uint8)(uint256)", (256,)),
        ("f()(uint256)", (1,)),
        ("f(uint256", (1,)),
        ("f(uint256)", (1,)),
        ("f(uint256)(uint256)()", (1,)),
        ("f(uint256,)(uint256)", (1,)),
        ("f(uint7)(uint256)", (1,)),
        ("f(integer)(uint256)", (1,)),
        ("f((uint256)(uint256)", (1,)),
        ("nonsense", ()),
    ],
)
def test_arguments_that_do_not_fit_are_the_callers_mistake(signature: str, args: tuple[Any, ...]) -> None:
    with pytest.raises(ValueError, match=r"f\(|nonsense"):
        encode_read(Read(EOA, signature, args))


@pytest.mark.parametrize("name", ["aave_v3_pool", "comet", "maker_vat", "erc20"])
def test_selectors_are_those_of_the_abis(name: str) -> None:
    entries = json.loads(resources.files("abis").joinpath(f"{name}.json").read_text())
    functions = [entry for entry in entries if entry["type"] == "function" and not entry["inputs"]]
    assert functions
    for entry in functions:
        wanted = function_abi_to_4byte_selector(entry)
        assert encode_read(Read(EOA, abi(name).function(entry["name"]))) == wanted


def test_reading_contracts_brings_no_web3() -> None:
    code = (
        "import sys; from indexer.reads.multicall import PinnedReader; from indexer.reads.codec import codec; "
        "codec('f(address)(uint256)'); print('web3' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@given(st.lists(st.tuples(st.binary(min_size=20, max_size=20), st.binary(max_size=100)), max_size=10))
def test_aggregates_are_encoded_as_eth_abi_does(calls: list[tuple[bytes, bytes]]) -> None:
    ours = encode_aggregate([("0x" + target.hex(), data) for target, data in calls])
    wanted = eth_abi.encode(["(address,bool,bytes)[]"], [[(target, True, data) for target, data in calls]])
    assert ours == bytes.fromhex("82ad56cb") + wanted


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=100)), max_size=10), st.integers(-40, 0))
def test_aggregates_are_decoded_whole_or_not_at_all(results: list[tuple[bool, bytes]], cut: int) -> None:
    data = eth_abi.encode(["(bool,bytes)[]"], [results])
    assert decode_aggregate(data, len(results)) == results
    with pytest.raises(BadAnswerError):
        decode_aggregate(data, len(results) + 1)
    last = len(results[-1][1]) if results else 1
    if cut < 0 and -cut > (-last % 32):
        with pytest.raises(BadAnswerError):
            decode_aggregate(data[:cut], len(results))


@given(st.binary(max_size=400), st.integers(0, 5))
def test_garbage_for_an_aggregate_is_a_bad_answer(data: bytes, count: int) -> None:
    with suppress(BadAnswerError):
        assert len(decode_aggregate(data, count)) == count


def test_codecs_are_kept() -> None:
    assert codec("f(address)(uint256)") is codec("f(address)(uint256)")
