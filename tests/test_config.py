"""Configuration: what is built in, what a file may change, which endpoint wins, and the one line for every mistake."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from indexer import config, plugins
from indexer.address import checked_address
from indexer.errors import ConfigError
from tests.devnet.packages import missing_tools, package

SHARED = Path(__file__).parents[2] / "shared" / "mainnet"
VAT = "0x35D1b3F3D7966A1DFe207aa4514C12a259A0492B"
ADDRESSES = {
    "aave-v2": SimpleNamespace(
        required_addresses=("lending_pool_addresses_provider",), optional_addresses=(), options={}
    ),
    "aave-v3": SimpleNamespace(required_addresses=("pool_addresses_provider",), optional_addresses=(), options={}),
    "compound-v2": SimpleNamespace(
        required_addresses=("comptroller",),
        optional_addresses=(),
        options={"native_symbol": str, "seconds_per_block": float},
    ),
    "compound-v3": SimpleNamespace(
        required_addresses=("comet",), optional_addresses=("base_eth_feed", "eth_usd_feed", "btc_usd_feed"), options={}
    ),
    "maker": SimpleNamespace(
        required_addresses=("vat", "spotter", "jug", "cdp_manager"),
        optional_addresses=("proxy_registry", "dog", "chainlog"),
        options={},
    ),
}
DEVNET = """
[chains.devnet]
chain_id = 1337
rpc = ["http://127.0.0.1:8545"]
[deployments.aave-v3-devnet]
protocol = "aave-v3"
chain = "devnet"
start_block = 0
addresses = { pool_addresses_provider = "0x2f39d218133AFaB8F2B819B1066c7E434Ad94E9e" }
"""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty working folder and config folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr(config, "adapter_class", ADDRESSES.__getitem__)
    return tmp_path


def load(text: str | None = None, **environment: str) -> config.Config:
    path = None
    if text is not None:
        path = Path("indexer.toml")
        path.write_text(text)
    return config.load(path, environment)


def error(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(text).check_own()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# built in ----------------------------------------------------------------------------------------------------------


def test_mainnet_and_its_deployments_need_no_file():
    chain, deployments = load().select()
    assert (chain.name, chain.chain_id, chain.guard) == ("mainnet", 1, "full")
    assert chain.multicall3 == "0xca11bde05977b3631167028862be2a173976ca11"
    assert {deployment.name for deployment in deployments} == {
        "aave-v2", "aave-v2-amm", "aave-v2-arc", "aave-v3-core", "aave-v3-etherfi", "aave-v3-horizon", "aave-v3-prime", "sparklend", "compound-v2",
        "compound-v3-usdc", "compound-v3-usds", "compound-v3-usdt", "compound-v3-wbtc", "compound-v3-weth",
        "compound-v3-wsteth", "maker",
    }  # fmt: skip


def test_every_chain_has_public_endpoints_and_its_own_id():
    chains = load().chains
    assert len({chain.chain_id for chain in chains.values()}) == len(chains)
    for chain in chains.values():
        assert load().endpoints(chain)
        assert all(url.startswith("https://") for url in chain.public_rpc)
    assert chains["arbitrum"].guard == "arbsys"


@pytest.mark.parametrize("name", ADDRESSES)
def test_every_built_in_deployment_has_what_its_real_adapter_needs(name, monkeypatch):
    monkeypatch.setattr(config, "adapter_class", plugins.adapter_class)
    for deployment in load().deployments.values():
        if deployment.protocol == name:
            config.check_adapter_keys(deployment)


def built_in(deployment: str) -> dict[str, str]:
    """A built-in deployment's addresses as written, checksums included."""
    return tomllib.loads(plugins.deployment_files()[0][1])["deployments"][deployment]["addresses"]


ADDRESS_BOOK = {
    "aave-v2": ("AaveV2Ethereum", "lending_pool_addresses_provider"),
    "aave-v3-core": ("AaveV3Ethereum", "pool_addresses_provider"),
    "aave-v3-prime": ("AaveV3EthereumLido", "pool_addresses_provider"),
    "aave-v3-etherfi": ("AaveV3EthereumEtherFi", "pool_addresses_provider"),
    "aave-v3-horizon": ("AaveV3EthereumHorizon", "pool_addresses_provider"),
    "aave-v3-optimism": ("AaveV3Optimism", "pool_addresses_provider"),
    "aave-v3-bnb": ("AaveV3BNB", "pool_addresses_provider"),
    "aave-v3-gnosis": ("AaveV3Gnosis", "pool_addresses_provider"),
    "aave-v3-polygon": ("AaveV3Polygon", "pool_addresses_provider"),
    "aave-v3-base": ("AaveV3Base", "pool_addresses_provider"),
    "aave-v3-arbitrum": ("AaveV3Arbitrum", "pool_addresses_provider"),
    "aave-v3-avalanche": ("AaveV3Avalanche", "pool_addresses_provider"),
}


