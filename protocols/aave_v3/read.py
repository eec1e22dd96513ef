"""Reads an Aave V3 market at one block, in four rounds of calls however many accounts there are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from indexer.abi import abi
from indexer.adapter import Reader
from indexer.errors import ReadFailedError
from indexer.model import Failed, Read
from protocols.aave_v3.market import AaveV3Market, EMode, Reserve, debt_balance, supply_balance
from protocols.aave_v3.rules import (
    BITMAPS,
    DEFICIT,
    GRACE_PERIOD,
    PROBES,
    RULES,
    level_of,
    versions_of,
)
from protocols.common import ZERO_ADDRESS, chunks, needed, optional, symbol_of, together

PROVIDER = abi("aave_v3_addresses_provider")
POOL = abi("aave_v3_pool")
TOKEN = abi("aave_v3_token")
STABLE_DEBT = abi("aave_stable_debt_token")
GHO_DEBT = abi("aave_gho_debt_token")
ORACLE = abi("aave_oracle")
SENTINEL = abi("aave_price_oracle_sentinel")
ERC20 = abi("erc20")
ERC20_BYTES32 = abi("erc20_bytes32")

# The same fifteen words in all versions: ReserveData up to 3.0, ReserveDataLegacy after.
RESERVE_DATA = POOL.function("getReserveData")
INCOME = POOL.function("getReserveNormalizedIncome")
DEBT_INDEX = POOL.function("getReserveNormalizedVariableDebt")
ASSET_PRICE = ORACLE.function("getAssetPrice")
CATEGORIES = range(1, 256)  # the pool keeps no list of its e-modes
#: once in so many blocks, e-modes that are not configured are asked for too
TURN = 32


@dataclass(frozen=True, slots=True)
class Contracts:
    """The contracts that the addresses provider names, and what is known of the pool's code.

    `level` is None if the functions are those of no known version; `versions` is empty for an unknown pool.
    """

    pool: str
    oracle: str
    sentinel: str
    revision: int | None
    level: int | None
    versions: tuple[str, ...]
    assets: tuple[str, ...]
    usd: tuple[int, int] | None
    base_unit: int | None

    def has(self, level: int) -> bool:
        return self.level is not None and self.level >= level


def read_market(read: Reader, provider: str, previous: AaveV3Market | None) -> AaveV3Market:
    """The market at the reader's block. ReadFailedError where a known pool does not answer."""
    contracts = read_contracts(read, provider)
    pool, oracle, assets = contracts.pool, contracts.oracle, contracts.assets
    asked = asked_modes(contracts, previous, read.block.number)
    old_modes = not contracts.has(BITMAPS)
    sentinel = contracts.sentinel != ZERO_ADDRESS and any(RULES[version].sentinel for version in contracts.versions)
    data, symbols, prices, allowed, categories = together(
        read,
        [Read(pool, signature, (asset,)) for asset in assets for signature in reserve_signatures(contracts)],
        [Read(asset, ERC20.function("symbol")) for asset in assets],
        [Read(oracle, ORACLE.function("getAssetsPrices"), (assets,))],
        [Read(contracts.sentinel, SENTINEL.function("isLiquidationAllowed"))] if sentinel else [],
        [Read(pool, OLD_CATEGORY if old_modes else CATEGORY, (i,)) for i in asked],
    )
    described, unreadable = described_reserves(contracts, data)
    modes = configured_modes(contracts, asked, categories)
    unnamed = [asset for asset, symbol in zip(assets, symbols, strict=True) if isinstance(symbol, Failed)]
    unpriced = assets if isinstance(prices[0], Failed) else ()
    sources = [category[3] for category in modes.values() if category[3] != ZERO_ADDRESS] if old_modes else []
    tokens, words, single, source_prices, details = together(
        read,
        [one for row in described.values() for one in token_reads(contracts, row[0])],
        [Read(asset, ERC20_BYTES32.function("symbol")) for asset in unnamed],
        [Read(oracle, ASSET_PRICE, (asset,)) for asset in unpriced],
        [Read(oracle, ASSET_PRICE, (source,)) for source in sources],
        [] if old_modes else [Read(pool, signature, (i,)) for i in modes for signature in MODE],
    )
    names = {asset: text and symbol_of(text, b"", asset) for asset, text in zip(assets, symbols, strict=True)} | {
        asset: symbol_of("", word, "") for asset, word in zip(unnamed, map(optional, words), strict=True)
    }
    price_of = dict(zip(assets, map(optional, single) if unpriced else prices[0], strict=True))
    token_rows = chunks(tokens, len(token_reads(contracts, [ZERO_ADDRESS] * 15)))
    reserves, totals = [], {}
    for (asset, row), token in zip(described.items(), token_rows, strict=True):
        reserve = make_reserve(contracts, asset, names[asset] or asset, price_of[asset], row, token)
        reserves.append(reserve)
        totals[reserve.a_token], totals[reserve.variable_debt_token] = needed(token[1]), needed(token[3])
    if old_modes:
        prices_of_sources = dict(zip(sources, map(optional, source_prices), strict=True))
        e_modes = [old_e_mode(i, category, reserves, prices_of_sources) for i, category in modes.items()]
    else:
        detail_rows = chunks(details, len(MODE))
        e_modes = [e_mode(*pair) for pair in zip(modes, modes.values(), detail_rows, strict=True)]
    market = AaveV3Market(
        block=read.block,
        revision=f"POOL_REVISION {contracts.revision}",
        usd=contracts.usd,
        pool=pool,
        oracle=oracle,
        pool_revision=contracts.revision,
        version=None,
        reserves=tuple(reserves),
        e_modes=tuple(e_modes),
        # A sentinel that reverts makes liquidationCall revert.
        liquidation_allowed=bool(allowed[0]) if sentinel else True,
        base_unit=contracts.base_unit,
    )
    return choose_version(market, contracts, totals, unreadable, previous).with_assets()


