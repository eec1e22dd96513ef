"""A JSON-RPC proxy that answers like the worst of providers: seeded, switchable faults in front of a real node.

    with Anvil() as node, FaultyNode(node.url, seed=1) as faulty:
        faulty.faults = {"429": 0.1, "lagging": 0.05, "omitted-logs": 0.2}
        faulty.range_cap = 100
        ... Chain(..., [faulty.url], ...)
        assert faulty.injected["429"]

`faults` maps names of `FAULTS` (tests/faulty_modes.py) to the probability per HTTP request or per call; names outside it are a mistake.
"""

import copy
import json
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from tests.devnet.node import Connections
from tests.faulty_modes import (
    BLOOM_FAULTS,
    FAULTS,
    GATEWAY_ERRORS,
    HTTP_FAULTS,
    STATE_METHODS,
    count_per_transaction,
    gzip_bomb,
    span,
    spoil_bloom,
)


class FaultyNode:
    """The proxy as a context manager.

    `injected` counts what was injected, `requests` HTTP requests, `calls` JSON-RPC calls by method, `logs_omitted` the
    logs dropped. Limits (`range_cap` blocks, `result_cap` logs, `size_cap` bytes, `address_cap` addresses, `gas_cap` for
    eth_call, `batch_cap` calls in the words of `batch_text`) hold always once set; `silent_cap` cuts logs off without a
    word (ethers-io/ethers.js 1389), ranges wider than `slow_range` hang (ponder-sh/ponder PR 2386). `limit_text` chooses
    the words of the range limit, `refuse_all` code and words that every call gets, `override_refusal` those of
    "override-unsupported". Whenever eth_getLogs asks for them, all logs of the blocks in `omit_blocks` are left out, and
    all that name `omit_account` in a topic; with `omit_receipts` also of receipts. `lies` are words of storage
    that it makes up, by contract and slot: every call is answered as if they were true. In blocks before `code_from` no
    contract has code, as a node says that has no state of then. `edit(call, answer)` returns what is sent instead of the
    answer to a call, `status(number)` the HTTP status of the request of that number.
    """

    def __init__(
        self,
        upstream: str,
        *,
        seed: int = 0,
        faults: Mapping[str, float] | None = None,
        retry_after: float = 0.05,
        hang_seconds: float = 30,
        lag: int = 2,
    ) -> None:
        place = urlsplit(upstream)
        self.backend = Connections(place.hostname or "", place.port or 80)
        self.rng = random.Random(seed)
        self.retry_after = retry_after
        self.hang_seconds = hang_seconds
        self.drip_seconds = 0.2
        self.lag = lag
        self.history_from = 0
        self.omit_blocks: set[int] = set()
        self.omit_account: str | None = None
        self.code_from = 0
        self.omit_receipts = False
        self.omit_share = 0.5
        self.lies: dict[str, dict[str, str]] = {}
        self.range_cap: int | None = None
        self.result_cap: int | None = None
        self.size_cap: int | None = None
        self.silent_cap: int | None = None
        self.slow_range: int | None = None
        self.address_cap: int | None = None
        self.gas_cap: int | None = None
        self.batch_cap: int | None = None
        self.batch_text = "Batch size {size} exceeds the limit of {cap}"
        self.limit_code = -32600
        self.limit_text = "You can make eth_getLogs requests with up to a {cap} block range"
        self.override_refusal = -32602, "too many arguments, want at most 2"
        self.refuse_all: tuple[int, str] | None = None
        self.edit: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] = lambda _, answer: answer
        self.status: Callable[[int], int] = lambda _: 200
        self.down = False
        self.injected: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.requests = 0
        self.logs_omitted = 0
        self._faults: dict[str, float] = {}
        self.faults = dict(faults or {})
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def faults(self) -> dict[str, float]:
        return self._faults

    @faults.setter
    def faults(self, faults: Mapping[str, float]) -> None:
        unknown = set(faults) - FAULTS
        if unknown:
            raise ValueError(f"unknown faults {sorted(unknown)}")
        self._faults = dict(faults)

    @property
    def url(self) -> str:
        assert self._server is not None, "not started"
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        node = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                node.handle(self, body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Quiet."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that went away is part of the game."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(10)
        self.backend.close()

    # one HTTP request

    def handle(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        request = json.loads(body)
        calls = request if isinstance(request, list) else [request]
        with self._lock:
            self.requests += 1
            status = self.status(self.requests)
            self.calls.update(call["method"] for call in calls)
            fault = "reset" if self.down else self._http_fault(isinstance(request, list))
        if status >= 400:
            self._note(f"status {status}")
            return self._reply(handler, status, b"<html>no</html>")
        if fault in {"429", "429-retry-after", "500", "502", "503"}:
            headers = {"Retry-After": str(self.retry_after)} if fault == "429-retry-after" else {}
            return self._reply(handler, int(fault[:3]), b"<html>try later</html>", headers)
        if self.slow_range is not None and self.slow_range < max(map(span, calls)):
            self._note("slow-range")
            fault = "hang"
        if fault == "hang":
            self._stopped.wait(self.hang_seconds)
            return self._reset(handler)
        if fault == "drip":
            return self._drip(handler, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 100_000)
        if fault == "deep-json":
            return self._reply(handler, 200, b"[" * 200_000)
        if fault == "long-error":
            return self._reply(handler, 200, json.dumps(_error(None, -32000, "a" * 100_000)).encode())
        if fault == "gzip-bomb":
            return self._reply(handler, 200, gzip_bomb(), {"Content-Encoding": "gzip"})
        if fault == "reset":
            return self._reset(handler)
        if fault == "html":
            return self._reply(handler, 200, b"<!DOCTYPE html><html><body>Welcome</body></html>")
        if self.batch_cap is not None and len(calls) > self.batch_cap:
            self._note("batch-cap")
            text = self.batch_text.format(size=len(calls), cap=self.batch_cap)
            return self._reply(handler, 200, json.dumps(_error(None, -32600, text)).encode())
        if fault == "batch-unsupported":
            return self._reply(handler, 200, json.dumps(_error(None, -32600, "Invalid Request")).encode())
        if fault == "batch-rate-limited" and any(call["method"] == "eth_getLogs" for call in calls):
            text = "method eth_getLogs in batch triggered rate limit"
            return self._reply(handler, 200, json.dumps([_error(call["id"], -32005, text) for call in calls]).encode())
        lagging = self._happens("lagging")  # one backend answers a whole HTTP request
        answers = [self.edit(call, self._answer(call, lagging)) for call in calls]
        if fault == "batch-missing":
            answers.pop(self._random(len(answers)))
        elif fault == "batch-duplicate":
            answers[self._random(len(answers))] = answers[self._random(len(answers))]
        elif fault == "batch-reordered":
            with self._lock:
                self.rng.shuffle(answers)
        elif fault == "batch-swapped" and len(answers) > 1:
            one, other = answers[0], answers[-1]
            answers[0], answers[-1] = {**one, "id": other["id"]}, {**other, "id": one["id"]}
        elif fault == "wrong-id":
            answers[0] = {**answers[0], "id": 987_654_321}
        payload = json.dumps(answers if isinstance(request, list) else answers[0]).encode()
        if self.size_cap is not None and len(payload) > self.size_cap:
            self._note("size-cap")
            failures = [_error(call["id"], -32008, "Response is too big") for call in calls]
            payload = json.dumps(failures if isinstance(request, list) else failures[0]).encode()
        if fault == "truncated":
            self._reply(handler, 200, payload, cut=len(payload) // 2)
            return self._reset(handler)
        return self._reply(handler, status, payload)

    def _http_fault(self, batch: bool) -> str | None:
        for name in HTTP_FAULTS:
            if name.startswith("batch-") and not batch:
                continue
            if self.faults.get(name) and self.rng.random() < self.faults[name]:
                self.injected[name] += 1
                return name
        return None

    def _happens(self, name: str) -> bool:
        if not self.faults.get(name):
            return False
        with self._lock:
            return self.rng.random() < self.faults[name]

    def _note(self, name: str) -> None:
        with self._lock:
            self.injected[name] += 1

    def _random(self, below: int) -> int:
        with self._lock:
            return self.rng.randrange(below)

    @staticmethod
    def _reply(
        handler: BaseHTTPRequestHandler,
        status: int,
        payload: bytes,
        headers: Mapping[str, str] | None = None,
        cut: int | None = None,
    ) -> None:
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(payload)))
        handler.end_headers()
        handler.wfile.write(payload if cut is None else payload[:cut])
        handler.wfile.flush()

    def _drip(self, handler: BaseHTTPRequestHandler, answer: bytes) -> None:
        handler.close_connection = True
        for byte in answer:
            handler.connection.sendall(bytes([byte]))
            if self._stopped.wait(self.drip_seconds):
                return

    @staticmethod
    def _reset(handler: BaseHTTPRequestHandler) -> None:
        handler.close_connection = True
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()

    # one call

    def _answer(self, call: dict[str, Any], lagging: bool) -> dict[str, Any]:
        method, params = call["method"], copy.deepcopy(call.get("params") or [])
        refusal = self._refusal(method, params)
        if refusal is not None:
            name, code, text = refusal
            self._note(name)
            return _error(call["id"], code, text)
        if self._happens("null"):
            self._note("null")
            return {"jsonrpc": "2.0", "id": call["id"], "result": None}
        if method == "eth_call":
            if len(params) > 2 and self._happens("override-ignored"):
                self._note("override-ignored")
                params = params[:2]
            if self._happens("ignores-block") and params[1] != "latest":
                self._note("ignores-block")
                params[1] = "latest"
            if self.gas_cap is not None:
                params[0]["gas"] = hex(self.gas_cap)
            if self.lies:
                self._note("lies")
                overridden = params[2] if len(params) > 2 else {}
                made_up = {a: {**overridden.get(a, {}), "stateDiff": words} for a, words in self.lies.items()}
                params[2:] = [{**overridden, **made_up}]
        if method == "eth_getStorageAt" and params[0].lower() in self.lies:
            word = self.lies[params[0].lower()].get("0x" + int(params[1], 16).to_bytes(32).hex())
            if word is not None:
                self._note("lies")
                return {"jsonrpc": "2.0", "id": call["id"], "result": word}
        named = params[1] if method == "eth_getCode" and isinstance(params[1], str) else ""
        if named.startswith("0x") and int(named, 16) < self.code_from:
            self._note("no-code")
            return {"jsonrpc": "2.0", "id": call["id"], "result": "0x"}
        if method == "eth_getLogs" and self._happens("ignores-filter"):
            self._note("ignores-filter")
            params[0] = {key: value for key, value in params[0].items() if key not in {"address", "topics"}}
        if method == "eth_getLogs" and "blockHash" in params[0] and self._happens("block-hash-ignored"):
            self._note("block-hash-ignored")
            params[0] = {**params[0], "fromBlock": "latest", "toBlock": "latest"}
            del params[0]["blockHash"]
        if lagging:
            lagged = self._lagging(call["id"], method, params)
            if lagged is not None:
                self._note("lagging")
                return lagged
        answer: dict[str, Any] = self.forward({**call, "params": params})
        if method == "eth_getLogs" and "result" in answer:
            return self._logs(call["id"], answer)
        if method == "eth_getBlockReceipts" and answer.get("result"):
            for receipt in answer["result"]:
                if receipt["logs"] and self._happens("log-index-per-transaction"):
                    first = int(receipt["logs"][0]["logIndex"], 16)
                    count_per_transaction(receipt["logs"], {receipt["transactionHash"]: first})
                receipt["logs"] = self._kept(receipt["logs"]) if self.omit_receipts else receipt["logs"]
        if method in {"eth_getBlockByNumber", "eth_getBlockByHash"} and answer.get("result"):
            if self._happens("absurd-time"):
                self._note("absurd-time")
                answer["result"]["timestamp"] = hex(2**64 + 5)
            for name in BLOOM_FAULTS:
                if self._happens(name):
                    self._note(name)
                    spoil_bloom(answer["result"], name)
        return answer

    def _refusal(self, method: str, params: list[Any]) -> tuple[str, int, str] | None:
        """Name, code and text of an error that a call gets instead of an answer."""
        if self.refuse_all is not None:
            return ("refuse-all", *self.refuse_all)
        if self._happens("rate-limit-error"):
            return "rate-limit-error", -32005, "daily request count exceeded, request rate limited"
        if self._happens("gateway-error"):
            return ("gateway-error", *GATEWAY_ERRORS[self._random(len(GATEWAY_ERRORS))])
        if self._happens("unknown-error"):
            return "unknown-error", -99, "words that nobody has ever seen"
        if self._happens("internal"):
            return "internal", -32603, "Internal error"
        names_block = method in STATE_METHODS or method == "eth_getBlockReceipts"
        if (names_block or (method == "eth_getLogs" and "blockHash" in params[0])) and self._happens(
            "header-not-found"
        ):
            return "header-not-found", -32000, "header not found"
        if method in STATE_METHODS and self._happens("pruned"):
            text = "missing trie node 5a4d1f2e (path ) state 0x5a4d1f2e is not available, not found"
            return "pruned", -32000, text
        if method == "eth_getLogs" and self.faults.get("pruned-history"):
            first = params[0].get("fromBlock")
            if first is not None and int(first, 16) < self.history_from and self._happens("pruned-history"):
                return "pruned-history", 4444, "pruned history unavailable"
        if method in STATE_METHODS and isinstance(params[1], dict) and self._happens("eip1898-refused"):
            text = "invalid argument 1: json: cannot unmarshal object into Go value of type string"
            return "eip1898-refused", -32602, text
        if method == "eth_call" and len(params) > 2 and self._happens("override-unsupported"):
            return ("override-unsupported", *self.override_refusal)
        if method == "eth_getBlockReceipts" and self._happens("receipts-unsupported"):
            return "receipts-unsupported", -32601, "the method eth_getBlockReceipts does not exist/is not available"
        if method != "eth_getLogs":
            return None
        if "blockHash" in params[0] and self._happens("block-hash-unsupported"):
            return "block-hash-unsupported", -32602, "invalid argument 0: unknown field blockHash"
        return self._log_limit(params[0])

    def _log_limit(self, wanted: dict[str, Any]) -> tuple[str, int, str] | None:
        if self.address_cap is not None and len(wanted.get("address", [])) > self.address_cap:
            return "address-cap", -32602, f"specify less number of address: limit {self.address_cap}"
        if self.range_cap is None or "fromBlock" not in wanted:
            return None
        first, last = int(wanted["fromBlock"], 16), int(wanted["toBlock"], 16)
        if last - first + 1 <= self.range_cap:
            return None
        text = self.limit_text.format(cap=self.range_cap, first=hex(first), last=hex(last), span=last - first + 1)
        return "range-cap", self.limit_code, text

    def _logs(self, call_id: Any, answer: dict[str, Any]) -> dict[str, Any]:
        logs = answer["result"]
        if self.result_cap is not None and len(logs) > self.result_cap:
            self._note("result-cap")
            return _error(call_id, -32005, f"query returned more than {self.result_cap} results")
        kept = self._kept(logs)
        if self.silent_cap is not None and len(kept) > self.silent_cap:
            self._note("silent-cap")
            kept = kept[: self.silent_cap]
        if logs and self._happens("log-index-per-transaction"):
            self._note("log-index-per-transaction")
            count_per_transaction(kept, self._firsts(logs))
        if not kept and not logs and self._happens("null-logs"):
            self._note("null-logs")
            return {**answer, "result": None}
        if kept and self._happens("omitted-logs"):
            with self._lock:
                kept = [log for log in kept if self.rng.random() >= self.omit_share]
        if len(kept) < len(logs):
            self._note("omitted-logs")
            with self._lock:
                self.logs_omitted += len(logs) - len(kept)
        return {**answer, "result": kept}

    def _firsts(self, logs: list[dict[str, Any]]) -> dict[str, int]:
        """The index in its block of the first log of each transaction."""
        first, last = (f(int(log["blockNumber"], 16) for log in logs) for f in (min, max))
        firsts: dict[str, int] = {}
        for log in self.forward_call("eth_getLogs", [{"fromBlock": hex(first), "toBlock": hex(last)}]):
            firsts.setdefault(log["transactionHash"], int(log["logIndex"], 16))
        return firsts

    def _kept(self, logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kept = [log for log in logs if int(log["blockNumber"], 16) not in self.omit_blocks]
        if self.omit_account is not None:
            kept = [log for log in kept if not any(self.omit_account[2:] in topic for topic in log["topics"])]
        return kept

    def _lagging(self, call_id: Any, method: str, params: list[Any]) -> dict[str, Any] | None:
        """The answer of a backend that has not seen the last `lag` blocks; None where it would answer alike."""
        head = max(0, int(self.forward_call("eth_blockNumber", []), 16) - self.lag)
        if method == "eth_blockNumber":
            return {"jsonrpc": "2.0", "id": call_id, "result": hex(head)}
        if method == "eth_getBlockByNumber":
            if params[0] == "latest":
                return {"jsonrpc": "2.0", "id": call_id, "result": self.forward_call(method, [hex(head), False])}
            if params[0].startswith("0x") and int(params[0], 16) > head:
                return {"jsonrpc": "2.0", "id": call_id, "result": None}
        if method == "eth_getBlockByHash" and self._above(params[0], head):
            return {"jsonrpc": "2.0", "id": call_id, "result": None}
        if method == "eth_getBlockReceipts" and self._above(params[0], head):
            return {"jsonrpc": "2.0", "id": call_id, "result": None}
        if method == "eth_getLogs":
            if "blockHash" in params[0] and self._above(params[0]["blockHash"], head):
                if self._happens("unknown-hash-empty"):
                    self._note("unknown-hash-empty")
                    return {"jsonrpc": "2.0", "id": call_id, "result": []}
                return _error(call_id, -32000, "unknown block")
            if "toBlock" in params[0] and int(params[0]["toBlock"], 16) > head:
                if int(params[0]["fromBlock"], 16) > head:
                    return {"jsonrpc": "2.0", "id": call_id, "result": []}
                return {"jsonrpc": "2.0", "id": call_id} | {
                    "result": self.forward_call(method, [{**params[0], "toBlock": hex(head)}])
                }
        if method in STATE_METHODS and isinstance(params[1], dict) and self._above(params[1]["blockHash"], head):
            return _error(call_id, -32000, "header not found")
        return None

    def _above(self, block_hash: str, head: int) -> bool:
        block = self.forward_call("eth_getBlockByHash", [block_hash, False])
        return block is None or int(block["number"], 16) > head

    # the real node

    def forward_call(self, method: str, params: list[Any]) -> Any:
        return self.forward({"jsonrpc": "2.0", "id": 0, "method": method, "params": params}).get("result")

    def forward(self, body: Any) -> Any:
        return self.backend.post(body)


def _error(call_id: Any, code: int, text: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "error": {"code": code, "message": text}}
