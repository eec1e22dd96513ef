"""Maker on the devnet: the recorded mainnet contracts of March 2021 with a seeded history.

Vat, Spotter, Jug, CdpManager, joins, Cat, Flip, DSProxy and its actions are the real code (`maker_snapshot`); the
deployment knows no OSM, so a stand-in holds ETH's and WBTC's prices back for an hour. Dog and Clipper are not in it.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.devnet import maker_scenario as scenario
from tests.devnet.contracts import compile_contracts
from tests.devnet.maker_snapshot import addresses, creation_code, replay
from tests.devnet.node import Anvil
from tests.devnet.scenario import Devnet
from tests.devnet.send import Sender, account, calldata

SOLC = "0.8.27"
SOURCES = ("common.sol", "maker_osm_stand_in.sol")
WAD, RAY, RAD = 10**18, 10**27, 10**45
HOUR = 3_600
CEILING = 10**9 * RAD
#: the ilks the scenario uses, of some 25 that exist; LINK-A and those after it are never dripped
ILKS = ("ETH-A", "ETH-B", "ETH-C", "USDC-A", "WBTC-A", "BAT-A", "LINK-A", "UNI-A", "KNC-A")
#: the ilks whose price passes through an OSM
DELAYED = ("ETH-A", "ETH-C", "WBTC-A")
VAT_ILK = "ilks(bytes32)(uint256,uint256,uint256,uint256,uint256)"
VAT_URN = "urns(bytes32,address)(uint256,uint256)"
FROB = "frob(bytes32,address,address,address,int256,int256)"


class Ilk(NamedTuple):
    """One collateral type: its gem's symbol and decimals, and the contracts around it."""

    name: str
    symbol: str
    gem: str
    decimals: int
    join: str

    @property
    def key(self) -> bytes:
        return self.name.encode().ljust(32, b"\0")


class Terms(NamedTuple):
    """`Vat.ilks`: total normalised debt (wad), rate (ray), spot (ray), ceiling and dust (rad)."""

    total_art: int
    rate: int
    spot: int
    line: int
    dust: int


class Answer(NamedTuple):
    """What the Vat holds of one urn: ink, art in wad; rate, spot in ray."""

    ilk: str
    ink: int
    art: int
    rate: int
    spot: int

    @property
    def unsafe(self) -> bool:
        """`Cat.bite` and `Dog.bark` ask this."""
        return self.spot > 0 and self.ink * self.spot < self.art * self.rate


class Ownership(NamedTuple):
    """Whose an urn is: what CdpManager says (a raw urn owns itself), the person behind it, and how one got there."""

    owner: str
    wallet: str
    via: str