def read_contracts(read: Reader, provider: str) -> Contracts:
    """First two rounds: the pool and its oracle, then what they are."""
    pool, oracle, sentinel = read(
        [
            Read(provider, PROVIDER.function("getPool")),
            Read(provider, PROVIDER.function("getPriceOracle")),
            Read(provider, PROVIDER.function("getPriceOracleSentinel")),
        ]
    )
    if ZERO_ADDRESS in (needed(pool), needed(oracle)):
        raise ReadFailedError(f"the addresses provider {provider} names no pool or no price oracle at this block")
    revision, assets, unit, currency, *probes = read(
        [
            Read(pool, POOL.function("POOL_REVISION")),
            Read(pool, POOL.function("getReservesList")),
            Read(oracle, ORACLE.function("BASE_CURRENCY_UNIT")),
            Read(oracle, ORACLE.function("BASE_CURRENCY")),
            *(Read(pool, signature, args) for signature, args in PROBES),
        ]
    )
    # BASE_CURRENCY is the zero address where prices are in USD; others cannot be converted to USD.
    in_usd = bool(unit) and optional(currency) == ZERO_ADDRESS
    level = level_of([not isinstance(probe, Failed) for probe in probes])
    return Contracts(
        pool=pool,
        oracle=oracle,
        sentinel=optional(sentinel) or ZERO_ADDRESS,
        revision=optional(revision),
        level=level,
        versions=versions_of(optional(revision), level),
        assets=tuple(needed(assets)),
        usd=(1, unit) if in_usd else None,
        base_unit=optional(unit),
    )


def reserve_signatures(contracts: Contracts) -> list[str]:
    """The reads of the pool for each asset."""
    signatures = [RESERVE_DATA, INCOME, DEBT_INDEX]
    if contracts.has(GRACE_PERIOD):
        signatures.append(POOL.function("getLiquidationGracePeriod"))
    return signatures


