"""The account arithmetic of the Aave V3 versions no package has, on real 3.6 (or 3.0.2) contracts: stand-ins.

Only what an account's health, balances and liquidation depend on is put back to the older version (or forth to 3.7),
line by line as GenericLogic, LiquidationLogic, MathUtils and TokenMath of aave-v3-origin's tags have it; everything else
stays the code of the package.
"""

from collections.abc import Mapping
from dataclasses import replace
from random import Random

from tests.devnet.aave_v3 import OUTPUT, AaveV36, AaveV302, Listing, Reserve
from tests.devnet.aave_v3_scenario import LENDERS, Actions, crowd_borrows, crowd_enters, perform
from tests.devnet.contracts import Artifact, compile_contracts
from tests.devnet.node import Anvil
from tests.devnet.packages import package, sources
from tests.devnet.send import account

Edits = Mapping[str, tuple[tuple[str, str], ...]]  # end of a unit's name, or "" for all -> (old text, new text)

TRUNCATED_HEALTH = (
    "vars.avgLiquidationThreshold.wadDiv(vars.totalDebtInBaseCurrency) / 100_00",
    """vars.totalCollateralInBaseCurrency
        .percentMul(
          vars.totalCollateralInBaseCurrency == 0
            ? 0
            : vars.avgLiquidationThreshold / vars.totalCollateralInBaseCurrency
        )
        .wadDiv(vars.totalDebtInBaseCurrency)""",
)
HALF_UP = (("rayDivFloor", "rayDiv"), ("rayDivCeil", "rayDiv"), ("rayMulFloor", "rayMul"), ("rayMulCeil", "rayMul"))
OLD_COMPOUND = (
    "return WadRayMath.RAY + x + x.rayMul(x / 2 + x.rayMul(x / 6));",
    """uint256 power2 = rate.rayMul(rate) / (SECONDS_PER_YEAR * SECONDS_PER_YEAR);
      uint256 power3 = power2.rayMul(rate) / SECONDS_PER_YEAR;
      uint256 minusTwo = exp > 2 ? exp - 2 : 0;
      return WadRayMath.RAY + x + (exp * (exp - 1) * power2) / 2 + (exp * (exp - 1) * minusTwo * power3) / 6;""",
)


def revision(number: int) -> Edits:
    return {"instances/PoolInstance.sol": (("POOL_REVISION = 10;", f"POOL_REVISION = {number};"),)}


def merged(*parts: Edits) -> Edits:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for part in parts:
        for unit, edits in part.items():
            found[unit] = (*found.get(unit, ()), *edits)
    return found


V37: Edits = merged(
    revision(11),
    {
        "pool/Pool.sol": (
            (
                "  /// @inheritdoc IPool\n  function getUserEMode(",
                "  function getIsEModeCategoryIsolated(uint8) external pure returns (bool) {\n    return false;\n  }\n\n"
                "  /// @inheritdoc IPool\n  function getUserEMode(",
            ),
        ),
        "logic/LiquidationLogic.sol": (
            ("vars.baseCollateral.percentMul(", "vars.baseCollateral.percentMulFloor("),
            ("vars.collateralAmount.percentDiv(liquidationBonus)", "vars.collateralAmount * 100_00 / liquidationBonus"),
            ("vars.bonusCollateral.percentMul(", "vars.bonusCollateral.percentMulCeil("),
        ),
    },
)
# Functions that an older version lacks get another name, which changes their selectors and nothing else.
V35: Edits = merged(
    revision(9),
    {
        "": (("getEModeCategoryLtvzeroBitmap", "ltvzeroBitmapOfNewerVersion"),),
        "logic/GenericLogic.sol": (
            (
                "if (isEnabledAsCollateral) {",
                "if (vars.configurationCache.getLiquidationThreshold() != 0 && isEnabledAsCollateral) {",
            ),
        ),
    },
)
V34: Edits = merged(
    V35,
    {
        "instances/PoolInstance.sol": (("POOL_REVISION = 9;", "POOL_REVISION = 8;"),),
        "logic/GenericLogic.sol": (
            TRUNCATED_HEALTH,
            (
                "return MathUtils.mulDivCeil(userTotalDebt, assetPrice, assetUnit);",
                "return (userTotalDebt * assetPrice) / assetUnit;",
            ),
        ),
        "logic/LiquidationLogic.sol": (
            ("percentDivCeil(liquidationBonus)", "percentDiv(liquidationBonus)"),
            ("MathUtils.mulDivCeil(", "mulDivFloor("),
            (
                "  struct AvailableCollateralToLiquidateLocalVars {",
                "  function mulDivFloor(uint256 a, uint256 b, uint256 c) private pure returns (uint256) {\n"
                "    return (a * b) / c;\n  }\n\n  struct AvailableCollateralToLiquidateLocalVars {",
            ),
        ),
        "helpers/TokenMath.sol": HALF_UP,
    },
)
V33: Edits = merged(
    V34,
    {
        "": (("RESERVE_INTEREST_RATE_STRATEGY", "STRATEGY_OF_NEWER_VERSION"),),
        "instances/PoolInstance.sol": (("POOL_REVISION = 8;", "POOL_REVISION = 7;"),),
        "math/MathUtils.sol": (OLD_COMPOUND,),
    },
)
V32: Edits = merged(
    V33,
    {
        "": (("getReserveDeficit", "deficitOfNewerVersion"),),
        "instances/PoolInstance.sol": (("POOL_REVISION = 7;", "POOL_REVISION = 5;"),),
        "logic/LiquidationLogic.sol": (
            (
                "maxLiquidatableDebt = vars.borrowerReserveDebt;",
                "maxLiquidatableDebt = vars.borrowerReserveDebt.percentMul(\n"
                "      vars.healthFactor > CLOSE_FACTOR_HF_THRESHOLD ? DEFAULT_LIQUIDATION_CLOSE_FACTOR : 100_00\n    );",
            ),
            ("vars.healthFactor > CLOSE_FACTOR_HF_THRESHOLD\n    ) {", "false\n    ) {"),
            ("isDebtMoreThanLeftoverThreshold && isCollateralMoreThanLeftoverThreshold,", "true,"),
        ),
    },
)
ORIGIN: Mapping[str, Edits] = {"3.2": V32, "3.3": V33, "3.4": V34, "3.5": V35, "3.7": V37}


