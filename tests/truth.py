"""What the contracts say, asked without any code of the indexer: the expected values of the tests."""

import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from eth_utils.crypto import keccak

from indexer.adapter import Adapter
from indexer.chain.client import Chain
from indexer.model import Accounts, Deployment
from indexer.plugins import adapter_class
from indexer.settings import Settings
from indexer.store.database import open_readonly
from indexer.store.store import Store
from indexer.sync.commit import Planner
from indexer.sync.sync import Outcome, Sync
from indexer.sync.verify import verify
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet

NO_DEBT = 2**256 - 1


def deployment_of(market: Devnet) -> Deployment:
    """A devnet market as the indexer's configuration would have it."""
    addresses = {key: address.lower() for key, address in market.addresses.items()}
    return Deployment(market.name, market.protocol, "devnet", market.start_block, addresses)


def adapter_of(market: Devnet | Deployment) -> Adapter:
    """The indexer's adapter for a market."""
    deployment = market if isinstance(market, Deployment) else deployment_of(market)
    return adapter_class(deployment.protocol)(deployment)


def sync_once(
    path: Path,
    url: str | list[str],
    markets: Iterable[Devnet | Deployment],
    accounts: str = "all",
    to: str = "latest",
    chain_options: Mapping[str, Any] | None = None,
    accept_reorg: bool = False,
    planner: Planner | None = None,
    **settings: Any,
) -> Outcome:
    """One `indexer sync` of these markets into a file."""
    urls = [url] if isinstance(url, str) else url
    chain = Chain("devnet", CHAIN_ID, urls, MULTICALL3, **(chain_options or {}))
    try:
        with Store(path) as store, store.lock():
            adapters = [adapter_of(m) for m in markets]
            sync = Sync(store, chain, adapters, Accounts(accounts), Settings(**settings), accept_reorg=accept_reorg)
            sync.committer.planners += [] if planner is None else [planner]
            return sync.snapshot(to)
    finally:
        chain.close()


def wrong_rows(path: Path, node: Anvil, markets: Iterable[Devnet | Deployment]) -> tuple[int, list[str]]:
    """How many rows were compared with the contracts at the block they name, and what differs or is not canonical."""
    checked, wrong = 0, []
    chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)
    with Store(path) as store:
        for number, block_hash, deployment in store.conn.execute(
            "select distinct block_number, block_hash, deployment from positions where status <> 'unverified'"
        ):
            if node.rpc("eth_getBlockByNumber", hex(number), False)["hash"] != block_hash:
                wrong.append(f"{deployment}: rows of {number} {block_hash}, which is not on the chain")
        for verdict in verify(store, chain, [adapter_of(m) for m in markets]):
            checked += verdict.checked
            wrong += [
                f"{f'{m.deployment} {m.account} {m.position_group}'.rstrip()} {m.what}: {m.ours}, not {m.contract}"
                for m in verdict.mismatches
            ]
    chain.close()
    return checked, wrong


def named_in_logs(market: Devnet) -> set[tuple[str, str]]:
    """Who must be known with `--accounts borrowers`: (account, group) from raw logs, decoded here by hand."""
    pools: dict[str, list[tuple[str, int]]] = {  # event -> where the account stands: topic number, or 0 for data word 0
        "aave-v3": [("Borrow(address,address,address,uint256,uint8,uint256,uint16)", 2)],
        "aave-v2": [("Borrow(address,address,address,uint256,uint256,uint256,uint16)", 2)],
        "compound-v2": [("Borrow(address,uint256,uint256,uint256)", 0)],
        "compound-v3": [
            ("SupplyCollateral(address,address,address,uint256)", 2),
            ("TransferCollateral(address,address,address,uint256)", 2),
        ],
    }
    found = set()
    if market.protocol == "maker":
        for selector, places in (("76088703", (2,)), ("870c616d", (2, 3))):
            for log in logs_of(market, "0x" + selector + "0" * 56):
                ilk = bytes.fromhex(log["topics"][1][2:]).rstrip(b"\0").decode()
                found |= {("0x" + log["topics"][place][26:], ilk) for place in places}
        return found
    for signature, place in pools[market.protocol]:
        for log in logs_of(market, "0x" + keccak(text=signature).hex()):
            if place == 0 and not int(log["data"][2 + 128 : 2 + 192], 16):
                continue  # borrowed nothing and owes nothing: never had debt
            found.add(("0x" + (log["data"][26:66] if place == 0 else log["topics"][place][26:]), ""))
    return found


