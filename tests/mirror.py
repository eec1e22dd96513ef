"""What a file tells that no later snapshot tells again, beside that of a file that only ever saw a faithful node."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from indexer.alert.watches import Watch, add
from indexer.model import Deployment
from indexer.store.store import Store
from tests.disturbed import watch_once
from tests.truth import raw

#: alerts, points of history and measured interest, as they must be in both
TOLD = {
    "alert": "select wallet, deployment, account, position_group, rule, crossing, event, block_number, health_factor_raw "
    "from alerts",
    "history": "select deployment, account, position_group, block_number, status, health_factor_raw, debt_usd, "
    "supply_change_usd, debt_change_usd from health_history",
    "interest": "select deployment, account, position_group, market, asset, side, start_block, scaled_raw, start_amount_raw, "
    "interest_raw from accruals",
}
#: A Compound V2 debt is stored in another way where a node does not show storage: the same amount, another `scaled_raw`, and
#: interest around the change is not measured.
UNSTORED = "select 1 from states where state like '%\"stored\":false%'"


@dataclass
class Mirror:
    """A second file (`path`) that takes each snapshot of the first one (`file`) from a faithful node."""

    file: Path
    path: Path
    deployments: dict[str, Deployment]
    accounts: str
    #: deployment -> number and hash of its last snapshot's block
    seen: dict[str, tuple[int, str]] = field(default_factory=dict)

    def begin(self, wallets: list[str]) -> None:
        """These wallets are watched in both files, besides those that are; none in files that hold snapshots."""
        for path in (self.file, self.path):
            with Store(path) as store:
                add(store, [Watch(wallet) for wallet in wallets])
        self.seen = self._committed()

    def follow(self, url: str, **settings: Any) -> None:
        """Takes the file's last snapshot too, if it is a new one."""
        now = self._committed()
        new = [name for name, block in now.items() if self.seen.get(name) != block]
        self.seen = now
        for number in sorted({now[name][0] for name in new}):
            here = [self.deployments[name] for name in new if now[name][0] == number]
            watch_once(self.path, url, here, self.accounts, to=str(number), **settings)

    def _committed(self) -> dict[str, tuple[int, str]]:
        rows = raw(self.file, "select deployment, block_number, block_hash from deployments where block_number > 0")
        return {name: (number, block) for name, number, block in rows if name in self.deployments}

    def differences(self, *, whole: bool) -> tuple[int, list[str]]:
        """How many alerts, points and lines of interest there are, and what is lost, made up or told twice.

        Not `whole`, where the file learnt of somebody later than the mirror, only what is told twice counts.
        """
        told, wrong = 0, []
        for name, sql in TOLD.items():
            ours, theirs = (Counter(raw(path, sql)) for path in (self.file, self.path))
            told += ours.total()
            wrong += [f"{name} {row} is there {count} times" for row, count in ours.items() if count > 1]
            unstored = name == "interest" and (raw(self.file, UNSTORED) or raw(self.path, UNSTORED))
            if whole and not unstored:
                wrong += [f"{name} {row} is lost" for row in theirs - ours]
                wrong += [f"{name} {row} never was" for row in ours - theirs]
        return told, wrong