def apply(edits: Edits, files: dict[str, dict[str, str]]) -> None:
    """Make the edits in every unit they name; AssertionError if a text is not there (any more)."""
    for suffix, pairs in edits.items():
        units = [file for unit, file in files.items() if unit.endswith(suffix)]
        for old, new in pairs:
            assert any(old in file["content"] for file in units), (suffix, old)
            for file in units:
                file["content"] = file["content"].replace(old, new)


class OriginVariant(AaveV36):
    """A version between 3.2 and 3.7 on the code of 3.6."""

    def __init__(self, node: Anvil, version: str) -> None:
        self.edits = ORIGIN[version]
        super().__init__(node, f"aave-v3-{version.replace('.', '-')}-stand-in")

    def edit(self, files: dict[str, dict[str, str]]) -> None:
        apply(self.edits, files)

    def add_reserve(self, listing: Listing) -> Reserve:
        # Up to 3.5 an e-mode cannot make collateral of an asset that is none outside.
        if listing.symbol == "sUSDe":
            listing = replace(listing, ltv=7000, liquidation_threshold=7200, liquidation_bonus=10700)
        return super().add_reserve(listing)


V31: Edits = {
    "pool/Pool.sol": (
        ("POOL_REVISION = 0x1;", "POOL_REVISION = 4;"),
        (
            "  /// @inheritdoc IPool\n  function getUserEMode(",
            "  mapping(address => uint40) private grace;\n\n"
            "  function setGrace(address asset, uint40 until) external {\n    grace[asset] = until;\n  }\n\n"
            "  function getLiquidationGracePeriod(address asset) external view returns (uint40) {\n"
            "    return grace[asset];\n  }\n\n  /// @inheritdoc IPool\n  function getUserEMode(",
        ),
    )
}
UP = "function up(uint256 a, uint256 b) private pure returns (uint256) {\n    return (a + b - 1) / b;\n  }"
SPARK: Edits = {
    "pool/Pool.sol": (("POOL_REVISION = 0x1;", "POOL_REVISION = 0x2;"),),
    "logic/GenericLogic.sol": (
        ("userTotalDebt.rayMul(reserve.getNormalizedDebt())", "up(userTotalDebt * reserve.getNormalizedDebt(), 1e27)"),
        ("    userTotalDebt = assetPrice * userTotalDebt;\n", "    return up(assetPrice * userTotalDebt, assetUnit);\n"),
        ("    unchecked {\n      return userTotalDebt / assetUnit;\n    }\n", ""),
        (
            "scaledBalanceOf(user).rayMul(normalizedIncome)",
            "scaledBalanceOf(user) * normalizedIncome / 1e27",
        ),
        ("using PercentageMath for uint256;\n  using Res", UP + "\n\n  using PercentageMath for uint256;\n  using Res"),
    ),
    "tokenization/base/ScaledBalanceTokenBase.sol": (  # aTokens against their owner, debts against the debtor
        ("amount.rayDiv(index);\n    require(amountScaled != 0, Errors.INVALID_BURN_AMOUNT);",
         "(amount * 1e27 + (target == address(0) ? 0 : index - 1)) / index;"),
        ("amount.rayDiv(index).toUint128()", "((amount * 1e27 + index - 1) / index).toUint128()"),
    ),
    "logic/LiquidationLogic.sol": (
        ("vars.liquidationProtocolFeeAmount.rayDiv(\n        liquidityIndex\n      );",
         "(vars.liquidationProtocolFeeAmount * 1e27 + liquidityIndex - 1) / liquidityIndex;"),
        ("scaledDownUserBalance.rayMul(liquidityIndex)", "scaledDownUserBalance * liquidityIndex / 1e27"),
    ),
    "tokenization/AToken.sol": (
        (".rayMul(POOL.getReserveNormalizedIncome(_underlyingAsset))",
         " * POOL.getReserveNormalizedIncome(_underlyingAsset) / 1e27"),
    ),
    "tokenization/VariableDebtToken.sol": (
        ("return scaledBalance.rayMul(POOL.getReserveNormalizedVariableDebt(_underlyingAsset));",
         "return (scaledBalance * POOL.getReserveNormalizedVariableDebt(_underlyingAsset) + 1e27 - 1) / 1e27;"),
        ("return super.totalSupply().rayMul(POOL.getReserveNormalizedVariableDebt(_underlyingAsset));",
         "return (super.totalSupply() * POOL.getReserveNormalizedVariableDebt(_underlyingAsset) + 1e27 - 1) / 1e27;"),
    ),
}  # fmt: skip
UNTRUNCATED_HEALTH = (
    "(vars.totalCollateralInBaseCurrency.percentMul(vars.avgLiquidationThreshold)).wadDiv(\n"
    "        vars.totalDebtInBaseCurrency\n      );",
    "sumOfThresholds.wadDiv(vars.totalDebtInBaseCurrency) / 10_000;",
)
SPARK_UNTRUNCATED: Edits = merged(
    SPARK,
    {
        "logic/GenericLogic.sol": (
            UNTRUNCATED_HEALTH,
            (
                "    unchecked {\n      vars.avgLtv = ",
                "    uint256 sumOfThresholds = vars.avgLiquidationThreshold;\n    unchecked {\n      vars.avgLtv = ",
            ),
        )
    },
)
CORE: Mapping[str, Edits] = {"3.1": V31, "spark": SPARK, "spark-untruncated": SPARK_UNTRUNCATED}


