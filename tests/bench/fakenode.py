"""A JSON-RPC node that costs next to nothing, so that a bench of the sync measures the sync.

One market of the shape of Aave V3.6, generated users and Borrow logs that are serialised beforehand, `aggregate3` for
real. The logs end 1,200 blocks below the head. Besides the methods of a node:

    bench_mine [blocks, users, parts]   new blocks; in the last so many users borrow, and every second asset's price is
                                        `parts` millionths of what it was at first
    bench_info                          addresses and head
    bench_stats                         {cpu, requests, calls, bytes, methods, refused, most_in_flight} since bench_reset

With `--latency MS` each answer takes that long on top, with `--in-flight N` a request beyond N at a time gets HTTP 429.

`python -m tests.bench.fakenode --users 100000 --logs 1000000 --blocks 2000000 [--max-logs N] [--max-blocks N]` prints
"ready PORT PROVIDER" once it answers.
"""

import argparse
import asyncio
import json
import random
import resource
from collections.abc import Callable, Collection, Iterator
from typing import Any

from indexer.reads.lens import LENS
from tests.bench.fakemarket import (
    BASE_TIMESTAMP,
    BORROW,
    MINT,
    History,
    Market,
    block_hash,
    bloom_bits,
    log_json,
    padded,
    word,
)

EMPTY = 1_200
#: blocks between the head and what is final
FINAL = 64
AGGREGATE3 = bytes.fromhex("82ad56cb")
LENS_PLACE = bytes.fromhex(LENS[2:])
#: the pairing check, which the probe of a call asks for its gas
PAIRING = bytes(19) + b"\x08"


class RpcError(Exception):
    """An error object of JSON-RPC: its code and message."""


