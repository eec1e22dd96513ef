// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

// A stand-in for Compound V3 (Comet), written for this devnet because no package carries the real contract's code.
// It follows the real ABI, storage order, packing, rounding, reverts and events; it emits an event only where the real
// contract does. Left out: the reentrancy guard and gas optimisations, which nobody outside can see.

interface IToken {
    function balanceOf(address owner) external view returns (uint256);
    function decimals() external view returns (uint8);
    function transfer(address to, uint256 amount) external returns (bool);
    function transferFrom(address from, address to, uint256 amount) external returns (bool);
    function approve(address spender, uint256 amount) external returns (bool);
}

interface IFeed {
    function decimals() external view returns (uint8);
    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80);
}

struct AssetConfig {
    address asset;
    address priceFeed;
    uint8 decimals;
    uint64 borrowCollateralFactor;
    uint64 liquidateCollateralFactor;
    uint64 liquidationFactor;
    uint128 supplyCap;
}

struct Configuration {
    address governor;
    address pauseGuardian;
    address baseToken;
    address baseTokenPriceFeed;
    address extensionDelegate;
    uint64 supplyKink;
    uint64 supplyPerYearInterestRateSlopeLow;
    uint64 supplyPerYearInterestRateSlopeHigh;
    uint64 supplyPerYearInterestRateBase;
    uint64 borrowKink;
    uint64 borrowPerYearInterestRateSlopeLow;
    uint64 borrowPerYearInterestRateSlopeHigh;
    uint64 borrowPerYearInterestRateBase;
    uint64 storeFrontPriceFactor;
    uint64 trackingIndexScale;
    uint64 baseTrackingSupplySpeed;
    uint64 baseTrackingBorrowSpeed;
    uint104 baseMinForRewards;
    uint104 baseBorrowMin;
    uint104 targetReserves;
    AssetConfig[] assetConfigs;
}

struct AssetInfo {
    uint8 offset;
    address asset;
    address priceFeed;
    uint64 scale;
    uint64 borrowCollateralFactor;
    uint64 liquidateCollateralFactor;
    uint64 liquidationFactor;
    uint128 supplyCap;
}

struct TotalsBasic {
    uint64 baseSupplyIndex;
    uint64 baseBorrowIndex;
    uint64 trackingSupplyIndex;
    uint64 trackingBorrowIndex;
    uint104 totalSupplyBase;
    uint104 totalBorrowBase;
    uint40 lastAccrualTime;
    uint8 pauseFlags;
}

struct TotalsCollateral {
    uint128 totalSupplyAsset;
    uint128 _reserved;
}

struct UserBasic {
    int104 principal;
    uint64 baseTrackingIndex;
    uint64 baseTrackingAccrued;
    uint16 assetsIn;
    uint8 _reserved;
}

struct UserCollateral {
    uint128 balance;
    uint128 _reserved;
}

struct LiquidatorPoints {
    uint32 numAbsorbs;
    uint64 numAbsorbed;
    uint128 approxSpend;
    uint32 _reserved;
}

/// Storage, constants, events and errors shared by the market and its extension.
abstract contract CometBaseStandIn {
    error Absurd();
    error AlreadyInitialized();
    error BadAmount();
    error BadAsset();
    error BadDecimals();
    error BadDiscount();
    error BadMinimum();
    error BadNonce();
    error BadPrice();
    error BadSignatory();
    error BorrowCFTooLarge();
    error BorrowTooSmall();
    error InsufficientReserves();
    error InvalidInt104();
    error InvalidInt256();
    error InvalidUInt104();
    error InvalidUInt128();
    error InvalidUInt64();
    error InvalidValueS();
    error InvalidValueV();
    error LiquidateCFTooLarge();
    error NegativeNumber();
    error NoSelfTransfer();
    error NotCollateralized();
    error NotForSale();
    error NotLiquidatable();
    error Paused();
    error SignatureExpired();
    error SupplyCapExceeded();
    error TimestampTooLarge();
    error TooManyAssets();
    error TooMuchSlippage();
    error TransferInFailed();
    error TransferOutFailed();
    error Unauthorized();

    event Supply(address indexed from, address indexed dst, uint256 amount);
    event Transfer(address indexed from, address indexed to, uint256 amount);
    event Withdraw(address indexed src, address indexed to, uint256 amount);
    event SupplyCollateral(address indexed from, address indexed dst, address indexed asset, uint256 amount);
    event TransferCollateral(address indexed from, address indexed to, address indexed asset, uint256 amount);
    event WithdrawCollateral(address indexed src, address indexed to, address indexed asset, uint256 amount);
    event AbsorbDebt(address indexed absorber, address indexed borrower, uint256 basePaidOut, uint256 usdValue);
    event AbsorbCollateral(
        address indexed absorber,
        address indexed borrower,
        address indexed asset,
        uint256 collateralAbsorbed,
        uint256 usdValue
    );
    event BuyCollateral(address indexed buyer, address indexed asset, uint256 baseAmount, uint256 collateralAmount);
    event PauseAction(
        bool supplyPaused, bool transferPaused, bool withdrawPaused, bool absorbPaused, bool buyPaused
    );
    event WithdrawReserves(address indexed to, uint256 amount);
    event Approval(address indexed owner, address indexed spender, uint256 amount);

    uint64 internal constant BASE_ACCRUAL_SCALE = 1e6;
    uint64 internal constant BASE_INDEX_SCALE = 1e15;
    uint64 internal constant FACTOR_SCALE = 1e18;
    uint64 internal constant PRICE_SCALE = 1e8;
    uint8 internal constant PRICE_FEED_DECIMALS = 8;
    uint8 internal constant MAX_BASE_DECIMALS = 18;
    uint64 internal constant SECONDS_PER_YEAR = 31_536_000;

    uint64 internal baseSupplyIndex;
    uint64 internal baseBorrowIndex;
    uint64 internal trackingSupplyIndex;
    uint64 internal trackingBorrowIndex;
    uint104 internal totalSupplyBase;
    uint104 internal totalBorrowBase;
    uint40 internal lastAccrualTime;
    uint8 internal pauseFlags;
    mapping(address => TotalsCollateral) public totalsCollateral;
    mapping(address => mapping(address => bool)) public isAllowed;
    mapping(address => uint256) public userNonce;
    mapping(address => UserBasic) public userBasic;
    mapping(address => mapping(address => UserCollateral)) public userCollateral;
    mapping(address => LiquidatorPoints) public liquidatorPoints;

    function hasPermission(address owner, address manager) public view returns (bool) {
        return owner == manager || isAllowed[owner][manager];
    }

    function safe64(uint256 n) internal pure returns (uint64) {
        if (n > type(uint64).max) revert InvalidUInt64();
        return uint64(n);
    }

    function safe104(uint256 n) internal pure returns (uint104) {
        if (n > type(uint104).max) revert InvalidUInt104();
        return uint104(n);
    }

    function safe128(uint256 n) internal pure returns (uint128) {
        if (n > type(uint128).max) revert InvalidUInt128();
        return uint128(n);
    }

    function signed104(uint104 n) internal pure returns (int104) {
        if (n > uint104(type(int104).max)) revert InvalidInt104();
        return int104(n);
    }

    function signed256(uint256 n) internal pure returns (int256) {
        if (n > uint256(type(int256).max)) revert InvalidInt256();
        return int256(n);
    }

    function unsigned104(int104 n) internal pure returns (uint104) {
        if (n < 0) revert NegativeNumber();
        return uint104(n);
    }

    function unsigned256(int256 n) internal pure returns (uint256) {
        if (n < 0) revert NegativeNumber();
        return uint256(n);
    }
}

