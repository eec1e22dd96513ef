"""Chains of their own with a market each, for commands that sync several at once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multicall.constants import MULTICALL3_BYTECODE

from indexer.chain.client import Chain
from indexer.store.store import Store
from indexer.sync.verify import verify
from tests.devnet.node import MULTICALL3, Anvil
from tests.devnet.scenario import Devnet
from tests.faulty import FaultyNode
from tests.truth import adapter_of, deployment_of, raw

ELSEWHERE = "0x00000000000000000000000000000000000ca11b"
A_SECOND = 4
#: seconds for what takes a few
PATIENCE = 240.0


@dataclass
class World:
    """One chain with a market on it, reached through a proxy that notes when each call came."""

    name: str
    node: Anvil
    proxy: FaultyNode
    market: Devnet
    keys: str
    multicall3: str
    came: list[tuple[float, int]] = field(default_factory=list)

    def act(self, number: int) -> None:
        """Some activity; on the chain with blocks of 250 ms the blocks that a moment brings."""
        self.market.step(number)
        if self.name == "quick":
            mine_fast(self.node, 8)

    @property
    def toml(self) -> str:
        lines = [
            f"[chains.{self.name}]",
            f"chain_id = {self.node.chain_id}",
            f'multicall3 = "{self.multicall3}"',
            self.keys,
        ]
        addresses = ", ".join(f'{key} = "{address}"' for key, address in self.market.addresses.items())
        lines += [
            f"[deployments.{self.market.name}]", f'protocol = "{self.market.protocol}"', f'chain = "{self.name}"',
            f"start_block = {self.market.start_block}", f"addresses = {{ {addresses} }}",
        ]  # fmt: skip
        return "\n".join(lines) + "\n"


def mine_fast(node: Anvil, blocks: int) -> None:
    began = node.timestamp()
    for number in range(1, blocks + 1):
        node.set_next_timestamp(began + (number + A_SECOND - 1) // A_SECOND)
        node.rpc("evm_mine")


@contextmanager
def world(
    name: str, chain_id: int, deploy: Callable[[Anvil], Devnet], *, keys: str = "", multicall3: str = MULTICALL3, **faults: Any
) -> Iterator[World]:  # fmt: skip
    with Anvil(chain_id=chain_id) as node:
        node.set_code(multicall3, MULTICALL3_BYTECODE)
        market = deploy(node)
        market.name = f"market-{name}"
        market.populate(chain_id, 8)
        with FaultyNode(node.url, **faults) as proxy:
            made = World(name, node, proxy, market, keys, multicall3)

            def note(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
                made.came.append((time.monotonic(), 1))
                return answer

            proxy.edit = note
            yield made


def command(folder: Path, *flags: str, db: str = "dbs/") -> list[str]:
    return [sys.executable, "-m", "indexer", "--config", str(folder / "indexer.toml"), "--db", f"{folder}/{db}", *flags]


def environment(worlds: Sequence[World]) -> dict[str, str]:
    return {**os.environ, **{f"{one.name.upper()}_RPC_URL": one.proxy.url for one in worlds}}


def run(folder: Path, worlds: Sequence[World], *flags: str, db: str = "dbs/") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command(folder, *flags, db=db),
        env=environment(worlds),
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )


def children(process: "subprocess.Popen[str]") -> list[int]:
    text = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(one) for one in text.split()]


def wait_for(what: str, happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def block_of(folder: Path, one: World) -> int:
    """The block of a chain's last snapshot, 0 before the first."""
    path = folder / "dbs" / f"{one.name}.db"
    try:
        return raw(path, "select coalesce(max(block_number), 0) from deployments")[0][0] if path.exists() else 0
    except Exception:  # noqa: BLE001 - a file that is just being made
        return 0


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def wrong(folder: Path, one: World) -> list[str]:
    """Rows that differ from what the contracts say at the block they name; a chain without rows is wrong too."""
    path = folder / "dbs" / f"{one.name}.db"
    with (
        closing(Chain(one.name, one.node.chain_id, [one.node.url], one.multicall3)) as chain,
        Store(path) as store,
    ):
        verdicts = verify(store, chain, [adapter_of(deployment_of(one.market))])
    found = [f"{m.account} {m.what}: {m.ours}, not {m.contract}" for verdict in verdicts for m in verdict.mismatches]
    return found if sum(verdict.checked for verdict in verdicts) >= 4 else [*found, f"{one.name}: hardly any rows"]
