"""What the adapters of both versions of Aave share: logs and the positions they touch, accounts, sums, and what if."""

from abc import abstractmethod
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from typing import Any, ClassVar, TypeVar

from indexer.abi import abi, topic
from indexer.adapter import (
    ONE,
    HealthFirst,
    Liquidated,
    Liquidation,
    LiquidationLogs,
    Part,
    PriceSource,
    PriceSources,
    Reader,
    required,
)
from indexer.model import Accounts, Answer, Asset, Check, Event, Logs, LogSource, PositionKey, Read, Shape
from protocols.aave.flags import flagged, set_bits
from protocols.aave.market import AaveMarket
from protocols.aave.position import AavePosition
from protocols.common import ZERO_ADDRESS, quantity, sources

M = TypeVar("M", bound=AaveMarket[Any])
P = TypeVar("P", bound=AavePosition)

LIQUIDATION = topic("LiquidationCall(address,address,address,uint256,uint256,address,bool)")

SCALED_BALANCE = abi("aave_v3_token").function("scaledBalanceOf")  # of aTokens and variable debt tokens of all versions
STABLE_DEBT = abi("aave_stable_debt_token")
SOURCE = abi("aave_oracle").function("getSourceOfAsset")
STABLE = tuple(STABLE_DEBT.function(name) for name in ("principalBalanceOf", "getUserStableRate", "getUserLastUpdated"))

#: topic0 -> the (topics, data words) that name accounts whose positions the event may have changed
Touches = Mapping[str, tuple[Sequence[int], Sequence[int]]]


