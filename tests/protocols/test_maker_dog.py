"""Maker's Dog and Clipper: what blocks a liquidation is exactly what makes the real `Dog.bark` revert."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from indexer.model import WAD, Accounts, Deployment, Health, PositionKey
from indexer.risk.opportunities import opportunity
from indexer.store.books import dump_market, load_market
from protocols.maker.adapter import GRAB, Maker
from protocols.maker.market import MakerMarket
from tests.compound import Connection
from tests.devnet import maker_snapshot
from tests.devnet.maker import word
from tests.devnet.node import Anvil
from tests.devnet.send import Reverted, Sender, account

RAD = 10**45
RAY = 10**27
ILKS = "ilks(bytes32)(uint256,uint256,uint256,uint256,uint256)"
URN_STATE = "urns(bytes32,address)(uint256,uint256)"
#: a later recording of the same package, the first with liquidations 2.0
VERSION = "1.1.33-beta5"
ILK, NO_CLIP = "ETH-B", "ETH-A"
#: urn -> (ink, DAI) in whole units, near the limit of each ilk before the price halves
URNS = {
    (ILK, "small"): (2, 110),
    (ILK, "middle"): (7, 500),
    (ILK, "large"): (30, 2_200),
    (ILK, "safe"): (100, 200),
    (ILK, "idle"): (1, 0),
    (NO_CLIP, "elsewhere"): (6, 500),
}
REASONS = {
    "Dog/not-live": "cage",
    "Dog/liquidation-limit-hit": "hole",
    "Dog/dusty-auction": "dusty-auction",
    "Dog/null-auction": "null-auction",
    "Clipper/stopped-incorrect": "stopped",
}


class Kennel:
    """The recorded deployment with a handful of urns that a falling price makes unsafe."""

    def __init__(self, node: Anvil) -> None:
        self.node, self.sender = node, Sender(node)
        self.replay()
        self.contracts = maker_snapshot.addresses()
        self.dog, self.clip = self.contracts["MCD_DOG"], self.contracts["MCD_CLIP_ETH_B"]
        self.vat, self.spotter = self.contracts["MCD_VAT"], self.contracts["MCD_SPOT"]
        self.keys = {name: PositionKey(account(f"dog {name}"), ilk) for ilk, name in URNS}
        for (ilk, name), (ink, dai) in URNS.items():
            self.open(ilk, self.keys[name].account, ink * WAD, dai * WAD)
        addresses = {
            "vat": self.vat,
            "spotter": self.spotter,
            "jug": self.contracts["MCD_JUG"],
            "cdp_manager": self.contracts["CDP_MANAGER"],
            "dog": self.dog,
            "ilk_registry": self.contracts["ILK_REGISTRY"],
        }
        self.adapter = Maker(Deployment("maker", "maker", "devnet", 0, addresses))

    def replay(self) -> None:
        """Two transactions of the old single-collateral system fail on today's nodes and are not needed."""
        rows = maker_snapshot.transactions()
        self.sender.fund(rows[0]["from"])
        for start in range(0, len(rows), maker_snapshot.SLICE):
            requests = [maker_snapshot.request(row) for row in rows[start : start + maker_snapshot.SLICE]]
            self.sender.mine_until(self.node.batch([("eth_sendTransaction", [r]) for r in requests]), None)

    def open(self, ilk: str, person: str, ink: int, dai: int) -> None:
        weth, join = self.contracts["ETH"], self.contracts[f"MCD_JOIN_{ilk.replace('-', '_')}"]
        self.sender.send(weth, "deposit()", sender=person, value=ink)
        self.sender.send(weth, "approve(address,uint256)", [join, ink], sender=person)
        self.sender.send(join, "join(address,uint256)", [person, ink], sender=person)
        frob = "frob(bytes32,address,address,address,int256,int256)"
        self.sender.send(self.vat, frob, [word(ilk), person, person, person, ink, dai], sender=person)

    def halve_the_price(self) -> None:
        value = self.contracts["VAL_ETH"]
        price = int.from_bytes(self.sender.call(value, "read()(bytes32)"))
        owner = self.sender.call(value, "owner()(address)")
        self.sender.send(value, "poke(bytes32)", [(price // 2).to_bytes(32)], sender=owner)
        for ilk in (ILK, NO_CLIP):
            self.sender.send(self.spotter, "poke(bytes32)", [word(ilk)])

    def govern(self, contract: str, function: str, *args: Any) -> None:
        self.sender.send(contract, function, args, sender=self.contracts["MCD_PAUSE_PROXY"])

    def bark(self, name: str) -> None:
        key = self.keys[name]
        self.sender.send(self.dog, "bark(bytes32,address,address)", [word(key.group), key.account, key.account])

    def art(self, name: str) -> int:
        """The normalised debt of an urn, in wad."""
        key = self.keys[name]
        _, art = self.sender.call(self.vat, URN_STATE, [word(key.group), key.account])
        return int(art)

    @contextmanager
    def tried(self) -> Iterator[None]:
        """What is done inside is undone."""
        snapshot, funded = self.node.snapshot(), set(self.sender.funded)
        yield
        self.node.revert(snapshot)
        self.sender.funded = funded

    def refusal(self, name: str) -> str | None:
        """Why a bark would revert now, None if it would not."""
        key, function = self.keys[name], "bark(bytes32,address,address)(uint256)"
        try:
            self.sender.call(self.dog, function, [word(key.group), key.account, key.account])
        except Reverted as error:
            # one of the Dog's reasons is longer than the bytes it sends
            text = bytes.fromhex(error.data[2:]).decode("latin-1")
            return "Dog/dusty-auction" if "Dog/dusty-auction" in text else error.reason
        return None


@pytest.fixture(scope="module")
def started(needs_node: None) -> Iterator[Kennel]:
    with pytest.MonkeyPatch.context() as patch, Anvil() as node:
        patch.setattr(maker_snapshot, "VERSION", VERSION)
        node.place_multicall3()
        yield Kennel(node)


@pytest.fixture
def kennel(started: Kennel) -> Iterator[Kennel]:
    """The deployment; what a test does to it is undone."""
    with started.tried():
        yield started


@pytest.fixture
def node(kennel: Kennel) -> Iterator[Connection]:
    connection = Connection(kennel.node)
    yield connection
    connection.chain.close()


def healths(kennel: Kennel, node: Connection) -> tuple[MakerMarket, dict[str, Health]]:
    """Every urn evaluated at the head."""
    read, adapter = node.reader(), kennel.adapter
    market = adapter.with_keys(read, adapter.read_market(read, None), kennel.keys.values())
    positions = adapter.read_positions(read, market, list(kennel.keys.values()))
    return market, {name: adapter.evaluate(market, p) for name, p in zip(kennel.keys, positions, strict=True)}


def agree(kennel: Kennel, node: Connection) -> dict[str, tuple[str, ...]]:
    """What blocks each liquidatable urn, once every one of them was compared with the Dog's answer."""
    _, found = healths(kennel, node)
    for name, health in found.items():
        refusal = kennel.refusal(name)
        if refusal == "Dog/not-unsafe":
            assert not health.liquidatable, name
        elif refusal is None:
            assert health.liquidatable, name
            assert health.blocked_by == (), name
        elif health.liquidatable:
            assert REASONS[refusal].lower() in [reason.lower() for reason in health.blocked_by], (name, refusal)
        else:
            assert refusal == "Dog/not-live", (name, refusal)
    return {name: health.blocked_by for name, health in found.items() if health.liquidatable}


def test_nothing_is_unsafe_before_the_price_falls(kennel: Kennel, node: Connection) -> None:
    assert agree(kennel, node) == {}


def test_what_can_be_barked_is_not_blocked(kennel: Kennel, node: Connection) -> None:
    kennel.halve_the_price()
    assert agree(kennel, node) == {
        "small": (),
        "middle": (),
        "large": (),
        "elsewhere": ("no-clip", "hole"),
    }


@pytest.mark.parametrize(
    ("change", "blocked"),
    [
        # a part of the small one would leave dust, so it may be taken whole
        (lambda k: k.govern(k.dog, "file(bytes32,uint256)", word("Hole"), 50 * RAD),
         {"small": (), "middle": ("dusty-auction",), "large": ("dusty-auction",)}),
        # 115 / 1.05 is more than the dust of 100
        (lambda k: k.govern(k.dog, "file(bytes32,uint256)", word("Hole"), 115 * RAD),
         {"small": (), "middle": (), "large": ()}),
        (lambda k: k.govern(k.dog, "file(bytes32,uint256)", word("Hole"), 0),
         {"small": ("Hole",), "middle": ("Hole",), "large": ("Hole",)}),
        (lambda k: k.govern(k.dog, "file(bytes32,bytes32,uint256)", word(ILK), word("hole"), 0),
         {"small": ("hole",), "middle": ("hole",), "large": ("hole",)}),
        (lambda k: k.govern(k.clip, "file(bytes32,uint256)", word("stopped"), 1),
         {"small": ("stopped",), "middle": ("stopped",), "large": ("stopped",)}),
        (lambda k: k.govern(k.dog, "cage()"),
         {"small": ("cage",), "middle": ("cage",), "large": ("cage",)}),
    ],
    ids=["little room", "room for one", "no room", "no room in the ilk", "breaker", "cage"],
)  # fmt: skip
def test_the_dogs_limits_are_told(
    kennel: Kennel, node: Connection, change: Callable[[Kennel], None], blocked: dict[str, tuple[str, ...]]
) -> None:
    kennel.halve_the_price()
    change(kennel)
    found = agree(kennel, node)
    assert {name: reasons for name, reasons in found.items() if name != "elsewhere"} == blocked


def test_a_debt_of_exactly_the_dust_is_no_dust(kennel: Kennel, node: Connection) -> None:
    """Dog.bark: neither a part to be taken that equals the dust, nor what is left of the debt then."""
    kennel.halve_the_price()
    key = kennel.keys["middle"]
    _, rate, *_ = kennel.sender.call(kennel.vat, ILKS, [word(ILK)])
    for room in (250, 300):  # DAI, of 500 and a penalty of 5 %: a part less than the rest, and one that is more
        with kennel.tried():
            kennel.govern(kennel.dog, "file(bytes32,uint256)", word("Hole"), room * RAD)
            owed = kennel.art("middle")
            with kennel.tried():
                kennel.bark("middle")
                left = kennel.art("middle")
            dust = min(left, owed - left) * rate
            kennel.govern(kennel.vat, "file(bytes32,bytes32,uint256)", word(ILK), word("dust"), dust)
            assert agree(kennel, node)["middle"] == ()
            market, _ = healths(kennel, node)
            (position,) = kennel.adapter.read_positions(node.reader(), market, [key])
            (foreseen,) = kennel.adapter.liquidation_calls(market, position)
            kennel.bark("middle")
            assert kennel.art("middle") == left
            assert foreseen.repaid == -(-(owed - left) * rate // RAY)


def test_a_bark_uses_up_the_room_and_touches_its_urn(kennel: Kennel, node: Connection) -> None:
    kennel.halve_the_price()
    first = kennel.node.block_number() + 1
    kennel.bark("large")  # 1,000 DAI of hole go, part of the debt stays
    market, found = healths(kennel, node)
    assert found["large"].debt_value
    assert agree(kennel, node)["middle"] == ("dusty-auction",)
    events = node.events(kennel.adapter.logs(market, Accounts.ALL).activity, first)
    touched = {key for event in events for key in kennel.adapter.touched(market, event)}
    assert touched == {kennel.keys["large"]}
    assert GRAB in {event.topic0 for event in events}


def test_penalty_and_limits_show_in_the_market(kennel: Kennel, node: Connection) -> None:
    market, _ = healths(kennel, node)
    rows = {row.group: row for row in market.assets}
    assert rows[ILK].liquidation_bonus == pytest.approx(0.05)
    assert (rows[ILK].paused, rows[NO_CLIP].paused) == (False, True)
    assert rows[NO_CLIP].liquidation_bonus is None


def undripped(market: MakerMarket) -> MakerMarket:
    """The market as a bark finds it before anybody drips."""
    return replace(market, ilks={name: replace(ilk, accrued_rate=ilk.rate) for name, ilk in market.ilks.items()})


@pytest.mark.parametrize(("tip", "chip"), [(0, 0), (300 * RAD, 0), (0, WAD // 1_000), (7 * RAD + 5, WAD // 333)])
def test_a_bark_pays_the_reward_that_was_foreseen(kennel: Kennel, node: Connection, tip: int, chip: int) -> None:
    """Clipper.kick pays tip + chip * tab into the Vat, and puts up the lot that Dog.bark took."""
    kennel.halve_the_price()
    for name, value in (("tip", tip), ("chip", chip)):
        kennel.govern(kennel.clip, "file(bytes32,uint256)", word(name), value)
    market, _ = healths(kennel, node)
    for name in ("small", "middle", "large"):
        (position,) = kennel.adapter.read_positions(node.reader(), market, [kennel.keys[name]])
        found = opportunity(kennel.adapter, undripped(market), position)
        assert found.call is not None
        auction = found.call.auction
        assert auction is not None
        with kennel.tried():
            kennel.bark(name)
            number = kennel.sender.call(kennel.clip, "kicks()(uint256)")
            sales = "sales(uint256)(uint256,uint256,uint256,address,uint96,uint256)"
            _, tab, lot, *_ = kennel.sender.call(kennel.clip, sales, [number])
            paid = kennel.sender.call(kennel.vat, "dai(address)(uint256)", [kennel.keys[name].account])
        before = kennel.sender.call(kennel.vat, "dai(address)(uint256)", [kennel.keys[name].account])
        assert (auction.lot, auction.tab, auction.reward) == (lot, tab, paid - before)
        assert found.profit == paid - before


def test_a_market_stored_before_rewards_were_read_still_loads(kennel: Kennel, node: Connection) -> None:
    """Its rewards are unknown, and so is the profit: not 0."""
    kennel.halve_the_price()
    market, _ = healths(kennel, node)
    stored = json.loads(dump_market(market))
    ilk = stored["ilks"][ILK]
    assert len(ilk["bark"]) == 5
    ilk["bark"] = ilk["bark"][:3]
    older = load_market(kennel.adapter, json.dumps(stored))
    (position,) = kennel.adapter.read_positions(node.reader(), market, [kennel.keys["small"]])
    found = opportunity(kennel.adapter, older, position)
    assert found.refused is None
    assert found.call is not None
    assert found.call.auction is not None
    assert (found.call.auction.reward, found.profit) == (None, None)
