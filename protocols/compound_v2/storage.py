"""Compound V2 debts as the cTokens store them: principal and interest index, which no function returns."""

from collections.abc import Mapping, Sequence

from indexer.abi import mapping_slot
from indexer.adapter import Reader
from protocols.compound_v2.math import proves

# accountBorrows is slot 16 of today's cTokens; older and forked layouts shift it. Each answer shows whether it is right.
BORROW_SLOTS = (16, 17, 15, 14, 18, 13, 19, 12, 20, 11, 21, 22, 23, 24)


class StoredDebts:
    """Reads debts from storage; `slots` has each cToken's slot of accountBorrows, once an answer has confirmed it.

    Several threads may read at once: each works with the slots known when it began.
    """

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}

    def read(
        self, read: Reader, debts: Sequence[tuple[str, str, int]], indexes: Mapping[str, int]
    ) -> list[tuple[int, int] | None]:
        """(principal, interestIndex) of each (account, cToken, debt), which have no getter; None where unreadable.

        A pair is accepted only if it gives the debt that the cToken itself returns at this block.
        """
        slots = dict(self.slots)
        first = {token: (account, debt) for account, token, debt in debts if token not in slots}
        if first:
            tries = [(token, slot) for token in first for slot in BORROW_SLOTS]
            found = debts_at(read, [(token, first[token][0], slot) for token, slot in tries])
            for (token, slot), pair in zip(tries, found, strict=True):
                if pair is not None and token not in slots and proves(pair, indexes[token], first[token][1]):
                    self.slots[token] = slots[token] = slot
        readable = [i for i, (_, token, _) in enumerate(debts) if token in slots]
        found = debts_at(read, [(debts[i][1], debts[i][0], slots[debts[i][1]]) for i in readable])
        pairs: list[tuple[int, int] | None] = [None] * len(debts)
        for i, pair in zip(readable, found, strict=True):
            _, token, debt = debts[i]
            if pair is not None and proves(pair, indexes[token], debt):
                pairs[i] = pair
            else:
                self.slots.pop(token, None)  # a changed layout: search again at the next read
        return pairs


def debts_at(read: Reader, places: Sequence[tuple[str, str, int]]) -> list[tuple[int, int] | None]:
    """BorrowSnapshot {principal, interestIndex} of (cToken, account, slot of accountBorrows)."""
    if not places:
        return []
    slots = []
    for token, account, slot in places:
        first = mapping_slot(account, slot)
        slots += [(token, first), (token, first + 1)]
    words = read.storage(slots)
    if words is None:
        return [None] * len(places)
    return list(zip(words[::2], words[1::2], strict=True))
