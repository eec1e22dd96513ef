// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

interface IValue {
    function peek() external view returns (bytes32, bool);
}

/// A stand-in for Maker's Oracle Security Module, which the recorded deployment lacks: a price waits an hour in `nxt`
/// before it counts. It keeps the real one's ABI and storage order (`cur` in slot 3, `nxt` in slot 4); only accounts
/// that were kissed may read. Left out: the anonymous notes.
contract OsmStandIn {
    struct Feed {
        uint128 val;
        uint128 has;
    }

    event LogValue(bytes32 val);

    mapping(address => uint256) public wards;
    uint256 public stopped;
    address public src;
    uint16 public hop = 3600;
    uint64 public zzz;
    Feed internal cur;
    Feed internal nxt;
    mapping(address => uint256) public bud;

    modifier auth() {
        require(wards[msg.sender] == 1, "OSM/not-authorized");
        _;
    }

    modifier toll() {
        require(bud[msg.sender] == 1, "OSM/contract-not-whitelisted");
        _;
    }

    constructor(address src_) {
        wards[msg.sender] = 1;
        src = src_;
    }

    function rely(address usr) external auth {
        wards[usr] = 1;
    }

    function deny(address usr) external auth {
        wards[usr] = 0;
    }

    function kiss(address usr) external auth {
        bud[usr] = 1;
    }

    function diss(address usr) external auth {
        bud[usr] = 0;
    }

    function stop() external auth {
        stopped = 1;
    }

    function start() external auth {
        stopped = 0;
    }

    function change(address src_) external auth {
        src = src_;
    }

    function step(uint16 ts) external auth {
        require(ts > 0, "OSM/ts-is-zero");
        hop = ts;
    }

    function void() external auth {
        cur = Feed(0, 0);
        nxt = Feed(0, 0);
        stopped = 1;
    }

    function pass() public view returns (bool) {
        return block.timestamp >= zzz + hop;
    }

    function poke() external {
        require(stopped == 0, "OSM/is-stopped");
        require(pass(), "OSM/not-passed");
        (bytes32 wut, bool ok) = IValue(src).peek();
        if (!ok) return;
        cur = nxt;
        nxt = Feed(uint128(uint256(wut)), 1);
        zzz = uint64(block.timestamp - block.timestamp % hop);
        emit LogValue(bytes32(uint256(cur.val)));
    }

    function peek() external view toll returns (bytes32, bool) {
        return (bytes32(uint256(cur.val)), cur.has == 1);
    }

    function peep() external view toll returns (bytes32, bool) {
        return (bytes32(uint256(nxt.val)), nxt.has == 1);
    }

    function read() external view toll returns (bytes32) {
        require(cur.has == 1, "OSM/no-current-value");
        return bytes32(uint256(cur.val));
    }
}
