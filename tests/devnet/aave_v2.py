"""Aave V2 on a local node: the contracts of npm `@aave/protocol-v2`, and everything a user or an admin can do to them."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any, Literal

from tests.devnet import aave_v2_scenario
from tests.devnet.contracts import Artifact, compile_contracts, hardhat_artifact
from tests.devnet.node import Anvil
from tests.devnet.packages import package, sources
from tests.devnet.scenario import Devnet
from tests.devnet.send import Sender, account, calldata

PACKAGE = ("@aave/protocol-v2", "1.0.1")
ZERO = "0x" + "00" * 20
UINT_MAX = 2**256 - 1
RICHES = 2**128
RAY = 10**27
WAD = 10**18
STABLE, VARIABLE = 1, 2

#: which of its answers a rebase moves, `scaledBalanceOf` too (the real aSTETH) or `balanceOf` alone
Rebasing = Literal["scaled", "balance"]


@dataclass(frozen=True)
class Reserve:
    """A reserve's setting; `price` is ETH wei per whole token, percentages in basis points, rates in per cent."""

    symbol: str
    decimals: int
    price: int
    ltv: int
    liquidation_threshold: int
    liquidation_bonus: int
    reserve_factor: int = 1000
    borrowing: bool = True
    stable_borrowing: bool = True
    variable_slope2: int = 75


RESERVES = (
    Reserve("WETH", 18, WAD, 8000, 8250, 10500),
    Reserve("WBTC", 8, 15_123456789012345678, 7000, 7500, 11000, reserve_factor=2000),
    Reserve("USDC", 6, 500123456789012, 8000, 8500, 10500),
    Reserve("DAI", 18, 499987654321098, 7500, 8000, 10500),
    Reserve("LINK", 18, 7345678901234567, 7000, 7500, 11000, reserve_factor=2000),
    # two decimals, no collateral (its liquidation threshold is 0), steep rates so that a rebalance is allowed
    Reserve("GUSD", 2, 500000000000000, 0, 0, 0, variable_slope2=300),
)
STETH = Reserve("STETH", 18, 987654321012345678, 7000, 7500, 10750, borrowing=False, stable_borrowing=False)


@dataclass(frozen=True)
class ReserveTokens:
    """A listed reserve's addresses."""

    asset: str
    a_token: str
    stable_debt: str
    variable_debt: str


def artifact(name: str) -> Artifact:
    """One contract of the package by its name."""
    root = package(*PACKAGE) / "artifacts" / "contracts"
    (path,) = root.rglob(f"{name}.sol/{name}.json")
    return hardhat_artifact(path)


def patched(unit: str, changes: dict[str, tuple[str, int]]) -> Artifact:
    """A contract of the package compiled with textual changes: old text -> (new text, how often it occurs)."""
    found = sources({unit: package(*PACKAGE) / unit}, {})
    text = found[unit]["content"]
    for old, (new, count) in changes.items():
        if text.count(old) != count:
            raise ValueError(f"{unit} of {PACKAGE} holds {old!r} {text.count(old)} times, not {count}")
        text = text.replace(old, new)
    found[unit] = {"content": text}
    return compile_contracts("0.6.12", found)[Path(unit).stem]