@pytest.fixture(scope="module")
def address_book() -> dict[str, tuple[int, str]]:
    """Market of the address book -> chain id and PoolAddressesProvider."""
    if missing_tools():
        pytest.skip(f"no {' or '.join(missing_tools())} to read the address book with")
    folder = package("@aave-dao/aave-address-book", "4.68.1")
    script = (
        "const out = {}; for (const name of process.argv.slice(2)) {"
        "const market = require(process.argv[1] + '/dist/' + name + '.js');"
        "out[name] = [market.CHAIN_ID, market.POOL_ADDRESSES_PROVIDER]; }"
        "console.log(JSON.stringify(out));"
    )
    names = sorted({name for name, _ in ADDRESS_BOOK.values()})
    done = subprocess.run(["node", "-e", script, str(folder), *names], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


@pytest.mark.parametrize("deployment", ADDRESS_BOOK)
def test_aave_addresses_are_the_address_book_s(deployment, address_book):
    market, key = ADDRESS_BOOK[deployment]
    chain_id, provider = address_book[market]
    assert built_in(deployment) == {key: provider}
    found = load()
    assert found.chains[found.deployments[deployment].chain].chain_id == chain_id


def shared(name: str):
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"no recorded addresses at ../shared/mainnet/{name}")
    return json.loads(path.read_text())


def comets_of_mainnet() -> list[str]:
    return [one.name for one in load().deployments.values() if (one.protocol, one.chain) == ("compound-v3", "mainnet")]


def test_comets_are_all_of_mainnet_s():
    comets = {base: roots["comet"] for base, roots in shared("comet_addresses.json").items()}
    names = comets_of_mainnet()
    assert {name.removeprefix("compound-v3-"): built_in(name)["comet"] for name in names} == comets


def test_only_comets_that_count_in_eth_have_an_eth_usd_feed():
    names = comets_of_mainnet()
    feeds = {name: built_in(name)["eth_usd_feed"] for name in names if "eth_usd_feed" in built_in(name)}
    feed = "0x5f4eC3Df9cbd43714FE2740f5E3616155c5b8419"
    assert feeds == {"compound-v3-weth": feed, "compound-v3-wsteth": feed}


def test_compound_v2_is_compound_config_s():
    recorded = shared("compound_v2_addresses.json")
    assert built_in("compound-v2") == {"comptroller": recorded["Contracts"]["Unitroller"]}
    assert load().deployments["compound-v2"].start_block <= recorded["Blocks"]["Unitroller"]


def test_maker_is_the_chainlog_s():
    log = shared("maker_chainlog.json")
    blocks = shared("maker_deployed_blocks.json")
    assert built_in("maker") == {
        "vat": log["MCD_VAT"], "spotter": log["MCD_SPOT"], "jug": log["MCD_JUG"], "cdp_manager": log["CDP_MANAGER"],
        "proxy_registry": log["PROXY_REGISTRY"], "dog": log["MCD_DOG"], "chainlog": log["CHANGELOG"],
    }  # fmt: skip
    assert load().deployments["maker"].start_block <= blocks["MCD_VAT"]["deployed_block"]


@pytest.mark.parametrize(
    ("deployment", "first"),
    [
        ("aave-v3-core", 16291127), ("aave-v2", 11362579), ("sparklend", 16776389), ("compound-v2", 7710671),
        ("compound-v3-usdc", 15331586), ("compound-v3-weth", 16400710), ("maker", 8928152),
    ],
)  # fmt: skip
def test_start_blocks_are_not_late(deployment, first):
    assert load().deployments[deployment].start_block <= first


# the file ----------------------------------------------------------------------------------------------------------


def test_a_file_adds_a_chain_and_a_deployment():
    chain, deployments = load(DEVNET).select("devnet")
    assert chain.chain_id == 1337
    assert [deployment.name for deployment in deployments] == ["aave-v3-devnet"]
    assert deployments[0].addresses == {"pool_addresses_provider": "0x2f39d218133afab8f2b819b1066c7e434ad94e9e"}


