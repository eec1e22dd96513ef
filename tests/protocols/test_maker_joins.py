"""Maker without any registry: tokens and DAI are known from the joins that the Vat's logs name."""

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from indexer.model import Accounts, Event, Registered
from protocols.maker.adapter import HOPE, RELY
from protocols.maker.joins import with_joins
from tests import truth
from tests.devnet import maker
from tests.devnet.maker import word
from tests.devnet.send import account
from tests.devnet.worlds import alone
from tests.disturbed import Forks
from tests.protocols.test_maker_formulas import ETH_A, TABLE, VAT, TableReader, address, table_adapter, table_market

USERS = 30
GEM, OTHER, DAI, FAKE = map(address, range(40, 44))
JOIN, CAGED, FOREIGN, FLIP, DAI_JOIN, FAKE_JOIN, WALLET, DEEP = map(address, range(50, 58))
NAMED = (JOIN, FOREIGN, FLIP, DAI_JOIN, FAKE_JOIN, WALLET, DEEP)
ETH_B = b"ETH-B".ljust(32, b"\0")


def answers_of(contract: str, **values: Any) -> dict[tuple[str, str, tuple[Any, ...]], Any]:
    return {(contract, name, ()): value for name, value in values.items()}


JOINS = {
    **answers_of(JOIN, vat=VAT, ilk=ETH_A, gem=GEM, dec=8),
    **answers_of(FOREIGN, vat=address(99), ilk=ETH_A, gem=OTHER, dec=18),
    **answers_of(FLIP, vat=VAT, ilk=ETH_A),
    **answers_of(DAI_JOIN, vat=VAT, dai=DAI),
    **answers_of(FAKE_JOIN, vat=VAT, dai=FAKE),
    **answers_of(DEEP, vat=VAT, ilk=ETH_B, gem=OTHER, dec=19),
    **answers_of(GEM, symbol="GEM", decimals=8),
    (VAT, "dai", (DAI_JOIN,)): 10**50,
    (VAT, "dai", (FAKE_JOIN,)): 10**45,
}


def joined(contracts: tuple[str, ...], table: Mapping[Any, Any] | None = None, **addresses: str) -> Any:
    market = replace(table_market(**addresses), registry=Registered(contracts=contracts))
    return with_joins(TableReader({**TABLE, **JOINS, **(table or {})}), market)


def test_a_join_of_this_vat_tells_the_token_of_its_ilk() -> None:
    market = joined(NAMED)
    gem = market.ilks["ETH-A"].gem
    assert (gem.address, gem.symbol, gem.decimals, gem.join) == (GEM, "GEM", 8, JOIN)
    assert {contract for contract, join in market.joins.items() if join} == {JOIN, DAI_JOIN, FAKE_JOIN}
    assert any((row.asset, row.group, row.decimals) == (GEM, "ETH-A", 8) for row in market.assets)


def test_each_contract_is_asked_once_and_forgotten_with_its_log() -> None:
    market = joined(NAMED)
    again = with_joins(TableReader({**TABLE, (VAT, "dai", (DAI_JOIN,)): 2, (VAT, "dai", (FAKE_JOIN,)): 1}), market)
    assert again == market
    orphaned = with_joins(TableReader(TABLE), replace(market, registry=Registered()))
    assert orphaned.joins == {}
    assert orphaned.dai == VAT


def test_the_newest_join_of_an_ilk_counts() -> None:
    newer = {**answers_of(CAGED, vat=VAT, ilk=ETH_A, gem=OTHER), **answers_of(OTHER, symbol="NEW", decimals=6)}
    assert joined((JOIN, CAGED), newer).ilks["ETH-A"].gem[:3] == ("NEW", 6, OTHER)
    assert joined((CAGED, JOIN), newer).ilks["ETH-A"].gem[:3] == ("GEM", 8, GEM)


def test_a_symbol_may_be_bytes_or_missing() -> None:
    class Early(TableReader):
        def answer(self, read: Any) -> Any:
            if read.signature == "symbol()(bytes32)":
                return b"OLD".ljust(32, b"\0")
            return super().answer(read)

    table = {key: value for key, value in {**TABLE, **JOINS}.items() if key != (GEM, "symbol", ())}
    market = replace(table_market(), registry=Registered(contracts=(JOIN,)))
    assert with_joins(Early(table), market).ilks["ETH-A"].gem.symbol == "OLD"
    assert with_joins(TableReader(table), market).ilks["ETH-A"].gem.symbol == "ETH"


def test_dai_is_what_backs_most_and_what_is_configured_counts_first() -> None:
    assert joined(NAMED).dai == DAI
    assert joined(NAMED).assets[0].asset == DAI
    assert joined((FAKE_JOIN,)).dai == FAKE
    assert joined((JOIN,)).dai == VAT
    assert joined(NAMED, dai=OTHER).dai == OTHER


