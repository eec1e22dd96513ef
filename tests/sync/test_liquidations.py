"""The table `liquidations` against real liquidation calls: by the caller's and the account's balances, and by every log."""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from indexer.abi import topic
from indexer.chain.client import Chain
from indexer.cli.main import main
from indexer.logs.log_filter import Chunk
from indexer.sync import liquidated as liquidated_logs
from indexer.sync.liquidated import first_block_since
from tests.devnet import aave_v2, aave_v3, compound_v2, compound_v3, maker
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.devnet.scenario import Devnet, config_toml
from tests.devnet.send import calldata
from tests.earning import REFUSALS, AaveTill, CatTill, CometTill, CompoundV2Till, Row, Till, everything, till_of
from tests.faulty import FaultyNode
from tests.liquidating import Ground, MakerGround, event, ground_of, words
from tests.risk.test_liquidation import sink
from tests.risk.test_opportunities import listed
from tests.truth import logs_of, raw

USERS = 40
MARKETS: dict[str, Callable[[Anvil], Devnet]] = {
    "aave-3.6": lambda node: aave_v3.deploy(node, "3.6"),
    "aave-v2": aave_v2.deploy,
    "compound-v2": compound_v2.deploy,
    "comet": compound_v3.deploy,
    "maker": maker.deploy,
}
AAVE = "LiquidationCall(address,address,address,uint256,uint256,address,bool)"
SIGNATURES = {
    "aave-v2": [AAVE],
    "aave-v3": [AAVE],
    "compound-v2": ["LiquidateBorrow(address,address,uint256,address,uint256)"],
    "compound-v3": [
        "AbsorbDebt(address,address,uint256,uint256)",
        "AbsorbCollateral(address,address,address,uint256,uint256)",
    ],
    "maker": ["Bite(bytes32,address,uint256,uint256,uint256,address,uint256)"],
}
#: everything but values, which need a price of that time
EXACT = (
    "block_number, block_hash, log_index, block_timestamp, transaction_hash, account, position_group, liquidator, "
    "debt_asset, repaid_raw, repaid, collateral_asset, seized_raw, seized"
)


@pytest.fixture(scope="module", params=MARKETS)
def populated(request: pytest.FixtureRequest, needs_node: None) -> Iterator[Ground]:
    with Anvil() as node:
        node.place_multicall3()
        market = MARKETS[request.param](node)
        market.populate(3, USERS)
        ground = ground_of(market)
        yield ground
        ground.connection.chain.close()


@pytest.fixture
def ground(populated: Ground) -> Iterator[Ground]:
    """A populated market; what a test does to it is undone."""
    with populated.devnet.rewound():
        yield populated


def run(folder: Path, *words: str, db: str = "indexer.db") -> Result:
    result = CliRunner().invoke(main, ["--config", str(folder / "indexer.toml"), "--db", str(folder / db), *words])
    assert result.exit_code == 0, result.output
    return result


def shown(folder: Path, *flags: str, db: str = "indexer.db") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run(folder, "liquidations", "--json", *flags, db=db).stdout)
    return found


