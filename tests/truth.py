"""What the contracts say, asked without any code of the indexer: the expected values of the tests."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from indexer.adapter import Adapter
from indexer.chain import Chain
from indexer.model import Accounts, Deployment
from indexer.protocols import adapter_class
from indexer.settings import Settings
from indexer.store import Store, open_readonly
from indexer.sync import Outcome, Sync
from tests.devnet.node import CHAIN_ID, MULTICALL3
from tests.devnet.scenario import Devnet

NO_DEBT = 2**256 - 1


def adapter_of(market: Devnet) -> Adapter:
    """The indexer's adapter for a devnet market."""
    deployment = Deployment(
        market.name, market.protocol, "devnet", market.start_block,
        {key: address.lower() for key, address in market.addresses.items()},
    )  # fmt: skip
    return adapter_class(market.protocol)(deployment)


def sync_once(
    path: Path,
    url: str | list[str],
    markets: Iterable[Devnet],
    accounts: str = "all",
    to: str = "latest",
    **settings: Any,
) -> Outcome:
    """One `indexer sync` of these markets into a file."""
    urls = [url] if isinstance(url, str) else url
    chain = Chain("devnet", CHAIN_ID, urls, MULTICALL3)
    try:
        with Store(path) as store, store.lock():
            return Sync(
                store, chain, [adapter_of(m) for m in markets], Accounts(accounts), Settings(**settings)
            ).snapshot(to)
    finally:
        chain.close()


def rows_of(path: Path, deployment: str) -> dict[tuple[str, str], dict[str, Any]]:
    """The stored rows of `positions` by (account, group)."""
    conn = open_readonly(path)
    try:
        rows = conn.execute("select * from positions where deployment = ?", (deployment,))
        return {(row["account"], row["position_group"]): dict(row) for row in rows}
    finally:
        conn.close()


def balances_of(path: Path, deployment: str) -> dict[tuple[str, str, str], dict[str, Any]]:
    """The stored rows of `balances` by (account, market, side)."""
    conn = open_readonly(path)
    try:
        rows = conn.execute("select * from balances where deployment = ?", (deployment,))
        return {(row["account"], row["market"], row["side"]): dict(row) for row in rows}
    finally:
        conn.close()


def as_int(text: str | None) -> int | None:
    return None if text is None else int(text)


TRANSFER = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"  # keccak of the ERC-20 event


def token_holders(market: Any) -> set[str]:
    """Whoever ever received an aToken or a debt token, from the plain ERC-20 Transfer logs (which no adapter reads)."""
    tokens = [t for r in market.reserves.values() for t in (r.a_token, r.stable_debt, r.variable_debt) if t]
    logs = market.node.rpc(
        "eth_getLogs", {"fromBlock": "0x0", "toBlock": "latest", "address": tokens, "topics": [TRANSFER]}
    )
    return {"0x" + log["topics"][2][26:] for log in logs} - {"0x" + "0" * 40}


def wrong_aave_rows(path: Path, market: Any, accounts: set[str]) -> list[str]:
    """Where rows differ from `getUserAccountData` at their own block, or are missing or invented."""
    rows = rows_of(path, market.name)
    found = {account for account, _ in rows}
    wrong = [f"missing {a}" for a in accounts - found] + [f"invented {a}" for a in found - accounts]
    both = sorted(found & accounts)
    blocks = {rows[a, ""]["block_number"] for a in both}
    assert len(blocks) == 1, "every row of a deployment carries one block"
    (block,) = blocks
    for account, answer in zip(both, market.answers(both, block), strict=True):
        row = rows[account, ""]
        health = None if answer[5] == NO_DEBT else answer[5]
        ours = tuple(as_int(row[c]) for c in ("collateral_value_raw", "debt_value_raw", "health_factor_raw"))
        if ours != (answer[0], answer[1], health):
            wrong.append(f"{account}: {ours} instead of {(answer[0], answer[1], health)}")
    return wrong


def raw(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as conn:
        return conn.execute(sql).fetchall()
