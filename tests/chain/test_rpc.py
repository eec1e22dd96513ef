"""Error texts of nodes and providers, masking of URLs, and one exchange with a misbehaving server."""

import gzip
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.boundary import masking
from indexer.boundary.masking import LONGEST_TEXT, masked
from indexer.chain import endpoint as endpoints
from indexer.chain.endpoint import LONGEST_PATIENCE, Endpoint, mask, retry_after
from indexer.chain.errors import (
    BadAnswerError,
    DeniedError,
    OversizedError,
    RateLimitedError,
    RejectedError,
    RevertError,
    TimedOutError,
    TooBigError,
    UnclearError,
    UnreachableError,
    UnsupportedError,
    classify,
    most_in_batch,
)
from indexer.chain.limits import most_bytes
from indexer.errors import ChainError, PrunedError, RetryableError
from tests.faulty_modes import gzip_bomb

TEXTS = {
    "rate": [
        (-32005, "daily request count exceeded, request rate limited"),
        (-32005, "project ID request rate exceeded"),
        (429, "Your app has exceeded its compute units per second capacity. If you have retries enabled, you can ..."),
        (-32000, "Too many requests, reason: call rate limit exhausted, retry in 10s"),
        (-32007, "50/second request limit reached - reduce calls per second or upgrade your account at "
        "https://dashboard.quicknode.com/billing/plan"),
        (-32003, "daily request limit reached - upgrade your account at https://dashboard.quicknode.com/billing/plan"),
        (-32097, "Exceeded the quota usage"),
        (15, "Too many request, try again later: rate limit exceeded"),
        (-32029, "whatever"),
        (-32601, "rate limit exceeded"),
    ],
    "denied": [
        (-32000, "Unauthorized: You must authenticate your request with an API key. Create an account on ankr"),
        (-32600, "Must be authenticated!"),
        (-32002, "invalid project id"),
        (0, "Monthly capacity limit exceeded. Visit https://dashboard.alchemyapi.io/settings/billing"),
    ],
    "unknown": [
        (-32000, "invalid block range params"),  # rindexer PR 435: of a range beyond the head
        (-32000, "One of the blocks specified in filter (fromBlock, toBlock or blockHash) cannot be found."),
        (-32000, "requested block is not executed yet"),  # erigontech/erigon PR 17651
        (-32000, "header not found"),
        (-32000, "header for hash not found"),
        (-32000, "unknown block"),
        (-32001, "Resource not found"),
        (-32001, "block not found: 0x5a4d1f2e"),
        (-32602, "block range extends beyond current head block"),
        (-32000, "block range extends beyond current head block: requested 0x2000, head 0x1000"),
        (-32000, "requested block range [4096, 8192] is beyond latest executed block 4000 (node is still syncing)"),
        (-32602, "BlockOutOfRangeError: block height is 5 but requested was 99"),
        (-32000, "hash 0x5a4d1f2e is not currently canonical"),
        (-32000, "cannot query unfinalized data"),
        (-39001, "Unknown block"),
        (-32019, "block is out of range"),
        (-32602, "Block with such an ID doesn't exist yet"),  # matter-labs/zksync-os-server PR 1310: ZKsync Era
        (-32000, "4294967295 could not be found"),  # NethermindEth/nethermind 11173
        (-32603, "upstream does not have the requested block yet"),
    ],
    "pruned": [
        (-32000, "height is not available (requested height: 138905662, base height: 161957762)"),  # enviodev/hyperindex 714
        (-32001, "Receipt not available for 'From' block '1273020'."),  # NethermindEth/nethermind 5228
        (-32603, "Unable to recover receipts for block 0xab12 because of missing block data."),  # nethermind PR 10771
        (-1, "unable to load historical state"),  # foundry-rs/foundry 16773: Somnia
        (-32602, "BlockOutOfRangeError: block height is 99 but requested was 5"),
        (-32000, "missing trie node 5a4d1f2e (path ) state 0x5a4d is not available, not found"),
        (-32000, "missing trie node 5a4d1f2e (path ) <nil>"),
        (4444, "pruned history unavailable"),
        (4444, "Pruned history unavailable"),
        (-32043, "Requested data cannot be older than 128 blocks."),  # cloudflare/cloudflare-docs PR 414
        (-32000, "historical state 5a4d1f2e is not available"),
        (-32000, "required historical state unavailable (reexec=128)"),
        (-32000, "historical state not available in path scheme yet"),
        (-32000, "state histories haven't been fully indexed yet"),
        (-32000, "No state available for block 0x5a4d1f2e"),
        (-32000, "World state unavailable"),
        (-32603, "state at block #12345 is pruned"),
        (-32000, "distance to target block exceeds maximum proof window"),
        (-32000, "Receipt not available for From block 14319330."),
        (-32000, "failed to get logs for block #0 (0xd4e567..cb8fa3)"),
        (-32602, "Archive requests are not available on your current plan"),
        (-32000, "project ID does not have access to archive state"),
        (-32000, "old data not available due to pruning"),
        (-32001, "state already discarded for 0x1"),
        (-32000, "WORLD_STATE_UNAVAILABLE"),
        (-32000, "block number 100 is below the lowest available block 200"),
    ],
    "unsupported": [
        (-32601, "the method eth_getBlockReceipts does not exist/is not available"),
        (-32601, "Method not found"),
        (-32004, "This request method is not supported"),
        (-32602, "too many arguments, want at most 2"),
        (-32600, "Unsupported method: eth_getBlockReceipts on ETH_MAINNET"),
        (-32601, "rpc method eth_getBlockReceipts is not available"),
        (-32601, "resource not found: eth_getBlockReceipts"),
        (-32000, "state override is not supported"),
    ],
    "size": [
        (-32602, "Log response size exceeded. You can make eth_getLogs requests with up to a 2K block range and no limit "
        "on the response size, or you can request any block range with a cap of 10K logs in the response. Based on your "
        "parameters and the response size limit, this block range should work: [0x0, 0x5a4d]"),
        (-32600, "Under the Free tier plan, you can make eth_getLogs requests with up to a 10 block range."),
        (-32005, "query returned more than 10000 results. Try with this block range [0x1, 0x2]."),
        (-32602, "range 1000000 exceeds limit of 10000"),
        (-32602, "invalid params range 9009594 is bigger than range limit 2000"),
        (-32614, "eth_getLogs is limited to a 10,000 range"),
        (-32615, "eth_getLogs is limited to a 5 range, upgrade from discover plan at "
        "https://dashboard.quicknode.com/billing/plan to increase the limit"),
        (-32602, "eth_getLogs requests limited to 1000 blocks"),
        (-32602, "eth_getLogs requests are limited to a 1,000 block range"),
        (-32008, "Response exceeded size limit"),
        (-32602, "eth_getLogs is limited to 0 - 10000 blocks range"),
        (-32600, "block range is too wide"),
        (-32000, "Block range limit exceeded. See more details at https://docs.chainstack.com/docs/limits#evm-range"),
        (35, "ranges over 10000 blocks are not supported on freetier"),
        (-32602, "query exceeds max results 20000, retry with the range 6000000-6000509"),
        (-32602, "query exceeds max block range 100000"),
        (-32701, "exceed maximum block range: 50000"),
        (-32012, "requested range too large"),
        (-32012, "error -32012: too many logs"),
        (-32000, "block range too large"),
        (-32020, "backend response too large"),
        (-32005, "Requested range exceeds maximum RPC range limit"),
        (-32000, "logs matched by query exceeds limit of 10000"),
        (-32000, "requested too many blocks from 1 to 5000, maximum is set to 2048"),
        (-32000, "Maximum allowed number of requested blocks is 3500"),
        (-32000, "Max range: 800"),
        (-32600, "eth_getLogs exceeds the range allowed for your plan (5000 > 3000)"),
        (-32000, "please limit the query to at most 1000 blocks"),
        (-32000, "block range greater than 20000 max"),
        (-32000, "eth_getLogs range is too large, max is 10k blocks"),
        (-32000, "query must be smaller than size 1024"),
        (-32008, "Response is too big"),
        (-32603, "response size should not greater than 10000000 bytes"),
        (-32602, "exceed max addresses"),
        (-32602, "please specify less number of address"),
        (-32600, "maximum [from, to] blocks distance: 1000"),
        (-32000, "out of gas"),
        (-32015, "VM execution error. Out of gas"),
        (-32603, "EVM error OutOfGas"),
        (-32000, "gas required exceeds allowance (50000000)"),
    ],
    "batch": [
        (-32600, "Batch size 100 exceeds the limit of 10"),
        (31, "Batch of more than 3 requests are not allowed on free tier, to use this feature register paid account"),
        (-32005, "Number of requests exceeds max batch size"),
        (-32005, "method eth_getLogs in batch triggered rate limit"),
        (-32000, "too many RPC calls in batch request, at most 10"),
        (-32600, "batch requests are not supported"),
    ],
    "slow": [
        (-32000, "query timeout exceeded"),
        (-32005, "Query timeout exceeded. Consider reducing your block range."),
        (-32000, "execution aborted (timeout = 5s)"),
        (-32000, "context deadline exceeded"),
        (-32016, "EVM timeout"),
    ],
    "revert": [
        (3, "execution reverted: missing trie node"),
        (-32000, "execution reverted: rate limit"),
        (3, "execution reverted: 35"),
        (-32000, "execution reverted"),
        (-32015, "VM execution error. Reverted 0x08c379a0"),
        (-32000, "VM Exception while processing transaction: revert"),
        (-32000, "invalid opcode: INVALID"),
        (-32603, "EVM error InvalidFEOpcode"),
    ],
    "server": [
        (-32603, "Internal error"),
        (-32000, "no backend is currently healthy to serve traffic"),
        (-32005, "limit exceeded"),
        (-32046, "Cannot fulfill request"),
        (19, "Temporary internal error. Please retry, trace-id: 1"),
        (-32000, "something never heard of"),
        (-32010, "backend offline"),
        (-32011, "no backends available for method"),
        (-32013, "backend returned an invalid response"),
        (12, "can't route your request to suitable provider, if you specified certain providers revise the list"),
        (-32050, "failed to connect to upstream"),
        (-32001, "Unable to complete request at this time"),  # joshstevens19/rindexer PR 435: an outage of 25 minutes
    ],
    "rejected": [(-32602, "invalid argument 0: hex string without 0x prefix"), (-32600, "Invalid Request")],
    "unclear": [(-1, "no"), (-40000, "words that nobody has ever seen")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "code", "text"), [(kind, code, text) for kind, texts in TEXTS.items() for code, text in texts]
)
def test_every_known_error_text_is_understood(kind: str, code: int, text: str) -> None:
    assert classify(code, text) == kind


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://eth-mainnet.g.alchemy.com/v2/AbCdEf123456_xyz-987", "https://eth-mainnet.g.alchemy.com/v2/***"),
        ("https://mainnet.infura.io/v3/0123456789abcdef0123456789abcdef", "https://mainnet.infura.io/v3/***"),
        ("https://rpc.ankr.com/eth/0123456789abcdef", "https://rpc.ankr.com/eth/***"),
        ("https://user:secret@node.example:8545/rpc", "https://***@node.example:8545/rpc"),
        ("https://node.example/?apikey=s3cr3t", "https://node.example/?***"),
        ("https://word-other-1234.quiknode.pro/0a1b2c3d4e/", "https://word-other-1234.quiknode.pro/***/"),
        ("https://0123456789abcdef0123.rpc.example", "https://***.rpc.example"),
        ("http://127.0.0.1:8545", "http://127.0.0.1:8545"),
        ("http://[::1]:8545/", "http://[::1]:8545/"),
        ("wss://node.example/ws/k3y#frag", "wss://node.example/ws/***"),
        ("https://host:notaport/key", "<malformed URL>"),
        ("secretkey", "<malformed URL>"),
    ],
)
def test_a_masked_url_shows_scheme_and_host_only(url: str, shown: str) -> None:
    assert mask(url) == shown


