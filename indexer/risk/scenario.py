"""What a user assumes: changes of prices, liquidation thresholds and time, by asset or by group of assets.

A change is exact: a price of p that falls by 20 % is p * 80 // 100 in the oracle's own integer.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from fractions import Fraction
from typing import Self

from indexer.adapter import AnyWhatIf
from indexer.errors import ConfigError
from indexer.model import Market

#: symbols whose prices move together; [groups] of the configuration adds groups, and replaces those of the same name
GROUPS: Mapping[str, Sequence[str]] = {
    "stablecoins": (
        "USDC USDC.e USDbC USDT USDT0 USD₮0 DAI xDAI WXDAI DAI.e USDS sUSDS sDAI GHO FRAX frxUSD sFRAX LUSD crvUSD "
        "scrvUSD PYUSD RLUSD USDe sUSDe USDtb FDUSD TUSD BUSD USDP GUSD SUSD sUSD DOLA MIM USD0 USD0++ USDA EURC"
    ).split(),
    "eth": (
        "ETH WETH WETH.e stETH STETH wstETH rETH cbETH weETH eETH ezETH rsETH osETH ETHx frxETH sfrxETH ankrETH swETH "
        "rswETH OETH wOETH wrsETH mETH cmETH pufETH tETH lsETH LsETH"
    ).split(),
    "btc": "BTC WBTC WBTC2 WBTC.e BTC.b BTCB tBTC cbBTC LBTC FBTC eBTC renBTC RENBTC HBTC sBTC solvBTC".split(),
}

ADDRESS = re.compile(r"0[xX][0-9a-fA-F]{40}")
PERCENT = re.compile(r"([+-]?)(\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})%?")
SWEPT = re.compile(r"(.+)=([^=]+?)\.\.([^=:]+)(?::([^=:]+))?")
STEP = Fraction(5, 100)
DAY = 86_400
MAX_STEPS = 1_000


@dataclass(frozen=True, slots=True)
class Change:
    """One asset or group by name, and its new price or threshold: the old one times `factor`, or `value`."""

    name: str
    factor: Fraction = Fraction(1)
    value: Fraction | None = None

    @classmethod
    def shock(cls, text: str) -> Self:
        """NAME=-20% or NAME=+5%. Raises `ConfigError`."""
        name, sign, share = parted(text)
        if not sign and share:
            raise ConfigError(f"{text!r}: say which way, {name}=+{shown(share)} or {name}=-{shown(share)}")
        return cls(name, factor_of(text, sign, share))

    @classmethod
    def threshold(cls, text: str) -> Self:
        """NAME=-5% changes a threshold by 5 % of itself, NAME=80% sets it. Raises `ConfigError`."""
        name, sign, share = parted(text)
        if sign:
            return cls(name, factor_of(text, sign, share))
        return cls(name, value=share)

    def of(self, now: Fraction) -> Fraction:
        return now * self.factor if self.value is None else self.value


@dataclass(frozen=True, slots=True)
class Sweep:
    """One asset or group whose price changes by each of `shares` (0, -1/20, ...) in turn."""

    name: str
    shares: tuple[Fraction, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """NAME=0..-60% in steps of 5 %, NAME=0..-60%:2% in steps of 2 %. Raises `ConfigError`."""
        match = SWEPT.fullmatch(text)
        if not match:
            raise ConfigError(f"{text!r} is not a sweep; write NAME=0..-60% or NAME=0..-60%:2%")
        first, last = (percent(text, part) for part in match.group(2, 3))
        step = abs(percent(text, match[4])) if match[4] else STEP
        if step == 0:
            raise ConfigError(f"{text!r}: a step of 0 % goes nowhere")
        if min(first, last) < -1:
            raise ConfigError(f"{text!r}: no price falls by more than 100 %")
        count = abs(last - first) / step
        if count > MAX_STEPS:
            raise ConfigError(
                f"{text!r}: {int(count):,} steps are too many, at most {MAX_STEPS:,} are allowed: choose a wider step"
            )
        direction = 1 if last >= first else -1
        shares = [first + direction * step * i for i in range(int(count) + 1)]
        if shares[-1] != last:
            shares.append(last)
        return cls(match[1].strip(), tuple(shares))


def parted(text: str) -> tuple[str, str, Fraction]:
    """The name, the sign and the share of NAME=-20%."""
    name, separator, amount = text.rpartition("=")
    match = PERCENT.fullmatch(amount.strip())
    if not separator or not name.strip() or not match:
        raise ConfigError(f"{text!r}: write NAME=-20% (an asset's symbol or address, or a group)")
    return name.strip(), match[1], Fraction(match[2]) / 100


def percent(text: str, part: str) -> Fraction:
    """A signed percentage as a share; error messages quote `text`."""
    match = PERCENT.fullmatch(part.strip())
    if not match:
        raise ConfigError(f"{text!r}: {part.strip()!r} is no percentage")
    return Fraction(match[1] + match[2]) / 100


def factor_of(text: str, sign: str, share: Fraction) -> Fraction:
    if sign == "-" and share > 1:
        raise ConfigError(f"{text!r}: nothing falls by more than 100 %")
    return 1 - share if sign == "-" else 1 + share


def shown(share: Fraction) -> str:
    return f"{float(share * 100):g}%"


def canonical(name: str) -> str:
    """A name in the form used for comparison: addresses in lower case, and WETH as ETH, which it equals 1 : 1."""
    return name.lower() if ADDRESS.fullmatch(name) else {"WETH": "ETH"}.get(name, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Prices and thresholds that change, by name, and time that passes while nobody acts."""

    shocks: tuple[Change, ...] = ()
    thresholds: tuple[Change, ...] = ()
    seconds: int = 0
    blocks: int = 0

    def applied(self, adapter: AnyWhatIf, market: Market, names: "Names") -> Market:
        """The market under this scenario. Raises `ConfigError` for an impossible one."""
        after = adapter.after(market, self.seconds, self.blocks) if self.seconds or self.blocks else market
        if self.thresholds:
            after = adapter.with_thresholds(after, self.new_thresholds(adapter, market, names))
        if self.shocks:
            after = adapter.with_prices(after, *self.new_prices(adapter, market, names))
        return after

    def new_prices(self, adapter: AnyWhatIf, market: Market, names: "Names") -> tuple[dict[str, int], Fraction]:
        """The changed prices as the oracle's integers, each rounded down, and the factor of the numeraire itself in USD.

        Shocks are to prices in USD. Where prices are counted in ETH, ETH at -20 % leaves its own price as it is and
        makes all others 1 / 0.8 of what they were.
        """
        quotes = adapter.quotes(market)
        changes = names.resolved(self.shocks, market, quotes.prices)
        numeraire = quotes.numeraire
        unit = Fraction(1)
        if numeraire is not None:
            unit = changes[numeraire].factor if numeraire in changes else Fraction(1)
            if not unit:
                raise ConfigError(
                    f"{adapter.deployment.name} counts in {changes[numeraire].name}, whose price cannot fall by 100 %"
                )
        prices = {}
        for key, price in quotes.prices.items():
            factor = (changes[key].factor if key in changes else Fraction(1)) / unit
            if factor != 1:
                prices[key] = price * factor.numerator // factor.denominator
        return prices, unit

    def new_thresholds(self, adapter: AnyWhatIf, market: Market, names: "Names") -> dict[str, Fraction]:
        """The changed thresholds as exact fractions."""
        present = adapter.thresholds(market)
        changed = {}
        for key, change in names.resolved(self.thresholds, market, present).items():
            if not present[key] and change.value is None:
                continue  # the asset is no collateral, and no factor makes it one
            changed[key] = change.of(present[key])
            if not 0 < changed[key] <= 1:
                raise ConfigError(
                    f"{adapter.deployment.name}: {change.name} would have a liquidation threshold of "
                    f"{shown(changed[key])}; it must be above 0% and at most 100%"
                )
        return changed