/// The collateral assets of one configuration, kept as coarsely as the real packed words do: four decimals of a factor,
/// whole units of a supply cap.
contract AssetListStandIn {
    uint64 internal constant FACTOR_STEP = 1e14;

    uint8 public immutable numAssets;
    mapping(uint8 => AssetInfo) internal infos;

    /// With `zeroFactors` an asset may be configured to count for nothing.
    constructor(AssetConfig[] memory configs, bool zeroFactors) {
        numAssets = uint8(configs.length);
        for (uint8 i = 0; i < configs.length; i++) {
            AssetConfig memory config = configs[i];
            if (IFeed(config.priceFeed).decimals() != 8) revert CometBaseStandIn.BadDecimals();
            if (IToken(config.asset).decimals() != config.decimals) revert CometBaseStandIn.BadDecimals();
            uint64 borrowFactor = config.borrowCollateralFactor / FACTOR_STEP * FACTOR_STEP;
            uint64 liquidateFactor = config.liquidateCollateralFactor / FACTOR_STEP * FACTOR_STEP;
            bool weightless = zeroFactors && config.liquidateCollateralFactor == 0;
            if (
                config.borrowCollateralFactor >= config.liquidateCollateralFactor && !weightless
                    || borrowFactor >= liquidateFactor && !weightless
            ) revert CometBaseStandIn.BorrowCFTooLarge();
            if (config.liquidateCollateralFactor > 1e18) revert CometBaseStandIn.LiquidateCFTooLarge();
            uint64 scale = uint64(10 ** config.decimals);
            infos[i] = AssetInfo({
                offset: i,
                asset: config.asset,
                priceFeed: config.priceFeed,
                scale: scale,
                borrowCollateralFactor: borrowFactor,
                liquidateCollateralFactor: liquidateFactor,
                liquidationFactor: config.liquidationFactor / FACTOR_STEP * FACTOR_STEP,
                supplyCap: uint128(uint256(uint64(config.supplyCap / scale)) * scale)
            });
        }
    }

    function getAssetInfo(uint8 i) external view returns (AssetInfo memory) {
        if (i >= numAssets) revert CometBaseStandIn.BadAsset();
        return infos[i];
    }
}

