"""Compound V3's shared state at one block: a Comet's configuration, prices and indexes, stored and accrued."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import Reader, required
from indexer.model import WAD, Asset, Failed, Market, Read
from protocols.common import SECONDS_PER_YEAR, implementation, optional, price_usd, symbol_of, together

COMET = abi("comet")
AGGREGATOR = abi("aggregator")
ERC20 = abi("erc20")
ERC20_BYTES32 = abi("erc20_bytes32")

INDEX_SCALE = 10**15  # BASE_INDEX_SCALE
PRICE_SCALE = 10**8  # every feed has 8 decimals
PAUSE_ABSORB = 1 << 3  # bits of pauseFlags
PAUSE_SUPPLY = 1 << 0
PAUSE_BUY = 1 << 4

# baseSupplyIndex, baseBorrowIndex, two tracking indexes, totalSupplyBase, totalBorrowBase, lastAccrualTime, pauseFlags
TOTALS_BASIC = COMET.function("totalsBasic")
# offset, asset, priceFeed, scale, borrow factor, liquidate factor, liquidation factor, supply cap
ASSET_INFO = COMET.function("getAssetInfo")
PRICE = COMET.function("getPrice")
ROUND = AGGREGATOR.function("latestRoundData")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """One collateral asset, in the contract's order; `price` None where its feed is dead. Factors scaled by 1e18."""

    asset: str
    offset: int
    scale: int
    liquidate_factor: int
    price: int | None
    total_supply: int
    liquidation_factor: int | None = None


@dataclass(frozen=True, kw_only=True)  # no slots: the cached property lives in the instance
class CompoundV3Market(Market):
    """A Comet. `supply_index` and `borrow_index` are the stored ones, `*_accrued` those of the views at this block.

    Rates are per second, constant until somebody acts: the contract computes them from the utilization at the stored
    indexes. Prices have 8 decimals; `total_*_base` are principals. `revision` is the implementation; `checked`: it agreed
    with us about some debtors; `layout_known`: the storage words of some accounts agreed with its getters; `feeds`: the
    price feed of each asset. `base_held` is the base asset that the Comet holds, including its reserves; None in files of
    an older version.
    """

    comet: str
    base: str
    base_scale: int
    base_price: int | None
    base_borrow_min: int
    supply_index: int
    borrow_index: int
    supply_index_accrued: int
    borrow_index_accrued: int
    supply_rate: int
    borrow_rate: int
    accrued_at: int
    total_supply_base: int
    total_borrow_base: int
    absorb_paused: bool
    collaterals: tuple[Collateral, ...]
    checked: bool = False
    layout_known: bool = False
    store_front_price_factor: int | None = None
    feeds: Mapping[str, str] = field(default_factory=dict)
    base_held: int | None = None
    target_reserves: int | None = None
    buy_paused: bool | None = None

    @cached_property
    def collateral_of(self) -> Mapping[str, Collateral]:
        """The collateral by asset."""
        return {one.asset: one for one in self.collaterals}


BASIC = (
    COMET.function("numAssets"),
    COMET.function("baseToken"),
    COMET.function("baseTokenPriceFeed"),
    COMET.function("baseScale"),
    COMET.function("baseBorrowMin"),
    COMET.function("storeFrontPriceFactor"),
    COMET.function("getUtilization"),
    TOTALS_BASIC,
)


