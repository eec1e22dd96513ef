"""Maker and Sky (dss): vaults of the Vat, in CdpManager or not, with owners found through DSProxy.

A position is an urn: account = the urn's address, group = its ilk ("ETH-A"). `ink` is locked collateral, `art`
normalised debt (both wad), `rate` and `spot` rays of the ilk; their products are rads, 1e45 = 1 DAI.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from indexer.abi import abi
from indexer.adapter import (
    ONE,
    Liquidated,
    Liquidation,
    LiquidationLogs,
    PriceSource,
    PriceSources,
    Reader,
    Registry,
    answered,
    required,
)
from indexer.model import (
    RAY,
    WAD,
    Accounts,
    Answer,
    Asset,
    Balance,
    Check,
    Effect,
    Event,
    Health,
    LiquidationCall,
    Logs,
    LogSource,
    PositionKey,
    Price,
    Read,
)
from protocols.common import ZERO_ADDRESS, quantity, sources, together
from protocols.maker import liquidation
from protocols.maker.bounds import MakerBounds
from protocols.maker.joins import with_joins
from protocols.maker.market import (
    SPOTTER_ILKS,
    VAT_ILKS,
    MakerMarket,
    after,
    interest_stored,
    read_shared,
    with_ilks,
    with_prices,
    with_thresholds,
)
from protocols.maker.math import ilk_bytes, ilk_name
from protocols.maker.owners import (
    cdps_of,
    newest_wallets,
    owner_reads,
    owners_behind,
    read_cdps,
    read_owners,
    unlisted_ilks,
)
from protocols.maker.position import Urn, balances, dai_amount, evaluate, gem_amount

VAT = abi("maker_vat")
JUG = abi("maker_jug")
CDP_MANAGER = abi("maker_cdp_manager")
DOG = abi("maker_dog")
CAT = abi("maker_cat")

# Anonymous LogNotes carry the called function's selector, left-aligned, where other logs have their topic0.
# The Vat's: [selector, arg1, arg2, arg3]; all of these begin with (bytes32 ilk, address urn).
FROB = VAT.note("frob")
FORK = VAT.note("fork")  # its third argument is the urn it moves to
GRAB = VAT.note("grab")
RELY = VAT.note("rely")  # rely(address ward)
HOPE = VAT.note("hope")  # hope(address usr)
# CdpManager's: [selector, caller, arg1, arg2]
GIVE = CDP_MANAGER.note("give")  # give(uint256 cdp, address dst)

#: whoever starts an auction -> the event that tells of it: topics 1 and 2 are ilk and urn, data words 0 and 2 ink and rad
AUCTIONS = {"dog": DOG.event("Bark"), "cat": CAT.event("Bite")}

URNS = VAT.function("urns")  # ink, art


class Maker(
    Registry[MakerMarket, Urn],
    Liquidation[MakerMarket, Urn],
    LiquidationLogs[MakerMarket, Urn],
    PriceSources[MakerMarket, Urn],
    MakerBounds,
):
    """The vaults of one Vat.

    Ilks are those of the IlkRegistry, of every known urn and of the last snapshot. Their tokens are found through the
    IlkRegistry; `chainlog` leads to it and to DAI (both can also be configured directly). Tokens that it does not list are
    found through the joins that the Vat's logs name (`joins`).
    """

    protocol = "maker"
    market_type = MakerMarket
    position_type = Urn
    required_addresses = ("vat", "spotter", "jug", "cdp_manager")
    group_pattern = r"[ -~]{1,32}|0x[0-9a-f]{64}"  # an ilk, as `ilk_name` writes it
    optional_addresses = ("proxy_registry", "dog", "cat", "chainlog", "ilk_registry", "dai")

    @property
    def vat(self) -> str:
        return self.deployment.addresses["vat"].lower()

    @property
    def manager(self) -> str:
        return self.deployment.addresses["cdp_manager"].lower()

    # market ---------------------------------------------------------------------------------------------------------

    def read_market(self, read: Reader, previous: MakerMarket | None) -> MakerMarket:
        market, listed = read_shared(read, self.deployment)
        if previous is not None:
            if market.dai == self.vat:  # until the joins are known, which is behind the logs
                market = replace(market, dai=previous.dai)
            market = replace(market, wallets=previous.wallets, asked=previous.asked, joins=previous.joins)
            listed += previous.ilks
        return with_ilks(read, market, listed)

    def with_keys(self, read: Reader, market: MakerMarket, keys: Iterable[PositionKey]) -> MakerMarket:
        return with_ilks(read, with_joins(read, market), {key.group for key in keys})

    def fit(self, read: Reader, market: MakerMarket, positions: Sequence[Urn]) -> MakerMarket:
        """Finds DSProxies with a new owner; if there are more than PROXIES_ASKED proxies, within a few snapshots."""
        market = self.with_keys(read, market, (p.key for p in positions))
        held = [p for p in positions if not p.empty and p.owner_via.endswith("ds-proxy")]
        wallets, asked = newest_wallets(read, market, ((p.owner, p.block_number, p.wallet) for p in held))
        return replace(market, wallets=wallets, asked=asked)

    def fit_group(self, market: MakerMarket, position: Urn) -> Hashable | None:
        """Everyone behind a DSProxy, and one of each other ilk."""
        return position.key if position.owner_via.endswith("ds-proxy") else position.key.group

    # logs -----------------------------------------------------------------------------------------------------------

    def logs(self, market: MakerMarket, accounts: Accounts) -> Logs:
        """Urns and possible joins: each GemJoin is a ward of the Vat, and the DaiJoin gets a hope from DAI withdrawers."""
        joins = {RELY} if "dai" in market.contracts else {RELY, HOPE}
        vat, manager = frozenset({self.vat}), frozenset({self.manager})
        return Logs(
            discovery=sources((vat, [FROB, FORK, *joins])),
            activity=[*sources((vat, [FROB, FORK, GRAB, *joins]), (manager, [GIVE])), *self.liquidation_logs(market)],
        )

    def liquidation_logs(self, market: MakerMarket) -> list[LogSource]:
        known = [(market.contracts[name], event) for name, event in AUCTIONS.items() if name in market.contracts]
        return sources(*((frozenset({address}), [event]) for address, event in known))

    def liquidated(self, market: MakerMarket, event: Event) -> Liquidated | None:
        """Bark of the Dog or Bite of the Cat: the auction that begins, without its penalty; nobody says who called."""
        told = {(market.contracts.get(name), kind) for name, kind in AUCTIONS.items()}
        urn, ink, rad = event.topic_address(2), event.word(0), event.word(2)
        if (event.address, event.topic0) not in told or urn is None or ink is None or rad is None:
            return None
        group = ilk_name(bytes.fromhex(event.topics[1][2:]))
        ilk = market.ilks.get(group)
        seized = None if ilk is None else quantity(market.assets, ilk.asset, gem_amount(ilk, ink), group)
        return Liquidated(PositionKey(urn, group), None, quantity(market.assets, market.dai, dai_amount(rad)), seized)

    def contracts(self, event: Event) -> Iterable[str]:
        if event.address == self.vat and len(event.topics) == 4 and event.topics[0] in (RELY, HOPE):
            yield "0x" + event.topics[1][-40:]

    def touched(self, market: MakerMarket, event: Event) -> Iterable[PositionKey]:
        if len(event.topics) != 4:
            return
        selector, first, second, third = event.topics
        if event.address == self.vat and selector in (FROB, FORK, GRAB):
            group = ilk_name(bytes.fromhex(first[2:]))
            # The note repeats calldata, of which the Vat uses the low 20 bytes, whatever the others are.
            yield PositionKey("0x" + second[-40:], group)
            if selector == FORK:
                yield PositionKey("0x" + third[-40:], group)
        elif event.address == self.manager and selector == GIVE:
            key = market.registry.keys.get(int(second, 16))
            if key is not None:
                yield key

    # positions ------------------------------------------------------------------------------------------------------

    def enumerate(self, read: Reader, market: MakerMarket, after: int) -> list[PositionKey]:
        (last,) = required(read, [Read(self.manager, CDP_MANAGER.function("cdpi"))])
        return read_cdps(read, self.manager, range(after + 1, last + 1))

    def of_wallets(
        self, read: Reader, market: MakerMarket, wallets: Sequence[str]
    ) -> tuple[MakerMarket, list[PositionKey]]:
        """Vaults in CdpManager of the wallets and their DSProxies, and each of these as a raw urn of every known ilk."""
        market = with_ilks(read, market, unlisted_ilks(read, market))
        holders, cdps = cdps_of(read, market, wallets)
        numbers = dict(zip(read_cdps(read, self.manager, cdps), cdps, strict=True))
        market = self.with_keys(read, market, numbers)
        registry = replace(
            market.registry,
            keys={**market.registry.keys, **{cdp: key for key, cdp in numbers.items()}},
            numbers={**market.registry.numbers, **numbers},
        )
        raw = [PositionKey(holder, name) for holder in holders for name in market.ilks]
        return replace(market, registry=registry), [*numbers, *raw]

    def read_positions(self, read: Reader, market: MakerMarket, keys: Sequence[PositionKey]) -> list[Urn]:
        urns = required(read, [Read(self.vat, URNS, (ilk_bytes(key.group), key.account)) for key in keys])
        return [
            Urn(
                key=key,
                block_number=read.block.number,
                ink=ink,
                art=art,
                cdp=market.registry.numbers.get(key),
                owner=owner.address,
                owner_via=owner.via,
                wallet=owner.wallet,
            )
            for key, (ink, art), owner in zip(keys, urns, read_owners(read, market, keys), strict=True)
        ]

    # health ---------------------------------------------------------------------------------------------------------

    def evaluate(self, market: MakerMarket, position: Urn) -> Health:
        return evaluate(market, position)

    def price_source(self, market: MakerMarket, asset: Asset) -> str | None:
        return ilk.pip if (ilk := market.ilks.get(asset.group)) else None

    def sources(self, read: Reader, market: MakerMarket) -> list[PriceSource]:
        """Every ilk's pip, which the Spotter reads when it is poked."""
        spotter = market.contracts["spotter"]
        return [
            PriceSource(ilk.asset, ilk.pip, name, spotter)
            for name, ilk in market.ilks.items()
            if ilk.pip != ZERO_ADDRESS
        ]

    def balances(self, market: MakerMarket, position: Urn) -> list[Balance]:
        return balances(market, position)

    def checks(self, market: MakerMarket, positions: Iterable[Urn], accounts: Accounts) -> list[Check]:
        """Every ilk's Art, and Vat.debt, which is all ilks' debt and the vice: it would reveal an ilk that no log named."""
        art = dict.fromkeys(market.ilks, 0)
        for p in positions:
            art[p.key.group] = art.get(p.key.group, 0) + p.art
        debt = sum(ilk.Art * ilk.rate for ilk in market.ilks.values())
        return [
            *(
                Check(name=f"art of {name}", have=art[name], want=ilk.Art, debt=True)
                for name, ilk in market.ilks.items()
            ),
            Check(name="debt of all ilks", have=debt + market.vice, want=market.debt, debt=True),
        ]

    # the contracts' own answers -------------------------------------------------------------------------------------

    def contract_answers(self, read: Reader, market: MakerMarket, keys: Sequence[PositionKey]) -> list[Answer]:
        """Products of the answers of Vat and Spotter; the accrued rate is the Vat's after Jug.drip."""
        spotter, jug = market.contracts["spotter"], market.contracts["jug"]
        raw = {name: ilk_bytes(name) for name in sorted({key.group for key in keys})}
        states = [Read(self.vat, VAT_ILKS, (ilk,)) for ilk in raw.values()]
        feeds = [Read(spotter, SPOTTER_ILKS, (ilk,)) for ilk in raw.values()]
        drips = [Read(jug, JUG.function("drip"), (ilk,)) for ilk in raw.values()]
        held = [Read(self.vat, URNS, (raw[key.group], key.account)) for key in keys]
        *found, owns = together(read, states, feeds, held, owner_reads(market, keys))
        before, mats, urns = map(answered, found)
        stored, ratios = dict(zip(raw, before, strict=True)), dict(zip(raw, mats, strict=True))
        dripped = dict(zip(raw, required(read, states, drips), strict=True))
        answers = []
        for key, (ink, art), owner in zip(keys, urns, owners_behind(read, market, keys, owns), strict=True):
            _, rate, spot, _, _ = stored[key.group]
            _, mat = ratios[key.group]
            limit, debt, accrued_debt = ink * spot, art * rate, art * dripped[key.group][1]
            priced = spot > 0 or not ink
            ilk = market.ilks.get(key.group)
            answers.append(
                Answer(
                    key=key,
                    columns={
                        "collateral_value_raw": ink * (spot * mat // RAY) if priced else None,
                        "liquidation_limit_raw": limit if priced else None,
                        "debt_value_raw": debt,
                        "health_factor_raw": limit * WAD // debt if spot and debt else None,
                        "health_factor_accrued_raw": limit * WAD // accrued_debt if spot and accrued_debt else None,
                        "owner": owner.address,
                        "wallet": owner.wallet,
                    },
                    liquidatable=spot > 0 and limit < debt,
                    amounts={
                        (self.vat, "supply"): gem_amount(ilk, ink) if ilk else ink,
                        (self.vat, "debt"): dai_amount(debt),
                    },
                    scaled={(self.vat, "supply"): ink, (self.vat, "debt"): art},
                )
            )
        return answers

    # what if --------------------------------------------------------------------------------------------------------

    def with_prices(self, market: MakerMarket, prices: Mapping[str, int], numeraire: Fraction = ONE) -> MakerMarket:
        """`prices`: ilk, or an asset for all its ilks -> feed value (wad), as Spotter.poke takes it."""
        return with_prices(market, prices)

    def after(self, market: MakerMarket, seconds: int, blocks: int) -> MakerMarket:
        return after(market, seconds, blocks)

    def thresholds(self, market: MakerMarket) -> dict[str, Fraction]:
        """1 / mat by ilk."""
        return {name: Fraction(RAY, ilk.mat) for name, ilk in market.ilks.items() if ilk.mat}

    def with_thresholds(self, market: MakerMarket, thresholds: Mapping[str, Fraction]) -> MakerMarket:
        return with_thresholds(market, thresholds)

    # liquidation ----------------------------------------------------------------------------------------------------

    def narrow(self, market: MakerMarket, position: Urn) -> MakerMarket:
        return liquidation.narrow(market, position)

    def interest_stored(self, market: MakerMarket) -> MakerMarket:
        return interest_stored(market)

    def exposure(self, market: MakerMarket, position: Urn) -> list[Price]:
        return liquidation.exposure(market, position)

    def effect(self, market: MakerMarket, position: Urn, balance: Balance, delta: int) -> Effect | None:
        return liquidation.effect(market, position, balance, delta)

    def liquidation_calls(self, market: MakerMarket, position: Urn) -> list[LiquidationCall]:
        return liquidation.liquidation_calls(market, position)
