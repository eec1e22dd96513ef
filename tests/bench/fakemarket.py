"""What the fake node answers from: the state of one market of the shape of Aave V3.6, and its past Borrow logs."""

import hashlib
import json
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence

from eth_abi.abi import encode
from eth_hash.auto import keccak

RAY = 10**27
BASE_TIMESTAMP = 1_700_000_000
ZERO_ADDRESS = "0x" + "00" * 20


def topic(signature: str) -> str:
    return "0x" + keccak(signature.encode()).hex()


def selector(signature: str) -> bytes:
    return bytes(keccak(signature.encode())[:4])


def address(kind: str, n: int) -> str:
    return f"0x{hashlib.sha256(f'{kind}{n}'.encode()).hexdigest()[:32]}{n:08x}"


def word(value: int) -> bytes:
    return value.to_bytes(32, "big")


def padded(of: str) -> bytes:
    return bytes(12) + bytes.fromhex(of[2:])


def bloom_bits(value: bytes) -> int:
    digest = keccak(value)
    return sum(1 << (int.from_bytes(digest[i : i + 2], "big") & 2047) for i in (0, 2, 4))


def block_hash(number: int) -> str:
    return "0x" + hashlib.sha256(b"block%d" % number).hexdigest()


BORROW = topic("Borrow(address,address,address,uint256,uint8,uint256,uint16)")
MINT = topic("Mint(address,address,uint256,uint256,uint256)")


