"""The shared state of an Aave V2 market at one block, read in four rounds, and what it implies for an account."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import Reader, answered, required
from indexer.errors import ReadFailedError
from indexer.model import Asset, Block, Failed, Read
from protocols.aave.market import AaveMarket, asset_row
from protocols.aave.math import compound_v2, ray_mul
from protocols.aave.reserve import AaveReserve
from protocols.common import ZERO_ADDRESS, chunks, optional, symbol_of

PROVIDER = abi("aave_v2_addresses_provider")
POOL = abi("aave_v2_pool")
A_TOKEN = abi("aave_v2_a_token")
ORACLE = abi("aave_oracle")
ERC20 = abi("erc20")
ERC20_BYTES32 = abi("erc20_bytes32")

#: LENDINGPOOL_REVISION of pools whose account maths is that of protocol-v2: 2 is the first release, 3 closed stable
#: borrowing, 4 (3 for the AMM market and Polygon) added the rescue of tokens (bgd-labs rescue-mission diffs).
REVISIONS = frozenset({1, 2, 3, 4})

RESERVE_DATA = POOL.function("getReserveData")
INCOME = POOL.function("getReserveNormalizedIncome")
DEBT_INDEX = POOL.function("getReserveNormalizedVariableDebt")
SCALED_SUPPLY = A_TOKEN.function("scaledTotalSupply")
SUPPLY = A_TOKEN.function("totalSupply")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reserve(AaveReserve):
    """A reserve of V2; `stable_debt` is the total with interest, prices are in ETH wei on mainnet."""

    stable_debt: int


class Supply(NamedTuple):
    """What one aToken's scaled balance is worth; `counted` is the flag that makes it collateral, 0 if nothing does."""

    reserve: Reserve
    counted: int
    income: int
    price: int | None
    unit: int
    liquidation_threshold: int


class Debt(NamedTuple):
    """What one variable debt token's scaled balance is worth."""

    reserve: Reserve
    counted: int
    debt_index: int
    price: int | None
    unit: int


class Flags(NamedTuple):
    """Flags of a user configuration: of reserves without a price, with a price of 0, and that are not active."""

    unpriced: int
    worthless: int
    inactive: int


@dataclass(frozen=True, kw_only=True)  # no slots: the cached properties live in the instance
class AaveV2Market(AaveMarket[Reserve]):
    """An Aave V2 market at one block.

    `rebasing` are aTokens whose balances move without an event; all of their holders are read at each snapshot. `moved`
    maps such a token to what was read, by account: the scaled balance, and how much more balanceOf is than the formula.
    """

    paused: bool = False
    reserves: tuple[Reserve, ...] = ()
    rebasing: frozenset[str] = field(default_factory=frozenset)
    moved: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)

    @property
    def averages(self) -> bool:
        return True

    @cached_property
    def supplies(self) -> Mapping[str, Supply]:
        """By aToken. A reserve with liquidation threshold 0 backs nothing, whatever the flag says."""
        return {
            r.a_token: Supply(
                r,
                r.collateral_flag if r.liquidation_threshold else 0,
                r.income,
                r.price,
                10**r.decimals,
                r.liquidation_threshold,
            )
            for r in self.reserves
        }

    @cached_property
    def debts(self) -> Mapping[str, Debt]:
        """By variable debt token."""
        return {
            r.variable_debt_token: Debt(r, r.borrowing_flag, r.debt_index, r.price, 10**r.decimals)
            for r in self.reserves
        }

    @cached_property
    def flags(self) -> Flags:
        both = [(r, r.borrowing_flag | r.collateral_flag) for r in self.reserves]
        return Flags(
            sum(flags for r, flags in both if r.price is None),
            sum(flags for r, flags in both if r.price == 0),
            sum(flags for r, flags in both if not r.active),
        )

    def at(self, block: Block) -> "AaveV2Market":
        """With the indexes of a later `block` if nobody acts."""
        return replace(
            self, block=block, reserves=tuple(r.projected(compound_v2, block.timestamp) for r in self.reserves)
        ).with_assets()

    def with_assets(self) -> "AaveV2Market":
        """With the rows of `assets` and the conversion to USD that follow from the reserves."""
        usdc = next((r.price for r in self.reserves if r.symbol == "USDC"), None)
        market = replace(self, usd=(1, usdc) if usdc else None)
        return replace(market, assets=tuple(row_of(market, reserve) for reserve in market.reserves))


def row_of(market: AaveV2Market, reserve: Reserve) -> Asset:
    supply = ray_mul(reserve.scaled_supply, reserve.income)
    debt = ray_mul(reserve.scaled_debt, reserve.debt_index) + reserve.stable_debt
    return asset_row(market, reserve, total_supply=supply, total_debt=debt, paused=market.paused)


