"""Contracts of a few opcodes for `anvil_setCode`: each does one thing that a node or a contract may do to us."""

# for each (topic, word) pair of the calldata: log1(word, topic)
EMITTER = "0x60005b36811015601f578060200135600052803560206000a1604001600256" + "5b00"
# answers its arguments
ECHO = "0x600436038060046000376000f3"
REVERT = "0x60006000fd"
# reverts with the word 42
REVERT_42 = "0x602a60005260206000fd"
# reverts with Panic(17), as Solidity does where a number falls below zero
PANIC_17 = "0x634e487b7160e01b6000526011600452" + "60246000fd"
# burns all the gas it is given
GAS_EATER = "0xfe"
# loops as often as its argument says (about 40 gas each), then answers 1
LOOP = "0x6004355b801560105760019003600356" + "5b600160005260206000f3"
# counts its calls in slot 0 and answers the count
COUNTER = "0x600054600101806000556000526020" + "6000f3"
CALLER = "0x3360005260206000f3"
BLOCK_NUMBER = "0x4360005260206000f3"
EOA = "0x" + "11" * 20


def address(number: int) -> str:
    """A made-up contract address."""
    return f"0x{0xC0DE0000 + number:040x}"
