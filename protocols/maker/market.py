"""What Maker's contracts share between urns: ilks, prices, fees, auction limits, and who may hold what."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import Reader, answered, required
from indexer.errors import ConfigError
from indexer.model import RAY, WAD, Asset, Deployment, Failed, Market, Read
from protocols.common import ZERO_ADDRESS, chunks, optional, together
from protocols.maker.math import UINT256, fee_rate, feed_of, ilk_bytes, ilk_name, rmul, rpow, spot_of

VAT = abi("maker_vat")
SPOTTER = abi("maker_spotter")
JUG = abi("maker_jug")
DOG = abi("maker_dog")
CAT = abi("maker_cat")
CLIPPER = abi("maker_clipper")
OSM = abi("maker_osm")
ILK_REGISTRY = abi("maker_ilk_registry")
CHAINLOG_ABI = abi("maker_chainlog")

VAT_ILKS = VAT.function("ilks")  # Art, rate, spot, line, dust
SPOTTER_ILKS = SPOTTER.function("ilks")  # pip, mat
JUG_ILKS = JUG.function("ilks")  # duty, rho
DOG_ILKS = DOG.function("ilks")  # clip, chop, hole, dirt
CAT_ILKS = CAT.function("ilks")  # flip, chop, dunk
GEM = (
    ILK_REGISTRY.function("gem"),
    ILK_REGISTRY.function("join"),
    ILK_REGISTRY.function("symbol"),
    ILK_REGISTRY.function("dec"),
)

#: chainlog keys of the contracts that the configuration may also name directly
CHAINLOG = {
    "vat": "MCD_VAT",
    "dai": "MCD_DAI",
    "dog": "MCD_DOG",
    "ilk_registry": "ILK_REGISTRY",
    "proxy_registry": "PROXY_REGISTRY",
    "lockstake": "LOCKSTAKE_ENGINE",
}


class Gem(NamedTuple):
    """The token behind an ilk; address and join are None where neither an IlkRegistry nor a known join names it."""

    symbol: str
    decimals: int = 18
    address: str | None = None
    join: str | None = None


class Join(NamedTuple):
    """A GemJoin with the `gem` it pays into `ilk` or, with `ilk` None, a DaiJoin with DAI. Neither ever changes."""

    ilk: str | None
    gem: Gem


class Queue(NamedTuple):
    """What an OSM holds for its next poke: feed value (wad), None if it has none, and the earliest time of that poke."""

    feed: int | None
    at: int


class Bark(NamedTuple):
    """An ilk in the Dog: penalty `chop` (wad), `room` (rad) left for auctions, and why none can start now.

    Starting one pays `tip` (rad), and `chip` (wad) of the sum to raise; None where the Clipper does not say.
    """

    chop: int
    room: int
    blocked: tuple[str, ...]
    tip: int | None = None
    chip: int | None = None


class Bite(NamedTuple):
    """An ilk in the Cat, the liquidator before the Dog, like `Bark`; `room` is the lesser of dunk and the room in the box."""

    chop: int
    room: int
    blocked: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ilk:
    """One collateral type; names are those of Vat (Art ... dust), Spotter (pip, mat) and Jug (duty, rho).

    `accrued_rate` is the rate after Jug.drip at the market's block, `next_spot` the spot from the OSM's queued value,
    None where the pip is no OSM or does not answer. `bark` is None without a Dog, `bite` without a Cat.
    """

    Art: int
    rate: int
    spot: int
    line: int
    dust: int
    pip: str
    mat: int
    duty: int
    rho: int
    accrued_rate: int
    gem: Gem
    queue: Queue | None = None
    next_spot: int | None = None
    bark: Bark | None = None
    bite: Bite | None = None

    @property
    def asset(self) -> str:
        """The token's address, or the price feed's in its place where it is unknown."""
        return self.gem.address or self.pip

    @property
    def price(self) -> int:
        """DAI a gem in rays, without the safety margin that is in spot."""
        return self.spot * self.mat // RAY


@dataclass(frozen=True, slots=True, kw_only=True)
class MakerMarket(Market):
    """The Vat's shared state and every known ilk by name; `contracts` are addresses by configuration key.

    `dai` is DAI's address, or the Vat's in its place where it is unknown.

    `surplus` is the Vow's dai (rad). `wallets`: DSProxy -> (block, owner) if that differs from what was read with its
    position; `asked` is the last proxy that was asked. `joins`: what each contract that logs name proved to be, None for no
    join.
    """

    contracts: dict[str, str]
    dai: str = ""
    live: int
    debt: int
    vice: int
    surplus: int
    par: int
    base: int
    dog: tuple[int, int, int] | None = None  # live, Hole, Dirt
    cat: tuple[int, int, int] | None = None  # live, box, litter
    ilks: dict[str, Ilk] = field(default_factory=dict)
    wallets: dict[str, tuple[int, str]] = field(default_factory=dict)
    asked: str = field(default="", compare=False)  # says nothing about any position
    joins: dict[str, Join | None] = field(default_factory=dict)

    def gem(self, name: str, listed: Gem) -> Gem:
        """The token behind an ilk: as the registry lists it, else that of the newest join."""
        if listed.address is None:
            for join in reversed(self.joins.values()):
                if join is not None and join.ilk == name:
                    return join.gem
        return listed


def read_shared(read: Reader, deployment: Deployment) -> tuple[MakerMarket, list[str]]:
    """The market without any ilk, and the names of the ilks that the IlkRegistry lists, most but not all of those that exist."""
    contracts = read_contracts(read, deployment)
    vat, jug = contracts["vat"], contracts["jug"]
    live, debt, vice, par, base, vow = required(
        read,
        [
            Read(vat, VAT.function("live")),
            Read(vat, VAT.function("debt")),
            Read(vat, VAT.function("vice")),
            Read(contracts["spotter"], SPOTTER.function("par")),
            Read(jug, JUG.function("base")),
            Read(jug, JUG.function("vow")),
        ],
    )
    limits = [Read(contracts["dog"], DOG.function(n)) for n in ("live", "Hole", "Dirt")] if "dog" in contracts else []
    boxes = [Read(contracts["cat"], CAT.function(n)) for n in ("live", "box", "litter")] if "cat" in contracts else []
    lists = [Read(contracts["ilk_registry"], ILK_REGISTRY.function("list"))] if "ilk_registry" in contracts else []
    (surplus,), dog, cat, listed = map(
        answered, together(read, [Read(vat, VAT.function("dai"), (vow,))], limits, boxes, lists)
    )
    market = MakerMarket(
        block=read.block,
        revision="dss",
        usd=(1, 10**45),
        contracts=contracts,
        dai=contracts.get("dai", vat),
        live=live,
        debt=debt,
        vice=vice,
        surplus=surplus,
        par=par,
        base=base,
        dog=(dog[0], dog[1], dog[2]) if dog else None,
        cat=(cat[0], cat[1], cat[2]) if cat else None,
    )
    return market, [ilk_name(raw) for names in listed for raw in names]


def read_contracts(read: Reader, deployment: Deployment) -> dict[str, str]:
    """Configured addresses, completed by the chainlog. ConfigError if the chainlog is another Vat's."""
    contracts = {key: address.lower() for key, address in deployment.addresses.items()}
    chainlog = contracts.get("chainlog")
    if chainlog is None:
        return contracts
    answers = read(
        [Read(chainlog, CHAINLOG_ABI.function("getAddress"), (ilk_bytes(name),)) for name in CHAINLOG.values()]
    )
    found = {
        key: address
        for key, address in zip(CHAINLOG, answers, strict=True)
        if not isinstance(address, Failed) and address != ZERO_ADDRESS
    }
    if found.get("vat") != contracts["vat"]:
        raise ConfigError(
            f"{deployment.name}: the chainlog {chainlog} is that of the Vat {found.get('vat')}, "
            f"not of {contracts['vat']}: correct its addresses"
        )
    return found | contracts


