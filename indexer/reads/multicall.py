"""Contract reads pinned to one block: Multicall3 `aggregate3` batches that answer every call once, in order.

Each aggregate begins with Multicall3's own view of the block (a node may ignore the block that a request names) and ends
with a gas probe (a call starved of gas fails or, worse, returns something else). Sizes are found by halving, and the Chain
keeps them.
"""

import logging
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any, NoReturn

from indexer.adapter import Part
from indexer.chain.blocks import parse_hex
from indexer.chain.client import Call, Chain
from indexer.chain.errors import (
    BadAnswerError,
    RejectedError,
    RevertError,
    StatelessError,
    TooBigError,
    UnsupportedError,
)
from indexer.chain.limits import Limit
from indexer.errors import ChainError
from indexer.model import Block, Read
from indexer.reads import lens
from indexer.reads.codec import decode_aggregate, decode_read, encode_aggregate, encode_read
from indexer.reads.guards import GUARDS, PARENT
from indexer.reads.probes import probes

logger = logging.getLogger(__name__)

#: calls per aggregate to begin with, and at most
FIRST_SIZE = 1_000
LARGEST_SIZE = 5_000
#: answers in a row with the state of a later block, after which an endpoint counts as one that has only its newest state
NEWEST_SIGHTS = 4
#: bytes of calldata per aggregate at most; nodes and proxies cap request bodies at 0.5 to 5 MB of JSON
LARGEST_CALLDATA = 400_000

# Runtime code that returns the storage words at the slots in its calldata:
#   for (i = 0; i < calldatasize; i += 32) mstore(i, sload(calldataload(i))); return(0, calldatasize)
STORAGE_CODE = "0x60005b3681101560155780355481526020016002565b366000f3"
#: any address without code: the override works if it answers there
CANARY = "0x00000000000000000000000000000000c0ffee01"
SLOTS_PER_CALL = 500


#: reads, and what is executed before them
Group = tuple[Sequence[Read], Sequence[Read]]


class OutOfGasError(TooBigError):
    """The aggregate as a whole ran out of gas."""


