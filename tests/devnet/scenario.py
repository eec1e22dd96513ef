"""What every deployed market of the devnet offers to tests and to the demo."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

from tests.devnet.node import MULTICALL3, Anvil
from tests.devnet.send import Sender

MULTICALL3_TOML = f'multicall3 = "{MULTICALL3}"'


class Devnet(ABC):
    """One market of real contracts on a local node, with a history made from a seed.

    A protocol module offers `deploy(node) -> Devnet` (and options of its own); the same seed gives the same chain.
    `users` is every account that ever touched the market, liquidators and treasury among them; `borrowers` is who
    ever had debt, written down by the scenario itself as it acts, so it is a ground truth independent of any indexer.
    Addresses are lower-case. The market must be deployed on `node` before block `start_block` + 1.
    """

    protocol: str
    name: str
    addresses: dict[str, str]
    start_block: int

    def __init__(self, node: Anvil, sender: Sender | None = None) -> None:
        self.node = node
        self.sender = sender or Sender(node)
        self.users: list[str] = []
        self.seen: set[str] = set()
        self.borrowers: set[str] = set()

    def touched(self, *accounts: str) -> None:
        """Write down that these accounts touched the market."""
        for account in accounts:
            if account.lower() not in self.seen:
                self.seen.add(account.lower())
                self.users.append(account.lower())

    @contextmanager
    def rewound(self) -> Iterator[None]:
        """Undo, at the end, whatever is done to the node and to this object in between."""
        snapshot = self.node.snapshot()
        kept = {name: copy.copy(value) for name, value in vars(self).items() if name not in {"node", "sender"}}
        funded = set(self.sender.funded)
        try:
            yield
        finally:
            self.node.revert(snapshot)
            self.sender.funded = funded
            for new in vars(self).keys() - kept.keys() - {"node", "sender"}:
                delattr(self, new)  # it hid a class's own value
            vars(self).update(kept)

    @abstractmethod
    def populate(self, seed: int, users: int) -> None:
        """Make a history of `users` accounts with every situation the protocol knows."""

    @abstractmethod
    def step(self, seed: int) -> None:
        """Some more activity of some users, prices that move, time that passes; the other users do nothing."""

    @abstractmethod
    def set_price(self, symbol: str, raw: int) -> None:
        """Set an asset's price in the oracle's own unit."""

    @abstractmethod
    def price(self, symbol: str) -> int:
        """An asset's price in the oracle's own unit."""

    def move_price(self, symbol: str, factor: Fraction | float) -> None:
        """Multiply an asset's price; a float factor is taken to six digits."""
        exact = factor if isinstance(factor, Fraction) else Fraction(round(factor * 10**6), 10**6)
        self.set_price(symbol, int(self.price(symbol) * exact))

    @abstractmethod
    def answer(self, account: str, block: int | str = "latest") -> Any:
        """The contract's own answer about an account's health, raw (Aave: `getUserAccountData`)."""


def config_toml(chain_id: int, url: str, markets: Sequence[Devnet], chain: str = "devnet") -> str:
    """The indexer's configuration for these markets on one node."""
    lines = [f"[chains.{chain}]", f"chain_id = {chain_id}", f'rpc = ["{url}"]', MULTICALL3_TOML]
    for market in markets:
        addresses = ", ".join(f'{key} = "{address}"' for key, address in market.addresses.items())
        lines += [
            "", f"[deployments.{market.name}]", f'protocol = "{market.protocol}"', f'chain = "{chain}"',
            f"start_block = {market.start_block}", f"addresses = {{ {addresses} }}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"