def with_ilks(read: Reader, market: MakerMarket, names: Iterable[str]) -> MakerMarket:
    """The market with these ilks, read at the reader's block, added to those it has."""
    order = sorted(set(names) - market.ilks.keys())
    return with_assets(replace(market, ilks=market.ilks | read_ilks(read, market, order))) if order else market


def read_ilks(read: Reader, market: MakerMarket, names: Sequence[str]) -> dict[str, Ilk]:
    """The ilks of these names; one that the Vat was never told of (no rate: nobody can owe any) is left out."""
    contracts = market.contracts
    raw = [ilk_bytes(name) for name in names]
    homes = ((contracts["vat"], VAT_ILKS), (contracts["spotter"], SPOTTER_ILKS), (contracts["jug"], JUG_ILKS))
    states, gems, dogs, cats = together(
        read,
        [Read(home, function, (ilk,)) for ilk in raw for home, function in homes],
        [Read(contracts["ilk_registry"], f, (ilk,)) for ilk in raw for f in GEM] if "ilk_registry" in contracts else [],
        [Read(contracts["dog"], DOG_ILKS, (ilk,)) for ilk in raw] if "dog" in contracts else [],
        [Read(contracts["cat"], CAT_ILKS, (ilk,)) for ilk in raw] if "cat" in contracts else [],
    )
    answers = iter(answered(states))
    rows = list(zip(answers, answers, answers, strict=True))
    pips = sorted({pip for _, (pip, _), _ in rows} - {ZERO_ADDRESS})
    times, clippers = together(
        read,
        [Read(pip, name) for pip in pips for name in (OSM.function("zzz"), OSM.function("hop"))],
        [Read(clip, CLIPPER.function(n)) for clip, *_ in answered(dogs) for n in ("stopped", "tip", "chip")],
    )
    queues = _read_queues(read, contracts["spotter"], pips, times)
    bites = answered(cats) or [None] * len(names)
    ilks = {}
    for name, (vat, (pip, mat), (duty, rho)), gem, bark, bite in zip(
        names, rows, _gems(names, gems), _barks(market, len(names), dogs, clippers), bites, strict=True
    ):
        Art, rate, spot, line, dust = vat  # noqa: N806 - the Vat's name
        if not rate:
            continue
        queue = queues.get(pip)
        ilks[name] = Ilk(
            Art=Art, rate=rate, spot=spot, line=line, dust=dust, pip=pip, mat=mat, duty=duty, rho=rho,
            accrued_rate=dripped_rate(market, Art, rate, duty, rho, market.block.timestamp), gem=market.gem(name, gem),
            queue=queue, next_spot=None if queue is None or queue.feed is None else spot_of(queue.feed, market.par, mat),
            bark=bark, bite=None if bite is None else _bite(market, bite, dust),
        )  # fmt: skip
    return ilks


