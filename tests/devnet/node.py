"""A local Ethereum node (anvil) as a context manager."""

import gzip
import http.client
import json
import re
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.devnet.packages import anvil_binary

CHAIN_ID = 1337
GENESIS_TIMESTAMP = 1_700_000_000
GAS_LIMIT = 1_000_000_000
MEMORY_LIMIT = 6 * 2**30
STATES_IN_MEMORY = 2_000  # of 1 MB where all five protocols are deployed; on disk, as anvil has it, each costs 20 ms
IDLE_SECONDS = 10
MULTICALL3 = "0xcA11bde05977b3631167028862bE2a173976CA11"

# anvil keeps its states in memory, so its address space is capped; and it dies with us, even when we are killed: our
# end of its guard's stdin closes then, `read` returns, and the guard kills it. It makes a folder for states on disk
# too, and a killed node leaves it behind, so the guard removes it.
GUARD = """
ulimit -v "$1" 2>/dev/null; shift
states=$(mktemp -d) || exit 1
exec 3<&0
"$@" --cache-path "$states" 3<&- </dev/null & node=$!
(read -r _ <&3; kill -9 "$node" 2>/dev/null) & guard=$!
wait "$node"; code=$?
kill "$guard" 2>/dev/null
rm -rf "$states"
exit "$code"
"""


class RpcError(RuntimeError):
    """The node answered a request with an error; `code`, `message` and `data` are its own."""

    def __init__(self, method: str, error: dict[str, Any]) -> None:
        self.method = method
        self.code: int = error.get("code", 0)
        self.message: str = error.get("message", "")
        self.data: Any = error.get("data")
        super().__init__(f"{method}: {self.message} ({self.code})")


class Connections:
    """Connections to one HTTP server that stay open between requests, shared by threads.

    One that was idle for long is not used again: the server may be closing it, and whether it acted on a request that
    got no answer cannot be told.
    """

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.idle: deque[tuple[float, http.client.HTTPConnection]] = deque()
        self.closed = False

    def post(self, body: Any) -> Any:
        """The JSON answer to a JSON body."""
        connection = self.take()
        try:
            connection.request("POST", "/", json.dumps(body).encode(), {"Content-Type": "application/json"})
            answer = connection.getresponse().read()
        except BaseException:
            connection.close()
            raise
        self.idle.append((time.monotonic(), connection))
        if self.closed:
            self.close()
        return json.loads(answer)

    def take(self) -> http.client.HTTPConnection:
        while True:
            try:
                since, connection = self.idle.pop()
            except IndexError:
                return http.client.HTTPConnection(self.host, self.port, timeout=300)
            if time.monotonic() - since < IDLE_SECONDS:
                return connection
            connection.close()

    def close(self) -> None:
        """Close what is idle now, and whatever a request that is still under way gives back."""
        self.closed = True
        while self.idle:
            self.idle.pop()[1].close()