def test_a_file_changes_only_the_keys_it_gives():
    found = load('[chains.mainnet]\nrpc = ["http://127.0.0.1:8545"]\n[deployments.maker]\nstart_block = 9_000_000')
    assert found.chains["mainnet"].chain_id == 1
    assert found.chains["mainnet"].public_rpc
    assert found.deployments["maker"].start_block == 9_000_000
    assert found.deployments["maker"].addresses["vat"] == VAT.lower()


def test_a_whole_definition_replaces_a_built_in_one():
    found = load(
        DEVNET
        + f"""
        [deployments.compound-v3-weth]
        protocol = "compound-v3"
        chain = "devnet"
        start_block = 5
        addresses = {{ comet = "{VAT}" }}
        """
    )
    assert found.deployments["compound-v3-weth"].addresses == {"comet": VAT.lower()}  # no mainnet feed left over
    assert load("[chains.mainnet]\nchain_id = 31337").chains["mainnet"].public_rpc == []


def test_an_address_can_be_added_to_a_built_in_deployment():
    found = load(f'[deployments.compound-v3-usdc.addresses]\neth_usd_feed = "{VAT}"')
    assert set(found.deployments["compound-v3-usdc"].addresses) == {"comet", "eth_usd_feed"}


def test_a_deployment_has_options_that_its_adapter_declares():
    assert load().deployments["compound-v2"].options == {}
    found = load('[deployments.compound-v2]\noptions = { native_symbol = "BNB", seconds_per_block = 3 }')
    assert found.deployments["compound-v2"].options == {"native_symbol": "BNB", "seconds_per_block": 3}


def test_a_chain_names_its_own_coin():
    text = '[chains.devnet]\nchain_id = 1337\nnative_symbol = "BNB"'
    assert (
        load(DEVNET.replace("[chains.devnet]\nchain_id = 1337", text)).deployments["aave-v3-devnet"].native_symbol
        == "BNB"
    )
    assert load().deployments["compound-v2"].native_symbol == "ETH"
    assert load().deployments["aave-v3-polygon"].native_symbol == "POL"


def test_settings_have_defaults_and_can_be_changed():
    assert load().settings.at_risk_below == 1.1
    assert load("[settings]\nat_risk_below = 1.25\nkeep_blocks = 64").settings.at_risk_below == 1.25


def test_the_file_is_found_here_then_in_the_config_folder(home):
    folder = home / "config" / "lending-indexer"
    folder.mkdir(parents=True)
    (folder / "indexer.toml").write_text("[settings]\nat_risk_below = 1.3")
    assert config.load(None, {}).settings.at_risk_below == 1.3
    Path("indexer.toml").write_text("[settings]\nat_risk_below = 1.2")
    assert config.load(None, {}).settings.at_risk_below == 1.2