class Names:
    """Which of a market's keys (assets, ilks, e-modes) a user means by a name.

    A name is, in this order: an address or an ilk; a symbol, case-insensitive if there is no exact match; a group, exactly
    as written. The more specific name overrides the more general one. `groups` includes the configuration's `[groups]`.
    """

    def __init__(self, groups: Mapping[str, Sequence[str]]) -> None:
        self.groups = {name: frozenset(map(canonical, members)) for name, members in groups.items()}

    def resolved(self, changes: Sequence[Change], market: Market, keys: Iterable[str]) -> dict[str, Change]:
        """Key -> the change that applies to it, for the `keys` with one. ConfigError if two are equally specific."""
        found: dict[str, Change] = {}
        for key, names in named(market, keys).items():
            best: list[tuple[int, Change]] = []
            for change in changes:
                rank = self.rank(change.name, key, names)
                if rank is not None:
                    best.append((rank, change))
            if not best:
                continue
            least = min(rank for rank, _ in best)
            winners = [change for rank, change in best if rank == least]
            if len({(change.factor, change.value) for change in winners}) > 1:
                said = list(dict.fromkeys(change.name for change in winners))
                say = " and ".join(said) + (" say" if len(said) > 1 else " says")
                raise ConfigError(f"{say} different things of {', '.join(sorted(names))}; keep one of them")
            found[key] = winners[0]
        return found

    def rank(self, name: str, key: str, names: frozenset[str]) -> int | None:
        """How specific `name` is for this key: 0 an address or ilk, 1 a symbol, 2 a group; None if it means another key."""
        if name in self.groups:
            return None if self.groups[name].isdisjoint(names) else 2
        wanted = canonical(name)
        if ADDRESS.fullmatch(name):
            return 0 if wanted in names else None
        if name == key:
            return 0
        return 1 if wanted in names else None

    def spelt(self, changes: Sequence[Change], everything: Iterable[tuple[Market, Iterable[str]]]) -> list[Change]:
        """The changes with names as the markets write them. Raises `ConfigError` for an unknown name."""
        found = [(market, named(market, keys)) for market, keys in everything]
        known = {name for _, keys in found for names in keys.values() for name in names}
        by_case: dict[str, set[str]] = {}
        for name in known:
            by_case.setdefault(name.lower(), set()).add(name)
        symbols = {row.symbol for market, _ in found for row in market.assets}
        return [Change(self._spelt(c.name, known, by_case, symbols), c.factor, c.value) for c in changes]

    def _spelt(self, name: str, known: set[str], by_case: Mapping[str, set[str]], symbols: set[str]) -> str:
        if name in self.groups:
            if self.groups[name].isdisjoint(known):
                raise ConfigError(f"the group {name} has no member in the database")
            return name
        if canonical(name) in known:
            return name
        alike = by_case.get(canonical(name.upper()).lower(), by_case.get(name.lower(), set()))
        if len(alike) == 1:
            return next(iter(alike))
        if alike:
            raise ConfigError(f"{name!r} may be {' or '.join(sorted(alike))}; write it as it is")
        candidates = {one.lower(): one for one in (*known, *symbols, *self.groups) if not ADDRESS.fullmatch(one)}
        near = [candidates[one] for one in get_close_matches(name.lower(), candidates, n=3, cutoff=0.5)]
        meant = f"; the nearest are {', '.join(near)}" if near else f"; groups are {', '.join(sorted(self.groups))}"
        raise ConfigError(f"nothing in the database is called {name!r}{meant}")