class Anvil:
    """One anvil process on a free port, mining when told to (`execute`, `mine`), with fixed, reproducible timestamps.

    It does not mine by itself: its own miner tells the pool what it mined after everyone else, and takes a transaction
    that follows a revert at once for one that is mined. Every block is `block_interval` seconds after its parent unless told otherwise, so the same calls give the same
    chain; wall time plays no part. States older than `states_in_memory` blocks are forgotten. With `load_state` (a file
    of `dump_state`) history and old states are gone.
    """

    def __init__(
        self,
        *,
        chain_id: int = CHAIN_ID,
        port: int = 0,
        timestamp: int = GENESIS_TIMESTAMP,
        gas_limit: int = GAS_LIMIT,
        block_interval: int | None = 1,
        load_state: Path | None = None,
        memory_limit: int = MEMORY_LIMIT,
        states_in_memory: int = STATES_IN_MEMORY,
        extra: Sequence[str] = (),
    ) -> None:
        self.chain_id = chain_id
        self.port = port
        self.block_interval = block_interval
        self.memory_limit = memory_limit
        self.arguments = [
            "--host", "127.0.0.1", "--chain-id", str(chain_id), "--timestamp", str(timestamp),
            "--gas-limit", str(gas_limit), "--auto-impersonate", "--no-mining", "--order", "fifo",
            "--block-base-fee-per-gas", "0", "--no-request-size-limit", "--prune-history", str(states_in_memory), *extra,
        ]  # fmt: skip
        self.load_state = load_state
        self.connections = Connections("127.0.0.1", port)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, timeout: float = 30) -> None:
        """Start the process and wait until it listens; port 0 lets the system choose."""
        with tempfile.TemporaryFile() as output, tempfile.NamedTemporaryFile() as state:
            arguments = ["--port", str(self.port), *self.arguments]
            if self.load_state is not None:
                state.write(gzip.decompress(self.load_state.read_bytes()))
                state.flush()
                arguments += ["--load-state", state.name]
            self.process = subprocess.Popen(
                ["sh", "-c", GUARD, "anvil-guard", str(self.memory_limit // 1024), str(anvil_binary()), *arguments],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            deadline = time.monotonic() + timeout
            while True:
                output.seek(0)
                text = output.read().decode(errors="replace")
                listening = re.search(r"Listening on \S+:(\d+)", text)
                if listening:
                    self.port = int(listening[1])
                    self.connections = Connections("127.0.0.1", self.port)
                    break
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise RuntimeError(f"anvil did not start: {text[-2000:]}")
                time.sleep(0.01)
        self.rpc("anvil_setLoggingEnabled", False)
        if self.block_interval is not None:
            self.rpc("anvil_setBlockTimestampInterval", self.block_interval)

    def stop(self) -> None:
        """End the process; safe to call twice."""
        self.connections.close()
        process, self.process = self.process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=30)

    def rpc(self, method: str, *params: Any) -> Any:
        """One request's result. Raises `RpcError` when the node answers with an error."""
        answer = self.post({"jsonrpc": "2.0", "id": 0, "method": method, "params": params})
        if "error" in answer:
            raise RpcError(method, answer["error"])
        return answer["result"]

    def batch(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Results of many requests sent in one HTTP body, in order. Raises `RpcError` on the first error."""
        answers = self.batch_answers(requests)
        for (method, _), answer in zip(requests, answers, strict=True):
            if "error" in answer:
                raise RpcError(method, answer["error"])
        return [answer["result"] for answer in answers]

    def batch_answers(self, requests: Sequence[tuple[str, Sequence[Any]]]) -> list[dict[str, Any]]:
        """The raw JSON-RPC answers of many requests, in order, errors left in."""
        if not requests:
            return []
        body = [
            {"jsonrpc": "2.0", "id": i, "method": method, "params": params}
            for i, (method, params) in enumerate(requests)
        ]
        return sorted(self.post(body), key=lambda answer: answer["id"])

    def post(self, body: Any) -> Any:
        return self.connections.post(body)

    def execute(self, transaction: dict[str, Any]) -> dict[str, Any]:
        """Mine a block of this one transaction (and of those that already wait); its receipt."""
        sent = self.rpc("eth_sendTransaction", transaction)
        self.rpc("evm_mine")
        receipt = self.rpc("eth_getTransactionReceipt", sent)
        if receipt is None:
            raise RuntimeError(f"transaction {sent} cannot be mined: {transaction}")
        return dict(receipt)

    def block_number(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def block(self, block: int | str = "latest") -> dict[str, Any]:
        """The block's header fields and transaction hashes as JSON, by number, tag or hash."""
        if isinstance(block, str) and len(block) == 66:
            return dict(self.rpc("eth_getBlockByHash", block, False))
        return dict(self.rpc("eth_getBlockByNumber", block_tag(block), False))

    def timestamp(self, block: int | str = "latest") -> int:
        return int(self.block(block)["timestamp"], 16)

    def mine(self, n: int = 1, interval: int = 1) -> None:
        """Mine `n` blocks, each `interval` seconds after the one before it; costs grow with the square of `n`."""
        timestamp = self.timestamp()
        for i in range(1, n + 1):
            self.set_next_timestamp(timestamp + i * interval)
            self.rpc("evm_mine")

    def set_next_timestamp(self, timestamp: int) -> None:
        """The next block carries this timestamp; it must not be before the head's."""
        self.rpc("evm_setNextBlockTimestamp", timestamp)

    def elapse(self, seconds: int) -> None:
        """Mine one block `seconds` after the head."""
        self.mine(1, seconds)

    def snapshot(self) -> str:
        return str(self.rpc("evm_snapshot"))

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot, which is used up by it."""
        if not self.rpc("evm_revert", snapshot):
            raise RuntimeError(f"no snapshot {snapshot}")

    def reorg(self, depth: int, transactions: Sequence[tuple[dict[str, Any], int]] = ()) -> None:
        """Replace the last `depth` blocks; each transaction goes into the new block of that offset (0 is the oldest).

        Empty blocks with the same timestamps come back with the same hashes: put a transaction into each block that
        has to differ.
        """
        self.rpc("anvil_reorg", depth, [list(pair) for pair in transactions])

    def dump_state(self, path: Path) -> None:
        """Write the head state and all logs to `path` (gzipped JSON) for `load_state`; it holds no historical states."""
        path.write_bytes(bytes.fromhex(str(self.rpc("anvil_dumpState"))[2:]))

    def set_code(self, address: str, code: str) -> None:
        self.rpc("anvil_setCode", address, code)

    def place_multicall3(self, where: str = MULTICALL3) -> None:
        """Put Multicall3's runtime code at its well-known address, or elsewhere."""
        # it brings web3, and takes most of a second, which tests without a node save
        from multicall.constants import MULTICALL3_BYTECODE

        self.set_code(where, MULTICALL3_BYTECODE)


def block_tag(block: int | str) -> str:
    """A block number, tag or hex string as JSON-RPC wants it."""
    return hex(block) if isinstance(block, int) else block
