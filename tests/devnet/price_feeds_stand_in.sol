// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IAnswer {
    function latestAnswer() external view returns (int256);
    function decimals() external view returns (uint8);
}

/// A stand-in for Chainlink's DualAggregator (SVR), which no package has. It keeps the real one's events, the rule of
/// `_getLatestRound` and `_getSyncPrimaryRound`, and the storage that readers look at: `s_hotVars` in slot 13 and
/// `s_cutoffTime` in slot 18. Left out: reports, signatures and payments; anybody may transmit.
contract DualAggregatorStandIn {
    struct Transmission {
        int192 answer;
        uint32 observationsTimestamp;
        uint32 recordedTimestamp;
    }

    struct HotVars {
        uint8 f;
        uint40 latestEpochAndRound;
        uint32 latestAggregatorRoundId;
        uint32 latestSecondaryRoundId;
        bool isLatestSecondary;
    }

    event AnswerUpdated(int256 indexed current, uint256 indexed roundId, uint256 updatedAt);
    event SecondaryRoundIdUpdated(uint32 indexed secondaryRoundId);
    event CutoffTimeSet(uint32 cutoffTime);

    uint256[13] private gap;
    HotVars internal s_hotVars; // slot 13
    uint256[3] private gap2;
    mapping(uint32 => Transmission) internal s_transmissions; // slot 17
    uint32 internal s_cutoffTime; // slot 18
    address internal immutable i_secondaryProxy;
    uint32 internal constant MAX_SYNC_ITERATIONS = 20;
    uint8 public constant decimals = 8;
    string public description;

    constructor(string memory description_, address secondaryProxy, uint32 cutoffTime) {
        description = description_;
        i_secondaryProxy = secondaryProxy;
        s_cutoffTime = cutoffTime;
    }

    function typeAndVersion() external pure returns (string memory) {
        return "DualAggregator 1.0.0";
    }

    function setCutoffTime(uint32 cutoffTime) external {
        s_cutoffTime = cutoffTime;
        emit CutoffTimeSet(cutoffTime);
    }

    function transmit(int192 answer) external {
        uint32 id = ++s_hotVars.latestAggregatorRoundId;
        s_transmissions[id] = Transmission(answer, uint32(block.timestamp), uint32(block.timestamp));
        emit AnswerUpdated(answer, id, block.timestamp);
    }

    function transmitSecondary(uint32 id) external {
        require(id > s_hotVars.latestSecondaryRoundId && id <= s_hotVars.latestAggregatorRoundId, "StaleReport");
        s_hotVars.latestSecondaryRoundId = id;
        emit SecondaryRoundIdUpdated(id);
    }

    function _getSyncPrimaryRound() internal view returns (uint32) {
        uint32 latest = s_hotVars.latestAggregatorRoundId;
        for (uint32 id = latest; id > 0; --id) {
            if (latest - id == MAX_SYNC_ITERATIONS) break;
            if (id == s_hotVars.latestSecondaryRoundId) return id;
            if (s_transmissions[id].recordedTimestamp + s_cutoffTime < block.timestamp) return id;
        }
        return s_hotVars.latestSecondaryRoundId;
    }

    function _getLatestRound() internal view returns (uint32) {
        if (msg.sender == i_secondaryProxy) {
            uint32 secondary = s_hotVars.latestSecondaryRoundId;
            if (s_transmissions[secondary].recordedTimestamp + s_cutoffTime < block.timestamp) {
                return _getSyncPrimaryRound();
            }
            return secondary;
        }
        return s_hotVars.latestAggregatorRoundId;
    }

    function latestRound() external view returns (uint256) {
        return _getLatestRound();
    }

    function latestAnswer() external view returns (int256) {
        return s_transmissions[_getLatestRound()].answer;
    }

    function getRoundData(uint80 id) public view returns (uint80, int256, uint256, uint256, uint80) {
        if (id > _getLatestRound()) return (0, 0, 0, 0, 0);
        Transmission memory t = s_transmissions[uint32(id)];
        return (id, t.answer, t.observationsTimestamp, t.recordedTimestamp, id);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return getRoundData(_getLatestRound());
    }
}

contract OneMoreWord {
    uint256 internal word;
}

/// The same with its storage laid out otherwise, as another version might have it.
contract ShiftedDualAggregatorStandIn is OneMoreWord, DualAggregatorStandIn {
    constructor(string memory name, address proxy, uint32 cutoff) DualAggregatorStandIn(name, proxy, cutoff) {}
}