def test_a_named_file_must_exist():
    with pytest.raises(ConfigError, match=re.escape("missing.toml: no such file")):
        config.load(Path("missing.toml"), {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[chain.devnet]", "indexer.toml: unknown key chain; did you mean 'chains'?"),
        ("[chains.mainnet]\nrcp = []", "indexer.toml: unknown key chains.mainnet.rcp; did you mean 'rpc'?"),
        (
            "[settings]\nat_risk_under = 1.1",
            "indexer.toml: unknown key settings.at_risk_under; did you mean 'at_risk_below'?",
        ),
        (
            "[deployments.maker]\nstart = 1",
            "indexer.toml: unknown key deployments.maker.start; did you mean 'start_block'?",
        ),
        ("[chains.mainnet]\nname = 'x'", "unknown key chains.mainnet.name; known: bloom, chain_id, "),
        (
            f'[deployments.maker.addresses]\nspoter = "{VAT}"',
            "indexer.toml: deployments.maker.addresses: maker has no address 'spoter'; did you mean 'spotter'?",
        ),
    ],
)
def test_unknown_keys_name_file_key_and_the_nearest(text, message):
    assert message in error(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chains = ", "indexer.toml: not valid TOML: Invalid value (at end of document)"),
        ("chains = 1", "indexer.toml: chains: must be a table, [chains]"),
        ("[deployments]\nmaker = 1", "indexer.toml: deployments.maker: must be a table, [deployments.maker]"),
        ("[deployments.maker]\noptions = 1", "deployments.maker.options: must be a table"),
        (
            "[deployments.maker]\noptions = { a = 1 }",
            "indexer.toml: deployments.maker.options: maker has no option 'a'",
        ),
        (
            "[deployments.compound-v2]\noptions = { nativ_symbol = 'BNB' }",
            "compound-v2 has no option 'nativ_symbol'; did you mean 'native_symbol'?",
        ),
        (
            "[deployments.compound-v2]\noptions = { native_symbol = '' }",
            "indexer.toml: deployments.compound-v2.options.native_symbol: should be a text of 1 to 64 characters, not ''",
        ),
        (
            "[deployments.compound-v2]\noptions = { seconds_per_block = 0 }",
            "indexer.toml: deployments.compound-v2.options.seconds_per_block: should be a number above 0, not 0",
        ),
        ("[deployments.compound-v2]\noptions = { seconds_per_block = nan }", "should be a number above 0, not nan"),
        ("[deployments.compound-v2]\noptions = { seconds_per_block = true }", "should be a number above 0, not True"),
        ("[chains.mainnet]\nnative_symbol = ''", "chains.mainnet.native_symbol: should have at least 1 character"),
        ("[deployments.maker]\naddresses = []", "deployments.maker.addresses: must be a table"),
        ("[chains.'a b']\nchain_id = 1", "indexer.toml: chains: 'a b' is no name"),
        ("[chains.mainet]\nrpc = []", "chains.mainet.chain_id is missing; did you mean [chains.mainnet]?"),
        ("[chains.x]\nchain_id = '1'", "indexer.toml: chains.x.chain_id: should be a valid integer, not '1'"),
        ("[chains.x]\nchain_id = 0", "chains.x.chain_id: should be greater than or equal to 1, not 0"),
        ("[chains.mainnet]\nguard = 'half'", "should be 'full', 'number', 'arbsys', 'timestamp' or 'none', not 'half'"),
        (
            "[chains.mainnet]\nmax_log_range = 0",
            "chains.mainnet.max_log_range: should be greater than or equal to 1, not 0",
        ),
        ("[chains.mainnet]\nmax_requests_per_second = 0", "should be greater than 0"),
        ("[deployments.maker]\nstart_block = -1", "should be greater than or equal to 0, not -1"),
        ("[deployments.maker]\nstart_block = true", "should be a valid integer, not True"),
        ("[deployments.maker]\nchain = 'mainet'", "deployments.maker.chain: unknown chain 'mainet'; did you mean"),
        ("[settings]\nat_risk_below = nan", "settings.at_risk_below: should be a finite number"),
        ("[settings]\nat_risk_below = 0.9", "settings.at_risk_below: should be greater than or equal to 1"),
        ("[deployments.new]\nprotocol = 'maker'", "indexer.toml: deployments.new.chain is missing"),
        (
            "[deployments.new]\nprotocol = 'maker'\nchain = 'mainnet'\nstart_block = 1\naddresses = {}",
            "deployments.new.addresses: vat is missing; maker needs vat, spotter, jug, cdp_manager",
        ),
        (
            "[deployments.maker.addresses]\nvat = '0x35D1b3F3D7966A1DFe207aa4514C12a259A0492b'",
            "indexer.toml: deployments.maker.addresses.vat: 0x35D1b3F3D7966A1DFe207aa4514C12a259A0492b fails its checks",
        ),
        ("[deployments.maker.addresses]\nvat = '0x35'", "'0x35' is not an address (0x and 40 hex digits)"),
        ("[deployments.maker.addresses]\nvat = 'vitalik.eth'", "'vitalik.eth' is not an address"),
    ],
)
def test_wrong_values_name_file_key_and_what_is_wrong(text, message):
    assert message in error(text)


def test_a_wrong_endpoint_is_not_repeated_in_the_message():
    assert "secret" not in error('[chains.mainnet]\nrpc = "https://host/secret"')


def test_addresses_are_lower_cased():
    for text in (VAT, VAT.lower(), "0x" + VAT[2:].upper()):
        assert checked_address(text) == VAT.lower()


# packages ----------------------------------------------------------------------------------------------------------


def packages(monkeypatch, text: str) -> None:
    built_in_files = plugins.deployment_files()
    monkeypatch.setattr(config, "deployment_files", lambda: [*built_in_files, ("third/deployments.toml", text)])


def test_a_package_adds_chains_and_deployments(monkeypatch):
    packages(monkeypatch, DEVNET)
    assert load().deployments["aave-v3-devnet"].chain == "devnet"


