"""Real Aave V3 markets: 3.0.2 (also Spark's logic) from core-v3's artifacts, and 3.6 compiled from its source."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eth_abi.abi import encode

from tests.devnet import aave_v3_scenario
from tests.devnet.contracts import Artifact, common_contracts, compile_contracts, hardhat_artifact
from tests.devnet.node import Anvil
from tests.devnet.packages import installed, package, sources
from tests.devnet.scenario import Devnet
from tests.devnet.send import Sender, account

ZERO = "0x" + "00" * 20
RAY = 10**27
MAX_UINT = 2**256 - 1
USD = 10**8
ACCOUNT_DATA = "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"
# aToken balance, stable debt, variable debt, stable principal, scaled variable debt, three rates, used as collateral
USER_RESERVE = (
    "getUserReserveData(address,address)(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint40,bool)"
)
CORE_INIT = (
    "initReserves((address,address,address,uint8,address,address,address,address,"
    "string,string,string,string,string,string,bytes)[])"
)
ORIGIN_INIT = "initReserves((address,address,address,string,string,string,string,bytes,bytes)[])"
ORIGIN_CONTRACTS = {
    "PoolAddressesProvider": "protocol/configuration/PoolAddressesProvider.sol",
    "ACLManager": "protocol/configuration/ACLManager.sol",
    "AaveOracle": "misc/AaveOracle.sol",
    "DefaultReserveInterestRateStrategyV2": "misc/DefaultReserveInterestRateStrategyV2.sol",
    "AaveProtocolDataProvider": "helpers/AaveProtocolDataProvider.sol",
    "PoolInstance": "instances/PoolInstance.sol",
    "PoolConfiguratorInstance": "instances/PoolConfiguratorInstance.sol",
    "ATokenInstance": "instances/ATokenInstance.sol",
    "VariableDebtTokenInstance": "instances/VariableDebtTokenInstance.sol",
}
OUTPUT = ["abi", "evm.bytecode.object", "evm.bytecode.linkReferences"]
ETH_MODE, STABLE_MODE, SUSDE_MODE, SHRUNK_MODE = 1, 2, 3, 4


@dataclass(frozen=True)
class Listing:
    """How an asset is listed: price in 1e-8 USD, thresholds in basis points as the configurator takes them."""

    symbol: str
    decimals: int
    price: int
    ltv: int
    liquidation_threshold: int
    liquidation_bonus: int
    stable_borrowing: bool = False


@dataclass(frozen=True)
class Reserve:
    """A listed asset with its contracts; `stable_debt` is the zero address where stable debt is gone."""

    listing: Listing
    asset: str
    feed: str
    a_token: str
    stable_debt: str
    variable_debt: str


@dataclass(frozen=True)
class EMode:
    """An e-mode category; `price_source` (up to 3.1) is the symbol of a feed the oracle knows, or None.

    Up to 3.1 an asset belongs to at most one category, as collateral and as debt at once: `collateral`.
    """

    category: int
    label: str
    ltv: int
    liquidation_threshold: int
    liquidation_bonus: int
    collateral: tuple[str, ...]
    borrowable: tuple[str, ...]
    price_source: str | None = None


LISTINGS = (
    Listing("WETH", 18, 3000 * USD, 8000, 8250, 10500),
    Listing("USDC", 6, 1 * USD, 7700, 8000, 10450, stable_borrowing=True),
    Listing("WBTC", 8, 60_000 * USD, 7000, 7500, 10650),
    Listing("DAI", 18, 99_990_000, 7500, 7900, 10500, stable_borrowing=True),
    Listing("wstETH", 18, 351_234_567_890, 7900, 8100, 10600),
    Listing("LINK", 18, 15 * USD, 5300, 6800, 10700),
    Listing("USDT", 6, 100_010_000, 0, 0, 0),
    Listing("sUSDe", 18, 117_000_000, 0, 0, 0),
)


@dataclass
class Contracts:
    """Addresses of a deployed market."""

    provider: str = ""
    pool: str = ""
    configurator: str = ""
    oracle: str = ""
    data_provider: str = ""
    acl_manager: str = ""
    rate_strategy: str = ""
    token_implementations: dict[str, str] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=dict)


class AaveV3(Devnet):
    """One Aave V3 market; the subclasses are its versions.

    `contracts` and `reserves` (by symbol) hold the addresses; `treasury` collects fees as aTokens. After `populate`,
    `cast` names one account per situation, `crowd` lists the random users, `liquidated` those who were. Beside the
    common interface there are the administrator's acts (`pause`, `freeze`, `add_reserve`, `add_emode`, `upgrade_pool`).
    """

    protocol = "aave-v3"
    revision: int
    stable_rates: bool

    def __init__(self, node: Anvil, name: str) -> None:
        super().__init__(node, Sender(node, account(f"{name} admin")))
        self.name = name
        self.treasury = account(f"{name} treasury")
        self.liquidator = account(f"{name} liquidator")
        self.start_block = node.block_number()
        self.common = common_contracts()
        self.artifacts = self.load_artifacts()
        for artifact in self.artifacts.values():
            self.sender.know_errors(artifact.errors)
        self.contracts = Contracts()
        self.reserves: dict[str, Reserve] = {}
        self.emodes: dict[int, EMode] = {}
        self.extra_feeds: dict[str, tuple[str, str]] = {}
        self.cast: dict[str, str] = {}
        self.crowd: list[str] = []
        self.liquidated: set[str] = set()
        self.deploy_market()
        self.addresses = {"pool_addresses_provider": self.contracts.provider}
        self.flash_receiver = self.sender.deploy(self.common["FlashReceiver"])
        for listing in LISTINGS:
            self.add_reserve(listing)
        self.add_default_emodes()
        self.touched(self.treasury)

    @abstractmethod
    def load_artifacts(self) -> dict[str, Artifact]:
        """The version's compiled contracts."""

    @abstractmethod
    def deploy_configurator(self) -> str:
        """Deploy the configurator's implementation."""

    @abstractmethod
    def deploy_pool(self, revision: int | None = None) -> str:
        """Deploy a pool implementation, with another POOL_REVISION if one is given."""

    @abstractmethod
    def deploy_tokens(self) -> None:
        """Deploy the token implementations that all reserves share."""

    @abstractmethod
    def init_reserve(self, listing: Listing, asset: str) -> None:
        """The configurator's `initReserves` of this version."""

    @abstractmethod
    def add_default_emodes(self) -> None:
        """The e-modes a new market starts with."""

    @abstractmethod
    def add_emode(self, emode: EMode) -> None:
        """Create an e-mode category, or change its numbers and add assets to it."""

    @abstractmethod
    def set_emode_collateral(self, category: int, symbol: str, collateral: bool) -> None:
        """Put an asset in or out of a category, whoever uses it there."""

    def deploy_market(self) -> None:
        """Deploy everything but the reserves, in the order of the protocol's own scripts."""
        sender, contracts, admin = self.sender, self.contracts, self.sender.default
        contracts.provider = provider = sender.deploy(self.artifacts["PoolAddressesProvider"], [self.name, admin])
        sender.send(provider, "setACLAdmin(address)", [admin])
        contracts.acl_manager = sender.deploy(self.artifacts["ACLManager"], [provider])
        sender.send(provider, "setACLManager(address)", [contracts.acl_manager])
        for role in ("addPoolAdmin", "addEmergencyAdmin", "addRiskAdmin", "addAssetListingAdmin"):
            sender.send(contracts.acl_manager, f"{role}(address)", [admin])
        contracts.oracle = sender.deploy(self.artifacts["AaveOracle"], [provider, [], [], ZERO, ZERO, USD])
        sender.send(provider, "setPriceOracle(address)", [contracts.oracle])
        sender.send(provider, "setPoolImpl(address)", [self.deploy_pool()])
        sender.send(provider, "setPoolConfiguratorImpl(address)", [self.deploy_configurator()])
        contracts.pool = sender.call(provider, "getPool()(address)")
        contracts.configurator = sender.call(provider, "getPoolConfigurator()(address)")
        contracts.data_provider = sender.deploy(self.artifacts["AaveProtocolDataProvider"], [provider])
        sender.send(provider, "setPoolDataProvider(address)", [contracts.data_provider])
        self.deploy_tokens()

    def configure(self, function: str, *args: Any) -> None:
        """Send a call to the PoolConfigurator as the administrator."""
        self.sender.send(self.contracts.configurator, function, args)

    def add_reserve(self, listing: Listing) -> Reserve:
        """List a new asset and open it for borrowing."""
        symbol = listing.symbol
        asset = self.sender.deploy(self.common["Token"], [symbol, symbol, listing.decimals])
        feed = self.sender.deploy(self.common["Feed"], [8, listing.price])
        self.sender.send(self.contracts.oracle, "setAssetSources(address[],address[])", [[asset], [feed]])
        self.init_reserve(listing, asset)
        self.configure("setReserveBorrowing(address,bool)", asset, True)
        self.configure("setReserveFlashLoaning(address,bool)", asset, True)
        self.configure("setReserveFactor(address,uint256)", asset, 1000)
        if listing.liquidation_threshold:
            self.configure("setLiquidationProtocolFee(address,uint256)", asset, 1000)
        self.configure_collateral(asset, listing.ltv, listing.liquidation_threshold, listing.liquidation_bonus)
        tokens = self.sender.call(
            self.contracts.data_provider, "getReserveTokensAddresses(address)(address,address,address)", [asset]
        )
        self.reserves[symbol] = reserve = Reserve(listing, asset, feed, *tokens)
        return reserve

    def configure_collateral(self, asset: str, ltv: int, liquidation_threshold: int, liquidation_bonus: int) -> None:
        """Change a reserve's thresholds; a threshold of 0 is refused once somebody supplies."""
        self.configure(
            "configureReserveAsCollateral(address,uint256,uint256,uint256)",
            asset, ltv, liquidation_threshold, liquidation_bonus,
        )  # fmt: skip

    def pause(self, symbol: str, paused: bool = True) -> None:
        self.configure("setReservePause(address,bool)", self.reserves[symbol].asset, paused)

    def freeze(self, symbol: str, frozen: bool = True) -> None:
        self.configure("setReserveFreeze(address,bool)", self.reserves[symbol].asset, frozen)

    def upgrade_pool(self, revision: int) -> str:
        """Put in a pool implementation with the same code and another POOL_REVISION; its address."""
        implementation = self.deploy_pool(revision)
        self.sender.send(self.contracts.provider, "setPoolImpl(address)", [implementation])
        self.revision = revision
        return implementation

    def price(self, symbol: str) -> int:
        feed = self.extra_feeds[symbol][1] if symbol in self.extra_feeds else self.reserves[symbol].feed
        return int(self.sender.call(feed, "latestAnswer()(int256)"))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a feed's answer in 1e-8 USD, with no event; 0 or less makes the asset unpriceable."""
        feed = self.extra_feeds[symbol][1] if symbol in self.extra_feeds else self.reserves[symbol].feed
        self.sender.send(feed, "set(int256)", [raw])

    def replace_feed(self, symbol: str, price: int) -> None:
        """Give an asset a new feed, which the oracle announces with `AssetSourceUpdated`."""
        old = self.reserves[symbol]
        feed = self.sender.deploy(self.common["Feed"], [8, price])
        self.sender.send(self.contracts.oracle, "setAssetSources(address[],address[])", [[old.asset], [feed]])
        self.reserves[symbol] = Reserve(old.listing, old.asset, feed, old.a_token, old.stable_debt, old.variable_debt)

    def add_extra_feed(self, symbol: str, price: int) -> str:
        """Let the oracle price an address that is no reserve (an e-mode's price source); the address."""
        address = account(f"{self.name} {symbol}")
        feed = self.sender.deploy(self.common["Feed"], [8, price])
        self.sender.send(self.contracts.oracle, "setAssetSources(address[],address[])", [[address], [feed]])
        self.extra_feeds[symbol] = (address, feed)
        return address

    def answer(self, account: str, block: int | str = "latest") -> tuple[int, int, int, int, int, int]:
        """`getUserAccountData`: collateral, debt, available borrows, threshold, LTV, health factor."""
        (answer,) = self.answers([account], block)
        return answer

    def answers(
        self, accounts: Sequence[str], block: int | str = "latest"
    ) -> list[tuple[int, int, int, int, int, int]]:
        """`answer` of many accounts in few requests."""
        rows: list[tuple[int, int, int, int, int, int]] = []
        for start in range(0, len(accounts), 1000):
            chunk = accounts[start : start + 1000]
            rows += self.sender.calls([(self.contracts.pool, ACCOUNT_DATA, [a]) for a in chunk], block=block)
        return rows

    def user_reserves(self, account: str, block: int | str = "latest") -> dict[str, tuple[Any, ...]]:
        """The data provider's `getUserReserveData` by symbol: aToken balance, stable debt, variable debt, ..."""
        provider = self.contracts.data_provider
        rows = self.sender.calls(
            [(provider, USER_RESERVE, [reserve.asset, account]) for reserve in self.reserves.values()], block=block
        )
        return dict(zip(self.reserves, rows, strict=True))

    def populate(self, seed: int, users: int) -> None:
        aave_v3_scenario.populate(self, seed, users)

    def step(self, seed: int) -> None:
        aave_v3_scenario.step(self, seed)

    def liquidate(self, account: str, *, receive_a_token: bool = False, liquidator: str | None = None) -> bool:
        """Liquidate as much as allowed of an account's largest debt for its largest collateral; whether it worked."""
        return aave_v3_scenario.liquidate(self, account, receive_a_token, liquidator or self.liquidator)


