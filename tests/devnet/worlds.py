"""Nodes with populated markets on them, as many test modules take them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet

D = TypeVar("D", bound=Devnet)


def aave(node: Anvil) -> AaveV3:
    return aave_v3.deploy(node, "3.6")


#: kinds of markets that differ in code or configuration, by name
KINDS: dict[str, Callable[[Anvil], Devnet]] = {
    "aave-3.0.2": lambda node: aave_v3.deploy(node, "3.0.2"),
    "aave-3.6": aave,
    "aave-v2": aave_v2.deploy,
    "compound-v2 half-up": lambda node: compound_v2.deploy(node, generation="half-up"),
    "compound-v2 truncating": compound_v2.deploy,
    "comet USDC": compound_v3.deploy,
    "comet WETH": lambda node: compound_v3.deploy(node, base="WETH", extended=True),
    "maker": maker.deploy,
}
ONE_OF_EACH = ("aave-3.6", "aave-v2", "compound-v2 truncating", "comet USDC", "maker")


@contextmanager
def alone(deploy: Callable[[Anvil], D], seed: int, users: int) -> Iterator[D]:
    """A node with one populated market."""
    with Anvil() as node:
        node.place_multicall3()
        market = deploy(node)
        market.populate(seed, users)
        yield market


@contextmanager
def together(kinds: Sequence[str], seed: int, users: int) -> Iterator[list[Devnet]]:
    """A node with a populated market of each of these kinds."""
    with Anvil() as node:
        node.place_multicall3()
        markets = [KINDS[kind](node) for kind in kinds]
        for market in markets:
            market.populate(seed, users)
        yield markets


@contextmanager
def every_protocol(seed: int, users: int) -> Iterator[list[Devnet]]:
    """A node with a populated market of each protocol."""
    with together(ONE_OF_EACH, seed, users) as markets:
        yield markets


@contextmanager
def rewound(markets: Sequence[Devnet]) -> Iterator[None]:
    """Undoes at the end whatever was done to these markets of one node."""
    with ExitStack() as stack:
        for market in markets:
            stack.enter_context(market.rewound())
        yield
