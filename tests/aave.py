"""What the Aave tests share: our account of a devnet market beside the contracts' own, asked without the adapter."""

from collections.abc import Mapping, Sequence
from typing import Any

from indexer.adapter import Reader
from indexer.model import Deployment, Position
from protocols.aave_v3.adapter import AaveV3
from protocols.aave_v3.market import AaveV3Market
from protocols.aave_v3.position import AaveV3Position
from tests.compound import by_account, keys
from tests.devnet import aave_v3
from tests.devnet.send import calldata, decoded

NO_DEBT = 2**256 - 1
WAD = 10**18
REVERTED = 3  # JSON-RPC error code of an eth_call that reverts


def adapter_of(devnet: aave_v3.AaveV3) -> AaveV3:
    return AaveV3(Deployment(devnet.name, devnet.protocol, "devnet", devnet.start_block, devnet.addresses))


def snapshot(devnet: aave_v3.AaveV3, read: Reader) -> tuple[AaveV3Market, dict[str, AaveV3Position]]:
    """The market and every user's position at the reader's block."""
    adapter = adapter_of(devnet)
    market = adapter.read_market(read, None)
    positions = adapter.read_positions(read, market, keys(devnet.users))
    calibrated = adapter.fit(read, market, positions)
    assert isinstance(calibrated, AaveV3Market)
    return calibrated, by_account(positions)  # type: ignore[return-value]


def account_data(devnet: aave_v3.AaveV3, accounts: Sequence[str], block: int) -> list[tuple[int, ...] | None]:
    """`getUserAccountData` of each account, None where it reverts."""
    requests = [
        ("eth_call", [{"to": devnet.contracts.pool, "data": calldata(aave_v3.ACCOUNT_DATA, [a])}, hex(block)])
        for a in accounts
    ]
    found: list[tuple[int, ...] | None] = []
    for answer in devnet.node.batch_answers(requests):
        assert "result" in answer or answer["error"]["code"] == REVERTED, answer
        found.append(decoded(aave_v3.ACCOUNT_DATA, answer["result"]) if "result" in answer else None)
    return found


def wrong(devnet: aave_v3.AaveV3, market: AaveV3Market, positions: Mapping[str, Position]) -> list[str]:
    """Where health or balances of any user differ from the contracts at the market's block."""
    adapter, block, users = adapter_of(devnet), market.block.number, devnet.users
    tokens = [
        (token, side)
        for reserve in devnet.reserves.values()
        for token, side in ((reserve.a_token, "supply"), (reserve.variable_debt, "debt"), (reserve.stable_debt, "debt"))
        if token != aave_v3.ZERO
    ]
    asked = [(token, "balanceOf(address)(uint256)", [user]) for user in users for token, _ in tokens]
    balances = devnet.sender.calls(asked, block=block)
    found = []
    for n, (user, theirs) in enumerate(zip(users, account_data(devnet, users, block), strict=True)):
        health = adapter.evaluate(market, positions[user])
        if theirs is None:
            if not health.unpriceable or health.health_factor is not None or health.collateral_value is not None:
                found.append(f"{user}: {health} though the contract reverts")
        else:
            ours: tuple[Any, ...] = (health.collateral_value, health.debt_value, health.health_factor)
            told = (theirs[0], theirs[1], None if theirs[5] == NO_DEBT else theirs[5])
            if ours != told or health.liquidatable != (theirs[5] < WAD):
                found.append(f"{user}: {ours} instead of {told}, liquidatable {health.liquidatable}")
        amounts = {(b.market, b.side): b.amount for b in adapter.balances(market, positions[user])}
        held = balances[n * len(tokens) : (n + 1) * len(tokens)]
        expected = {place: amount for place, amount in zip(tokens, held, strict=True) if amount}
        if amounts != expected:
            found.append(f"{user}: {amounts} instead of {expected}")
    return found


def summary(devnet: aave_v3.AaveV3, market: AaveV3Market, positions: Mapping[str, Position]) -> Mapping[str, int]:
    """How many accounts are in which situation, so that a test can insist on having seen it."""
    adapter = adapter_of(devnet)
    healths = [adapter.evaluate(market, positions[user]) for user in devnet.users]
    return {
        "debt": sum(h.has_debt for h in healths),
        "no debt": sum(not h.has_debt for h in healths),
        "liquidatable": sum(h.liquidatable for h in healths),
        "e-mode": sum(h.mode is not None for h in healths),
        "unpriceable": sum(h.unpriceable for h in healths),
    }