/// A stand-in for Aave's PriceCapAdapterBase (an LST: the ratio is capped), which no package has.
contract RatioCapStandIn {
    address public immutable BASE_TO_USD_AGGREGATOR;
    address public constant RATIO_PROVIDER = address(1);
    uint8 public constant decimals = 8;
    string public constant description = "Capped wstETH / USD";
    int256 public getRatio;
    uint256 public immutable getSnapshotRatio;
    uint256 public immutable getSnapshotTimestamp;
    uint256 public immutable getMaxRatioGrowthPerSecond;

    constructor(address base, uint256 snapshotRatio, uint256 growth) {
        BASE_TO_USD_AGGREGATOR = base;
        getRatio = int256(snapshotRatio);
        getSnapshotRatio = snapshotRatio;
        getSnapshotTimestamp = block.timestamp;
        getMaxRatioGrowthPerSecond = growth;
    }

    function set(int256 ratio) external {
        getRatio = ratio;
    }

    function maxRatio() public view returns (int256) {
        return int256(getSnapshotRatio + getMaxRatioGrowthPerSecond * (block.timestamp - getSnapshotTimestamp));
    }

    function isCapped() public view returns (bool) {
        return getRatio > maxRatio();
    }

    function latestAnswer() external view returns (int256) {
        return IAnswer(BASE_TO_USD_AGGREGATOR).latestAnswer() * (isCapped() ? maxRatio() : getRatio) / 1e18;
    }
}

/// A stand-in for Aave's PriceCapAdapterStable, which no package has.
contract StableCapStandIn {
    address public immutable ASSET_TO_USD_AGGREGATOR;
    int256 public getPriceCap;
    uint8 public constant decimals = 8;
    string public constant description = "Capped USDC / USD";

    constructor(address asset, int256 cap) {
        ASSET_TO_USD_AGGREGATOR = asset;
        getPriceCap = cap;
    }

    event PriceCapUpdated(int256 priceCap);

    function setPriceCap(int256 cap) external {
        getPriceCap = cap;
        emit PriceCapUpdated(cap);
    }

    function isCapped() public view returns (bool) {
        return IAnswer(ASSET_TO_USD_AGGREGATOR).latestAnswer() > getPriceCap;
    }

    function latestAnswer() external view returns (int256) {
        return isCapped() ? getPriceCap : IAnswer(ASSET_TO_USD_AGGREGATOR).latestAnswer();
    }
}

/// A stand-in for Aave's CLSynchronicityPriceAdapterPegToBase, which no package has.
contract SynchronicityStandIn {
    address public immutable ASSET_TO_PEG;
    address public immutable PEG_TO_BASE;
    uint8 public constant decimals = 8;

    constructor(address assetToPeg, address pegToBase) {
        ASSET_TO_PEG = assetToPeg;
        PEG_TO_BASE = pegToBase;
    }

    function latestAnswer() external view returns (int256) {
        IAnswer asset = IAnswer(ASSET_TO_PEG);
        IAnswer peg = IAnswer(PEG_TO_BASE);
        int256 scale = int256(10 ** (asset.decimals() + peg.decimals() - decimals));
        return asset.latestAnswer() * peg.latestAnswer() / scale;
    }
}

/// An adapter that makes more of its feed's answer than a product of feeds.
contract DoublingStandIn {
    address public immutable underlyingPriceFeed;
    uint8 public constant decimals = 8;

    constructor(address feed) {
        underlyingPriceFeed = feed;
    }

    function latestAnswer() external view returns (int256) {
        return 2 * IAnswer(underlyingPriceFeed).latestAnswer();
    }
}

/// A stand-in for Compound's PriceOracle over Chainlink feeds, which no package has: its getConfig, its rule, its event.
contract ConfiguredOracleStandIn {
    struct TokenConfig {
        uint8 underlyingAssetDecimals;
        address priceFeed;
        uint256 fixedPrice;
    }

    event PriceOracleAssetPriceFeedUpdated(address indexed cToken, address oldPriceFeed, address newPriceFeed, uint256 oldFixedPrice);

    mapping(address => TokenConfig) private configs;

    function addConfig(address cToken, uint8 underlyingDecimals, address priceFeed, uint256 fixedPrice) external {
        configs[cToken] = TokenConfig(underlyingDecimals, priceFeed, fixedPrice);
    }

    function updateConfigPriceFeed(address cToken, address priceFeed) external {
        TokenConfig storage config = configs[cToken];
        emit PriceOracleAssetPriceFeedUpdated(cToken, config.priceFeed, priceFeed, config.fixedPrice);
        (config.priceFeed, config.fixedPrice) = (priceFeed, 0);
    }

    function getConfig(address cToken) public view returns (TokenConfig memory) {
        require(configs[cToken].underlyingAssetDecimals > 0, "ConfigNotFound");
        return configs[cToken];
    }

    function getUnderlyingPrice(address cToken) external view returns (uint256) {
        TokenConfig memory config = getConfig(cToken);
        if (config.fixedPrice != 0) return config.fixedPrice;
        IAnswer feed = IAnswer(config.priceFeed);
        int256 answer = feed.latestAnswer();
        if (answer <= 0) return 0;
        return uint256(answer) * 10 ** (36 - feed.decimals() - config.underlyingAssetDecimals);
    }
}
