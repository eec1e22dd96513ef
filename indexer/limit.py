"""The size of a request that a node answers, found by halving and remembered. Pure."""

from dataclasses import dataclass

#: requests that fit before a size that was once too big is tried again
PATIENCE = 16


@dataclass(slots=True)
class Limit:
    """How many things go into one request: `size`, halved when too many, doubled up to `largest` while all goes well.

    A single bad one (a call that burns all gas) also forces halving down to itself; once it was asked alone, the size
    returns to half of where that began.
    """

    size: int
    largest: int
    ceiling: int = 0
    began: int = 0
    streak: int = 0

    def too_big(self, count: int) -> None:
        """So many were refused."""
        self.began = self.began or self.size
        self.ceiling = max(2, min(count, self.size))
        self.size = max(1, self.ceiling // 2)
        self.streak = 0

    def fits(self, count: int) -> None:
        """So many were answered."""
        if count < self.size:
            return
        if self.size == 1 and self.began > 2:
            self.size, self.ceiling, self.began = self.began // 2, 0, 0
            return
        self.began = 0
        self.streak += 1
        if self.streak > PATIENCE:
            self.ceiling, self.streak = 0, 0
        if not self.ceiling or 2 * self.size < self.ceiling:
            self.size = min(2 * self.size, self.largest)
