"""The deployment of Maker recorded in npm `@makerdao/testchain`, replayed transaction by transaction.

The package holds a chain of March 2021 whose 669 transactions, all of one sender, deploy the contracts of that day's
mainnet. They are sent by that sender, impersonated, so neither signatures nor the chain id matter; contract addresses
depend on its nonce alone and come out as recorded.
"""

import json
import tarfile
from pathlib import Path
from typing import Any

from tests.devnet.node import Anvil
from tests.devnet.packages import cached, package
from tests.devnet.send import GAS_PRICE, Sender

PACKAGE, VERSION = "@makerdao/testchain", "1.1.32"
GAS = 15_000_000  # the recorded limits are tight for today's gas costs
SLICE = 100


def addresses() -> dict[str, str]:
    """Contract name (`MCD_VAT`, `CDP_MANAGER`, ...) -> address, lower-case."""
    recorded = json.loads((package(PACKAGE, VERSION) / "out" / "addresses-mcd.json").read_text())
    return {name: address.lower() for name, address in recorded.items()}


def transactions() -> list[dict[str, Any]]:
    """The recorded transactions in order: `from`, `to` (None creates), `nonce`, `value`, `data`, `creates`."""

    def build(folder: Path) -> None:
        found: dict[int, dict[str, Any]] = {}
        created: dict[str, str] = {}
        with tarfile.open(package(PACKAGE, VERSION) / "snapshots" / "default.tgz") as archive:
            for member in archive:
                kind, _, key = Path(member.name).name.lstrip("!").partition("!")
                if kind not in ("blocks", "transactionReceipts") or not key:
                    continue
                content = archive.extractfile(member)
                assert content is not None
                record = json.loads(content.read())
                if kind == "transactionReceipts":
                    created[record["transactionHash"]] = record["contractAddress"]
                elif key != "length" and record["transactions"]:
                    (found[int(key)],) = record["transactions"]
        rows = [
            {
                "from": t["from"],
                "to": t["to"],
                "nonce": t["nonce"],
                "value": t["value"],
                "data": "0x" + t["data"].removeprefix("0x"),
                "creates": created[t["hash"]],
            }
            for _, t in sorted(found.items())
        ]
        (folder / "transactions.json").write_text(json.dumps(rows))

    folder = cached(f"maker-testchain-{VERSION}", build)
    return list(json.loads((folder / "transactions.json").read_text()))


def creation_code(contract: str, arguments: int) -> str:
    """The recorded creation code of a contract without its last `arguments` constructor words, as hex without 0x."""
    (data,) = [t["data"] for t in transactions() if t["creates"] == addresses()[contract]]
    return str(data)[2 : len(data) - 64 * arguments]


def replay(node: Anvil, sender: Sender) -> None:
    """Deploy Maker on `node`, in a few big blocks. Raises RuntimeError where it is there already, or differs."""
    rows = transactions()
    deployer = rows[0]["from"]
    if int(node.rpc("eth_getTransactionCount", deployer, "latest"), 16):
        raise RuntimeError("Maker can be deployed once per node: its addresses hang on its deployer's nonces")
    sender.fund(deployer)
    for start in range(0, len(rows), SLICE):
        hashes = node.batch([("eth_sendTransaction", [request(row)]) for row in rows[start : start + SLICE]])
        if not all(sender.mine_until(hashes, None)):
            raise RuntimeError("a recorded transaction failed")
    code = node.batch([("eth_getCode", [row["creates"], "latest"]) for row in rows if row["creates"]])
    if "0x" in code:
        raise RuntimeError("a recorded contract is not at its address")


def request(row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in ("from", "nonce", "value", "data")}
    return {**fields, **({"to": row["to"]} if row["to"] else {}), "gas": hex(GAS), "gasPrice": hex(GAS_PRICE)}