@given(key=st.text("abcdefghijklmnopqrstuvwxyzABCDEF0123456789_-", min_size=20, max_size=64))
def test_no_key_survives_masking_wherever_it_stands(key: str) -> None:
    for url in (
        f"https://node.example/v2/{key}",
        f"https://node.example/{key}/eth",
        f"https://{key}@node.example/",
        f"https://u:{key}@node.example/",
        f"https://node.example/eth?key={key}",
    ):
        endpoint = Endpoint(url, 1)
        assert key not in endpoint.masked
        assert key not in endpoint.scrub(f"Max retries exceeded with url: /v2/{key} (Caused by {url}: {key})")


def test_text_of_a_node_becomes_one_printable_line() -> None:
    endpoint = Endpoint("https://node.example/v2/k3yk3yk3yk3y", 1)
    assert endpoint.scrub("a\x1b[31mred\n\tb see https://other.example/v1/0123456789abcdef ok") == (
        "a [31mred b see https://other.example/v1/*** ok"
    )
    assert len(endpoint.scrub("x" * 5000)) == 300


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, "a." * 10**6, "http://" * 10**5, "1 > 1 " * 10**5, "block " * 10**5, "0x" * 10**6, "state " * 10**5],
)
def test_a_long_text_of_a_node_is_read_in_no_time(text: str) -> None:
    endpoint = Endpoint("https://node.example/v2/k3yk3yk3yk3y", 1)
    started = time.monotonic()
    error = endpoint.error("eth_call", {"code": -32000, "message": text, "data": text})
    assert len(str(error)) <= 300
    assert mask(text)
    assert time.monotonic() - started < 20  # it took minutes


