"""Compound V2's shared state at one block: the Comptroller, its cTokens, their prices and their accrued indexes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from indexer.abi import abi
from indexer.adapter import Reader, required
from indexer.model import WAD, Asset, Failed, Market, Read
from protocols.common import SECONDS_PER_YEAR, ZERO_ADDRESS, implementation, symbol_of
from protocols.compound_v2.math import CToken, Weights, accrue, accrued_totals, weigh

COMPTROLLER = abi("compound_v2_comptroller")
C_TOKEN = abi("compound_v2_c_token")
ORACLE = abi("compound_v2_oracle")
ERC20 = abi("erc20")
ERC20_BYTES32 = abi("erc20_bytes32")

ETHER = "0x" + "e" * 40  # the conventional address of ether, which has no contract: cETH has no underlying()
#: where nobody measured it
SECONDS_PER_BLOCK = 12

BALANCE_OF = C_TOKEN.function("balanceOf")
BORROW_INDEX = C_TOKEN.function("borrowIndex")
EXCHANGE_RATE = C_TOKEN.function("exchangeRateStored")
CONFIG = ORACLE.function("getConfig")
PRICE = ORACLE.function("getUnderlyingPrice")
DEPRECATED = COMPTROLLER.function("isDeprecated")
# Functions that not every cToken has, by the name under which this module knows the answer. cETH treats any unknown call
# as a mint of 0, which accrues interest, so these reads share no eth_call with those of its state.
PROBES = {
    "underlying": C_TOKEN.function("underlying"),
    "accrual_timestamp": C_TOKEN.function("accrualBlockTimestamp"),
    "borrow_rate_per_second": C_TOKEN.function("borrowRatePerTimestamp"),
    "supply_rate_per_second": C_TOKEN.function("supplyRatePerTimestamp"),
    "seize_share": C_TOKEN.function("protocolSeizeShareMantissa"),
}
# Reads of the Comptroller for each cToken. `isDeprecated` exists in its last generations only.
LISTING_READS = {
    "listing": COMPTROLLER.function("markets"),
    "deprecated": DEPRECATED,
    "mint_paused": COMPTROLLER.function("mintGuardianPaused"),
    "borrow_paused": COMPTROLLER.function("borrowGuardianPaused"),
    "borrow_cap": COMPTROLLER.function("borrowCaps"),
}
# Functions of every cToken; forks that count seconds lack the last three (and have no fallback function).
STATE_READS = {
    "exchange_rate": EXCHANGE_RATE,
    "borrow_index": BORROW_INDEX,
    "cash": C_TOKEN.function("getCash"),
    "total_borrows": C_TOKEN.function("totalBorrows"),
    "total_reserves": C_TOKEN.function("totalReserves"),
    "total_supply": C_TOKEN.function("totalSupply"),
    "reserve_factor": C_TOKEN.function("reserveFactorMantissa"),
    "accrual_block": C_TOKEN.function("accrualBlockNumber"),
    "borrow_rate_per_block": C_TOKEN.function("borrowRatePerBlock"),
    "supply_rate_per_block": C_TOKEN.function("supplyRatePerBlock"),
}
NEEDED = ("exchange_rate", "borrow_index", "exchange_rate_accrued", "borrow_index_accrued", "decimals", "listing")


@dataclass(frozen=True, kw_only=True)  # no slots: the cached properties live in the instance
class CompoundV2Market(Market):
    """A Comptroller and its cTokens (by address); `revision` is the Comptroller's implementation.

    `rounding` is the generation of its arithmetic, None while the generations agree on every account (and give the same
    rows). `checked`: this implementation agreed with us about some accounts. Close factor and incentive are scaled by 1e18,
    None if the Comptroller does not answer.
    """

    comptroller: str
    c_tokens: dict[str, CToken]
    rounding: str | None = None
    checked: bool = False
    seize_paused: bool = False
    close_factor: int | None = None
    liquidation_incentive: int | None = None
    oracle: str | None = None

    @cached_property
    def weights(self) -> Mapping[str, Weights | None]:
        """What each cToken contributes to a position, None where it has no price."""
        return {address: weigh(token, self.rounding) for address, token in self.c_tokens.items()}

    @cached_property
    def deprecated(self) -> frozenset[str]:
        """The cTokens whose debts can be liquidated without a shortfall."""
        return frozenset(address for address, token in self.c_tokens.items() if token.deprecated)


def read_market(read: Reader, comptroller: str, options: Mapping[str, str | float]) -> CompoundV2Market:
    """Reads the market in five requests, and one for the storage of a proxy that is no Unitroller.

    Options: `native_symbol` of a cToken without underlying(), `seconds_per_block` for yearly rates of those that count
    interest by blocks.
    """
    addresses, oracle = required(
        read,
        [Read(comptroller, COMPTROLLER.function("getAllMarkets")), Read(comptroller, COMPTROLLER.function("oracle"))],
    )
    unitroller, incentive, seize_paused, close_factor = read(
        [
            Read(comptroller, COMPTROLLER.function("comptrollerImplementation")),
            Read(comptroller, COMPTROLLER.function("liquidationIncentiveMantissa")),
            Read(comptroller, COMPTROLLER.function("seizeGuardianPaused")),
            Read(comptroller, COMPTROLLER.function("closeFactorMantissa")),
        ]
    )
    rows = token_rows(read, comptroller, oracle, addresses)
    describe(rows, str(options["native_symbol"]))
    shared = {
        "paused": bool(seize_paused),
        "bonus": None if isinstance(incentive, Failed) else incentive / WAD - 1,
        "seconds_per_block": options["seconds_per_block"],
    }
    tokens = {row["address"]: c_token(row, read.block.number) for row in rows}
    return CompoundV2Market(
        block=read.block,
        revision=unitroller or implementation(read, comptroller),
        usd=(1, WAD),
        assets=tuple(asset(tokens[row["address"]], row, shared) for row in rows),
        comptroller=comptroller,
        c_tokens=tokens,
        seize_paused=bool(seize_paused),
        close_factor=None if isinstance(close_factor, Failed) else close_factor,
        liquidation_incentive=None if isinstance(incentive, Failed) else incentive,
        oracle=oracle,
    )


def config_reads(market: CompoundV2Market) -> list[Read]:
    """The oracle's getConfig of each cToken."""
    return [Read(market.oracle, CONFIG, (token,), mutates=True) for token in market.c_tokens] if market.oracle else []


