"""The tokens behind the Vat: found through the joins that its logs name, if neither IlkRegistry nor chainlog lists them.

A GemJoin is a ward of the Vat, as it credits gems (dss Vat.slip), and only a ward can make another (rely). The DaiJoin is
no ward: people who withdraw DAI allow it to move their balance (hope), as they may allow anyone.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from indexer.abi import abi
from indexer.adapter import Reader, required
from indexer.model import Failed, Read
from protocols.common import chunks, symbol_of
from protocols.maker.market import Gem, Join, MakerMarket, with_assets
from protocols.maker.math import ilk_name

GEM_OR_DAI_JOIN = abi("maker_join")
VAT = abi("maker_vat")
ERC20 = abi("erc20")
ERC20_BYTES32 = abi("erc20_bytes32")

JOIN = (
    GEM_OR_DAI_JOIN.function("vat"),
    GEM_OR_DAI_JOIN.function("ilk"),
    GEM_OR_DAI_JOIN.function("gem"),
    GEM_OR_DAI_JOIN.function("dai"),
    GEM_OR_DAI_JOIN.function("dec"),
)
TOKEN = (ERC20.function("symbol"), ERC20_BYTES32.function("symbol"), ERC20.function("decimals"))


def with_joins(read: Reader, market: MakerMarket) -> MakerMarket:
    """The market with the tokens of the contracts in its registry that prove to be joins; each is asked only once."""
    named = market.registry.contracts
    found = read_joins(read, market.contracts["vat"], [c for c in named if c not in market.joins])
    market = replace(market, joins={contract: (market.joins | found)[contract] for contract in named})
    ilks = {name: replace(ilk, gem=market.gem(name, ilk.gem)) for name, ilk in market.ilks.items()}
    return with_assets(replace(market, ilks=ilks, dai=read_dai(read, market)))


def read_joins(read: Reader, vat: str, contracts: Sequence[str]) -> dict[str, Join | None]:
    """What each contract is: the join of one ilk, a DaiJoin, or None."""
    asked = [Read(contract, function, mutates=True) for contract in contracts for function in JOIN]
    rows = chunks(read(asked), len(JOIN))
    joins = {c: row for c, row in zip(contracts, rows, strict=True) if row[0] == vat and _token(row)}
    parts = iter(read([Read(_token(row), function, mutates=True) for row in joins.values() for function in TOKEN]))
    found: dict[str, Join | None] = dict.fromkeys(contracts)
    for (contract, row), *tokens in zip(joins.items(), parts, parts, parts, strict=True):
        found[contract] = _join(contract, row, tokens)
    return found


def _token(row: Sequence[Any]) -> str:
    """The token of a GemJoin or DaiJoin; empty for what is neither."""
    _, ilk, gem, dai, _ = row
    if not isinstance(gem, Failed) and not isinstance(ilk, Failed):
        return str(gem)
    return "" if isinstance(dai, Failed) else str(dai)


def _join(contract: str, row: Sequence[Any], token: Sequence[Any]) -> Join | None:
    _, ilk, gem, _, dec = row
    text, raw, decimals = token
    if isinstance(ilk, Failed) or isinstance(gem, Failed):
        return Join(None, Gem("DAI", 18, _token(row), contract))
    known = decimals if isinstance(dec, Failed) else dec
    if isinstance(known, Failed) or known > 18:
        return None
    name = ilk_name(ilk)
    symbol = symbol_of(text, raw, name.rpartition("-")[0] or name)
    return Join(name, Gem(symbol, known, str(gem), contract))


def read_dai(read: Reader, market: MakerMarket) -> str:
    """DAI's address: the configured one, else that of the DaiJoin that backs the most; the Vat's where none is known.

    Anybody can name a contract that claims to be a DaiJoin, but outweighing the real one takes all DAI in circulation.
    """
    vat = market.contracts["vat"]
    if "dai" in market.contracts:
        return market.contracts["dai"]
    joins = {contract: join.gem.address for contract, join in market.joins.items() if join and join.ilk is None}
    if not joins:
        return vat
    backed = required(read, [Read(vat, VAT.function("dai"), (join,)) for join in joins])
    return max(zip(backed, joins.values(), strict=True), key=lambda pair: pair[0])[1] or vat
