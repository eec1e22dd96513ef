"""The first block of a contract: found wherever it can be proven, and never believed otherwise."""

from collections.abc import Iterator

import pytest

from indexer.abi import topic
from indexer.chain.client import Chain
from indexer.reads.first_block import first_block
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.tiny_contracts import EMITTER, EOA, address

BORN = 40
BLOCKS = 80
#: never created: anvil put its code there in block 60
PLACED = address(7)
PLACED_IN = 60


def creation(runtime: str, logged: str = "") -> str:
    """The code that creates a contract with that runtime code, after the opcodes `logged`."""
    size, offset = len(runtime) // 2 - 1, 11 + len(logged) // 2
    return f"0x{logged}60{size:02x}8060{offset:02x}6000396000f3{runtime[2:]}"


def created(node: Anvil, code: str) -> str:
    receipt = node.execute({"from": EOA, "data": code, "gas": hex(1_000_000), "gasPrice": "0x0"})
    return str(receipt["contractAddress"]).lower()


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with Anvil() as anvil:
        anvil.place_multicall3()
        anvil.mine(BORN - 1)
        yield anvil


@pytest.fixture(scope="module")
def contract(node: Anvil) -> str:
    """A contract of block 40 with a log in every block after that."""
    found = created(node, creation(EMITTER))
    assert node.block_number() == BORN
    data = "0x" + topic("Ordinary()")[2:] + "00" * 32
    for number in range(BORN + 1, BLOCKS + 1):
        if number == PLACED_IN:
            node.set_code(PLACED, EMITTER)
        for to in (found, PLACED):
            node.rpc("eth_sendTransaction", {"from": EOA, "to": to, "data": data, "gas": "0x30000", "gasPrice": "0x0"})
        node.rpc("evm_mine")
    return found


@pytest.fixture
def faulty(node: Anvil) -> Iterator[FaultyNode]:
    with FaultyNode(node.url) as proxy:
        yield proxy


def connect(*urls: str) -> Chain:
    return Chain("devnet", CHAIN_ID, urls, MULTICALL3, backoff=0.01, attempts=3)


def test_it_is_found_by_bisection(contract: str, faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    assert first_block(chain, [contract], chain.block("latest")) == BORN
    assert faulty.calls["eth_getCode"] <= 10  # of 81 blocks


def test_of_several_contracts_the_oldest_counts(contract: str, node: Anvil) -> None:
    chain = connect(node.url)
    assert first_block(chain, [PLACED, contract], chain.block("latest")) == BORN


@pytest.mark.parametrize(("known", "found"), [(BORN - 5, None), (BORN, None), (BORN + 1, BORN), (BORN + 30, BORN)])
def test_a_value_moves_earlier_and_never_later(
    contract: str, faulty: FaultyNode, known: int, found: int | None
) -> None:
    chain = connect(faulty.url)
    assert first_block(chain, [contract], chain.block("latest"), known) == found
    if found is None:
        assert faulty.calls["eth_getCode"] == 1


@pytest.mark.parametrize("known", [0, BORN + 30])
def test_a_node_that_says_no_code_of_what_it_forgot_proves_nothing(
    contract: str, faulty: FaultyNode, known: int
) -> None:
    faulty.code_from = BORN + 10
    chain = connect(faulty.url)
    assert first_block(chain, [contract], chain.block("latest"), known) is None
    assert faulty.injected["no-code"] > 0


def test_an_upgrade_is_no_creation_where_older_contracts_have_no_code_either(node: Anvil, faulty: FaultyNode) -> None:
    """The window of a node that forgot begins with the very block of an upgrade."""
    contract = created(node, creation(EMITTER))
    born = node.block_number()
    node.mine(5)
    data = topic("Upgraded(address)") + "00" * 32
    node.execute({"from": EOA, "to": contract, "data": data, "gas": "0x30000", "gasPrice": "0x0"})
    faulty.code_from = node.block_number()
    node.mine(5)
    chain = connect(faulty.url)
    assert first_block(chain, [contract], chain.block("latest")) is None
    faulty.code_from = 0
    again = connect(faulty.url)
    assert first_block(again, [contract], again.block("latest")) == born


def test_the_next_endpoint_is_asked(contract: str, node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"pruned": 1}
    chain = connect(faulty.url, node.url)
    assert first_block(chain, [contract], chain.block("latest")) == BORN
    faulty.faults, faulty.code_from = {}, BORN + 10
    assert first_block(chain, [contract], chain.block("latest")) == BORN
    alone = connect(faulty.url)
    faulty.faults = {"pruned": 1}
    assert first_block(alone, [contract], alone.block("latest")) is None


def test_code_without_a_creation_proves_nothing_whatever_it_logs(contract: str, node: Anvil) -> None:
    chain = connect(node.url)
    assert chain.code(PLACED, chain.block(PLACED_IN))
    assert first_block(chain, [PLACED], chain.block("latest")) is None


@pytest.mark.parametrize(
    ("logged", "proves"),
    [
        (f"7f{topic('Upgraded(address)')[2:]}60006000a1", True),
        (f"60007f{topic('OwnershipTransferred(address,address)')[2:]}60006000a2", True),
        (f"60017f{topic('OwnershipTransferred(address,address)')[2:]}60006000a2", False),  # from somebody
        (f"7f{topic('Ordinary()')[2:]}60006000a1", False),
    ],
    ids=["proxy", "owned", "handed on", "ordinary"],
)
def test_an_event_of_a_constructor_is_evidence_where_receipts_are_not_served(
    node: Anvil, contract: str, faulty: FaultyNode, logged: str, proves: bool
) -> None:
    found = created(node, creation(EMITTER, logged))
    born = node.block_number()
    node.mine(3)
    faulty.faults = {"receipts-unsupported": 1}
    chain = connect(faulty.url)
    assert first_block(chain, [found], chain.block("latest")) == (born if proves else None)
    faulty.faults = {}
    again = connect(faulty.url)
    assert first_block(again, [found], again.block("latest")) == born