def configured_feeds(read: Reader, market: CompoundV2Market) -> list[tuple[str, str]]:
    """(underlying asset, feed) as the oracle's getConfig tells; none where a price is fixed, or the oracle is of another kind.

    Source: Compound's PriceOracle over Chainlink, whose price is the feed's answer times a power of ten.
    """
    reads, found = config_reads(market), []
    for token, config in zip(market.c_tokens.values() if reads else (), read(reads) if reads else (), strict=True):
        decimals, feed, fixed = config or (None, ZERO_ADDRESS, 0)
        if decimals == token.decimals and feed != ZERO_ADDRESS and not fixed:
            found.append((token.underlying, feed))
    return found


def token_rows(read: Reader, comptroller: str, oracle: str, addresses: Sequence[str]) -> list[dict[str, Any]]:
    """All answers about each cToken by name; `Failed` for a read that failed."""
    rows: list[dict[str, Any]] = [{"address": address} for address in addresses]
    ask(
        read,
        rows,
        lambda row: {
            **{name: Read(row["address"], signature, mutates=True) for name, signature in PROBES.items()},
            **{name: Read(comptroller, signature, (row["address"],)) for name, signature in LISTING_READS.items()},
            "price": Read(oracle, PRICE, (row["address"],)),
        },
    )
    ask(
        read,
        rows,
        lambda row: {
            **{name: Read(row["address"], signature) for name, signature in STATE_READS.items()},
            "held_by_itself": Read(row["address"], BALANCE_OF, (row["address"],)),
            "burnt": Read(row["address"], BALANCE_OF, (ZERO_ADDRESS,)),
            **(underlying_reads(row["underlying"]) if row["underlying"] else {}),
        },
    )
    # The interest-rate model can be any contract, and some cTokens have other income than interest (cDAI earns on its
    # cash), so the contracts accrue themselves, in a call whose effects are discarded.
    ask(
        read,
        rows,
        lambda row: {
            "borrow_index_accrued": Read(row["address"], BORROW_INDEX),
            "exchange_rate_accrued": Read(row["address"], EXCHANGE_RATE),
        },
        prelude=accruals(addresses),
    )
    return rows


