"""How many Compound accounts a second are evaluated: `python -m tests.bench.compound [--quick]`. CPU time, no node."""

import random
from collections.abc import Iterator

from indexer.adapter import Adapter
from indexer.model import WAD, Asset, Block, Deployment, Market, Position, PositionKey
from protocols.compound_v2.adapter import CompoundV2
from protocols.compound_v2.market import CompoundV2Market
from protocols.compound_v2.math import TRUNCATE, CToken
from protocols.compound_v2.position import CompoundV2Position
from protocols.compound_v3.adapter import CompoundV3
from protocols.compound_v3.market import Collateral, CompoundV3Market
from protocols.compound_v3.position import CompoundV3Position
from tests.bench.rates import address, rates, wallets
from tests.bench.run import Result, run

BLOCK = Block(1, "0x" + "11" * 32, "0x" + "22" * 32, 1_700_000_000)


def compound_v2(count: int) -> tuple[Adapter, Market, list[Position]]:
    """20 markets; accounts in one to four of them, two thirds with one or two debts."""
    rng = random.Random(1)
    tokens = {}
    for i in range(20):
        index = WAD + rng.randrange(WAD // 5)
        tokens[address(i)] = CToken(
            address=address(i), underlying=address(100 + i), symbol=f"T{i}", decimals=18, deprecated=False,
            collateral_factor=75 * 10**16, price=rng.randrange(10**17, 10**22), exchange_rate=2 * 10**26 + i,
            borrow_index=index, exchange_rate_accrued=2 * 10**26 + 10**20, borrow_index_accrued=index + 10**12,
            cash=0, total_borrows=0, total_reserves=0, total_supply=1, reserve_factor=0, rate=0, per_second=False,
            accrued_at=0, unowned=0,
        )  # fmt: skip
    market = CompoundV2Market(block=BLOCK, revision="", comptroller=address(999), c_tokens=tokens, rounding=TRUNCATE)
    positions: list[Position] = []
    for n in range(count):
        entered = tuple(rng.sample(list(tokens), rng.randint(1, 4)))
        owed = rng.sample(entered, min(len(entered), rng.choice((0, 1, 2))))
        positions.append(
            CompoundV2Position(
                key=PositionKey(address(10**6 + n)), block_number=1, entered=entered,
                c_tokens={token: rng.randrange(1, 10**13) for token in entered},
                borrows={token: (rng.randrange(1, 10**22), WAD + 1) for token in owed},
            )
        )  # fmt: skip
    return CompoundV2(Deployment("", "compound-v2", "", 0, {"comptroller": address(999)})), market, positions


def compound_v3(count: int) -> tuple[Adapter, Market, list[Position]]:
    """A Comet of 12 assets; every account has one to three of them and debt."""
    rng = random.Random(2)
    collaterals = tuple(
        Collateral(
            asset=address(i), offset=i, scale=10**18, liquidate_factor=8 * 10**17,
            price=rng.randrange(10**7, 10**12), total_supply=0,
        )
        for i in range(12)
    )  # fmt: skip
    market = CompoundV3Market(
        block=BLOCK, revision="", comet=address(999), base=address(998), base_scale=10**6, base_price=10**8,
        base_borrow_min=10**8, supply_index=10**15, borrow_index=10**15 + 1, supply_index_accrued=10**15 + 2,
        borrow_index_accrued=10**15 + 3, supply_rate=1, borrow_rate=1, accrued_at=0, total_supply_base=0,
        total_borrow_base=0, absorb_paused=False, collaterals=collaterals,
        assets=tuple(
            Asset(asset=address(i), market=address(999), symbol="T", decimals=18, price=10**8) for i in (998, *range(12))
        ),
    )  # fmt: skip
    positions: list[Position] = [
        CompoundV3Position(
            key=PositionKey(address(10**6 + n)), block_number=1, principal=-rng.randrange(1, 10**12),
            collateral={address(i): rng.randrange(1, 10**22) for i in sorted(rng.sample(range(12), rng.randint(1, 3)))},
        )
        for n in range(count)
    ]  # fmt: skip
    return CompoundV3(Deployment("", "compound-v3", "", 0, {"comet": address(999)})), market, positions


def compound(quick: bool) -> Iterator[Result]:
    for name, case in (("compound-v2", compound_v2), ("compound-v3", compound_v3)):
        yield from rates(name, *case(wallets(quick)), quick)


if __name__ == "__main__":
    run(compound)
