"""From the contract that an oracle asks to the feeds behind it: proxies, capped and chained adapters, Maker's OSM.

A contract is known by the functions that it answers. What is not recognised is no feed: the history of such a price is what
snapshots saw. Whether it is made as supposed is checked: the product must be what the adapter itself answers.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import PriceSource, Reader
from indexer.model import Failed, Read

PROXY = abi("aggregator")
ADAPTER = abi("price_adapter")
OSM = abi("maker_osm")
MEDIAN = abi("maker_median")

#: what every contract is asked, by the name under which the answer is kept
PROBES = {
    name: contract.function(name)
    for contract, names in (
        (PROXY, ("aggregator", "phaseId", "decimals", "description", "latestAnswer", "latestRoundData")),
        (
            ADAPTER,
            (
                "ASSET_TO_PEG", "ASSET_TO_USD_AGGREGATOR", "BASE_TO_USD_AGGREGATOR", "PEG_TO_BASE",
                "getMaxRatioGrowthPerSecond", "getPriceCap", "getRatio", "getSnapshotRatio", "getSnapshotTimestamp",
                "isCapped", "priceFeedA", "priceFeedB", "underlyingPriceFeed",
            ),
        ),
        (OSM, ("hop", "src", "zzz")),
        (MEDIAN, ("age",)),
    )
    for name in names
}  # fmt: skip
#: the functions by which an adapter names the one or the two contracts that it takes its price from
INNER = (
    ("BASE_TO_USD_AGGREGATOR", ""),
    ("ASSET_TO_USD_AGGREGATOR", ""),
    ("underlyingPriceFeed", ""),
    ("ASSET_TO_PEG", "PEG_TO_BASE"),
    ("priceFeedA", "priceFeedB"),
)
#: what governance sets of a capped adapter
CAPS = ("getPriceCap", "getSnapshotRatio", "getSnapshotTimestamp", "getMaxRatioGrowthPerSecond")
#: adapters in adapters, at most so many
DEPTH = 4
#: how far the product may be from the adapter's own answer: roundings of 8 decimals
CLOSE = 1e-4
DAY = 86_400


class Part(NamedTuple):
    """A feed in a price: `role` and `exponent` as in `market_prices`."""

    feed: str
    role: str
    exponent: int


@dataclass(frozen=True, slots=True)
class Feed:
    """A contract whose answers are followed. `answer` is the present one, `at` its time; None where it does not say.

    `phase` is the proxy's number of its present aggregator (0: it is no proxy). `taker` is an OSM's: who may read it.
    """

    address: str
    kind: str
    decimals: int | None
    description: str | None
    aggregator: str = ""
    phase: int = 0
    round: int | None = None
    answer: int | None = None
    at: int | None = None
    hop: int | None = None
    taker: str | None = None

    @property
    def value(self) -> float | None:
        return None if self.answer is None else self.answer / 10 ** (self.decimals or 0)


@dataclass(frozen=True, slots=True)
class Composition:
    """How one price comes from feeds; the fields are those of `market_prices`. No parts: the source is not recognised."""

    parts: tuple[Part, ...] = ()
    adapter: str | None = None
    ratio: int | None = None
    cap: int | None = None
    capped: bool | None = None
    days_to_cap: float | None = None


@dataclass
class Unwrapped:
    """What stands behind contracts: the feeds by address, and by contract how its answer is made of them."""

    feeds: dict[str, Feed] = field(default_factory=dict)
    made: dict[str, Composition] = field(default_factory=dict)
    #: the contracts between the oracle and the feeds
    adapters: tuple[str, ...] = ()


def unwrap(read: Reader, sources: Iterable[PriceSource]) -> Unwrapped:
    """Asks the sources, then what they name, until nothing is left to ask: one call for each layer of adapters."""
    takers = {source.contract: source.taker for source in sources}
    answers: dict[str, dict[str, Any]] = {}
    waiting: Collection[str] = dict.fromkeys(takers)
    for _ in range(DEPTH):
        answers |= probe(read, waiting)
        named = dict.fromkeys(inner for contract in waiting for inner, _, _ in inside(answers[contract]))
        waiting = [contract for contract in named if contract not in answers]
        if not waiting:
            break
    found = Unwrapped()
    for contract, taker in takers.items():
        found.made[contract] = compose(found, answers, contract, taker, read.block.timestamp)
    found.adapters = tuple(contract for contract in answers if contract not in found.feeds)
    return found


def probe(read: Reader, contracts: Collection[str]) -> dict[str, dict[str, Any]]:
    """What each contract answers, by the names in PROBES; functions that it lacks are left out.

    They are strangers' contracts, so they are asked after everything else.
    """
    reads = [Read(contract, signature, mutates=True) for contract in contracts for signature in PROBES.values()]
    rows = iter(read(reads) if reads else [])
    return {
        contract: {name: answer for name in PROBES if not isinstance(answer := next(rows), Failed)}
        for contract in contracts
    }


def inside(answers: Mapping[str, Any]) -> Sequence[tuple[str, str, int]]:
    """The contracts that an adapter takes its price from, with their role and exponent; none for a feed."""
    if answers.get("phaseId") and "aggregator" in answers:
        return []
    for first, second in INNER:
        if first in answers and (not second or second in answers):
            return [(answers[first], "price", 1), *([(answers[second], "peg", 1)] if second else [])]
    if "zzz" in answers and "hop" in answers and "src" in answers:
        return [(answers["src"], "source", 0)]
    return []


def compose(
    found: Unwrapped, answers: Mapping[str, Mapping[str, Any]], contract: str, taker: str | None, now: int
) -> Composition:
    """How a contract's answer is made of feeds; these are added to `found`."""
    told = answers.get(contract)
    if told is None:
        return Composition()
    if "zzz" in told and "hop" in told:
        found.feeds[contract] = Feed(contract, "osm", 18, None, contract, at=told["zzz"], hop=told["hop"], taker=taker)
        median = told.get("src", "")
        if "age" not in answers.get(median, {}):
            return Composition((Part(contract, "price", 1),))
        found.feeds[median] = Feed(median, "median", 18, None, median)
        return Composition((Part(contract, "price", 1), Part(median, "source", 0)))
    if (feed := feed_of(contract, told)) is not None:
        found.feeds[contract] = feed
        return Composition((Part(contract, "price", 1),))
    parts: list[Part] = []
    for inner, role, exponent in inside(told):
        below = compose(found, answers, inner, None, now)
        if not below.parts:
            return Composition()
        parts += [part._replace(role=role, exponent=part.exponent * exponent) for part in below.parts]
    if not parts or len({part.feed for part in parts}) < len(parts):
        return Composition()
    made = capped(Composition(tuple(parts), contract), told, now)
    for way in (made, replace(made, parts=(*parts[:-1], parts[-1]._replace(exponent=-parts[-1].exponent)))):
        if fits(way, found.feeds, told):
            return way
    return Composition()