class AaveV302(AaveV3):
    """Aave 3.0.2: POOL_REVISION 1, stable debt, one e-mode per asset, e-modes with a price source."""

    revision = 1
    stable_rates = True

    def load_artifacts(self) -> dict[str, Artifact]:
        folder = package("@aave/core-v3", "1.19.3") / "artifacts" / "contracts"
        wanted = {
            "PoolAddressesProvider", "ACLManager", "AaveOracle", "AaveProtocolDataProvider", "Pool",
            "PoolConfigurator", "DefaultReserveInterestRateStrategy", "AToken", "StableDebtToken",
            "VariableDebtToken", "BorrowLogic", "BridgeLogic", "ConfiguratorLogic", "EModeLogic", "FlashLoanLogic",
            "LiquidationLogic", "PoolLogic", "SupplyLogic",
        }  # fmt: skip
        return {file.stem: hardhat_artifact(file) for file in folder.rglob("*.json") if file.stem in wanted}

    def deploy_configurator(self) -> str:
        address = self.sender.deploy_linked(self.artifacts, "PoolConfigurator", libraries=self.contracts.libraries)
        self.sender.send(address, "initialize(address)", [self.contracts.provider])
        return address

    def deploy_pool(self, revision: int | None = None) -> str:
        artifacts = self.artifacts
        if revision is not None:
            root = package("@aave/core-v3", "1.19.3") / "contracts"
            files = sources({"contracts/protocol/pool/Pool.sol": root / "protocol/pool/Pool.sol"}, {})
            change_revision(files["contracts/protocol/pool/Pool.sol"], "POOL_REVISION = 0x1;", revision)
            settings = {"evmVersion": "london", "outputSelection": {"*": {"Pool": OUTPUT}}}
            artifacts = {**artifacts, **compile_contracts("0.8.10", files, settings)}
        return self.sender.deploy_linked(
            artifacts, "Pool", [self.contracts.provider], libraries=self.contracts.libraries
        )

    def deploy_tokens(self) -> None:
        for name in ("AToken", "StableDebtToken", "VariableDebtToken"):
            self.contracts.token_implementations[name] = self.sender.deploy(self.artifacts[name], [self.contracts.pool])
        percent = RAY // 100
        self.contracts.rate_strategy = self.sender.deploy(
            self.artifacts["DefaultReserveInterestRateStrategy"],
            [self.contracts.provider, 80 * percent, percent, 4 * percent, 75 * percent, 2 * percent, 75 * percent,
             2 * percent, 5 * percent, 20 * percent],
        )  # fmt: skip

    def init_reserve(self, listing: Listing, asset: str) -> None:
        symbol = listing.symbol
        tokens = self.contracts.token_implementations
        row = (
            tokens["AToken"], tokens["StableDebtToken"], tokens["VariableDebtToken"], listing.decimals,
            self.contracts.rate_strategy, asset, self.treasury, ZERO, f"Aave {symbol}", f"a{symbol}",
            f"Aave variable debt {symbol}", f"variableDebt{symbol}", f"Aave stable debt {symbol}",
            f"stableDebt{symbol}", b"",
        )  # fmt: skip
        self.configure(CORE_INIT, [row])
        if listing.stable_borrowing:
            self.configure("setReserveBorrowing(address,bool)", asset, True)
            self.configure("setReserveStableRateBorrowing(address,bool)", asset, True)

    def add_default_emodes(self) -> None:
        self.add_extra_feed("EUSD", 99_700_000)
        self.add_emode(EMode(ETH_MODE, "ETH correlated", 9000, 9300, 10100, ("WETH", "wstETH"), ("WETH", "wstETH")))
        stable = ("USDC", "DAI", "USDT")
        self.add_emode(EMode(STABLE_MODE, "Stablecoins", 9300, 9500, 10100, stable, stable, price_source="EUSD"))

    def add_emode(self, emode: EMode) -> None:
        source = self.extra_feeds[emode.price_source][0] if emode.price_source else ZERO
        self.configure(
            "setEModeCategory(uint8,uint16,uint16,uint16,address,string)",
            emode.category, emode.ltv, emode.liquidation_threshold, emode.liquidation_bonus, source, emode.label,
        )  # fmt: skip
        for symbol in emode.collateral:
            self.set_emode_collateral(emode.category, symbol, True)
        self.emodes[emode.category] = emode

    def set_emode_collateral(self, category: int, symbol: str, collateral: bool) -> None:
        asset = self.reserves[symbol].asset
        self.configure("setAssetEModeCategory(address,uint8)", asset, category if collateral else 0)


