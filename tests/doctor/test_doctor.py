"""What the doctor finds at an endpoint, for each fault that an endpoint may have; and how it says so."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from indexer.abi import topic
from indexer.chain.client import Chain
from indexer.config import ChainConfig, load
from indexer.doctor.examination import BELOW, CHECKS, examine, usable
from indexer.doctor.finding import Finding, Verdict
from indexer.doctor.recommended import chain_table, toml
from tests.devnet.emitting import emit, node_with_logs
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.faulty_modes import FAULTS
from tests.tiny_contracts import EOA, address

BLOCKS = 150
LOGGING = address(1)
OK, WARNING, ERROR = Verdict


def fill(node: Anvil) -> None:
    """Blocks of three transactions with a log each, whose topics differ."""
    for number in range(BLOCKS):
        for i in range(3):
            emit(node, LOGGING, [(topic(f"Event{number}x{i}()"), 0)])
        node.rpc("evm_mine")


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with node_with_logs([LOGGING], fill) as anvil:
        yield anvil


@pytest.fixture
def faulty(node: Anvil) -> Iterator[FaultyNode]:
    with FaultyNode(node.url, seed=1, hang_seconds=3) as proxy:
        yield proxy


def found_at(url: str, timeout: float = 30, **keys: Any) -> dict[str, Finding]:
    """What is found at an endpoint, by check."""
    config = ChainConfig(name="devnet", chain_id=CHAIN_ID, rpc=[url], **keys)
    chain = Chain(
        "devnet",
        CHAIN_ID,
        [url],
        config.multicall3,
        guard=config.guard,
        bloom=config.bloom,
        backoff=0.01,
        timeout=timeout,
    )
    try:
        (endpoint,) = chain.in_turn()
        findings = examine(chain, config, endpoint)
    finally:
        chain.close()
    assert all((finding.chain, finding.endpoint) == ("devnet", url) for finding in findings)
    assert len({finding.check for finding in findings}) == len(findings)
    return {finding.check: finding for finding in findings}


def test_a_sound_endpoint_has_no_fault_but_its_clock(node: Anvil) -> None:
    found = found_at(node.url)
    assert list(found) == ["chain id", "head", *CHECKS]
    assert {check for check, finding in found.items() if finding.verdict is not OK} == {"clock"}
    values = {check: finding.value for check, finding in found.items()}
    head = node.block_number()
    assert (values["chain id"], values["head"], values["state"]) == (CHAIN_ID, head, 128)
    assert (values["guard"], values["bloom"], values["batches"], values["log range"]) == ("full", "exact", 100, None)
    assert values["finality"] == head - int(node.block("finalized")["number"], 16)
    assert values["all logs"] == 30


#: fault -> the check that finds it, its verdict, its value and words of it; the others find nothing
SEEN: dict[str, tuple[str, Verdict, Any, str]] = {
    "429": ("chain id", ERROR, None, "does not answer"),
    "429-retry-after": ("chain id", ERROR, None, "does not answer"),
    "500": ("chain id", ERROR, None, "HTTP 500"),
    "502": ("chain id", ERROR, None, "HTTP 502"),
    "503": ("chain id", ERROR, None, "HTTP 503"),
    "absurd-time": ("head", ERROR, None, "the time 18446744073709551621"),
    "hang": ("chain id", ERROR, None, "no complete answer"),
    "drip": ("chain id", ERROR, None, "no complete answer"),
    "deep-json": ("chain id", ERROR, None, "does not answer"),
    "long-error": ("chain id", ERROR, None, "does not answer"),
    "gzip-bomb": ("chain id", ERROR, None, "does not answer"),
    "reset": ("chain id", ERROR, None, "does not answer"),
    "truncated": ("chain id", ERROR, None, "does not answer"),
    "html": ("chain id", ERROR, None, "no JSON"),
    "wrong-id": ("chain id", ERROR, None, "another request"),
    "rate-limit-error": ("chain id", ERROR, None, "rate limited"),
    "null": ("chain id", ERROR, None, "does not answer"),
    "internal": ("chain id", ERROR, None, "Internal error"),
    "gateway-error": ("chain id", ERROR, None, "does not answer"),
    "unknown-error": ("chain id", ERROR, None, "does not answer"),
    "batch-unsupported": ("batches", WARNING, 1, "no batches"),
    "batch-missing": ("batches", WARNING, 1, "no batches"),
    "batch-swapped": ("batches", WARNING, 1, "no batches"),
    "header-not-found": ("state", ERROR, 0, "keeps no state"),
    "pruned": ("state", ERROR, 0, "keeps no state"),
    "ignores-block": ("state", ERROR, 0, "another block"),
    "eip1898-refused": ("block by hash", WARNING, False, "EIP-1898"),
    "override-unsupported": ("overrides", WARNING, False, "no state overrides"),
    "override-ignored": ("overrides", WARNING, False, "no state overrides"),
    "receipts-unsupported": ("receipts", WARNING, False, "no receipts"),
    "block-hash-unsupported": ("logs by hash", WARNING, False, "by the hash"),
    "block-hash-ignored": ("logs by hash", WARNING, False, "ignores the hash"),
    "ignores-filter": ("log range", WARNING, None, "ignores the filter"),
    "omitted-logs": ("receipts", ERROR, False, "left out"),
    "bloom-zero": ("bloom", WARNING, "none", '"exact"` is configured'),
    "bloom-ones": ("bloom", WARNING, "none", "leaves some out"),
    "bloom-lacks": ("bloom", WARNING, "partial", '"exact"` is configured'),
    "bloom-more": ("bloom", WARNING, "none", "leaves some out"),
    "bloom-0x": ("bloom", WARNING, "none", '"exact"` is configured'),
    "bloom-null": ("bloom", WARNING, "none", '"exact"` is configured'),
    "bloom-absent": ("bloom", WARNING, "none", '"exact"` is configured'),
}
#: faults that pass, that need a second endpoint to be seen, or that are seen as others
UNSEEN = {
    "batch-rate-limited",
    "batch-reordered",
    "lagging",
    "unknown-hash-empty",
    "null-logs",
    "log-index-per-transaction",
}


def test_every_fault_is_accounted_for() -> None:
    assert SEEN.keys() | UNSEEN | {"pruned-history", "batch-duplicate"} == FAULTS


@pytest.mark.parametrize("fault", sorted(SEEN))
def test_each_fault_is_found(faulty: FaultyNode, fault: str) -> None:
    faulty.faults = {fault: 1}
    found = found_at(faulty.url, timeout=2 if fault in {"hang", "drip"} else 30)
    check, verdict, value, words = SEEN[fault]
    assert (found[check].verdict, found[check].value) == (verdict, value)
    assert words in found[check].text
    assert usable([*found.values()]) == (verdict is not ERROR)
    if check == "chain id":
        assert list(found) == ["chain id"]


def test_a_batch_with_one_answer_twice_counts_as_too_large(faulty: FaultyNode) -> None:
    faulty.faults = {"batch-duplicate": 1}  # of two it may happen to repeat none
    assert found_at(faulty.url)["batches"].value < 100


def test_logs_of_a_block_that_are_all_left_out_show_in_its_bloom_and_its_receipts(
    node: Anvil, faulty: FaultyNode
) -> None:
    block = node.block_number() - BELOW - 1
    faulty.omit_blocks = {block}
    found = found_at(faulty.url)
    assert found["receipts"].verdict is ERROR
    assert f"block {block}: 3 logs in its receipts, 0 by eth_getLogs" in found["receipts"].text
    assert found["bloom"].verdict is WARNING
    assert f"block {block} shows logs" in found["bloom"].text


@pytest.mark.parametrize("fault", sorted(UNSEEN))
def test_the_other_faults_disturb_no_check(faulty: FaultyNode, fault: str) -> None:
    faulty.faults = {fault: 1}
    found = found_at(faulty.url)
    assert {check for check, finding in found.items() if finding.verdict is not OK} == {"clock"}


@pytest.mark.parametrize(
    ("limits", "check", "verdict", "value", "words"),
    [
        ({"range_cap": 70}, "log range", WARNING, 70, "70 blocks at most"),
        ({"range_cap": 70, "limit_text": "no"}, "log range", WARNING, 50, "50 blocks at most"),
        ({"range_cap": 0, "limit_text": "no"}, "log range", ERROR, 0, "serves no logs"),
        ({"result_cap": 20}, "all logs", WARNING, None, "are refused"),
        ({"batch_cap": 10}, "batches", OK, 10, "10 calls in one request at most"),
        ({"batch_cap": 30, "batch_text": "batch too large"}, "batches", OK, 25, "25 calls"),
        ({"gas_cap": 4_000_000}, "gas", WARNING, None, "which is little"),
        ({"history_from": 60, "faults": {"pruned-history": 1}}, "log range", WARNING, None, "last 50 blocks"),
    ],
)  # fmt: skip
def test_each_limit_is_measured(
    faulty: FaultyNode, limits: dict[str, Any], check: str, verdict: Verdict, value: object, words: str
) -> None:
    for name, limit in limits.items():
        setattr(faulty, name, limit)
    found = found_at(faulty.url)[check]
    assert found.verdict is verdict
    assert value is None or found.value == value
    assert words in found.text


def test_the_precompile_of_blake2b_is_told_by_what_python_says_of_the_same_text(
    node: Anvil, faulty: FaultyNode
) -> None:
    assert found_at(node.url)["blake2f"].value is True

    def without(call: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
        asked = call["method"] == "eth_call" and call["params"][0]["to"].endswith("09")
        return {**answer, "result": "0x"} if asked else answer

    faulty.edit = without
    found = found_at(faulty.url)["blake2f"]
    assert (found.verdict, found.value) == (OK, False)


def test_the_guard_that_fits_is_told(node: Anvil) -> None:
    loose = found_at(node.url, guard="timestamp")["guard"]
    assert (loose.verdict, loose.value) == (WARNING, "full")
    wrong = found_at(node.url, guard="arbsys")["guard"]
    assert (wrong.verdict, wrong.value) == (ERROR, "full")
    elsewhere = found_at(node.url, multicall3=address(2))
    assert (elsewhere["guard"].verdict, elsewhere["guard"].value) == (ERROR, None)
    assert "no Multicall3" in elsewhere["guard"].text


def test_another_chain_is_named(node: Anvil) -> None:
    config = ChainConfig(name="elsewhere", chain_id=5, rpc=[node.url])
    chain = Chain("elsewhere", 5, [node.url], MULTICALL3)
    (finding,) = examine(chain, config, chain.in_use)
    assert finding.verdict is ERROR
    assert f"serves chain id {CHAIN_ID}" in finding.text


def test_the_table_is_what_holds_at_every_endpoint(node: Anvil, faulty: FaultyNode, tmp_path: Path) -> None:
    faulty.faults, faulty.range_cap = {"bloom-lacks": 1}, 70
    config = ChainConfig(name="devnet", chain_id=CHAIN_ID)
    both = [[*found_at(url).values()] for url in (node.url, faulty.url)]
    table = chain_table(config, both)
    assert table == {"guard": "full", "bloom": "partial", "max_log_range": 70}
    assert chain_table(config, both[:1]) == {"guard": "full", "bloom": "exact"}
    assert chain_table(config, []) == {"guard": "full", "bloom": "exact"}
    file = tmp_path / "indexer.toml"
    file.write_text(f"[chains.devnet]\nchain_id = {CHAIN_ID}\n" + toml("devnet", table).split("\n", 1)[1])
    assert load(file, {}).chain("devnet").max_log_range == 70


# the command


def configured(folder: Path, url: str, more: str = "") -> Path:
    file = folder / "indexer.toml"
    file.write_text(f"[chains.devnet]\nchain_id = {CHAIN_ID}\nrpc = ['{url}']\n{more}")
    return file


def doctor(folder: Path, *arguments: str, path: Path | None = None) -> tuple[int, str, str]:
    environment = {name: value for name, value in os.environ.items() if not name.endswith("RPC_URL")}
    command = [sys.executable, "-m", "indexer", "--config", str(folder / "indexer.toml"), "doctor", *arguments]
    done = subprocess.run(
        command, cwd=folder, check=False, capture_output=True, text=True,
        env={**environment, **({"PYTHONPATH": str(path)} if path else {})},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


def test_findings_fit_80_columns_and_the_table_can_be_pasted(node: Anvil, tmp_path: Path) -> None:
    configured(tmp_path, node.url)
    code, out, err = doctor(tmp_path, "--chain", "devnet")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert f"devnet {node.url}\n" in out
    assert "  ok       guard          `full` holds at 3 blocks\n" in out
    assert tomllib.loads(out[out.index("[chains") :]) == {"chains": {"devnet": {"guard": "full", "bloom": "exact"}}}
    assert list(tmp_path.iterdir()) == [tmp_path / "indexer.toml"]  # no database


def test_json_and_a_new_file(node: Anvil, tmp_path: Path) -> None:
    configured(tmp_path, node.url)
    code, out, _ = doctor(tmp_path, "--chain", "devnet", "--json", "--output", "table.toml")
    assert code == 0
    found = json.loads(out)
    assert found["chains"] == {"devnet": {"guard": "full", "bloom": "exact"}}
    assert {"check", "verdict", "text", "value", "chain", "endpoint"} == found["findings"][0].keys()
    assert tomllib.loads((tmp_path / "table.toml").read_text())["chains"] == found["chains"]
    before = (tmp_path / "table.toml").read_text()
    code, out, err = doctor(tmp_path, "--chain", "devnet", "--output", "table.toml")
    assert (code, out) == (2, "")
    assert "table.toml exists" in err
    assert (tmp_path / "table.toml").read_text() == before


def test_an_endpoint_that_fails_is_exit_code_1_and_a_second_one_mends_that(
    node: Anvil, faulty: FaultyNode, tmp_path: Path
) -> None:
    configured(tmp_path, node.url)
    faulty.faults = {"pruned": 1}
    code, out, err = doctor(tmp_path, "--chain", "devnet", "--rpc-url", faulty.url)
    assert code == 1
    assert "error    state" in out
    assert "a sync of devnet would fail" in err
    assert doctor(tmp_path, "--chain", "devnet", "--rpc-url", faulty.url, "--rpc-url", node.url)[0] == 0


def test_all_chains_are_examined_in_order(node: Anvil, faulty: FaultyNode, tmp_path: Path) -> None:
    faulty.faults = {"429": 1}
    more = f"[chains.second]\nchain_id = 99\nrpc = ['{node.url}']\n[chains.third]\nchain_id = {CHAIN_ID}\nrpc = ['{faulty.url}']\n"
    built_in = "".join(f"[chains.{name}]\nrpc = ['http://127.0.0.1:1']\n" for name in load(None, {}).chains)
    configured(tmp_path, node.url, more + built_in)
    code, out, err = doctor(tmp_path, "--chain", "all", "--json")
    found = json.loads(out)
    order = list(dict.fromkeys(one["chain"] for one in found["findings"] if one["chain"]))
    assert order == list(load(tmp_path / "indexer.toml", {}).chains)
    assert list(found["chains"]) == ["devnet"]
    assert code == 1
    assert "third" in err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [("--chain", "devnot"), ("--chain", "all", "--rpc-url", "http://127.0.0.1:1")])
def test_usage_is_exit_code_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    (tmp_path / "indexer.toml").touch()
    assert doctor(tmp_path, *arguments)[0] == 2


def test_deployments_are_looked_for_and_their_start_blocks_compared(node: Anvil, tmp_path: Path) -> None:
    created = node.execute({"from": EOA, "data": "0x6001600c60003960016000f300", "gas": "0x30000", "gasPrice": "0x0"})
    born = int(created["blockNumber"], 16)
    node.mine(4)

    def deployment(name: str, comet: str, start: str) -> str:
        head = f'[deployments.{name}]\nprotocol = "compound-v3"\nchain = "devnet"\n'
        return f'{head}{start}\naddresses = {{ comet = "{comet.lower()}" }}\n'

    there = created["contractAddress"]
    configured(
        tmp_path,
        node.url,
        deployment("absent", address(9), "start_block = 1")
        + deployment("late", there, f"start_block = {born + 1}")
        + deployment("early", there, "start_block = 1")
        + deployment("open", there, ""),
    )
    code, out, err = doctor(tmp_path, "--chain", "devnet", "--json")
    found = {one["check"]: (one["verdict"], one["value"]) for one in json.loads(out)["findings"] if not one["endpoint"]}
    assert code == 1
    assert "devnet would fail" in err
    assert found["absent"] == ("error", None)
    assert found["late"] == ("error", born)
    assert found["early"] == ("ok", None)
    assert found["open"] == ("ok", born)


@pytest.mark.slow
def test_a_package_of_another_distribution_under_our_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "indexer.toml").touch()
    foreign = tmp_path / "site" / "foreign-1.0.dist-info"
    foreign.mkdir(parents=True)
    (foreign / "METADATA").write_text("Metadata-Version: 2.1\nName: foreign\nVersion: 1.0\n")
    (foreign / "top_level.txt").write_text("abis\n")
    code, out, err = doctor(tmp_path, "--chain", "mainnet", path=tmp_path / "site")
    assert code == 1
    assert "abis is also a package of foreign" in " ".join(out.split())
    assert "no chain was examined" in err
