"""What flags name, asked in one go, is what plain reads answer; where a node cannot do that, plain reads are asked."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import indexer.reads
from indexer.adapter import HealthFirst, Part
from indexer.chain.client import Chain
from indexer.model import Position, PositionKey
from indexer.reads import lens
from indexer.reads.multicall import PinnedReader
from tests.devnet import aave_v2, aave_v3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.packages import solc
from tests.devnet.scenario import Devnet
from tests.faulty import FaultyNode
from tests.tiny_contracts import ECHO, GAS_EATER, REVERT, address
from tests.truth import adapter_of

MARKETS: dict[str, Callable[[Anvil], Devnet]] = {
    "aave-v3.0": lambda node: aave_v3.deploy(node, "3.0.2"),
    "aave-v3.6": lambda node: aave_v3.deploy(node, "3.6"),
    "aave-v2": aave_v2.deploy,
}
WORD = "balanceOf(address)(uint256)"
NAMED = {1: [(address(1), WORD)], 4: [(address(2), WORD), (address(3), WORD)]}


class Watched(PinnedReader):
    """Keeps how many calls of the lens were answered, and how many plain reads were made."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain, chain.block("latest"))
        self.plain = 0
        self.seen: list[Any] = []

    def __call__(self, reads: Any, prelude: Any = ()) -> list[Any]:
        self.plain += len(reads)
        return super().__call__(reads, prelude)

    def by_flags(self, *asked: Any) -> list[list[Any]] | None:
        found = super().by_flags(*asked)
        self.seen.append(found)
        return found


class Plain(PinnedReader):
    """Never uses the lens."""

    def by_flags(self, *_: Any) -> None:
        return None


@pytest.fixture(scope="module", params=list(MARKETS))
def market(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Devnet]:
    with Anvil() as node:
        node.place_multicall3()
        market: Devnet = MARKETS[request.param](node)
        market.populate(1, 40)
        yield market


def positions(chain: Chain, market: Devnet) -> Iterator[tuple[list[Position], list[Position], Watched]]:
    """Health alone, then everything, of all accounts and one that holds nothing: plainly, by the lens, and how."""
    adapter = adapter_of(market)
    assert isinstance(adapter, HealthFirst)
    state = adapter.read_market(PinnedReader(chain, chain.block("latest")), None)
    keys = [PositionKey(account.lower()) for account in [*market.users, address(4242)]]
    for how in (adapter.read_health, adapter.read_positions):
        plain, watched = Plain(chain, chain.block("latest")), Watched(chain)
        yield how(plain, state, keys), how(watched, state, keys), watched


def test_the_code_is_what_its_source_compiles_to() -> None:
    source = (Path(indexer.reads.__file__).parent / "lens.yul").read_text()
    settings = {
        "evmVersion": "london",
        "optimizer": {"enabled": True},
        "outputSelection": {"*": {"*": ["evm.bytecode.object"]}},
    }
    asked = {"language": "Yul", "sources": {"lens.yul": {"content": source}}, "settings": settings}
    built = solc("0.8.24", asked)["contracts"]["lens.yul"]["Lens"]["evm"]["bytecode"]["object"]
    assert f"0x{built}" == lens.LENS_CODE


def test_positions_are_those_of_plain_reads(market: Devnet) -> None:
    with Chain("devnet", CHAIN_ID, [market.node.url], MULTICALL3) as chain:
        for plain, quick, watched in positions(chain, market):
            assert quick == plain
            assert any(not position.empty for position in quick)
            assert len(watched.seen) == 1
            assert watched.seen[0] is not None
            assert watched.plain < len(quick), "a read of each account was made besides"


@pytest.mark.parametrize("fault", ["override-unsupported", "override-ignored"])
def test_a_node_without_overrides_is_asked_plainly(market: Devnet, fault: str) -> None:
    with (
        FaultyNode(market.node.url, seed=1, faults={fault: 1}) as node,
        Chain("devnet", CHAIN_ID, [node.url], MULTICALL3) as chain,
    ):
        for plain, quick, watched in positions(chain, market):
            assert quick == plain
            assert watched.seen == [None]
        refused = node.injected[fault]
        list(positions(chain, market))
        assert node.injected[fault] == refused, "it is not asked again for what it cannot do"


@pytest.mark.parametrize("gas", [3_000_000, 6_000_000])
def test_a_node_that_gives_little_gas_is_asked_about_fewer_accounts_at_a_time(market: Devnet, gas: int) -> None:
    with FaultyNode(market.node.url, seed=1) as node, Chain("devnet", CHAIN_ID, [node.url], MULTICALL3) as chain:
        node.gas_cap = gas
        for plain, quick, watched in positions(chain, market):
            assert quick == plain
            assert watched.seen[0] is not None


@pytest.fixture(scope="module")
def tiny(needs_node: None) -> Iterator[Anvil]:
    with Anvil() as node:
        node.place_multicall3()
        for n, code in enumerate((ECHO, REVERT, GAS_EATER)):
            node.set_code(address(n), code)
        node.rpc("evm_mine")
        yield node


@pytest.mark.parametrize("bad", [address(1), address(2), address(77)])
def test_a_function_that_fails_or_is_not_there_is_left_to_plain_reads(tiny: Anvil, bad: str) -> None:
    """It reverts, eats all gas, or has no code and so answers nothing."""
    with Chain("devnet", CHAIN_ID, [tiny.url], MULTICALL3) as chain:
        read = PinnedReader(chain, chain.block("latest"))
        account = "0x" + "00" * 19 + "24"  # as ECHO answers what it is sent, its flags are of the call: always the same
        always = [(address(0), WORD)]
        (echoed,) = read.by_flags([account], always, {}) or []
        bit = echoed[0] & -echoed[0]
        assert read.by_flags([account], always, {bit: [(address(0), WORD)]}) == [[echoed[0]] * 2]
        assert read.by_flags([account], always, {bit: [(bad, WORD)]}) is None
        assert chain.has_lens


def test_what_no_flag_can_name_is_not_asked() -> None:
    assert lens.encode([address(1)], [(address(1), WORD)], {1 << 255: [(address(2), WORD)]}) is None
    assert lens.encode([address(1)], [(address(1), WORD)], {1 << 254: [(address(2), WORD)]}) is not None


def answer(rows: Sequence[Sequence[int]]) -> bytes:
    return b"".join(word.to_bytes(32) for row in rows for word in row)


ROWS = [[0], [1, 7], [4, 8, 9], [5, 1, 2, 3], [2]]


@given(st.integers(1, 40), st.integers(-300, 300))
def test_an_answer_that_is_not_exactly_what_the_flags_call_for_counts_for_nothing(count: int, cut: int) -> None:
    always: list[Part] = [(address(0), WORD)]
    whole = answer(ROWS)
    assert lens.decode(whole, len(ROWS), always, NAMED) == ROWS
    other = whole[:cut] if cut <= 0 else whole + bytes(cut)
    if cut:
        assert lens.decode(other, len(ROWS), always, NAMED) is None
    if count != len(ROWS):
        assert lens.decode(whole, count, always, NAMED) is None


def test_a_word_that_is_no_value_of_its_type_counts_for_nothing() -> None:
    small = [(address(0), "flags(address)(uint40)")]
    assert lens.decode((2**40 - 1).to_bytes(32), 1, small, {}) == [[2**40 - 1]]
    assert lens.decode((2**40).to_bytes(32), 1, small, {}) is None
