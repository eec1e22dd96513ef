// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// What surrounds a lending protocol on the devnet: an underlying token, a price feed, a flash borrower.

/// An ERC-20 for scenarios: whoever pays with it into a protocol gets what it lacks, and needs no approval, so that one
/// user action is one transaction.
contract Token {
    string public name;
    string public symbol;
    uint8 public immutable decimals;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor(string memory name_, string memory symbol_, uint8 decimals_) {
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
    }

    function mint(address to, uint256 value) public returns (bool) {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        if (balanceOf[from] < value) mint(from, value - balanceOf[from]);
        move(from, to, value);
        return true;
    }

    function move(address from, address to, uint256 value) private {
        require(balanceOf[from] >= value, "balance too low");
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }
}

/// A Chainlink-like feed whose answer anyone can set; like a ratio feed it logs nothing when it moves.
contract Feed {
    uint8 public immutable decimals;
    int256 public latestAnswer;

    constructor(uint8 decimals_, int256 answer) {
        decimals = decimals_;
        latestAnswer = answer;
    }

    function set(int256 answer) external {
        latestAnswer = answer;
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return (1, latestAnswer, block.timestamp, block.timestamp, 1);
    }
}

/// An Aave flash-loan receiver that keeps the money: the loan becomes debt of `onBehalfOf` when its mode is not 0.
contract FlashReceiver {
    function executeOperation(
        address[] calldata,
        uint256[] calldata,
        uint256[] calldata,
        address,
        bytes calldata
    ) external pure returns (bool) {
        return true;
    }
}
