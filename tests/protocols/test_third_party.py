"""Protocols from packages of somebody else: installed with pip, synced, verified, listed, and judged by what they can."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from indexer.model import WAD
from tests.devnet.contracts import compile_contracts
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.send import Sender, account

PACKAGES = Path(__file__).parents[1] / "third_party"
PAGE = Path(__file__).parents[2] / "docs" / "protocol-author.md"
CENTS = 10**6  # of a dollar with 8 decimals


def compiled(package: str, source: str) -> dict[str, Any]:
    text = (PACKAGES / package / source).read_text()
    settings = {"optimizer": {"enabled": True}, "evmVersion": "paris"}
    return compile_contracts("0.8.27", {source: {"content": text}}, settings)


class Installed:
    """Both packages in a folder of their own, two shops on the node, and the command line that sees them."""

    def __init__(self, node: Anvil, folder: Path) -> None:
        self.node, self.folder, self.sender = node, folder, Sender(node)
        pawnshop, lombard = compiled("pawnshop", "Pawnshop.sol"), compiled("lombard", "Lombard.sol")
        self.shop = self.sender.deploy(pawnshop["Pawnshop"])
        self.lombard = self.sender.deploy(lombard["Lombard"])
        self.feed = self.sender.deploy(lombard["Feed"], [2000 * 10**8])
        self.sender.send(self.lombard, "setFeed(address)", [self.feed])
        owners = {account("safe"): 500, account("near"): 950, account("lost"): 1100, account("gone"): 10}
        self.sender.fund(*owners)
        for owner, dollars in owners.items():
            self.sender.send(self.shop, "pawn(uint256)", [dollars * WAD], sender=owner, value=WAD)
            self.sender.send(self.lombard, "open(uint256)", [dollars * WAD], sender=owner, value=WAD)
        self.numbers = {owner: number for number, owner in enumerate(owners, 1)}
        self.sender.send(self.shop, "redeem(uint256)", [10 * WAD], sender=account("gone"))
        self.install()

    def install(self) -> None:
        site = self.folder / "site"
        for name in ("pawnshop", "lombard"):
            copy = self.folder / name  # the build writes beside the sources
            shutil.copytree(PACKAGES / name, copy)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
            subprocess.run([*pip, "--target", str(site), str(copy)], check=True, stdout=subprocess.DEVNULL)
        self.environment = {**os.environ, "PYTHONPATH": str(site)}
        (self.folder / "indexer.toml").write_text(
            f'[chains.devnet]\nchain_id = {CHAIN_ID}\nrpc = ["{self.node.url}"]\n'
            '[deployments.corner-shop]\nprotocol = "pawnshop"\nchain = "devnet"\nstart_block = 0\n'
            f'addresses = {{ shop = "{self.shop}" }}\n'
            '[deployments.lombard-street]\nprotocol = "lombard"\nchain = "devnet"\nstart_block = 0\n'
            f'addresses = {{ lombard = "{self.lombard}" }}\n'
        )

    def run(self, *arguments: str) -> tuple[str, str]:
        done = subprocess.run(
            [Path(sys.executable).parent / "indexer", *arguments], cwd=self.folder, check=False, capture_output=True,
            text=True, env=self.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.run(*arguments, "--json")[0])
        return found

    def sync(self) -> None:
        self.run("sync", "--chain", "devnet")
        assert [row["differ"] for row in self.rows("verify", "--chain", "devnet", "--all")] == [0, 0]

    def health(self, owner: str) -> int:
        """Lombard's own answer, behind a poke."""
        return int(self.sender.call(self.lombard, "health(uint256)(uint256)", [self.numbers[owner]]))

    def poked_health(self, owner: str, price: int) -> int:
        """The same at another price, everything as it was afterwards."""
        kept = self.node.snapshot()
        self.sender.send(self.feed, "set(uint256)", [price])
        self.sender.send(self.lombard, "poke()", [])
        found = self.health(owner)
        self.node.revert(kept)
        return found


@pytest.fixture
def installed(fresh_node: Anvil, tmp_path: Path) -> Installed:
    return Installed(fresh_node, tmp_path)


