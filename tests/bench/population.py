"""A large database without a node: made-up positions of all five protocols, as their adapters store and evaluate them.

`python -m tests.bench.population FILE.db FILE.toml COUNT [--near 0.01]`. Who has debt owes so much that a share `near` of
them is below a health factor of 1.25 (0.3 % at risk or liquidatable where it is 0.01), the rest spread up to 5; three
wallets in ten have repaid; one in five wallets holds positions in a second deployment.
"""

import argparse
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from indexer.adapter import AnyAdapter
from indexer.model import Asset, Deployment, Market, Position, PositionKey
from indexer.risk.evaluate import balance_rows, row, status
from indexer.snapshot.spool import Spool
from indexer.store.books import dump_market, dump_position
from indexer.store.rows import BALANCE_COLUMNS, POSITION_COLUMNS, Snapshot
from indexer.store.store import Store
from protocols.aave_v2.adapter import AaveV2
from protocols.aave_v2.position import AaveV2Position
from protocols.aave_v3.adapter import AaveV3
from protocols.aave_v3.position import AaveV3Position
from protocols.compound_v2.position import CompoundV2Position
from protocols.compound_v3.position import CompoundV3Position
from protocols.maker.adapter import Maker
from protocols.maker.market import with_assets
from protocols.maker.position import Urn
from tests.bench import aave_v2, aave_v3, compound, maker
from tests.bench.rates import address

CHAIN_ID = 1337
#: rows that are made and written at a time
CHUNK = 5_000
REPAID = 0.3
#: the first of them stablecoins, as other names would all fall in price together
SYMBOLS = ("USDC", "USDT", "DAI", "WETH", "wstETH", "WBTC")
STABLE = 3
#: a position with one unit of debt in each asset it owes, and what makes the same with another debt
Made = tuple[Position, Callable[[float], Position]]


def wallet(n: int) -> str:
    """An address that differs from its neighbours' in the first digits, as hashes do."""
    return f"0x{n * 0x9E3779B97F4A7C15 % 2**64:016x}{n:024x}"


def aave(market: Any) -> Any:
    """The market with SYMBOLS for its first reserves, of which the stablecoins are worth one dollar."""
    unit = market.usd[1]
    named = [
        replace(r, symbol=symbol, price=unit if n < STABLE else r.price)
        for n, (r, symbol) in enumerate(zip(market.reserves, SYMBOLS, strict=False))
    ]
    return replace(market, reserves=(*named, *market.reserves[len(SYMBOLS) :])).with_assets()


def compound_v2_market(market: Any) -> Any:
    """The same of a Compound V2, with its rows of `assets`."""
    tokens = list(market.c_tokens.values())
    for n, symbol in enumerate(SYMBOLS):
        tokens[n] = replace(tokens[n], symbol=symbol, price=10**18 if n < STABLE else tokens[n].price)
    assets = tuple(
        Asset(asset=t.underlying, market=t.address, symbol=t.symbol, decimals=18, price=t.price) for t in tokens
    )
    return replace(market, c_tokens={t.address: t for t in tokens}, assets=assets, usd=(1, 10**18))


def comet_market(market: Any) -> Any:
    """A Comet of USDC, with its rows of `assets`."""
    usdc = Asset(asset=market.base, market=market.comet, symbol="USDC", decimals=6, price=market.base_price)
    symbols = [*SYMBOLS[STABLE:], *(f"C{n}" for n in range(len(market.collaterals)))]
    rows = [
        Asset(asset=c.asset, market=market.comet, symbol=symbol, decimals=18, price=c.price)
        for c, symbol in zip(market.collaterals, symbols, strict=False)
    ]
    return replace(market, assets=(usdc, *rows), usd=(1, 10**8))


def debts(rows: Sequence[Any], rng: random.Random) -> list[Any]:
    """One debt or two, seven in ten of a stablecoin."""
    stable = rows[:STABLE]
    return list(
        {
            r.symbol: r
            for r in (rng.choice(stable if rng.random() < 0.7 else rows) for _ in range(rng.choice((1, 1, 2))))
        }.values()
    )