@cache
def rebasing_a_token(rebasing: Rebasing) -> Artifact:
    """A stand-in for aSTETH: the package's AToken with an index that moves every balance and logs nothing.

    It follows aave/protocol-v2 contracts/protocol/tokenization/lido/AStETH.sol, rounding included, but keeps the index
    itself where AStETH asks stETH for it. "scaled" answers as AStETH does: a rebase moves `scaledBalanceOf`, and
    `balanceOf == rayMul(scaledBalanceOf, income)` holds at each block. "balance" keeps `scaledBalanceOf` and moves
    `balanceOf` alone.
    """
    additions = """
  uint256 private _rebasingIndex;

  function setRebasingIndex(uint256 index) external {
    _rebasingIndex = index;
  }

  function rebasingIndex() public view returns (uint256) {
    return _rebasingIndex == 0 ? 1e27 : _rebasingIndex;
  }

  function internalBalanceOf(address user) external view returns (uint256) {
    return super.balanceOf(user);
  }

  function internalTotalSupply() external view returns (uint256) {
    return super.totalSupply();
  }

  function _rebased(uint256 internalAmount) internal view returns (uint256) {
    return internalAmount * rebasingIndex() / 1e27;
  }

  function _toInternal(uint256 amount, uint256 index) internal view returns (uint256) {
    return (amount * 1e27 / rebasingIndex()).rayDiv(index);
  }

  modifier onlyLendingPool {"""
    changes = {
        "  modifier onlyLendingPool {": (additions, 1),
        "amount.rayDiv(index)": ("_toInternal(amount, index)", 4),
        "super.balanceOf(user).rayMul(": ("_rebased(super.balanceOf(user)).rayMul(", 1),
        "super.balanceOf(from).rayMul(": ("_rebased(super.balanceOf(from)).rayMul(", 1),
        "super.balanceOf(to).rayMul(": ("_rebased(super.balanceOf(to)).rayMul(", 1),
        "currentSupplyScaled = super.totalSupply()": ("currentSupplyScaled = _rebased(super.totalSupply())", 1),
    }
    if rebasing == "scaled":
        changes |= {
            "(address user) external view override returns (uint256) {\n    return super.balanceOf(user);": (
                "(address user) external view override returns (uint256) {\n    return _rebased(super.balanceOf(user));",
                1,
            ),
            "return (super.balanceOf(user), super.totalSupply());": (
                "return (_rebased(super.balanceOf(user)), _rebased(super.totalSupply()));",
                1,
            ),
            "virtual override returns (uint256) {\n    return super.totalSupply();": (
                "virtual override returns (uint256) {\n    return _rebased(super.totalSupply());",
                1,
            ),
        }
    return patched("contracts/protocol/tokenization/AToken.sol", changes)


