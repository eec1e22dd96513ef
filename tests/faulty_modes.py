"""What `tests.faulty` can do to an answer, by name, each with the public report of it where there is one."""

import zlib
from functools import cache
from typing import Any

#: faults of a whole HTTP request
HTTP_FAULTS = (
    "429",  # too many requests
    "429-retry-after",  # the same with a Retry-After header of `retry_after` seconds (urllib3/urllib3 PR 3743: of days)
    "500",
    "502",
    "503",
    "hang",  # no answer for `hang_seconds`
    "drip",  # headers and body byte by byte, one each `drip_seconds` (snoyberg/http-client 269)
    "deep-json",  # 200 kB of opening brackets (EOSIO/eos 3539)
    "long-error",  # an error whose text is 100 kB of letters (pathosDev/actor-ts 1198: masked by a quadratic pattern)
    "gzip-bomb",  # 100 MB in 100 kB of gzip (urllib3 GHSA-38jv-5279-wg99)
    "reset",  # the connection is reset
    "truncated",  # half of the body, then the end of the connection
    "html",  # HTTP 200 with a web page
    "wrong-id",  # the answer to another request
    "batch-unsupported",  # one error for a whole batch
    "batch-rate-limited",  # eth_getLogs in batches, whatever their size (public endpoints of BNB Chain)
    "batch-missing",  # one answer left out
    "batch-reordered",  # harmless: ids decide
    "batch-duplicate",  # one answer twice, another left out
    "batch-swapped",  # two answers under each other's ids
)
#: faults of a single call
CALL_FAULTS = (
    "rate-limit-error",  # -32005 with HTTP 200
    "header-not-found",  # a block that a load-balanced backend has not seen yet
    "pruned",  # state is gone
    "pruned-history",  # code 4444 for logs before `history_from`
    "null",  # null where a value is due
    "internal",  # -32603
    "omitted-logs",  # HTTP 200 with some logs missing
    "ignores-block",  # eth_call answered for the latest block
    "ignores-filter",  # eth_getLogs answered for all addresses and topics
    "lagging",  # a backend `lag` blocks behind
    "unknown-hash-empty",  # one that lags and has no logs for a block that it does not know (paradigmxyz/reth 7371)
    "override-unsupported",  # no third parameter of eth_call
    "override-ignored",  # silently
    "receipts-unsupported",  # no eth_getBlockReceipts
    "block-hash-unsupported",  # no blockHash in eth_getLogs
    "block-hash-ignored",  # eth_getLogs by blockHash answered for the latest block (XinFinOrg/XDPoSChain 457)
    "eip1898-refused",  # a block named by an object (0xPolygonHermez/zkevm-node 1951, lambdaclass/ethrex PR 6130)
    "null-logs",  # null where there are no logs (smartbch/smartbch 67, onflow/flow-evm-gateway 695)
    "log-index-per-transaction",  # counted anew in each (hyperledger/besu PR 4355, smartcontractkit/chainlink PR 7072)
    "gateway-error",  # a passing error of an OP-stack gateway (ethereum-optimism/optimism 17688, infra PR 547)
    "unknown-error",  # code and words that nobody has ever seen
    "absurd-time",  # a header of a time that no calendar has (matter-labs/anvil-zksync 274: milliseconds)
    "bloom-zero",  # a header whose bloom filter is all zeros (matter-labs/zksync-era 4580, evmos/ethermint 247)
    "bloom-ones",  # all ones (filecoin-project/ref-fvm 1212, ChainSafe/forest 7151)
    "bloom-lacks",  # the first bits of it are missing (l2beat/l2beat PR 10113: state-sync logs of Polygon)
    "bloom-more",  # some bits too many
    "bloom-0x",  # "0x" (onflow/flow-evm-gateway 372)
    "bloom-null",
    "bloom-absent",
)
BLOOM_FAULTS = tuple(name for name in CALL_FAULTS if name.startswith("bloom-"))
FAULTS = frozenset(HTTP_FAULTS + CALL_FAULTS)

STATE_METHODS = frozenset({"eth_call", "eth_getCode", "eth_getStorageAt", "eth_getBalance"})
#: code and words of "gateway-error"
GATEWAY_ERRORS = (
    (-32019, "block is out of range"),
    (-32010, "backend offline"),
    (-32011, "no backends available for method"),
    (-32013, "backend returned an invalid response"),
    (12, "can't route your request to suitable provider"),
    (-32000, "failed to connect to upstream"),
)


def spoil_bloom(header: dict[str, Any], fault: str) -> None:
    """Give a header a bloom filter that does not fit its logs."""
    bloom = int(header.pop("logsBloom"), 16)
    first = bloom & -bloom
    spoilt = {
        "bloom-zero": 0,
        "bloom-ones": 2**2048 - 1,
        "bloom-lacks": bloom & ~first & ~((bloom & ~first) & -(bloom & ~first)),
        "bloom-more": bloom | 1 << 2047 | 1 << 1023 | 1 << 511,
    }
    if fault in spoilt:
        header["logsBloom"] = f"0x{spoilt[fault]:0512x}"
    elif fault != "bloom-absent":
        header["logsBloom"] = "0x" if fault == "bloom-0x" else None


@cache
def gzip_bomb() -> bytes:
    packer = zlib.compressobj(wbits=31)
    return b"".join([*(packer.compress(b" " * 2**20) for _ in range(100)), packer.flush()])


def count_per_transaction(logs: list[dict[str, Any]], firsts: dict[str, int]) -> None:
    """Number logs anew in each transaction; `firsts` has the index of each transaction's first log in its block."""
    for log in logs:
        log["logIndex"] = hex(int(log["logIndex"], 16) - firsts[log["transactionHash"]])


def span(call: dict[str, Any]) -> int:
    """How many blocks an eth_getLogs asks for."""
    wanted = call["params"][0] if call["method"] == "eth_getLogs" else {}
    return int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1 if "fromBlock" in wanted else 0