def read_market(read: Reader, comet: str, usd_feeds: Sequence[str]) -> CompoundV3Market:
    """Reads the market in four requests, and one for the storage of the proxy.

    The product of `usd_feeds` converts the unit of the Comet's prices to USD; there are none if that is USD already.
    """
    count, base, base_feed, base_scale, borrow_min, store_front, utilization, totals = required(
        read, [Read(comet, function) for function in BASIC]
    )
    supply_rate, borrow_rate, *infos = required(
        read,
        [
            Read(comet, COMET.function("getSupplyRate"), (utilization,)),
            Read(comet, COMET.function("getBorrowRate"), (utilization,)),
            *(Read(comet, ASSET_INFO, (i,)) for i in range(count)),
        ],
    )
    # The contract accrues itself, in a call whose effects are discarded.
    (accrued,) = required(
        read, [Read(comet, TOTALS_BASIC)], prelude=[Read(comet, COMET.function("accrueAccount"), (comet,))]
    )
    tokens = [base, *(info[1] for info in infos)]
    feeds = [base_feed, *(info[2] for info in infos)]
    quoted = read_quotes(read, comet, tokens, feeds, usd_feeds)
    note = None if usd_feeds else in_its_own_unit(quoted.symbols[0], quoted.prices[0])
    market = CompoundV3Market(
        block=read.block,
        revision=implementation(read, comet),
        usd=None if note else quoted.usd,
        note=note,
        comet=comet,
        base=base,
        base_scale=base_scale,
        base_price=quoted.prices[0],
        base_borrow_min=borrow_min,
        supply_index=totals[0],
        borrow_index=totals[1],
        supply_index_accrued=accrued[0],
        borrow_index_accrued=accrued[1],
        supply_rate=supply_rate,
        borrow_rate=borrow_rate,
        accrued_at=totals[6],
        total_supply_base=totals[4],
        total_borrow_base=totals[5],
        absorb_paused=bool(totals[7] & PAUSE_ABSORB),
        collaterals=tuple(collateral(*one) for one in zip(infos, quoted.prices[1:], quoted.held, strict=True)),
        store_front_price_factor=store_front,
        feeds=dict(zip(tokens, feeds, strict=True)),
        base_held=quoted.base_held,
        target_reserves=quoted.target_reserves,
        buy_paused=bool(totals[7] & PAUSE_BUY),
    )
    paused = bool(totals[7] & PAUSE_SUPPLY)
    return replace(market, assets=asset_rows(market, quoted.symbols, infos, paused=paused))


class Quoted(NamedTuple):
    """Prices and symbols of the base asset and the collateral, in their order, and the totals `held` of the latter.

    `base_held` and `target_reserves` are None where the Comet does not answer them, `usd` where a feed is dead.
    """

    prices: list[int | None]
    held: list[int]
    symbols: list[str]
    base_held: int | None
    target_reserves: int | None
    usd: tuple[int, int] | None


def read_quotes(
    read: Reader, comet: str, tokens: Sequence[str], feeds: Sequence[str], usd_feeds: Sequence[str]
) -> Quoted:
    """Read what may fail for one asset without failing the market; `tokens` and their `feeds` begin with the base asset."""
    prices, held, texts, words, reserves, ways = together(
        read,
        [Read(comet, PRICE, (feed,)) for feed in feeds],
        [Read(comet, COMET.function("totalsCollateral"), (token,)) for token in tokens[1:]],
        [Read(token, ERC20.function("symbol")) for token in tokens],
        [Read(token, ERC20_BYTES32.function("symbol")) for token in tokens],
        [Read(tokens[0], ERC20.function("balanceOf"), (comet,)), Read(comet, COMET.function("targetReserves"))],
        [Read(feed, signature) for feed in usd_feeds for signature in (ROUND, AGGREGATOR.function("decimals"))],
    )
    return Quoted(
        [price or None for price in prices],
        [total[0] if total else 0 for total in held],
        [symbol_of(text, word, token[:10]) for token, text, word in zip(tokens, texts, words, strict=True)],
        optional(reserves[0]),
        optional(reserves[1]),
        usd(ways),
    )


def collateral(info: Sequence[Any], price: int | None, total_supply: int) -> Collateral:
    """One asset of getAssetInfo (offset, asset, priceFeed, scale, three factors, supplyCap)."""
    return Collateral(
        asset=info[1],
        offset=info[0],
        scale=info[3],
        liquidate_factor=info[5],
        price=price,
        total_supply=total_supply,
        liquidation_factor=info[6],
    )


def usd(answers: Sequence[Any]) -> tuple[int, int] | None:
    """The factor from values (8 decimals) to USD, by each feed's latest round and decimals; None if one of them is dead."""
    numerator, denominator = 1, PRICE_SCALE
    for latest, decimals in zip(answers[::2], answers[1::2], strict=True):
        if isinstance(latest, Failed) or isinstance(decimals, Failed) or latest[1] <= 0:
            return None
        numerator, denominator = numerator * latest[1], denominator * 10**decimals
    return numerator, denominator


def in_its_own_unit(symbol: str, price: int | None) -> str | None:
    """A note if the base is ether or bitcoin but its price is a few units: these are not USD, and no feed converts them."""
    unit = next((name for name in ("ETH", "BTC") if symbol.upper().endswith(name)), None)
    if unit is None or price is None or price >= 100 * PRICE_SCALE:
        return None
    return (
        f"prices are in {unit}, so there are no values in USD: give the deployment the address {unit.lower()}_usd_feed"
    )


