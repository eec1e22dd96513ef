"""A balance that a node lies about: the word of storage that holds it, made up."""

from pathlib import Path

from eth_utils.crypto import keccak

from tests.devnet.scenario import Devnet
from tests.truth import raw

NOBODY = "0x" + "0" * 36 + "dead"


def call(signature: str, *words: str) -> str:
    return "0x" + keccak(text=signature).hex()[:8] + "".join(word[2:].rjust(64, "0") for word in words)


def balance_call(protocol: str, who: str, group: str, asset: str) -> str:
    """How the contract that keeps a balance is asked for it."""
    return {
        "aave-v3": call("scaledBalanceOf(address)", who),
        "aave-v2": call("scaledBalanceOf(address)", who),
        "compound-v2": call("balanceOf(address)", who),
        "compound-v3": call("collateralBalanceOf(address,address)", who, asset),
        "maker": call("urns(bytes32,address)", "0x" + group.encode().hex().ljust(64, "0"), who),
    }[protocol]


def lie_about_a_balance(market: Devnet, path: Path) -> tuple[tuple[str, str], dict[str, dict[str, str]]]:
    """Whom the lie is about, somebody who owes, and the word of storage that holds his collateral, a tenth larger.

    LookupError where nobody whom the file knows is fit for it.
    """
    node = market.node
    found = raw(
        path,
        "select b.account, b.position_group, b.asset, b.market from balances b join positions p "
        "using (chain_id, deployment, account, position_group) where b.side = 'supply' and b.amount > 0 "
        f"and b.is_collateral and p.status in ('healthy', 'at-risk') and p.deployment = '{market.name}' "
        "and (p.protocol = 'maker' or b.symbol in ('WETH', 'ETH', 'WBTC', 'COMP', 'LINK')) "
        "order by p.health_factor, b.value_usd desc limit 1",
    )
    if not found:
        raise LookupError(f"nobody owes anything in {market.name}")
    who, group, asset, contract = found[0]

    def slots(data: str) -> set[str]:
        listed = node.rpc("eth_createAccessList", {"to": contract, "data": data}, "latest")["accessList"]
        return {key for entry in listed if entry["address"].lower() == contract for key in entry["storageKeys"]}

    data = balance_call(market.protocol, who, group, asset)
    own = slots(data) - slots(balance_call(market.protocol, NOBODY, group, asset))
    true = node.rpc("eth_call", {"to": contract, "data": data}, "latest")
    for slot in sorted(own):
        word = int(node.rpc("eth_getStorageAt", contract, slot, "latest"), 16)
        amount = word & (2**128 - 1)
        words = {slot: "0x" + (word + amount // 10).to_bytes(32).hex()}
        if (
            amount
            and node.rpc("eth_call", {"to": contract, "data": data}, "latest", {contract: {"stateDiff": words}}) != true
        ):
            return (who, group), {contract: words}
    raise LookupError(f"where is the balance of {who} in {contract}?")