def aave_v3_position(market: Any, key: PositionKey, usd: float, rng: random.Random) -> Made:
    supplied = rng.sample(market.reserves, rng.choice((1, 1, 2, 3)))
    borrowed = debts(market.reserves, rng)
    unit = {r.variable_debt_token: 10**r.decimals * 10**8 // r.price + 1 for r in borrowed}
    position = AaveV3Position(
        key=key,
        block_number=1,
        configuration=sum(r.collateral_flag for r in supplied[:2]) | sum(r.borrowing_flag for r in borrowed),
        mode=0,
        supplied={r.a_token: int(usd * 10**8) * 10**r.decimals // r.price + 1 for r in supplied},
        borrowed=unit,
        stable={},
        discounts={},
        amounts={},
    )
    return position, lambda times: replace(position, borrowed={t: int(u * times) + 1 for t, u in unit.items()})


def aave_v2_position(market: Any, key: PositionKey, usd: float, rng: random.Random) -> Made:
    supplied = rng.sample(market.reserves, rng.choice((1, 1, 2, 3)))
    borrowed = debts(market.reserves, rng)
    scale = market.usd[1]
    unit = {r.variable_debt_token: 10**r.decimals * scale // r.price + 1 for r in borrowed}
    position = AaveV2Position(
        key=key,
        block_number=1,
        configuration=sum(r.collateral_flag for r in supplied) | sum(r.borrowing_flag for r in borrowed),
        supplied={r.a_token: int(usd * scale) * 10**r.decimals // r.price + 1 for r in supplied},
        borrowed=unit,
        stable={},
        offsets={},
    )
    return position, lambda times: replace(position, borrowed={t: int(u * times) + 1 for t, u in unit.items()})


def compound_v2_position(market: Any, key: PositionKey, usd: float, rng: random.Random) -> Made:
    tokens = list(market.c_tokens.values())
    entered = rng.sample(tokens, rng.randint(1, 4))
    owed = debts(tokens, rng)
    unit = {t.address: 10**36 // t.price + 1 for t in owed}
    index = {t.address: t.borrow_index for t in owed}
    position = CompoundV2Position(
        key=key,
        block_number=1,
        entered=tuple(dict.fromkeys(t.address for t in (*entered, *owed))),
        c_tokens={t.address: int(usd * 10**36) // t.price * 10**18 // t.exchange_rate + 1 for t in entered},
        borrows={t: (u, index[t]) for t, u in unit.items()},
    )
    return position, lambda times: replace(
        position, borrows={t: (int(u * times) + 1, index[t]) for t, u in unit.items()}
    )


def compound_v3_position(market: Any, key: PositionKey, usd: float, rng: random.Random) -> Made:
    held = sorted(rng.sample(market.collaterals, rng.randint(1, 3)), key=lambda c: c.offset)
    position = CompoundV3Position(
        key=key,
        block_number=1,
        principal=-market.base_scale,
        collateral={c.asset: int(usd * 10**8) * c.scale // c.price + 1 for c in held},
    )
    return position, lambda times: replace(position, principal=-int(market.base_scale * times) - 1)


def maker_position(market: Any, key: PositionKey, usd: float, rng: random.Random) -> Made:
    name = rng.choice(list(market.ilks))
    ilk = market.ilks[name]
    position = Urn(
        key=PositionKey(key.account, name),
        block_number=1,
        ink=int(usd * 10**18) * 10**27 // ilk.spot + 1,
        art=10**18,
        cdp=1,
        owner=key.account,
        owner_via="cdp-manager",
        wallet=key.account,
    )
    return position, lambda times: replace(position, art=int(10**18 * times) + 1)


def deployments() -> list[tuple[AnyAdapter, Market, Callable[..., Made], float]]:
    """Adapter, market, what makes a position, and the share of all positions."""
    pool = {"pool_addresses_provider": address(10)}
    first, second = (
        AaveV3(Deployment(name, "aave-v3", "bench", 0, pool)) for name in ("aave-v3-core", "aave-v3-prime")
    )
    old = AaveV2(Deployment("aave-v2-main", "aave-v2", "bench", 0, {"lending_pool_addresses_provider": address(11)}))
    vat = Maker(Deployment("maker-core", "maker", "bench", 0, maker.CONTRACTS))
    comptroller, v2, _ = compound.compound_v2(0)
    comet, v3, _ = compound.compound_v3(0)
    comptroller = type(comptroller)(
        Deployment("compound-v2-core", "compound-v2", "bench", 0, comptroller.deployment.addresses)
    )
    comet = type(comet)(Deployment("compound-v3-usdc", "compound-v3", "bench", 0, comet.deployment.addresses))
    return [
        (first, aave(aave_v3.market("3.6")), aave_v3_position, 0.5),
        (second, aave(aave_v3.market("3.4")), aave_v3_position, 0.15),
        (old, aave(aave_v2.market()), aave_v2_position, 0.1),
        (comptroller, compound_v2_market(v2), compound_v2_position, 0.08),
        (comet, comet_market(v3), compound_v3_position, 0.07),
        (vat, with_assets(maker.market()), maker_position, 0.1),
    ]


def health_factor(near: float, rng: random.Random) -> float:
    """A share `near` below 1.25, three in ten of those at risk; the others up to 5, most of them below 2."""
    if rng.random() < near:
        return rng.uniform(0.99, 1.1) if rng.random() < 0.3 else rng.uniform(1.1, 1.25)
    return 1.05 / rng.uniform(0.21, 0.835)


def positions(
    adapter: AnyAdapter, market: Market, make: Callable[..., Made], wallets: Iterable[int], near: float, seed: int
) -> Iterator[Position]:
    """One position for each wallet, with the health factor that it shall have or, of the repaid ones, no debt."""
    rng = random.Random(seed)
    for n in wallets:
        position, owing = make(market, PositionKey(wallet(n)), 10 ** min(rng.gauss(3.7, 1.1), 8), rng)
        if rng.random() < REPAID:
            yield without_debt(position)
            continue
        health = adapter.evaluate(market, position)
        limit, debt = health.liquidation_limit or 0, health.debt_value or 1
        yield owing(limit / debt / health_factor(near, rng))


def without_debt(position: Any) -> Position:
    """The same after the debt was repaid."""
    match position:
        case Urn():
            return replace(position, art=0)
        case CompoundV3Position():
            return replace(position, principal=0)
        case CompoundV2Position():
            return replace(position, borrows={})
        case _:
            flags = sum(1 << bit for bit in range(1, 256, 2))  # the collateral bits alone
            return replace(position, borrowed={}, configuration=position.configuration & flags)


def insert(table: str, columns: Sequence[str]) -> str:
    return f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"


def fill(store: Store, adapter: AnyAdapter, market: Market, found: Iterator[Position]) -> None:
    """Write all that a snapshot of these positions leaves behind but the history."""
    name = adapter.deployment.name
    store.register(CHAIN_ID, name, adapter.protocol, "borrowers")
    snapshot = Snapshot(
        chain_id=CHAIN_ID, deployment=name, protocol=adapter.protocol, accounts="borrowers", state="ok", market=market,
        market_json=dump_market(market), parts=Spool(),
    )  # fmt: skip
    store.commit([snapshot], market.block, CHAIN_ID, 128)
    key = ("chain_id", "deployment", "account", "position_group")
    conn, where = store.conn, (CHAIN_ID, name)
    while chunk := list(islice(found, CHUNK)):
        with store.transaction():
            rows, balances = [], []
            for position in chunk:
                health = adapter.evaluate(market, position)
                rows.append(row(CHAIN_ID, adapter, market, health, status(health, verified=True)))
                balances += balance_rows(CHAIN_ID, adapter, market, [position])
            conn.executemany(insert("positions", POSITION_COLUMNS), rows)
            conn.executemany(insert("balances", BALANCE_COLUMNS), balances)
            conn.executemany(
                insert("states", (*key, "block_number", "state")),
                [(*where, p.key.account, p.key.group, 1, dump_position(p)) for p in chunk],
            )
            conn.executemany(
                insert("events", (*key, "first_block", "last_block")),
                [(*where, p.key.account, p.key.group, 1, 1) for p in chunk],
            )


def populate(database: Path, config: Path, count: int, near: float = 0.01) -> None:
    """Write a database of about `count` positions and the configuration that its commands need."""
    lines = ["[chains.bench]", f"chain_id = {CHAIN_ID}", 'rpc = ["http://127.0.0.1:1"]']
    with Store(database) as store:
        store.conn.execute("pragma synchronous = off")
        first = 0
        for seed, (adapter, market, make, share) in enumerate(deployments()):
            own = int(count * share)
            # one in five is a wallet of the deployment before
            begin = max(first - own // 5, 0)
            numbers = sorted(range(begin, begin + own), key=wallet)  # in the order of the key, which is the file's
            first = begin + own
            fill(store, adapter, market, positions(adapter, market, make, numbers, near, seed))
            of = adapter.deployment
            lines += [
                "",
                f"[deployments.{of.name}]",
                f'protocol = "{of.protocol}"',
                'chain = "bench"',
                "start_block = 0",
            ]
            lines.append("addresses = { " + ", ".join(f'{k} = "{v}"' for k, v in of.addresses.items()) + " }")
        store.conn.execute("analyze")
    config.write_text("\n".join(lines) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("count", type=int)
    parser.add_argument("--near", type=float, default=0.01, help="share of the debtors below 1.25")
    given = parser.parse_args()
    populate(given.database, given.config, given.count, given.near)


if __name__ == "__main__":
    main()