class AaveV2(Devnet):
    """One Aave V2 market; every action records who touched it and who had debt.

    `bystanders` show in its logs but never held an aToken or a debt (a delegatee who borrows for another, a liquidator
    who is paid in the underlying, the receiver of a transfer of 0): they are not among `users`.
    """

    protocol = "aave-v2"

    def __init__(self, node: Anvil, sender: Sender | None, name: str) -> None:
        super().__init__(node, sender)
        self.name = name
        self.reserves: dict[str, Reserve] = {}
        self.tokens: dict[str, ReserveTokens] = {}
        self.bystanders: set[str] = set()
        #: the accounts of the scenario's special situations: name -> account
        self.cast: dict[str, str] = {}
        #: what the scenario believes it supplied and borrowed; a hint for its next random action
        self.supplied: dict[str, frozenset[str]] = {}
        self.borrowed: dict[str, frozenset[tuple[str, int]]] = {}
        self.rich: set[tuple[str, str]] = set()
        self.rebasing: Rebasing | None = None
        self.fallback_oracle: str | None = None
        self.pool_revision = 2

    def touched(self, *accounts: str) -> None:
        super().touched(*accounts)
        self.bystanders.difference_update(accounts)

    def populate(self, seed: int, users: int) -> None:
        aave_v2_scenario.populate(self, seed, users)

    def step(self, seed: int) -> None:
        aave_v2_scenario.step(self, seed)

    # Deployment

    def deploy(self) -> None:
        """Deploy the market without reserves."""
        deploy, send = self.sender.deploy, self.sender.send
        self.start_block = self.node.block_number()
        admin = self.sender.default
        self.treasury = account(f"{self.name} treasury")
        self.registry = deploy(artifact("LendingPoolAddressesProviderRegistry"))
        self.provider = deploy(artifact("LendingPoolAddressesProvider"), ["devnet"])
        send(self.registry, "registerAddressesProvider(address,uint256)", [self.provider, 1])
        send(self.provider, "setPoolAdmin(address)", [admin])
        send(self.provider, "setEmergencyAdmin(address)", [admin])
        generic = deploy(artifact("GenericLogic"))
        self.libraries = {
            "ReserveLogic": deploy(artifact("ReserveLogic")),
            "ValidationLogic": deploy(artifact("ValidationLogic"), libraries={"GenericLogic": generic}),
        }
        pool = deploy(artifact("LendingPool"), libraries=self.libraries)
        send(self.provider, "setLendingPoolImpl(address)", [pool])
        self.pool = self.sender.call(self.provider, "getLendingPool()(address)").lower()
        configurator = deploy(artifact("LendingPoolConfigurator"))
        send(self.provider, "setLendingPoolConfiguratorImpl(address)", [configurator])
        self.configurator = self.sender.call(self.provider, "getLendingPoolConfigurator()(address)").lower()
        send(
            self.provider,
            "setLendingPoolCollateralManager(address)",
            [deploy(artifact("LendingPoolCollateralManager"))],
        )
        self.rate_oracle = deploy(artifact("LendingRateOracle"))
        send(self.provider, "setLendingRateOracle(address)", [self.rate_oracle])
        self.data_provider = deploy(artifact("AaveProtocolDataProvider"), [self.provider])
        # the real market keeps it under 0x01
        send(self.provider, "setAddress(bytes32,address)", [b"\x01" + bytes(31), self.data_provider])
        self.addresses = {"lending_pool_addresses_provider": self.provider}

    def add_reserve(self, reserve: Reserve, *, rebasing: Rebasing | None = None) -> None:
        """List a new reserve, with a new token behind it; the first one is WETH and brings the price oracle."""
        deploy, send = self.sender.deploy, self.sender.send
        asset = deploy(artifact("MintableERC20"), [reserve.symbol, reserve.symbol, reserve.decimals])
        if not self.reserves:
            self.oracle = deploy(artifact("AaveOracle"), [[], [], ZERO, asset])
            send(self.provider, "setPriceOracle(address)", [self.oracle])
        symbol = reserve.symbol
        self.reserves[symbol] = reserve
        a_token = rebasing_a_token(rebasing) if rebasing else artifact("AToken")
        a = deploy(a_token, [self.pool, asset, self.treasury, f"a{symbol}", f"a{symbol}", ZERO])
        stable = deploy(artifact("StableDebtToken"), [self.pool, asset, f"sd{symbol}", f"sd{symbol}", ZERO])
        variable = deploy(artifact("VariableDebtToken"), [self.pool, asset, f"vd{symbol}", f"vd{symbol}", ZERO])
        rates = [80, 0, 4, reserve.variable_slope2, 2, 75]
        strategy = deploy(
            artifact("DefaultReserveInterestRateStrategy"), [self.provider, *(rate * RAY // 100 for rate in rates)]
        )
        send(self.rate_oracle, "setMarketBorrowRate(address,uint256)", [asset, 3 * RAY // 100])
        send(
            self.configurator,
            "initReserve(address,address,address,uint8,address)",
            [a, stable, variable, reserve.decimals, strategy],
        )
        self.tokens[symbol] = ReserveTokens(
            asset,
            *(
                token.lower()
                for token in self.sender.call(
                    self.data_provider, "getReserveTokensAddresses(address)(address,address,address)", [asset]
                )
            ),
        )
        if reserve.liquidation_threshold:
            self.configure_collateral(symbol, reserve.ltv, reserve.liquidation_threshold, reserve.liquidation_bonus)
        if reserve.borrowing:
            send(self.configurator, "enableBorrowingOnReserve(address,bool)", [asset, reserve.stable_borrowing])
        send(self.configurator, "setReserveFactor(address,uint256)", [asset, reserve.reserve_factor])
        if symbol != "WETH":
            self.set_price(symbol, reserve.price)

    # Administration

    def configure_collateral(self, symbol: str, ltv: int, liquidation_threshold: int, liquidation_bonus: int) -> None:
        """Change a reserve's loan-to-value, liquidation threshold and bonus (basis points)."""
        self.sender.send(
            self.configurator,
            "configureReserveAsCollateral(address,uint256,uint256,uint256)",
            [self.tokens[symbol].asset, ltv, liquidation_threshold, liquidation_bonus],
        )

    def pause(self, paused: bool = True) -> None:
        """Pause the whole pool, or let it go on."""
        self.sender.send(self.configurator, "setPoolPause(bool)", [paused])

    def freeze(self, symbol: str, frozen: bool = True) -> None:
        """Freeze a reserve (no new supply, no new debt), or thaw it."""
        function = "freezeReserve(address)" if frozen else "unfreezeReserve(address)"
        self.sender.send(self.configurator, function, [self.tokens[symbol].asset])

    def disable_borrowing(self, symbol: str) -> None:
        self.sender.send(self.configurator, "disableBorrowingOnReserve(address)", [self.tokens[symbol].asset])

    def upgrade_pool(self) -> int:
        """Give the pool an implementation of the next revision, otherwise the same code; its number.

        The package's own pool is revision 2; it is compiled from the package's source with another constant.
        """
        self.pool_revision += 1
        code = patched(
            "contracts/protocol/lendingpool/LendingPool.sol",
            {
                "LENDINGPOOL_REVISION = 0x2": (f"LENDINGPOOL_REVISION = {self.pool_revision}", 1),
            },
        )
        implementation = self.sender.deploy(code, libraries=self.libraries)
        self.sender.send(self.provider, "setLendingPoolImpl(address)", [implementation])
        return self.pool_revision

    def price(self, symbol: str) -> int:
        """ETH wei per whole token."""
        return int(self.sender.call(self.oracle, "getAssetPrice(address)(uint256)", [self.tokens[symbol].asset]))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a price in ETH wei by a new source (the mock's answer is immutable).

        0 or less makes the oracle ask its fallback; without one every read of the price reverts. WETH is the unit of
        account: its price is fixed.
        """
        if symbol == "WETH":
            raise ValueError("the oracle answers 1 ether for WETH, whatever its source")
        source = self.sender.deploy(artifact("MockAggregator"), [raw])
        self.sender.send(self.oracle, "setAssetSources(address[],address[])", [[self.tokens[symbol].asset], [source]])

    def set_fallback_price(self, symbol: str, raw: int) -> None:
        """The price a fallback oracle answers while the asset's own source does not; the first call installs it."""
        if self.fallback_oracle is None:
            self.fallback_oracle = self.sender.deploy(artifact("PriceOracle"))
            self.sender.send(self.oracle, "setFallbackOracle(address)", [self.fallback_oracle])
        self.sender.send(self.fallback_oracle, "setAssetPrice(address,uint256)", [self.tokens[symbol].asset, raw])

    def rebase(self, numerator: int, denominator: int, symbol: str = "STETH") -> None:
        """Multiply every balance of the rebasing aToken, as a stETH rebase does: no event of Aave's tells it."""
        tokens = self.tokens[symbol]
        index = self.sender.call(tokens.a_token, "rebasingIndex()(uint256)")
        before = self.sender.call(tokens.a_token, "totalSupply()(uint256)")
        self.sender.send(tokens.a_token, "setRebasingIndex(uint256)", [index * numerator // denominator])
        change = self.sender.call(tokens.a_token, "totalSupply()(uint256)") - before
        if change > 0:
            self.sender.send(tokens.asset, "mint(uint256)", [change])
            self.sender.send(tokens.asset, "transfer(address,uint256)", [tokens.a_token, change])
        elif change < 0:
            burnt = account(f"{self.name} slashed")
            self.sender.send(tokens.asset, "transfer(address,uint256)", [burnt, -change], sender=tokens.a_token)

    # What users do; each raises `Reverted` when the market refuses

    def amount(self, symbol: str, value: int) -> int:
        """ETH wei to units of an asset at today's price, at least one unit."""
        return max(1, value * int(10 ** self.reserves[symbol].decimals) // self.price(symbol))

    def give(self, user: str, symbol: str) -> None:
        """Make `user` rich in an underlying token and let the pool take it, once."""
        if (user, symbol) not in self.rich:
            self.rich.add((user, symbol))
            asset = self.tokens[symbol].asset
            approval = calldata("approve(address,uint256)", [self.pool, UINT_MAX])
            self.sender.bulk([(user, asset, calldata("mint(uint256)", [RICHES])), (user, asset, approval)])

    def supply(self, user: str, symbol: str, amount: int, *, by: str | None = None) -> None:
        """Supply for `user`, paid by `by` (else by the user)."""
        payer = by or user
        self.give(payer, symbol)
        args = [self.tokens[symbol].asset, amount, user, 0]
        self.sender.send(self.pool, "deposit(address,uint256,address,uint16)", args, sender=payer)
        self.touched(user)
        self.supplied[user] = self.supplied.get(user, frozenset()) | {symbol}

    def borrow(self, user: str, symbol: str, amount: int, mode: int = VARIABLE, *, by: str | None = None) -> None:
        """Borrow on the debt of `user`; `by` is a delegatee who takes the money."""
        args = [self.tokens[symbol].asset, amount, mode, 0, user]
        self.sender.send(self.pool, "borrow(address,uint256,uint256,uint16,address)", args, sender=by or user)
        if by is not None and by not in self.seen:
            self.bystanders.add(by)
        self.owes(user, symbol, mode)

    def owes(self, user: str, symbol: str, mode: int) -> None:
        self.touched(user)
        self.borrowers.add(user)
        self.borrowed[user] = self.borrowed.get(user, frozenset()) | {(symbol, mode)}

    def delegate(self, user: str, delegatee: str, symbol: str, amount: int, mode: int = VARIABLE) -> None:
        """Let another account borrow on the debt of `user`."""
        tokens = self.tokens[symbol]
        debt_token = tokens.stable_debt if mode == STABLE else tokens.variable_debt
        self.sender.send(debt_token, "approveDelegation(address,uint256)", [delegatee, amount], sender=user)

    def flash_borrow(self, user: str, symbol: str, amount: int, mode: int = VARIABLE) -> None:
        """A flash loan that is not paid back but becomes the user's debt."""
        receiver = self.sender.deploy(artifact("MockFlashLoanReceiver"), [self.provider])
        self.sender.send(
            self.pool,
            "flashLoan(address,address[],uint256[],uint256[],address,bytes,uint16)",
            [receiver, [self.tokens[symbol].asset], [amount], [mode], user, b"", 0],
            sender=user,
        )
        self.owes(user, symbol, mode)

    def flash_loan(self, user: str, symbol: str, amount: int) -> None:
        """An ordinary flash loan; its premium moves the liquidity index of every supplier."""
        receiver = self.sender.deploy(artifact("MockFlashLoanReceiver"), [self.provider])
        self.sender.send(
            self.pool,
            "flashLoan(address,address[],uint256[],uint256[],address,bytes,uint16)",
            [receiver, [self.tokens[symbol].asset], [amount], [0], user, b"", 0],
            sender=user,
        )

    def repay(self, user: str, symbol: str, amount: int = UINT_MAX, mode: int = VARIABLE) -> None:
        """Repay an amount, or all of it, with new tokens."""
        self.give(user, symbol)
        args = [self.tokens[symbol].asset, amount, mode, user]
        self.sender.send(self.pool, "repay(address,uint256,uint256,address)", args, sender=user)
        if amount == UINT_MAX:
            self.borrowed[user] -= {(symbol, mode)}

    def withdraw(self, user: str, symbol: str, amount: int = UINT_MAX) -> None:
        """Withdraw an amount, or all of it."""
        args = [self.tokens[symbol].asset, amount, user]
        self.sender.send(self.pool, "withdraw(address,uint256,address)", args, sender=user)
        if amount == UINT_MAX:
            self.supplied[user] -= {symbol}

    def transfer(self, user: str, symbol: str, to: str, amount: int) -> None:
        """Send aTokens to another account."""
        a_token = self.tokens[symbol].a_token
        self.sender.send(a_token, "transfer(address,uint256)", [to, amount], sender=user)
        if amount:
            self.touched(to)
            self.supplied[to] = self.supplied.get(to, frozenset()) | {symbol}
        elif to not in self.seen:
            self.bystanders.add(to)

    def use_as_collateral(self, user: str, symbol: str, enabled: bool) -> None:
        args = [self.tokens[symbol].asset, enabled]
        self.sender.send(self.pool, "setUserUseReserveAsCollateral(address,bool)", args, sender=user)

    def swap_rate_mode(self, user: str, symbol: str, mode: int) -> None:
        """Swap the whole debt of `mode` into the other mode."""
        args = [self.tokens[symbol].asset, mode]
        self.sender.send(self.pool, "swapBorrowRateMode(address,uint256)", args, sender=user)
        self.borrowed[user] -= {(symbol, mode)}
        self.borrowed[user] |= {(symbol, STABLE + VARIABLE - mode)}

    def rebalance(self, user: str, symbol: str, *, by: str | None = None) -> None:
        """Move a user's stable rate to today's; allowed above 95 % use while suppliers earn too little."""
        args = [self.tokens[symbol].asset, user]
        self.sender.send(self.pool, "rebalanceStableBorrowRate(address,address)", args, sender=by)

    def liquidate(self, user: str, *, receive_a_token: bool = False, liquidator: str | None = None) -> bool:
        """Liquidate as much as the pool allows of the user's largest debt and collateral; whether it did.

        The liquidator ends up among `users` only if it takes aTokens.
        """
        liquidator = liquidator or account(f"{self.name} liquidator")
        owed = self.largest({symbol: self.debt(user, symbol) for symbol in self.reserves})
        collateral = {
            symbol: self.balance(user, symbol)
            for symbol, reserve in self.reserves.items()
            if reserve.liquidation_threshold and self.user_data(user, symbol)[8]
        }
        if not collateral or not self.debt(user, owed):
            return False
        self.give(liquidator, owed)
        done = self.sender.try_send(
            self.pool,
            "liquidationCall(address,address,address,uint256,bool)",
            [self.tokens[self.largest(collateral)].asset, self.tokens[owed].asset, user, UINT_MAX, receive_a_token],
            sender=liquidator,
        )
        if done and receive_a_token:
            self.touched(liquidator)
            self.supplied[liquidator] = self.supplied.get(liquidator, frozenset()) | {self.largest(collateral)}
        elif liquidator not in self.seen:
            self.bystanders.add(liquidator)
        return done

    def largest(self, amounts: Mapping[str, int]) -> str:
        """The asset of which an amount is worth most."""
        return max(amounts, key=lambda s: Fraction(amounts[s] * self.price(s), 10 ** self.reserves[s].decimals))

    # What the contracts say

    def answer(self, account: str, block: int | str = "latest") -> Any:
        """`getUserAccountData`: collateral, debt and available borrows in ETH wei, threshold and LTV, health factor."""
        function = "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"
        return self.sender.call(self.pool, function, [account], block=block)

    def answers(self, accounts: list[str], block: int | str = "latest") -> list[Any]:
        """`answer` of many accounts in one batch."""
        function = "getUserAccountData(address)(uint256,uint256,uint256,uint256,uint256,uint256)"
        return self.sender.calls([(self.pool, function, [a]) for a in accounts], block=block)

    def user_data(self, user: str, symbol: str, block: int | str = "latest") -> Any:
        """The data provider's `getUserReserveData`: aTokens, stable and variable debt, ..., the collateral flag last."""
        function = (
            "getUserReserveData(address,address)(uint256,uint256,uint256,uint256,uint256,uint256,uint256,uint40,bool)"
        )
        return self.sender.call(self.data_provider, function, [self.tokens[symbol].asset, user], block=block)

    def balance(self, user: str, symbol: str, block: int | str = "latest") -> int:
        """aTokens, interest included."""
        return int(self.sender.call(self.tokens[symbol].a_token, "balanceOf(address)(uint256)", [user], block=block))

    def balance_of(self, symbol: str, holder: str, block: int | str = "latest") -> int:
        """Underlying tokens of any account; of the aToken itself: the liquidity that can be borrowed."""
        asset = self.tokens[symbol].asset
        return int(self.sender.call(asset, "balanceOf(address)(uint256)", [holder], block=block))

    def debt(self, user: str, symbol: str, mode: int | None = None, block: int | str = "latest") -> int:
        """Debt in one mode, or in both."""
        tokens = self.tokens[symbol]
        chosen = [t for m, t in ((STABLE, tokens.stable_debt), (VARIABLE, tokens.variable_debt)) if mode in (None, m)]
        return sum(int(self.sender.call(t, "balanceOf(address)(uint256)", [user], block=block)) for t in chosen)

    def note_treasury(self) -> None:
        """The treasury is a user once a reserve factor has minted it aTokens."""
        for tokens in self.tokens.values():
            if self.sender.call(tokens.a_token, "scaledBalanceOf(address)(uint256)", [self.treasury]):
                self.touched(self.treasury)


def deploy(
    node: Anvil, *, sender: Sender | None = None, name: str = "aave-v2-devnet", rebasing: Rebasing | None = None
) -> AaveV2:
    """Deploy an Aave V2 market with the reserves of `RESERVES`, and STETH with a rebasing aToken if asked for."""
    market = AaveV2(node, sender, name)
    market.deploy()
    for reserve in RESERVES:
        market.add_reserve(reserve)
    if rebasing:
        market.rebasing = rebasing
        market.add_reserve(STETH, rebasing=rebasing)
    return market
