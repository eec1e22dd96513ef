"""What public bug reports of other indexers tell of nodes and tokens, tried on this one; each names its report."""

import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain import retry
from indexer.chain.errors import BadAnswerError
from indexer.cli.main import main
from indexer.errors import RetryableError
from indexer.logs.log_filter import EVERYTHING, events_of
from protocols.common import symbol_of
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import config_toml
from tests.faulty import FaultyNode
from tests.truth import deployment_of, wrong_rows

Edit = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]
HASH, OTHER = "0x" + "ab" * 32, "0x" + "cd" * 32
LOG = {
    "address": "0x" + "11" * 20, "topics": [HASH], "data": "0x", "blockNumber": "0x5", "blockHash": HASH,
    "transactionHash": HASH, "transactionIndex": "0x0", "logIndex": "0x0", "removed": False,
}  # fmt: skip


def events(*logs: dict[str, Any]) -> list[Any]:
    return events_of(logs, EVERYTHING, 5, 5)


def test_logs_of_a_block_that_left_the_chain_beside_those_in_its_place() -> None:
    """graphprotocol/graph-node 5661: one answer has both, the former marked `removed`; the subgraph was stuck for good."""
    gone = LOG | {"blockHash": OTHER, "transactionHash": OTHER, "removed": True}
    assert events(gone, LOG) == events(LOG, gone) == events(LOG)
    with pytest.raises(BadAnswerError, match="two hashes for block 5"):
        events(gone | {"removed": False}, LOG)


def test_a_log_that_comes_twice_is_one_event() -> None:
    """filecoin-project/ref-fvm 1350, ponder-sh/ponder 1374: events were counted twice, or broke the insert."""
    assert events(LOG, LOG) == events(LOG)


def test_two_logs_of_one_number_are_a_bad_answer() -> None:
    """blockscout/blockscout PR 10880: clients number two logs of a transaction alike; another endpoint is asked."""
    with pytest.raises(BadAnswerError, match="two logs numbered 0 in block 5"):
        events(LOG, LOG | {"data": "0x01"})
    per_transaction = LOG | {"transactionHash": OTHER, "transactionIndex": "0x1"}  # besu PR 4355, lotus 11630
    assert len(events(LOG, per_transaction)) == 2


@pytest.mark.parametrize("number", ["0x4", "0x6"])
def test_logs_of_a_block_that_was_not_asked_for_are_a_bad_answer(number: str) -> None:
    """ethereum/go-ethereum 25300: asked for a block that is still to come, nodes answer with others."""
    with pytest.raises(BadAnswerError, match=r"for 5\.\.5"):
        events(LOG | {"blockNumber": number})


@pytest.mark.parametrize("field", ["blockNumber", "blockHash", "transactionHash", "transactionIndex", "logIndex"])
def test_a_log_of_the_pending_block_is_a_bad_answer(field: str) -> None:
    """theinterfold/interfold PR 1880: where it stands is null, as it stands nowhere yet."""
    with pytest.raises(RetryableError):
        events(LOG | {field: None})


@pytest.mark.parametrize(
    ("text", "word", "symbol"),
    [
        ("MKR", b"", "MKR"),
        ("", b"MKR" + bytes(29), "MKR"),  # aave/protocol-subgraphs PR 105, rotki
        ("4d4b52" + "00" * 29, b"", "MKR"),  # vultisig/vultisig-android 4873: MKR on Arbitrum
        ("FACE", b"", "FACE"),
        ("ab" * 32, b"", "ab" * 32),
        ("00" * 32, b"", "00" * 32),
        ("", bytes(32), "0x12"),
        ("", b"\xff\xfe" + bytes(30), "\ufffd\ufffd"),
    ],
)
def test_a_symbol_is_what_people_call_the_token(text: str, word: bytes, symbol: str) -> None:
    assert symbol_of(text, word, "0x12") == symbol


@given(st.text(max_size=64), st.binary(max_size=32))
def test_any_symbol_is_a_text(text: str, word: bytes) -> None:
    assert isinstance(symbol_of(text, word, "0x12"), str)
    assert symbol_of(text, word, "0x12")


# through the command line -------------------------------------------------------------------------------------------------