/// The market. Everything it does not know goes to `extensionDelegate`, as in the real one.
contract CometStandIn is CometBaseStandIn {
    uint8 internal constant PAUSE_SUPPLY = 0;
    uint8 internal constant PAUSE_TRANSFER = 1;
    uint8 internal constant PAUSE_WITHDRAW = 2;
    uint8 internal constant PAUSE_ABSORB = 3;
    uint8 internal constant PAUSE_BUY = 4;

    address public immutable governor;
    address public immutable pauseGuardian;
    address public immutable baseToken;
    address public immutable baseTokenPriceFeed;
    address public immutable extensionDelegate;
    uint256 public immutable supplyKink;
    uint256 public immutable supplyPerSecondInterestRateSlopeLow;
    uint256 public immutable supplyPerSecondInterestRateSlopeHigh;
    uint256 public immutable supplyPerSecondInterestRateBase;
    uint256 public immutable borrowKink;
    uint256 public immutable borrowPerSecondInterestRateSlopeLow;
    uint256 public immutable borrowPerSecondInterestRateSlopeHigh;
    uint256 public immutable borrowPerSecondInterestRateBase;
    uint256 public immutable storeFrontPriceFactor;
    uint256 public immutable baseScale;
    uint256 public immutable trackingIndexScale;
    uint256 public immutable baseTrackingSupplySpeed;
    uint256 public immutable baseTrackingBorrowSpeed;
    uint256 public immutable baseMinForRewards;
    uint256 public immutable baseBorrowMin;
    uint256 public immutable targetReserves;
    uint8 public immutable decimals;
    uint8 public immutable numAssets;
    uint256 internal immutable accrualDescaleFactor;
    AssetListStandIn internal immutable assets;

    constructor(Configuration memory config) {
        uint8 baseDecimals = IToken(config.baseToken).decimals();
        if (baseDecimals > MAX_BASE_DECIMALS) revert BadDecimals();
        if (config.storeFrontPriceFactor > FACTOR_SCALE) revert BadDiscount();
        if (config.assetConfigs.length > assetLimit()) revert TooManyAssets();
        if (config.baseMinForRewards == 0) revert BadMinimum();
        if (IFeed(config.baseTokenPriceFeed).decimals() != PRICE_FEED_DECIMALS) revert BadDecimals();
        governor = config.governor;
        pauseGuardian = config.pauseGuardian;
        baseToken = config.baseToken;
        baseTokenPriceFeed = config.baseTokenPriceFeed;
        extensionDelegate = config.extensionDelegate;
        supplyKink = config.supplyKink;
        supplyPerSecondInterestRateSlopeLow = config.supplyPerYearInterestRateSlopeLow / SECONDS_PER_YEAR;
        supplyPerSecondInterestRateSlopeHigh = config.supplyPerYearInterestRateSlopeHigh / SECONDS_PER_YEAR;
        supplyPerSecondInterestRateBase = config.supplyPerYearInterestRateBase / SECONDS_PER_YEAR;
        borrowKink = config.borrowKink;
        borrowPerSecondInterestRateSlopeLow = config.borrowPerYearInterestRateSlopeLow / SECONDS_PER_YEAR;
        borrowPerSecondInterestRateSlopeHigh = config.borrowPerYearInterestRateSlopeHigh / SECONDS_PER_YEAR;
        borrowPerSecondInterestRateBase = config.borrowPerYearInterestRateBase / SECONDS_PER_YEAR;
        storeFrontPriceFactor = config.storeFrontPriceFactor;
        decimals = baseDecimals;
        uint256 scale = 10 ** baseDecimals;
        if (scale < BASE_ACCRUAL_SCALE) revert BadDecimals();
        baseScale = scale;
        accrualDescaleFactor = scale / BASE_ACCRUAL_SCALE;
        trackingIndexScale = config.trackingIndexScale;
        baseTrackingSupplySpeed = config.baseTrackingSupplySpeed;
        baseTrackingBorrowSpeed = config.baseTrackingBorrowSpeed;
        baseMinForRewards = config.baseMinForRewards;
        baseBorrowMin = config.baseBorrowMin;
        targetReserves = config.targetReserves;
        numAssets = uint8(config.assetConfigs.length);
        assets = new AssetListStandIn(config.assetConfigs, skipsZeroFactors());
    }

    function assetLimit() internal pure virtual returns (uint256) {
        return 12;
    }

    function skipsZeroFactors() internal pure virtual returns (bool) {
        return false;
    }

    function initializeStorage() external {
        if (lastAccrualTime != 0) revert AlreadyInitialized();
        lastAccrualTime = currentTime();
        baseSupplyIndex = BASE_INDEX_SCALE;
        baseBorrowIndex = BASE_INDEX_SCALE;
    }

    // ---- configuration and prices

    function getAssetInfo(uint8 i) public view returns (AssetInfo memory) {
        return assets.getAssetInfo(i);
    }

    function getAssetInfoByAddress(address asset) public view returns (AssetInfo memory) {
        for (uint8 i = 0; i < numAssets; i++) {
            AssetInfo memory info = getAssetInfo(i);
            if (info.asset == asset) return info;
        }
        revert BadAsset();
    }

    function getPrice(address priceFeed) public view returns (uint256) {
        (, int256 answer,,,) = IFeed(priceFeed).latestRoundData();
        if (answer <= 0) revert BadPrice();
        return uint256(answer);
    }

    // ---- interest

    function getSupplyRate(uint256 utilization) public view returns (uint64) {
        return kinked(
            utilization,
            supplyKink,
            supplyPerSecondInterestRateBase,
            supplyPerSecondInterestRateSlopeLow,
            supplyPerSecondInterestRateSlopeHigh
        );
    }

    function getBorrowRate(uint256 utilization) public view returns (uint64) {
        return kinked(
            utilization,
            borrowKink,
            borrowPerSecondInterestRateBase,
            borrowPerSecondInterestRateSlopeLow,
            borrowPerSecondInterestRateSlopeHigh
        );
    }

    function kinked(uint256 utilization, uint256 kink, uint256 base, uint256 low, uint256 high)
        internal
        pure
        returns (uint64)
    {
        if (utilization <= kink) return safe64(base + mulFactor(low, utilization));
        return safe64(base + mulFactor(low, kink) + mulFactor(high, utilization - kink));
    }

    function getUtilization() public view returns (uint256) {
        uint256 supplied = presentValueSupply(baseSupplyIndex, totalSupplyBase);
        uint256 borrowed = presentValueBorrow(baseBorrowIndex, totalBorrowBase);
        return supplied == 0 ? 0 : borrowed * FACTOR_SCALE / supplied;
    }

    function accruedInterestIndices(uint256 elapsed) internal view returns (uint64 supplyIndex, uint64 borrowIndex) {
        supplyIndex = baseSupplyIndex;
        borrowIndex = baseBorrowIndex;
        if (elapsed > 0) {
            uint256 utilization = getUtilization();
            supplyIndex += safe64(mulFactor(supplyIndex, getSupplyRate(utilization) * elapsed));
            borrowIndex += safe64(mulFactor(borrowIndex, getBorrowRate(utilization) * elapsed));
        }
    }

    function accrueInternal() internal {
        uint40 time = currentTime();
        uint256 elapsed = uint256(time - lastAccrualTime);
        if (elapsed == 0) return;
        (baseSupplyIndex, baseBorrowIndex) = accruedInterestIndices(elapsed);
        if (totalSupplyBase >= baseMinForRewards) {
            trackingSupplyIndex += safe64(baseTrackingSupplySpeed * elapsed * baseScale / totalSupplyBase);
        }
        if (totalBorrowBase >= baseMinForRewards) {
            trackingBorrowIndex += safe64(baseTrackingBorrowSpeed * elapsed * baseScale / totalBorrowBase);
        }
        lastAccrualTime = time;
    }

    function accrueAccount(address account) external {
        accrueInternal();
        UserBasic memory basic = userBasic[account];
        updateBasePrincipal(account, basic, basic.principal);
    }

    // ---- views of accounts and totals

    function balanceOf(address account) public view returns (uint256) {
        (uint64 supplyIndex,) = accruedInterestIndices(sinceAccrual());
        int104 principal = userBasic[account].principal;
        return principal > 0 ? presentValueSupply(supplyIndex, unsigned104(principal)) : 0;
    }

    function borrowBalanceOf(address account) public view returns (uint256) {
        (, uint64 borrowIndex) = accruedInterestIndices(sinceAccrual());
        int104 principal = userBasic[account].principal;
        return principal < 0 ? presentValueBorrow(borrowIndex, unsigned104(-principal)) : 0;
    }

    function totalSupply() external view returns (uint256) {
        (uint64 supplyIndex,) = accruedInterestIndices(sinceAccrual());
        return presentValueSupply(supplyIndex, totalSupplyBase);
    }

    function totalBorrow() external view returns (uint256) {
        (, uint64 borrowIndex) = accruedInterestIndices(sinceAccrual());
        return presentValueBorrow(borrowIndex, totalBorrowBase);
    }

    function getCollateralReserves(address asset) public view returns (uint256) {
        return IToken(asset).balanceOf(address(this)) - totalsCollateral[asset].totalSupplyAsset;
    }

    function getReserves() public view returns (int256) {
        (uint64 supplyIndex, uint64 borrowIndex) = accruedInterestIndices(sinceAccrual());
        uint256 held = IToken(baseToken).balanceOf(address(this));
        return signed256(held) - signed256(presentValueSupply(supplyIndex, totalSupplyBase))
            + signed256(presentValueBorrow(borrowIndex, totalBorrowBase));
    }

    function isBorrowCollateralized(address account) public view returns (bool) {
        return covered(account, false);
    }

    function isLiquidatable(address account) public view returns (bool) {
        return !covered(account, true);
    }

    /// Whether the factor-weighted collateral reaches the debt at the stored index; it stops at the first asset that
    /// gets there, so a dead feed of a later one goes unnoticed.
    function covered(address account, bool liquidating) internal view returns (bool) {
        UserBasic memory basic = userBasic[account];
        if (basic.principal >= 0) return true;
        int256 liquidity =
            presentValue(basic.principal) * signed256(getPrice(baseTokenPriceFeed)) / int256(baseScale);
        for (uint8 i = 0; i < numAssets; i++) {
            if (!isInAsset(basic.assetsIn, basic._reserved, i)) continue;
            if (liquidity >= 0) return true;
            AssetInfo memory info = getAssetInfo(i);
            uint64 factor = liquidating ? info.liquidateCollateralFactor : info.borrowCollateralFactor;
            if (factor == 0 && skipsZeroFactors()) continue;
            uint256 value = mulPrice(userCollateral[account][info.asset].balance, getPrice(info.priceFeed), info.scale);
            liquidity += signed256(mulFactor(value, factor));
        }
        return liquidity >= 0;
    }

    // ---- pauses

    function pause(bool supply_, bool transfer_, bool withdraw_, bool absorb_, bool buy_) external {
        if (msg.sender != governor && msg.sender != pauseGuardian) revert Unauthorized();
        pauseFlags = bit(supply_, PAUSE_SUPPLY) | bit(transfer_, PAUSE_TRANSFER) | bit(withdraw_, PAUSE_WITHDRAW)
            | bit(absorb_, PAUSE_ABSORB) | bit(buy_, PAUSE_BUY);
        emit PauseAction(supply_, transfer_, withdraw_, absorb_, buy_);
    }

    function isSupplyPaused() public view returns (bool) {
        return paused(PAUSE_SUPPLY);
    }

    function isTransferPaused() public view returns (bool) {
        return paused(PAUSE_TRANSFER);
    }

    function isWithdrawPaused() public view returns (bool) {
        return paused(PAUSE_WITHDRAW);
    }

    function isAbsorbPaused() public view returns (bool) {
        return paused(PAUSE_ABSORB);
    }

    function isBuyPaused() public view returns (bool) {
        return paused(PAUSE_BUY);
    }

    // ---- supply

    function supply(address asset, uint256 amount) external {
        supplyInternal(msg.sender, msg.sender, msg.sender, asset, amount);
    }

    function supplyTo(address dst, address asset, uint256 amount) external {
        supplyInternal(msg.sender, msg.sender, dst, asset, amount);
    }

    function supplyFrom(address from, address dst, address asset, uint256 amount) external {
        supplyInternal(msg.sender, from, dst, asset, amount);
    }

    function supplyInternal(address operator, address from, address dst, address asset, uint256 amount) internal {
        if (isSupplyPaused()) revert Paused();
        if (!hasPermission(from, operator)) revert Unauthorized();
        if (asset == baseToken) {
            supplyBase(from, dst, amount == type(uint256).max ? borrowBalanceOf(dst) : amount);
        } else {
            supplyCollateral(from, dst, asset, safe128(amount));
        }
    }

    function supplyBase(address from, address dst, uint256 amount) internal {
        amount = doTransferIn(baseToken, from, amount);
        accrueInternal();
        UserBasic memory dstUser = userBasic[dst];
        int104 principalNew = principalValue(presentValue(dstUser.principal) + signed256(amount));
        (uint104 repaid, uint104 supplied) = repayAndSupplyAmount(dstUser.principal, principalNew);
        totalSupplyBase += supplied;
        totalBorrowBase -= repaid;
        updateBasePrincipal(dst, dstUser, principalNew);
        emit Supply(from, dst, amount);
        if (supplied > 0) emit Transfer(address(0), dst, presentValueSupply(baseSupplyIndex, supplied));
    }

    function supplyCollateral(address from, address dst, address asset, uint128 amount) internal {
        AssetInfo memory info = getAssetInfoByAddress(asset);
        amount = safe128(doTransferIn(asset, from, amount));
        totalsCollateral[asset].totalSupplyAsset += amount;
        if (totalsCollateral[asset].totalSupplyAsset > info.supplyCap) revert SupplyCapExceeded();
        setCollateral(dst, info, userCollateral[dst][asset].balance + amount);
        emit SupplyCollateral(from, dst, asset, amount);
    }

    // ---- transfer

    function transfer(address dst, uint256 amount) external returns (bool) {
        transferInternal(msg.sender, msg.sender, dst, baseToken, amount);
        return true;
    }

    function transferFrom(address src, address dst, uint256 amount) external returns (bool) {
        transferInternal(msg.sender, src, dst, baseToken, amount);
        return true;
    }

    function transferAsset(address dst, address asset, uint256 amount) external {
        transferInternal(msg.sender, msg.sender, dst, asset, amount);
    }

    function transferAssetFrom(address src, address dst, address asset, uint256 amount) external {
        transferInternal(msg.sender, src, dst, asset, amount);
    }

    function transferInternal(address operator, address src, address dst, address asset, uint256 amount) internal {
        if (isTransferPaused()) revert Paused();
        if (!hasPermission(src, operator)) revert Unauthorized();
        if (src == dst) revert NoSelfTransfer();
        if (asset == baseToken) {
            transferBase(src, dst, amount == type(uint256).max ? balanceOf(src) : amount);
        } else {
            transferCollateral(src, dst, asset, safe128(amount));
        }
    }

    /// Moves base, borrowing if the sender has too little. Only the parts above zero are logged, as burn and mint: what
    /// stays below zero on both sides leaves no trace.
    function transferBase(address src, address dst, uint256 amount) internal {
        accrueInternal();
        UserBasic memory srcUser = userBasic[src];
        UserBasic memory dstUser = userBasic[dst];
        int256 srcBalance = presentValue(srcUser.principal) - signed256(amount);
        int104 srcPrincipalNew = principalValue(srcBalance);
        int104 dstPrincipalNew = principalValue(presentValue(dstUser.principal) + signed256(amount));
        (uint104 withdrawn, uint104 borrowed) = withdrawAndBorrowAmount(srcUser.principal, srcPrincipalNew);
        (uint104 repaid, uint104 supplied) = repayAndSupplyAmount(dstUser.principal, dstPrincipalNew);
        totalSupplyBase = totalSupplyBase + supplied - withdrawn;
        totalBorrowBase = totalBorrowBase + borrowed - repaid;
        updateBasePrincipal(src, srcUser, srcPrincipalNew);
        updateBasePrincipal(dst, dstUser, dstPrincipalNew);
        requireBorrowAllowed(src, srcBalance);
        if (withdrawn > 0) emit Transfer(src, address(0), presentValueSupply(baseSupplyIndex, withdrawn));
        if (supplied > 0) emit Transfer(address(0), dst, presentValueSupply(baseSupplyIndex, supplied));
    }

    function transferCollateral(address src, address dst, address asset, uint128 amount) internal {
        AssetInfo memory info = getAssetInfoByAddress(asset);
        setCollateral(src, info, userCollateral[src][asset].balance - amount);
        setCollateral(dst, info, userCollateral[dst][asset].balance + amount);
        if (!isBorrowCollateralized(src)) revert NotCollateralized();
        emit TransferCollateral(src, dst, asset, amount);
    }

    // ---- withdraw

    function withdraw(address asset, uint256 amount) external {
        withdrawInternal(msg.sender, msg.sender, msg.sender, asset, amount);
    }

    function withdrawTo(address to, address asset, uint256 amount) external {
        withdrawInternal(msg.sender, msg.sender, to, asset, amount);
    }

    function withdrawFrom(address src, address to, address asset, uint256 amount) external {
        withdrawInternal(msg.sender, src, to, asset, amount);
    }

    function withdrawInternal(address operator, address src, address to, address asset, uint256 amount) internal {
        if (isWithdrawPaused()) revert Paused();
        if (!hasPermission(src, operator)) revert Unauthorized();
        if (asset == baseToken) {
            withdrawBase(src, to, amount == type(uint256).max ? balanceOf(src) : amount);
        } else {
            withdrawCollateral(src, to, asset, safe128(amount));
        }
    }

    function withdrawBase(address src, address to, uint256 amount) internal {
        accrueInternal();
        UserBasic memory srcUser = userBasic[src];
        int256 srcBalance = presentValue(srcUser.principal) - signed256(amount);
        int104 principalNew = principalValue(srcBalance);
        (uint104 withdrawn, uint104 borrowed) = withdrawAndBorrowAmount(srcUser.principal, principalNew);
        totalSupplyBase -= withdrawn;
        totalBorrowBase += borrowed;
        updateBasePrincipal(src, srcUser, principalNew);
        requireBorrowAllowed(src, srcBalance);
        doTransferOut(baseToken, to, amount);
        emit Withdraw(src, to, amount);
        if (withdrawn > 0) emit Transfer(src, address(0), presentValueSupply(baseSupplyIndex, withdrawn));
    }

    function withdrawCollateral(address src, address to, address asset, uint128 amount) internal {
        AssetInfo memory info = getAssetInfoByAddress(asset);
        totalsCollateral[asset].totalSupplyAsset -= amount;
        setCollateral(src, info, userCollateral[src][asset].balance - amount);
        if (!isBorrowCollateralized(src)) revert NotCollateralized();
        doTransferOut(asset, to, amount);
        emit WithdrawCollateral(src, to, asset, amount);
    }

    function requireBorrowAllowed(address src, int256 balance) internal view {
        if (balance >= 0) return;
        if (uint256(-balance) < baseBorrowMin) revert BorrowTooSmall();
        if (!isBorrowCollateralized(src)) revert NotCollateralized();
    }

    // ---- liquidation

    function absorb(address absorber, address[] calldata accounts) external {
        if (isAbsorbPaused()) revert Paused();
        uint256 startGas = gasleft();
        accrueInternal();
        for (uint256 i = 0; i < accounts.length; i++) {
            absorbInternal(absorber, accounts[i]);
        }
        uint256 gasUsed = startGas - gasleft();
        LiquidatorPoints storage points = liquidatorPoints[absorber];
        points.numAbsorbs++;
        points.numAbsorbed += safe64(accounts.length);
        points.approxSpend += safe128(gasUsed * block.basefee);
    }

    function absorbInternal(address absorber, address account) internal {
        if (!isLiquidatable(account)) revert NotLiquidatable();
        UserBasic memory user = userBasic[account];
        int256 oldBalance = presentValue(user.principal);
        uint256 basePrice = getPrice(baseTokenPriceFeed);
        int256 newBalance = oldBalance + signed256(seize(absorber, account, user) * baseScale / basePrice);
        if (newBalance < 0) newBalance = 0;
        int104 oldPrincipal = user.principal;
        int104 newPrincipal = principalValue(newBalance);
        user.assetsIn = 0;
        user._reserved = 0;
        updateBasePrincipal(account, user, newPrincipal);
        (uint104 repaid, uint104 supplied) = repayAndSupplyAmount(oldPrincipal, newPrincipal);
        totalSupplyBase += supplied;
        totalBorrowBase -= repaid;
        uint256 paidOut = unsigned256(newBalance - oldBalance);
        emit AbsorbDebt(absorber, account, paidOut, mulPrice(paidOut, basePrice, baseScale));
        if (newPrincipal > 0) {
            emit Transfer(address(0), account, presentValueSupply(baseSupplyIndex, unsigned104(newPrincipal)));
        }
    }

    function seize(address absorber, address account, UserBasic memory user) internal returns (uint256 credit) {
        for (uint8 i = 0; i < numAssets; i++) {
            if (!isInAsset(user.assetsIn, user._reserved, i)) continue;
            AssetInfo memory info = getAssetInfo(i);
            if (info.liquidationFactor == 0 && skipsZeroFactors()) continue;
            uint128 seized = userCollateral[account][info.asset].balance;
            userCollateral[account][info.asset].balance = 0;
            totalsCollateral[info.asset].totalSupplyAsset -= seized;
            uint256 value = mulPrice(seized, getPrice(info.priceFeed), info.scale);
            credit += mulFactor(value, info.liquidationFactor);
            emit AbsorbCollateral(absorber, account, info.asset, seized, value);
        }
    }

    function buyCollateral(address asset, uint256 minAmount, uint256 baseAmount, address recipient) external {
        if (isBuyPaused()) revert Paused();
        int256 reserves = getReserves();
        if (reserves >= 0 && uint256(reserves) >= targetReserves) revert NotForSale();
        baseAmount = doTransferIn(baseToken, msg.sender, baseAmount);
        uint256 collateralAmount = quoteCollateral(asset, baseAmount);
        if (collateralAmount < minAmount) revert TooMuchSlippage();
        if (collateralAmount > getCollateralReserves(asset)) revert InsufficientReserves();
        doTransferOut(asset, recipient, safe128(collateralAmount));
        emit BuyCollateral(msg.sender, asset, baseAmount, collateralAmount);
    }

    function quoteCollateral(address asset, uint256 baseAmount) public view returns (uint256) {
        AssetInfo memory info = getAssetInfoByAddress(asset);
        uint256 discount = mulFactor(storeFrontPriceFactor, FACTOR_SCALE - info.liquidationFactor);
        uint256 discounted = mulFactor(getPrice(info.priceFeed), FACTOR_SCALE - discount);
        return getPrice(baseTokenPriceFeed) * baseAmount * info.scale / discounted / baseScale;
    }

    // ---- governance

    function withdrawReserves(address to, uint256 amount) external {
        if (msg.sender != governor) revert Unauthorized();
        int256 reserves = getReserves();
        if (reserves < 0 || amount > unsigned256(reserves)) revert InsufficientReserves();
        doTransferOut(baseToken, to, amount);
        emit WithdrawReserves(to, amount);
    }

    function approveThis(address manager, address asset, uint256 amount) external {
        if (msg.sender != governor) revert Unauthorized();
        IToken(asset).approve(manager, amount);
    }

    // ---- principal and present value

    function presentValue(int104 principal) internal view returns (int256) {
        return principal >= 0
            ? signed256(presentValueSupply(baseSupplyIndex, uint104(principal)))
            : -signed256(presentValueBorrow(baseBorrowIndex, uint104(-principal)));
    }

    function presentValueSupply(uint64 index, uint104 principal) internal pure returns (uint256) {
        return uint256(principal) * index / BASE_INDEX_SCALE;
    }

    function presentValueBorrow(uint64 index, uint104 principal) internal pure returns (uint256) {
        return uint256(principal) * index / BASE_INDEX_SCALE;
    }

    /// Rounded against the account: a supply down, a debt up.
    function principalValue(int256 balance) internal view returns (int104) {
        if (balance >= 0) return signed104(safe104(uint256(balance) * BASE_INDEX_SCALE / baseSupplyIndex));
        return -signed104(safe104((uint256(-balance) * BASE_INDEX_SCALE + baseBorrowIndex - 1) / baseBorrowIndex));
    }

    function repayAndSupplyAmount(int104 oldPrincipal, int104 newPrincipal) internal pure returns (uint104, uint104) {
        if (newPrincipal < oldPrincipal) return (0, 0);
        if (newPrincipal <= 0) return (uint104(newPrincipal - oldPrincipal), 0);
        if (oldPrincipal >= 0) return (0, uint104(newPrincipal - oldPrincipal));
        return (uint104(-oldPrincipal), uint104(newPrincipal));
    }

    function withdrawAndBorrowAmount(int104 oldPrincipal, int104 newPrincipal)
        internal
        pure
        returns (uint104, uint104)
    {
        if (newPrincipal > oldPrincipal) return (0, 0);
        if (newPrincipal >= 0) return (uint104(oldPrincipal - newPrincipal), 0);
        if (oldPrincipal <= 0) return (0, uint104(oldPrincipal - newPrincipal));
        return (uint104(oldPrincipal), uint104(-newPrincipal));
    }

    function updateBasePrincipal(address account, UserBasic memory basic, int104 principalNew) internal {
        bool supplying = basic.principal >= 0;
        uint256 principal = uint104(supplying ? basic.principal : -basic.principal);
        uint256 indexDelta = uint256((supplying ? trackingSupplyIndex : trackingBorrowIndex) - basic.baseTrackingIndex);
        basic.baseTrackingAccrued += safe64(principal * indexDelta / trackingIndexScale / accrualDescaleFactor);
        basic.baseTrackingIndex = principalNew >= 0 ? trackingSupplyIndex : trackingBorrowIndex;
        basic.principal = principalNew;
        userBasic[account] = basic;
    }

    // ---- the asset map: 16 bits in assetsIn, 8 more in _reserved

    function isInAsset(uint16 assetsIn, uint8 reserved, uint8 offset) internal pure returns (bool) {
        return ((uint256(assetsIn) | uint256(reserved) << 16) >> offset) & 1 == 1;
    }

    function setCollateral(address account, AssetInfo memory info, uint128 balance) internal {
        uint128 before = userCollateral[account][info.asset].balance;
        userCollateral[account][info.asset].balance = balance;
        if ((before == 0) == (balance == 0)) return;
        UserBasic storage basic = userBasic[account];
        if (info.offset < 16) basic.assetsIn ^= uint16(1) << info.offset;
        else basic._reserved ^= uint8(1) << (info.offset - 16);
    }

    // ---- small parts

    function currentTime() internal view returns (uint40) {
        if (block.timestamp >= 2 ** 40) revert TimestampTooLarge();
        return uint40(block.timestamp);
    }

    function sinceAccrual() internal view returns (uint256) {
        return currentTime() - lastAccrualTime;
    }

    function mulFactor(uint256 n, uint256 factor) internal pure returns (uint256) {
        return n * factor / FACTOR_SCALE;
    }

    function mulPrice(uint256 n, uint256 price, uint256 scale) internal pure returns (uint256) {
        return n * price / scale;
    }

    function bit(bool on, uint8 offset) internal pure returns (uint8) {
        return on ? uint8(1) << offset : 0;
    }

    function paused(uint8 offset) internal view returns (bool) {
        return pauseFlags & (uint8(1) << offset) != 0;
    }

    function doTransferIn(address asset, address from, uint256 amount) internal returns (uint256) {
        uint256 before = IToken(asset).balanceOf(address(this));
        if (!IToken(asset).transferFrom(from, address(this), amount)) revert TransferInFailed();
        return IToken(asset).balanceOf(address(this)) - before;
    }

    function doTransferOut(address asset, address to, uint256 amount) internal {
        if (!IToken(asset).transfer(to, amount)) revert TransferOutFailed();
    }

    fallback() external payable {
        address delegate = extensionDelegate;
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), delegate, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(done) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }
}

