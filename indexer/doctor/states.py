"""What an endpoint knows of states: of which blocks, named how, and how its answers can be tied to a block."""

import hashlib
import time
from collections.abc import Sequence
from typing import Any

from indexer.chain.blocks import block_parameter, parse_block, parse_hex
from indexer.chain.client import Chain
from indexer.chain.errors import RejectedError, UnsupportedError
from indexer.config import ChainConfig
from indexer.doctor.finding import Finding, Verdict
from indexer.errors import ChainError
from indexer.model import Block
from indexer.reads.codec import decode_aggregate, encode_aggregate
from indexer.reads.guards import GUARDS, TIMESTAMP, Check
from indexer.reads.multicall import CANARY, STORAGE_CODE
from indexer.settings import Guard
from indexer.text.values import age

#: seconds by which the head may be older than this machine's clock, and younger
LATE, EARLY = 120, 15
#: blocks below the head whose state is asked for, in turn
DISTANCES = (1, 16, 64, 128, 256, 1_024, 8_192, 65_536, 1_000_000)
#: blocks of which a first sync may still need the state while it reads
NEEDED = 64
#: code that answers how much gas the call has left: GAS, and the word it leaves
GAS_CODE = "0x5a60005260206000f3"
#: gas that an aggregate should have: some hundred reads
FEW_GAS = 10_000_000
#: the precompile of BLAKE2b's compression (EIP-152), and its input for the last block of the text "abc"
BLAKE2F = "0x0000000000000000000000000000000000000009"
BLAKE2F_ABC = (
    (12).to_bytes(4)  # rounds, then the state of BLAKE2b-512 at its start
    + bytes.fromhex(
        "48c9bdf267e6096a3ba7ca8485ae67bb2bf894fe72f36e3cf1361d5f3af54fa5"
        "d182e6ad7f520e511f6c3e2b8c68059b6bbd41fbabd9831f79217e1319cde05b"
    )
    + b"abc".ljust(128, b"\0")
    + (3).to_bytes(16, "little")
    + b"\1"
)
#: blocks at which the guards are compared
SAMPLES = 3


def _call(chain: Chain, to: str, data: bytes, at: Any, *overrides: Any) -> bytes:
    answer = chain.request("eth_call", [{"to": to, "data": "0x" + data.hex()}, at, *overrides], parse_hex)
    return bytes(answer)


def clock(chain: Chain, _: ChainConfig, _at: Block) -> Finding:
    """How old the head is by this machine's clock."""
    old = int(time.time() - chain.block("latest").timestamp)
    if old > LATE:
        text = f"the head is {age(old)} old: the endpoint is behind, or the chain stands still"
        return Finding("", Verdict.WARNING, text, value=old)
    if old < -EARLY:
        return Finding("", Verdict.WARNING, f"the head is {age(-old)} ahead of this machine's clock", value=old)
    return Finding("", Verdict.OK, f"the head is {age(max(old, 0))} old", value=old)