EMPTY = {"result": "0x"}
STATE = ("eth_call", "eth_getCode", "eth_getStorageAt")


def synced(folder: Path, node: FaultyNode, market: AaveV3) -> Result:
    config = config_toml(CHAIN_ID, node.url, [market])
    (folder / "indexer.toml").write_text(config)
    files = ["--config", str(folder / "indexer.toml"), "--db", str(folder / "indexer.db")]
    return CliRunner().invoke(main, [*files, "sync", "--chain", "devnet"])


def right(folder: Path, market: AaveV3) -> bool:
    checked, wrong = wrong_rows(folder / "indexer.db", market.node, [market])
    return checked > 0 and not wrong


@pytest.fixture
def faulty(aave_v3_6: AaveV3) -> Iterator[FaultyNode]:
    with FaultyNode(aave_v3_6.node.url) as node:
        yield node


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_node_that_has_not_executed_its_newest_block_is_asked_again(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path, times: int
) -> None:
    """erigontech/erigon 18912: it knows the header, and answers every call about the state with nothing."""
    asked = count()
    faulty.edit = lambda call, answer: answer | EMPTY if call["method"] in STATE and next(asked) < times else answer
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert next(asked) > times
    assert right(tmp_path, aave_v3_6)


def test_a_node_that_has_no_state_at_all_is_not_believed_that_a_contract_is_missing(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    faulty.edit = lambda call, answer: answer | EMPTY if call["method"] in STATE else answer
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 1
    assert "answers as if nothing were deployed, not even Multicall3" in ended.stderr
    assert not (tmp_path / "indexer.db").exists()


def test_a_node_that_knew_a_contract_once_is_not_said_to_know_none(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    """Multicall3 was there at the first look, and nothing ever after: one such answer denies no contract."""
    seen = count()

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if call["method"] not in STATE:
            return answer
        known = call["params"][0].lower() == MULTICALL3.lower() and next(seen) == 0
        return answer if known else answer | EMPTY

    faulty.edit = edit
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 1
    (address,) = (a for key, a in deployment_of(aave_v3_6).addresses.items() if key == "pool_addresses_provider")
    assert f"whether there is a contract at {address} is not certain" in ended.stderr
    assert not (tmp_path / "indexer.db").exists()


def test_ids_that_come_back_as_texts_are_ours(faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """trustwallet/blockatlas PR 1062, loomnetwork/loomchain PR 1414."""
    faulty.edit = lambda _, answer: answer | {"id": str(answer["id"])}
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)


def of_logs(change: Callable[[dict[str, Any]], dict[str, Any]], *, backwards: bool = False) -> Edit:
    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if call["method"] != "eth_getLogs" or not isinstance(answer.get("result"), list):
            return answer
        logs = [change(log) for log in answer["result"]]
        return answer | {"result": logs[::-1] if backwards else logs}

    return edit


def of_headers(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    known = ("number", "hash", "parentHash", "timestamp")
    if not call["method"].startswith("eth_getBlockBy") or not answer.get("result"):
        return answer
    return answer | {"result": {name: answer["result"][name] for name in known} | {"baseFeePerGas": None}}


def now_and_then(error: Any) -> Edit:
    number = count()
    return lambda call, answer: {"id": call["id"], "error": error} if next(number) % 5 == 4 else answer


def too_wide(code: int, text: str) -> Edit:
    """Refuses more than 30 blocks of logs."""

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        wanted = call["params"][0] if call["method"] == "eth_getLogs" else {}
        first, last = (int(wanted.get(name, "0x0"), 16) for name in ("fromBlock", "toBlock"))
        words = text.format(first=first, last=last, span=last - first + 1, cap=30)
        return answer if last - first < 30 else {"id": call["id"], "error": {"code": code, "message": words}}

    return edit


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(of_logs(lambda log: log, backwards=True), id="moonbeam 1130, hiero-json-rpc-relay 699"),
        pytest.param(of_logs(lambda log: {k: v for k, v in log.items() if k != "removed"}), id="go-ethereum 2978"),
        pytest.param(
            of_logs(lambda log: log | {"data": log["data"].removeprefix("0x") and log["data"]}), id="neon PR 1074"
        ),
        pytest.param(
            of_logs(lambda log: log | {"data": "0x0" if log["data"] == "0x" else log["data"]}), id="loomchain 1371"
        ),
        pytest.param(of_headers, id="Zilliqa/zq2 2231, go-kardia PR 143"),
        pytest.param(lambda _, answer: answer | {"id": float(answer["id"])}, id="YAJ-RPC 11"),
        pytest.param(lambda _, answer: {k: v for k, v in answer.items() if k != "jsonrpc"}, id="no version"),
        pytest.param(now_and_then("too many requests"), id="bcoin 159: the error is a text"),
        pytest.param(now_and_then({"code": "429", "message": "Too Many Requests"}), id="the code is a text"),
        pytest.param(now_and_then({"code": None, "message": None}), id="nothing said"),
        pytest.param(now_and_then({"code": -32000, "message": "block meta not found for block #5"}), id="reth 17394"),
        pytest.param(
            too_wide(-32602, "query exceeds max results 20000, retry with the range {first}-{last}"),
            id="base 2421, reth 23810",
        ),
        pytest.param(
            too_wide(
                -32000, "block range is larger than max block range, block range = {span}, max block range = {cap}"
            ),
            id="hyperindex 605",
        ),
        pytest.param(
            too_wide(-32602, "query block range exceeds server limit, narrow your filter: {cap}"), id="erigon PR 20424"
        ),
        pytest.param(too_wide(-32005, "block range too large, max range: {cap}"), id="cdk-erigon PR 1706"),
        pytest.param(too_wide(-32602, "range {span} exceeds limit of {cap}"), id="INFURA 237"),
        pytest.param(
            too_wide(-32602, "this block range should work: [0x0, 0xffffffffffffffff]"), id="a range beyond all"
        ),
        pytest.param(too_wide(-32600, "block range too high"), id="alpha-wallet-ios 5277"),
        pytest.param(
            too_wide(-32000, "\u67e5\u8be2\u533a\u5757\u8303\u56f4\u8fc7\u5927"), id="words in another language"
        ),
    ],
)
def test_a_node_that_says_things_in_its_own_way_is_understood(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path, edit: Edit
) -> None:
    faulty.edit = edit
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)
    assert faulty.requests < 100, "what never changes is no passing fault"
    assert "next in 2" not in ended.stderr


