"""Aave V3 in recorded mainnet data, and the discount of GHO, without a node."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.model import WAD, Accounts, Block, Deployment, PositionKey, Read
from protocols.aave_v3 import position as aave_v3_account
from protocols.aave_v3.adapter import DISCOUNT_UPDATED, AaveV3
from protocols.aave_v3.market import AaveV3Market, EMode, Reserve
from protocols.aave_v3.position import AaveV3Position
from tests.compound import (
    accounts_in,
    recorded_lending,
    recorded_others,
)

RAY = 10**27


SPARK_POOL = "0xc13e21b648a5ee794902342038ff3adab66be987"


def mainnet_market(shared: Path) -> AaveV3Market:
    """The recorded configuration of Aave V3 mainnet as a market; indexes, totals and balances are not in it."""
    recorded = json.loads((shared / "mainnet" / "aave_v3_mainnet_config.json").read_text())
    reserves = []
    for row in recorded["reserves"].values():
        configuration = row["ltv"] | row["liquidationThreshold"] << 16 | row["liquidationBonus"] << 32
        configuration |= row["decimals"] << 48 | row["isActive"] << 56
        reserves.append(
            Reserve(
                id=row["id"],
                asset=row["underlying"].lower(),
                symbol=row["symbol"],
                configuration=configuration,
                a_token=row["aToken"].lower(),
                variable_debt_token=row["variableDebtToken"].lower(),
                liquidity_index=RAY,
                liquidity_rate=0,
                variable_borrow_index=RAY,
                variable_borrow_rate=0,
                last_update=1,
                income=RAY,
                debt_index=RAY,
                scaled_supply=0,
                scaled_debt=0,
                price=int(row["oracleLatestAnswer"]),
            )
        )
    e_modes = [
        EMode(
            id=int(row["eModeCategory"]),
            label=row["label"],
            ltv=row["ltv"],
            liquidation_threshold=row["liquidationThreshold"],
            liquidation_bonus=row["liquidationBonus"],
            collateral_bitmap=int(row["collateralBitmap"]),
        )
        for row in recorded["eModes"].values()
    ]
    return AaveV3Market(
        block=Block(1, "0x" + "11" * 32, "0x" + "22" * 32, 1),
        revision="3.3",
        pool=recorded["poolConfig"]["pool"].lower(),
        oracle=recorded["poolConfig"]["oracle"].lower(),
        pool_revision=7,
        version="3.3",
        reserves=tuple(reserves),
        e_modes=tuple(e_modes),
        usd=(1, 10**8),
    )


def mainnet_adapter() -> AaveV3:
    provider = "0x2f39d218133afab8f2b819b1066c7e434ad94e9e"
    return AaveV3(Deployment("aave-v3-core", "aave-v3", "mainnet", 0, {"pool_addresses_provider": provider}))


#: Who the Aave V3 Core logs of the recorded transactions may have changed, as the explorers tell these transactions.
RECORDED = {
    # migration from V2, supplied on behalf of its owner
    "0xa77ea655f8": {"0x4bf180a73575d4393cc794f29fb92c3954a36b5a"},
    # liquidation: the borrower, the liquidator, the collector of the fee
    "0xc1a03e87f1": {
        "0x7420fa58ba44e1141d5e9adb6903be549f7ce0b5",
        "0x594efbe5a71a10a958d812b4c65f3dfa60922a15",
        "0x464c71f6c2f760dda6093dcb91c24c39e5d6e18c",
    },
    "0x1f7614ba24": {"0x203b2e862c57fbac813c05c46b6e1242844724a2"},  # withdrawal of everything
    "0x440dddaad9": {"0x9cbf099ff424979439dfba03f00b5961784c06ce"},  # repayment
    "0x0cd165d47a": {"0x8cbac427b6967d5d84ec4230081e2763ab3a8c92"},  # first supply
    "0xaf3b556376": {"0x8cbac427b6967d5d84ec4230081e2763ab3a8c92"},  # borrow
    "0xf5b4c6f3b4": {"0x35542f2c7d18716401a38cc7f08bf5bf61f371cc"},  # a vault supplies and borrows, flash loan of Spark
    # an aToken transfer that leaves interest behind and switches the receiver's collateral on
    "0x84a70d14ef": {
        "0x79a4d7448b110bf926d96b726d113f7d7de6781f",
        "0x9c9ef79aae8996c72ea8c374011d7ac1eb42c4fc",
    },
    "0x01ac87a1fe": {"0xd99697546891ee4c20b9a3c65fbfbc356353befb"},  # supply by a contract
}


def test_recorded_mainnet_transactions_touch_the_right_accounts(shared: Path) -> None:
    adapter, market = mainnet_adapter(), mainnet_market(shared)
    found = {transaction[:12]: accounts_in(adapter, market, events) for transaction, events in recorded_lending(shared)}
    assert len(found) == 27
    assert {transaction: accounts for transaction, accounts in found.items() if accounts} == RECORDED


def test_recorded_debtors_are_discovered_by_their_borrow(shared: Path) -> None:
    adapter, market = mainnet_adapter(), mainnet_market(shared)
    pairs = {pair for source in adapter.logs(market, Accounts.BORROWERS).discovery for pair in source.pairs()}
    borrows = {
        transaction[:12]: accounts_in(adapter, market, [e for e in events if (e.address, e.topic0) in pairs])
        for transaction, events in recorded_lending(shared)
    }
    assert {transaction for transaction, accounts in borrows.items() if accounts} == {"0xaf3b556376", "0xf5b4c6f3b4"}
    assert borrows["0xaf3b556376"] == RECORDED["0xaf3b556376"]


def test_a_flash_loan_of_another_market_touches_nobody_in_it(shared: Path) -> None:
    spark = replace(mainnet_market(shared), pool=SPARK_POOL, reserves=())
    events = [event for _, events in recorded_lending(shared) for event in events]
    assert any(event.address == SPARK_POOL for event in events)
    assert accounts_in(mainnet_adapter(), spark, events) == set()


def test_unrelated_mainnet_logs_touch_nobody(shared: Path) -> None:
    adapter, market = mainnet_adapter(), mainnet_market(shared)
    events = recorded_others(shared)
    assert len(events) > 100
    assert accounts_in(adapter, market, events) == set()


def test_recorded_e_modes_give_their_threshold_to_their_collateral_alone(shared: Path) -> None:
    market = mainnet_market(shared)
    thresholds = {s.reserve.symbol: s.liquidation_threshold for s in market.plan(0).supplies.values()}
    inside = {s.reserve.symbol: s.liquidation_threshold for s in market.plan(1).supplies.values()}
    changed = {symbol for symbol in inside if inside[symbol] != thresholds[symbol]}
    assert changed == {"WETH", "wstETH", "rETH", "cbETH", "weETH", "osETH", "ETHx"} & set(inside)
    assert {inside[symbol] for symbol in changed} == {9500}


def gho_position(market: AaveV3Market, scaled: int, discount: tuple[int, int]) -> AaveV3Position:
    gho, weth = (next(r for r in market.reserves if r.symbol == symbol) for symbol in ("GHO", "WETH"))
    return AaveV3Position(
        key=PositionKey("0x" + "12" * 20),
        block_number=1,
        configuration=gho.borrowing_flag | weth.collateral_flag,
        mode=0,
        supplied={weth.a_token: WAD},
        borrowed={gho.variable_debt_token: scaled},
        stable={},
        discounts={gho.variable_debt_token: discount},
        amounts={},
    )


@pytest.mark.parametrize(
    ("version", "accounting", "counted"),
    [
        ("3.1", False, 1100),  # up to 3.2 the health factor looks through the discount
        ("3.2", False, 1100),
        ("3.3", False, 1070),  # 3.3 asks balanceOf where virtual accounting is off
        ("3.3", True, 1100),
    ],
)
def test_the_discount_of_gho_counts_where_the_pool_lets_it(
    shared: Path, version: str, accounting: bool, counted: int
) -> None:
    market = mainnet_market(shared)
    reserves = [
        replace(
            r,
            price=10**8,
            debt_index=11 * RAY // 10,
            discount=True,
            configuration=r.configuration | (int(accounting) << 252),
        )
        if r.symbol == "GHO"
        else r
        for r in market.reserves
    ]
    market = replace(market, version=version, reserves=tuple(reserves))
    # 1000 GHO borrowed at index 1.0, which is 1.1 now: 100 of interest, 30 % of it waived.
    position = gho_position(market, 1000 * WAD, (RAY, 3000))
    (debt,) = (row for row in aave_v3_account.balances(market, position) if row.side == "debt")
    assert (debt.scaled, debt.amount) == (1000 * WAD, 1070 * WAD)
    assert aave_v3_account.evaluate(market, position).debt_value == counted * 10**8


class GhoReader:
    """Answers as a pool would in which one account owes discounted GHO."""

    def __init__(self, block: Block, answers: dict[tuple[str, str], Any]) -> None:
        self.block = block
        self.answers = answers

    def __call__(self, reads: Sequence[Read], prelude: Sequence[Read] = ()) -> list[Any]:
        return [self.answers.get((read.target, read.signature.partition("(")[0]), 0) for read in reads]

    def by_flags(self, *_: object) -> None:
        """Never: plain reads tell."""

    def storage(self, slots: Sequence[tuple[str, int]]) -> list[int] | None:
        return None


def test_a_discount_is_read_and_its_change_is_followed(shared: Path) -> None:
    market = mainnet_market(shared)
    gho = next(r for r in market.reserves if r.symbol == "GHO")
    market = replace(market, reserves=tuple(replace(r, discount=r is gho) for r in market.reserves))
    adapter, key = mainnet_adapter(), PositionKey("0x" + "12" * 20)
    answers = {
        (market.pool, "getUserConfiguration"): gho.borrowing_flag,
        (gho.variable_debt_token, "scaledBalanceOf"): 5 * WAD,
        (gho.variable_debt_token, "getPreviousIndex"): RAY + 1,
        (gho.variable_debt_token, "getDiscountPercent"): 3000,
    }
    (position,) = adapter.read_positions(GhoReader(market.block, answers), market, [key])
    assert isinstance(position, AaveV3Position)
    assert position.borrowed == {gho.variable_debt_token: 5 * WAD}
    assert position.discounts == {gho.variable_debt_token: (RAY + 1, 3000)}
    activity = adapter.logs(market, Accounts.ALL).activity
    assert [s.addresses for s in activity if DISCOUNT_UPDATED in s.topics] == [{gho.variable_debt_token}]
