"""What happens on the Maker devnet: every situation the protocol knows, once on purpose and then at random."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from tests.devnet.send import Transaction, account, calldata

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.devnet.maker import Maker

WAD, RAY = 10**18, 10**27
HOUR, DAY = 3_600, 86_400
#: urns that appear after the crowd: two bitten, the stripped, the worthless, two at the edge, the queued, the undripped
LATE_ROLES = 8
NEW_ILK = "NEW-A"
#: share of the crowd that draws nothing
NO_DEBT = 0.08


def populate(market: Maker, seed: int, users: int) -> None:
    """The whole history: vaults of every kind, a crowd, months, drips of some ilks, bites, edges, a queued price."""
    rng = Random(f"{market.name} {seed}")
    raw_urns(market, rng)
    managed_vaults(market, rng)
    proxied_vaults(market, rng)
    moved_vaults(market, rng)
    crowd(market, rng, [account(f"user {i}") for i in range(max(0, users - len(market.users) - LATE_ROLES))])
    undripped(market, rng)
    for ilk in ("ETH-A", "USDC-A", "WBTC-A"):
        market.node.elapse(rng.randrange(5, 40) * DAY)
        market.drip(ilk)
    # a base rate, which mainnet has not had for long, so that nobody forgets to add it to the duty
    market.govern(market.addresses["jug"], "file(bytes32,uint256)", b"base".ljust(32, b"\0"), 10**17)
    market.node.elapse(rng.randrange(5, 40) * DAY)
    market.drip("ETH-A")
    liquidated(market, rng)
    market.move_price("WBTC", 0.9)
    market.move_price("ETH", 0.93)
    worthless(market, rng)
    edges(market, rng)
    queued(market, rng)


def about(rng: Random, low: int, high: int | None = None) -> int:
    """A wad of some whole units and an odd rest, so that no rounding goes unnoticed."""
    return rng.randrange(low, high or low + 1) * WAD + rng.randrange(WAD)


def raw_urns(market: Maker, rng: Random) -> None:
    """Urns of plain accounts: debt, none, repaid, two ilks, somebody else's collateral, few decimals, a fork."""
    debt = about(rng, 300, 900)
    market.roles["raw"] = market.open_raw("ETH-A", account("maker raw"), about(rng, 20), debt)
    market.roles["two ilks"] = market.open_raw("ETH-A", account("maker two ilks"), about(rng, 20), debt)
    market.roles["two ilks again"] = market.open_raw("WBTC-A", account("maker two ilks"), about(rng, 1) // 4, debt)
    market.roles["no debt"] = market.open_raw("ETH-B", account("maker no debt"), about(rng, 7), 0)
    market.roles["six decimals"] = market.open_raw("USDC-A", account("maker six decimals"), 2 * debt, debt)
    market.roles["eight decimals"] = market.open_raw(
        "WBTC-A", account("maker eight decimals"), about(rng, 1) // 3, debt
    )
    ilk, urn = market.roles["repaid"] = market.open_raw("ETH-B", account("maker repaid"), about(rng, 30), debt)
    position = market.position(ilk, urn)
    market.frob(ilk, urn, -position.ink, -position.art)
    friend, helped = account("maker friend"), account("maker helped")
    market.own_raw(helped)
    market.sender.send(market.addresses["vat"], "hope(address)", [friend], sender=helped)
    ink = market.join("ETH-A", friend, about(rng, 15))
    market.frob("ETH-A", helped, ink, market.debt("ETH-A", debt), sender=friend)
    market.roles["helped"] = ("ETH-A", helped)
    ilk, source = market.roles["forked"] = market.open_raw("ETH-C", account("maker forked"), about(rng, 40), 2 * debt)
    target = account("maker fork only")
    market.fork(ilk, source, target, about(rng, 15), market.position(ilk, source).art // 2)
    market.roles["fork only"] = (ilk, target)


def managed_vaults(market: Maker, rng: Random) -> None:
    """Vaults of the CdpManager: with debt, never used, drawn and partly repaid, given away."""
    debt = about(rng, 300, 900)
    market.roles["vault"] = market.fill_vault(market.open_vault("ETH-B", account("maker owner")), about(rng, 25), debt)
    market.roles["unused vault"] = market.vaults[market.open_vault("LINK-A", account("maker owner"))]
    cdp = market.open_vault("USDC-A", account("maker drawer"))
    ilk, urn = market.roles["drawn vault"] = market.fill_vault(cdp, 3 * debt, debt)
    market.adjust(cdp, -debt // 2 // 10**12 * 10**12, -market.position(ilk, urn).art // 3)
    cdp = market.open_vault("ETH-A", account("maker giver"))
    market.roles["given"] = market.fill_vault(cdp, about(rng, 25), debt)
    taker = account("maker taker")
    market.give(cdp, taker, taker, "cdp-manager")
    cdp = market.open_vault("ETH-A", account("maker giver"))
    market.roles["given to a proxy"] = market.fill_vault(cdp, about(rng, 25), debt)
    market.give(cdp, market.proxy(taker), taker, "cdp-manager+ds-proxy")


def proxied_vaults(market: Maker, rng: Random) -> None:
    """Vaults behind a DSProxy: drawn and repaid in DAI, sold with the proxy, turned into the proxy's own urn."""
    debt = about(rng, 300, 900)
    person = account("maker proxied")
    cdp = market.open_by_proxy("ETH-A", person, about(rng, 30), debt)
    market.roles["proxied"] = market.vaults[cdp]
    manager, jug, dai_join = market.addresses["cdp_manager"], market.addresses["jug"], market.contracts["MCD_JOIN_DAI"]
    proxy = market.proxy(person)
    function = "draw(address,address,address,uint256,uint256)"
    market.execute(proxy, person, function, [manager, jug, dai_join, cdp, 100 * WAD])
    market.sender.send(market.contracts["MCD_DAI"], "approve(address,uint256)", [proxy, 2**256 - 1], sender=person)
    market.execute(proxy, person, "wipe(address,address,uint256,uint256)", [manager, dai_join, cdp, 50 * WAD])
    join = market.ilks["ETH-A"].join
    market.execute(proxy, person, "freeETH(address,address,uint256,uint256)", [manager, join, cdp, WAD])
    market.note(market.vaults[cdp])

    seller, buyer = account("maker proxy seller"), account("maker proxy buyer")
    ilk, urn = market.roles["sold with its proxy"] = market.vaults[
        market.open_by_proxy("ETH-C", seller, about(rng, 30), debt)
    ]
    sold = market.proxy(seller)
    market.sender.send(sold, "setOwner(address)", [buyer], sender=seller)
    market.own(urn, sold, buyer, "cdp-manager+ds-proxy")

    person = account("maker proxy urn")
    cdp = market.open_by_proxy("ETH-A", person, about(rng, 30), debt)
    ilk, urn = market.roles["emptied by quit to a proxy"] = market.vaults[cdp]
    proxy = market.proxy(person)
    market.execute(proxy, person, "hope(address,address)", [market.addresses["vat"], manager])
    market.manage(cdp, "quit(uint256,address)", [cdp, proxy])
    market.own(proxy, proxy, person, "ds-proxy")
    market.note((ilk, proxy))
    market.roles["urn of a proxy"] = (ilk, proxy)


def moved_vaults(market: Maker, rng: Random) -> None:
    """Whole positions moved by the CdpManager: quit to a plain account, a raw urn entered, one vault shifted."""
    debt = about(rng, 300, 900)
    vat, manager = market.addresses["vat"], market.addresses["cdp_manager"]
    person = account("maker quitter")
    cdp = market.open_vault("ETH-A", person)
    market.roles["emptied by quit"] = market.fill_vault(cdp, about(rng, 25), debt)
    market.sender.send(vat, "hope(address)", [manager], sender=person)
    market.manage(cdp, "quit(uint256,address)", [cdp, person])
    market.own_raw(person)
    market.note(("ETH-A", person))
    market.roles["quit"] = ("ETH-A", person)

    person = account("maker enterer")
    market.roles["emptied by enter"] = market.open_raw("ETH-A", person, about(rng, 25), debt)
    cdp = market.open_vault("ETH-A", person)
    market.sender.send(vat, "hope(address)", [manager], sender=person)
    market.manage(cdp, "enter(address,uint256)", [person, cdp])
    market.note(("ETH-A", person))
    market.roles["entered"] = market.vaults[cdp]

    person = account("maker shifter")
    source, target = market.open_vault("ETH-B", person), market.open_vault("ETH-B", person)
    market.roles["emptied by shift"] = market.fill_vault(source, about(rng, 25), debt)
    market.manage(source, "shift(uint256,uint256)", [source, target])
    market.note(market.vaults[target])
    market.roles["shifted"] = market.vaults[target]


def crowd(market: Maker, rng: Random, people: Sequence[str]) -> None:
    """Many urns in a few big blocks: a third raw, a third in the CdpManager, a third behind proxies."""
    raw = [(who, rng.choice(("ETH-A", "ETH-B", "USDC-A", "WBTC-A"))) for who in people[0::3]]
    managed = [(who, rng.choice(("ETH-A", "ETH-B", "ETH-C"))) for who in people[1::3]]
    proxied = [(who, rng.choice(("ETH-A", "ETH-C"))) for who in people[2::3]]
    manager, registry = market.addresses["cdp_manager"], market.addresses["proxy_registry"]
    first = market.sender.call(manager, "cdpi()(uint256)") + 1
    send(
        market,
        [
            Transaction(who, manager, calldata("open(bytes32,address)", [market.ilks[ilk].key, who]))
            for who, ilk in managed
        ]
        + [Transaction(who, registry, calldata("build(address)", [who])) for who, _ in proxied],
    )
    # a full block may take the transactions of different senders in another order, so ask whose each number is
    numbers = range(first, first + len(managed))
    urns = market.sender.calls([(manager, "urns(uint256)(address)", [n]) for n in numbers])
    owners = market.sender.calls([(manager, "owns(uint256)(address)", [n]) for n in numbers])
    opened = {owner: (n, urn) for n, urn, owner in zip(numbers, urns, owners, strict=True)}
    proxies = market.sender.calls([(registry, "proxies(address)(address)", [who]) for who, _ in proxied])
    loans = {ilk: loan_terms(market, ilk) for ilk in ("ETH-A", "ETH-B", "ETH-C", "USDC-A", "WBTC-A")}
    joins: list[Transaction] = []
    draws: list[Transaction] = []
    pairs: list[tuple[str, str]] = []
    for who, ilk in raw:
        ink, art = loan(rng, *loans[ilk])
        joins.append(joining(market, ilk, who, ink))
        function = "frob(bytes32,address,address,address,int256,int256)"
        args = [market.ilks[ilk].key, who, who, who, ink, art]
        draws.append(Transaction(who, market.addresses["vat"], calldata(function, args)))
        pairs.append((ilk, market.own_raw(who)))
    for who, ilk in managed:
        ink, art = loan(rng, *loans[ilk])
        number, urn = opened[who]
        joins.append(joining(market, ilk, urn, ink))
        draws.append(Transaction(who, manager, calldata("frob(uint256,int256,int256)", [number, ink, art])))
        pairs.append((ilk, market.own(urn, who, who, "cdp-manager")))
        market.vaults[number] = pairs[-1]
    for proxy, (who, ilk) in zip(proxies, proxied, strict=True):
        ink, art = loan(rng, *loans[ilk])
        # the action drips, so a little less than the limit; it cannot draw nothing
        dai = (art or loans[ilk][2] * 3 // 2) * loans[ilk][1] // RAY * 99 // 100
        opening = calldata(*market.opening(ilk, dai))
        args = [market.contracts["PROXY_ACTIONS"], bytes.fromhex(opening[2:])]
        draws.append(Transaction(who, proxy, calldata("execute(address,bytes)", args), ink))
    send(market, joins)
    send(market, draws)
    market.note(*pairs)
    adopt_all(
        market, {proxy.lower(): who for proxy, (who, _) in zip(proxies, proxied, strict=True)}, first + len(managed)
    )


def send(market: Maker, transactions: Sequence[Transaction]) -> None:
    if not all(market.sender.bulk(transactions)):
        raise RuntimeError("a transaction of the crowd failed")


def adopt_all(market: Maker, people: dict[str, str], first: int) -> None:
    """Write down the vaults that the crowd's proxies opened, from number `first` on."""
    manager = market.addresses["cdp_manager"]
    numbers = range(first, market.sender.call(manager, "cdpi()(uint256)") + 1)
    urns = market.sender.calls([(manager, "urns(uint256)(address)", [n]) for n in numbers])
    owners = market.sender.calls([(manager, "owns(uint256)(address)", [n]) for n in numbers])
    ilks = market.sender.calls([(manager, "ilks(uint256)(bytes32)", [n]) for n in numbers])
    for number, urn, owner, ilk in zip(numbers, urns, owners, ilks, strict=True):
        market.own(urn, owner, people[owner.lower()], "cdp-manager+ds-proxy")
        market.vaults[number] = (ilk.rstrip(b"\0").decode(), urn.lower())
    market.note(*(market.vaults[number] for number in numbers))


def loan_terms(market: Maker, ilk: str) -> tuple[int, int, int, int]:
    """Spot, rate, the least art that dust allows, and the gem's unit in wad."""
    terms = market.terms(ilk)
    return terms.spot, terms.rate, terms.dust // terms.rate + 1, 10 ** (18 - market.ilks[ilk].decimals)


def loan(rng: Random, spot: int, rate: int, least: int, unit: int) -> tuple[int, int]:
    """A random loan as (ink, art) in wad: none, or some share of what the collateral allows."""
    art = rng.randrange(2 * least, 8 * least)
    ink = (art * rate // spot * rng.randrange(1_005, 2_500) // 1_000 // unit + 1) * unit
    return ink, art if rng.random() > NO_DEBT else 0


def joining(market: Maker, ilk: str, urn: str, ink: int) -> Transaction:
    amount = ink // 10 ** (18 - market.ilks[ilk].decimals)
    return Transaction(market.whale, market.ilks[ilk].join, calldata("join(address,uint256)", [urn, amount]))


def at_limit(market: Maker, ilk: str, urn: str, ink: int) -> tuple[str, str]:
    """A raw urn that draws all its collateral allows, to the last unit of `art`."""
    market.own_raw(urn)
    ink = market.join(ilk, urn, ink)
    terms = market.terms(ilk)
    market.frob(ilk, urn, ink, ink * terms.spot // terms.rate)
    return ilk, urn


def undripped(market: Maker, rng: Random) -> None:
    """Safe at the stored rate; the interest of months that nobody dripped makes it unsafe."""
    market.roles["unsafe once dripped"] = at_limit(market, "KNC-A", account("maker undripped"), about(rng, 1_000))


def liquidated(market: Maker, rng: Random) -> None:
    """LINK falls: one urn is bitten whole, one in part, one loses only its collateral (a grab that no auction does)."""
    debt = about(rng, 300, 450)
    whole = market.open_raw("LINK-A", account("maker bitten"), debt // 5 + 10 * WAD, debt)
    part = market.open_raw("LINK-A", account("maker bitten in part"), 4 * debt // 5 + 10 * WAD, 4 * debt)
    market.roles.update({"bitten": whole, "bitten in part": part})
    stripped = market.roles["stripped"] = market.open_raw("LINK-A", account("maker stripped"), debt // 2, debt)
    price = market.price("LINK")
    market.set_price("LINK", price * 6 // 10)
    market.bite(*whole)
    market.bite(*part)
    ilk, urn = stripped
    vow, ink = market.contracts["MCD_VOW"], market.position(ilk, urn).ink
    function = "grab(bytes32,address,address,address,int256,int256)"
    market.govern(market.addresses["vat"], function, market.ilks[ilk].key, urn, vow, vow, -ink, 0)
    market.note(stripped)


def worthless(market: Maker, rng: Random) -> None:
    """A feed becomes invalid and the next poke sets the spot to 0: nothing can be said of the vaults, or liquidated."""
    debt = about(rng, 300, 900)
    market.roles["without a price"] = market.open_raw("BAT-A", account("maker without a price"), debt, debt)
    market.void("BAT")
    market.poke("BAT-A")


def edges(market: Maker, rng: Random) -> None:
    """The price falls by its last digit under one urn at the limit; another then goes to the new limit."""
    market.roles["just unsafe"] = at_limit(market, "UNI-A", account("maker just unsafe"), about(rng, 1_000))
    market.set_price("UNI", market.price("UNI") - 1)
    market.roles["just safe"] = at_limit(market, "UNI-A", account("maker just safe"), about(rng, 1_000))


def queued(market: Maker, rng: Random) -> None:
    """A price waits in the OSM that makes a safe vault unsafe at the next poke."""
    terms = market.terms("ETH-A")
    ink = about(rng, 10, 30)
    debt = ink * terms.spot // RAY * 95 // 100
    market.roles["unsafe at the next price"] = market.open_raw("ETH-A", account("maker queued"), ink, debt)
    market.queue_price("ETH", market.price("ETH") * 85 // 100)


def step(market: Maker, seed: int) -> None:
    """Up to 40 urns change, three appear, some ilks drip, prices move, days pass; everyone else does nothing."""
    rng = Random(f"{market.name} step {seed} {market.steps}")
    if NEW_ILK not in market.ilks:
        new_ilk(market)
    market.node.elapse(rng.randrange(HOUR, 10 * DAY))
    for ilk in rng.sample(["ETH-A", "ETH-B", "ETH-C", "USDC-A", "WBTC-A"], 2):
        market.drip(ilk)
    for symbol in rng.sample(["ETH", "WBTC", "LINK", "UNI"], 2):
        market.move_price(symbol, rng.uniform(0.9, 1.1))
    debt = about(rng, 150, 400)
    label = f"newcomer {seed} {market.steps}"
    market.open_raw("ETH-B", account(f"{label} raw"), debt // 20, debt)
    cdp = market.open_vault("ETH-C", account(f"{label} vault"))
    market.fill_vault(cdp, debt // 20, debt)
    market.open_by_proxy("ETH-A", account(f"{label} proxied"), debt // 20, debt)
    if rng.random() < 0.7:
        taker = account(f"{label} taker")
        market.give(cdp, taker, taker, "cdp-manager")
    numbers = {pair: number for number, pair in market.vaults.items()}
    for pair in rng.sample(sorted(market.positions), min(len(market.positions) // 4, 40)):
        change_at_random(market, rng, pair, numbers.get(pair))
    watched = rng.sample(sorted(market.positions), min(len(market.positions), 60))
    # the new ilk has no auction house, and without collateral there is nothing to auction
    bitable = [
        pair
        for pair, answer in zip(watched, market.answers(watched), strict=True)
        if answer.unsafe and answer.ink and answer.ilk != NEW_ILK
    ]
    for pair in bitable[: rng.randrange(1, 3)]:
        market.bite(*pair)


def new_ilk(market: Maker) -> None:
    """Governance lists a collateral type; somebody uses it at once."""
    ilk = market.add_ilk(NEW_ILK, 12 * WAD)
    who = account("maker new ilk")
    market.sender.send(ilk.gem, "approve(address,uint256)", [ilk.join, 2**256 - 1], sender=market.whale)
    market.roles["new ilk"] = market.open_raw(NEW_ILK, who, 100 * WAD, 400 * WAD)


def change_at_random(market: Maker, rng: Random, pair: tuple[str, str], cdp: int | None) -> None:
    """Lock, free, draw or wipe a random part of one position; what is not allowed reverts."""
    ilk, urn = pair
    if cdp is None and market.owners[urn].via != "self":
        return  # the proxy's own urn has no action for this
    position = market.position(ilk, urn)
    unit = 10 ** (18 - market.ilks[ilk].decimals)
    share = rng.randrange(1, 40)
    dink = dart = 0
    match rng.choice(("lock", "free", "draw", "wipe")):
        case "lock":
            dink = market.join(ilk, urn, (position.ink * share // 100 + WAD) // unit * unit)
        case "free":
            dink = -position.ink * share // 100
        case "draw":
            dart = position.art * share // 100 + WAD
        case "wipe":
            dart = -position.art * share // 100
    if cdp is None:
        market.frob(ilk, urn, dink, dart, check=False)
    else:
        market.adjust(cdp, dink, dart, check=False)
