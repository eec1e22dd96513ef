"""Who owns an urn: found through CdpManager, other managers and DSProxies."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from indexer.abi import abi
from indexer.adapter import Reader, answered, required
from indexer.model import Failed, PositionKey, Read
from protocols.common import ZERO_ADDRESS, together
from protocols.maker.market import VAT_ILKS, MakerMarket
from protocols.maker.math import ilk_bytes, ilk_name

CDP_MANAGER = abi("maker_cdp_manager")
DS_PROXY = abi("ds_proxy")
PROXY_REGISTRY = abi("maker_proxy_registry")
LOCKSTAKE = abi("maker_lockstake_engine")

OWNER = DS_PROXY.function("owner")
#: DSProxies asked for their owners at each snapshot, as many as two requests carry
PROXIES_ASKED = 2_000

#: how many vaults are asked for their ilks where no IlkRegistry lists the ilks
NEWEST_VAULTS = 400
#: ilks of people's vaults on mainnet (chainlog, MCD_JOIN_*), which the Vat is asked about
MAINNET_ILKS = (
    "AAVE-A BAL-A BAT-A COMP-A CRVV1ETHSTETH-A DGD-A ETH-A ETH-B ETH-C GNO-A GNT-A GUNIV3DAIUSDC1-A GUNIV3DAIUSDC2-A "
    "GUSD-A KNC-A LINK-A LRC-A MANA-A MATIC-A OMG-A PAXUSD-A RENBTC-A REP-A RETH-A TUSD-A UNI-A UNIV2AAVEETH-A "
    "UNIV2DAIETH-A UNIV2DAIUSDC-A UNIV2DAIUSDT-A UNIV2ETHUSDT-A UNIV2LINKETH-A UNIV2UNIETH-A UNIV2USDCETH-A "
    "UNIV2WBTCDAI-A UNIV2WBTCETH-A USDC-A USDC-B USDT-A WBTC-A WBTC-B WBTC-C WSTETH-A WSTETH-B YFI-A ZRX-A"
).split()


class Owner(NamedTuple):
    """`address` controls the urn, as found `via`; `wallet` is the account behind it."""

    address: str
    via: str
    wallet: str


def read_owners(read: Reader, market: MakerMarket, keys: Sequence[PositionKey]) -> list[Owner]:
    """CdpManager's owns(cdp), the Lockstake engine's urnOwners(urn), else the urn itself; for a DSProxy, also its owner."""
    return owners_behind(read, market, keys, read(owner_reads(market, keys)))


def owner_reads(market: MakerMarket, keys: Sequence[PositionKey]) -> list[Read]:
    """What `owners_behind` needs the answers to."""
    numbers, lockstake = market.registry.numbers, market.contracts.get("lockstake")
    manager = market.contracts["cdp_manager"]
    managed = [Read(manager, CDP_MANAGER.function("owns"), (numbers[key],)) for key in keys if key in numbers]
    raw = [key for key in keys if key not in numbers] if lockstake is not None else []
    return managed + [Read(lockstake, LOCKSTAKE.function("urnOwners"), (key.account,)) for key in raw if lockstake]


def owners_behind(
    read: Reader, market: MakerMarket, keys: Sequence[PositionKey], answers: Sequence[Any]
) -> list[Owner]:
    """The owners of the urns, of which `owner_reads` gave these answers."""
    numbers = market.registry.numbers
    managed = [key for key in keys if key in numbers]
    raw = [key for key in keys if key not in numbers]
    owns = answered(list(answers[: len(managed)]))
    found = {key: (owner, "cdp-manager") for key, owner in zip(managed, owns, strict=True)}
    for key, owner in zip(raw, answers[len(managed) :], strict=False):  # none of them without a Lockstake engine
        if not isinstance(owner, Failed) and owner != ZERO_ADDRESS:
            found[key] = (owner, "lockstake")
    controllers = [found.get(key, (key.account, "self")) for key in keys]
    wallets = read_proxies(read, market, {owner for owner, _ in controllers})
    return [
        Owner(owner, f"{via}+ds-proxy".removeprefix("self+") if owner in wallets else via, wallets.get(owner, owner))
        for owner, via in controllers
    ]


def read_proxies(read: Reader, market: MakerMarket, accounts: Iterable[str]) -> dict[str, str]:
    """The owners of those accounts that are DSProxies.

    A DSProxy answers owner() and cache() (ds-proxy); a contract without a cache must be in the ProxyRegistry. The registry
    alone is not enough: it forgets a proxy that was given away.
    """
    order = sorted(accounts)
    owners, caches = together(
        read,
        [Read(account, OWNER, mutates=True) for account in order],
        [Read(account, DS_PROXY.function("cache"), mutates=True) for account in order],
    )
    owned = {a: o for a, o in zip(order, owners, strict=True) if not isinstance(o, Failed) and o != ZERO_ADDRESS}
    proxies = {
        a
        for a, cache in zip(order, caches, strict=True)
        if a in owned and not isinstance(cache, Failed) and cache != ZERO_ADDRESS
    }
    registry = market.contracts.get("proxy_registry")
    if registry is not None:
        rest = [account for account in owned if account not in proxies]
        listed = read([Read(registry, PROXY_REGISTRY.function("proxies"), (owned[account],)) for account in rest])
        proxies.update(account for account, proxy in zip(rest, listed, strict=True) if proxy == account)
    return {account: owner for account, owner in owned.items() if account in proxies}


def newest_wallets(
    read: Reader, market: MakerMarket, seen: Iterable[tuple[str, int, str]]
) -> tuple[dict[str, tuple[int, str]], str]:
    """`wallets` and `asked` of the next market, from (proxy, block, owner) as read with the positions.

    Only the proxy itself logs setOwner, so proxies are asked in turn, as many at each snapshot as fit into one request. The
    newest answer counts, and is kept while it differs from a position. A proxy that is gone is its own wallet.
    """
    seen_owners: dict[str, set[str]] = {}
    newest: dict[str, tuple[int, str]] = {}
    for proxy, block, owner in seen:
        seen_owners.setdefault(proxy, set()).add(owner)
        newest[proxy] = max(newest.get(proxy) or market.wallets.get(proxy, (block, owner)), (block, owner))
    due = sorted(proxy for proxy, (block, _) in newest.items() if block < market.block.number)
    start = bisect_right(due, market.asked) if len(due) > PROXIES_ASKED else 0
    asked = (due[start:] + due[:start])[:PROXIES_ASKED]
    for proxy, owner in zip(asked, read([Read(proxy, OWNER, mutates=True) for proxy in asked]), strict=True):
        alive = not isinstance(owner, Failed) and owner != ZERO_ADDRESS
        newest[proxy] = (market.block.number, owner if alive else proxy)
    wallets = {proxy: entry for proxy, entry in newest.items() if seen_owners[proxy] != {entry[1]}}
    return wallets, asked[-1] if asked else market.asked


def read_cdps(read: Reader, manager: str, cdps: Iterable[int]) -> list[PositionKey]:
    """The urns and ilks of these numbers in CdpManager, in their order."""
    order = list(cdps)
    urns = required(read, [Read(manager, CDP_MANAGER.function("urns"), (cdp,)) for cdp in order])
    ilks = required(read, [Read(manager, CDP_MANAGER.function("ilks"), (cdp,)) for cdp in order])
    return [PositionKey(urn, ilk_name(ilk)) for urn, ilk in zip(urns, ilks, strict=True)]


def unlisted_ilks(read: Reader, market: MakerMarket) -> list[str]:
    """The Vat's ilks where no IlkRegistry lists them: those of the newest vaults, and mainnet's by their names.

    Reading a raw urn takes its ilk, and without logs nothing else names the ilks.
    """
    if "ilk_registry" in market.contracts:
        return []
    manager = market.contracts["cdp_manager"]
    (last,) = required(read, [Read(manager, CDP_MANAGER.function("cdpi"))])
    newest = range(max(last - NEWEST_VAULTS, 0) + 1, last + 1)
    ilks = required(read, [Read(manager, CDP_MANAGER.function("ilks"), (cdp,)) for cdp in newest])
    names = sorted({*MAINNET_ILKS, *map(ilk_name, ilks)} - market.ilks.keys())
    states = required(read, [Read(market.contracts["vat"], VAT_ILKS, (ilk_bytes(name),)) for name in names])
    return [name for name, (_, rate, *_) in zip(names, states, strict=True) if rate]


def cdps_of(read: Reader, market: MakerMarket, wallets: Sequence[str]) -> tuple[list[str], list[int]]:
    """The wallets and their DSProxies, and the numbers of all their vaults by CdpManager's linked lists."""
    holders = list(wallets)
    registry, manager = market.contracts.get("proxy_registry"), market.contracts["cdp_manager"]
    if registry is not None:
        found = read([Read(registry, PROXY_REGISTRY.function("proxies"), (wallet,)) for wallet in wallets])
        holders += [proxy for proxy in found if not isinstance(proxy, Failed) and proxy != ZERO_ADDRESS]
    holders = list(dict.fromkeys(holders))
    cdps: list[int] = []
    heads = required(read, [Read(manager, CDP_MANAGER.function("first"), (holder,)) for holder in holders])
    while heads := [cdp for cdp in heads if cdp]:
        cdps += heads
        links = required(read, [Read(manager, CDP_MANAGER.function("list"), (cdp,)) for cdp in heads])
        heads = [following for _, following in links]
    return holders, cdps