def _read_queues(read: Reader, spotter: str, pips: Sequence[str], times: Sequence[Any]) -> dict[str, Queue]:
    """For each pip that is an OSM, its next value. OSM.peep answers whitelisted callers only; the Spotter is one."""
    pairs = iter(times)
    osms = {
        pip: zzz + hop
        for pip, zzz, hop in zip(pips, pairs, pairs, strict=True)
        if not isinstance(zzz, Failed) and not isinstance(hop, Failed)
    }
    peeps = read([Read(pip, OSM.function("peep"), (), spotter) for pip in osms])
    queues = {}
    for (pip, at), answer in zip(osms.items(), peeps, strict=True):
        has = not isinstance(answer, Failed) and answer[1]
        queues[pip] = Queue(int.from_bytes(answer[0]) if has else None, at)
    return queues


def _gems(names: Sequence[str], answers: Sequence[Any]) -> list[Gem]:
    """The tokens of these ilks from the registry's answers, if it was asked; ETH for an unlisted ETH-A."""
    unlisted = [Gem(name.rpartition("-")[0] or name) for name in names]
    if not answers:
        return unlisted
    fields, gems = iter(answers), []
    for default, gem, join, symbol, dec in zip(unlisted, fields, fields, fields, fields, strict=True):
        known = not isinstance(gem, Failed) and gem != ZERO_ADDRESS and not isinstance(dec, Failed) and dec <= 18
        gems.append(Gem(symbol or default.symbol, dec, gem, join or None) if known else default)
    return gems


def _barks(market: MakerMarket, count: int, dogs: Sequence[Any], clippers: Sequence[Any]) -> list[Bark | None]:
    """The conditions of Dog.bark that are the same for every urn of an ilk, and Clipper.kick's circuit breaker."""
    if market.dog is None:
        return [None] * count
    live, Hole, Dirt = market.dog  # noqa: N806 - the Dog's names
    barks: list[Bark | None] = []
    for (clip, chop, hole, dirt), (stopped, tip, chip) in zip(dogs, chunks(clippers, 3), strict=True):
        conditions = {
            "cage": not live,
            "no-clip": clip == ZERO_ADDRESS,
            "stopped": bool(stopped),
            "Hole": Hole <= Dirt,
            "hole": hole <= dirt,
        }
        blocked = tuple(name for name, holds in conditions.items() if holds)
        barks.append(Bark(chop, min(Hole - Dirt, hole - dirt), blocked, optional(tip), optional(chip)))
    return barks


def _bite(market: MakerMarket, ilk: tuple[str, int, int], dust: int) -> Bite:
    """The conditions of Cat.bite that are the same for every urn of an ilk."""
    assert market.cat is not None
    live, box, litter = market.cat
    flip, chop, dunk = ilk
    conditions = {"cage": not live, "no-flip": flip == ZERO_ADDRESS, "box": litter >= box or box - litter < dust}
    return Bite(chop, min(dunk, box - litter), tuple(name for name, holds in conditions.items() if holds))


