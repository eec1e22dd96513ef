"""Gas probes: the call at the end of an aggregate that shows whether those before it had the gas they needed.

A call that starves burns 63/64 of the gas that is left, so if half a million gas is still there at the end, no call had less
than 64 times as much.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from indexer.reads.codec import encode_aggregate
from indexer.reads.guards import TIMESTAMP

#: the pairing check of EIP-197: 45,000 gas and 34,000 a pair (EIP-1108), but no work if the pairs are points at infinity
PAIRING = "0x0000000000000000000000000000000000000008"
PAIR_AT_INFINITY = bytes(192)
PAIRS = 29
#: BLAKE2's compression (EIP-152): one gas a round, a number of four bytes in front of its input
BLAKE2F = "0x0000000000000000000000000000000000000009"
BLAKE2F_INPUT = bytes(208) + b"\1"
NESTED_CALLS = 200


@dataclass(frozen=True, slots=True)
class Probe:
    """A contract, calldata that costs much gas and calldata that costs little, and what the answer must be, if any is right."""

    target: str
    dear: bytes
    cheap: bytes
    answer: bytes | None = None

    def holds(self, answer: tuple[bool, bytes]) -> bool:
        success, data = answer
        return success and (self.answer is None or data == self.answer)


@cache
def probes(multicall3: str) -> Sequence[Probe]:
    """The probes that a node may know, the one that costs it least first."""
    nested = [encode_aggregate([(multicall3, TIMESTAMP.calldata)] * count) for count in (NESTED_CALLS, 1)]
    return (
        Probe(PAIRING, PAIR_AT_INFINITY * PAIRS, PAIR_AT_INFINITY, (1).to_bytes(32)),
        Probe(multicall3, *nested),
        Probe(BLAKE2F, (500_000).to_bytes(4) + BLAKE2F_INPUT, (1).to_bytes(4) + BLAKE2F_INPUT),
    )