class CoreVariant(AaveV302):
    """Aave 3.1, or SparkLend's own line, on the code of 3.0.2."""

    def __init__(self, node: Anvil, version: str) -> None:
        self.edits = CORE[version]
        super().__init__(node, f"aave-v3-{version.replace('.', '-')}-stand-in")

    def load_artifacts(self) -> dict[str, Artifact]:
        root = package("@aave/core-v3", "1.19.3") / "contracts"
        artifacts = super().load_artifacts()
        entries = ["protocol/pool/Pool.sol", "protocol/pool/PoolConfigurator.sol"]
        entries += [f"protocol/tokenization/{name}.sol" for name in ("AToken", "StableDebtToken", "VariableDebtToken")]
        files = sources({f"contracts/{entry}": root / entry for entry in entries}, {})
        apply(self.edits, files)
        settings = {"evmVersion": "london", "outputSelection": {"*": dict.fromkeys(artifacts, OUTPUT)}}
        return {**artifacts, **compile_contracts("0.8.10", files, settings)}


class SparkVariant(CoreVariant):
    """SparkLend's line; its tokens' balances are rounded anew but minted as before."""

    def populate(self, seed: int, users: int) -> None:
        rng = Random(seed)
        self.cast = {}
        self.crowd = [account(f"wallet {i}") for i in range(users)]
        act = Actions(self)
        lenders = [account(f"{self.name} lender {i}") for i in range(LENDERS)]
        deposits = [act.supply(who, symbol, act.amount(symbol, 10**7)) for who in lenders for symbol in self.reserves]
        perform(self, rng, deposits, must=True)
        crowd_enters(self, rng, act)
        crowd_borrows(self, rng, act)
        self.node.elapse(86_400)


def deploy(node: Anvil, version: str) -> AaveV302 | AaveV36:
    """Deploy a stand-in for one of the versions of ORIGIN or CORE."""
    if version in ORIGIN:
        return OriginVariant(node, version)
    return SparkVariant(node, version) if version.startswith("spark") else CoreVariant(node, version)
