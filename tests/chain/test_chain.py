"""One chain behind several endpoints: chain ids, retries, fail-over, batches, blocks; on a real node with faults in front."""

import logging
import math
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.chain.blocks import parse_header
from indexer.chain.client import LARGEST_BATCH, Chain
from indexer.chain.endpoint import Endpoint, mask, retry_after
from indexer.chain.errors import BadAnswerError, DeniedError, RejectedError, RevertError, TooBigError, UnsupportedError
from indexer.chain.limits import Pace
from indexer.errors import ChainError, PrunedError, ReorgError, WrongChainError
from indexer.model import Block, Read
from indexer.reads.multicall import PinnedReader
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.faulty import FaultyNode
from tests.tiny_contracts import EOA, REVERT_42, address

NOWHERE = "http://127.0.0.1:1/v2/s3cr3ts3cr3t"
BLOCKS = 40


def connect(*urls: str, **options: Any) -> Chain:
    settings: dict[str, Any] = {"backoff": 0.01, "timeout": 5} | options
    return Chain("devnet", settings.pop("chain_id", CHAIN_ID), urls, MULTICALL3, **settings)


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with Anvil() as anvil:
        anvil.place_multicall3()
        anvil.mine(BLOCKS)
        yield anvil


@pytest.fixture
def faulty(node: Anvil) -> Iterator[FaultyNode]:
    with FaultyNode(node.url, seed=1, hang_seconds=2) as proxy:
        yield proxy


# chain ids


def test_an_endpoint_of_another_chain_is_refused_by_name_and_ids(node: Anvil) -> None:
    with pytest.raises(WrongChainError, match=rf"{node.url} serves chain id {CHAIN_ID}, but devnet is chain id 1\b"):
        connect(node.url, chain_id=1).check()
    with pytest.raises(WrongChainError):
        connect(node.url, chain_id=1).block("latest")


def test_every_endpoint_is_asked_for_its_chain_once(node: Anvil) -> None:
    chain = connect(node.url, node.url + "/")
    chain.check()
    chain.check()
    assert chain.requests == 2


def test_an_endpoint_that_is_down_is_passed_over(node: Anvil, caplog: pytest.LogCaptureFixture) -> None:
    chain = connect(NOWHERE, node.url)
    chain.check()
    assert chain.block(3).number == 3
    assert "passed over" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_all_endpoints_down_is_one_clear_line() -> None:
    chain = connect(NOWHERE, NOWHERE + "/x", attempts=2)
    with pytest.raises(ChainError) as caught:
        chain.check()
    text = str(caught.value)
    assert "devnet" in text
    assert text.count("http://127.0.0.1:1/v2/***") == 2
    assert "refused" in text
    assert "\n" not in text
    assert "s3cr3t" not in text


def test_a_proxy_that_is_down_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://user:s3cr3t@127.0.0.1:1")
    chain = connect("http://10.0.0.1:8545", attempts=2)
    with pytest.raises(ChainError, match=r"the proxy that the environment names .*refused") as caught:
        chain.check()
    assert "s3cr3t" not in str(caught.value)


def test_no_endpoint_at_all_is_a_clear_error() -> None:
    with pytest.raises(ChainError, match="no endpoint"):
        connect()


def test_a_second_endpoint_of_another_chain_is_dropped_when_it_is_met(node: Anvil) -> None:
    with Anvil(chain_id=77) as other, FaultyNode(node.url) as first:
        chain = connect(first.url, other.url)
        chain.block("latest")
        first.faults = {"500": 1}
        with pytest.raises(ChainError):
            chain.block("latest")
        first.faults = {}
        assert chain.block("latest").number == BLOCKS


# retries


@pytest.mark.parametrize(
    "fault",
    ["429", "429-retry-after", "500", "502", "503", "reset", "truncated", "html", "wrong-id", "null",
     "rate-limit-error", "internal", "header-not-found", "lagging", "deep-json", "long-error", "gzip-bomb",
     "gateway-error"],
)  # fmt: skip
def test_passing_faults_are_retried_until_the_answer_comes(faulty: FaultyNode, fault: str) -> None:
    chain = connect(faulty.url)
    chain.check()
    faulty.faults = {fault: 0.4}
    for _ in range(3):
        for number in (BLOCKS, BLOCKS - 1, 7):
            assert chain.block(number).number == number
        block = chain.block(chain.block(BLOCKS).hash)
        assert chain.code(MULTICALL3, block)
    assert faulty.injected[fault] > 0
    assert chain.retries >= faulty.injected[fault] - 1
    assert chain.requests >= 15 + chain.retries