def feed_of(contract: str, told: Mapping[str, Any]) -> Feed | None:
    """A proxy of aggregators, or an aggregator that keeps its rounds itself; None for anything else."""
    latest = told.get("latestRoundData")
    if latest is None or "decimals" not in told:
        return None
    number, answer, _, at, _ = latest
    phase, aggregator = told.get("phaseId"), told.get("aggregator")
    common = {"decimals": told["decimals"], "description": told.get("description"), "answer": answer, "at": at}
    if phase and aggregator:
        return Feed(contract, "chainlink", aggregator=aggregator, phase=phase, round=number & (2**64 - 1), **common)
    if inside(told) or not told.get("description"):
        return None
    return Feed(contract, "chainlink", aggregator=contract, round=number, **common)


def capped(made: Composition, told: Mapping[str, Any], now: int) -> Composition:
    """With the ratio and the cap of the adapter (PriceCapAdapterBase, PriceCapAdapterStable), where it has them."""
    ratio, cap = told.get("getRatio"), told.get("getPriceCap")
    days = None
    if ratio is not None and "getSnapshotRatio" in told and "getSnapshotTimestamp" in told:
        start, since = told["getSnapshotRatio"], told["getSnapshotTimestamp"]
        growth = told.get("getMaxRatioGrowthPerSecond", 0)
        # PriceCapAdapterBase._getMaxRatio
        cap = start + growth * (now - since)
        excess = (ratio - start) / (now - since) - growth if now > since else 0.0
        days = max((cap - ratio) / excess, 0) / DAY if excess > 0 else None
    return replace(made, ratio=ratio, cap=cap, capped=told.get("isCapped"), days_to_cap=days)


def fits(made: Composition, feeds: Mapping[str, Feed], told: Mapping[str, Any]) -> bool:
    """Whether the adapter's own answer is the product of the feeds' answers, cut at the cap.

    Where it has a ratio nothing is compared, as the ratio's scale is the adapter's own; where a feed is dead nothing can be.
    """
    own = told["latestRoundData"][1] if "latestRoundData" in told else told.get("latestAnswer")
    if made.ratio is not None or own is None or own <= 0:
        return True
    product = 1.0
    for part in made.parts:
        value = feeds[part.feed].value
        if value is None or value <= 0:
            return True
        product *= value**part.exponent
    if made.cap is not None:
        product = min(product, made.cap / 10 ** (feeds[made.parts[0].feed].decimals or 0))
    return bool(abs(product * 10 ** told.get("decimals", 8) / own - 1) <= CLOSE)
