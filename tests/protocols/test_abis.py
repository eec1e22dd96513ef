"""Every function and event in abis/ is one of the real contract's, as its package has it."""

import json
from collections.abc import Callable, Iterable, Mapping
from importlib import resources
from typing import Any

import pytest

from indexer.abi import Abi, abi, topic
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3
from tests.devnet.contracts import hardhat_artifact, interface
from tests.devnet.packages import package

Entries = Iterable[Mapping[str, Any]]

#: what no package has: functions of newer versions, of forks and of contracts that no package holds
UNPACKED = {
    "aave_gho_debt_token": {"getPreviousIndex", "getDiscountPercent", "getDiscountRateStrategy", "DiscountPercentUpdated"},
    "aave_v2_a_token": {"internalTotalSupply"},
    "aave_v3_pool": {"getIsEModeCategoryIsolated"},
    "compound_v2_c_token": {
        "protocolSeizeShareMantissa", "accrualBlockTimestamp", "borrowRatePerTimestamp", "supplyRatePerTimestamp",
    },
    "compound_v2_oracle": {"getConfig"},
    "dual_aggregator": {"typeAndVersion", "CutoffTimeSet", "SecondaryRoundIdUpdated"},
    "erc20_bytes32": {"symbol"},
    "maker_chainlog": {"getAddress"},
    "maker_lockstake_engine": {"urnOwners"},
    "price_adapter": {
        "ASSET_TO_PEG", "ASSET_TO_USD_AGGREGATOR", "BASE_TO_USD_AGGREGATOR", "PEG_TO_BASE", "getMaxRatioGrowthPerSecond",
        "getPriceCap", "getRatio", "getSnapshotRatio", "getSnapshotTimestamp", "isCapped", "priceFeedA", "priceFeedB",
        "underlyingPriceFeed",
    },
}  # fmt: skip


def v2(name: str) -> Entries:
    return aave_v2.artifact(name).abi


def v3(name: str) -> Entries:
    root = package("@aave/core-v3", "1.19.3") / "artifacts" / "contracts"
    (path,) = root.rglob(f"{name}.sol/{name}.json")
    return hardhat_artifact(path).abi


def v3_pools() -> Entries:
    newer = object.__new__(aave_v3.AaveV36).load_artifacts()["PoolInstance"]  # its sources alone: no node is started
    return [*v3("Pool"), *newer.abi]


def c_v2(name: str) -> Entries:
    return compound_v2.later_artifact(name).abi


def mcd(*names: str) -> Entries:
    folder = package("@makerdao/testchain", "1.1.32") / "out" / "mcd"
    return [entry for name in names for entry in json.loads((folder / f"{name}.abi").read_text())]


def chainlink(*names: str) -> Entries:
    """The ABIs of v0.6, each entry once: a proxy has the functions of its aggregator, and names a parameter otherwise."""
    folder = package("@chainlink/contracts", "0.6.1") / "abi" / "v0.6"
    found = {}
    for name in names:
        raw = json.loads((folder / f"{name}.json").read_text())
        found |= {(entry["type"], entry.get("name")): entry for entry in (raw["abi"] if isinstance(raw, dict) else raw)}
    return list(found.values())


def newer_mcd(name: str) -> Entries:
    folder = package("@makerdao/dai-plugin-mcd", "1.8.5") / "dist" / "abis"
    return list(json.loads((folder / f"{name}.json").read_text()))


REAL: Mapping[str, Callable[[], Entries]] = {
    "aave_oracle": lambda: v3("AaveOracle"),
    "aave_price_oracle_sentinel": lambda: v3("PriceOracleSentinel"),
    "aave_stable_debt_token": lambda: v2("StableDebtToken"),
    "aave_v2_a_token": lambda: v2("AToken"),
    "aave_v2_addresses_provider": lambda: v2("LendingPoolAddressesProvider"),
    "aave_v2_pool": lambda: v2("LendingPool"),
    "aave_v2_variable_debt_token": lambda: v2("VariableDebtToken"),
    "aave_v3_addresses_provider": lambda: v3("PoolAddressesProvider"),
    "aave_v3_pool": v3_pools,
    "aave_v3_token": lambda: v3("AToken"),
    "aggregator": lambda: chainlink("FluxAggregator", "EACAggregatorProxy"),
    "comet": compound_v3.real_abi,
    "compound_v2_c_token": lambda: c_v2("CErc20Immutable"),
    "compound_v2_comptroller": lambda: c_v2("Comptroller"),
    "compound_v2_oracle": lambda: c_v2("PriceOracle"),
    "ds_proxy": lambda: mcd("DSProxy"),
    "erc20": lambda: v3("AToken"),
    "maker_cat": lambda: mcd("Cat"),
    "maker_cdp_manager": lambda: mcd("DssCdpManager"),
    "maker_clipper": lambda: newer_mcd("Clipper"),
    "maker_dog": lambda: newer_mcd("Dog"),
    "maker_ilk_registry": lambda: mcd("IlkRegistry"),
    "maker_join": lambda: mcd("GemJoin", "DaiJoin"),
    "maker_jug": lambda: mcd("Jug"),
    "maker_median": lambda: mcd("Median"),
    "maker_osm": lambda: mcd("OSM"),
    "maker_proxy_registry": lambda: mcd("ProxyRegistry"),
    "maker_spotter": lambda: mcd("Spotter"),
    "maker_vat": lambda: mcd("Vat"),
}


def names() -> list[str]:
    return sorted(file.name.removesuffix(".json") for file in resources.files("abis").iterdir() if ".json" in file.name)


def entries(name: str) -> list[dict[str, Any]]:
    return list(json.loads(resources.files("abis").joinpath(f"{name}.json").read_text("utf-8")))


def test_every_file_is_compared_with_a_package_or_named_as_in_none() -> None:
    whole = {name for name in names() if {entry["name"] for entry in entries(name)} == UNPACKED.get(name)}
    assert set(names()) == set(REAL) | whole


@pytest.mark.parametrize("name", REAL)
def test_functions_and_events_are_those_of_the_real_contract(name: str, needs_node: None) -> None:
    ours, real = entries(name), list(REAL[name]())
    for kind in ("function", "event"):
        known = {(entry[0], entry[1]): entry[2] for entry in interface(real, kind)}
        for function, inputs, outputs in interface(ours, kind):
            if function not in UNPACKED.get(name, ()):
                # An answer may have grown since: Comptroller.markets has a third word now.
                assert known[function, inputs][: len(outputs)] == outputs, function


def test_a_function_is_told_as_reads_take_it_and_a_struct_of_one_word_is_that_word() -> None:
    pool = abi("aave_v2_pool")
    assert pool.function("getReservesList") == "getReservesList()(address[])"
    assert pool.function("getUserConfiguration") == "getUserConfiguration(address)(uint256)"
    assert pool.function("getReserveData").startswith("getReserveData(address)((uint256,uint128,")


def test_an_event_is_its_topic_and_a_note_the_selector_of_its_function() -> None:
    assert abi("comet").event("Transfer") == topic("Transfer(address,address,uint256)")
    assert abi("maker_vat").note("frob") == "0x76088703" + 56 * "0"  # as in mainnet's logs


def test_a_name_that_is_not_there_or_there_twice_is_an_error() -> None:
    with pytest.raises(LookupError, match="the ABI comet has no event Nothing"):
        abi("comet").event("Nothing")
    twice = [entry for entry in entries("erc20") if entry["name"] == "symbol"] * 2
    with pytest.raises(ValueError, match="two functions named symbol in the ABI tokens"):
        Abi("tokens", twice)
    with pytest.raises(FileNotFoundError):
        abi("nothing")