/// The variant with up to 24 assets, whose list is a contract of its own that can be asked for.
contract CometExtendedStandIn is CometStandIn {
    constructor(Configuration memory config) CometStandIn(config) {}

    function assetLimit() internal pure override returns (uint256) {
        return 24;
    }

    function assetList() external view returns (address) {
        return address(assets);
    }
}

/// The variant after a token lost its price feed for good: assets can be given factors of 0. Nobody asks their price any
/// more, and an absorption leaves them with the account, though it clears the whole asset map.
contract CometPatchedStandIn is CometExtendedStandIn {
    constructor(Configuration memory config) CometExtendedStandIn(config) {}

    function skipsZeroFactors() internal pure override returns (bool) {
        return true;
    }
}

/// The extension delegate: views of the shared storage, permissions, the ERC-20 metadata.
contract CometExtStandIn is CometBaseStandIn {
    string public constant version = "0";
    uint256 internal constant HALF_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;
    bytes32 internal constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    bytes32 internal constant AUTHORIZATION_TYPEHASH =
        keccak256("Authorization(address owner,address manager,bool isAllowed,uint256 nonce,uint256 expiry)");

    bytes32 internal immutable name32;
    bytes32 internal immutable symbol32;
    uint8 public immutable maxAssets;

    constructor(bytes32 name_, bytes32 symbol_, uint8 maxAssets_) {
        name32 = name_;
        symbol32 = symbol_;
        maxAssets = maxAssets_;
    }

    function baseAccrualScale() external pure returns (uint64) {
        return BASE_ACCRUAL_SCALE;
    }

    function baseIndexScale() external pure returns (uint64) {
        return BASE_INDEX_SCALE;
    }

    function factorScale() external pure returns (uint64) {
        return FACTOR_SCALE;
    }

    function priceScale() external pure returns (uint64) {
        return PRICE_SCALE;
    }

    function totalsBasic() external view returns (TotalsBasic memory) {
        return TotalsBasic({
            baseSupplyIndex: baseSupplyIndex,
            baseBorrowIndex: baseBorrowIndex,
            trackingSupplyIndex: trackingSupplyIndex,
            trackingBorrowIndex: trackingBorrowIndex,
            totalSupplyBase: totalSupplyBase,
            totalBorrowBase: totalBorrowBase,
            lastAccrualTime: lastAccrualTime,
            pauseFlags: pauseFlags
        });
    }

    function collateralBalanceOf(address account, address asset) external view returns (uint128) {
        return userCollateral[account][asset].balance;
    }

    function baseTrackingAccrued(address account) external view returns (uint64) {
        return userBasic[account].baseTrackingAccrued;
    }

    function name() public view returns (string memory) {
        return text(name32);
    }

    function symbol() external view returns (string memory) {
        return text(symbol32);
    }

    function text(bytes32 word) internal pure returns (string memory) {
        uint256 length = 0;
        while (length < 32 && word[length] != 0) length++;
        bytes memory letters = new bytes(length);
        for (uint256 i = 0; i < length; i++) {
            letters[i] = word[i];
        }
        return string(letters);
    }

    function approve(address spender, uint256 amount) external returns (bool) {
        if (amount != 0 && amount != type(uint256).max) revert BadAmount();
        allowInternal(msg.sender, spender, amount != 0);
        return true;
    }

    function allowance(address owner, address spender) external view returns (uint256) {
        return hasPermission(owner, spender) ? type(uint256).max : 0;
    }

    function allow(address manager, bool isAllowed_) external {
        allowInternal(msg.sender, manager, isAllowed_);
    }

    function allowBySig(
        address owner,
        address manager,
        bool isAllowed_,
        uint256 nonce,
        uint256 expiry,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        if (uint256(s) > HALF_ORDER) revert InvalidValueS();
        if (v != 27 && v != 28) revert InvalidValueV();
        bytes32 domain = keccak256(
            abi.encode(
                DOMAIN_TYPEHASH, keccak256(bytes(name())), keccak256(bytes(version)), block.chainid, address(this)
            )
        );
        bytes32 message = keccak256(abi.encode(AUTHORIZATION_TYPEHASH, owner, manager, isAllowed_, nonce, expiry));
        address signatory = ecrecover(keccak256(abi.encodePacked("\x19\x01", domain, message)), v, r, s);
        if (signatory == address(0) || owner != signatory) revert BadSignatory();
        if (nonce != userNonce[signatory]++) revert BadNonce();
        if (block.timestamp >= expiry) revert SignatureExpired();
        allowInternal(signatory, manager, isAllowed_);
    }

    function allowInternal(address owner, address manager, bool isAllowed_) internal {
        isAllowed[owner][manager] = isAllowed_;
        emit Approval(owner, manager, isAllowed_ ? type(uint256).max : 0);
    }
}