def test_only_the_beginning_of_a_long_text_is_looked_at() -> None:
    """One of two bounds, each of which is enough: what stands behind it decides nothing and is not searched."""
    assert masked("x" * 10**6) == "x" * LONGEST_TEXT
    endpoint = Endpoint("https://node.example/v2/k3yk3yk3yk3y", 1)
    for error in (
        {"message": "x" * LONGEST_TEXT + " too many requests"},
        {"message": "x", "data": "x" * LONGEST_TEXT + " pruned"},
    ):
        assert type(endpoint.error("eth_call", {"code": -32000, **error})) is BadAnswerError


@pytest.mark.parametrize("text", ["a." * 10**5, "a" * 10**5, "http://" * 10**4, "1 > 1 " * 10**4])
def test_no_pattern_needs_the_text_to_be_short(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The other one: without it, patterns take time in proportion to the text and not to its square."""
    for module in (masking, endpoints):
        monkeypatch.setattr(module, "LONGEST_TEXT", 10**9)
    endpoint = Endpoint("https://node.example/v2/k3yk3yk3yk3y", 1)
    started = time.monotonic()
    assert len(str(endpoint.error("eth_call", {"code": -32000, "message": text}))) <= 300
    assert time.monotonic() - started < 20


def test_a_key_at_the_end_of_what_is_looked_at_is_not_shown() -> None:
    key = "k3yk3yk3yk3yk3yk3y"
    endpoint = Endpoint(f"https://node.example/v2/{key}", 1)
    for start in range(LONGEST_TEXT - len(key) - 2, LONGEST_TEXT + 1):
        line = endpoint.scrub("x " * (start // 2) + key * 300, 10**6)
        assert not any(key[:size] in line for size in range(4, len(key)))


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after("1.5") == 1.5
    assert retry_after("-3") == 0
    assert retry_after("Wed, 21 Oct 2015 07:28:00 GMT") == 0
    assert retry_after("Wed, 21 Oct 2099 07:28:00 GMT") == LONGEST_PATIENCE
    assert retry_after("100000") == retry_after("inf") == LONGEST_PATIENCE
    assert retry_after("nan") is None
    assert retry_after("soon") is None
    assert retry_after(None) is None


@contextmanager
def server(reply: Callable[[bytes], bytes | None], *, pause: float = 0) -> Iterator[str]:
    """A raw TCP server: `reply` gets the request's bytes and gives what is sent back, None to wait forever."""
    listener = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                data = connection.recv(65536)
                while b"\r\n\r\n" not in data or data[-1:] not in b"}]":
                    data += connection.recv(65536)
                answer = reply(data)
                if answer is None:
                    done.wait(5)
                    continue
                for i in range(0, len(answer), 10) if pause else [0]:
                    connection.sendall(answer[i : i + 10] if pause else answer)
                    if done.wait(pause):
                        return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v2/s3cr3ts3cr3t"
    finally:
        done.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def http(status: str, body: str, *headers: str, length: int | None = None) -> Callable[[bytes], bytes]:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", "Connection: close"]
    return lambda _: "\r\n".join([*lines, *headers, "", body]).encode()


RESULT = '{"jsonrpc":"2.0","id":1,"result":"0x1"}'


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (http("429 Too Many Requests", "slow down", "Retry-After: 7"), RateLimitedError),
        (http("503 Service Unavailable", ""), RateLimitedError),
        (http("500 Internal Server Error", "<html>"), BadAnswerError),
        (http("502 Bad Gateway", "<html>"), BadAnswerError),
        (http("504 Gateway Timeout", ""), TimedOutError),
        (http("401 Unauthorized", ""), DeniedError),
        (http("404 Not Found", "nothing here"), DeniedError),
        (http("413 Payload Too Large", ""), TooBigError),
        (http("301 Moved", "", "Location: https://elsewhere.example/"), DeniedError),
        (http("200 OK", "<html>"), BadAnswerError),
        (http("200 OK", RESULT[:20], length=len(RESULT)), BadAnswerError),
        (http("200 OK", RESULT.replace('"id":1', '"id":2')), BadAnswerError),
        (http("200 OK", RESULT.replace('"id":1', '"id":null')), BadAnswerError),
        (http("200 OK", '{"jsonrpc":"2.0","id":1}'), BadAnswerError),
        (http("200 OK", "[]"), BadAnswerError),
        (http("200 OK", "null"), BadAnswerError),
        (http("400 Bad Request", '{"id":1,"error":{"code":4444,"message":"pruned history unavailable"}}'), PrunedError),
        (
            http("200 OK", '{"id":null,"error":{"code":-32601,"message":"the method x does not exist"}}'),
            UnsupportedError,
        ),
        (http("200 OK", '{"id":1,"error":{"code":-32602,"message":"invalid argument 0"}}'), RejectedError),
        (http("200 OK", '{"id":1,"error":{"code":3,"message":"execution reverted","data":"0x08"}}'), RevertError),
        (http("200 OK", '{"id":1,"error":"odd"}'), BadAnswerError),
        (http("200 OK", '{"id":1,"error":{"code":-99,"message":"odd"}}'), UnclearError),
        (http("502 Bad Gateway", '{"id":1,"error":{"code":-99,"message":"odd"}}'), BadAnswerError),
        (http("504 Gateway Timeout", '{"id":1,"error":{"code":-32603,"message":"Internal error"}}'), TimedOutError),
        (http("500 Oops", '{"id":1,"error":{"code":4444,"message":"pruned history unavailable"}}'), PrunedError),
        (http("429 Slow", '{"id":1,"error":{"code":-99,"message":"odd"}}'), RateLimitedError),
        (lambda _: b"garbage\r\n\r\n", UnreachableError),
        (lambda _: b"", UnreachableError),
        (lambda _: None, TimedOutError),
    ],
)
def test_one_exchange_raises_what_its_failure_means(
    reply: Callable[[bytes], bytes | None], error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with server(reply) as url:
        endpoint = Endpoint(url, 0.5)
        with pytest.raises(error) as caught:
            endpoint.send("eth_chainId", [])
        endpoint.close()
    assert isinstance(caught.value, RetryableError | ChainError)
    assert "s3cr3t" not in f"{caught.value} {caught.value.__cause__} {caplog.text}"
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        http("200 OK", RESULT + " " * 1000),
        http("200 OK", RESULT, *(f"X-Header-{i}: {'x' * 40}" for i in range(20))),
        lambda _: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 200,
        lambda _: b"HTTP/1.1 200 OK" + b" " * 1000,
    ],
    ids=["body", "headers", "chunks", "status line"],
)
def test_a_server_that_drips_bytes_is_given_up_at_the_deadline(reply: Callable[[bytes], bytes]) -> None:
    before = threading.active_count()
    with server(reply, pause=0.05) as url:
        endpoint = Endpoint(url, 0.5)
        started = time.monotonic()
        with pytest.raises(TimedOutError, match=r"0\.5 s"):
            endpoint.send("eth_chainId", [])
        assert 0.5 <= time.monotonic() - started < 5  # of nearly a minute
        endpoint.close()
    deadline = time.monotonic() + 5
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before  # whoever read the drips has ended