def underlying_reads(underlying: str) -> dict[str, Read]:
    """Reads symbols, which are bytes32 in some early tokens."""
    return {
        "symbol": Read(underlying, ERC20.function("symbol")),
        "symbol_bytes": Read(underlying, ERC20_BYTES32.function("symbol")),
        "decimals": Read(underlying, ERC20.function("decimals")),
    }


def ask(
    read: Reader,
    rows: Sequence[dict[str, Any]],
    reads_of: Callable[[dict[str, Any]], dict[str, Read]],
    prelude: Sequence[Read] = (),
) -> None:
    """Fill into each row the answers to its named reads, all sent together."""
    named = [(row, name, one) for row in rows for name, one in reads_of(row).items()]
    for (row, name, _), answer in zip(named, read([one for _, _, one in named], prelude), strict=True):
        row[name] = answer


def describe(rows: Sequence[dict[str, Any]], native_symbol: str) -> None:
    """Name each underlying asset; that of a cToken without underlying() is the chain's own coin."""
    for row in rows:
        if not row["underlying"]:
            row["underlying"], row["symbol"], row["decimals"] = ETHER, native_symbol, 18
        else:
            row["symbol"] = symbol_of(row["symbol"], row["symbol_bytes"], row["underlying"][:10])


def accruals(addresses: Sequence[str]) -> list[Read]:
    return [Read(address, C_TOKEN.function("accrueInterest")) for address in addresses]


def c_token(row: Mapping[str, Any], block_number: int) -> CToken:
    """One cToken. If it does not answer its exchange rate or index, the Comptroller fails, so it gets no price here.

    Forks that count seconds have other names for that, or kept the old ones: then the values exceed any block number.
    """
    whole = not any(isinstance(row[name], Failed) for name in NEEDED)
    accrued_at = row["accrual_timestamp" if isinstance(row["accrual_block"], Failed) else "accrual_block"] or 0
    return CToken(
        address=row["address"],
        underlying=row["underlying"],
        symbol=row["symbol"],
        decimals=row["decimals"] or 0,
        deprecated=bool(row["deprecated"]),
        collateral_factor=row["listing"][1] if row["listing"] else 0,
        price=(row["price"] or None) if whole else None,  # 0 is the oracle's error
        exchange_rate=row["exchange_rate"] or 0,
        borrow_index=row["borrow_index"] or 0,
        exchange_rate_accrued=row["exchange_rate_accrued"] or 0,
        borrow_index_accrued=row["borrow_index_accrued"] or 0,
        cash=row["cash"] or 0,
        total_borrows=row["total_borrows"] or 0,
        total_reserves=row["total_reserves"] or 0,
        total_supply=row["total_supply"] or 0,
        reserve_factor=row["reserve_factor"] or 0,
        rate=rate(row, "borrow") or 0,
        per_second=accrued_at > block_number,
        accrued_at=accrued_at,
        unowned=(row["held_by_itself"] or 0) + (row["burnt"] or 0),
        seize_share=None if isinstance(row["seize_share"], Failed) else row["seize_share"],
    )


def rate(row: Mapping[str, Any], side: str) -> int | None:
    """The rate of `side` ("supply", "borrow") a block or a second, None if the cToken does not answer."""
    answers = (row[f"{side}_rate_per_second"], row[f"{side}_rate_per_block"])
    return next((int(answer) for answer in answers if not isinstance(answer, Failed)), None)


def yearly(rate: int | None, seconds: float) -> float | None:
    return None if rate is None else rate / WAD * SECONDS_PER_YEAR / seconds