class Maker(Devnet):
    """Maker with vaults of every kind.

    `users` are urns. `positions` is every (ilk, urn) that a `frob` or `fork` ever named, `debtors` those that ever had
    `art`, `borrowers` the urns among them; `owners` says whose each urn is. `roles` maps each situation to its
    (ilk, urn).
    """

    protocol = "maker"

    def __init__(self, node: Anvil, sender: Sender | None = None, name: str = "maker") -> None:
        super().__init__(node, sender)
        self.name = name
        self.steps = 0
        self.roles: dict[str, tuple[str, str]] = {}
        self.positions: set[tuple[str, str]] = set()
        self.debtors: set[tuple[str, str]] = set()
        self.owners: dict[str, Ownership] = {}
        self.vaults: dict[int, tuple[str, str]] = {}  # cdp -> (ilk, urn)
        self.whale = account(f"{name} whale")  # pays every gem into the joins
        self.code = compile_contracts(
            SOLC, {file: {"content": (Path(__file__).parent / file).read_text()} for file in SOURCES}
        )
        self.start_block = node.block_number() + 1
        replay(node, self.sender)
        self.contracts = addresses()
        self.governor = self.contracts["MCD_PAUSE_PROXY"]
        self.feeder = self.sender.call(self.contracts["VAL_ETH"], "owner()(address)")
        self.values = {name[4:]: address for name, address in self.contracts.items() if name.startswith("VAL_")}
        self.modules: dict[str, str] = {}  # gem symbol -> its OSM
        self.delayed: set[str] = set()
        self.ilks: dict[str, Ilk] = {}
        for ilk in ILKS:
            self.take_up(ilk)
        self.addresses = {
            "vat": self.contracts["MCD_VAT"],
            "spotter": self.contracts["MCD_SPOT"],
            "jug": self.contracts["MCD_JUG"],
            "cdp_manager": self.contracts["CDP_MANAGER"],
            "proxy_registry": self.contracts["PROXY_REGISTRY"],
        }
        self.prepare()

    # ---- deployment and governance

    def take_up(self, name: str) -> None:
        symbol = name.split("-", maxsplit=1)[0]
        gem = self.contracts[symbol]
        decimals = 18 if symbol == "ETH" else int(self.sender.call(gem, "decimals()(uint256)"))
        join = self.contracts[f"MCD_JOIN_{name.replace('-', '_')}"]
        self.ilks[name] = Ilk(name, symbol, gem, decimals, join)

    def prepare(self) -> None:
        """Raise the ceilings, stock the whale with every gem, put the modules between feeds and Spotter."""
        vat, spotter = self.addresses["vat"], self.addresses["spotter"]
        self.govern(vat, "file(bytes32,uint256)", word("Line"), 10 * CEILING)
        self.govern(self.contracts["MCD_CAT"], "file(bytes32,uint256)", word("box"), CEILING)
        for ilk in self.ilks.values():
            self.govern(vat, "file(bytes32,bytes32,uint256)", ilk.key, word("line"), CEILING)
            self.sender.send(ilk.gem, "approve(address,uint256)", [ilk.join, 2**256 - 1], sender=self.whale)
            if ilk.symbol == "ETH":
                continue
            stock = self.sender.call(ilk.gem, "balanceOf(address)(uint256)", [self.contracts["FAUCET"]])
            if stock:
                self.sender.send(
                    ilk.gem, "transfer(address,uint256)", [self.whale, stock], sender=self.contracts["FAUCET"]
                )
        self.sender.send(self.contracts["ETH"], "deposit()", sender=self.whale, value=20_000_000 * WAD)
        for symbol in sorted({self.ilks[name].symbol for name in DELAYED}):
            self.modules[symbol] = self.sender.deploy(self.code["OsmStandIn"], [self.values[symbol]])
            self.sender.send(self.modules[symbol], "kiss(address)", [spotter])
            self.pass_hour(symbol)
            self.pass_hour(symbol)
        for name in DELAYED:
            ilk = self.ilks[name]
            self.govern(spotter, "file(bytes32,bytes32,address)", ilk.key, word("pip"), self.modules[ilk.symbol])
            self.delayed.add(name)
            self.poke(name)

    def govern(self, contract: str, function: str, *args: Any) -> None:
        """One transaction of the pause proxy, which is a ward everywhere."""
        self.sender.send(contract, function, args, sender=self.governor)

    def add_ilk(self, name: str, price: int, *, mat: int = 3 * RAY // 2, duty: int = 10**27 + 10**18) -> Ilk:
        """A new collateral type with a new 18-decimals gem, as governance would list it; `price` in wad."""
        vat, spotter, jug = (self.addresses[key] for key in ("vat", "spotter", "jug"))
        symbol = name.split("-", maxsplit=1)[0]
        gem = self.sender.deploy(self.code["Token"], [symbol, symbol, 18])
        self.values[symbol] = self.sender.deploy(creation_code("VAL_ETH", 0), sender=self.feeder)
        join_code = creation_code("MCD_JOIN_BAT_A", 3)
        arguments = [vat, word(name), gem]
        join = self.sender.deploy(join_code, arguments, types=["address", "bytes32", "address"])
        ilk = self.ilks[name] = Ilk(name, symbol, gem, 18, join)
        self.sender.send(self.values[symbol], "poke(bytes32)", [price.to_bytes(32)], sender=self.feeder)
        self.govern(vat, "rely(address)", join)
        self.govern(vat, "init(bytes32)", ilk.key)
        self.govern(jug, "init(bytes32)", ilk.key)
        self.node.set_next_timestamp(self.node.timestamp())  # the Jug takes a duty only in the second of a drip
        self.govern(jug, "file(bytes32,bytes32,uint256)", ilk.key, word("duty"), duty)
        self.govern(spotter, "file(bytes32,bytes32,address)", ilk.key, word("pip"), self.values[symbol])
        self.govern(spotter, "file(bytes32,bytes32,uint256)", ilk.key, word("mat"), mat)
        self.govern(vat, "file(bytes32,bytes32,uint256)", ilk.key, word("line"), CEILING)
        self.govern(vat, "file(bytes32,bytes32,uint256)", ilk.key, word("dust"), 100 * RAD)
        self.poke(name)
        return ilk

    # ---- prices and rates

    def price(self, symbol: str) -> int:
        """The feed's value in wad; the OSM and the Spotter may not know it yet."""
        return int.from_bytes(self.sender.call(self.values[symbol], "read()(bytes32)"))

    def set_price(self, symbol: str, raw: int) -> None:
        """Set a feed (wad) and bring it into force in every ilk of that gem; an OSM takes two hours for it."""
        self.feed(symbol, raw)
        if symbol in self.modules:
            self.pass_hour(symbol)
            self.pass_hour(symbol)
        for ilk in self.ilks.values():
            if ilk.symbol == symbol:
                self.poke(ilk.name)

    def queue_price(self, symbol: str, raw: int) -> None:
        """Set a feed (wad) behind an OSM and let the module take it as the next price."""
        self.feed(symbol, raw)
        self.pass_hour(symbol)

    def feed(self, symbol: str, raw: int) -> None:
        self.sender.send(self.values[symbol], "poke(bytes32)", [raw.to_bytes(32)], sender=self.feeder)

    def void(self, symbol: str) -> None:
        """The feed has no valid price any more: the next poke sets `spot` to 0."""
        self.sender.send(self.values[symbol], "void()", sender=self.feeder)

    def pass_hour(self, symbol: str) -> None:
        self.node.elapse(HOUR)
        self.sender.send(self.modules[symbol], "poke()")

    def poke(self, ilk: str) -> None:
        self.sender.send(self.addresses["spotter"], "poke(bytes32)", [self.ilks[ilk].key])

    def drip(self, ilk: str) -> None:
        self.sender.send(self.addresses["jug"], "drip(bytes32)", [self.ilks[ilk].key])

    def terms(self, ilk: str, block: int | str = "latest") -> Terms:
        return Terms(*self.sender.call(self.addresses["vat"], VAT_ILK, [word(ilk)], block=block))

    # ---- answers

    def answer(self, account: str, block: int | str = "latest") -> list[Answer]:
        """The Vat's answer for each ilk in which this urn was ever named."""
        return self.answers([pair for pair in sorted(self.positions) if pair[1] == account.lower()], block)

    def position(self, ilk: str, urn: str, block: int | str = "latest") -> Answer:
        return self.answers([(ilk, urn)], block)[0]

    def answers(self, pairs: Sequence[tuple[str, str]], block: int | str = "latest") -> list[Answer]:
        """What the Vat holds of many (ilk, urn), in one batch."""
        vat = self.addresses["vat"]
        ilks = sorted({ilk for ilk, _ in pairs})
        rows = self.sender.calls(
            [(vat, VAT_ILK, [word(ilk)]) for ilk in ilks] + [(vat, VAT_URN, [word(ilk), urn]) for ilk, urn in pairs],
            block=block,
        )
        terms = {ilk: Terms(*row) for ilk, row in zip(ilks, rows, strict=False)}
        return [
            Answer(ilk, ink, art, terms[ilk].rate, terms[ilk].spot)
            for (ilk, _), (ink, art) in zip(pairs, rows[len(ilks) :], strict=True)
        ]

    # ---- actions

    def own(self, urn: str, owner: str, wallet: str, via: str) -> str:
        """Write down whose an urn is now; the urn."""
        self.touched(urn)
        self.owners[urn.lower()] = Ownership(owner.lower(), wallet.lower(), via)
        return urn.lower()

    def own_raw(self, urn: str) -> str:
        return self.own(urn, urn, urn, "self")

    def note(self, *pairs: tuple[str, str]) -> None:
        """Write down that these (ilk, urn) were named, and which of them the Vat says have debt."""
        self.touched(*(urn for _, urn in pairs))
        self.positions.update(pairs)
        owing = [pair for pair, answer in zip(pairs, self.answers(pairs), strict=True) if answer.art]
        self.debtors.update(owing)
        self.borrowers.update(urn for _, urn in owing)

    def join(self, ilk: str, urn: str, wad: int) -> int:
        """Pay collateral for an urn, bought by the whale; the wad that the Vat credits (whole units of the gem)."""
        kind = self.ilks[ilk]
        unit: int = 10 ** (18 - kind.decimals)
        self.sender.send(kind.join, "join(address,uint256)", [urn, wad // unit], sender=self.whale)
        return wad // unit * unit

    def debt(self, ilk: str, wad: int) -> int:
        """The normalised debt of so much DAI, rounded up."""
        return -(-wad * RAY // self.terms(ilk).rate)

    def frob(
        self, ilk: str, urn: str, dink: int, dart: int, *, sender: str | None = None, check: bool = True
    ) -> dict[str, Any]:
        """Change a raw urn; `sender` pays and receives where it is not the urn itself."""
        by = sender or urn
        args = [word(ilk), urn, by, by, dink, dart]
        receipt = self.sender.send(self.addresses["vat"], FROB, args, sender=by, check=check)
        self.after(receipt, (ilk, urn))
        return receipt

    def after(self, receipt: dict[str, Any], *pairs: tuple[str, str]) -> None:
        if receipt["status"] == "0x1":
            self.note(*pairs)

    def open_raw(self, ilk: str, urn: str, ink: int, dai: int) -> tuple[str, str]:
        """A plain account's own urn with collateral and debt, both in wad."""
        self.own_raw(urn)
        self.frob(ilk, urn, self.join(ilk, urn, ink), self.debt(ilk, dai))
        return ilk, urn.lower()

    def open_vault(self, ilk: str, owner: str) -> int:
        """A vault of the CdpManager, still empty; its number."""
        manager = self.addresses["cdp_manager"]
        self.sender.send(manager, "open(bytes32,address)", [word(ilk), owner], sender=owner)
        return self.adopt(self.sender.call(manager, "cdpi()(uint256)"), owner, "cdp-manager")

    def adopt(self, cdp: int, wallet: str, via: str) -> int:
        """Write down a vault that was just opened."""
        manager = self.addresses["cdp_manager"]
        urn, owner, ilk = self.sender.calls(
            [
                (manager, "urns(uint256)(address)", [cdp]),
                (manager, "owns(uint256)(address)", [cdp]),
                (manager, "ilks(uint256)(bytes32)", [cdp]),
            ]
        )
        self.vaults[cdp] = (ilk.rstrip(b"\0").decode(), self.own(urn, owner, wallet, via))
        return cdp

    def manage(self, cdp: int, function: str, args: Sequence[Any], check: bool = True) -> dict[str, Any]:
        """One call of a vault's owner to the CdpManager, through the owner's proxy if it has one."""
        ilk, urn = self.vaults[cdp]
        owner, wallet, via = self.owners[urn]
        manager = self.addresses["cdp_manager"]
        if via == "cdp-manager":
            receipt = self.sender.send(manager, function, args, sender=owner, check=check)
        else:
            behind = function.replace("(", "(address,")  # the proxy actions take the manager first
            receipt = self.execute(owner, wallet, behind, [manager, *args], check=check)
        self.after(receipt, (ilk, urn))
        return receipt

    def adjust(self, cdp: int, dink: int, dart: int, check: bool = True) -> dict[str, Any]:
        """Change a vault; drawn DAI stays inside the Vat."""
        return self.manage(cdp, "frob(uint256,int256,int256)", [cdp, dink, dart], check)

    def fill_vault(self, cdp: int, ink: int, dai: int) -> tuple[str, str]:
        """Collateral and debt (wad) for a vault; its (ilk, urn)."""
        ilk, urn = self.vaults[cdp]
        self.adjust(cdp, self.join(ilk, urn, ink), self.debt(ilk, dai))
        return ilk, urn

    def give(self, cdp: int, target: str, wallet: str, via: str) -> None:
        """Hand a vault over; only a note of the CdpManager tells."""
        _, urn = self.vaults[cdp]
        owner, _, _ = self.owners[urn]
        self.sender.send(self.addresses["cdp_manager"], "give(uint256,address)", [cdp, target], sender=owner)
        self.own(urn, target, wallet, via)

    def fork(self, ilk: str, source: str, target: str, dink: int, dart: int) -> None:
        """Split a raw urn; the target consents first."""
        vat = self.addresses["vat"]
        self.sender.send(vat, "hope(address)", [source], sender=target)
        function = "fork(bytes32,address,address,int256,int256)"
        self.sender.send(vat, function, [word(ilk), source, target, dink, dart], sender=source)
        self.own_raw(target)
        self.note((ilk, source), (ilk, target.lower()))

    def bite(self, ilk: str, urn: str) -> None:
        """Liquidate what one auction of the Cat takes."""
        self.sender.send(self.contracts["MCD_CAT"], "bite(bytes32,address)", [word(ilk), urn])
        self.note((ilk, urn))

    # ---- proxies

    def proxy(self, person: str) -> str:
        """The DSProxy of a person, built when missing."""
        registry = self.addresses["proxy_registry"]
        found = str(self.sender.call(registry, "proxies(address)(address)", [person]))
        if int(found, 16) == 0:
            self.sender.send(registry, "build(address)", [person], sender=person)
            found = str(self.sender.call(registry, "proxies(address)(address)", [person]))
        return found.lower()

    def execute(
        self, proxy: str, person: str, function: str, args: Sequence[Any], value: int = 0, check: bool = True
    ) -> dict[str, Any]:
        """Let a proxy run one of the real DssProxyActions."""
        data = bytes.fromhex(calldata(function, args)[2:])
        actions = self.contracts["PROXY_ACTIONS"]
        return self.sender.send(
            proxy, "execute(address,bytes)", [actions, data], sender=person, value=value, check=check
        )

    def open_by_proxy(self, ilk: str, person: str, ink: int, dai: int) -> int:
        """A vault opened, filled with ether and drawn in one proxy call, DAI paid out; its number."""
        self.execute(self.proxy(person), person, *self.opening(ilk, dai), value=ink)
        cdp = self.adopt(
            self.sender.call(self.addresses["cdp_manager"], "cdpi()(uint256)"), person, "cdp-manager+ds-proxy"
        )
        self.note(self.vaults[cdp])
        return cdp

    def opening(self, ilk: str, dai: int) -> tuple[str, list[Any]]:
        """The proxy action that opens a vault of ether."""
        manager, jug = self.addresses["cdp_manager"], self.addresses["jug"]
        args = [manager, jug, self.ilks[ilk].join, self.contracts["MCD_JOIN_DAI"], word(ilk), dai]
        return "openLockETHAndDraw(address,address,address,address,bytes32,uint256)", args

    # ---- the scenario

    def populate(self, seed: int, users: int) -> None:
        """Play every situation once (`roles`) and fill up to `users` urns with a random crowd."""
        scenario.populate(self, seed, users)

    def step(self, seed: int) -> None:
        """Some urns change, new ones and (the first time) a new ilk appear, prices and time move; others do nothing."""
        self.steps += 1
        scenario.step(self, seed)


def word(text: str) -> bytes:
    """A short text as bytes32."""
    return text.encode().ljust(32, b"\0")


def deploy(node: Anvil, sender: Sender | None = None) -> Maker:
    """The recorded Maker deployment; once per node."""
    return Maker(node, sender)