def named(market: Market, keys: Iterable[str]) -> dict[str, frozenset[str]]:
    """Key -> everything it is called: itself, the asset's address, its symbol, its ilk."""
    found = {key: {key} for key in keys}
    for row in market.assets:
        key = row.group or row.asset
        if key in found:
            found[key] |= {row.asset.lower(), canonical(row.symbol), *([row.group] if row.group else [])}
    return {key: frozenset(names) for key, names in found.items()}


def spelt(
    markets: Sequence[tuple[AnyWhatIf, Market]],
    names: Names,
    shocks: Sequence[Change],
    thresholds: Sequence[Change],
    swept: Sweep | None,
    days: float,
    seconds_per_block: float,
) -> tuple[Scenario, Sweep | None]:
    """The scenario, with every name resolved in the markets. Raises `ConfigError` for unknown names."""
    prices = [(market, adapter.quotes(market).prices.keys()) for adapter, market in markets]
    limits = [(market, adapter.thresholds(market).keys()) for adapter, market in markets]
    if swept is not None:
        (change,) = names.spelt([Change(swept.name)], prices)
        swept = Sweep(change.name, swept.shares)
    seconds = round(days * DAY)
    scenario = Scenario(
        shocks=tuple(names.spelt(shocks, prices)),
        thresholds=tuple(names.spelt(thresholds, limits)),
        seconds=seconds,
        blocks=int(seconds / seconds_per_block),
    )
    return scenario, swept
