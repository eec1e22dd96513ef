// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// Dollars an ether, with 8 decimals.
contract Feed {
    uint256 public price;

    constructor(uint256 price_) {
        price = price_;
    }

    function set(uint256 price_) external {
        price = price_;
    }
}

/// Numbered loans of dollars (1e18) against ether, with interest, liquidatable above `threshold` of the value.
contract Lombard {
    event FeedSet(address feed);
    event Opened(uint256 indexed number, address indexed owner);
    event Changed(uint256 indexed number);

    struct Loan {
        address owner;
        uint256 collateral;
        uint256 principal;
    }

    mapping(uint256 => Loan) public loans;
    mapping(address => uint256[]) private owned;
    uint256 public count;
    uint256 public index = 1e18;
    uint256 public updated = block.timestamp;
    uint256 public rate = 1e9; // a second, scaled by 1e18: about 3 % a year
    uint256 public threshold = 5000; // basis points
    Feed private feed; // only FeedSet names it

    function setFeed(Feed feed_) external {
        feed = feed_;
        emit FeedSet(address(feed_));
    }

    function poke() public {
        index = index + index * rate * (block.timestamp - updated) / 1e18;
        updated = block.timestamp;
    }

    function open(uint256 dollars) external payable {
        poke();
        loans[++count] = Loan(msg.sender, msg.value, (dollars * 1e18 + index - 1) / index);
        owned[msg.sender].push(count);
        emit Opened(count, msg.sender);
    }

    function add(uint256 number) external payable {
        loans[number].collateral += msg.value;
        emit Changed(number);
    }

    function repay(uint256 number, uint256 dollars) external {
        poke();
        uint256 paid = dollars * 1e18 / index;
        loans[number].principal -= paid < loans[number].principal ? paid : loans[number].principal;
        emit Changed(number);
    }

    /// Pays all of the debt; takes collateral worth 5 % more.
    function liquidate(uint256 number) external {
        poke();
        require(health(number) < 1e18, "safe");
        uint256 seized = debt(number) * 1e8 / feed.price() * 105 / 100;
        loans[number].collateral -= seized < loans[number].collateral ? seized : loans[number].collateral;
        loans[number].principal = 0;
        emit Changed(number);
    }

    function loansOf(address owner) external view returns (uint256[] memory) {
        return owned[owner];
    }

    function limit(uint256 number) public view returns (uint256) {
        return loans[number].collateral * feed.price() / 1e8 * threshold / 10000;
    }

    function debt(uint256 number) public view returns (uint256) {
        return loans[number].principal * index / 1e18;
    }

    function health(uint256 number) public view returns (uint256) {
        return debt(number) == 0 ? type(uint256).max : limit(number) * 1e18 / debt(number);
    }
}