def test_a_package_cannot_change_what_another_one_defines(monkeypatch):
    packages(monkeypatch, "[deployments.maker]\nstart_block = 1")
    message = "third/deployments.toml: deployments.maker is already defined by protocols/deployments.toml"
    with pytest.raises(ConfigError, match=re.escape(message)):
        load()


def test_a_package_cannot_change_settings(monkeypatch):
    packages(monkeypatch, "[settings]\nat_risk_below = 2")
    with pytest.raises(ConfigError, match=re.escape("third/deployments.toml: a package cannot change [settings]")):
        load()


# selection ---------------------------------------------------------------------------------------------------------


def names(found: config.Config, *arguments, **filters) -> list[str]:
    return [deployment.name for deployment in found.select(*arguments, **filters)[1]]


def test_filters_narrow_the_selection():
    assert names(load(), protocols=["maker", "aave-v2"]) == ["aave-v2", "maker", "aave-v2-amm", "aave-v2-arc"]
    assert names(load(), "mainnet", deployments=["maker"]) == ["maker"]
    assert names(load(), protocols=["aave-v3"], deployments=["sparklend", "maker"]) == ["sparklend"]


def test_a_named_deployment_brings_its_chain():
    chain, _ = load(DEVNET).select(deployments=["aave-v3-devnet"])
    assert chain.name == "devnet"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chain": "mainet"}, "unknown chain 'mainet'; did you mean 'mainnet'?"),
        ({"deployments": ["aave-v3-cor"]}, "unknown deployment 'aave-v3-cor'; did you mean 'aave-v3-core'?"),
        ({"protocols": ["aave"]}, "unknown protocol 'aave'; did you mean 'aave-v"),
        (
            {"chain": "mainnet", "deployments": ["aave-v3-base"]},
            "deployment aave-v3-base is on chain base, not mainnet; use --chain base",
        ),
        ({"deployments": ["maker", "aave-v3-base"]}, "on several chains (base, mainnet); name one with --chain"),
        ({"chain": "base", "protocols": ["maker"]}, "no deployment of maker is configured on chain base"),
        ({"chain": "devnet"}, "unknown chain 'devnet'; known: arbitrum, avalanche, base"),
    ],
)
def test_a_wrong_selection_is_one_clear_error(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load().select(**arguments)


def test_chains_are_named_by_their_id():
    assert load().chain_name(8453) == "base"
    assert load().chain_name(4242) == "4242"


# endpoints ---------------------------------------------------------------------------------------------------------

FILE = '[chains.mainnet]\nrpc = ["http://file"]'
ALL = {"MAINNET_RPC_URL": "http://own", "ETH_RPC_URL": "http://eth"}


def urls(found: config.Config, *flags: str) -> list[str]:
    return [endpoint.url for endpoint in found.endpoints(found.chains["mainnet"], flags)]


def test_the_flag_wins_over_everything():
    assert urls(load(FILE, **ALL), "http://a", "http://b") == ["http://a", "http://b"]


def test_the_chain_s_own_variable_wins_over_the_file():
    assert urls(load(FILE, **ALL)) == ["http://own"]
    assert urls(load(FILE, MAINNET_RPC_URL="http://a http://b")) == ["http://a", "http://b"]


def test_the_file_wins_over_the_general_variable():
    assert urls(load(FILE, ETH_RPC_URL="http://eth", MAINNET_RPC_URL="")) == ["http://file"]


def test_the_general_variable_is_tried_before_public_endpoints_and_may_not_fit():
    found = load(ETH_RPC_URL="http://eth")
    first, *others = found.endpoints(found.chains["mainnet"])
    assert (first.url, first.must_fit) == ("http://eth", False)
    assert [endpoint.url for endpoint in others] == found.chains["mainnet"].public_rpc
    assert all(endpoint.must_fit for endpoint in others)


def test_public_endpoints_come_last():
    found = load()
    assert urls(found) == found.chains["mainnet"].public_rpc


def test_variables_of_odd_chain_names():
    found = load('[chains."my-chain.2"]\nchain_id = 5\n', MY_CHAIN_2_RPC_URL="http://own")
    assert [endpoint.url for endpoint in found.endpoints(found.chains["my-chain.2"])] == ["http://own"]


def test_the_file_can_name_a_variable():
    found = load('[chains.mainnet]\nrpc = ["https://host/v2/${KEY}"]', KEY="abc")
    assert urls(found) == ["https://host/v2/abc"]


def test_a_missing_variable_matters_only_to_its_chain():
    found = load('[chains.mainnet]\nrpc = ["https://host/v2/${KEY}"]')
    assert found.endpoints(found.chains["base"])
    with pytest.raises(ConfigError, match=re.escape("chains.mainnet.rpc: the environment variable KEY is not set")):
        urls(found)


def test_a_chain_without_endpoint_says_how_to_name_one():
    found = load("[chains.x]\nchain_id = 5")
    with pytest.raises(ConfigError, match=r"^no endpoint for chain x; use --rpc-url URL or set X_RPC_URL$"):
        found.endpoints(found.chains["x"])


@pytest.mark.parametrize("url", ["ws://secret", "secret", "", "https://", "file:///secret"])
def test_what_is_no_url_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError, match=r"^--rpc-url: an endpoint must begin with http:// or https://$"):
        urls(load(), url)