def logs_of(market: Devnet, topic: str) -> list[dict[str, Any]]:
    """Every log with that topic0 on the chain, of the market's own contracts (each protocol runs once on the node)."""
    everything: list[dict[str, Any]] = market.node.rpc(
        "eth_getLogs", {"fromBlock": hex(market.start_block), "toBlock": "latest", "topics": [topic]}
    )
    return everything


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
    answers = {}
    for block in {rows[a, ""]["block_number"] for a in both}:
        here = [a for a in both if rows[a, ""]["block_number"] == block]
        answers |= dict(zip(here, market.answers(here, block), strict=True))
    for account in both:
        row, answer = rows[account, ""], answers[account]
        health = None if answer[5] == NO_DEBT else answer[5]
        ours = tuple(as_int(row[c]) for c in ("collateral_value_raw", "debt_value_raw", "health_factor_raw"))
        if ours != (answer[0], answer[1], health):
            wrong.append(f"{account}: {ours} instead of {(answer[0], answer[1], health)}")
    return wrong


def raw(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as conn:
        return conn.execute(sql).fetchall()


def wrong_trends(path: Path) -> list[str]:
    """What the newest points of `market_history` and `book_history` say otherwise than the rows of the last snapshot."""
    wrong = []
    rows = raw(
        path,
        "select b.deployment, b.asset, p.status, b.account || b.position_group, b.side, b.is_collateral, b.amount_raw, "
        "b.value_usd from balances b join positions p using (chain_id, deployment, account, position_group)",
    )
    want: dict[tuple[Any, ...], list[Any]] = {}
    for deployment, asset, status, who, side, collateral, amount, usd in rows:
        sums = want.setdefault((deployment, asset, status), [set(), 0, 0.0, 0, 0.0, 0, 0.0, 0])
        sums[0].add(who)
        for place in [5] if side == "debt" else [1, 3] if collateral else [1]:
            sums[place] += int(amount)
            sums[place + 1] += usd or 0.0
        sums[7] += usd is None
    have = {
        (row[0], row[1], row[2]): row[3:]
        for row in raw(
            path,
            "select h.deployment, h.asset, h.status, h.positions, h.supply_raw, h.supply_usd, h.collateral_raw, "
            "h.collateral_usd, h.debt_raw, h.debt_usd, h.unvalued from book_history h "
            "join deployments d using (chain_id, deployment, block_number)",
        )
    }
    wrong += [f"{place} is in one of them only" for place in want.keys() ^ have.keys()]
    for place in want.keys() & have.keys():
        who, *sums = want[place]
        positions, *points = have[place]
        exact = (positions, *map(int, points[0:6:2]), points[6]) == (len(who), *sums[0:6:2], sums[6])
        near = all(abs((a or 0.0) - b) <= 1e-6 + 1e-9 * abs(b) for a, b in zip(points[1:6:2], sums[1:6:2], strict=True))
        if not (exact and near):
            wrong.append(f"{place}: {have[place]}, by the rows {len(who)} {sums}")
    columns = (
        "deployment, position_group, market, asset, block_number, price_raw, price_usd, supply_index_raw, debt_index_raw, "
        "supply_rate, borrow_rate, total_supply_raw, total_debt_raw, symbol, decimals"
    )
    points = raw(
        path, f"select {columns} from market_history join deployments using (chain_id, deployment, block_number)"
    )
    wrong += [f"market {row}" for row in {*points} ^ {*raw(path, f"select {columns} from markets")}]
    return wrong