def bomb(request: bytes) -> bytes:
    return gzipped(gzip_bomb())(request)


def gzipped(content: bytes) -> Callable[[bytes], bytes]:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(content)}\r\nConnection: close\r\nContent-Encoding: gzip\r\n\r\n"
    return lambda _: head.encode() + content


@pytest.mark.parametrize(
    "name",
    ["", "none", "UTF-8"],  # locustio/locust 1233, WeBankFinTech/DataSphereStudio PR 167
)
def test_an_answer_is_not_packed_whatever_name_that_has(name: str) -> None:
    with server(http("200 OK", RESULT, f"Content-Encoding: {name}")) as url:
        endpoint = Endpoint(url, 5)
        assert endpoint.send("eth_chainId", []) == "0x1"
        endpoint.close()


def test_packed_answers_are_unpacked(caplog: pytest.LogCaptureFixture) -> None:
    parts = gzip.compress(RESULT[:9].encode()) + gzip.compress(RESULT[9:].encode())
    for content in (gzip.compress(RESULT.encode()), parts):
        with server(gzipped(content)) as url:
            endpoint = Endpoint(url, 5)
            assert endpoint.send("eth_chainId", []) == "0x1"
            endpoint.close()


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (gzipped(gzip.compress(RESULT.encode())[:-9]), "end early"),
        (gzipped(RESULT.encode()), "incorrect header"),
        (http("200 OK", RESULT, "Content-Encoding: br"), "not asked for"),
        (http("200 OK", RESULT, "Content-Encoding: gzip, gzip"), "not asked for"),
        (bomb, "1048576 bytes"),
        (http("200 OK", " " * 2**21), "1048576 bytes"),
    ],
)
def test_answers_packed_wrongly_or_too_well_are_bad_answers(reply: Callable[[bytes], bytes], words: str) -> None:
    reply(b"")  # what takes long to pack is packed before somebody waits for it
    with server(reply) as url:
        endpoint = Endpoint(url, 5)
        with pytest.raises(BadAnswerError, match=words):
            endpoint.send("eth_chainId", [])
        endpoint.close()


