"""What adapters of several protocols share: addresses and slots of the EVM, symbols, answers in rows, balances."""

import re
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar

from indexer.adapter import Quantity, Reader
from indexer.errors import ReadFailedError
from indexer.model import Asset, Balance, Failed, LogSource, Market, Read

ZERO_ADDRESS = "0x" + "0" * 40
IMPLEMENTATION_SLOT = 0x360894A13BA1A3210667C828492DB98DCA3E2076CC3735A920A3CA505D382BBC  # EIP-1967
SECONDS_PER_YEAR = 31_536_000

V = TypeVar("V")


def implementation(read: Reader, proxy: str) -> str:
    """The implementation behind a proxy (EIP-1967); the address itself if it is no proxy or storage cannot be read."""
    words = read.storage([(proxy, IMPLEMENTATION_SLOT)])
    return f"0x{words[0]:040x}" if words and words[0] else proxy


# answers --------------------------------------------------------------------------------------------------------------


def needed(answer: Any) -> Any:
    """The answer of a read that must succeed; ReadFailedError if it failed."""
    if isinstance(answer, Failed):
        name = answer.read.signature.partition("(")[0]
        raise ReadFailedError(f"{name}{answer.read.args} of {answer.read.target} failed: {answer.reason or 'reverted'}")
    return answer


def optional(answer: Any) -> Any:
    """The answer, None if the read failed."""
    return None if isinstance(answer, Failed) else answer


def chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in rows of `size`, e.g. the answers about one account each."""
    return [items[i : i + size] for i in range(0, len(items), size)]


def together(read: Reader, *groups: Sequence[Read]) -> list[list[Any]]:
    """Sends several groups of reads in one request; returns the answers of each group."""
    answers = iter(read([one for group in groups for one in group]))
    return [list(islice(answers, len(group))) for group in groups]


#: a word in hexadecimal that ends in zeros, as no symbol does
HEX_WORD = re.compile(r"(?=[0-9a-fA-F]{62}00)(?!0{64})[0-9a-fA-F]{64}")


def symbol_of(text: Any, word: Any, default: str) -> str:
    """A token's symbol: a string, or a bytes32 as from some early tokens (MKR), else `default`.

    A bridge may have written such a bytes32 into the string in hexadecimal (MKR on Arbitrum).
    """
    if text and not HEX_WORD.fullmatch(str(text)):
        return str(text)
    word = bytes.fromhex(str(text)) if text else word
    return (bytes(word).rstrip(b"\0").decode(errors="replace") if word else "") or default


# values ---------------------------------------------------------------------------------------------------------------


def value_at(amount: int, price: int | None, unit: int) -> Fraction | None:
    """The exact value of an amount of which one `unit` costs the price; None without a price."""
    return None if price is None else Fraction(amount * price, unit)


# logs -----------------------------------------------------------------------------------------------------------------


def sources(*places: tuple[frozenset[str], Sequence[str] | frozenset[str]]) -> list[LogSource]:
    """Logs by (addresses, topics), without pairs that have no address yet."""
    return [LogSource(addresses, frozenset(topics)) for addresses, topics in places if addresses]


# liquidations ---------------------------------------------------------------------------------------------------------


def quantity(assets: Iterable[Asset], asset: str, amount: int, group: str = "") -> Quantity:
    """So much of an asset, in whole tokens and USD as the market lists it; an asset that it no longer lists has neither."""
    for row in assets:
        if (row.asset, row.group) == (asset, group):
            usd = None if row.price_usd is None else amount / 10**row.decimals * row.price_usd
            return Quantity(asset, amount, row.decimals, usd)
    return Quantity(asset, amount, None, None)


# balances -------------------------------------------------------------------------------------------------------------


class Listed(Protocol):
    """An asset as a market lists it."""

    @property
    def asset(self) -> str: ...
    @property
    def symbol(self) -> str: ...
    @property
    def decimals(self) -> int: ...


class Token(NamedTuple):
    """An asset of which only the address is known."""

    asset: str
    symbol: str
    decimals: int


def balance(
    of: Listed, market: str, side: str, *, scaled: int, amount: int, value: int | None, is_collateral: bool = False
) -> Balance:
    """One row of `balances`, kept by the contract `market`."""
    return Balance(of.asset, market, of.symbol, of.decimals, side, scaled, amount, value, is_collateral)


def with_entry(entries: Mapping[str, V], key: str, value: V | None) -> dict[str, V]:
    """The entries with this one changed, or removed if its value is 0 or None."""
    rest = {other: kept for other, kept in entries.items() if other != key}
    return rest | {key: value} if value else rest


def price_usd(market: Market, price: int | None) -> float | None:
    """A price in USD where the market's prices have the unit of its values."""
    return None if price is None or market.usd is None else price * market.usd[0] / market.usd[1]