def asset(token: CToken, row: Mapping[str, Any], shared: Mapping[str, Any]) -> Asset:
    """`frozen`: neither new supply nor new debt; `paused`: nothing of this Comptroller can be seized."""
    seconds = 1 if token.per_second else shared["seconds_per_block"]
    factor = token.collateral_factor / WAD
    return Asset(
        asset=token.underlying,
        market=token.address,
        symbol=token.symbol,
        decimals=token.decimals,
        price=token.price,
        price_usd=price_in_usd(token, token.price),
        supply_index=token.exchange_rate,
        debt_index=token.borrow_index,
        supply_rate=yearly(rate(row, "supply"), seconds),
        borrow_rate=yearly(rate(row, "borrow"), seconds),
        ltv=factor,
        liquidation_threshold=factor,
        liquidation_bonus=shared["bonus"],
        borrow_cap=row["borrow_cap"] or None,  # 0 is no cap
        total_supply=token.exchange_rate * token.total_supply // WAD,
        total_debt=token.total_borrows,
        active=bool(row["listing"] and row["listing"][0]),
        frozen=bool(row["mint_paused"]) and bool(row["borrow_paused"]),
        paused=shared["paused"],
    )


def price_in_usd(token: CToken, price: int | None) -> float | None:
    return None if price is None else price / 10 ** (36 - token.decimals)


def with_prices(market: CompoundV2Market, prices: Mapping[str, int]) -> CompoundV2Market:
    """The market with other prices of these underlying assets; every cToken of an asset follows."""
    tokens = {
        address: replace(token, price=prices[token.underlying] or None) if token.underlying in prices else token
        for address, token in market.c_tokens.items()
    }
    assets = tuple(
        row
        if tokens[row.market] is market.c_tokens[row.market]
        else replace(
            row, price=tokens[row.market].price, price_usd=price_in_usd(tokens[row.market], tokens[row.market].price)
        )
        for row in market.assets
    )
    return replace(market, c_tokens=tokens, assets=assets)


def with_thresholds(market: CompoundV2Market, thresholds: Mapping[str, Fraction]) -> CompoundV2Market:
    """The market with other collateral factors of these underlying assets, rounded down to 18 digits."""
    tokens = {
        address: replace(token, collateral_factor=int(thresholds[token.underlying] * WAD))
        if token.underlying in thresholds
        else token
        for address, token in market.c_tokens.items()
    }
    factors = {address: token.collateral_factor / WAD for address, token in tokens.items()}
    assets = tuple(
        replace(row, ltv=factors[row.market], liquidation_threshold=factors[row.market]) for row in market.assets
    )
    return replace(market, c_tokens=tokens, assets=assets)


def after(market: CompoundV2Market, seconds: int, blocks: int) -> CompoundV2Market:
    """The market after that time if nobody acts: stored indexes stay, accrued ones grow by the formula.

    Exact if interest is the only income; other income (cDAI's savings rate) is not projected.
    """
    block = market.block.after(seconds, blocks)
    tokens = {}
    for address, token in market.c_tokens.items():
        now, then = (
            (market.block.timestamp, block.timestamp) if token.per_second else (market.block.number, block.number)
        )
        index_now, rate_now = accrue(token, now - token.accrued_at)
        index_then, rate_then = accrue(token, then - token.accrued_at)
        tokens[address] = replace(
            token,
            borrow_index_accrued=token.borrow_index_accrued + index_then - index_now,
            exchange_rate_accrued=token.exchange_rate_accrued + rate_then - rate_now,
        )
    return replace(market, block=block, c_tokens=tokens)


def interest_stored(market: CompoundV2Market) -> CompoundV2Market:
    """The market after every cToken's accrueInterest in its block."""
    tokens = {}
    for address, token in market.c_tokens.items():
        now = market.block.timestamp if token.per_second else market.block.number
        _, borrows, reserves = accrued_totals(token, now - token.accrued_at)
        tokens[address] = replace(
            token,
            exchange_rate=token.exchange_rate_accrued,
            borrow_index=token.borrow_index_accrued,
            total_borrows=borrows,
            total_reserves=reserves,
            accrued_at=now,
        )
    return replace(market, c_tokens=tokens)