def dripped_rate(market: MakerMarket, Art: int, rate: int, duty: int, rho: int, now: int) -> int:  # noqa: N803
    """An ilk's rate after Jug.drip at `now`; the stored one where drip would revert (dss Jug.drip, Vat.fold)."""
    if not market.live or now < rho:
        return rate
    try:
        factor = rpow(market.base + duty, now - rho)
    except OverflowError:
        return rate
    dripped = rmul(factor, rate)
    # The Vow pays for a falling rate (a negative fee, an ilk that the Jug does not know).
    if factor * rate >= UINT256 or Art * (rate - dripped) > market.surplus:
        return rate
    return dripped


def with_assets(market: MakerMarket) -> MakerMarket:
    """The market with its `assets`: DAI, then one per ilk.

    Prices are feed values (wad); caps and totals of debt are DAI wei. The address of an unknown token is its price feed's,
    that of an unknown DAI the Vat's; amounts are then the Vat's own, with 18 decimals.
    """
    vat = market.contracts["vat"]
    active = bool(market.live)
    dai = Asset(
        asset=market.dai,
        market=vat,
        symbol="DAI",
        decimals=18,
        price=WAD,
        price_usd=1.0,
        total_debt=market.debt // RAY,
        active=active,
    )
    return replace(market, assets=(dai, *(_asset(market, name, ilk, active) for name, ilk in market.ilks.items())))


def _asset(market: MakerMarket, name: str, ilk: Ilk, active: bool) -> Asset:
    vat = market.contracts["vat"]
    ratio = RAY / ilk.mat if ilk.mat else None
    return Asset(
        asset=ilk.asset,
        market=ilk.gem.join or vat,
        symbol=ilk.gem.symbol,
        decimals=ilk.gem.decimals,
        group=name,
        price=feed_of(ilk.spot, market.par, ilk.mat) if ilk.spot else None,
        price_usd=ilk.price / RAY if ilk.spot else None,
        debt_index=ilk.rate,
        borrow_rate=fee_rate(market.base, ilk.duty),
        ltv=ratio,
        liquidation_threshold=ratio,
        liquidation_bonus=ilk.bark.chop / WAD - 1 if ilk.bark and ilk.bark.chop else None,
        borrow_cap=ilk.line // RAY,
        total_debt=ilk.Art * ilk.rate // RAY,
        active=active,
        paused=bool(ilk.bark.blocked) if ilk.bark else None,
    )


def with_prices(market: MakerMarket, prices: Mapping[str, int]) -> MakerMarket:
    """The market after a poke of these feed values (wad); keys are ilks, or assets for all their ilks."""
    ilks: dict[str, Any] = {}
    for name, ilk in market.ilks.items():
        feed = prices.get(name, prices.get(ilk.asset))
        spot = ilk.spot if feed is None else spot_of(feed, market.par, ilk.mat)
        ilks[name] = ilk if feed is None else replace(ilk, spot=spot, queue=None, next_spot=None)
    return with_assets(replace(market, ilks=ilks))


def with_thresholds(market: MakerMarket, thresholds: Mapping[str, Fraction]) -> MakerMarket:
    """The market with these liquidation ratios (1 / threshold, rounded up) filed, and poked at the present feed values."""
    ilks = dict(market.ilks)
    for name, threshold in thresholds.items():
        ilk = ilks[name]
        mat = math.ceil(RAY / threshold)
        spot = spot_of(feed_of(ilk.spot, market.par, ilk.mat), market.par, mat)
        ilks[name] = replace(ilk, mat=mat, spot=spot, queue=None, next_spot=None)
    return with_assets(replace(market, ilks=ilks))


def after(market: MakerMarket, seconds: int, blocks: int) -> MakerMarket:
    """The market that much later: only accrued rates move, as the Vat's own stay until the next drip."""
    block = market.block.after(seconds, blocks)
    ilks = {
        name: replace(ilk, accrued_rate=dripped_rate(market, ilk.Art, ilk.rate, ilk.duty, ilk.rho, block.timestamp))
        for name, ilk in market.ilks.items()
    }
    return replace(market, block=block, ilks=ilks)


def interest_stored(market: MakerMarket) -> MakerMarket:
    """The market after Jug.drip of every ilk in its block."""
    now = market.block.timestamp
    ilks = {name: replace(ilk, rate=ilk.accrued_rate, rho=max(ilk.rho, now)) for name, ilk in market.ilks.items()}
    return with_assets(replace(market, ilks=ilks))