class Node:
    """The methods of JSON-RPC over one market."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.head: int = options.blocks
        self.market = Market(options.users, options.reserves, options.most_debt)
        self.history = History(self.market, options.logs, options.blocks - EMPTY)
        self.mined: dict[int, list[tuple[str, str, bytes]]] = {}
        self.blooms: dict[int, int] = {}
        self.numbers: dict[str, int] = {}
        self.in_flight = 0
        self.reset()

    def reset(self) -> bytes:
        self.methods: dict[str, int] = {}
        self.requests = self.calls = self.bytes = self.refused = self.most_in_flight = 0
        self.cpu_before = cpu()
        return b"true"

    def body(self, raw: bytes) -> bytes:
        asked = json.loads(raw)
        self.requests += 1
        out = b"[" + b",".join(map(self.answer, asked)) + b"]" if isinstance(asked, list) else self.answer(asked)
        self.bytes += len(out)
        return out

    def answer(self, asked: dict[str, Any]) -> bytes:
        method = asked["method"]
        self.methods[method] = self.methods.get(method, 0) + 1
        number = json.dumps(asked["id"]).encode()
        try:
            result = self.result(method, asked.get("params", []))
        except RpcError as error:
            code, message = error.args
            body = json.dumps({"code": code, "message": message}).encode()
            return b'{"jsonrpc":"2.0","id":%s,"error":%s}' % (number, body)
        return b'{"jsonrpc":"2.0","id":%s,"result":%s}' % (number, result)

    def result(self, method: str, params: list[Any]) -> bytes:
        methods: dict[str, Callable[[], bytes]] = {
            "eth_getLogs": lambda: self.logs(params[0]),
            "eth_call": lambda: self.call(*params),
            "eth_getBlockByNumber": lambda: self.header(self.number(params[0])),
            "eth_getBlockByHash": lambda: self.header(self.numbers.get(params[0], -1)),
            "eth_getBlockReceipts": lambda: self.receipts(params[0]),
            "eth_chainId": lambda: b'"0x539"',
            "net_version": lambda: b'"1337"',
            "eth_blockNumber": f'"{self.head:#x}"'.encode,
            "eth_getCode": lambda: b'"0x60"' if self.place(params[1]) else b'"0x"',
            "bench_mine": lambda: self.mine(*params),
            "bench_info": lambda: json.dumps({"provider": self.market.provider, "head": self.head}).encode(),
            "bench_stats": self.stats,
            "bench_reset": self.reset,
        }
        if method not in methods:
            raise RpcError(-32601, f"the method {method} does not exist")
        return methods[method]()

    def stats(self) -> bytes:
        found = {"requests": self.requests, "calls": self.calls, "bytes": self.bytes, "methods": self.methods}
        found |= {"refused": self.refused, "most_in_flight": self.most_in_flight}
        return json.dumps({**found, "cpu": cpu() - self.cpu_before}).encode()

    def number(self, name: str) -> int:
        tags = {"earliest": 0, "finalized": max(self.head - FINAL, 0)}
        return int(name, 16) if name.startswith("0x") else tags.get(name, self.head)

    def place(self, where: Any) -> int:
        """The number of the block that a request names."""
        return self.numbers.get(where["blockHash"], 0) if isinstance(where, dict) else self.number(where)

    def header(self, number: int) -> bytes:
        if not 0 <= number <= self.head:
            return b"null"
        self.numbers[block_hash(number)] = number
        header = {
            "number": hex(number), "hash": block_hash(number), "parentHash": block_hash(number - 1),
            "timestamp": hex(BASE_TIMESTAMP + 12 * number), "gasLimit": "0x0", "transactions": [],
            "logsBloom": f"0x{self.blooms.get(number, 0):0512x}",
        }  # fmt: skip
        return json.dumps(header).encode()

    def receipts(self, of: str) -> bytes:
        logs = [raw for *_, raw in self.mined.get(self.numbers.get(of, -1), ())]
        return b'[{"logs":[' + b",".join(logs) + b"]}]"

    def logs(self, asked: dict[str, Any]) -> bytes:
        if "blockHash" in asked:
            number = self.numbers.get(asked["blockHash"])
            if number is None:
                return b"null"
            first = last = number
        else:
            first, last = (int(asked[name], 16) for name in ("fromBlock", "toBlock"))
        if self.options.max_blocks and last - first + 1 > self.options.max_blocks:
            raise RpcError(-32600, f"block range too large: max {self.options.max_blocks} blocks")
        count, found = self.history.between(first, last)
        if self.options.max_logs and count > self.options.max_logs:
            raise RpcError(-32005, f"query returned more than {self.options.max_logs} results")
        wanted, topics = asked.get("address"), asked.get("topics")
        addresses = None if not wanted else [a.lower() for a in ([wanted] if isinstance(wanted, str) else wanted)]
        first_topics = None if not topics or not topics[0] else topics[0]

        def chosen(of: str, topic0: str) -> bool:
            return (not addresses or of in addresses) and (not first_topics or topic0 in first_topics)

        parts = [found] if count and chosen(self.market.pool, BORROW) else []
        for number in range(max(first, self.options.blocks + 1), last + 1):
            parts += [raw for of, topic0, raw in self.mined.get(number, ()) if chosen(of, topic0)]
        return b"[" + b",".join(parts) + b"]"

    def mine(self, blocks: int, users: int, parts: int) -> bytes:
        rng = random.Random(self.head)
        self.head += blocks
        self.mined[self.head] = list(self.activity(rng, users))
        bits = 0
        for _, _, raw in self.mined[self.head]:
            log = json.loads(raw)
            for value in (log["address"], *log["topics"]):
                bits |= bloom_bits(bytes.fromhex(value[2:]))
        self.blooms[self.head] = bits
        self.market.move(parts)
        return b"true"

    def activity(self, rng: random.Random, users: int) -> Iterator[tuple[str, str, bytes]]:
        """A Borrow of the pool and the Mint of its debt token, for each user."""
        market, block = self.market, self.head
        for n in range(users):
            of = rng.randrange(market.users)
            user, place = f"{market.user(of).hex():0>64}", market.held[of][1]
            transaction = block * 1000 + n
            asset = "0x" + padded(market.assets[place]).hex()
            data = f"{user}{10**12:064x}{2:064x}{1:064x}"
            borrow = log_json(block, 2 * n, transaction, market.pool, [BORROW, asset, f"0x{user}", f"0x{0:064x}"], data)
            yield market.pool, BORROW, borrow
            data = f"{10**12:064x}{0:064x}{market.debt_index[place]:064x}"
            token = market.debt_tokens[place]
            yield token, MINT, log_json(block, 2 * n + 1, transaction, token, [MINT, f"0x{user}", f"0x{user}"], data)

    def call(self, asked: dict[str, str], where: Any, overrides: dict[str, Any] | None = None) -> bytes:
        block = self.numbers.get(where["blockHash"]) if isinstance(where, dict) else self.number(where)
        if block is None:
            raise RpcError(-32000, "header not found")
        data, target = bytes.fromhex(asked["data"][2:]), bytes.fromhex(asked["to"][2:])
        if data[:4] == AGGREGATE3:
            answer = self.aggregate(data[4:], block, {bytes.fromhex(name[2:]) for name in overrides or {}})
        else:
            answer = self.market.call(target, data, block)[1]
        return b'"0x' + answer.hex().encode() + b'"'

    def lens(self, data: bytes, block: int) -> bytes:
        """What indexer/reads/lens.yul answers."""
        end = 32 + 32 * int.from_bytes(data[:32])
        entries = [(data[at : at + 4], data[at + 4], data[at + 12 : at + 32]) for at in range(32, end, 32)]
        words: list[bytes] = []
        for at in range(end, len(data), 20):
            account, flags = bytes(12) + data[at : at + 20], 0
            for n, (selector, bit, target) in enumerate(entries):
                if bit == 255 or flags >> bit & 1:
                    words.append(self.market.call(target, selector + account, block)[1])
                    flags = flags if n else int.from_bytes(words[-1])
        self.calls += len(words)
        return b"".join(words)

    def aggregate(self, body: bytes, block: int, overridden: Collection[bytes] = ()) -> bytes:
        """Multicall3.aggregate3, decoded and encoded by hand."""
        number = int.from_bytes
        count = number(body[32:64], "big")
        self.calls += count
        heads, tails, offset = [], [], 32 * count
        for n in range(count):
            start = 64 + number(body[64 + 32 * n + 28 : 96 + 32 * n], "big")
            size = number(body[start + 124 : start + 128], "big")
            target, data = body[start + 12 : start + 32], body[start + 128 : start + 128 + size]
            if target in overridden:
                ok, out = True, self.lens(data, block) if target == LENS_PLACE else data
            else:
                ok, out = (True, word(1)) if target == PAIRING else self.market.call(target, data, block)
            heads.append(word(offset))
            tail = word(ok) + word(64) + word(len(out)) + out + bytes(-len(out) % 32)
            tails.append(tail)
            offset += len(tail)
        return b"".join((word(32), word(count), *heads, *tails))


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Connection(asyncio.Protocol):
    """HTTP/1.1, as far as a JSON-RPC client speaks it: POST with a length, answered on a connection that stays open."""

    transport: asyncio.Transport

    def __init__(self, node: Node) -> None:
        self.node, self.buffer = node, bytearray()
        self.latency: float = node.options.latency / 1000

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = bytes(self.buffer[:end]).lower()
            at = head.find(b"content-length:")
            whole = end + 4 + (int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0)
            if len(self.buffer) < whole:
                return
            raw = bytes(self.buffer[end + 4 : whole])
            del self.buffer[:whole]
            if not raw:  # a tail asks whether there are WebSockets
                self.transport.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                continue
            most = self.node.options.in_flight
            if most and self.node.in_flight >= most:
                self.node.refused += 1
                self.transport.write(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\n\r\n{}")
                continue
            self.node.in_flight += 1
            self.node.most_in_flight = max(self.node.most_in_flight, self.node.in_flight)
            asyncio.get_running_loop().call_later(self.latency, self.reply, raw)

    def reply(self, raw: bytes) -> None:
        out = self.node.body(raw)
        self.node.in_flight -= 1
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(out)
            )
            self.transport.write(out)


async def serve(options: argparse.Namespace) -> None:
    node = Node(options)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(node), "127.0.0.1", options.port)
    print("ready", server.sockets[0].getsockname()[1], node.market.provider, flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("port", 0), ("users", 10_000), ("logs", 100_000), ("blocks", 200_000), ("reserves", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--max-logs", type=int, default=0, help="0: as many as there are")
    parser.add_argument("--max-blocks", type=int, default=0, help="0: as many as there are")
    parser.add_argument("--most-debt", type=float, default=0.78, help="of a user's largest supply")
    parser.add_argument("--latency", type=float, default=0, metavar="MS")
    parser.add_argument("--in-flight", type=int, default=0, help="requests answered at a time; 0: any number")
    asyncio.run(serve(parser.parse_args()))


if __name__ == "__main__":
    main()
