"""Chooses the next block, checks that it continues the stored chain, and goes back where it does not.

No irreversible step relies on one answer: before anything is undone the chain id is checked again, and a reorg that shares
no kept block with the file, or reaches below what is final, needs a second endpoint or the operator.
"""

import logging
import time
from collections.abc import Callable, Iterable, Sequence

from indexer.chain.blocks import parse_block
from indexer.chain.client import Chain
from indexer.chain.errors import RejectedError, UnsupportedError
from indexer.chain.retry import NoSuchBlockError
from indexer.errors import ChainError, ReorgError, UnconfirmedError, WrongChainError
from indexer.model import Block
from indexer.settings import Settings
from indexer.store import reorgs
from indexer.store.store import Store

log = logging.getLogger(__name__)

#: seconds between a live tail's questions for the finalized block
FINAL_EVERY_SECONDS = 60.0


class Canon:
    """Compares the chain as the store remembers it with the chain as it is.

    `accept_reorg`: the operator says that the chain is right, whatever the store remembers. `names` are the deployments
    concerned, `deployed(block)` those whose contracts exist at a block.
    """

    def __init__(
        self,
        store: Store,
        chain: Chain,
        settings: Settings,
        names: Iterable[str],
        deployed: Callable[[Block], list[str]],
        *,
        accept_reorg: bool = False,
    ) -> None:
        self.store, self.chain, self.settings = store, chain, settings
        self.names, self.deployed = list(names), deployed
        self.accept_reorg = accept_reorg
        self.behind_seconds = settings.behind_seconds
        #: is told of each block that a node names as the newest
        self.saw: Callable[[Block], None] = lambda _: None
        self._asked_final = float("-inf")
        self._knows_final = True

    # the next block -------------------------------------------------------------------------------------------------

    def target(self, to: str) -> Block:
        """The block that `to` names now: a tag, a number, or `latest:-64`.

        A node behind the last snapshot has `behind_seconds` to catch up, as it may be a lagging backend; after that the
        chain counts as shorter. A node that shows another chain is believed at once.
        """
        name, _, offset = to.partition(":")
        block = self.chain.block(int(name) if name.isdecimal() else name)
        if name == "latest":
            self.saw(block)
        if offset:
            return self.chain.block(max(block.number + int(offset), 0))
        kept = self.store.blocks(self.chain.chain_id)
        if not kept or block.number >= kept[0][0] or name.isdecimal():
            return block
        newest, newest_hash = kept[0]
        deadline, pause = time.monotonic() + self.behind_seconds, 0.25
        while block.number < newest:
            if self.hash(newest, block) == newest_hash:  # a backend lags, or the tag means an older block
                return self.chain.block(newest_hash) if name == "latest" else block
            if self._contradicts(block, kept):
                break
            if time.monotonic() > deadline:
                log.warning("the node is still at block %d, behind the last snapshot at %d", block.number, newest)
                break
            if pause == 0.25:
                log.info("the node is at block %d, behind the last snapshot at %d; waiting", block.number, newest)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
            block = self.chain.block(name)
        return block

    def at_least(self, least: Block, to: str) -> Block:
        """The target, or `least` if that is later."""
        block = self.target(to)
        return least if block.number < least.number else block

    def fresh(self, at: Block, to: str) -> Block:
        """A newer block than `at`, with its hash kept; the same one where the user named a number."""
        block = self.at_least(at, to)
        if block.number <= at.number:
            return at
        self.store.save_blocks(self.chain.chain_id, [block])
        return block

    def holds(self, block: Block, head: Block) -> bool:
        """Whether the chain of `head`, an older block, has that block too: then a lagging backend answered with `head`."""
        return head.number < block.number and self.hash(block.number, head) == block.hash

    def _contradicts(self, block: Block, kept: Sequence[tuple[int, str]]) -> bool:
        """Whether the chain up to `block` differs from ours."""
        for number, block_hash in kept:
            if number <= block.number:
                return self.hash(number, block) != block_hash
        return False

    def still_canonical(self, target: Block) -> None:
        if self.chain.block(target.number).hash != target.hash:
            raise ReorgError(f"block {target.number} {target.hash} left the chain during the snapshot")

    def hash(self, number: int, target: Block) -> str | None:
        """The canonical hash of a block, None where the chain does not reach it.

        A block up to the target must exist: a node that does not know it lags, and is asked again.
        """
        if number == target.number:
            return target.hash
        if number == target.number - 1:
            return target.parent_hash
        if number < target.number:
            try:
                return self.chain.block(number).hash
            except ChainError:
                self.chain.block(target.hash)  # ReorgError if the target is gone, and the block with it
                raise
        header = self.chain.request("eth_getBlockByNumber", [hex(number), False])
        return header["hash"].lower() if isinstance(header, dict) else None

    # what is kept ---------------------------------------------------------------------------------------------------

    def remember(self, target: Block) -> None:
        """Keeps the target's hash before anything of its chain is saved, and hashes at growing distances below it.

        So what a reorg or a kill leaves behind can be recognised later, and a near ancestor found.
        """
        chain_id = self.chain.chain_id
        kept = [number for number, _ in self.store.blocks(chain_id)]
        missing, distance = [], 1
        while distance <= self.settings.keep_blocks and target.number - distance >= 0:
            if not any(target.number - 2 * distance < number <= target.number - distance for number in kept):
                missing.append(target.number - distance)
            distance *= 2
        below: list[Block] = []
        if missing:
            calls = [("eth_getBlockByNumber", [hex(number), False]) for number in [*missing, target.number]]
            *found, own = self.chain.batch(calls, lambda raw, _: None if raw is None else parse_block(raw))
            if own is not None and own.hash != target.hash:
                raise ReorgError(f"block {target.number} {target.hash} left the chain")
            # They were read before the target was confirmed, so they are its ancestors.
            below = [block for n, block in zip(missing, found, strict=True) if own and block and block.number == n]
        self.store.save_blocks(chain_id, [*below, target])

    def final(self, target: Block) -> Block | None:
        """The final block as of a snapshot of `target`: the chain's own finalized block or, where it has none or calls its
        head final, the one 128 blocks below. None if it is not due to be asked, or below block 0.

        Call it before the check that the target is still canonical.
        """
        if time.monotonic() - self._asked_final < FINAL_EVERY_SECONDS:
            return None
        found = self._finalized() if self._knows_final else None
        if found is None or found.number >= target.number:
            number = target.number - reorgs.FINAL_BELOW
            found = None if number < 0 else self.chain.block(number)
        self._asked_final = time.monotonic()
        return found

    def _finalized(self) -> Block | None:
        """The block that the chain calls finalized, None where it has no such tag."""
        try:
            found: Block | None = self.chain.request(
                "eth_getBlockByNumber",
                ["finalized", False],
                lambda raw: None if raw is None else parse_block(raw),
                rounds=2,
            )
        except ChainError as error:
            log.info("%s does not say what is final: %s", self.chain.name, error)
            self._knows_final = not isinstance(error, RejectedError | UnsupportedError | NoSuchBlockError)
            return None
        self._knows_final = found is not None
        return found

    # the way back ---------------------------------------------------------------------------------------------------

    def heal(self, target: Block) -> bool:
        """If the chain contradicts what is stored, goes back to the last common block.

        Returns whether anything was undone, which makes everything in memory void. UnconfirmedError if only the endpoint
        in use says that a final block has left the chain, WrongChainError if it serves another chain; both change
        nothing.
        """
        chain_id = self.chain.chain_id
        kept = self.store.blocks(chain_id)
        if not kept:
            return False
        newest, newest_hash = kept[0]
        if self.hash(newest, target) == newest_hash:
            if newest > target.number:
                self.still_canonical(target)
                # The user asks for an older block than the last snapshot, where later data does not hold yet.
                # Deployments that cannot be read there (the node dropped that state, or they did not exist) keep their rows.
                there = self.deployed(target)
                with self.store.transaction() as conn:
                    reorgs.go_back(conn, chain_id, target.number, there)
                self.store.sums.forget()
            return newest > target.number
        ancestor = self._ancestor(kept, target)
        confirmed_by = self._confirmed(kept, ancestor, target)
        self.still_canonical(target)  # a node that was on a fork for a moment may have named it
        log.warning("blocks after %d were reorganised; reading what they touched again", ancestor)
        with self.store.transaction() as conn:
            reorgs.roll_back(conn, chain_id, ancestor, newest_hash)
        self.store.sums.forget()
        detail = {
            "ancestor": ancestor,
            "orphaned_block": newest,
            "orphaned_hash": newest_hash,
            "confirmed_by": confirmed_by,
        }
        for name in self.names:
            if self.store.deployment(chain_id, name):
                self.store.audit(chain_id, name, "reorg", checked=0, mismatches=0, block=target, detail=detail)
        return True

    def _ancestor(self, kept: Sequence[tuple[int, str]], target: Block) -> int:
        """The newest kept block up to the target that is on the chain, -1 if none is."""
        candidates = [entry for entry in kept if entry[0] <= target.number]
        low, high = 0, len(candidates)  # candidates[high:] are on the chain, candidates[:low] are not
        while low < high:
            middle = (low + high) // 2
            number, block_hash = candidates[middle]
            if self.hash(number, target) == block_hash:
                high = middle
            else:
                low = middle + 1
        return candidates[low][0] if low < len(candidates) else -1

    def _confirmed(self, kept: Sequence[tuple[int, str]], ancestor: int, target: Block) -> str | None:
        """Who besides the endpoint in use confirms that the blocks after `ancestor` are gone; None if that is not needed.

        A second endpoint counts if it has the same other block in place of the oldest orphaned one. An endpoint that does
        not reach that block proves nothing: it may lag like the first.
        """
        try:
            self.chain.check_again()
        except WrongChainError as error:
            self._refuse(str(error))
            raise
        final = reorgs.final_block(self.store.conn, self.chain.chain_id)
        if ancestor >= max(final, 0):
            return None
        if self.accept_reorg:
            return "operator"
        number, ours = min(entry for entry in kept if entry[0] > ancestor)
        theirs = self.hash(number, target)
        opinions = self.chain.opinions(number)
        if theirs is not None and opinions.count(theirs) >= max(2, opinions.count(ours) + 1):
            return "second endpoint"
        what = (
            f"has no block {number}, which was seen here as {ours}"
            if theirs is None
            else (f"has block {theirs} at {number}, where {ours} was")
        )
        reason = (
            f"{self.chain.name}: {self.chain.endpoint} {what}; such a deep reorganisation needs a second endpoint that "
            "confirms it; nothing was changed: give another --rpc-url, or if that chain is right run "
            "`indexer sync --accept-reorg` once"
        )
        self._refuse(reason)
        raise UnconfirmedError(reason)

    def _refuse(self, reason: str) -> None:
        for name in self.names:
            self.store.set_state(self.chain.chain_id, name, "failed", reason)
