"""Deploy and call contracts from Solidity signatures, as any account, on a local node."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from eth_abi.abi import decode, encode
from eth_abi.exceptions import DecodingError
from eth_utils.crypto import keccak

from tests.devnet.contracts import Artifact
from tests.devnet.node import Anvil, RpcError, block_tag

GAS = 16_000_000
GAS_PRICE = 10**9
BALANCE = 10**26
PANIC = "Panic(uint256)"
ERROR = "Error(string)"


class Reverted(Exception):  # noqa: N818 -- the chain's own word for it
    """A call or transaction reverted; `reason` is decoded where its error is known, `data` is raw hex."""

    def __init__(self, what: str, reason: str, data: str) -> None:
        self.reason = reason
        self.data = data
        super().__init__(f"{what} reverted: {reason}")


class Signature(NamedTuple):
    """A parsed `name(inputs)(outputs)`."""

    selector: bytes
    inputs: list[str]
    outputs: list[str]


class Transaction(NamedTuple):
    """One transaction of a bulk history; `data` is calldata with 0x."""

    sender: str
    to: str
    data: str
    value: int = 0


def split_types(text: str) -> tuple[list[str], str]:
    """The types of a leading parenthesised list, and the text after it; nested tuples stay whole."""
    depth, start, types = 0, 1, []
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        if (character == "," and depth == 1) or depth == 0:
            if position > start:
                types.append(text[start:position].strip())
            start = position + 1
        if depth == 0:
            return types, text[position + 1 :]
    raise ValueError(f"unbalanced parentheses: {text}")


@cache
def signature(text: str) -> Signature:
    """Parse `"f(uint256,(address,bool)[])(uint256)"`; the outputs may be left out."""
    opening = text.index("(")
    inputs, rest = split_types(text[opening:])
    outputs = split_types(rest)[0] if rest else []
    canonical = f"{text[:opening]}({','.join(inputs)})"
    return Signature(keccak(text=canonical)[:4], inputs, outputs)


def calldata(function: str, args: Sequence[Any] = ()) -> str:
    """Hex calldata of a call."""
    parsed = signature(function)
    return "0x" + (parsed.selector + encode(parsed.inputs, list(args))).hex()


def account(label: str) -> str:
    """A made-up address, the same for the same label; its key is unknown, the node impersonates it."""
    return "0x" + keccak(text=label)[-20:].hex()


class Sender:
    """Sends transactions to one node as any account (auto-impersonation), funding each on first use.

    `default` is the account that deploys and administrates when no `sender` is named.
    """

    def __init__(self, node: Anvil, default: str | None = None) -> None:
        self.node = node
        self.default = default or account("devnet deployer")
        self.funded: set[str] = set()
        self.errors: dict[bytes, str] = {signature(text).selector: text for text in (ERROR, PANIC)}

    def know_errors(self, signatures: Sequence[str]) -> None:
        """Decode these custom errors (`"HealthFactorTooLow()"`) in revert reasons from now on."""
        self.errors.update({signature(text).selector: text for text in signatures})

    def fund(self, *accounts: str) -> None:
        """Give ether to those accounts that this sender has not funded before."""
        new = [a for a in dict.fromkeys(a.lower() for a in accounts) if a not in self.funded]
        self.node.batch([("anvil_setBalance", [a, hex(BALANCE)]) for a in new])
        self.funded.update(new)

    def deploy(
        self,
        code: Artifact | str,
        args: Sequence[Any] = (),
        *,
        types: Sequence[str] | None = None,
        sender: str | None = None,
        libraries: Mapping[str, str] | None = None,
    ) -> str:
        """Deploy creation code (an artifact, or hex with explicit constructor `types`); the new address, lower-case."""
        if isinstance(code, Artifact):
            self.know_errors(code.errors)
            types = code.constructor_types if types is None else types
            code = code.linked(libraries or {})
        arguments = encode(list(types or []), list(args)).hex()
        receipt = self.transact({"data": "0x" + code.removeprefix("0x") + arguments}, sender, "deployment", check=True)
        return str(receipt["contractAddress"]).lower()

    def deploy_linked(
        self, artifacts: Mapping[str, Artifact], name: str, args: Sequence[Any] = (), *, libraries: dict[str, str]
    ) -> str:
        """Deploy `name` after the libraries it links and those they link; the new address.

        `libraries` holds those deployed already, and gets the new ones.
        """
        for library in artifacts[name].links:
            if library not in libraries:
                libraries[library] = self.deploy_linked(artifacts, library, libraries=libraries)
        return self.deploy(artifacts[name], args, libraries=libraries)

    def send(
        self,
        to: str,
        function: str,
        args: Sequence[Any] = (),
        *,
        sender: str | None = None,
        value: int = 0,
        check: bool = True,
    ) -> dict[str, Any]:
        """Send one transaction and mine it; its receipt. Raises `Reverted` unless `check` is off."""
        request = {"to": to, "data": calldata(function, args), "value": hex(value)}
        return self.transact(request, sender, function, check)

    def transact(self, request: dict[str, Any], sender: str | None, what: str, check: bool) -> dict[str, Any]:
        sender = sender or self.default
        self.fund(sender)
        request = {"gas": hex(GAS), "gasPrice": hex(GAS_PRICE), **request, "from": sender}
        receipt = self.node.execute(request)
        if check and receipt["status"] != "0x1":
            reason, data = self.revert_reason(receipt["transactionHash"])
            raise Reverted(f"{what} of {sender}", reason, data)
        return receipt

    def try_send(
        self, to: str, function: str, args: Sequence[Any] = (), *, sender: str | None = None, value: int = 0
    ) -> bool:
        """Send one transaction that may revert; whether it succeeded."""
        return bool(self.send(to, function, args, sender=sender, value=value, check=False)["status"] == "0x1")

    def revert_reason(self, transaction: str) -> tuple[str, str]:
        """Why a mined transaction reverted: decoded reason and raw data."""
        trace = self.node.rpc("debug_traceTransaction", transaction, {"tracer": "callTracer"})
        data = trace.get("output", "0x")
        return self.decode_revert(data) or trace.get("error", "no reason"), data

    def decode_revert(self, data: str) -> str:
        """Revert data in words: the message of `Error(string)`, a known custom error with its arguments, else hex."""
        raw = bytes.fromhex(data.removeprefix("0x"))
        known = self.errors.get(raw[:4])
        if known is None:
            return data.removeprefix("0x") and data
        try:
            values = decode(signature(known).inputs, raw[4:])
        except DecodingError:
            return data
        if known == ERROR:
            return str(values[0])
        return f"{known[: known.index('(')]}({', '.join(map(str, values))})"

    def call(
        self,
        to: str,
        function: str,
        args: Sequence[Any] = (),
        *,
        block: int | str | dict[str, Any] = "latest",
        sender: str | None = None,
    ) -> Any:
        """`eth_call` of `"f(uint256)(uint256)"`: one value, or a tuple of several. Raises `Reverted`."""
        request = {"to": to, "data": calldata(function, args)}
        if sender is not None:
            request["from"] = sender
        try:
            tag = block if isinstance(block, dict) else block_tag(block)
            raw = self.node.rpc("eth_call", request, tag)
        except RpcError as error:
            if isinstance(error.data, str):
                raise Reverted(function, self.decode_revert(error.data), error.data) from error
            raise
        return decoded(function, raw)

    def calls(self, requests: Sequence[tuple[str, str, Sequence[Any]]], *, block: int | str = "latest") -> list[Any]:
        """Many `eth_call`s (to, function, args) in one batch, decoded. Raises `RpcError` on the first failure."""
        tag = block_tag(block)
        raw = self.node.batch(
            [("eth_call", [{"to": to, "data": calldata(function, args)}, tag]) for to, function, args in requests]
        )
        return [decoded(function, data) for (_, function, _), data in zip(requests, raw, strict=True)]

    def bulk(
        self,
        transactions: Sequence[Transaction | tuple[str, str, str]],
        *,
        gas: int = 1_500_000,
        per_block: int = 300,
        interval: int | None = None,
    ) -> list[bool]:
        """Send a big history, hundreds of transactions a block, in order; whether each succeeded.

        Nothing is checked: look at the answer. `gas` is each one's limit and blocks hold `per_block` of them, or fewer
        if they are full; `interval` is the seconds between blocks. anvil's mining time grows with the square of the
        transactions in a block (4,000/s at 300, 500/s at 3,000) and with the square of the blocks of the chain.
        """
        rows = [Transaction(*row) for row in transactions]
        senders = list(dict.fromkeys(row.sender.lower() for row in rows))
        self.fund(*senders)
        counts = self.node.batch([("eth_getTransactionCount", [sender, "latest"]) for sender in senders])
        nonces = {sender: int(count, 16) for sender, count in zip(senders, counts, strict=True)}
        succeeded: list[bool] = []
        for start in range(0, len(rows), per_block):
            requests = []
            for row in rows[start : start + per_block]:
                nonce = nonces[row.sender.lower()]
                nonces[row.sender.lower()] = nonce + 1
                request = {
                    "from": row.sender, "to": row.to, "data": row.data, "value": hex(row.value),
                    "nonce": hex(nonce), "gas": hex(gas), "gasPrice": hex(GAS_PRICE),
                }  # fmt: skip
                requests.append(("eth_sendTransaction", [request]))
            hashes = self.node.batch(requests)
            succeeded += self.mine_until(hashes, interval)
        return succeeded

    def mine_until(self, hashes: Sequence[str], interval: int | None) -> list[bool]:
        """Mine until all these pooled transactions are in blocks; whether each succeeded."""
        status: dict[str, bool] = {}
        while len(status) < len(hashes):
            if interval is not None:
                self.node.set_next_timestamp(self.node.timestamp() + interval)
            self.node.rpc("evm_mine")
            receipts = self.node.rpc("eth_getBlockReceipts", "latest")
            if not receipts:
                raise RuntimeError(f"{len(hashes) - len(status)} pooled transactions are never mined")
            status.update({r["transactionHash"]: r["status"] == "0x1" for r in receipts})
        return [status[transaction] for transaction in hashes]


def decoded(function: str, raw: str) -> Any:
    """The outputs of a call: one value, or a tuple of several."""
    values = decode(signature(function).outputs, bytes.fromhex(raw[2:]))
    return values[0] if len(values) == 1 else values