def read_market(read: Reader, provider: str, previous: AaveV2Market | None) -> AaveV2Market:
    """The market at the reader's block. ReadFailedError where the pool or its tokens do not answer."""
    pool, oracle = required(
        read, [Read(provider, PROVIDER.function("getLendingPool")), Read(provider, PROVIDER.function("getPriceOracle"))]
    )
    if ZERO_ADDRESS in (pool, oracle):
        raise ReadFailedError(f"the addresses provider {provider} names no pool or no price oracle at this block")
    revision, paused, assets = read(
        [
            Read(pool, POOL.function("LENDINGPOOL_REVISION")),
            Read(pool, POOL.function("paused")),
            Read(pool, POOL.function("getReservesList")),
        ]
    )
    (assets,) = answered([assets])
    pool_revision = None if isinstance(revision, Failed) else int(revision)
    market = AaveV2Market(
        block=read.block,
        revision=f"LENDINGPOOL_REVISION {pool_revision}",
        pool=pool,
        oracle=oracle,
        pool_revision=pool_revision,
        paused=paused is True,
    )
    reserves, rebasing, misfit = read_reserves(read, market, assets)
    if previous is not None and previous.pool == pool:
        rebasing |= previous.rebasing & {reserve.a_token for reserve in reserves}
    note = None
    if pool_revision not in REVISIONS:
        note = f"{market.revision} is no Aave V2 pool this adapter knows; rows carry the contract's own answers"
    elif misfit:
        note = f"{market.revision}: {misfit} is not as Aave V2 computes it; rows carry the contract's own answers"
    return replace(market, exact=note is None, note=note, reserves=reserves, rebasing=rebasing).with_assets()


def read_reserves(
    read: Reader, market: AaveV2Market, assets: Sequence[str]
) -> tuple[tuple[Reserve, ...], frozenset[str], str | None]:
    """Third and fourth round: reserves with tokens and prices, rebasing aTokens, and the first mismatch, if any."""
    pool, oracle = market.pool, market.oracle
    reads = [Read(pool, function, (asset,)) for asset in assets for function in (RESERVE_DATA, INCOME, DEBT_INDEX)]
    prices, *answers = read(
        [
            Read(oracle, ORACLE.function("getAssetsPrices"), (tuple(assets),)),
            *(Read(asset, ERC20.function("symbol")) for asset in assets),
            *reads,
        ]
    )
    symbols, rest = answers[: len(assets)], iter(answered(answers[len(assets) :]))
    rows = list(zip(assets, rest, rest, rest, strict=True))
    tokens, names, price_of = read_tokens(read, oracle, rows, symbols, prices)
    reserves, rebasing, misfit = [], set(), None
    for (asset, data, income, debt_index), token in zip(rows, tokens, strict=True):
        scaled_supply, supply, scaled_debt, debt, stable_debt = answered(list(token[:5]))
        reserve = Reserve(
            id=data[11],
            asset=asset,
            symbol=names[asset],
            configuration=data[0],
            a_token=data[7],
            stable_debt_token=data[8],
            variable_debt_token=data[9],
            liquidity_index=data[1],
            liquidity_rate=data[3],
            variable_borrow_index=data[2],
            variable_borrow_rate=data[4],
            last_update=data[6],
            income=income,
            debt_index=debt_index,
            scaled_supply=scaled_supply,
            scaled_debt=scaled_debt,
            stable_debt=stable_debt,
            price=price_of[asset],
        )
        reserves.append(reserve)
        # AStETH and AAmpl keep internal balances beside those they show.
        if not isinstance(token[5], Failed) or supply != ray_mul(scaled_supply, income):
            rebasing.add(reserve.a_token)
        ours = reserve.projected(compound_v2, market.block.timestamp)
        if (ours.income, ours.debt_index) != (income, debt_index) or debt != ray_mul(scaled_debt, debt_index):
            misfit = f"the interest of {reserve.symbol}"
    return tuple(reserves), frozenset(rebasing), misfit


def read_tokens(
    read: Reader, oracle: str, rows: Sequence[tuple[str, Any, int, int]], symbols: Sequence[Any], prices: Any
) -> tuple[list[Sequence[Any]], dict[str, str], dict[str, int | None]]:
    """Reads the totals of each reserve's tokens, symbols (some are bytes32), and prices, one by one if all at once fail."""
    assets = [asset for asset, *_ in rows]
    reads = []
    for _, data, _, _ in rows:
        a_token, stable, variable = data[7:10]
        reads += [
            Read(a_token, SCALED_SUPPLY),
            Read(a_token, SUPPLY),
            Read(variable, SCALED_SUPPLY),
            Read(variable, SUPPLY),
            Read(stable, SUPPLY),
            Read(a_token, A_TOKEN.function("internalTotalSupply")),
        ]
    unnamed = [asset for asset, symbol in zip(assets, symbols, strict=True) if isinstance(symbol, Failed)]
    unpriced = assets if isinstance(prices, Failed) else []
    reads += [Read(asset, ERC20_BYTES32.function("symbol")) for asset in unnamed]
    reads += [Read(oracle, ORACLE.function("getAssetPrice"), (asset,)) for asset in unpriced]
    answers = read(reads)
    width, first = 6, 6 * len(rows)
    tokens = chunks(answers[:first], width)
    names = {asset: text and symbol_of(text, b"", asset) for asset, text in zip(assets, symbols, strict=True)}
    for asset, word in zip(unnamed, answers[first:], strict=False):
        names[asset] = symbol_of("", word, asset)
    single = [optional(price) for price in answers[first + len(unnamed) :]]
    return tokens, names, dict(zip(assets, single if isinstance(prices, Failed) else prices, strict=True))
