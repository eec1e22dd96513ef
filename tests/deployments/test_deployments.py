"""The built-in chains and deployments are those of their packages, all of them, and a new market is missed by its name."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from indexer.address import checked_address
from indexer.config import load
from tests.deployments import refresh
from tests.deployments.refresh import CHAINS, DEPLOYMENTS, SOURCES, UnknownMarketError

#: chains written by hand -> their names in viem
BY_HAND = {
    "mainnet": "mainnet", "optimism": "optimism", "bnb": "bsc", "gnosis": "gnosis", "polygon": "polygon", "base": "base",
    "arbitrum": "arbitrum", "avalanche": "avalanche",
}  # fmt: skip
WRITTEN: dict[str, Any] = tomllib.loads(DEPLOYMENTS.read_text())["deployments"]


@pytest.fixture(scope="module")
def book(needs_node: None) -> dict[str, Any]:
    return refresh.address_book()


def test_the_files_are_what_the_generator_writes(book: dict[str, Any]) -> None:
    for path, text in refresh.contents().items():
        assert path.read_text() == text, f"{path.name} differs: run `make deployments`"


def test_there_are_61_deployments_on_23_chains() -> None:
    config = load(None, {})
    assert (len(config.deployments), len(config.chains)) == (61, 23)
    assert {one.chain for one in config.deployments.values()} == config.chains.keys()
    assert WRITTEN.keys() == config.deployments.keys()


def test_every_aave_market_of_the_book_is_there_or_left_out_with_a_reason(book: dict[str, Any]) -> None:
    config = load(None, {})
    providers = {
        (config.chains[one.chain].chain_id, address)
        for one in config.deployments.values()
        for address in one.addresses.values()
    }
    missing = {
        name
        for name, market in book["markets"].items()
        if (market["chain_id"], market["provider"].lower()) not in providers and name not in SOURCES["left_out"]
    }
    assert missing == set()
    assert all(SOURCES["left_out"].values())
    assert SOURCES["left_out"].keys() <= book["markets"].keys(), "left out, but no longer in the book"


def test_a_market_of_an_unknown_chain_is_named(book: dict[str, Any]) -> None:
    markets = {**book["markets"], "AaveV3Elsewhere": {"chain_id": 123456, "provider": "0x" + "1" * 40}}
    with pytest.raises(UnknownMarketError, match=r"AaveV3Elsewhere is on chain id 123456, .* left_out"):
        refresh.deployment_tables(markets, book["feeds"])


def test_a_new_market_of_a_known_chain_is_a_new_deployment(book: dict[str, Any]) -> None:
    markets = {**book["markets"], "AaveV3MainnetNew": {"chain_id": 5000, "provider": "0x" + "1" * 40}}
    del markets["AaveV3Mantle"]
    tables = refresh.deployment_tables(markets, book["feeds"])
    assert tables["aave-v3-mantle"]["addresses"] == {"pool_addresses_provider": "0x" + "1" * 40}


def test_two_new_markets_of_one_chain_need_a_name(book: dict[str, Any]) -> None:
    markets = {**book["markets"], "AaveV3MantleSecond": {"chain_id": 5000, "provider": "0x" + "1" * 40}}
    with pytest.raises(UnknownMarketError, match=r"AaveV3MantleSecond .* aave-v3-mantle"):
        refresh.deployment_tables(markets, book["feeds"])


def test_addresses_have_checksums_and_stand_once_a_chain() -> None:
    known = set()
    for name, table in WRITTEN.items():
        main = next(iter(table["addresses"].values()))
        assert (table["chain"], main) not in known, name
        known.add((table["chain"], main))
        for address in table["addresses"].values():
            assert address != address.lower(), name
            assert checked_address(address) == address.lower()


def test_start_blocks_are_at_most_the_earliest_known() -> None:
    for name, block in SOURCES["start_blocks"].items():
        if name != "source":
            assert WRITTEN[name].get("start_block", 0) <= block, name


def test_every_chain_has_endpoint_explorer_and_viems_multicall3(needs_node: None) -> None:
    names = {**BY_HAND, **{name: given["viem"] for name, given in SOURCES["chains"].items()}}
    known = refresh.viem(names.values())
    chains = load(None, {}).chains
    assert chains.keys() == names.keys()
    for name, chain in chains.items():
        found = known[names[name]]
        assert chain.chain_id == found["chain_id"], name
        assert chain.multicall3 == found["multicall3"].lower(), name
        assert chain.native_symbol.lower() == found["native_symbol"].lower(), name
        assert chain.public_rpc, name
        assert str(chain.explorer).startswith("https://"), name


def test_no_published_endpoint_carries_a_key() -> None:
    urls = re.findall(r"https://[^\"]+", CHAINS.read_text())
    assert [url for url in urls if refresh.carries_key(url)] == []
    assert refresh.carries_key("https://api.example/metis/67nCBdZQSH9z3YqDDjdm")


def test_every_source_says_where_it_is_from() -> None:
    assert all(SOURCES[part]["source"] for part in ("start_blocks", "comets", "eth_usd_feeds"))
    assert all(other["source"] for other in SOURCES["others"].values())
    unusual = {f"{name}.{key}" for name, given in SOURCES["chains"].items() for key in given if key != "viem"}
    assert SOURCES["why"].keys() == unusual
    assert json.dumps(SOURCES)


def test_the_forks_of_the_docs_can_be_pasted(tmp_path: Path) -> None:
    page = (refresh.ROOT / "docs" / "chains.md").read_text()
    (pasted,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "indexer.toml"
    file.write_text(pasted)
    config = load(file, {})
    config.check_own()
    assert len(config.own) == 9
    main = [(one.chain, next(iter(one.addresses.values()))) for one in config.deployments.values()]
    assert len(set(main)) == len(main), "a fork is built in"
