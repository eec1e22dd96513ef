"""The loop: block, market, missing logs, touched positions, evaluation, one transaction.

snapshot of block T = heal reorgs -> read markets at T -> logs up to T -> read who was touched -> evaluate everyone
                      -> compare sums and a sample with the contracts -> commit
"""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.chain.blocks import parse_block
from indexer.chain.client import Chain
from indexer.chain.multicall import PinnedReader
from indexer.errors import ChainError, DefectError, NoCodeError, PrunedError, ReadFailedError, ReorgError, StoreError
from indexer.model import Accounts, Block, PositionKey
from indexer.progress import NoProgress, Progress
from indexer.settings import Settings
from indexer.store.accrual import accrue
from indexer.store.history import History
from indexer.store.rows import Snapshot
from indexer.store.store import Rider, Store
from indexer.sync.audit import STATUS, WALLET, Auditor
from indexer.sync.missing_logs import MissingLogs, dry_run
from indexer.sync.tracked import TrackedDeployment, WatchedDeployment

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Outcome:
    """What one snapshot did; `at_risk` counts wallets."""

    block: Block
    deployments: list[str]
    failed: dict[str, str] = field(default_factory=dict)
    positions: int = 0
    at_risk: int = 0
    logs: int = 0
    read: int = 0
    requests: int = 0
    retries: int = 0