class AaveAdapter(HealthFirst[M, P], Liquidation[M, P], LiquidationLogs[M, P], PriceSources[M, P]):
    """One pool of Aave, found through its addresses provider."""

    concurrent = True
    #: kind of contract (`Place.kind`) -> its events
    events: ClassVar[Mapping[str, Touches]]
    #: topic0 of the pool's Borrow; of an aToken's Mint and BalanceTransfer
    borrow: ClassVar[str]
    receipts: ClassVar[tuple[str, str]]
    receipt_shapes: ClassVar[Mapping[str, Shape]]
    #: what the pool is asked about an account, its flags first
    account_functions: ClassVar[tuple[str, ...]]

    # logs -------------------------------------------------------------------------------------------------------------

    def logs(self, market: M, accounts: Accounts) -> Logs:
        """No debt begins without the pool's Borrow; discovery of all accounts also follows every receipt of aTokens."""
        discovery = [(frozenset({market.pool}), [self.borrow])]
        if accounts is Accounts.ALL:
            discovery.append((market.contracts_of("a"), [*self.receipts]))
        activity = ((market.contracts_of(kind), [*events]) for kind, events in self.events.items())
        return Logs(sources(*discovery), sources(*activity))

    def shapes(self, market: M) -> Mapping[str, Shape]:
        return {self.borrow: Shape(topics=4, words=4, accounts=(2,)), **self.receipt_shapes}

    def touched(self, market: M, event: Event) -> Iterable[PositionKey]:
        place = market.tokens.get(event.address)
        where = None if place is None else self.events[place.kind].get(event.topic0)
        if where is None or (event.topic0 == self.receipts[1] and event.word(0) == 0):
            return ()  # a transfer of 0 makes nobody a holder
        topics, words = where
        named = [event.topic_address(i) for i in topics] + [event.word_address(i) for i in words]
        return [PositionKey(address) for address in named if address is not None]

    def liquidation_logs(self, market: M) -> list[LogSource]:
        return sources((frozenset({market.pool}), [LIQUIDATION]))

    def liquidated(self, market: M, event: Event) -> Liquidated | None:
        """LiquidationCall of the pool. What is seized is what the liquidator got: the protocol's fee is not in the log."""
        if event.address != market.pool or event.topic0 != LIQUIDATION:
            return None
        seized_asset, debt_asset, account = (event.topic_address(i) for i in (1, 2, 3))
        repaid, seized, liquidator = event.word(0), event.word(1), event.word_address(2)
        if seized_asset is None or debt_asset is None or account is None or repaid is None or seized is None:
            return None
        assets = market.assets
        return Liquidated(
            PositionKey(account),
            liquidator,
            quantity(assets, debt_asset, repaid),
            quantity(assets, seized_asset, seized),
        )

    # accounts ---------------------------------------------------------------------------------------------------------

    def read_positions(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[P]:
        """What the pool says of everyone and all of their aTokens, then the debts that the flags name."""
        return self._read(read, market, keys, [reserve.a_token for reserve in market.reserves])

    def read_health(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[P]:
        """What the pool says of everyone, then the aTokens and debts that the flags name.

        GenericLogic.calculateUserAccountData passes over every reserve whose two flags are not set.
        """
        return self._read(read, market, keys, None)

    def read_changed(self, read: Reader, market: M, changed: Sequence[tuple[P, Collection[str]]]) -> list[P]:
        """Only tokens that an account held, whose logs named it, or that its flags name; all where the code is unknown.

        The first round asks for all that its flags named before: a reader that remembers asks again only for what is new.
        """
        keys = [position.key for position, _ in changed]
        if not market.exact:
            return self.read_positions(read, market, keys)
        functions = [(market.pool, function) for function in self.account_functions]
        supplies, asked = list[tuple[PositionKey, str]](), list[Read]()
        for position, named in changed:
            parts, tokens = list[Part](functions), {*position.held, *named}
            for reserve in market.reserves:
                if reserve.a_token in tokens:
                    supplies.append((position.key, reserve.a_token))
                if not tokens.isdisjoint((reserve.variable_debt_token, reserve.stable_debt_token)):
                    parts += self.debt_reads(reserve)
            asked += [Read(to, function, (position.key.account,)) for to, function in parts]
        held = [Read(token, SCALED_BALANCE, (key.account,)) for key, token in supplies]
        supplied: dict[PositionKey, dict[str, int]] = {}
        for (key, token), scaled in zip(supplies, required(read, [*held, *asked])[: len(held)], strict=True):
            if scaled:
                supplied.setdefault(key, {})[token] = scaled
        return [
            replace(one, supplied=one.supplied | supplied.get(one.key, {}), supplies_complete=True)
            for one in self.read_health(read, market, keys)
        ]

    def _read(self, read: Reader, market: M, keys: Sequence[PositionKey], every: Sequence[str] | None) -> list[P]:
        """Positions with their balances of `every` aToken, or of those that back debt if None."""
        a_tokens = every or ()
        owed = {reserve.borrowing_flag: reserve for reserve in market.reserves}
        backing = {reserve.collateral_flag: reserve.a_token for reserve in market.reserves if every is None}
        always = [(market.pool, function) for function in self.account_functions]
        always += [(token, SCALED_BALANCE) for token in a_tokens]
        by_bit = {bit: self.debt_reads(reserve) for bit, reserve in owed.items()}
        by_bit |= {bit: [(token, SCALED_BALANCE)] for bit, token in backing.items()}
        position_type: type[Any] = self.position_type
        positions: list[P] = []
        for key, row in zip(keys, flagged(read, [account for account, _ in keys], always, by_bit), strict=True):
            answers = iter(row)
            flags, *own = islice(answers, len(self.account_functions))
            supplied = {token: scaled for token in a_tokens if (scaled := next(answers))}
            debts = []
            for bit in set_bits(flags):
                if bit in owed:
                    debts.append((owed[bit], [next(answers) for _ in by_bit[bit]]))
                elif bit in backing and (scaled := next(answers)):
                    supplied[backing[bit]] = scaled
            positions.append(
                position_type(
                    key=key,
                    block_number=read.block.number,
                    supplies_complete=every is not None,
                    configuration=flags,
                    supplied=supplied,
                    borrowed={r.variable_debt_token: parts[0] for r, parts in debts if parts[0]},
                    stable={
                        r.stable_debt_token: tuple(parts[1:4]) for r, parts in debts if r.stable_debt_token and parts[1]
                    },
                    **self.own_fields(own, debts),
                )
            )
        self.read_unknown(read, market, positions)
        return positions

    def debt_reads(self, reserve: Any) -> list[Part]:
        """The parts of an account's debt in a reserve: variable, and principal, rate and last update of the stable one."""
        stable = [(reserve.stable_debt_token, function) for function in STABLE] if reserve.stable_debt_token else []
        return [(reserve.variable_debt_token, SCALED_BALANCE), *stable]

    @abstractmethod
    def own_fields(self, answers: Sequence[Any], debts: Sequence[tuple[Any, Sequence[Any]]]) -> dict[str, Any]:
        """The fields that only this version's positions have.

        `answers` are those to `account_functions` behind the flags, `debts` each owed reserve with those to `debt_reads`.
        """

    @abstractmethod
    def read_unknown(self, read: Reader, market: M, positions: Sequence[P]) -> None:
        """Ask every token for the positions' balances where the code is unknown, and keep them."""

    def price_source(self, market: M, asset: Asset) -> str | None:
        return market.oracle

    def source_reads(self, market: M) -> list[Read]:
        return [Read(market.oracle, SOURCE, (asset,)) for asset in self.quotes(market).prices]

    def sources(self, read: Reader, market: M) -> list[PriceSource]:
        """AaveOracle.getSourceOfAsset of every price; the base currency has none."""
        found = zip(self.quotes(market).prices, read(self.source_reads(market)), strict=True)
        return [PriceSource(asset, source) for asset, source in found if source and source != ZERO_ADDRESS]

    def contract_answers(self, read: Reader, market: M, keys: Sequence[PositionKey]) -> list[Answer]:
        """Asks for getUserAccountData, and for balanceOf in every token."""
        tokens = [*market.sides]
        return self.answers(read, market, [(key, tokens) for key in keys])

    def audit_answers(self, read: Reader, market: M, positions: Sequence[P]) -> list[Answer]:
        tokens = [*market.sides]
        return self.answers(read, market, [(p.key, p.asked(tokens, read.block.number)) for p in positions])

    @abstractmethod
    def answers(self, read: Reader, market: M, wanted: Sequence[tuple[PositionKey, Sequence[str]]]) -> list[Answer]:
        """What getUserAccountData says of each account, and balanceOf of the tokens named with it."""

    # sums -------------------------------------------------------------------------------------------------------------

    def checks(self, market: M, positions: Iterable[P], accounts: Accounts) -> list[Check]:
        """Compares sums of scaled balances with the tokens' scaled total supplies: debts always, supplies for all accounts.

        Not stable debt, whose total counts interest separately: its check only tells whether there is any. No supplies until
        all of them are read.
        """
        sums, complete = dict.fromkeys(market.tokens, 0), True
        for position in positions:
            complete = complete and position.supplies_complete
            for scaled_balances in (position.borrowed, position.supplied):
                for token, scaled in scaled_balances.items():
                    sums[token] = sums.get(token, 0) + scaled
        partial = accounts is not Accounts.ALL
        found = []
        for reserve in market.reserves:
            name, have = f"scaled variable debt of {reserve.symbol}", sums[reserve.variable_debt_token]
            found.append(Check(name=name, have=have, want=reserve.scaled_debt, debt=True))
            name, want = f"stable debt of {reserve.symbol}", self.stable_total(reserve)
            found.append(Check(name=name, have=0, want=want, at_most=True, debt=True))
            if complete and self.adds_up(market, reserve.a_token):
                name, have = f"scaled supply of {reserve.symbol}", sums[reserve.a_token]
                found.append(Check(name=name, have=have, want=reserve.scaled_supply, at_most=partial))
        return found

    def discovers(self, position: P, accounts: Accounts) -> bool:
        return position.has_debt if accounts is Accounts.BORROWERS else not position.empty

    @abstractmethod
    def stable_total(self, reserve: Any) -> int:
        """What all owe of a reserve at stable rates, by the token's own count; 0: nobody does."""

    @abstractmethod
    def adds_up(self, market: M, a_token: str) -> bool:
        """Whether the scaled balances of an aToken add up to its scaled total supply; those of a rebasing one do not."""

    # what if ----------------------------------------------------------------------------------------------------------

    def with_prices(self, market: M, prices: Mapping[str, int], numeraire: Fraction = ONE) -> M:
        """`prices` are in the oracle's unit, by asset; in V2, USDC's price determines what the unit is worth in USD."""
        reserves = tuple(
            r if prices.get(r.asset, r.price) == r.price else replace(r, price=prices[r.asset]) for r in market.reserves
        )
        return market.with_reserves(reserves)

    def thresholds(self, market: M) -> dict[str, Fraction]:
        return market.thresholds

    def with_thresholds(self, market: M, thresholds: Mapping[str, Fraction]) -> M:
        return market.with_thresholds(thresholds)

    def after(self, market: M, seconds: int, blocks: int) -> M:
        return market.at(market.block.after(seconds, blocks))

    # liquidation ------------------------------------------------------------------------------------------------------

    def narrow(self, market: M, position: P) -> M:
        return market.narrowed(position.configuration, position.held)

    def interest_stored(self, market: M) -> M:
        """The market itself: Aave's indexes are already projected to the block, as in its views."""
        return market