def test_installed_packages_add_protocols(installed: Installed) -> None:
    installed.sync()
    risky = installed.rows("at-risk", "--protocol", "pawnshop")
    assert [row["account"] for row in risky] == [account("lost"), account("near")]
    for row in risky:
        health = installed.sender.call(installed.shop, "health(address)(uint256)", [row["account"]])
        assert row["health_factor_raw"] == str(health)
    for row in installed.rows("at-risk", "--protocol", "lombard"):
        assert row["health_factor_raw"] == str(installed.health(row["account"]))
    installed.sender.send(installed.shop, "setPrice(uint256)", [1])
    installed.sender.send(installed.feed, "set(uint256)", [10**8])
    installed.sync()
    assert len(installed.rows("at-risk", "--protocol", "pawnshop")) == 3, (
        "the price moved for those who did nothing too"
    )
    assert len(installed.rows("at-risk", "--protocol", "lombard")) == 4


def test_who_only_tells_health_is_left_out_with_a_word(installed: Installed) -> None:
    installed.sync()
    shock = ("simulate", "--shock", "ETH=-10%")
    out, words = installed.run(*shock, "--json")
    assert "corner-shop (pawnshop) is left out" in words
    assert {row["deployment"] for row in json.loads(out)} == {"lombard-street"}
    out, words = installed.run(*shock, "--deployment", "corner-shop", "--json")
    assert "corner-shop (pawnshop) is left out" in words
    assert json.loads(out) == []
    for live in ((), ("--live", "--chain", "devnet")):
        out, words = installed.run("show", account("near"), *live, "--json")
        assert "corner-shop" in words
        known = {row["deployment"]: row["outlook"] is not None for row in json.loads(out)}
        assert known == {"corner-shop": False, "lombard-street": True}
    out, _ = installed.run("report", "book")
    assert "corner-shop (pawnshop)" in out


def test_every_capability_answers_as_the_contract_does(installed: Installed) -> None:
    installed.sync()
    fallen = installed.rows("simulate", "--shock", "ETH=-50%", "--deployment", "lombard-street")
    at_half = {owner: installed.poked_health(owner, 1000 * 10**8) for owner in installed.numbers}
    now = {owner: installed.health(owner) for owner in installed.numbers}
    assert {row["account"] for row in fallen} == {o for o, health in at_half.items() if health < WAD <= now[o]}
    assert fallen
    shown = installed.rows("show", account("near"), "--target", "2")
    (near,) = (row for row in shown if row["deployment"] == "lombard-street")
    (edge,) = near["outlook"]["liquidation_prices"]
    # the node is a few seconds of interest ahead of the snapshot: less than a cent of the price
    assert installed.poked_health(account("near"), int(edge["liquidation_price_raw"]) - CENTS) < WAD
    assert installed.poked_health(account("near"), int(edge["safe_price_raw"]) + CENTS) >= WAD
    ways = {way["act"]: int(way["amount_raw"]) for way in near["outlook"]["to_target"]}
    number = installed.numbers[account("near")]
    for act, call in (("add", "add(uint256)"), ("repay", "repay(uint256,uint256)")):
        kept, amount = installed.node.snapshot(), ways[act]
        arguments, value = ([number], amount) if act == "add" else ([number, amount + WAD // 10**6], 0)
        installed.sender.send(installed.lombard, call, arguments, sender=account("near"), value=value)
        assert abs(installed.health(account("near")) - 2 * WAD) < WAD // 10**6
        installed.node.revert(kept)
    (lost,) = (r for r in installed.rows("show", account("lost")) if r["deployment"] == "lombard-street")
    (closable,) = lost["outlook"]["closable"]
    loan = "loans(uint256)(address,uint256,uint256)"
    number = installed.numbers[account("lost")]
    _, before, _ = installed.sender.call(installed.lombard, loan, [number])
    installed.sender.send(installed.lombard, "liquidate(uint256)", [number])
    _, after, _ = installed.sender.call(installed.lombard, loan, [number])
    assert before - after == pytest.approx(int(closable["seized_raw"]), rel=1e-6)  # a block's interest


def test_the_page_for_authors_is_the_smallest_package() -> None:
    """The code blocks of the page, one after the other, are the file."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    code = (PACKAGES / "pawnshop" / "pawnshop" / "adapter.py").read_text()
    assert "\n".join(filter(str.strip, "".join(blocks).splitlines())) == "\n".join(filter(str.strip, code.splitlines()))
    (toml,) = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert toml.strip() in (PACKAGES / "pawnshop" / "pyproject.toml").read_text()


def test_the_smallest_package_writes_seven_methods() -> None:
    code = (PACKAGES / "pawnshop" / "pawnshop" / "adapter.py").read_text()
    methods = re.findall(r"^    def (\w+)\(self, (?:read|market)", code, re.MULTILINE)
    assert methods == "read_market logs touched read_positions evaluate balances contract_answers".split()
