"""The devnet is what it says: reproducible, safe to share, and with every situation in its markets."""

import multiprocessing
import os
import signal
import subprocess
import sys
import tarfile
import time
import tomllib
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from eth_utils.crypto import keccak

from tests.devnet import aave_v3, packages
from tests.devnet.aave_v3 import STABLE_MODE, AaveV3, Listing
from tests.devnet.node import MULTICALL3, Anvil, Connections, RpcError
from tests.devnet.packages import PackageError, cached, check_version
from tests.devnet.scenario import config_toml
from tests.devnet.send import PANIC, Reverted, Sender, account, calldata, signature

WAD = 10**18
NO_DEBT = 2**256 - 1
ROOT = Path(__file__).resolve().parents[2]
BORROW = "0x" + keccak(text="Borrow(address,address,address,uint256,uint8,uint256,uint16)").hex()
TRANSFER = "0x" + keccak(text="Transfer(address,address,uint256)").hex()
ZERO = "0x" + "00" * 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LENDING_DEVNET_CACHE", str(tmp_path))
    return tmp_path


def test_an_interrupted_build_leaves_nothing_in_the_cache(cache: Path) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("npm/thing@1", interrupted)
    assert list((cache / "npm").iterdir()) == []


def build_slowly(folder: Path) -> None:
    with (packages.cache_folder() / "builds").open("a") as log:
        log.write("built\n")
    time.sleep(0.3)
    (folder / "whole").write_text("x")


def build_in_another_process(start: Barrier) -> None:
    start.wait(timeout=60)
    cached("npm/thing@1", build_slowly)


