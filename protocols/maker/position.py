"""A position of Maker: an urn as the Vat stores it, and whose it is."""

from dataclasses import dataclass

from indexer.model import Position


@dataclass(frozen=True, slots=True, kw_only=True)
class Urn(Position):
    """`cdp` is CdpManager's number, None for an urn that it does not manage; the rest are DESIGN.md's columns."""

    ink: int
    art: int
    cdp: int | None
    owner: str
    owner_via: str
    wallet: str

    @property
    def empty(self) -> bool:
        return not self.ink and not self.art
