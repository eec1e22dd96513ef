"""How fast reads are encoded and decoded, without a node: `python -m tests.bench.multicall [--quick]`."""

import time
from collections.abc import Callable, Iterator

from indexer.model import Read
from indexer.reads.codec import decode_aggregate, decode_read, encode_aggregate, encode_read
from tests.bench.run import Result, run
from tests.tiny_contracts import EOA

SHAPES = {
    "one address -> one word": Read(EOA, "balanceOf(address)(uint256)", (EOA,)),
    "no argument -> one word": Read(EOA, "totalSupply()(uint256)"),
    "one word -> address": Read(EOA, "owns(uint256)(address)", (7,)),
    "address -> six words": Read(
        EOA, "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)", (EOA,)
    ),
    "two words -> struct": Read(EOA, "urns(bytes32,address)((uint256,uint128))", (bytes(32), EOA)),
}


def seconds(work: Callable[[], object]) -> float:
    best = 1e9
    for _ in range(3):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def multicall(quick: bool) -> Iterator[Result]:
    count = 2_000 if quick else 20_000
    for name, read in SHAPES.items():
        reads = [read] * count
        words = 6 if "six" in name else 2 if "struct" in name else 1
        answer = encode_answer([bytes(31) + b"\7" + bytes(32 * (words - 1))] * count)

        def encode(reads: list[Read] = reads) -> str:
            return encode_aggregate([(read.target, encode_read(read)) for read in reads]).hex()

        def decode(reads: list[Read] = reads, answer: str = answer) -> list[object]:
            results = decode_aggregate(bytes.fromhex(answer), count)
            return [decode_read(read, success, data) for read, (success, data) in zip(reads, results, strict=True)]

        out, back = seconds(encode), seconds(decode)
        yield Result(f"{name}: encode", count / out, "reads/s")
        yield Result(f"{name}: decode", count / back, "reads/s")


def encode_answer(data: list[bytes]) -> str:
    heads, tails, offset = [], [], 32 * len(data)
    for piece in data:
        heads.append(offset.to_bytes(32))
        tails.append((1).to_bytes(32) + (64).to_bytes(32) + len(piece).to_bytes(32) + piece)
        offset += 96 + len(piece)
    return b"".join(((32).to_bytes(32), len(data).to_bytes(32), *heads, *tails)).hex()


if __name__ == "__main__":
    run(multicall)
