"""A protocol from a package of somebody else: installed with pip, synced, verified, listed."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.devnet.contracts import compile_contracts
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.send import Sender, account

PACKAGE = Path(__file__).parents[1] / "third_party"


def test_an_installed_package_adds_a_protocol(fresh_node: Anvil, tmp_path: Path) -> None:
    source = {"Pawnshop.sol": {"content": (PACKAGE / "Pawnshop.sol").read_text()}}
    artifact = compile_contracts("0.8.27", source, {"optimizer": {"enabled": True}, "evmVersion": "paris"})["Pawnshop"]
    sender = Sender(fresh_node)
    shop = sender.deploy(artifact)
    owners = {account("safe"): 500, account("near"): 950, account("lost"): 1100, account("gone"): 10}
    sender.fund(*owners)
    for owner, dollars in owners.items():
        sender.send(shop, "pawn(uint256)", [dollars * 10**18], sender=owner, value=10**18)
    sender.send(shop, "redeem(uint256)", [10 * 10**18], sender=account("gone"))

    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    copy = tmp_path / "package"  # the build writes beside the sources
    subprocess.run(["cp", "-r", str(PACKAGE), str(copy)], check=True)
    subprocess.run([*pip, str(copy)], check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "indexer.toml").write_text(
        f'[chains.devnet]\nchain_id = {CHAIN_ID}\nrpc = ["{fresh_node.url}"]\n'
        '[deployments.corner-shop]\nprotocol = "pawnshop"\nchain = "devnet"\nstart_block = 0\n'
        f'addresses = {{ shop = "{shop}" }}\n'
    )

    def indexer(*arguments: str) -> str:
        done = subprocess.run(
            [Path(sys.executable).parent / "indexer", *arguments], cwd=tmp_path, check=False, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(site)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    indexer("sync", "--chain", "devnet")
    indexer("verify", "--chain", "devnet", "--all")
    risky = json.loads(indexer("at-risk", "--json"))
    assert [row["account"] for row in risky] == [account("lost"), account("near")]
    for row in risky:
        health = sender.call(shop, "health(address)(uint256)", [row["account"]])
        assert row["health_factor_raw"] == str(health)
    sender.send(shop, "setPrice(uint256)", [1])
    indexer("sync", "--chain", "devnet")
    assert len(json.loads(indexer("at-risk", "--json"))) == 3, "the price moved for those who did nothing too"