def test_urls_do_not_show_in_representations():
    found = load(ETH_RPC_URL="http://secret")
    assert "secret" not in repr(found) + repr(found.endpoints(found.chains["mainnet"]))


KEY = "https://node.example/v3/0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    "text",
    [
        f"[chains.mainnet]\npublic_rpc = '{KEY}'",
        f"[chains.mainnet]\nrpc = '{KEY}'",
        f"[chains.mainnet]\nrpc = [['{KEY}']]",
        f"[chains.mainnet]\nexplorer = ['{KEY}']",
        f"[chains.mainnet]\nguard = '{KEY}'",
        f"[chains.mainnet]\nchain_id = ['{KEY}']",
        f"[chains.mainnet]\n'{KEY}' = 1",
        f"[chains.'{KEY}']\nchain_id = 1",
        f"['{KEY}']\nchain_id = 1",
        f"[alerts]\nstdout = '{KEY}'",
        f"[alerts]\nbelow = ['{KEY}']",
        f"[alerts]\ntarget = '{KEY}'",
        f"[alerts]\n'{KEY}' = 1",
        f"[groups]\n'{KEY}' = ['WETH']",
        f"[groups]\nmajors = '{KEY}'",
        f"[deployments.maker]\nchain = '{KEY}'",
        f"[deployments.maker]\nstart_block = '{KEY}'",
        f"[deployments.maker.addresses]\nvat = '{KEY}'",
        f"[deployments.maker.addresses]\n'{KEY}' = '{KEY}'",
        f"[settings]\nkeep_blocks = '{KEY}'",
    ],
)
def test_an_error_shows_no_value_that_may_be_a_secret(tmp_path: Path, text: str) -> None:
    path = tmp_path / "indexer.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        config.load(path, {})
    assert "0123456789abcdef" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("data", [b"a = " + b"[" * 100_000, b"a = " + b"1" * 5_000, b"\xff\xfea", b"#" * 2_000_000])
def test_a_configuration_that_is_none_is_one_line(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "indexer.toml"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        config.load(path, {})


def test_a_byte_order_mark_before_the_configuration_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "indexer.toml"
    path.write_bytes(b"\xef\xbb\xbf[settings]\nkeep_blocks = 7\n")
    assert config.load(path, {}).settings.keep_blocks == 7


toml_values = st.recursive(
    st.one_of(
        st.booleans(), st.integers(), st.floats(), st.text(max_size=10), st.sampled_from([KEY, "mainnet", "maker"])
    ),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@pytest.mark.slow
@given(
    st.sampled_from(["chains.mainnet", "chains.x", "deployments.maker", "deployments.maker.addresses", "settings", "alerts", "groups"]),
    st.dictionaries(
        st.one_of(
            st.sampled_from(
                ["chain_id", "rpc", "public_rpc", "guard", "explorer", "protocol", "chain", "start_block", "addresses", "vat",
                 "keep_blocks", "at_risk_below", "urls", "command", "below", "target", "blind_after_seconds", "majors"]
            ),
            st.text(max_size=6),
        ),
        toml_values,
        max_size=4,
    ),
)  # fmt: skip
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_table_is_taken_or_refused_in_one_line(tmp_path: Path, section: str, table: dict[str, Any]) -> None:
    lines = [
        f"{json.dumps(key)} = {json.dumps(value).replace('NaN', 'nan').replace('Infinity', 'inf')}"
        for key, value in table.items()
    ]
    path = tmp_path / "indexer.toml"
    path.write_text(f"[{section}]\n" + "\n".join(lines), encoding="utf-8")
    try:
        config.load(path, {})
    except ConfigError as error:
        said = str(error)
    else:
        said = ""
    assert "0123456789abcdef" not in said