def test_a_hanging_endpoint_times_out_and_is_asked_again(faulty: FaultyNode) -> None:
    chain = connect(faulty.url, timeout=0.2)
    chain.check()
    faulty.faults = {"hang": 0.3}
    started = time.monotonic()
    for number in range(8):
        assert chain.block(number).number == number
    assert faulty.injected["hang"] > 0
    assert time.monotonic() - started < 0.2 * faulty.injected["hang"] + 15


def test_a_dripping_endpoint_beside_a_healthy_one_costs_its_time_out_once(node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"drip": 1}
    chain = connect(faulty.url, node.url, timeout=1)
    started = time.monotonic()
    for number in range(BLOCKS):
        assert chain.block(number).number == number
        assert chain.code(MULTICALL3, chain.block("latest"))
    assert len(chain.headers(0, BLOCKS)) == BLOCKS + 1
    assert faulty.injected["drip"] == 1
    assert time.monotonic() - started < 10  # byte by byte it would take hours


def test_retries_are_bounded_visible_and_end_in_one_clear_line(
    faulty: FaultyNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    told: list[tuple[str, float]] = []
    chain = connect(faulty.url, attempts=4, on_retry=lambda text, seconds: told.append((text, seconds)))
    chain.check()
    faulty.faults = {"502": 1}
    with pytest.raises(ChainError, match="eth_getBlockByNumber failed, gave up") as caught:
        chain.block("latest")
    assert faulty.injected["502"] == 4
    assert len(told) == chain.retries == 3
    assert told[0][0] == f"{faulty.url}: eth_getBlockByNumber: HTTP 502"
    waits = [seconds for _, seconds in told]
    assert waits[0] < waits[1] < waits[2]
    assert caplog.text.count("HTTP 502") == 3
    assert faulty.url in str(caught.value)


def test_retry_after_is_honoured(faulty: FaultyNode) -> None:
    faulty.retry_after = 0.4
    chain = connect(faulty.url)
    chain.check()
    faulty.faults = {"429-retry-after": 1}
    started = time.monotonic()
    with pytest.raises(ChainError):
        Chain("devnet", CHAIN_ID, [faulty.url], MULTICALL3, attempts=3, backoff=0.01).block("latest")
    assert time.monotonic() - started >= 0.8


def test_a_retry_after_of_a_day_counts_as_a_minute_and_the_only_endpoint_is_asked_again(
    faulty: FaultyNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert retry_after("100000") == retry_after("inf") == 60
    monkeypatch.setattr("indexer.chain.endpoint.LONGEST_PATIENCE", 0.4)
    told: list[float] = []
    chain = connect(faulty.url, on_retry=lambda _, seconds: told.append(seconds))
    chain.check()
    faulty.retry_after = 100_000
    faulty.faults = {"429-retry-after": 1}
    with pytest.raises(ChainError, match="gave up"):
        Chain("devnet", CHAIN_ID, [faulty.url], MULTICALL3, attempts=2, backoff=0.01).block("latest")
    faulty.faults = {"429-retry-after": 0.5}
    for number in range(6):
        assert chain.block(number).number == number
    assert 0.3 < max(told) <= 0.4


def test_another_endpoint_is_used_while_one_asks_for_patience(node: Anvil, faulty: FaultyNode) -> None:
    faulty.retry_after = 3600
    chain = connect(faulty.url, node.url)
    chain.check()
    faulty.faults = {"429-retry-after": 1}
    started = time.monotonic()
    for number in range(5):
        assert chain.block(number).number == number
    assert time.monotonic() - started < 20
    assert faulty.injected["429-retry-after"] == 1


def test_the_rate_limit_is_kept_and_counts_the_calls_of_a_batch(node: Anvil) -> None:
    chain = connect(node.url, max_requests_per_second=50)
    started = time.monotonic()
    for number in range(10):
        chain.block(number)
    chain.headers(0, 19)
    chain.block(0)
    assert 30 / 50 <= time.monotonic() - started < 20


def test_a_batch_is_no_burst_of_more_than_a_second_allows(node: Anvil) -> None:
    chain = connect(node.url, max_requests_per_second=20)
    chain.check()
    before = chain.requests
    chain.headers(0, 39)
    assert chain.requests - before == 2


@given(
    rate=st.floats(0.2, 40),
    requests=st.lists(st.tuples(st.floats(0, 3), st.integers(1, 40)), min_size=1, max_size=40),
)
def test_no_second_sees_more_calls_than_the_rate_allows(rate: float, requests: list[tuple[float, int]]) -> None:
    pace, now, sent = Pace(rate), 100.0, []
    for pause, calls in requests:
        part = min(calls, max(1, int(rate)))
        now = pace.reserve(now + pause, part)
        sent.append((now, part))
    for start, _ in sent:
        assert sum(part for at, part in sent if start <= at < start + 1) <= math.ceil(rate)
    spent = sent[-1][0] - sent[0][0]
    assert sum(part for _, part in sent[:-1]) <= spent * rate + 1e-6


def test_an_endpoint_that_asked_for_patience_is_left_alone_by_the_next_request_too(faulty: FaultyNode) -> None:
    chain = connect(faulty.url, attempts=1)
    faulty.retry_after = 3600
    faulty.faults = {"429-retry-after": 1}
    for _ in range(3):
        with pytest.raises(ChainError, match="gave up"):
            chain.block("latest")
    assert faulty.requests == 1


def test_a_batch_of_which_a_part_was_too_much_is_not_completed_at_once(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    chain.check()
    before = chain.requests
    faulty.faults = {"rate-limit-error": 0.5}
    assert len(chain.headers(0, BLOCKS)) == BLOCKS + 1
    assert chain.requests - before > 2
    assert chain.retries >= chain.requests - before - 1


# fail-over


def test_the_next_endpoint_is_tried_at_once_and_kept(node: Anvil, faulty: FaultyNode) -> None:
    chain = connect(faulty.url, node.url, backoff=60)
    chain.check()
    faulty.faults = {"500": 1}
    started = time.monotonic()
    for number in range(5):
        assert chain.block(number).number == number
    assert time.monotonic() - started < 20
    assert faulty.injected["500"] == 1
    assert chain.endpoint == node.url


def test_pruned_state_is_asked_elsewhere_and_never_twice_there(node: Anvil, faulty: FaultyNode) -> None:
    chain = connect(faulty.url, node.url)
    chain.check()
    block = chain.block(5)
    faulty.faults = {"pruned": 1}
    assert chain.code(MULTICALL3, block) == chain.code(MULTICALL3, chain.block("latest"))
    assert faulty.injected["pruned"] == 1


def test_pruned_state_is_believed_after_three_backends_said_so(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    block = chain.block(5)
    assert chain.code(MULTICALL3, block)
    faulty.faults = {"pruned": 1}
    with pytest.raises(PrunedError, match="missing trie node"):
        chain.code(MULTICALL3, block)
    assert faulty.injected["pruned"] == 3
    with pytest.raises(PrunedError, match="missing trie node"):
        PinnedReader(chain, block)([Read(MULTICALL3, "getBlockNumber()(uint256)")] * 100)
    assert faulty.injected["pruned"] == 6
    faulty.faults = {"pruned": 0.4}
    for _ in range(4):
        assert chain.code(MULTICALL3, block)
        assert chain.batch([("eth_getCode", [MULTICALL3, "latest"])] * 3)


def test_an_unsupported_method_is_remembered_per_endpoint(node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"receipts-unsupported": 1}
    chain = connect(faulty.url, node.url)
    chain.check()
    for _ in range(3):
        assert chain.request("eth_getBlockReceipts", ["latest"], feature="receipts") == []
        chain._pool.current = 0
    assert faulty.injected["receipts-unsupported"] == 1
    with pytest.raises(UnsupportedError):
        connect(faulty.url).request("eth_getBlockReceipts", ["latest"])


def test_an_invalid_request_is_not_repeated(node: Anvil) -> None:
    chain = connect(node.url)
    with pytest.raises(RejectedError, match="eth_getBlockByNumber"):
        chain.request("eth_getBlockByNumber", [[], False])
    assert chain.retries == 0


def test_an_error_that_nobody_knows_is_asked_again_and_elsewhere_before_it_is_final(
    node: Anvil, faulty: FaultyNode
) -> None:
    chain = connect(faulty.url)
    chain.check()
    faulty.faults = {"unknown-error": 1}
    with pytest.raises(RejectedError, match="nobody has ever seen"):
        chain.block(3)
    assert faulty.injected["unknown-error"] == 2
    both = connect(faulty.url, node.url)
    both.check()
    assert both.block(3).number == 3
    assert len(both.headers(0, BLOCKS)) == BLOCKS + 1
    faulty.faults = {"unknown-error": 0.2}
    assert len(connect(faulty.url).headers(3, 12)) == 10


def test_a_dead_key_on_the_first_endpoint_leaves_the_second_at_work(node: Anvil) -> None:
    words = "Unauthorized: You must authenticate your request with an API key"
    with FaultyNode(node.url) as keyless:
        keyless.refuse_all = -32000, words
        chain = connect(keyless.url, node.url)
        assert chain.block(3).number == 3
        assert chain.code(MULTICALL3, chain.block("latest"))
        assert len(chain.headers(0, BLOCKS)) == BLOCKS + 1
        assert keyless.injected["refuse-all"] == 1
        keyless.refuse_all = None
        late = connect(keyless.url, node.url)  # the key dies while it is in use
        late.check()
        late.block(3)
        keyless.refuse_all = -32000, words
        assert late.block(4).number == 4
        assert len(late.headers(0, BLOCKS)) == BLOCKS + 1
        with pytest.raises(DeniedError, match="API key"):
            connect(keyless.url).block(3)


def test_a_revert_is_the_contracts_answer_with_its_data(node: Anvil) -> None:
    node.set_code(address(1), REVERT_42)
    with pytest.raises(RevertError) as caught:
        connect(node.url).request("eth_call", [{"to": address(1)}, "latest"])
    assert int.from_bytes(caught.value.data) == 42


def test_a_request_that_may_be_split_is_given_back_early(faulty: FaultyNode) -> None:
    chain = connect(faulty.url)
    chain.check()
    for fault in ("502", "reset"):
        faulty.faults = {fault: 1}
        with pytest.raises(TooBigError):
            chain.request("eth_getLogs", [{}], splittable=True)
        assert faulty.injected[fault] == 2
    faulty.faults = {"429": 1}
    with pytest.raises(ChainError) as caught:
        chain.request("eth_getLogs", [{}], splittable=True)
    assert not isinstance(caught.value, TooBigError)
    with pytest.raises(ChainError) as caught:
        connect(NOWHERE, attempts=3).request("eth_getLogs", [{}], splittable=True)
    assert not isinstance(caught.value, TooBigError)


# batches


def numbers(count: int) -> list[tuple[str, list[Any]]]:
    return [("eth_getBlockByNumber", [hex(i % BLOCKS), False]) for i in range(count)]


def test_batches_answer_every_call_once_in_order(node: Anvil) -> None:
    chain = connect(node.url)
    chain.check()
    answers = chain.batch(numbers(250))
    assert [int(answer["number"], 16) for answer in answers] == [i % BLOCKS for i in range(250)]
    assert chain.requests == 1 + -(-250 // LARGEST_BATCH)
    assert chain.batch([]) == []


@pytest.mark.parametrize(
    "fault", ["batch-missing", "batch-reordered", "batch-duplicate", "wrong-id", "null", "429", "truncated", "internal"]
)
def test_batches_survive_bad_answers(faulty: FaultyNode, fault: str) -> None:
    chain = connect(faulty.url)
    chain.check()
    faulty.faults = {fault: 0.3}
    answers = chain.batch(numbers(120), lambda raw, _: int(_present(raw)["number"], 16))
    assert answers == [i % BLOCKS for i in range(120)]
    assert faulty.injected[fault] > 0


def _present(raw: Any) -> Any:
    if raw is None:
        raise BadAnswerError("null")
    return raw


@pytest.mark.parametrize(("setting", "most"), [("unsupported", 70), ("cap", 20), ("size", 40)])
def test_batches_shrink_to_what_the_node_takes(faulty: FaultyNode, setting: str, most: int) -> None:
    chain = connect(faulty.url)
    chain.check()
    if setting == "unsupported":
        faulty.faults = {"batch-unsupported": 1}
    if setting == "cap":
        faulty.batch_cap = 7
    if setting == "size":
        faulty.size_cap = 20_000
    answers = chain.batch(numbers(60))
    assert [int(answer["number"], 16) for answer in answers] == [i % BLOCKS for i in range(60)]
    assert chain.requests < most


@pytest.mark.parametrize(
    "text",
    [
        "too many RPC calls in batch request, at most {cap}",
        "Batch of more than {cap} requests are not allowed",
        "max batch size is {cap}",
    ],
)
def test_a_batch_shrinks_to_the_number_that_a_refusal_names_and_stays_there(faulty: FaultyNode, text: str) -> None:
    faulty.batch_cap, faulty.batch_text = 10, text
    chain = connect(faulty.url)
    chain.check()
    for _ in range(3):
        before = chain.requests
        assert len(chain.batch(numbers(100))) == 100
    assert faulty.injected["batch-cap"] == 1
    assert chain.requests - before == 10


def test_batches_of_logs_that_are_refused_as_such_end_in_single_requests(faulty: FaultyNode) -> None:
    faulty.faults = {"batch-rate-limited": 1}
    chain = connect(faulty.url, backoff=5)
    chain.check()
    started = time.monotonic()
    answers = chain.batch([("eth_getLogs", [{"fromBlock": hex(i), "toBlock": hex(i)}]) for i in range(20)])
    assert answers == [[]] * 20
    assert time.monotonic() - started < 5
    before = chain.requests
    assert len(chain.headers(0, 30)) == 31
    assert chain.requests - before == 1


def test_a_reverted_call_is_a_value_in_its_place(node: Anvil) -> None:
    node.set_code(address(1), REVERT_42)
    calls = [("eth_call", [{"to": to}, "latest"]) for to in (EOA, address(1), EOA)]
    first, reverted, last = connect(node.url).batch(calls)
    assert (first, last) == ("0x", "0x")
    assert isinstance(reverted, RevertError)


def test_a_refusal_inside_a_batch_is_asked_elsewhere(node: Anvil, faulty: FaultyNode) -> None:
    faulty.faults = {"pruned": 1}
    chain = connect(faulty.url, node.url)
    chain.check()
    codes = chain.batch([("eth_getCode", [MULTICALL3, "latest"])] * 3)
    assert len(set(codes)) == 1
    with pytest.raises(PrunedError):
        connect(faulty.url).batch([("eth_getCode", [MULTICALL3, "latest"])] * 3)


def test_access_refused_to_one_batch_is_not_the_end_of_batches(node: Anvil, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    answer = Endpoint.send_batch

    def send(endpoint: Endpoint, calls: Any) -> Any:
        sent.append(len(calls))
        if len(sent) == 1:
            raise DeniedError("HTTP 403: the endpoint refuses access")
        return answer(endpoint, calls)

    monkeypatch.setattr(Endpoint, "send_batch", send)
    chain = connect(node.url)
    chain.check()
    for _ in range(2):
        before = chain.requests
        assert len(chain.batch([("eth_getCode", [MULTICALL3, "latest"])] * 3)) == 3
    assert sent == [3, 3]
    assert chain.requests == before + 1


# blocks


def test_blocks_by_tag_number_and_hash(node: Anvil) -> None:
    chain = connect(node.url)
    raw = node.block(9)
    block = chain.block(9)
    assert block == Block(9, raw["hash"], raw["parentHash"], int(raw["timestamp"], 16))
    assert chain.block(block.hash) == block
    assert chain.block("latest").number == BLOCKS
    assert chain.block("safe").number <= BLOCKS
    assert chain.block("finalized").number <= chain.block("safe").number
    assert len(bytes.fromhex(chain.header(9)["logsBloom"][2:])) == 256


def test_headers_are_a_chain(node: Anvil) -> None:
    headers = connect(node.url).headers(3, 12)
    assert [header.block.number for header in headers] == list(range(3, 13))


def test_headers_that_do_not_follow_each_other_are_a_reorg(node: Anvil, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = connect(node.url)
    raws = [node.block(3), node.block(4) | {"parentHash": "0x" + "11" * 32}]
    monkeypatch.setattr(chain, "batch", lambda *_: [parse_header(raw) for raw in raws])
    with pytest.raises(ReorgError, match="block 4 is not a child of block 3"):
        chain.headers(3, 4)


def test_a_header_of_another_number_is_asked_again(faulty: FaultyNode) -> None:
    faulty.faults = {"batch-swapped": 0.5}
    chain = connect(faulty.url)
    for _ in range(4):
        assert [header.block.number for header in chain.headers(3, 5)] == [3, 4, 5]
    assert faulty.injected["batch-swapped"]


def test_a_block_beyond_the_head_is_a_clear_error(node: Anvil) -> None:
    with pytest.raises(ChainError, match="devnet has no block 9999"):
        connect(node.url, attempts=2).block(9999)


def test_an_unknown_hash_is_a_reorg_after_some_tries(node: Anvil) -> None:
    chain = connect(node.url, attempts=3)
    with pytest.raises(ReorgError, match="0x1111"):
        chain.block("0x" + "11" * 32)
    assert chain.retries == 2
    with pytest.raises(ReorgError):
        chain.code(MULTICALL3, Block(5, "0x" + "11" * 32, "0x" + "22" * 32, 0))


def test_a_reorg_is_told_from_a_lagging_backend_within_two_tries(needs_node: None) -> None:
    with Anvil() as node:
        node.place_multicall3()
        node.mine(3)
        chain = connect(node.url, backoff=0.01, attempts=50)
        block = chain.block("latest")
        transaction = {"from": EOA, "to": EOA, "value": "0x0", "gas": "0x5208", "gasPrice": "0x0"}
        node.reorg(1, [(transaction, 0)])
        with pytest.raises(ReorgError, match=f"block {block.number} .* left the canonical chain"):
            chain.code(MULTICALL3, block)
        assert chain.retries == 1


def test_nothing_of_a_url_is_logged_at_any_level(faulty: FaultyNode, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    url = faulty.url.replace("127.0.0.1", "user:pa55word@127.0.0.1") + "/v2/s3cr3ts3cr3t?key=t0k3n"
    chain = connect(url, NOWHERE, attempts=2)
    chain.check()
    faulty.faults = {"500": 1}
    with pytest.raises(ChainError) as caught:
        chain.block("latest")
    for word in ("s3cr3t", "pa55word", "t0k3n"):
        assert word not in caplog.text + str(caught.value) + chain.endpoint
    assert "***" in caplog.text


def test_a_dead_endpoint_is_named_at_once_while_others_are_tried(node: Anvil, caplog: pytest.LogCaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v2/abcdef0123456789"
        chain = connect(url, node.url, timeout=30)
        started = time.monotonic()
        assert chain.block(7).number == 7
        assert time.monotonic() - started < 8, "1.5 s and what a busy machine takes, not 30"
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith(f"{mask(url)}: eth_chainId: no complete answer within 1.5 s")
    assert line.endswith("others are tried")
    assert "abcdef" not in line


def test_an_endpoint_that_nobody_listens_at_is_named_once(node: Anvil, caplog: pytest.LogCaptureFixture) -> None:
    chain = connect("http://127.0.0.1:9", node.url)
    assert [chain.block(number).number for number in (3, 4)] == [3, 4]
    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert line.startswith("http://127.0.0.1:9: ")


def test_a_slow_first_answer_counts_where_there_is_no_other(faulty: FaultyNode) -> None:
    faulty.faults = {"hang": 1}
    chain = connect(faulty.url, timeout=10)
    threading.Timer(1, faulty.faults.clear).start()
    assert chain.block(3).number == 3