def test_a_gateway_that_now_and_then_forbids_what_it_served_is_asked_again(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    """aurora-is-near/aurora-relayer 156, BobTheBuidler/eth_retry PR 139: HTTP 403 for a client that asks too fast."""
    faulty.status = lambda number: 403 if number % 5 == 4 else 200
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert faulty.injected["status 403"] > 2
    assert right(tmp_path, aave_v3_6)


def test_logs_of_another_block_hash_than_the_headers_end_in_one_line(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    """XinFinOrg/XDPoSChain 650: each log names another block than the header of its number does."""

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        if call["method"] == "eth_getLogs" and isinstance(answer.get("result"), list):
            for log in answer["result"]:
                log["blockHash"] = f"0x{int(log['blockHash'], 16) ^ 1:064x}"
        return answer

    faulty.edit = edit
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 1
    assert re.search(
        r"Error: devnet: eth_getLogs failed, gave up .* logs of block 0x\w+ instead of 0x\w+\)$", ended.stderr
    )
    waits = [float(seconds) for seconds in re.findall(r"next in ([\d.]+) s", ended.stderr)]
    assert sum(waits) < 20, "a minute of pauses before it gave up what never changes"


def test_receipts_that_fail_in_every_block_are_no_passing_fault(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    """sei-protocol/sei-chain 1815: half a minute of retries for each look at a bloom filter, which cost 97 s here."""
    failure = {"code": -32000, "message": "failed to find transaction in block"}
    faulty.edit = lambda call, answer: (
        {"id": answer["id"], "error": failure} if call["method"] == "eth_getBlockReceipts" else answer
    )
    faulty.faults = {"bloom-more": 1}
    began = time.monotonic()
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert faulty.calls["eth_getBlockReceipts"] > 0
    assert time.monotonic() - began < 50
    assert right(tmp_path, aave_v3_6)


def padded(value: Any) -> Any:
    """Every quantity in it with two leading zeros, and in capital letters."""
    if isinstance(value, dict):
        return {key: padded(inner) if key in PADDED else inner for key, inner in value.items()}
    if isinstance(value, list):
        return [padded(inner) for inner in value]
    return "0x00" + value[2:].upper() if isinstance(value, str) else value


PADDED = frozenset({"number", "timestamp", "blockNumber", "logIndex", "transactionIndex", "logs", "result"})
METHODS = frozenset(
    {"eth_chainId", "eth_getLogs", "eth_getBlockByNumber", "eth_getBlockByHash", "eth_getBlockReceipts"}
)


def test_quantities_with_leading_zeros_are_numbers(faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """Against the specification, but what they say is plain; logs of such blocks were refused for ever."""
    faulty.edit = lambda call, answer: padded(answer) if call["method"] in METHODS else answer
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)


@pytest.mark.parametrize("methods", [STATE, ("eth_getCode", "eth_getStorageAt")])
def test_a_state_that_is_lacking_by_hash_is_asked_by_number(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path, methods: tuple[str, ...]
) -> None:
    """foundry-rs/foundry 16773: Somnia."""
    failure = {"code": -1, "message": "unable to load historical state"}

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        named = call["method"] in methods and isinstance(
            call["params"][-1 if call["method"] == "eth_getStorageAt" else 1], dict
        )
        return {"id": answer["id"], "error": failure} if named else answer

    faulty.edit = edit
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)


@pytest.mark.parametrize(
    ("methods", "failure"),
    [
        pytest.param(
            ("eth_call",),
            {"error": {"code": -32000, "message": "CallViewExternal: unsupported operation"}},
            id="wasp-legacy 1153",
        ),
        pytest.param(
            STATE,
            {"error": {"code": -32602, "message": "Invalid block hash: 24d0 at line 2 column 91"}},
            id="axon 1228",
        ),
        pytest.param(STATE, {"error": {"code": -32603, "message": "Internal error"}}, id="ganache-cli-archive 745"),
        pytest.param(("eth_getLogs",), {"error": {"code": -32603, "message": "Internal error"}}, id="logs"),
        pytest.param(("eth_getLogs",), {"result": None}, id="no logs"),
    ],
)
def test_whatever_a_node_says_that_knows_no_block_by_its_hash_it_is_asked_by_number(
    faulty: FaultyNode,
    aave_v3_6: AaveV3,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    methods: tuple[str, ...],
    failure: dict[str, Any],
) -> None:
    """Words for a passing fault, or for a block that is not there: the sync ended with a reorganisation that never was."""
    monkeypatch.setattr(retry, "LONGEST_BACKOFF", 0.05)

    def edit(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        named = any(isinstance(value, dict) and "blockHash" in value for value in call["params"])
        return {"id": answer["id"], **failure} if named and call["method"] in methods else answer

    faulty.edit = edit
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)
    assert faulty.requests < 100


def test_a_backend_of_zksync_that_lags_is_asked_again(faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path) -> None:
    """It says by the code of invalid parameters that it does not know the block yet; two such answers ended the sync."""
    asked = count()
    failure = {"code": -32602, "message": "Block with such an ID doesn't exist yet"}
    faulty.edit = lambda call, answer: (
        {"id": answer["id"], "error": failure} if call["method"] == "eth_call" and next(asked) < 2 else answer
    )
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert right(tmp_path, aave_v3_6)


def test_receipts_that_are_null_in_every_block_are_no_reorganisation(
    faulty: FaultyNode, aave_v3_6: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kkrt-labs/kakarot-rpc 821: by the specification null says that there is no such block."""
    monkeypatch.setattr(retry, "LONGEST_BACKOFF", 0.05)
    faulty.edit = lambda call, answer: answer | {"result": None} if call["method"] == "eth_getBlockReceipts" else answer
    faulty.faults = {"bloom-more": 1}
    ended = synced(tmp_path, faulty, aave_v3_6)
    assert ended.exit_code == 0, ended.output
    assert faulty.calls["eth_getBlockReceipts"] > 0
    assert right(tmp_path, aave_v3_6)
