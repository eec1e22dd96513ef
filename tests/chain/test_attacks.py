"""Hostile nodes against the command line: each command ends in one line, in bounded time and memory.

Time and memory are behaviour here: the assertions leave twice what the bounds allow.
"""

import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from eth_abi.abi import encode
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from indexer.chain import ens
from indexer.chain.client import Chain
from indexer.terminal.people import RESOLVING_SECONDS
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.faulty import FaultyNode
from tests.truth import deployment_of, wrong_rows

pytestmark = pytest.mark.slow

#: seconds of one request in these tests; rounds until a node that never answered is given up, and their pauses
TIMEOUT, ROUNDS, PAUSES = 1.0, 3, 2.0
#: seconds that the interpreter and its imports may take on a busy machine
START = 20.0
#: twice what an answer and its parsed value may take together
MEMORY = 512 * 2**20
NOWHERE = "http://127.0.0.1:1"
#: Runs a command and prints the most memory it held, in kB. A process is charged with what its parent held when it was
#: forked, and the parent here would be pytest itself.
MEASURED = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(code)
"""


@dataclass
class Ended:
    code: int
    seconds: float
    memory: int  # bytes, at the peak
    error: str


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Ended]:
    """`indexer` with these arguments in a process of its own, against these nodes."""

    def command(*arguments: str, urls: Sequence[str] = (NOWHERE,), market: AaveV3 | None = None) -> Ended:
        chain = f'[chains.devnet]\nchain_id = {CHAIN_ID}\nrpc = {list(urls)}\nmulticall3 = "{MULTICALL3}"\ntimeout_seconds = {TIMEOUT}\n'
        addresses = deployment_of(market).addresses if market else {"pool_addresses_provider": "0x" + "11" * 20}
        name = market.name if market else "nothing"
        pairs = ", ".join(f'{key} = "{value}"' for key, value in addresses.items())
        deployment = f'[deployments.{name}]\nprotocol = "aave-v3"\nchain = "devnet"\nstart_block = 0\naddresses = {{ {pairs} }}\n'
        config = tmp_path / "indexer.toml"
        mainnet = f"[chains.mainnet]\ntimeout_seconds = {TIMEOUT}\n"
        config.write_text(chain + deployment + mainnet)
        files = ["--config", str(config), "--db", str(tmp_path / "indexer.db")]
        words = [sys.executable, "-S", "-c", MEASURED, sys.executable, "-m", "indexer", *files, *arguments]
        started = time.monotonic()
        ended = subprocess.run(words, capture_output=True, text=True, check=False)
        return Ended(ended.returncode, time.monotonic() - started, int(ended.stdout) * 1024, ended.stderr)

    return command


def one_line(ended: Ended, code: int) -> str:
    assert ended.code == code, ended
    lines = [line for line in ended.error.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, ended.error
    assert "Traceback" not in ended.error
    return lines[0]


@pytest.mark.parametrize("fault", ["drip", "hang", "deep-json", "long-error", "gzip-bomb"])
def test_a_hostile_node_alone_is_given_up_in_time_and_memory(run: Callable[..., Ended], fault: str) -> None:
    with FaultyNode(NOWHERE, faults={fault: 1}) as hostile:
        ended = run("sync", "--chain", "devnet", urls=[hostile.url])
        assert hostile.injected[fault] == ROUNDS
    assert "is the node running" in one_line(ended, 1)
    assert ended.seconds < 2 * (ROUNDS * TIMEOUT + PAUSES) + START
    assert ended.memory < MEMORY


@pytest.mark.parametrize("fault", ["drip", "hang", "deep-json", "long-error", "gzip-bomb"])
def test_a_hostile_node_beside_a_healthy_one_costs_one_request(
    run: Callable[..., Ended], aave_v3_6: AaveV3, tmp_path: Path, fault: str
) -> None:
    with FaultyNode(NOWHERE, faults={fault: 1}) as hostile:
        ended = run("sync", "--chain", "devnet", urls=[hostile.url, aave_v3_6.node.url], market=aave_v3_6)
        assert hostile.injected[fault] == 1
    assert ended.code == 0, ended
    assert ended.seconds < 2 * (TIMEOUT + 10) + START
    assert ended.memory < MEMORY
    checked, wrong = wrong_rows(tmp_path / "indexer.db", aave_v3_6.node, [aave_v3_6])
    assert checked > 0
    assert not wrong


def test_answers_that_swell_are_asked_for_again_until_they_are_right(
    run: Callable[..., Ended], aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    faults = {"gzip-bomb": 0.2, "deep-json": 0.2}
    with FaultyNode(aave_v3_6.node.url, seed=3, faults=faults) as hostile:
        ended = run("sync", "--chain", "devnet", urls=[hostile.url], market=aave_v3_6)
        assert hostile.injected.total() > 0
    assert ended.code == 0, ended
    assert ended.memory < MEMORY
    checked, wrong = wrong_rows(tmp_path / "indexer.db", aave_v3_6.node, [aave_v3_6])
    assert checked > 0
    assert not wrong


@pytest.mark.parametrize("text", ["[" * 10**6, '[{"wallet":' * 10**5, "[" + "{}," * 4_500_000 + "{}]"], ids=range(3))
def test_a_file_of_deep_or_swelling_json_is_refused(run: Callable[..., Ended], tmp_path: Path, text: str) -> None:
    wallets = tmp_path / "wallets.json"
    wallets.write_text(text)
    ended = run("watch", "import", str(wallets))
    assert re.search("nested|memory", one_line(ended, 2))
    assert ended.seconds < 2 * 10 + START
    assert ended.memory < MEMORY


def test_a_cell_of_a_wallets_file_that_is_too_long_is_one_line(run: Callable[..., Ended], tmp_path: Path) -> None:
    wallets = tmp_path / "wallets.csv"
    wallets.write_text(f"wallet,label\n0x{'11' * 20},{'x' * 200_000}\n")
    assert "wallets.csv" in one_line(run("watch", "import", str(wallets)), 2)


def test_an_ens_name_is_asked_within_the_same_bounds(run: Callable[..., Ended]) -> None:
    with FaultyNode(NOWHERE, faults={"drip": 0.5, "gzip-bomb": 1}) as hostile:
        ended = run("watch", "add", "vitalik.eth", "--rpc-url", hostile.url)
        assert hostile.injected.total() == ROUNDS
    assert "vitalik.eth cannot be resolved" in one_line(ended, 1)
    assert ended.seconds < 2 * (ROUNDS * TIMEOUT + PAUSES) + START
    assert ended.memory < MEMORY


def dripping() -> Iterator[bytes]:
    for _ in range(300):
        time.sleep(0.2)
        yield b" "


@pytest.mark.parametrize("kind", ["drip", "failure", "words"])
def test_a_name_that_a_node_answers_nothing_about_is_named_in_time(
    run: Callable[..., Ended], httpserver: HTTPServer, kind: str
) -> None:
    """It knows its chain and its blocks, and each eth_call fails in the same way."""
    answers: dict[str, dict[str, object]] = {
        "failure": {"error": {"code": -32603, "message": "internal error"}},
        "words": {"result": "0x" + "ff" * 1_000},
    }

    def answer(request: Request) -> Response:
        call = json.loads(request.data)
        block = {"number": "0x1", "timestamp": hex(int(time.time()))}
        known = {"eth_chainId": {"result": "0x1"}, "eth_getBlockByNumber": {"result": block}}
        if call["method"] in known:
            return Response(json.dumps({"jsonrpc": "2.0", "id": call["id"], **known[call["method"]]}))
        if kind == "drip":
            return Response(dripping(), content_type="application/json")
        return Response(json.dumps({"jsonrpc": "2.0", "id": call["id"], **answers[kind]}))

    httpserver.expect_request("/").respond_with_handler(answer)
    ended = run("watch", "add", "vitalik.eth", "--rpc-url", httpserver.url_for("/"))
    line = one_line(ended, 1)
    assert "vitalik.eth cannot be resolved" in line
    assert f"localhost:{httpserver.port}" in line
    assert re.search("name another endpoint of mainnet with --rpc-url or MAINNET_RPC_URL, or give the address", line)
    assert ended.seconds < RESOLVING_SECONDS + START


def test_a_name_is_asked_of_the_next_endpoint_where_one_drips(httpserver: HTTPServer) -> None:
    """The first says of itself what mainnet's would, and answers about a name a byte now and then, for a minute."""
    owner = "0x" + "22" * 20
    asked: Counter[str] = Counter()

    def answer(request: Request) -> Response:
        call = json.loads(request.data)
        if call["method"] == "eth_call":
            asked[request.path] += 1
            if request.path == "/slow":
                return Response(dripping(), content_type="application/json")
        # UniversalResolver.resolve(name, data) -> (what addr(node) answers, resolver)
        result = "0x" + encode(["bytes", "address"], [encode(["address"], [owner]), owner]).hex()
        known = {"eth_chainId": "0x1", "eth_getBlockByNumber": {"number": "0x1", "timestamp": hex(int(time.time()))}}
        return Response(json.dumps({"jsonrpc": "2.0", "id": call["id"], "result": known.get(call["method"], result)}))

    for path in ("/slow", "/fast"):
        httpserver.expect_request(path).respond_with_handler(answer)
    urls = [httpserver.url_for("/slow"), httpserver.url_for("/fast")]
    started = time.monotonic()
    with closing(Chain("mainnet", 1, urls, MULTICALL3, timeout=TIMEOUT, backoff=0.01)) as chain:
        assert ens.resolve("vitalik.eth", chain) == owner
    assert time.monotonic() - started < 2 * ROUNDS * TIMEOUT + START
    assert min(asked["/slow"], asked["/fast"]) >= 1