def described_reserves(contracts: Contracts, data: Sequence[Any]) -> tuple[dict[str, Sequence[Any]], list[str]]:
    """The pool's answers by asset, and the assets that an unknown pool does not describe like known ones."""
    described: dict[str, Sequence[Any]] = {}
    unreadable = []
    for asset, row in zip(contracts.assets, chunks(data, len(reserve_signatures(contracts))), strict=True):
        if not contracts.versions and any(isinstance(answer, Failed) for answer in row):
            unreadable.append(asset)
        else:
            described[asset] = [needed(answer) for answer in row]
    return described, unreadable


def token_reads(contracts: Contracts, reserve_data: Sequence[Any]) -> list[Read]:
    """The reads of a reserve's tokens."""
    a_token, stable, variable = reserve_data[8:11]
    reads = [
        Read(a_token, TOKEN.function("scaledTotalSupply")),
        Read(a_token, TOKEN.function("totalSupply")),
        Read(variable, TOKEN.function("scaledTotalSupply")),
        Read(variable, TOKEN.function("totalSupply")),
    ]
    if not contracts.has(DEFICIT + 1):
        reads.append(Read(variable, GHO_DEBT.function("getDiscountRateStrategy")))  # only GHO's debt token has it
    if not contracts.has(BITMAPS):
        reads.append(Read(stable, STABLE_DEBT.function("getSupplyData")))
    return reads


def make_reserve(
    contracts: Contracts, asset: str, symbol: str, price: int | None, row: Sequence[Any], token: Sequence[Any]
) -> Reserve:
    """One reserve from the pool's answers (`row`) and its tokens' (`token`)."""
    data, income, debt_index, *more = row
    stable = not contracts.has(BITMAPS) and data[9] != ZERO_ADDRESS
    principal, _, average_rate, stable_update = needed(token[5]) if stable else (0, 0, 0, 0)
    return Reserve(
        id=data[7],
        asset=asset,
        symbol=symbol,
        configuration=data[0],
        a_token=data[8],
        variable_debt_token=data[10],
        stable_debt_token=data[9] if stable else "",
        liquidity_index=data[1],
        liquidity_rate=data[2],
        variable_borrow_index=data[3],
        variable_borrow_rate=data[4],
        last_update=data[6],
        income=income,
        debt_index=debt_index,
        scaled_supply=needed(token[0]),
        scaled_debt=needed(token[2]),
        stable_supply=(principal, average_rate, stable_update),
        grace_period_until=more[0] if contracts.has(GRACE_PERIOD) else 0,
        price=price,
        discount=not contracts.has(DEFICIT + 1) and not isinstance(token[4], Failed),
    )


OLD_CATEGORY = POOL.function("getEModeCategoryData")
CATEGORY = POOL.function("getEModeCategoryCollateralConfig")


def asked_modes(contracts: Contracts, previous: AaveV3Market | None, block: int) -> Sequence[int]:
    """The e-modes to ask for: after a block of the same turn with the same code those that were configured."""
    if (
        previous is None
        or not previous.exact
        or not contracts.versions
        or previous.block.number // TURN != block // TURN
    ):
        return CATEGORIES
    if (previous.pool, previous.pool_revision) != (contracts.pool, contracts.revision):
        return CATEGORIES
    return [e.id for e in previous.e_modes]


def with_modes(read: Reader, market: AaveV3Market, ids: Sequence[int]) -> AaveV3Market:
    """The market of known code with these e-modes as well, where they are configured."""
    if market.rules.level >= BITMAPS:
        answers = chunks(read([Read(market.pool, signature, (i,)) for i in ids for signature in (CATEGORY, *MODE)]), 3)
        rows = [(i, needed(config), details) for i, (config, *details) in zip(ids, answers, strict=True)]
        found = [e_mode(*row) for row in rows if any(row[1][:3])]
    else:
        old = map(needed, read([Read(market.pool, OLD_CATEGORY, (i,)) for i in ids]))
        categories = {i: row for i, row in zip(ids, old, strict=True) if any(row[:3])}
        sources = [row[3] for row in categories.values() if row[3] != ZERO_ADDRESS]
        prices = read([Read(market.oracle, ASSET_PRICE, (source,)) for source in sources]) if sources else []
        price_of = dict(zip(sources, map(optional, prices), strict=True))
        found = [old_e_mode(i, row, market.reserves, price_of) for i, row in categories.items()]
    return replace(market, e_modes=tuple(sorted((*market.e_modes, *found), key=lambda e: e.id)))


