// Asks every account, in one eth_call, what its flags name. It is never deployed: the call overrides an address's code with it.
//
// calldata  the number n of functions, n words [selector: 4 bytes][bit: 1][0: 7][contract: 20], and accounts of 20 bytes each
// answer    for each account and function, a word: those of functions whose bit is 255, and of those whose bit is set in the
//           answer of the first function
//
// It reverts if any function does, or answers less than a word.
object "Lens" {
  code {
    let end := add(32, shl(5, calldataload(0)))
    let out := 96
    for { let at := end } lt(at, calldatasize()) { at := add(at, 20) } {
      let account := shr(96, calldataload(at))
      let flags := 0
      for { let entry := 32 } lt(entry, end) { entry := add(entry, 32) } {
        let what := calldataload(entry)
        let bit := byte(4, what)
        if or(eq(bit, 255), and(shr(bit, flags), 1)) {
          mstore(0, what)
          mstore(4, account)
          if iszero(staticcall(gas(), what, 0, 36, out, 32)) { revert(0, 0) }
          if lt(returndatasize(), 32) { revert(0, 0) }
          if eq(entry, 32) { flags := mload(out) }
          out := add(out, 32)
        }
      }
    }
    return(96, sub(out, 96))
  }
}