@pytest.mark.slow
def test_two_processes_build_an_entry_once(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(2)
    processes = [context.Process(target=build_in_another_process, args=(start,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (cache / "builds").read_text() == "built\n"
    assert (cache / "npm" / "thing@1" / "whole").exists()


def test_a_package_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "thing", "version": "1.0.1"}')
    with pytest.raises(PackageError, match=r"thing@1\.0\.1, not thing@1\.0\.0"):
        check_version(tmp_path, "thing", "1.0.0")


def test_a_package_is_unpacked_by_a_python_without_extraction_filters(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They came with Python 3.11.4; some distributions still have an older 3.11."""

    def pack(*arguments: str, cwd: Path) -> str:
        (cwd / "package.json").write_text('{"name": "thing", "version": "1.0.0"}')
        with tarfile.open(cwd / "thing-1.0.0.tgz", "w:gz") as archive:
            archive.add(cwd / "package.json", "package/package.json")
        return "thing-1.0.0.tgz\n"

    def extractall(self: tarfile.TarFile, path: Path = Path(), members: object = None) -> None:
        for member in self.getmembers():
            self.extract(member, path)

    monkeypatch.setattr(packages, "npm", pack)
    monkeypatch.setattr(tarfile.TarFile, "extractall", extractall)
    monkeypatch.delattr(tarfile, "data_filter", raising=False)
    assert (packages.package("thing", "1.0.0") / "package.json").is_file()


def test_signatures_keep_nested_tuples_whole() -> None:
    parsed = signature("f((uint256,address)[],bytes32)(uint256,(bool,string))")
    assert parsed.inputs == ["(uint256,address)[]", "bytes32"]
    assert parsed.outputs == ["uint256", "(bool,string)"]
    assert signature("transfer(address,uint256)").selector.hex() == "a9059cbb"


def test_blocks_have_the_timestamps_they_are_given(fresh_node: Anvil) -> None:
    start = fresh_node.timestamp()
    fresh_node.mine(3, interval=12)
    assert fresh_node.timestamp() == start + 36
    fresh_node.elapse(1000)
    fresh_node.mine()
    assert fresh_node.timestamp() == start + 1037


def test_calls_see_the_block_they_ask_for(fresh_node: Anvil) -> None:
    sender = Sender(fresh_node)
    fresh_node.mine(5, interval=12)
    for block in (3, 5):
        seen = sender.call(MULTICALL3, "getCurrentBlockTimestamp()(uint256)", block=block)
        assert seen == fresh_node.timestamp(block)
    assert sender.call(MULTICALL3, "getCurrentBlockTimestamp()(uint256)") == fresh_node.timestamp()


def test_revert_goes_back_to_the_snapshot(fresh_node: Anvil) -> None:
    fresh_node.mine(2)
    before = fresh_node.block()["hash"]
    snapshot = fresh_node.snapshot()
    fresh_node.mine(4)
    fresh_node.revert(snapshot)
    assert fresh_node.block()["hash"] == before
    with pytest.raises((RpcError, RuntimeError)):
        fresh_node.revert(snapshot)


def test_a_reorg_with_a_transaction_replaces_blocks(fresh_node: Anvil) -> None:
    fresh_node.mine(10)
    old = [fresh_node.block(number)["hash"] for number in range(6, 11)]
    Sender(fresh_node).fund(account("somebody"))
    fresh_node.reorg(3, [({"from": account("somebody"), "to": MULTICALL3, "gas": "0x10000", "gasPrice": "0x1"}, 0)])
    new = [fresh_node.block(number)["hash"] for number in range(6, 11)]
    assert fresh_node.block_number() == 10
    assert [a == b for a, b in zip(old, new, strict=True)] == [True, True, False, False, False]


def test_a_dumped_state_loads_with_its_logs(fresh_node: Anvil, tmp_path: Path) -> None:
    sender = Sender(fresh_node)
    token = sender.deploy(aave_v3.common_contracts()["Token"], ["Test", "TST", 6])
    sender.send(token, "mint(address,uint256)", [account("holder"), 123])
    fresh_node.dump_state(tmp_path / "state")
    with Anvil(load_state=tmp_path / "state") as loaded:
        assert Sender(loaded).call(token, "balanceOf(address)(uint256)", [account("holder")]) == 123
        logs = loaded.rpc("eth_getLogs", {"address": token, "fromBlock": "0x0", "toBlock": "latest"})
        assert [log["topics"][0] for log in logs] == [TRANSFER]


def test_errors_of_the_node_are_raised(fresh_node: Anvil) -> None:
    with pytest.raises(RpcError, match="eth_noSuchMethod"):
        fresh_node.rpc("eth_noSuchMethod")
    with pytest.raises(RpcError, match="eth_noSuchMethod"):
        fresh_node.batch([("eth_chainId", []), ("eth_noSuchMethod", [])])


def test_the_node_dies_with_a_killed_parent_and_leaves_no_states(needs_node: None, tmp_path: Path) -> None:
    script = (
        "import os, signal\n"
        "from tests.devnet.node import Anvil\n"
        "node = Anvil()\n"
        "node.start()\n"
        "node.batch([('evm_mine', [])] * 600)\n"
        "print(node.port, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    orphan = Connections("127.0.0.1", int(done.stdout))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            orphan.post({"jsonrpc": "2.0", "id": 0, "method": "eth_blockNumber", "params": []})
        except ConnectionError:
            if not list(tmp_path.iterdir()):
                return
        time.sleep(0.05)
    pytest.fail("the node or its states outlived its parent")


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads the limit from /proc")
def test_the_nodes_memory_is_capped(needs_node: None) -> None:
    with Anvil(memory_limit=3 * 2**30) as node:
        assert node.process is not None
        children = Path(f"/proc/{node.process.pid}/task/{node.process.pid}/children").read_text().split()
        limits = [Path(f"/proc/{child}/limits").read_text() for child in children]
    assert limits
    assert all(f"{3 * 2**30}" in text.split("Max address space")[1].splitlines()[0] for text in limits)


def test_revert_reasons_are_decoded(fresh_node: Anvil) -> None:
    sender = Sender(fresh_node)
    token = sender.deploy(aave_v3.common_contracts()["Token"], ["Test", "TST", 6])
    with pytest.raises(Reverted, match="balance too low") as caught:
        sender.send(token, "transfer(address,uint256)", [account("a"), 1])
    assert caught.value.reason == "balance too low"
    sender.send(token, "mint(address,uint256)", [account("a"), 2**256 - 1])
    with pytest.raises(Reverted, match=r"Panic\(17\)"):
        sender.call(token, "mint(address,uint256)", [account("a"), 1])
    assert not sender.try_send(token, "transfer(address,uint256)", [account("a"), 1])
    assert PANIC == "Panic(uint256)"


def test_bulk_answers_for_every_transaction_in_order(fresh_node: Anvil) -> None:
    sender = Sender(fresh_node)
    token = sender.deploy(aave_v3.common_contracts()["Token"], ["Test", "TST", 6])
    holders = [account(f"holder {i}") for i in range(25)]
    minting = [(sender.default, token, calldata("mint(address,uint256)", [who, 5])) for who in holders]
    spending = [
        (who, token, calldata("transfer(address,uint256)", [account("sink"), 4 + i % 3]))
        for i, who in enumerate(holders)
    ]
    start = fresh_node.block_number()
    done = sender.bulk(minting + spending, per_block=10, interval=12)
    assert done == [True] * 25 + [i % 3 != 2 for i in range(25)]
    assert fresh_node.block_number() == start + 5
    assert fresh_node.timestamp() == fresh_node.timestamp(start) + 60


def history(seed: int, version: str) -> str:
    """The head's hash after a small history."""
    with Anvil() as node:
        market = aave_v3.deploy(node, version)
        market.populate(seed, users=30)
        market.step(seed)
        return str(node.block()["hash"])


@pytest.mark.parametrize("version", ["3.0.2", "3.6"])
def test_the_seed_decides_the_chain(needs_node: None, version: str) -> None:
    first = history(7, version)
    assert history(7, version) == first
    assert history(8, version) != first


@pytest.fixture(scope="module", params=[("3.0.2", 1), ("3.0.2", 2), ("3.6", 1), ("3.6", 2)], ids=str)
def market(needs_node: None, request: pytest.FixtureRequest) -> Iterator[AaveV3]:
    version, seed = request.param
    with Anvil() as node:
        node.place_multicall3()
        market = aave_v3.deploy(node, version)
        market.populate(seed, users=100)
        yield market


def health(market: AaveV3, name: str) -> float:
    return market.answer(market.cast[name])[5] / WAD


def test_every_kind_of_health_is_there(market: AaveV3) -> None:
    answers = market.answers(market.users)
    factors = [answer[5] for answer in answers if answer[1] > 0]
    assert sum(factor < WAD for factor in factors) >= 2
    assert sum(WAD <= factor < WAD * 11 // 10 for factor in factors) >= 2
    assert sum(factor >= WAD * 11 // 10 for factor in factors) >= 20
    assert sum(answer[0] > 0 and answer[1] == 0 for answer in answers) >= 10
    assert health(market, "under-water") < 1
    assert 1 <= health(market, "near-liquidation") < 1.1


def test_who_ever_borrowed_is_written_down(market: AaveV3) -> None:
    logs = market.node.rpc(
        "eth_getLogs",
        {"address": market.contracts.pool, "fromBlock": "0x0", "toBlock": "latest", "topics": [BORROW]},
    )
    assert {"0x" + log["topics"][2][-40:] for log in logs} == market.borrowers


def test_everybody_who_ever_held_a_token_is_written_down(market: AaveV3) -> None:
    tokens = [
        token
        for r in market.reserves.values()
        for token in (r.a_token, r.variable_debt, r.stable_debt)
        if token != ZERO
    ]
    logs = market.node.rpc(
        "eth_getLogs", {"address": tokens, "fromBlock": "0x0", "toBlock": "latest", "topics": [TRANSFER]}
    )
    holders = {"0x" + topic[-40:] for log in logs for topic in log["topics"][1:]} - {ZERO}
    assert holders <= set(market.users)
    assert len(market.users) == len(set(market.users))


def test_modes_and_flags_are_there(market: AaveV3) -> None:
    def mode(name: str) -> int:
        return int(market.sender.call(market.contracts.pool, "getUserEMode(address)(uint256)", [market.cast[name]]))

    assert [mode(name) for name in ("e-mode-eth", "e-mode-mixed", "e-mode-stable", "e-mode-left")] == [1, 1, 2, 0]
    assert market.answer(market.cast["collateral-off"])[0] == 0
    assert market.user_reserves(market.cast["collateral-off"])["USDC"][0] > 0
    without_threshold = market.user_reserves(market.cast["e-mode-lt-zero"])["USDT"]
    assert without_threshold[0] > 0
    assert not without_threshold[8]
    mixed = market.answer(market.cast["e-mode-mixed"])
    own = {symbol: market.reserves[symbol].listing.liquidation_threshold for symbol in ("WBTC", "WETH")}
    assert own["WBTC"] < mixed[3] < market.emodes[1].liquidation_threshold
    assert {r.listing.decimals for r in market.reserves.values()} == {6, 8, 18}


def test_a_price_source_replaces_prices_in_its_mode_only_in_3_0(market: AaveV3) -> None:
    who = market.cast["e-mode-stable"]
    balance = market.user_reserves(who)["USDC"][0]
    at_own_price = balance * market.price("USDC") // 10**6
    if market.revision == 1:
        assert market.emodes[STABLE_MODE].price_source == "EUSD"
        assert market.answer(who)[0] == balance * market.price("EUSD") // 10**6 != at_own_price
    else:
        assert market.answer(who)[0] == at_own_price


def test_debts_of_every_kind_are_there(market: AaveV3) -> None:
    debts = {name: market.user_reserves(who) for name, who in market.cast.items()}
    assert debts["delegator"]["USDC"][2] > 0
    assert market.answer(market.cast["delegatee"])[1] == 0
    assert debts["flash-borrower"]["USDC"][2] > 0
    # One wei of debt: 3.6 rounds what is owed up.
    assert debts["dust-debt"]["DAI"][2] == (1 if market.revision == 1 else 2)
    if market.stable_rates:
        assert (debts["stable-only"]["DAI"][1] > 0, debts["stable-only"]["DAI"][2]) == (True, 0)
        assert min(debts["both-rates"]["USDC"][1:3]) > 0
    for name in ("repaid", "emptied"):
        assert market.cast[name] in market.borrowers
        assert market.answer(market.cast[name])[5] == NO_DEBT


def test_liquidations_of_both_kinds_happened(market: AaveV3) -> None:
    logs = market.node.rpc(
        "eth_getLogs",
        {
            "address": market.contracts.pool, "fromBlock": "0x0", "toBlock": "latest",
            "topics": ["0x" + keccak(text="LiquidationCall(address,address,address,uint256,uint256,address,bool)").hex()],
        },
    )  # fmt: skip
    assert {"0x" + log["topics"][3][-40:] for log in logs} == market.liquidated
    assert {int(log["data"][-64:], 16) for log in logs} == {0, 1}
    assert market.user_reserves(market.liquidator)["WETH"][0] > 0
    assert market.user_reserves(market.treasury)["WETH"][0] > 0


def test_bad_debt_stays_in_3_0_and_becomes_a_deficit_in_3_6(market: AaveV3) -> None:
    answer = market.answer(market.cast["bad-debt"])
    if market.revision == 1:
        assert answer[1] > 0
        assert answer[5] == 0
    else:
        assert answer[1] == 0
        assert market.cast["bad-debt"] in market.borrowers


def test_a_mode_only_collateral_counts_in_3_6(market: AaveV3) -> None:
    if market.revision == 1:
        assert "e-mode-susde" not in market.cast
        return
    assert market.reserves["sUSDe"].listing.liquidation_threshold == 0
    assert market.answer(market.cast["e-mode-susde"])[3] == 9100
    assert market.answer(market.cast["e-mode-shrunk"])[3] < 9000


def test_a_step_leaves_most_accounts_alone(any_aave_v3: AaveV3) -> None:
    market = any_aave_v3
    nonces = [("eth_getTransactionCount", [who, "latest"]) for who in market.users]
    before, block = market.node.batch(nonces), market.node.block_number()
    market.step(5)
    after = market.node.batch(nonces)
    acted = sum(a != b for a, b in zip(before, after, strict=True))
    assert 0 < acted < len(before) // 3
    assert market.node.block_number() > block


def test_what_a_test_does_is_undone(any_aave_v3: AaveV3) -> None:
    market = any_aave_v3
    head, users, borrowers = market.node.block()["hash"], list(market.users), set(market.borrowers)
    with market.rewound():
        market.step(1)
        market.add_reserve(Listing("NEW", 18, 10**8, 5000, 6000, 10500))
    assert market.node.block()["hash"] == head
    assert (market.users, market.borrowers) == (users, borrowers)
    assert "NEW" not in market.reserves
    market.step(1)


def test_an_upgrade_changes_only_the_revision(any_aave_v3: AaveV3) -> None:
    market = any_aave_v3
    before = market.node.block_number()
    market.upgrade_pool(99)
    assert market.sender.call(market.contracts.pool, "POOL_REVISION()(uint256)") == 99
    assert market.sender.call(market.contracts.pool, "POOL_REVISION()(uint256)", block=before) in {1, 10}
    ours = market.answer(market.cast["under-water"])
    assert 0 < ours[5] < WAD


def test_administrators_acts_reach_the_contracts(any_aave_v3: AaveV3) -> None:
    market, send = any_aave_v3, any_aave_v3.sender
    weth = market.reserves["WETH"].asset
    supply = ("supply(address,uint256,address,uint16)", [weth, 10**18, account("late"), 0])
    market.pause("WETH")
    assert not send.try_send(market.contracts.pool, *supply, sender=account("late"))
    market.pause("WETH", paused=False)
    market.freeze("WETH")
    assert not send.try_send(market.contracts.pool, *supply, sender=account("late"))
    market.freeze("WETH", frozen=False)
    assert send.try_send(market.contracts.pool, *supply, sender=account("late"))
    market.replace_feed("WETH", 1234 * 10**8)
    assert send.call(market.contracts.oracle, "getAssetPrice(address)(uint256)", [weth]) == 1234 * 10**8
    market.move_price("WETH", 0.5)
    assert market.price("WETH") == 617 * 10**8
    added = market.add_reserve(Listing("NEW", 8, 5 * 10**8, 5000, 6000, 10500))
    market.add_emode(aave_v3.EMode(9, "New", 9000, 9200, 10100, ("NEW",), ("NEW",)))
    who = account("mode nine")
    send.send(market.contracts.pool, supply[0], [added.asset, 10**8, who, 0], sender=who)
    send.send(market.contracts.pool, "setUserEMode(uint8)", [9], sender=who)
    assert market.answer(who)[:5] == (5 * 10**8, 0, 5 * 10**8 * 9 // 10, 9200, 9000)


def test_a_grace_period_keeps_liquidators_away(aave_v3_6: AaveV3) -> None:
    assert isinstance(aave_v3_6, aave_v3.AaveV36)
    aave_v3_6.grant_grace("WETH", 3600)
    assert not aave_v3_6.liquidate(aave_v3_6.cast["under-water"])
    aave_v3_6.node.elapse(3601)
    assert aave_v3_6.liquidate(aave_v3_6.cast["under-water"])


@pytest.mark.parametrize("users", [0, 1, 25])
def test_a_market_can_be_nearly_empty(needs_node: None, users: int) -> None:
    with Anvil() as node:
        market = aave_v3.deploy(node, "3.6")
        market.populate(3, users)
        for seed in range(3):
            market.step(seed)
        assert len(market.borrowers) > 10


def test_the_configuration_names_every_market(aave_v3_0: AaveV3, populated_aave_v3_6: AaveV3) -> None:
    parsed = tomllib.loads(config_toml(1337, aave_v3_0.node.url, [aave_v3_0, populated_aave_v3_6]))
    assert parsed["chains"]["devnet"]["rpc"] == [aave_v3_0.node.url]
    assert parsed["deployments"]["aave-v3-0-devnet"] == {
        "protocol": "aave-v3", "chain": "devnet", "start_block": aave_v3_0.start_block,
        "addresses": {"pool_addresses_provider": aave_v3_0.contracts.provider},
    }  # fmt: skip
    assert set(parsed["deployments"]) == {"aave-v3-0-devnet", "aave-v3-6-devnet"}


def boot_and_interrupt(config: Path, *options: str) -> tuple[list[str], str]:
    """Run the demo until it says it is ready, interrupt it; the deployments of its configuration and its progress."""
    command = [sys.executable, "-m", "tests.devnet", "--port", "0", "--config", str(config), *options]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        first = demo.stdout.readline()
        os.kill(demo.pid, signal.SIGINT)
        _, progress = demo.communicate(timeout=60)
    assert "node at http://127.0.0.1:" in first, progress
    assert demo.returncode == 0, progress
    return list(tomllib.loads(config.read_text())["deployments"]), progress


def test_the_demo_boots_and_ends_on_ctrl_c(needs_node: None, tmp_path: Path) -> None:
    options = ("--users", "30", "--market", "aave-v3-0", "--market", "compound-v3")
    deployments, progress = boot_and_interrupt(tmp_path / "devnet.toml", *options)
    assert deployments == ["aave-v3-0-devnet", "compound-v3-usdc"]
    assert progress.count("borrowers") == 2


@pytest.mark.long
def test_the_demo_boots_every_market(needs_node: None, tmp_path: Path) -> None:
    deployments, _ = boot_and_interrupt(tmp_path / "devnet.toml")
    assert len(deployments) == 6
