"""How many Aave V2 wallets a second are evaluated: `python -m tests.bench.aave_v2 [--quick]`. CPU time, no node."""

import random
from collections.abc import Iterator

from indexer.model import Block, Deployment, PositionKey
from protocols.aave_v2.adapter import AaveV2
from protocols.aave_v2.market import AaveV2Market, Reserve
from protocols.aave_v2.position import AaveV2Position
from tests.bench.rates import address, rates, wallets
from tests.bench.run import Result, run

RAY = 10**27
RESERVES = 37
NOW = 1_700_000_000


def market() -> AaveV2Market:
    rng = random.Random(1)
    reserves = []
    for i in range(RESERVES):
        index = RAY + rng.randrange(RAY // 5)
        reserves.append(
            Reserve(
                id=i,
                asset=address(1000 + i),
                symbol=f"A{i}",
                configuration=7500 | 8000 << 16 | 10500 << 32 | rng.choice((6, 8, 18)) << 48 | 1 << 56,
                a_token=address(2000 + i),
                stable_debt_token=address(4000 + i),
                variable_debt_token=address(3000 + i),
                liquidity_index=index,
                liquidity_rate=RAY // 50,
                variable_borrow_index=index,
                variable_borrow_rate=RAY // 25,
                last_update=NOW,
                income=index,
                debt_index=index,
                scaled_supply=0,
                scaled_debt=0,
                stable_debt=0,
                price=rng.randrange(10**14, 10**19),
            )
        )
    block = Block(1, "0x" + "11" * 32, "0x" + "22" * 32, NOW)
    return AaveV2Market(
        block=block, revision="2", pool=address(1), oracle=address(2), pool_revision=2, usd=(1, 10**14),
        reserves=tuple(reserves),
    )  # fmt: skip


def positions(market: AaveV2Market, count: int) -> list[AaveV2Position]:
    """Typical borrowers: one to three assets supplied, one or two owed, one debt in twenty stable."""
    rng = random.Random(2)
    found = []
    for n in range(count):
        supplied = rng.sample(market.reserves, rng.choice((1, 1, 2, 3)))
        borrowed = rng.sample(market.reserves, rng.choice((1, 1, 2)))
        debts = {r.variable_debt_token: rng.randrange(10 ** (r.decimals + 3)) for r in borrowed}
        stable = {}
        if n % 20 == 0:
            del debts[borrowed[0].variable_debt_token]
            stable[borrowed[0].stable_debt_token] = (10 ** borrowed[0].decimals, RAY // 20, NOW - 10**6)
        found.append(
            AaveV2Position(
                key=PositionKey(address(10**6 + n)),
                block_number=1,
                configuration=sum(r.collateral_flag for r in supplied) | sum(r.borrowing_flag for r in borrowed),
                supplied={r.a_token: rng.randrange(10**r.decimals, 10 ** (r.decimals + 4)) for r in supplied},
                borrowed=debts,
                stable=stable,
                offsets={},
            )
        )
    return found


def aave_v2(quick: bool) -> Iterator[Result]:
    adapter = AaveV2(Deployment("bench", "aave-v2", "devnet", 0, {"lending_pool_addresses_provider": address(0)}))
    state = market()
    yield from rates("aave-v2", adapter, state, positions(state, wallets(quick)), quick)


if __name__ == "__main__":
    run(aave_v2)
