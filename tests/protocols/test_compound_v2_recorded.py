"""Compound V2 in recorded mainnet data: whom events touch, and who was liquidated."""

import json
from pathlib import Path
from typing import Any

import pytest

from indexer.model import WAD, Accounts, Block, Deployment, PositionKey
from protocols.compound_v2.adapter import (
    BORROW,
    LIQUIDATE_BORROW,
    MARKET_ENTERED,
    MARKET_EXITED,
    MINT,
    REDEEM,
    REPAY_BORROW,
    TRANSFER,
    CompoundV2,
)
from protocols.compound_v2.market import CompoundV2Market
from protocols.compound_v2.math import TRUNCATE, CToken
from protocols.compound_v2.position import (
    CompoundV2Position,
)
from tests import compound
from tests.compound import accounts_in

MAINNET = {
    "cETH": "0x4ddc2d193948926d02f9b1fe9e1daa0718270ed5",
    "cUSDC": "0x39aa39c021dfbae8fac545936693ac917d5e7563",
    "cUSDT": "0xf650c3d88d12db855b8bf7d11be6c55a4e07dcc9",
    "cBAT": "0x6c8c6b02e7b2be14d4fa6022dfd6d75921d90e4e",
    "cDAI": "0x5d3a536e4d6dbd6114cc1ead35777bab948e3643",
    "cCOMP": "0x70e36f6bf80a52b3b46b3af8e106cc0ed743e8e4",
    "cZRX": "0xb3319f5d18bc0d84dd1b4825dcde5d5f7266d407",
}


UNITROLLER = "0x3d9819210a31b4961b30ef54be2aed79b9c9cd3b"


COLLATERAL_FACTORS = {"cCOMP": 60, "cZRX": 65}  # those of October 2021; ETH, DAI and USDC 75


def mainnet_token(name: str, **values: Any) -> CToken:
    unknown = dict.fromkeys(
        ("cash", "total_borrows", "total_reserves", "total_supply", "reserve_factor", "rate", "accrued_at", "unowned"),
        0,
    )
    return CToken(
        **{
            "address": MAINNET[name], "underlying": MAINNET[name], "symbol": name, "decimals": 18, "deprecated": False,
            "collateral_factor": COLLATERAL_FACTORS.get(name, 75) * WAD // 100, "price": None, "exchange_rate": WAD,
            "borrow_index": WAD, "exchange_rate_accrued": WAD, "borrow_index_accrued": WAD, "per_second": False,
        } | unknown | values
    )  # fmt: skip


def mainnet_market(tokens: list[CToken]) -> CompoundV2Market:
    return CompoundV2Market(
        block=Block(13_323_642, "0x" + "1" * 64, "0x" + "2" * 64, 0),
        revision="recorded",
        comptroller=UNITROLLER,
        c_tokens={token.address: token for token in tokens},
        rounding=TRUNCATE,
    )


@pytest.fixture
def mainnet() -> tuple[CompoundV2, CompoundV2Market]:
    adapter = CompoundV2(Deployment("compound-v2", "compound-v2", "mainnet", 0, {"comptroller": UNITROLLER}))
    return adapter, mainnet_market([mainnet_token(name) for name in MAINNET])


ALICE, BOB = "0x" + "a1" * 20, "0x" + "b0" * 20


C_TOKEN = MAINNET["cDAI"]


@pytest.mark.parametrize(
    ("address", "topics", "words", "touched"),
    [
        (C_TOKEN, [MINT], [ALICE, 1, 2], {ALICE}),
        (C_TOKEN, [REDEEM], [ALICE, 1, 2], {ALICE}),
        (C_TOKEN, [BORROW], [ALICE, 1, 2, 3], {ALICE}),
        (C_TOKEN, [BORROW], [ALICE, 0, 2, 3], {ALICE}),  # of nothing, but there is debt
        (C_TOKEN, [BORROW], [ALICE, 0, 0, 3], set()),  # never had debt
        (C_TOKEN, [REPAY_BORROW], [ALICE, BOB, 1, 2, 3], {BOB}),
        (C_TOKEN, [LIQUIDATE_BORROW], [ALICE, BOB, 1, C_TOKEN, 3], {ALICE, BOB}),
        (C_TOKEN, [TRANSFER, ALICE, BOB], [1], {ALICE, BOB}),
        (C_TOKEN, [TRANSFER, C_TOKEN, BOB], [1], {BOB}),  # a mint
        (C_TOKEN, [TRANSFER, ALICE, C_TOKEN], [1], {ALICE}),  # a redemption
        (C_TOKEN, [TRANSFER, ALICE, MAINNET["cETH"]], [1], {ALICE, MAINNET["cETH"]}),
        (C_TOKEN, [TRANSFER, ALICE, "0x" + "0" * 40], [1], {ALICE}),
        (C_TOKEN, [MARKET_ENTERED], [C_TOKEN, ALICE], set()),
        (UNITROLLER, [MARKET_ENTERED], [C_TOKEN, ALICE], {ALICE}),
        (UNITROLLER, [MARKET_EXITED], [C_TOKEN, ALICE], {ALICE}),
        (UNITROLLER, [MINT], [ALICE, 1, 2], set()),
        (BOB, [MINT], [ALICE, 1, 2], set()),  # Uniswap's and Aave's have the same topic
        (C_TOKEN, [MINT], [2**200, 1, 2], set()),
        (C_TOKEN, [MINT], [], set()),
        (C_TOKEN, [], [], set()),
    ],
)
def test_an_event_touches_whose_balances_it_changes(
    mainnet: tuple[CompoundV2, CompoundV2Market], address: str, topics: list[str], words: list[Any], touched: set[str]
) -> None:
    adapter, market = mainnet
    assert accounts_in(adapter, market, [compound.event(address, topics, words)]) == touched