/// An EIP-1967 proxy: its admin may only upgrade, everybody else reaches the implementation.
contract CometProxyStandIn {
    event Upgraded(address indexed implementation);
    event AdminChanged(address previousAdmin, address newAdmin);

    bytes32 internal constant IMPLEMENTATION = bytes32(uint256(keccak256("eip1967.proxy.implementation")) - 1);
    bytes32 internal constant ADMIN = bytes32(uint256(keccak256("eip1967.proxy.admin")) - 1);

    constructor(address implementation, address admin, bytes memory data) {
        emit AdminChanged(address(0), admin);
        store(ADMIN, admin);
        upgrade(implementation);
        if (data.length > 0) {
            (bool done,) = implementation.delegatecall(data);
            require(done, "initialisation failed");
        }
    }

    function upgrade(address implementation) internal {
        require(implementation.code.length > 0, "not a contract");
        store(IMPLEMENTATION, implementation);
        emit Upgraded(implementation);
    }

    function store(bytes32 slot, address value) internal {
        assembly {
            sstore(slot, value)
        }
    }

    function load(bytes32 slot) internal view returns (address value) {
        assembly {
            value := sload(slot)
        }
    }

    fallback() external payable {
        if (msg.sender == load(ADMIN)) {
            require(msg.sig == bytes4(keccak256("upgradeTo(address)")), "admin cannot fall through");
            upgrade(abi.decode(msg.data[4:], (address)));
            return;
        }
        address implementation = load(IMPLEMENTATION);
        assembly {
            calldatacopy(0, 0, calldatasize())
            let done := delegatecall(gas(), implementation, 0, calldatasize(), 0, 0)
            returndatacopy(0, 0, returndatasize())
            if iszero(done) { revert(0, returndatasize()) }
            return(0, returndatasize())
        }
    }
}
