"""`python -m tests.devnet`: boot the node with every market, make a history, write the indexer's configuration, wait."""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.packages import PackageError, missing_tools
from tests.devnet.scenario import Devnet, config_toml


def with_liquidator(market: maker.Maker) -> maker.Maker:
    """A Maker whose Cat is configured, so that it is known what a liquidation takes."""
    market.addresses["cat"] = market.contracts["MCD_CAT"]
    return market


MARKETS: dict[str, Callable[[Anvil], Devnet]] = {
    "aave-v3-0": lambda node: aave_v3.deploy(node, "3.0.2"),
    "aave-v3-6": lambda node: aave_v3.deploy(node, "3.6"),
    "aave-v2": aave_v2.deploy,
    "compound-v2": compound_v2.deploy,
    "compound-v3": compound_v3.deploy,
    "maker": lambda node: with_liquidator(maker.deploy(node)),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.devnet", description=__doc__)
    parser.add_argument("--users", type=int, default=100, help="accounts in each market")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same chain")
    parser.add_argument("--port", type=int, default=8545, help="port of the node")
    parser.add_argument("--config", type=Path, default=Path("devnet.toml"), help="file to write")
    parser.add_argument("--market", action="append", choices=sorted(MARKETS), help="only these (default: all)")
    parser.add_argument("--activity", type=float, metavar="SECONDS", help="some new activity every so many seconds")
    return parser.parse_args()


def deployed(node: Anvil, names: list[str], seed: int, users: int) -> Iterator[Devnet]:
    """Deploy and populate the chosen markets one after the other."""
    node.place_multicall3()
    for name in names:
        started = time.monotonic()
        market = MARKETS[name](node)
        market.populate(seed, users)
        print(
            f"{market.name}: {len(market.users)} accounts, {len(market.borrowers)} borrowers,"
            f" block {node.block_number()}, {time.monotonic() - started:.1f} s",
            file=sys.stderr,
        )
        yield market


def main() -> None:
    options = arguments()
    missing = missing_tools()
    if missing:
        sys.exit(f"the devnet needs {' and '.join(missing)} on PATH")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as stack:
        # Like a full node it forgets old states: keeping them all makes each block slower than the one before.
        node = stack.enter_context(Anvil(port=options.port, states_in_memory=256))
        markets = []
        for market in deployed(node, options.market or list(MARKETS), options.seed, options.users):
            if stop.is_set():
                return
            markets.append(market)
        options.config.write_text(config_toml(CHAIN_ID, node.url, markets))
        print(
            f"node at {node.url} (chain {CHAIN_ID}), configuration in {options.config}; try\n"
            f"  indexer --config {options.config} --db devnet.db sync --chain devnet\n"
            f"  indexer --config {options.config} --db devnet.db at-risk\n"
            "Ctrl-C ends it"
        )
        seed = options.seed
        node.rpc("evm_setAutomine", True)  # for whoever plays with it
        while not stop.wait(options.activity):
            seed += 1
            node.rpc("evm_setAutomine", False)
            for market in markets:
                market.step(seed)
            node.rpc("evm_setAutomine", True)
            print(f"block {node.block_number()}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except PackageError as error:
        sys.exit(str(error))