def test_accounts_that_were_liquidated_on_mainnet_are_below_one(
    shared: Path, mainnet: tuple[CompoundV2, CompoundV2Market]
) -> None:
    adapter, _ = mainnet
    names = {address: name for name, address in MAINNET.items()}
    cases = json.loads((shared / "mainnet" / "compound_v2_liquidations.json").read_text())
    assert len(cases) == 2
    for case in cases:
        snapshots = {token: [int(word) for word in words] for token, words in case["snapshots"].items()}
        market = mainnet_market(
            [
                mainnet_token(names[token], price=int(case["prices"][token]), exchange_rate=words[3])
                for token, words in snapshots.items()
            ]
        )
        health = adapter.evaluate(
            market,
            CompoundV2Position(
                key=PositionKey(case["borrower"]),
                block_number=case["block"],
                entered=tuple(snapshots),
                c_tokens={token: words[1] for token, words in snapshots.items() if words[1]},
                borrows={token: (words[2], WAD) for token, words in snapshots.items() if words[2]},
            ),
        )
        assert health.health_factor is not None
        assert health.health_factor < WAD
        assert health.liquidatable
        assert health.liquidation_limit is not None
        assert health.debt_value is not None
        assert health.liquidation_limit / WAD == pytest.approx(case["collateral_usd"], rel=1e-14)
        assert health.debt_value / WAD == pytest.approx(case["debt_usd"], rel=1e-14)


def test_recorded_transactions_touch_exactly_the_right_accounts(
    shared: Path, mainnet: tuple[CompoundV2, CompoundV2Market]
) -> None:
    adapter, market = mainnet
    expected = {
        "0x0007416c": {"0x18c42014fb0aed3e35515eb45df8498af67773a4"},  # repaid by Maximillion
        "0x000da925": {"0x9760bf25166f764f616ff067332c2bddbf54dadd"},
        "0x0001a89e": {  # a liquidation
            "0x9bf62c518ffe86bd43d57c7026aa1a4fbea83b15",
            "0xd911560979b78821d7b045c79e36e9cbfc2f6c6f",
        },
        "0x5e726699": {"0x01d127d90513ccb6071f83efe15611c4d9890668"},
    }
    touched = {
        transaction[:10]: accounts
        for transaction, events in compound.recorded_lending(shared)
        if (accounts := accounts_in(adapter, market, events))
    }
    assert touched == expected


def test_recorded_blocks_touch_exactly_the_right_accounts(
    shared: Path, mainnet: tuple[CompoundV2, CompoundV2Market]
) -> None:
    adapter, market = mainnet
    assert accounts_in(adapter, market, compound.recorded_block(shared, 11_114_732)) == {
        "0x2b9728bda738ff48845e1ec1b9631ab24aaf8511",
        "0x5e0224ab9de9637df40d7d77807e2da675d59a05",
    }
    assert accounts_in(adapter, market, compound.recorded_block(shared, 12_243_999)) == {
        "0x96552ffc893d18fd9e9f96fc244318e59f97740b"
    }


def test_discovery_in_recorded_blocks_names_borrowers_only_where_somebody_borrowed(
    shared: Path, mainnet: tuple[CompoundV2, CompoundV2Market]
) -> None:
    adapter, market = mainnet
    (source,) = adapter.logs(market, Accounts.BORROWERS).discovery
    events = [*compound.recorded_block(shared, 11_114_732), *compound.recorded_block(shared, 12_243_999)]
    assert not [e for e in events if e.address in source.addresses and e.topic0 in source.topics]


def test_other_contracts_touch_nobody(shared: Path, mainnet: tuple[CompoundV2, CompoundV2Market]) -> None:
    adapter, market = mainnet
    assert accounts_in(adapter, market, compound.recorded_others(shared)) == set()