def changed(till: Till, row: Row) -> tuple[str, int, dict[str, int]]:
    """One liquidation for good: its transaction, what was repaid, and what was seized by asset, as balances show it."""
    till.ground.stop_the_clock()
    before = till.facts(row)
    held = collateral(till, row)
    receipt = till.liquidate(row, everything(till.ground, row))
    after = till.facts(row)
    lost = {asset: amount - collateral(till, row)[asset] for asset, amount in held.items()}
    if isinstance(till, AaveTill):
        told = till.shown(row, receipt, before, after)
        return receipt["transactionHash"], int(told["repaid_raw"]), {row["collateral_asset"]: int(told["received_raw"])}
    if isinstance(till, CompoundV2Till):
        told = till.shown(row, receipt, before, after)
        seized = {row["collateral_market"]: before["held"] - after["held"]}
        return receipt["transactionHash"], int(told["repaid_raw"]), seized
    if isinstance(till, CometTill):
        credited = till.call(till.devnet.comet, "balanceOf(address)(uint256)", [row["account"]])
        (log,) = event(receipt, SIGNATURES["compound-v3"][0])
        paid, _ = words(log)  # what is credited is rounded down once more
        assert paid - (before["owed"] + credited) in (0, int(credited > 0))
        return receipt["transactionHash"], paid, {a: n for a, n in lost.items() if n}
    repaid = -(-(before["art"] - after["art"]) * before["rate"] // maker.RAY)
    return receipt["transactionHash"], repaid, lost


def collateral(till: Till, row: Row) -> dict[str, int]:
    """What the account has of each collateral asset, where one call takes more than that of the row."""
    if isinstance(till, CometTill):
        ask = "collateralBalanceOf(address,address)(uint128)"
        return {a: till.call(till.devnet.comet, ask, [row["account"], a]) for a in till.devnet.tokens.values()}
    if isinstance(till, CatTill):
        ink = till.devnet.position(row["position_group"], row["account"]).ink
        return {row["collateral_asset"]: ink // 10 ** (18 - row["seized_digits"])}
    return {}


def with_digits(ground: Ground, row: dict[str, Any]) -> Row:
    digits = ground.devnet.sender.call(row["collateral_asset"], "decimals()(uint8)") if row["position_group"] else 18
    return {**row, "seized_digits": digits}


def liquidated(ground: Ground, folder: Path, most: int = 4) -> dict[str, tuple[Row, int, dict[str, int]]]:
    """Several liquidations for good, after a sync: by transaction the row of `opportunities`, repaid, and seized."""
    sink(ground, 70)
    till = till_of(ground)
    made: dict[str, tuple[Row, int, dict[str, int]]] = {}
    for row in listed(ground, folder):
        if row["refused"] is None and len(made) < most:
            try:
                transaction, repaid, seized = changed(till, with_digits(ground, row))
            except REFUSALS:
                continue
            made[transaction] = row, repaid, seized
    assert len(made) >= 2
    return made


def debt_asset(ground: Ground, row: Row) -> str:
    return ground.devnet.contracts["MCD_DAI"] if isinstance(ground, MakerGround) else row["debt_asset"]  # type: ignore[no-any-return]


def test_followed_liquidations_are_what_the_balances_show(ground: Ground, tmp_path: Path) -> None:
    made = liquidated(ground, tmp_path)
    run(tmp_path, "sync", "--chain", "devnet", "--accounts", "all")
    rows = shown(tmp_path)
    assert {row["transaction_hash"] for row in rows} == made.keys()
    for transaction, (one, repaid, seized) in made.items():
        mine = [row for row in rows if row["transaction_hash"] == transaction]
        assert {(row["account"], row["position_group"]) for row in mine} == {(one["account"], one["position_group"])}
        assert {row["debt_asset"]: int(row["repaid_raw"]) for row in mine if row["debt_asset"]} == {
            debt_asset(ground, one): repaid
        }
        assert {r["collateral_asset"]: int(r["seized_raw"]) for r in mine if r["collateral_asset"]} == seized
        by = None if ground.devnet.protocol == "maker" else till_of(ground).payer
        assert {row["liquidator"] for row in mine} == {by}
        assert {row["chain"] for row in mine} == {"devnet"}
        if one["paid_usd"] and one["repaid_raw"] == str(repaid):
            assert sum(row["repaid_usd"] or 0 for row in mine) == pytest.approx(one["paid_usd"], rel=1e-9)


def test_a_back_fill_finds_every_log_and_says_so(ground: Ground, tmp_path: Path) -> None:
    """Those of the market's whole history, by all logs that the node has; a file that followed has the same rows."""
    liquidated(ground, tmp_path)
    run(tmp_path, "sync", "--chain", "devnet")
    run(tmp_path, "sync", "--chain", "devnet", db="late.db")
    late, followed = tmp_path / "late.db", tmp_path / "indexer.db"
    assert raw(late, "select * from liquidations") == []
    assert raw(late, "select liquidations_from_block from deployments") == [(None,)]
    run(tmp_path, "sync", "--chain", "devnet", "--liquidations", db="late.db")
    logs = [log for signature in SIGNATURES[ground.devnet.protocol] for log in logs_of(ground.devnet, topic(signature))]
    expected = {(log["blockHash"], int(log["logIndex"], 16)) for log in logs}
    assert set(raw(late, "select block_hash, log_index from liquidations")) == expected
    assert len(expected) > 2
    assert raw(late, "select liquidations_from_block from deployments") == [(ground.devnet.start_block,)]
    ((first,),) = raw(followed, "select liquidations_from_block from deployments")
    both = f"select {EXACT} from liquidations where block_number >= {first} order by block_number, log_index"
    assert raw(followed, both) == raw(late, both)
    assert raw(followed, both)


def test_lists_are_narrowed_and_sorted(populated_aave_v3_6: AaveV3, tmp_path: Path) -> None:
    with populated_aave_v3_6.rewound():
        ground = ground_of(populated_aave_v3_6)
        liquidated(ground, tmp_path)
        run(tmp_path, "sync", "--chain", "devnet")
        ground.connection.chain.close()
    rows = shown(tmp_path)
    places = [(row["block_number"], row["log_index"]) for row in rows]
    assert places == sorted(places, reverse=True)
    whose = rows[1]["account"]
    assert shown(tmp_path, "--wallet", whose) == [row for row in rows if row["account"] == whose]
    assert shown(tmp_path, "--limit", "1") == rows[:1]
    largest = shown(tmp_path, "--sort", "repaid")
    assert [row["repaid_usd"] for row in largest] == sorted((row["repaid_usd"] for row in rows), reverse=True)
    block = rows[1]["block_number"]
    assert shown(tmp_path, "--since", str(block), "--until", str(block)) == [
        row for row in rows if row["block_number"] == block
    ]
    assert shown(tmp_path, "--protocol", "maker") == []
    assert "liquidations --since 400d" in run(tmp_path, "liquidations").stderr


@pytest.mark.disturbed
def test_log_indexes_count_through_the_block_whatever_the_node_counts_by(
    populated_aave_v3_6: AaveV3, tmp_path: Path
) -> None:
    """The liquidations of a block in several transactions, from a node that counts anew in each of them."""
    with populated_aave_v3_6.rewound():
        ground = ground_of(populated_aave_v3_6)
        node, devnet = ground.node, populated_aave_v3_6
        sink(ground, 70)
        till = till_of(ground)
        rows = [row for row in listed(ground, tmp_path) if row["refused"] is None][:3]
        call = "liquidationCall(address,address,address,uint256,bool)"
        for row in rows:
            args = [row["collateral_asset"], row["debt_asset"], row["account"], 2**256 - 1, False]
            transaction = {"from": till.payer, "to": ground.pool, "data": calldata(call, args), "gas": hex(3_000_000)}  # type: ignore[attr-defined]
            node.rpc("eth_sendTransaction", transaction)
        node.rpc("evm_mine")
        logs = logs_of(devnet, topic(AAVE))
        head = node.block_number()
        expected = sorted(int(log["logIndex"], 16) for log in logs if int(log["blockNumber"], 16) == head)
        assert len(expected) >= 2
        with FaultyNode(node.url, faults={"log-index-per-transaction": 1}) as faulty:
            config = tmp_path / "indexer.toml"
            config.write_text(config_toml(CHAIN_ID, faulty.url, [devnet]))
            run(tmp_path, "sync", "--chain", "devnet")
            assert faulty.injected["log-index-per-transaction"]
        found = raw(tmp_path / "indexer.db", f"select log_index from liquidations where block_number = {head}")
        assert sorted(index for (index,) in found) == expected
        ground.connection.chain.close()


def test_rows_of_orphaned_blocks_go(aave_v3_6: AaveV3, tmp_path: Path) -> None:
    ground = ground_of(aave_v3_6)
    sink(ground, 70)
    till = till_of(ground)
    rows = [row for row in listed(ground, tmp_path) if row["refused"] is None]
    before = ground.node.snapshot()
    changed(till, with_digits(ground, rows[0]))
    run(tmp_path, "sync", "--chain", "devnet")
    assert [row["account"] for row in shown(tmp_path)] == [rows[0]["account"]]
    ground.node.revert(before)
    changed(till, with_digits(ground, rows[1]))
    ground.node.mine(3)
    run(tmp_path, "sync", "--chain", "devnet")
    assert [row["account"] for row in shown(tmp_path)] == [rows[1]["account"]]
    ground.connection.chain.close()


def test_a_back_fill_that_is_cut_off_goes_on(
    aave_v3_6: AaveV3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was fetched when it died stays, the newest part first; the next run asks for the rest alone."""
    (tmp_path / "indexer.toml").write_text(config_toml(CHAIN_ID, aave_v3_6.node.url, [aave_v3_6]))
    path, start, asked = tmp_path / "indexer.db", aave_v3_6.start_block, list[tuple[int, int]]()
    real, most = liquidated_logs.fetch, 3

    def fetch(chain: Chain, first: int, last: int, *wanted: Any) -> Iterator[Chunk]:
        if len(asked) == most:
            raise KeyboardInterrupt
        asked.append((first, last))
        return real(chain, first, last, *wanted)

    monkeypatch.setattr(liquidated_logs, "fetch", fetch)
    monkeypatch.setattr(liquidated_logs, "PIECE", 10)
    words = ["--config", str(tmp_path / "indexer.toml"), "--db", str(path), "sync", "--chain", "devnet"]
    assert CliRunner().invoke(main, [*words, "--liquidations"]).exit_code == 130
    ((reached,),) = raw(path, "select liquidations_from_block from deployments")
    assert reached == asked[-1][0] > start
    assert all(later < earlier for (earlier, _), (_, later) in pairwise(asked))
    done, most = len(asked), 10**6
    run(tmp_path, "sync", "--chain", "devnet", "--liquidations")
    assert max(last for _, last in asked[done:]) == reached - 1
    assert raw(path, "select liquidations_from_block from deployments") == [(start,)]
    assert raw(path, "select count(*) from synced_ranges where source = 'liquidations'") == [(1,)]
    run(tmp_path, "sync", "--chain", "devnet", "--liquidations", db="again.db")
    both = f"select {EXACT} from liquidations order by block_number, log_index"
    assert raw(path, both) == raw(tmp_path / "again.db", both)
    assert raw(path, both)


def test_the_first_block_since_a_time(aave_v3_6: AaveV3) -> None:
    node = aave_v3_6.node
    chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)
    last = chain.block("latest")
    times = {number: int(node.block(number)["timestamp"], 16) for number in (1, last.number // 2, last.number)}
    for number, time in times.items():
        first = first_block_since(chain, time, last)
        assert int(node.block(first)["timestamp"], 16) == time
        assert first == 0 or int(node.block(first - 1)["timestamp"], 16) < time
        assert first <= number
    assert first_block_since(chain, last.timestamp + 1, last) == last.number + 1
    assert first_block_since(chain, 0, last) == 0
    chain.close()
