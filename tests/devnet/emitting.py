"""A node whose blocks hold logs of made-up contracts, for tests of what nodes answer."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.devnet.node import Anvil
from tests.tiny_contracts import EMITTER, EOA


@contextmanager
def node_with_logs(addresses: Iterable[str], fill: Callable[[Anvil], None]) -> Iterator[Anvil]:
    """A node on which these contracts log what they are sent, filled with blocks."""
    with Anvil() as node:
        node.place_multicall3()
        for address in addresses:
            node.set_code(address, EMITTER)
        fill(node)
        yield node


def emit(node: Anvil, to: str, logs: Iterable[tuple[str, int]], nonce: int | None = None) -> None:
    """One transaction that logs each (topic, number)."""
    data = "".join(topic[2:] + number.to_bytes(32).hex() for topic, number in logs)
    sent: dict[str, Any] = {"from": EOA, "to": to, "data": "0x" + data, "gas": hex(20_000_000), "gasPrice": "0x0"}
    node.rpc("eth_sendTransaction", sent if nonce is None else {**sent, "nonce": hex(nonce)})