def test_what_may_be_a_join_is_named_by_the_vat_alone() -> None:
    adapter = table_adapter()
    words = ("0x" + 24 * "f" + JOIN[2:], "0x" + 64 * "0", "0x" + 64 * "0")
    logged = Event(VAT, (RELY, *words), b"", 1, "0x" + 64 * "0", "0x" + 64 * "0", 0)
    assert list(adapter.contracts(logged)) == [JOIN]
    assert list(adapter.touched(table_market(), logged)) == []
    assert list(adapter.contracts(replace(logged, address=address(4)))) == []
    assert list(adapter.contracts(replace(logged, topics=(RELY,)))) == []
    topics = {pair[1] for source in adapter.logs(table_market(), Accounts.ALL).discovery for pair in source.pairs()}  # type: ignore[arg-type]
    assert {RELY, HOPE} <= topics
    topics = {
        pair[1] for source in adapter.logs(table_market(dai=DAI), Accounts.ALL).discovery for pair in source.pairs()
    }  # type: ignore[arg-type]
    assert RELY in topics
    assert HOPE not in topics


@pytest.fixture(scope="module")
def populated(needs_node: None) -> Iterator[maker.Maker]:
    with alone(maker.deploy, 3, USERS) as market:
        yield market


def wrong_tokens(path: Path, market: maker.Maker) -> tuple[int, list[str]]:
    """Balances whose token, unit or amount is not the real one, by the recorded addresses and the joins."""
    wrong, rows = (
        [],
        truth.raw(path, "select position_group, account, side, asset, symbol, scaled_raw, amount_raw from balances"),
    )
    for name, urn, side, asset, symbol, scaled, amount in rows:
        ilk = market.ilks[name]
        ink, _ = market.sender.call(market.addresses["vat"], "urns(bytes32,address)(uint256,uint256)", [ilk.key, urn])
        if side == "supply":
            dec = market.sender.call(ilk.join, "dec()(uint256)")
            want = (ilk.gem, market.sender.call(ilk.gem, "symbol()(string)"), ink, ink // 10 ** (18 - dec))
            have = (asset, symbol, int(scaled), int(amount))
        else:
            want, have = (market.contracts["MCD_DAI"], "DAI", 0, 0), (asset, symbol, 0, 0)
        if have != want:
            wrong.append(f"{name} {urn} {side}: {have} is not {want}")
    return len(rows), wrong


def test_balances_carry_the_real_tokens_in_their_units(populated: maker.Maker, tmp_path: Path) -> None:
    path = tmp_path / "joins.db"
    with populated.rewound():
        assert set(populated.addresses) <= {"vat", "spotter", "jug", "cdp_manager", "proxy_registry"}
        truth.sync_once(path, populated.node.url, [populated])
        count, wrong = wrong_tokens(path, populated)
        assert count > USERS
        assert wrong == []
        assert len({row[0] for row in truth.raw(path, "select decimals from markets")}) > 1
        populated.step(1)
        truth.sync_once(path, populated.node.url, [populated])
        assert wrong_tokens(path, populated)[1] == []


def test_a_join_of_an_orphaned_block_is_forgotten(populated: maker.Maker, tmp_path: Path) -> None:
    path, forks = tmp_path / "orphan.db", Forks([populated], random.Random(1))
    vat, join = populated.addresses["vat"], account("a join that never was")
    named = f"select count(*) from contracts where contract = '{join}'"
    with populated.rewound():
        truth.sync_once(path, populated.node.url, [populated])
        forks.mark()
        populated.govern(vat, "rely(address)", join)
        truth.sync_once(path, populated.node.url, [populated])
        assert truth.raw(path, named) == [(1,)]
        forks.take_back(3)
        truth.sync_once(path, populated.node.url, [populated])
        assert truth.raw(path, named) == [(0,)]
        assert wrong_tokens(path, populated)[1] == []
        forks.close()


def test_a_new_ilk_brings_its_token(populated: maker.Maker, tmp_path: Path) -> None:
    """Also where its first vault comes long after it."""
    path = tmp_path / "new.db"
    with populated.rewound():
        truth.sync_once(path, populated.node.url, [populated])
        ilk = populated.add_ilk("NEW-A", 10**18)
        truth.sync_once(path, populated.node.url, [populated])
        populated.open_raw("NEW-A", account("first of the new ones"), 10**22, 10**21)
        truth.sync_once(path, populated.node.url, [populated])
        rows = truth.raw(
            path,
            "select asset, scaled_raw, amount_raw from balances where position_group = 'NEW-A' and side = 'supply'",
        )
        assert rows == [(ilk.gem, str(10**22), str(10**22))]
        assert word("NEW-A") == ilk.key