def test_the_ratio_bounds_what_may_be_large() -> None:
    gzip_bomb()  # as above
    with server(bomb) as url:
        endpoint = Endpoint(url, 5)
        with pytest.raises(OversizedError, match="200 times"):
            endpoint.send("eth_getLogs", [{}])
        endpoint.close()


def test_what_was_asked_bounds_the_answer() -> None:
    logs, header, call = ("eth_getLogs", [{}]), ("eth_getBlockByNumber", ["0x1", False]), ("eth_call", [{"data": "0x"}])
    assert most_bytes([header]) == 2**20
    assert most_bytes([header] * 10) == 10 * 2**20
    assert most_bytes([call]) < most_bytes([("eth_call", [{"data": "0x" + "00" * 1000}])])
    assert most_bytes([logs] * 100) == most_bytes([logs]) == 32 * 2**20


def test_retry_after_and_revert_data_are_kept() -> None:
    with server(http("429 Too Many Requests", "", "Retry-After: 7")) as url:
        endpoint = Endpoint(url, 1)
        with pytest.raises(RateLimitedError) as limited:
            endpoint.send("eth_chainId", [])
        assert limited.value.retry_after == 7
        endpoint.close()
    endpoint = Endpoint("http://node.example", 1)
    for data in ("0x08c379a0", "Reverted 0x08c379a0", {"data": "0x08c379a0"}):
        error = endpoint.error("eth_call", {"code": -32015, "message": "VM execution error: reverted", "data": data})
        assert isinstance(error, RevertError)
        assert error.data == bytes.fromhex("08c379a0")


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        ('[{"id":2,"result":"b"},{"id":1,"result":"a"}]', ["a", "b"]),
        ('[{"id":1,"result":"a"},{"id":1,"result":"x"},{"id":2,"result":"b"}]', BadAnswerError),
        ('[{"id":1,"result":"a"},{"id":7,"result":"x"}]', BadAnswerError),
        ('[{"id":1,"result":"a"},{"id":null,"result":"x"}]', BadAnswerError),
        ('[{"id":1,"result":"a"},"b"]', BadAnswerError),
        ('{"id":1,"result":"a"}', BadAnswerError),
        ('{"id":null,"error":{"code":-32600,"message":"Invalid Request"}}', UnsupportedError),
        ('{"id":null,"error":{"code":-32600,"message":"Batch size 2 exceeds the limit of 1"}}', TooBigError),
    ],
)
def test_answers_of_a_batch_are_matched_by_id_alone(body: str, outcome: list[str] | type[Exception]) -> None:
    with server(http("200 OK", body)) as url:
        endpoint = Endpoint(url, 1)
        calls: list[tuple[str, list[str]]] = [("a", []), ("b", [])]
        if isinstance(outcome, list):
            assert endpoint.send_batch(calls) == outcome
        else:
            with pytest.raises(outcome):
                endpoint.send_batch(calls)
        endpoint.close()


@pytest.mark.parametrize(
    ("text", "asked", "most"),
    [
        ("Batch size 100 exceeds the limit of 10", 100, 10),
        ("Batch of more than 3 requests are not allowed on free tier", 100, 3),
        ("too many RPC calls in batch request, at most 10. See https://docs.example/limits/50", 100, 10),
        ("max batch size is 10, got 20", 20, 10),
        ("method eth_getLogs in batch triggered rate limit", 100, None),
        ("batch of 5 refused", 5, None),
        ("batch " + "9" * 5000, 5, None),
    ],
)
def test_the_size_that_a_refusal_of_a_batch_allows_is_read_from_its_words(
    text: str, asked: int, most: int | None
) -> None:
    assert most_in_batch(text, asked) == most


def test_an_answer_left_out_of_a_batch_or_refused_stands_in_its_place() -> None:
    with server(http("200 OK", '[{"id":2,"error":{"code":4444,"message":"pruned history unavailable"}}]')) as url:
        endpoint = Endpoint(url, 1)
        missing, pruned = endpoint.send_batch([("a", []), ("b", [])])
        assert isinstance(missing, BadAnswerError)
        assert isinstance(pruned, PrunedError)
        endpoint.close()
