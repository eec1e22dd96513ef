// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// The smallest lending protocol: ether in, whole dollars (1e18) out, liquidatable above half the value.
contract Pawnshop {
    event Pawned(address indexed who);
    event Redeemed(address indexed who);

    mapping(address => uint256) public collateral;
    mapping(address => uint256) public debt;
    uint256 public price = 2000;

    function pawn(uint256 dollars) external payable {
        collateral[msg.sender] += msg.value;
        debt[msg.sender] += dollars;
        emit Pawned(msg.sender);
    }

    function redeem(uint256 dollars) external {
        debt[msg.sender] -= dollars;
        emit Redeemed(msg.sender);
    }

    function setPrice(uint256 to) external {
        price = to;
    }

    function health(address who) external view returns (uint256) {
        return debt[who] == 0 ? type(uint256).max : collateral[who] * price / 2 * 1e18 / debt[who];
    }
}