def configured_modes(contracts: Contracts, asked: Sequence[int], categories: Sequence[Any]) -> dict[int, Sequence[Any]]:
    """The configured e-modes: the configurator refuses thresholds of 0. Only an unknown pool may fail to answer."""
    answered = {
        i: category if contracts.versions else optional(category) for i, category in zip(asked, categories, strict=True)
    }
    return {i: needed(c) for i, c in answered.items() if c is not None and any(needed(c)[:3])}


#: the reads of the pool for each configured e-mode, from 3.2 on
MODE = (POOL.function("getEModeCategoryLabel"), POOL.function("getEModeCategoryCollateralBitmap"))


def e_mode(i: int, config: Sequence[int], details: Sequence[Any]) -> EMode:
    """A category of 3.2 and later."""
    label, bitmap = details
    return EMode(
        id=i,
        label=optional(label) or "",
        ltv=config[0],
        liquidation_threshold=config[1],
        liquidation_bonus=config[2],
        collateral_bitmap=needed(bitmap),
    )


def old_e_mode(i: int, category: Sequence[Any], reserves: Sequence[Reserve], prices: Mapping[str, Any]) -> EMode:
    """A category of 3.0 or 3.1: it contains the reserves with its number, as collateral and as debt."""
    bitmap = sum(1 << reserve.id for reserve in reserves if reserve.category == i)
    source = None if category[3] == ZERO_ADDRESS else category[3]
    return EMode(
        id=i,
        label=category[4],
        ltv=category[0],
        liquidation_threshold=category[1],
        liquidation_bonus=category[2],
        collateral_bitmap=bitmap,
        price_source=source,
        price=None if source is None else prices[source],
    )


def choose_version(
    market: AaveV3Market,
    contracts: Contracts,
    totals: Mapping[str, int],
    unreadable: Sequence[str],
    previous: AaveV3Market | None,
) -> AaveV3Market:
    """The market with the version that reproduces the contracts' indexes and token totals; not exact if none does."""
    fitting = [version for version in contracts.versions if misfit(market, version, totals) is None]
    if not fitting:
        if contracts.versions:
            names = " or ".join(contracts.versions)
            note = (
                f"{market.revision}: {misfit(market, contracts.versions[0], totals)} is not as Aave {names} computes it"
            )
        else:
            functions = (
                "contradictory functions" if contracts.level is None else f"functions of level {contracts.level}"
            )
            note = f"{market.revision} with {functions} is no Aave V3 version this adapter knows"
        if unreadable:
            note += f"; reserves it does not describe are left out: {', '.join(unreadable)}"
        return replace(market, exact=False, note=f"{note}; rows carry the contract's own answers")
    # Rounding can agree by chance at one block: a version found before stays right for the same code.
    if (
        previous is not None
        and previous.settled
        and previous.version in fitting
        and (previous.pool, previous.pool_revision) == (market.pool, market.pool_revision)
    ):
        fitting = [previous.version]
    return replace(
        market,
        revision=f"{fitting[0]} ({market.revision})",
        version=fitting[0],
        candidates=tuple(fitting),
        settled=len(fitting) == 1,
    )


def misfit(market: AaveV3Market, version: str, totals: Mapping[str, int]) -> str | None:
    """The first part of the market that this version computes differently from the contracts, None without any."""
    rules = RULES[version]
    for reserve in market.reserves:
        ours = reserve.projected(rules.compound, market.block.timestamp)
        if (ours.income, ours.debt_index) != (reserve.income, reserve.debt_index):
            return f"the interest of {reserve.symbol}"
        if supply_balance(rules, reserve.scaled_supply, reserve.income) != totals[reserve.a_token]:
            return f"the supply of {reserve.symbol}"
        if debt_balance(rules, reserve.scaled_debt, reserve.debt_index) != totals[reserve.variable_debt_token]:
            return f"the debt of {reserve.symbol}"
    return None