class PinnedReader:
    """Reads at exactly one block; see `indexer.adapter.Reader`.

    Raises ReorgError when the block left the canonical chain, PrunedError when no endpoint holds its state any more,
    ChainError when no endpoint answers for that block.
    """

    def __init__(self, chain: Chain, block: Block) -> None:
        self._chain = chain
        self._block = block

    @property
    def block(self) -> Block:
        return self._block

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        answers: list[Any] = [None] * len(reads)
        before = [(read.target, encode_read(read)) for read in prelude]
        pooled = [i for i, read in enumerate(reads) if read.sender is None]
        pooled.sort(key=lambda i: reads[i].mutates)
        calls = [(reads[i].target, encode_read(reads[i])) for i in pooled]
        names = [reads[i].signature for i in pooled]
        for i, (success, data) in zip(pooled, self._aggregate(calls, names, before), strict=True):
            answers[i] = decode_read(reads[i], success, data)
        direct = [i for i, read in enumerate(reads) if read.sender is not None]
        if direct:
            for i, answer in zip(direct, self._direct([reads[i] for i in direct]), strict=True):
                answers[i] = answer
        return answers

    def together(self, groups: Sequence[Group]) -> list[list[Any]]:
        """The answers to each group of (reads, prelude), all in one aggregate where they fit into one.

        Reads without a prelude go first, so nothing changes state before them, and those that may do so themselves last. A
        group with a prelude stands behind those of the groups before it as well: two deployments whose preludes change each
        other's state cannot be read together.
        """
        shared = [read for reads, prelude in groups if not prelude for read in reads]
        plain = [read for read in shared if read.sender is None and not read.mutates]
        mutating = [read for read in shared if read.sender is None and read.mutates]
        direct = [read for read in shared if read.sender is not None]
        behind = [group for group in groups if group[1]]
        first, *found, last = self._parts([(plain, ()), *behind, (mutating, ())])
        asked = [*plain, *mutating, *direct]
        answers = {id(read): one for read, one in zip(asked, [*first, *last, *self(direct)], strict=True)}
        rest = iter(found)
        return [next(rest) if prelude else [answers[id(read)] for read in reads] for reads, prelude in groups]

    def _parts(self, parts: Sequence[Group]) -> list[list[Any]]:
        """The answers to each part, in one aggregate if all fit into one."""
        whole = [read for reads, prelude in parts for read in (*prelude, *reads)]
        if sum(bool(reads) for reads, _ in parts) > 1 and not any(read.sender for read in whole):
            calls = [(read.target, encode_read(read)) for read in whole]
            if self._fitting(calls, [read.signature for read in whole], 0) == len(calls):
                try:
                    answers = zip(whole, self._one(calls, []), strict=True)
                except TooBigError as error:
                    logger.debug("an aggregate of %d calls for %d was too much: %s", len(calls), len(parts), error)
                else:
                    decoded = (decode_read(read, success, data) for read, (success, data) in answers)
                    return [
                        list(islice(decoded, len(prelude) + len(reads)))[len(prelude) :] for reads, prelude in parts
                    ]
        return [self(reads, prelude) if reads else [] for reads, prelude in parts]

    def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        """Storage words by an eth_call that overrides the contracts' code; impossible for Multicall3's own storage."""
        if any(contract.lower() == self._chain.multicall3 for contract, _ in slots):
            raise ValueError("Multicall3 carries the reads, so its own storage cannot be read")
        words: list[int] = []
        for start in range(0, len(slots), 10 * SLOTS_PER_CALL):
            part = self._storage(slots[start : start + 10 * SLOTS_PER_CALL])
            if part is None:
                return None
            words += part
        return words

    def by_flags(
        self, accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
    ) -> list[list[Any]] | None:
        """By the lens, in as many calls as the node needs; see `Reader.by_flags`."""
        chain, rows = self._chain, list[list[Any]]()
        name = f"lens of {len(always)}"
        while chain.has_lens and len(rows) < len(accounts):
            with chain.lock:
                first = Limit(max(1, lens.FIRST_FUNCTIONS // len(always)), lens.MOST_ACCOUNTS)
                size = chain.call_limits.setdefault(name, first).size
            part = accounts[len(rows) : len(rows) + size]
            try:
                found = self._through_lens(part, always, by_bit)
            except TooBigError as error:
                logger.debug("a lens over %d accounts was too much: %s", len(part), error)
                with chain.lock:
                    limit = chain.call_limits[name]
                    if limit.size == size:  # else another thread has learnt it
                        limit.too_big(len(part))
                if len(part) == 1:
                    return None
                continue
            if found is None:
                return None
            with chain.lock:
                chain.call_limits[name].fits(len(part))
            rows += found
        return rows if chain.has_lens else None

    def _through_lens(
        self, accounts: Sequence[str], always: Sequence[Part], by_bit: Mapping[int, Sequence[Part]]
    ) -> list[list[Any]] | None:
        """Guards, canary, lens and probe in one aggregate. TooBigError where less may be asked."""
        data = lens.encode(accounts, always, by_bit)
        if data is None:
            return None
        overrides = {CANARY: {"code": STORAGE_CODE}, lens.LENS: {"code": lens.LENS_CODE}}
        try:
            canary, answer = self._probed([(CANARY, bytes(32)), (lens.LENS, data)], overrides)
        except (UnsupportedError, RejectedError):  # whatever the message: an eth_call without overrides is valid
            return None
        if canary != (True, bytes(32)):
            self._chain.has_lens = False
            return None
        success, words = answer
        return lens.decode(words, len(accounts), always, by_bit) if success else None

    # aggregates

    def _aggregate(
        self, calls: Sequence[tuple[str, bytes]], names: Sequence[str], before: Sequence[tuple[str, bytes]]
    ) -> list[tuple[bool, bytes]]:
        """(success, return data) of every call, in order, from as many aggregates as the node needs."""
        limits = self._chain.call_limits
        results: list[tuple[bool, bytes]] = []
        while len(results) < len(calls):
            start = len(results)
            count = self._fitting(calls, names, start)
            part, part_names = calls[start : start + count], names[start : start + count]
            before_it = {name: limits[name].size for name in set(part_names) if name in limits}
            try:
                answers = self._one(part, before)
            except TooBigError as error:
                if count == 1 and not isinstance(error, OutOfGasError):
                    raise ChainError(f"{self._chain.name}: one read alone is too much for the node: {error}") from None
                if count > 1:
                    logger.debug("an aggregate of %d calls was too much: %s", count, error)
                    with self._chain.lock:
                        for name in set(part_names):
                            limit = limits.setdefault(name, Limit(FIRST_SIZE, LARGEST_SIZE))
                            if limit.size == before_it.get(name, FIRST_SIZE):  # else another thread has learnt it
                                limit.too_big(count)
                    continue
                answers = [(False, b"")]
            with self._chain.lock:
                for name in set(part_names):
                    limits.setdefault(name, Limit(FIRST_SIZE, LARGEST_SIZE)).fits(count)
            results += answers
        return results

    def _fitting(self, calls: Sequence[tuple[str, bytes]], names: Sequence[str], start: int) -> int:
        """How many calls from `start` on go into one aggregate, by the limit found for each kind of call."""
        limits = self._chain.call_limits
        with self._chain.lock:
            shares = {name: 1 / limit.size for name, limit in limits.items()}
        weight, size = 0.0, 0
        for count, i in enumerate(range(start, len(calls))):
            weight += shares.get(names[i], 1 / FIRST_SIZE)
            size += len(calls[i][1]) + 160
            if count and (weight > 1.0001 or size > LARGEST_CALLDATA):
                return count
        return len(calls) - start

    def _one(self, calls: Sequence[tuple[str, bytes]], before: Sequence[tuple[str, bytes]]) -> list[tuple[bool, bytes]]:
        """One aggregate: guards, prelude, calls, probe. OutOfGasError also if the probe finds too little gas left."""
        if len(calls) == 1:  # with all the gas there is
            return self._ask([*before, *calls], splittable=False)[len(before) :]
        return self._probed([*before, *calls])[len(before) :]

    def _probed(
        self, calls: Sequence[tuple[str, bytes]], overrides: dict[str, Any] | None = None
    ) -> list[tuple[bool, bytes]]:
        """The answers to calls in one aggregate. OutOfGasError if the probe behind them finds too little gas left."""
        number = self._chain.probe
        probe = probes(self._chain.multicall3)[number]
        *answers, last = self._ask([*calls, (probe.target, probe.dear)], overrides)
        if probe.holds(last):
            return answers
        self._find_probe()
        if self._chain.probe != number:
            return self._probed(calls, overrides)
        raise OutOfGasError(f"{len(calls)} calls left too little gas")

    def _find_probe(self) -> None:
        """Where the node does not know the chain's probe at all, the chain gets one that it knows, if there is any."""
        chain = self._chain
        known = probes(chain.multicall3)
        for number in dict.fromkeys((chain.probe, *range(len(known)))):
            if known[number].holds(self._ask([(known[number].target, known[number].cheap)])[0]):
                chain.probe = number
                return

    def _guards(self) -> list[tuple[str, bytes]]:
        return [(check.target or self._chain.multicall3, check.calldata) for check in GUARDS[self._chain.guard]]

    def _ask(
        self, calls: Sequence[tuple[str, bytes]], overrides: dict[str, Any] | None = None, *, splittable: bool = True
    ) -> list[tuple[bool, bytes]]:
        """One aggregate3 behind the guards, as an eth_call at the pinned block; `splittable` if less can be asked."""
        guards = self._guards()
        data = encode_aggregate([*guards, *calls])
        extra = [] if overrides is None else [overrides]

        def parse(raw: Any) -> list[tuple[bool, bytes]] | None:
            answer = parse_hex(raw)
            if not answer:
                return None
            results = decode_aggregate(answer, len(guards) + len(calls))
            self._check_guards(results[: len(guards)])
            return results[len(guards) :]

        def ask(at: Any) -> list[tuple[bool, bytes]] | None:
            results: list[tuple[bool, bytes]] | None = self._chain.request(
                "eth_call",
                [{"to": self._chain.multicall3, "data": "0x" + data.hex()}, at, *extra],
                parse,
                block=self._block,
                splittable=splittable and len(calls) > 1,
                feature=None if overrides is None else "state override",
            )
            return results

        try:
            results = self._chain.with_state_of(self._block, ask, plain=overrides is None)
        except RevertError as error:
            # aggregate3 itself never reverts: only running out of gas stops it
            raise OutOfGasError(str(error)) from None
        except TooBigError as error:
            raise (OutOfGasError if "gas" in str(error).lower() else TooBigError)(str(error)) from None
        if results is None:
            self._explain_no_answer()
        return results or []

    def _explain_no_answer(self) -> None:
        chain, block = self._chain, self._block
        if not chain.code(chain.multicall3, block):
            raise ChainError(
                f"there is no Multicall3 at {chain.multicall3} on {chain.name} in block {block.number}: "
                "choose a later block, or set chains.<name>.multicall3"
            )
        raise ChainError(f"{chain.endpoint} returns nothing for Multicall3 at {chain.multicall3}")

    def _check_guards(self, results: Sequence[tuple[bool, bytes]]) -> None:
        for check, (success, data) in zip(GUARDS[self._chain.guard], results, strict=True):
            implied = check.implied(self._block)
            if not success or data != implied:
                self._of_another_block(later=success and check is not PARENT and data > implied)
        self._chain.newest_only = 0

    def _of_another_block(self, *, later: bool) -> NoReturn:
        """BadAnswerError, as another backend may do better; StatelessError once an endpoint showed that it always does so."""
        chain, block = self._chain, self._block
        chain.newest_only = chain.newest_only + 1 if later else 0
        if chain.newest_only >= NEWEST_SIGHTS:
            raise StatelessError(
                f"this endpoint keeps no state: asked for block {block.number} it answers with another block, its newest; "
                "give one that keeps the state of recent blocks"
            )
        raise BadAnswerError(f"eth_call: the node answered for another block than {block.number} ({block.hash})")

    # other reads

    def _direct(self, reads: Sequence[Read]) -> list[Any]:
        """Reads from an account of their own: plain eth_calls in JSON-RPC batches, the first of them the guards."""
        guards = {"to": self._chain.multicall3, "data": "0x" + encode_aggregate(self._guards()).hex()}
        wanted = [{"from": read.sender, "to": read.target, "data": "0x" + encode_read(read).hex()} for read in reads]

        def parse(raw: Any, call: Call) -> bytes:
            answer = parse_hex(raw)
            if call[1][0] is guards:
                self._check_guards(decode_aggregate(answer, len(self._guards())))
            return answer

        _, *answers = self._chain.with_state_of(
            self._block,
            lambda at: self._chain.batch(
                [("eth_call", [call, at]) for call in (guards, *wanted)], parse, block=self._block
            ),
        )
        return [
            decode_read(read, False, answer.data)
            if isinstance(answer, RevertError)
            else decode_read(read, True, answer)
            for read, answer in zip(reads, answers, strict=True)
        ]

    def _storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        by_contract: dict[str, list[int]] = {}
        for i, (contract, _) in enumerate(slots):
            by_contract.setdefault(contract.lower(), []).append(i)
        groups = [
            (contract, indexes[start : start + SLOTS_PER_CALL])
            for contract, indexes in by_contract.items()
            for start in range(0, len(indexes), SLOTS_PER_CALL)
        ]
        calls = [(CANARY, bytes(32))]
        calls += [(contract, b"".join(slots[i][1].to_bytes(32) for i in part)) for contract, part in groups]
        overrides = {contract: {"code": STORAGE_CODE} for contract in (*by_contract, CANARY)}
        words: list[int] = [0] * len(slots)
        try:
            answers = self._ask(calls, overrides)
        except (UnsupportedError, RejectedError):  # whatever the message: an eth_call without overrides is valid
            return None
        except TooBigError:
            if len(slots) == 1:
                raise
            half = len(slots) // 2
            first, second = self._storage(slots[:half]), self._storage(slots[half:])
            return None if first is None or second is None else first + second
        if answers[0] != (True, bytes(32)):
            return None
        for (_, part), (success, data) in zip(groups, answers[1:], strict=True):
            if not success or len(data) != 32 * len(part):
                raise ChainError(f"{self._chain.endpoint} answers no storage under a state override")
            for k, i in enumerate(part):
                words[i] = int.from_bytes(data[32 * k : 32 * k + 32])
        return words