class Market:
    """The contracts' state: reserves with random prices and indexes, users whose health factors lie above 1.2.

    They owe up to `most_debt` of their largest supply: 1 % of them have a health factor below 1.25, with 0.955 15 %.
    """

    def __init__(self, users: int, reserves: int, most_debt: float = 0.78) -> None:
        rng = random.Random(1)
        places = range(reserves)
        self.users = users
        self.provider, self.pool, self.oracle = (address(kind, 1) for kind in ("provider", "pool", "oracle"))
        self.strategy = address("strategy", 1)
        self.assets = [address("asset", i) for i in places]
        self.a_tokens = [address("atoken", i) for i in places]
        self.debt_tokens = [address("vtoken", i) for i in places]
        self.decimals = [rng.choice((6, 8, 18)) for _ in places]
        self.first_prices = [rng.randrange(10**7, 10**13) for _ in places]
        self.income = [RAY + rng.randrange(RAY // 5) for _ in places]
        self.debt_index = [RAY + rng.randrange(RAY // 5) for _ in places]
        self.parts = 1_000_000
        self.supplies = [0] * reserves
        self.debts = [0] * reserves
        self.held: list[
            tuple[dict[int, int], int, int]
        ] = []  # scaled supplies by reserve, the debt's reserve, the debt
        rng = random.Random(2)
        for _ in range(users):
            first, second, owed = (rng.randrange(reserves) for _ in range(3))
            usd = 10 ** rng.uniform(2, 6)
            supplied = {first: self.amount(first, usd)}
            if second != first:
                supplied[second] = self.amount(second, usd * 0.3)
            debt = self.amount(owed, usd * rng.uniform(0.2, most_debt))
            for place, amount in supplied.items():
                self.supplies[place] += amount
            self.debts[owed] += debt
            self.held.append((supplied, owed, debt))
        self.tokens = {bytes.fromhex(t[2:]): ("supply", i) for i, t in enumerate(self.a_tokens)} | {
            bytes.fromhex(t[2:]): ("debt", i) for i, t in enumerate(self.debt_tokens)
        }
        self.known: dict[tuple[bytes, bytes], tuple[bool, bytes]] = {}

    def amount(self, place: int, usd: float) -> int:
        return int(usd * 1e8) * 10 ** self.decimals[place] // self.first_prices[place]

    @staticmethod
    def user(n: int) -> bytes:
        """An address whose last four bytes are the user's number."""
        return hashlib.sha256(b"u%d" % n).digest()[:16] + n.to_bytes(4, "big")

    def prices(self) -> list[int]:
        return [p if i % 2 else p * self.parts // 1_000_000 for i, p in enumerate(self.first_prices)]

    def move(self, parts: int) -> None:
        self.parts = parts
        self.known.clear()

    # answers ------------------------------------------------------------------------------------------------------

    def call(self, target: bytes, data: bytes, block: int) -> tuple[bool, bytes]:
        """Success and data of one call."""
        kind = data[:4]
        if kind in ANSWERS_OF_USERS:
            n = int.from_bytes(data[32:36], "big")
            if n >= self.users or data[16:32] != self.user(n)[:16]:
                return True, bytes(32)
            return True, ANSWERS_OF_USERS[kind](self, target, n)
        if kind == TIMESTAMP:
            return True, word(BASE_TIMESTAMP + 12 * block)
        if kind == PARENT:
            return True, bytes.fromhex(block_hash(block - 1)[2:])
        found = self.known.get((target, data))
        if found is None:
            answer = self.of_market("0x" + target.hex(), kind, data)
            found = self.known[target, data] = (answer is not None, answer or b"")
        return found

    def configuration(self, _target: bytes, n: int) -> bytes:
        supplied, owed, _ = self.held[n]
        return word(sum(2 << 2 * place for place in supplied) | 1 << 2 * owed)

    def mode(self, _target: bytes, _n: int) -> bytes:
        return bytes(32)

    def scaled(self, target: bytes, n: int) -> int:
        side, place = self.tokens[target]
        supplied, owed, debt = self.held[n]
        return supplied.get(place, 0) if side == "supply" else debt if owed == place else 0

    def scaled_balance(self, target: bytes, n: int) -> bytes:
        return word(self.scaled(target, n))

    def balance(self, target: bytes, n: int) -> bytes:
        """Rounded as Aave V3.6 does: supply down, debt up."""
        side, place = self.tokens[target]
        scaled = self.scaled(target, n)
        if side == "supply":
            return word(scaled * self.income[place] // RAY)
        return word(-(-scaled * self.debt_index[place] // RAY))

    def account(self, _target: bytes, n: int) -> bytes:
        """Pool.getUserAccountData."""
        supplied, owed, debt = self.held[n]
        prices, total, weighted = self.prices(), 0, 0
        for place, scaled in supplied.items():
            value = scaled * self.income[place] // RAY * prices[place] // 10 ** self.decimals[place]
            total, weighted = total + value, weighted + value * 8000
        owing = -(-debt * self.debt_index[owed] // RAY)
        value = -(-owing * prices[owed] // 10 ** self.decimals[owed])
        health = (weighted * 10**18 + value // 2) // value // 10_000 if value else 2**256 - 1
        return b"".join(map(word, (total, value, 0, weighted // total if total else 0, 7500, health)))

    def of_market(self, target: str, kind: bytes, data: bytes) -> bytes | None:
        """The answer of the provider, the oracle, the pool or a token; None: it reverts."""
        if target == self.provider:
            answers = {selector("getPool()"): self.pool, selector("getPriceOracle()"): self.oracle}
            return padded(answers.get(kind, ZERO_ADDRESS))
        if target == self.oracle:
            return self.of_oracle(kind)
        if target == self.pool:
            return self.of_pool(kind, "0x" + data[16:36].hex())
        if target in self.assets and kind == selector("symbol()"):
            return bytes(encode(["string"], [f"A{self.assets.index(target)}"]))
        side, place = self.tokens.get(bytes.fromhex(target[2:]), ("", 0))
        scaled = {"supply": self.supplies, "debt": self.debts}.get(side)
        if scaled is not None and kind == selector("scaledTotalSupply()"):
            return word(scaled[place])
        if scaled is not None and kind == selector("totalSupply()"):
            if side == "supply":
                return word(scaled[place] * self.income[place] // RAY)
            return word(-(-scaled[place] * self.debt_index[place] // RAY))
        return None

    def of_oracle(self, kind: bytes) -> bytes | None:
        if kind == selector("getAssetsPrices(address[])"):
            return bytes(encode(["uint256[]"], [self.prices()]))
        return {selector("BASE_CURRENCY_UNIT()"): word(10**8), selector("BASE_CURRENCY()"): bytes(32)}.get(kind)

    def of_pool(self, kind: bytes, asset: str) -> bytes | None:
        if kind == selector("POOL_REVISION()"):
            return word(10)
        if kind == selector("getReservesList()"):
            return bytes(encode(["address[]"], [self.assets]))
        if kind in NOTHING:
            return NOTHING[kind]
        if kind == selector("RESERVE_INTEREST_RATE_STRATEGY()"):
            return padded(self.strategy)
        if asset not in self.assets:
            return None
        place = self.assets.index(asset)
        if kind == selector("getReserveNormalizedIncome(address)"):
            return word(self.income[place])
        if kind == selector("getReserveNormalizedVariableDebt(address)"):
            return word(self.debt_index[place])
        return self.reserve(place) if kind == selector("getReserveData(address)") else None

    def reserve(self, place: int) -> bytes:
        """DataTypes.ReserveDataLegacy."""
        configuration = 7500 | 8000 << 16 | 10500 << 32 | self.decimals[place] << 48 | 1 << 56 | 1 << 58
        numbers = (configuration, self.income[place], 0, self.debt_index[place], 0, 0, BASE_TIMESTAMP, place)
        contracts = (self.a_tokens[place], ZERO_ADDRESS, self.debt_tokens[place], self.strategy)
        return b"".join((*map(word, numbers), *map(padded, contracts), bytes(96)))


NOTHING = {
    selector("getLiquidationGracePeriod(address)"): bytes(32),
    selector("getReserveDeficit(address)"): bytes(32),
    selector("getEModeCategoryCollateralBitmap(uint8)"): bytes(32),
    selector("getEModeCategoryLtvzeroBitmap(uint8)"): bytes(32),
    selector("getEModeCategoryCollateralConfig(uint8)"): bytes(96),
}
TIMESTAMP, PARENT = selector("getCurrentBlockTimestamp()"), selector("getLastBlockHash()")
ANSWERS_OF_USERS: dict[bytes, Callable[[Market, bytes, int], bytes]] = {
    selector("getUserConfiguration(address)"): Market.configuration,
    selector("getUserEMode(address)"): Market.mode,
    selector("scaledBalanceOf(address)"): Market.scaled_balance,
    selector("balanceOf(address)"): Market.balance,
    selector("getUserAccountData(address)"): Market.account,
}


def log_json(block: int, index: int, transaction: int, of: str, topics: Sequence[str], data: str) -> bytes:
    return (
        f'{{"address":"{of}","topics":{json.dumps(topics)},"data":"0x{data}","blockHash":"{block_hash(block)}",'
        f'"blockNumber":"{block:#x}","transactionHash":"0x{transaction:064x}","transactionIndex":"0x0",'
        f'"logIndex":"{index:#x}","removed":false}}'
    ).encode()


class History:
    """Borrow logs in random blocks: each user's first, then more of the earlier ones."""

    def __init__(self, market: Market, logs: int, last: int) -> None:
        rng, index = random.Random(3), 0
        self.blocks: list[int] = []
        blob, self.ends = bytearray(), [0]
        for n, block in enumerate(sorted(rng.randrange(1, last + 1) for _ in range(logs))):
            index = index + 1 if self.blocks and self.blocks[-1] == block else 0
            user = market.user(n if n < market.users else int(market.users * rng.random() ** 2)).hex()
            place = n % len(market.assets)
            topics = [BORROW, "0x" + padded(market.assets[place]).hex(), f"0x{user:0>64}", f"0x{0:064x}"]
            data = f"{user:0>64}{n * 10**12:064x}{2:064x}{RAY // 25:064x}"
            blob += log_json(block, index, n + 2**200, market.pool, topics, data) + b","
            self.blocks.append(block)
            self.ends.append(len(blob))
        self.blob = memoryview(bytes(blob))

    def between(self, first: int, last: int) -> tuple[int, bytes]:
        """How many, and their JSON separated by commas."""
        i, j = bisect_left(self.blocks, first), bisect_right(self.blocks, last)
        return j - i, bytes(self.blob[self.ends[i] : self.ends[j]])[:-1]