def depth(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Of how many blocks below the head the state is known; the answer must be of the block that was asked for."""
    reached, why = 0, ""
    try:
        if not _call(chain, chain.multicall3, TIMESTAMP.calldata, "latest"):
            return Finding("", Verdict.OK, "not known without Multicall3")
        for distance in DISTANCES:
            if distance > at.number:
                break
            block = chain.block(at.number - distance)
            answer = _call(chain, chain.multicall3, TIMESTAMP.calldata, hex(block.number))
            if not answer:  # Multicall3 is younger, or the endpoint says so of what it forgot
                break
            if answer != TIMESTAMP.implied(block):
                text = "keeps no state: it answers for another block than the one asked for"
                return Finding("", Verdict.ERROR, text, value=0)
            reached = distance
    except ChainError as error:
        why = str(error)
    if reached == 0 and why:
        return Finding("", Verdict.ERROR, f"keeps no state of the blocks before the head: {why}", value=0)
    if 0 < reached < min(NEEDED, at.number) and why:
        text = f"keeps the state of {reached:,} blocks only, so that long reads start again ({why})"
        return Finding("", Verdict.WARNING, text, value=reached)
    return Finding("", Verdict.OK, f"keeps the state of the last {reached:,} blocks at least", value=reached)


def by_hash(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Whether a state can be asked for by the hash of its block (EIP-1898)."""
    try:
        answer = _call(chain, chain.multicall3, TIMESTAMP.calldata, block_parameter(at))
    except (UnsupportedError, RejectedError):
        text = "blocks cannot be named by hash (EIP-1898): they are named by number, and compared afterwards"
        return Finding("", Verdict.WARNING, text, value=False)
    if answer and answer != TIMESTAMP.implied(at):
        text = "answers for another block than the one named by hash"
        return Finding("", Verdict.ERROR, text, value=False)
    return Finding("", Verdict.OK, "states are asked for by the hash of the block (EIP-1898)", value=True)


def measured_guard(chain: Chain, blocks: Sequence[Block]) -> Guard | None:
    """The strictest guard whose every check is what the headers of these blocks say; None without Multicall3."""
    checks: list[Check] = list(dict.fromkeys(check for guard in GUARDS.values() for check in guard))
    holds = dict.fromkeys(checks, True)
    for block in blocks:
        data = encode_aggregate([(check.target or chain.multicall3, check.calldata) for check in checks])
        answer = _call(chain, chain.multicall3, data, hex(block.number))
        if not answer:
            return None
        for check, (success, word) in zip(checks, decode_aggregate(answer, len(checks)), strict=True):
            holds[check] = holds[check] and success and word == check.implied(block)
    return next(guard for guard, needed in GUARDS.items() if all(holds[check] for check in needed))


def guard(chain: Chain, config: ChainConfig, at: Block) -> Finding:
    """Which guard fits this chain, and whether the configured one does."""
    blocks = [chain.block(number) for number in range(max(at.number - SAMPLES + 1, 1), at.number + 1)]
    fits = measured_guard(chain, blocks)
    if fits is None:
        text = f"there is no Multicall3 at {config.multicall3}: every read goes through it; set `multicall3`"
        return Finding("", Verdict.ERROR, text)
    wanted = set(GUARDS[config.guard])
    order = list(GUARDS)
    if not wanted <= set(GUARDS[fits]):
        text = f"`{config.guard}` is configured and does not hold here; `{fits}` does"
        return Finding("", Verdict.ERROR, text, value=fits)
    if order.index(fits) < order.index(config.guard):
        text = f"`{config.guard}` is configured, and `{fits}` holds too: it catches more"
        return Finding("", Verdict.WARNING, text, value=fits)
    return Finding("", Verdict.OK, f"`{fits}` holds at {len(blocks)} blocks", value=fits)


def overrides(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Whether an eth_call may replace a contract's code, which reads storage."""
    try:
        answer = _call(chain, CANARY, bytes(32), hex(at.number), {CANARY: {"code": STORAGE_CODE}})
    except (UnsupportedError, RejectedError):
        answer = b""
    if answer == bytes(32):
        return Finding("", Verdict.OK, "storage is read by overriding code", value=True)
    text = "no state overrides: Compound V2 debts that change silently are read again at each snapshot"
    return Finding("", Verdict.WARNING, text, value=False)


def gas(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """How much gas an eth_call has."""
    try:
        answer = _call(chain, CANARY, b"", hex(at.number), {CANARY: {"code": GAS_CODE}})
    except (UnsupportedError, RejectedError):
        answer = b""
    if len(answer) != 32:
        return Finding("", Verdict.OK, "not measured without state overrides; reads are halved until they fit")
    found = int.from_bytes(answer)
    if found < FEW_GAS:
        text = f"an eth_call has {found:,} gas, which is little: reads go out in small pieces"
        return Finding("", Verdict.WARNING, text, value=found)
    return Finding("", Verdict.OK, f"an eth_call has {found:,} gas", value=found)


def blake2f(chain: Chain, _: ChainConfig, at: Block) -> Finding:
    """Whether calls have the precompile of BLAKE2b, by which light clients and bridges check other chains; no sync needs it."""
    try:
        answer = _call(chain, BLAKE2F, BLAKE2F_ABC, hex(at.number))
    except ChainError:
        answer = b""
    if answer == hashlib.blake2b(b"abc").digest():
        return Finding("", Verdict.OK, "the precompile blake2f is there", value=True)
    return Finding("", Verdict.OK, "there is no precompile blake2f, which no sync needs", value=False)


def finality(chain: Chain, _: ChainConfig, _at: Block) -> Finding:
    """Whether the endpoint says what is safe and what is final."""
    found: dict[str, int] = {}
    for tag in ("safe", "finalized"):
        try:
            block = chain.request(
                "eth_getBlockByNumber", [tag, False], lambda raw: None if raw is None else parse_block(raw)
            )
        except ChainError:
            continue
        if block is not None:
            found[tag] = block.number
    if "finalized" not in found:
        text = "does not say what is final: what is 128 blocks old counts as that"
        return Finding("", Verdict.WARNING, text, value=None)
    below = chain.block("latest").number - found["finalized"]
    text = f"finalized is {below:,} blocks below the head" + ("" if "safe" in found else "; there is no tag safe")
    return Finding("", Verdict.OK, text, value=below)
