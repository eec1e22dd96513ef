"""How many Aave V3 wallets a second are evaluated: `python -m tests.bench.aave_v3 [--quick]`. CPU time, no node."""

import random
from collections.abc import Iterator

from indexer.model import Block, Deployment, PositionKey
from protocols.aave_v3.adapter import AaveV3
from protocols.aave_v3.market import AaveV3Market, Reserve
from protocols.aave_v3.position import AaveV3Position
from tests.bench.rates import address, rates, wallets
from tests.bench.run import Result, run

RAY = 10**27
RESERVES = 48


def market(version: str) -> AaveV3Market:
    rng = random.Random(1)
    reserves = []
    for i in range(RESERVES):
        decimals = rng.choice((6, 8, 18))
        index = RAY + rng.randrange(RAY // 5)
        reserves.append(
            Reserve(
                id=i,
                asset=address(1000 + i),
                symbol=f"A{i}",
                configuration=7500 | 8000 << 16 | 10500 << 32 | decimals << 48 | 1 << 56,
                a_token=address(2000 + i),
                variable_debt_token=address(3000 + i),
                liquidity_index=index,
                liquidity_rate=RAY // 50,
                variable_borrow_index=index,
                variable_borrow_rate=RAY // 25,
                last_update=1_700_000_000,
                income=index,
                debt_index=index,
                scaled_supply=0,
                scaled_debt=0,
                price=rng.randrange(10**7, 10**13),
            )
        )
    block = Block(1, "0x" + "11" * 32, "0x" + "22" * 32, 1_700_000_000)
    return AaveV3Market(
        block=block, revision=version, pool=address(1), oracle=address(2), pool_revision=0, version=version,
        usd=(1, 10**8), reserves=tuple(reserves),
    )  # fmt: skip


def positions(market: AaveV3Market, count: int) -> list[AaveV3Position]:
    """Typical borrowers: one to three assets supplied, one or two owed."""
    rng = random.Random(2)
    found = []
    for n in range(count):
        supplied = rng.sample(market.reserves, rng.choice((1, 1, 2, 3)))
        borrowed = rng.sample(market.reserves, rng.choice((1, 1, 2)))
        configuration = sum(r.collateral_flag for r in supplied) | sum(r.borrowing_flag for r in borrowed)
        found.append(
            AaveV3Position(
                key=PositionKey(address(10**6 + n)),
                block_number=1,
                configuration=configuration,
                mode=0,
                supplied={r.a_token: rng.randrange(10**r.decimals, 10 ** (r.decimals + 4)) for r in supplied},
                borrowed={r.variable_debt_token: rng.randrange(10 ** (r.decimals + 3)) for r in borrowed},
                stable={},
                discounts={},
                amounts={},
            )
        )
    return found


def aave_v3(quick: bool) -> Iterator[Result]:
    adapter = AaveV3(Deployment("bench", "aave-v3", "devnet", 0, {"pool_addresses_provider": address(0)}))
    for version in ("3.0", "3.6"):
        state = market(version)
        yield from rates(f"aave-v3 {version}", adapter, state, positions(state, wallets(quick)), quick)


if __name__ == "__main__":
    run(aave_v3)