class AaveV36(AaveV3):
    """Aave 3.6: POOL_REVISION 10, explicit rounding, e-modes as bitmaps, no stable debt, deficits instead of bad debt."""

    revision = 10
    stable_rates = False

    def compile(self, contracts: Sequence[str], revision: int | None = None) -> dict[str, Artifact]:
        """Compile these contracts and the libraries they link, the pool with another revision if one is given."""
        source = installed("@aave-dao/aave-v3-origin", "3.6.0")
        modules = source.parent.parent
        roots = {
            "openzeppelin-contracts/": modules / "@openzeppelin",
            "solidity-utils/": modules / "@bgd-labs" / "solidity-utils" / "src",
        }
        units = {name: f"src/contracts/{ORIGIN_CONTRACTS[name]}" for name in contracts}
        files = sources({unit: source / unit for unit in units.values()}, roots)
        if revision is not None:
            change_revision(files[units["PoolInstance"]], "POOL_REVISION = 10;", revision)
        self.edit(files)
        logic = [unit for unit in files if unit.startswith("src/contracts/protocol/libraries/logic/")]
        selection = {unit: {name: OUTPUT} for name, unit in units.items()}
        if revision is None:
            selection |= {unit: {"*": OUTPUT} for unit in logic}
        return compile_contracts("0.8.27", files, {"evmVersion": "cancun", "outputSelection": selection})

    def edit(self, files: dict[str, dict[str, str]]) -> None:
        """Change the sources before they are compiled, for a version that is told apart by a few lines."""

    def load_artifacts(self) -> dict[str, Artifact]:
        return self.compile(list(ORIGIN_CONTRACTS))

    def deploy_configurator(self) -> str:
        return self.sender.deploy_linked(self.artifacts, "PoolConfiguratorInstance", libraries=self.contracts.libraries)

    def deploy_pool(self, revision: int | None = None) -> str:
        provider, contracts = self.contracts.provider, self.contracts
        if not contracts.rate_strategy:
            contracts.rate_strategy = self.sender.deploy(
                self.artifacts["DefaultReserveInterestRateStrategyV2"], [provider]
            )
        artifacts = self.artifacts if revision is None else self.compile(["PoolInstance"], revision)
        return self.sender.deploy_linked(
            artifacts, "PoolInstance", [provider, contracts.rate_strategy], libraries=contracts.libraries
        )

    def deploy_tokens(self) -> None:
        pool, tokens = self.contracts.pool, self.contracts.token_implementations
        tokens["AToken"] = self.sender.deploy(self.artifacts["ATokenInstance"], [pool, ZERO, self.treasury])
        tokens["VariableDebtToken"] = self.sender.deploy(self.artifacts["VariableDebtTokenInstance"], [pool, ZERO])

    def init_reserve(self, listing: Listing, asset: str) -> None:
        symbol = listing.symbol
        tokens = self.contracts.token_implementations
        rates = encode(["uint16", "uint32", "uint32", "uint32"], [8000, 100, 400, 7500])
        row = (
            tokens["AToken"], tokens["VariableDebtToken"], asset, f"Aave {symbol}", f"a{symbol}",
            f"Aave variable debt {symbol}", f"variableDebt{symbol}", b"", rates,
        )  # fmt: skip
        self.configure(ORIGIN_INIT, [row])

    def add_default_emodes(self) -> None:
        eth = ("WETH", "wstETH")
        self.add_emode(EMode(ETH_MODE, "ETH correlated", 9000, 9300, 10100, eth, ("WETH",)))
        self.add_emode(EMode(STABLE_MODE, "Stablecoins", 9300, 9500, 10100, ("USDC", "DAI"), ("USDC", "DAI", "USDT")))
        # sUSDe has no threshold of its own: it is collateral in this category only.
        self.add_emode(EMode(SUSDE_MODE, "sUSDe", 8800, 9100, 10300, ("sUSDe",), ("USDC", "DAI", "USDT")))
        shrinking = ("wstETH", "USDC")
        self.add_emode(EMode(SHRUNK_MODE, "Shrinking", 8500, 9000, 10300, shrinking, ("USDC", "DAI")))

    def add_emode(self, emode: EMode) -> None:
        self.configure(
            "setEModeCategory(uint8,uint16,uint16,uint16,string)",
            emode.category, emode.ltv, emode.liquidation_threshold, emode.liquidation_bonus, emode.label,
        )  # fmt: skip
        for symbol in emode.collateral:
            self.set_emode_collateral(emode.category, symbol, True)
        for symbol in emode.borrowable:
            asset = self.reserves[symbol].asset
            self.configure("setAssetBorrowableInEMode(address,uint8,bool)", asset, emode.category, True)
        self.emodes[emode.category] = emode

    def grant_grace(self, symbol: str, seconds: int) -> None:
        """No liquidation that touches this reserve for so long, as after the end of a pause."""
        self.configure("setReservePause(address,bool,uint40)", self.reserves[symbol].asset, False, seconds)

    def set_emode_collateral(self, category: int, symbol: str, collateral: bool) -> None:
        asset = self.reserves[symbol].asset
        self.configure("setAssetCollateralInEMode(address,uint8,bool)", asset, category, collateral)


def change_revision(source: dict[str, str], constant: str, revision: int) -> None:
    """Replace a contract's revision constant in its source text."""
    assert source["content"].count(constant) == 1
    source["content"] = source["content"].replace(constant, f"{constant.partition('=')[0]}= {revision};")


def deploy(node: Anvil, version: str = "3.0.2") -> AaveV3:
    """Deploy a market of version "3.0.2" or "3.6"; several can live on one node."""
    if version == "3.0.2":
        return AaveV302(node, "aave-v3-0-devnet")
    if version == "3.6":
        return AaveV36(node, "aave-v3-6-devnet")
    raise ValueError(f"no Aave V3 {version} here")