class Sync:
    """Brings deployments of one chain to a block, and keeps what it learnt for the next snapshot."""

    def __init__(
        self,
        store: Store,
        chain: Chain,
        adapters: Sequence[AnyAdapter],
        accounts: Accounts,
        settings: Settings | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.store, self.chain, self.adapters, self.accounts = store, chain, list(adapters), accounts
        self.settings = settings or Settings()
        self.progress = progress or NoProgress()
        self.behind_seconds = self.settings.behind_seconds
        self.works: dict[str, TrackedDeployment] = {}
        self.checked_code: set[str] = set()
        self.riders: list[Rider] = [History(), accrue]
        self.gaps = MissingLogs(store, chain, self.settings, self.progress)
        self.auditor = Auditor(store, chain, self.settings, self.gaps)

    # one snapshot ---------------------------------------------------------------------------------------------------

    def snapshot(self, to: str = "latest", target: Block | None = None) -> Outcome:
        """Every deployment at the block `to` names, which is `target` if given; a reorg meanwhile starts it again.

        ChainError if no deployment could be brought there; a deployment that fails alone is told in
        `Outcome.failed` and in `deployments.note`, the others go on.
        """
        run = self.store.start_run(self.chain.chain_id)
        requests, retries = self.chain.requests, self.chain.retries
        self.gaps.seen, read_before = 0, sum(w.read_count for w in self.works.values())
        try:
            outcome = self._until_settled(to, target)
        except PrunedError as error:
            self.works.clear()
            raise PrunedError(
                f"no endpoint of {self.chain.name} holds the state of block {to} any more: "
                f"take a newer block, or an endpoint that keeps old states ({error})"
            ) from None
        except BaseException:
            self.works.clear()  # what is in memory may be ahead of the store
            raise
        outcome.requests, outcome.retries = self.chain.requests - requests, self.chain.retries - retries
        outcome.logs = self.gaps.seen
        outcome.read = max(sum(w.read_count for w in self.works.values()) - read_before, 0)
        self.store.finish_run(
            run,
            requests=outcome.requests,
            retries=outcome.retries,
            logs=outcome.logs,
            positions_read=outcome.read,
            block_number=outcome.block.number,
        )
        return outcome

    def plan(self, to: str = "latest") -> list[Mapping[str, Any]]:
        """What a snapshot would ask for, deployment by deployment; nothing but the markets is read."""
        target = self.target(to)
        return dry_run(self._markets(target, {}), target)

    def _until_settled(self, to: str, target: Block | None) -> Outcome:
        for _ in range(5):
            try:
                return self._snapshot(to, target or self.target(to))
            except ReorgError as error:
                log.warning("the chain was reorganised during the snapshot, starting it again: %s", error)
                self.works.clear()
                target = None
        return self._snapshot(to, self.target(to))

    def _snapshot(self, to: str, target: Block) -> Outcome:
        failed: dict[str, str] = {}
        while True:
            self._heal(target)
            self._remember(target)
            works = self._left(self._markets(target, failed), target, failed)
            self.gaps.fetch(works, target, lambda adapter: self._alone(adapter, failed))
            newest = self._read_positions(self._left(works, target, failed), target, to, failed)
            works = self._left(works, target, failed)
            if newest.number == target.number:
                break
            target = self._at_least(newest, to)
        snapshots = []
        for work in works:
            with self._alone(work.adapter, failed):
                snapshots.append(self.auditor.snapshot(work, target))
        self._still_canonical(target)
        snapshots = self._commit(snapshots, target, failed)
        for work in self._left(works, target, failed):
            work.previous = work.market
        done = [s.deployment for s in snapshots]
        return Outcome(
            target,
            done,
            failed,
            positions=sum(len(s.rows) for s in snapshots),
            at_risk=len({r[WALLET] for s in snapshots for r in s.rows if r[STATUS] in ("at-risk", "liquidatable")}),
        )

    def _commit(self, snapshots: Sequence[Snapshot], target: Block, failed: dict[str, str]) -> list[Snapshot]:
        """Commits all of them at once, but for those whose adapter fails over it; those that were committed."""
        left = list(snapshots)
        while left:
            try:
                self.store.commit(left, target, self.chain.chain_id, self.settings.keep_blocks, self.riders)
            except DefectError as error:
                broken = error.deployment
                with self._alone(next(a for a in self.adapters if a.deployment.name == broken), failed):
                    raise
                left = [snapshot for snapshot in left if snapshot.deployment != broken]
            else:
                return left
        return left

    def _left(
        self, works: Sequence[TrackedDeployment], target: Block, failed: Mapping[str, str]
    ) -> list[TrackedDeployment]:
        """Those that have not failed. ChainError if all have."""
        left = [work for work in works if work.name not in failed]
        if not left:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise ChainError(f"no deployment could be read at block {target.number} of {self.chain.name}: {reasons}")
        return left

    def target(self, to: str) -> Block:
        """The block that `to` names now: a tag, a number, or `latest:-64`.

        A node behind the last snapshot is given `behind_seconds` to catch up, for it may be another backend that lags;
        then the chain is believed to be shorter. One that shows another chain is believed at once.
        """
        name, _, offset = to.partition(":")
        block = self.chain.block(int(name) if name.isdecimal() else name)
        if offset:
            return self.chain.block(max(block.number + int(offset), 0))
        kept = self.store.blocks(self.chain.chain_id)
        if not kept or block.number >= kept[0][0] or name.isdecimal():
            return block
        newest, newest_hash = kept[0]
        deadline, pause = time.monotonic() + self.behind_seconds, 0.25
        while block.number < newest:
            if self._hash(newest, block) == newest_hash:  # another backend lagged, or the tag means an older block
                return self.chain.block(newest_hash) if name == "latest" else block
            if self._contradicts(block, kept):
                break
            if time.monotonic() > deadline:
                log.warning("the node is still at block %d: the blocks up to %d are given up", block.number, newest)
                break
            if pause == 0.25:
                log.info("the node is at block %d, behind the last snapshot at %d; waiting", block.number, newest)
            time.sleep(pause)
            pause = min(2 * pause, 2.0)
            block = self.chain.block(name)
        return block

    def holds(self, block: Block, head: Block) -> bool:
        """Whether the chain of `head`, which is older, has that block too: then the head was told by a backend that lags."""
        return head.number < block.number and self._hash(block.number, head) == block.hash

    def _contradicts(self, block: Block, kept: Sequence[tuple[int, str]]) -> bool:
        """Whether the chain up to `block` is another one than ours."""
        for number, block_hash in kept:
            if number <= block.number:
                return self._hash(number, block) != block_hash
        return False

    def _at_least(self, least: Block, to: str) -> Block:
        """The target, but none before `least`."""
        block = self.target(to)
        return least if block.number < least.number else block

    def _still_canonical(self, target: Block) -> None:
        if self.chain.block(target.number).hash != target.hash:
            raise ReorgError(f"block {target.number} {target.hash} left the chain before the commit")

    def _remember(self, target: Block) -> None:
        """Keeps the target's hash before anything of its chain is saved, and hashes at growing distances below it.

        So whatever a reorg or a kill leaves behind is told apart later, and a near ancestor is found.
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
            # Read before the target was seen to be still there, so they are its ancestors.
            below = [block for n, block in zip(missing, found, strict=True) if own and block and block.number == n]
        self.store.save_blocks(chain_id, [*below, target])

    # reorgs -----------------------------------------------------------------------------------------------------------

    def _heal(self, target: Block) -> None:
        """Where the chain disagrees with what is stored, goes back to the last block both know."""
        chain_id = self.chain.chain_id
        kept = self.store.blocks(chain_id)
        if not kept:
            return
        newest, newest_hash = kept[0]
        if newest <= target.number:
            if self._hash(newest, target) == newest_hash:
                return
        elif self._hash(newest, target) == newest_hash:
            # An older block than the last snapshot is asked for: what came later is not yet true there. What cannot be
            # read there (the node forgot that state, or nothing was deployed yet) keeps the rows it has.
            there = [adapter.deployment.name for adapter in self.adapters if self._deployed(adapter, target)]
            self.store.rollback(chain_id, target.number, there)
            self.works.clear()
            return
        candidates = [entry for entry in kept if entry[0] <= target.number]
        low, high = 0, len(candidates)  # candidates[high:] are on the chain, candidates[:low] are not
        while low < high:
            middle = (low + high) // 2
            number, block_hash = candidates[middle]
            if self._hash(number, target) == block_hash:
                high = middle
            else:
                low = middle + 1
        ancestor = candidates[low][0] if low < len(candidates) else -1
        log.warning("blocks after %d were reorganised; reading what they touched again", ancestor)
        self.store.rollback(chain_id, ancestor)
        for adapter in self.adapters:
            if self.store.deployment(chain_id, adapter.deployment.name):
                detail = {"ancestor": ancestor, "orphaned_block": newest, "orphaned_hash": newest_hash}
                self.store.audit(
                    chain_id, adapter.deployment.name, "reorg", checked=0, mismatches=0, block=target, detail=detail
                )
        self.works.clear()

    def _hash(self, number: int, target: Block) -> str | None:
        """The canonical hash of a block, None where the chain does not reach it.

        A block up to the target must be there: a node that does not know it lags, and is asked again.
        """
        if number == target.number:
            return target.hash
        if number < target.number:
            try:
                return self.chain.block(number).hash
            except ChainError:
                self.chain.block(target.hash)  # ReorgError if the target is gone, and the block with it
                raise
        header = self.chain.request("eth_getBlockByNumber", [hex(number), False])
        return header["hash"].lower() if isinstance(header, dict) else None

    # markets --------------------------------------------------------------------------------------------------------

    def _markets(self, target: Block, failed: dict[str, str]) -> list[TrackedDeployment]:
        works = []
        read = PinnedReader(self.chain, target)
        for adapter in self.adapters:
            name = adapter.deployment.name
            if name in failed:
                continue
            with self._alone(adapter, failed):
                work = self.works.get(name)
                if work is None or self.accounts not in (work.accounts, Accounts.WATCHED):
                    work = self.works[name] = self._work(adapter)
                self._check_code(adapter, target)
                work.read_market(read)
                works.append(work)
        return works

    def _work(self, adapter: AnyAdapter) -> TrackedDeployment:
        """What is known of a deployment; watching one whose accounts are discovered goes on discovering them."""
        chain_id, name = self.chain.chain_id, adapter.deployment.name
        if self.accounts is not Accounts.WATCHED:
            return TrackedDeployment(self.store, chain_id, adapter, self.accounts)
        accounts = self.store.discovers(chain_id, name)
        if accounts is not None:
            return TrackedDeployment(self.store, chain_id, adapter, Accounts(accounts))
        return WatchedDeployment(self.store, chain_id, adapter)

    @contextmanager
    def _alone(self, adapter: AnyAdapter, failed: dict[str, str]) -> Iterator[None]:
        """What goes wrong with one deployment alone is told and leaves the others going.

        Its rows stay at the last block they were right at. A reorg, missing state, a broken file or a node that no
        longer answers concerns all, and is raised.
        """
        try:
            yield
        except (ReorgError, PrunedError, StoreError):
            raise
        except (ReadFailedError, NoCodeError, DefectError) as error:
            reason = str(error)
        except ChainError as error:
            self.chain.block("latest")
            reason = str(error)
        except Exception as error:  # an adapter's defect must not stop the other protocols
            log.exception("%s: defect in the %s adapter", adapter.deployment.name, adapter.protocol)
            reason = f"defect in the {adapter.protocol} adapter: {type(error).__name__}: {error}"
        else:
            return
        name = adapter.deployment.name
        log.error("%s: %s", name, reason)
        failed[name] = reason
        self.store.set_state(self.chain.chain_id, name, "failed", reason)
        self.works.pop(name, None)

    def _check_code(self, adapter: AnyAdapter, target: Block) -> None:
        name = adapter.deployment.name
        if name in self.checked_code:
            return
        for key in adapter.required_addresses:
            address = adapter.deployment.addresses[key]
            if not self.chain.code(address, target):
                raise NoCodeError(
                    f"no contract at {key} {address} of deployment {name} on {self.chain.name} "
                    f"at block {target.number}: check the address and the chain"
                )
        self.checked_code.add(name)

    def _deployed(self, adapter: AnyAdapter, target: Block) -> bool:
        addresses = adapter.deployment.addresses
        return all(self.chain.code(addresses[key], target) for key in adapter.required_addresses)

    # positions ------------------------------------------------------------------------------------------------------

    def _read_positions(
        self, works: Sequence[TrackedDeployment], target: Block, to: str, failed: dict[str, str]
    ) -> Block:
        """Reads who was touched; the newest block that anything was read at (a long read moves on with the chain)."""
        todo: dict[str, list[PositionKey]] = {}
        for work in works:
            with self._alone(work.adapter, failed):
                todo[work.name] = work.to_read(PinnedReader(self.chain, target))
        total = sum(map(len, todo.values()))
        if not total:
            return target
        self.progress.start("positions", total, "positions")
        pin = _Pin(target)
        for work in works:
            keys = todo.get(work.name, [])
            with self._alone(work.adapter, failed):
                for start in range(0, len(keys), self.settings.read_chunk):
                    chunk = keys[start : start + self.settings.read_chunk]
                    self._read_chunk(work, chunk, pin, to)
                    self.progress.advance("positions", len(chunk))
        self.progress.done("positions")
        return pin.block

    def _read_chunk(self, work: TrackedDeployment, keys: Sequence[PositionKey], pin: "_Pin", to: str) -> None:
        """Reads at the pin, moving it on when it grows old or its state is gone."""
        if time.monotonic() - pin.since > self.settings.repin_seconds:
            pin.move(self._fresh_pin(pin.block, to))
        try:
            work.read(PinnedReader(self.chain, pin.block), keys)
        except PrunedError:
            fresh = self._fresh_pin(pin.block, to)
            if fresh.number == pin.block.number:
                raise
            pin.move(fresh)
            work.read(PinnedReader(self.chain, pin.block), keys)

    def _fresh_pin(self, at: Block, to: str) -> Block:
        """A newer block to go on reading at; the same one where the user named a number."""
        block = self._at_least(at, to)
        if block.number <= at.number:
            return at
        self.store.save_blocks(self.chain.chain_id, [block])
        return block


@dataclass(slots=True)
class _Pin:
    """The block that a long read is at, and since when."""

    block: Block
    since: float = field(default_factory=time.monotonic)

    def move(self, block: Block) -> None:
        self.block, self.since = block, time.monotonic()
