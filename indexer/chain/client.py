"""A chain behind one or several endpoints: its blocks, and requests for their state."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from indexer.chain.batches import BatchingNode
from indexer.chain.blocks import (
    Header,
    block_parameter,
    block_request,
    check_header,
    check_linked,
    parse_header,
    parse_hex,
)
from indexer.chain.endpoint import mask
from indexer.chain.errors import RejectedError, StatelessError, UnsupportedError
from indexer.chain.node import CHECK_ROUNDS, LARGEST_BATCH, Call
from indexer.chain.retry import NoSuchBlockError
from indexer.errors import PrunedError, ReorgError
from indexer.model import Block

__all__ = ["CHECK_ROUNDS", "LARGEST_BATCH", "Call", "Chain", "Header", "mask"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: rounds for a block that no endpoint knows: a backend may lag, or the block may not exist
UNKNOWN_BLOCK_ROUNDS = 5


class Chain(BatchingNode):
    """One chain; see `Node` for its endpoints and settings."""

    #: the header asked for last
    _last: Header | None = None

    def block(self, which: int | str) -> Block:
        """A block by number, by hash, or "latest", "safe", "finalized".

        ReorgError for a hash that no endpoint knows, ChainError for a number beyond the head.
        """
        last = self._last = parse_header(self.header(which))
        return last.block

    def header(self, which: int | str) -> dict[str, Any]:
        """The raw header of a block, checked to be the one asked for."""
        method, params = block_request(which)
        try:
            header: dict[str, Any] = self.request(
                method, params, lambda raw: check_header(raw, which), rounds=UNKNOWN_BLOCK_ROUNDS
            )
        except NoSuchBlockError as error:
            if isinstance(which, str) and len(which) == 66:
                raise ReorgError(f"block {which} is not known to any endpoint of {self.name}") from None
            raise NoSuchBlockError(f"{self.name} has no block {which}: {error}") from None
        return header

    def headers(self, first: int, last: int) -> list[Header]:
        """The headers first..last with their blooms. ReorgError if they do not link up (the chain changed meanwhile)."""
        headers = self._headers(first, last)
        check_linked(headers)
        return headers

    def headers_to(self, first: int, target: Block) -> list[Header]:
        """As `headers`, up to the target, whose own header is not asked for again if it was the last one asked for.

        It may have left the chain meanwhile, as it may a moment later: who relies on it asks again before a commit.
        """
        last = self._last
        if last is None or last.block != target:
            return self.headers(first, target.number)
        headers = [*self._headers(first, target.number - 1), last]
        check_linked(headers)
        return headers

    def _headers(self, first: int, last: int) -> list[Header]:
        return self.batch(
            [("eth_getBlockByNumber", [hex(number), False]) for number in range(first, last + 1)],
            lambda raw, call: parse_header(check_header(raw, int(call[1][0], 16))),
        )

    def code(self, address: str, block: Block) -> bytes:
        """The contract code at an address in a block, empty for none."""
        return self.codes([address], block)[0]

    def codes(self, addresses: Sequence[str], block: Block) -> list[bytes]:
        """The contract code at each of these addresses in a block, empty for none."""

        def ask(at: Any) -> list[bytes]:
            calls: list[Call] = [("eth_getCode", [address, at]) for address in addresses]
            return self.batch(calls, lambda raw, _: parse_hex(raw), block=block)

        return self.with_state_of(block, ask)

    def with_state_of(self, block: Block, ask: Callable[[Any], T], *, plain: bool = True) -> T:
        """Returns `ask(parameter)`, where the parameter names this block: by hash, while it is canonical (EIP-1898).

        By number where every endpoint refuses that in a request that is otherwise `plain`; afterwards the block at that
        number must still be this one.
        """
        if not self.by_number:
            try:
                answer = ask(block_parameter(block))
            except (UnsupportedError, RejectedError, PrunedError) as refusal:
                # some nodes lack every state that is named by hash (foundry-rs/foundry 16773)
                answered = self.by_hash & {"eth_call", "eth_getCode"}
                lacking = isinstance(refusal, PrunedError) and (answered or isinstance(refusal, StatelessError))
                if self.guard == "none" or not plain or lacking:
                    raise
                refused = refusal
            else:
                return answer
        answer = ask(hex(block.number))
        if not self.by_number:
            self.by_number = True
            logger.warning("blocks are named by number, as naming them by hash (EIP-1898) is refused: %s", refused)
        if self.block(block.number).hash != block.hash:
            raise ReorgError(f"block {block.number} ({block.hash}) left the canonical chain")
        return answer
