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
#: A Compound V2 debt is stored in another way where a node does not show storage: the same amount, another `scaled_raw`.
#: Where that changes, interest around it is not measured, and history has a point more, as after any change of what is stored.
UNSTORED = "select distinct deployment from states where state like '%\"stored\":false%'"
#: how many of its columns name a point of history and say how healthy the position was
POINT = 6

Telling = Counter[tuple[Any, ...]]


@dataclass
class Mirror:
    """A second file (`path`) that takes each snapshot of the first one (`file`) from a faithful node."""

    file: Path
    path: Path
    deployments: dict[str, Deployment]
    accounts: str
    #: deployment -> number and hash of its last snapshot's block
    seen: dict[str, tuple[int, str]] = field(default_factory=dict)
    #: the deployments where a snapshot of either file did without storage, however the file reads it later
    unstored: set[str] = field(default_factory=set)

    def begin(self, wallets: list[str]) -> None:
        """These wallets are watched in both files, besides those that are; none in files that hold snapshots."""
        for path in (self.file, self.path):
            with Store(path) as store:
                add(store, [Watch(wallet) for wallet in wallets])
        self.seen = self._committed()
        self._note_unstored()

    def follow(self, url: str, **settings: Any) -> None:
        """Takes the file's last snapshot too, if it is a new one."""
        self._note_unstored()
        now = self._committed()
        new = [name for name, block in now.items() if self.seen.get(name) != block]
        self.seen = now
        for number in sorted({now[name][0] for name in new}):
            here = [self.deployments[name] for name in new if now[name][0] == number]
            watch_once(self.path, url, here, self.accounts, to=str(number), **settings)

    def _note_unstored(self) -> None:
        for path in (self.file, self.path):
            self.unstored |= {name for (name,) in raw(path, UNSTORED)}

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
            if whole:
                wrong += [f"{name} {row} {what}" for row, what in self._unlike(name, ours, theirs)]
        return told, wrong

    def _unlike(self, name: str, ours: Telling, theirs: Telling) -> list[tuple[tuple[Any, ...], str]]:
        """What only one of the files tells.

        Of deployments that were read without storage no interest is compared, and of history only that no point is lost.
        """
        lost, made_up = theirs - ours, ours - theirs
        if name != "alert":
            points = {row[:POINT] for row in ours} if name == "history" else None
            lost = Counter(row for row in lost if row[0] not in self.unstored or (points and row[:POINT] not in points))
            made_up = Counter(row for row in made_up if row[0] not in self.unstored)
        return [*((row, "is lost") for row in lost), *((row, "never was") for row in made_up)]
