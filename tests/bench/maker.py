"""How many Maker urns a second are evaluated: `python -m tests.bench.maker [--quick]`. CPU time, no node."""

import random
from collections.abc import Iterator

from indexer.model import Block, Deployment, PositionKey
from protocols.maker.adapter import Maker
from protocols.maker.market import Gem, Ilk, MakerMarket
from protocols.maker.position import Urn
from tests.bench.rates import address, rates, wallets
from tests.bench.run import Result, run

WAD, RAY, RAD = 10**18, 10**27, 10**45
ILKS = 60
CONTRACTS = {"vat": address(1), "spotter": address(2), "jug": address(3), "cdp_manager": address(4)}


def market() -> MakerMarket:
    rng = random.Random(1)
    ilks = {}
    for i in range(ILKS):
        spot, rate = rng.randrange(RAY, 2_000 * RAY), RAY + rng.randrange(RAY // 5)
        ilks[f"GEM{i}-A"] = Ilk(
            Art=0, rate=rate, spot=spot, line=RAD, dust=RAD, pip=address(5), mat=3 * RAY // 2, duty=RAY, rho=0,
            accrued_rate=rate + 10**20, gem=Gem(f"GEM{i}"), next_spot=spot + RAY // 7,
        )  # fmt: skip
    block = Block(1, "0x" + "11" * 32, "0x" + "22" * 32, 1_700_000_000)
    return MakerMarket(
        block=block, revision="dss", usd=(1, RAD), contracts=CONTRACTS, live=1, debt=0, vice=0, surplus=0, par=RAY,
        base=0, ilks=ilks,
    )  # fmt: skip


def positions(market: MakerMarket, count: int) -> list[Urn]:
    rng = random.Random(2)
    names = list(market.ilks)
    return [
        Urn(
            key=PositionKey(address(10**6 + n), rng.choice(names)), block_number=1, ink=rng.randrange(10**21),
            art=rng.randrange(10**22), cdp=n, owner=address(n), owner_via="cdp-manager", wallet=address(n),
        )
        for n in range(count)
    ]  # fmt: skip


def maker(quick: bool) -> Iterator[Result]:
    adapter = Maker(Deployment("bench", "maker", "devnet", 0, CONTRACTS))
    state = market()
    yield from rates("maker", adapter, state, positions(state, wallets(quick)), quick)


if __name__ == "__main__":
    run(maker)