def asset_rows(market: CompoundV3Market, symbols: list[str], infos: list[Any], *, paused: bool) -> tuple[Asset, ...]:
    """The assets, base first. `ltv` is the borrow factor, the bonus absorption's penalty; `paused`: no supply."""
    base = Asset(
        asset=market.base,
        market=market.comet,
        symbol=symbols[0],
        decimals=digits(market.base_scale),
        price=market.base_price,
        price_usd=price_usd(market, market.base_price),
        supply_index=market.supply_index,
        debt_index=market.borrow_index,
        supply_rate=market.supply_rate / WAD * SECONDS_PER_YEAR,
        borrow_rate=market.borrow_rate / WAD * SECONDS_PER_YEAR,
        total_supply=market.total_supply_base * market.supply_index_accrued // INDEX_SCALE,
        total_debt=market.total_borrow_base * market.borrow_index_accrued // INDEX_SCALE,
        active=True,
        paused=paused,
    )
    rows = [
        Asset(
            asset=collateral.asset,
            market=market.comet,
            symbol=symbol,
            decimals=digits(collateral.scale),
            price=collateral.price,
            price_usd=price_usd(market, collateral.price),
            ltv=info[4] / WAD,
            liquidation_threshold=info[5] / WAD,
            liquidation_bonus=1 - info[6] / WAD,
            supply_cap=info[7],
            total_supply=collateral.total_supply,
            active=True,
            paused=paused,
        )
        for collateral, symbol, info in zip(market.collaterals, symbols[1:], infos, strict=True)
    ]
    return (base, *rows)


def digits(scale: int) -> int:
    return len(str(scale)) - 1


def with_prices(market: CompoundV3Market, prices: Mapping[str, int]) -> CompoundV3Market:
    """The market with other prices (8 decimals, in the Comet's own unit) of these assets, base or collateral."""
    collaterals = tuple(
        replace(one, price=prices[one.asset] or None) if one.asset in prices else one for one in market.collaterals
    )
    rows = tuple(
        replace(row, price=prices[row.asset] or None, price_usd=price_usd(market, prices[row.asset] or None))
        if row.asset in prices
        else row
        for row in market.assets
    )
    base = (prices[market.base] or None) if market.base in prices else market.base_price
    return replace(market, base_price=base, collaterals=collaterals, assets=rows)


def with_usd(market: CompoundV3Market, usd: tuple[int, int] | None) -> CompoundV3Market:
    """The market with another factor from its prices to USD."""
    market = replace(market, usd=usd)
    rows = tuple(replace(row, price_usd=price_usd(market, row.price)) for row in market.assets)
    return replace(market, assets=rows)


def with_thresholds(market: CompoundV3Market, thresholds: Mapping[str, Fraction]) -> CompoundV3Market:
    """The market with other liquidate factors of these assets, rounded down to 18 digits."""
    collaterals = tuple(
        replace(one, liquidate_factor=int(thresholds[one.asset] * WAD)) if one.asset in thresholds else one
        for one in market.collaterals
    )
    factors = {one.asset: one.liquidate_factor / WAD for one in collaterals}
    rows = tuple(
        replace(row, liquidation_threshold=factors.get(row.asset, row.liquidation_threshold)) for row in market.assets
    )
    return replace(market, collaterals=collaterals, assets=rows)


def accrue(index: int, rate: int, seconds: int) -> int:
    """Comet.accruedInterestIndices."""
    return index + index * (rate * seconds) // WAD


def after(market: CompoundV3Market, seconds: int, blocks: int) -> CompoundV3Market:
    """The market after that time if nobody acts: stored indexes stay, those of the views grow from the last accrual."""
    now = market.block.timestamp - market.accrued_at
    grown = {}
    for side, index, rate in (
        ("supply_index_accrued", market.supply_index, market.supply_rate),
        ("borrow_index_accrued", market.borrow_index, market.borrow_rate),
    ):
        grown[side] = getattr(market, side) + accrue(index, rate, now + seconds) - accrue(index, rate, now)
    return replace(market, block=market.block.after(seconds, blocks), **grown)


def interest_stored(market: CompoundV3Market) -> CompoundV3Market:
    """The market after Comet.accrueInternal in its block."""
    return replace(
        market,
        supply_index=market.supply_index_accrued,
        borrow_index=market.borrow_index_accrued,
        accrued_at=market.block.timestamp,
    )
