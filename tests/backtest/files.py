"""Small folders of prices and of a Maker ilk, as `indexer backtest --data` takes them, from a seeded random walk."""

import gzip
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

HOUR, DAY = 3_600, 86_400
#: the first hour of prices: 2022-01-01
BEGIN = 1_640_995_200


def walks(hours: int, symbols: Sequence[str] = ("ETH", "BTC"), seed: int = 0) -> dict[str, np.ndarray]:
    """Closes by the hour of symbols that move together."""
    rng = np.random.default_rng(seed)
    common = rng.standard_t(4, hours)
    return {
        symbol: 1_000 * np.exp(np.cumsum(0.005 * (0.8 * common + 0.6 * rng.standard_t(4, hours)))) for symbol in symbols
    }


def write_prices(folder: Path, closes: Mapping[str, np.ndarray]) -> Path:
    (folder / "prices").mkdir(parents=True, exist_ok=True)
    for symbol, prices in closes.items():
        lines = [f"{BEGIN + i * HOUR},0,0,0,{price!r}" for i, price in enumerate(prices.tolist())]
        text = "\n".join(["unix,open,high,low,close", *lines, ""])
        (folder / "prices" / f"{symbol}USDT_1h.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    return folder


def when(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S.000")


HEADERS = {
    "creations": "BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,ILK,URN_ADDRESS",
    "deposits": "BLOCK_NUMBER,BLOCK_TIMESTAMP,URN_ADDRESS,ILK,VAULT_NUMBER,DEPOSIT_AMOUNT_ADJ",
    "borrows": "BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,DAI_MINTED",
    "repayments": "BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,DAI_REPAYED",
    "withdrawals": "BLOCK_NUMBER,BLOCK_TIMESTAMP,URN_ADDRESS,ILK,VAULT_NUMBER,WITHDRAWN_AMOUNT_ADJ",
    "liquidations": "BLOCK_NUMBER,BLOCK_TIMESTAMP,VAULT_NUMBER,COLLATERAL_LIQUIDATED_AMOUNT,DAI_REPAYED_AMOUNT",
}


def line(kind: str, at: int, vault: int, *amounts: float) -> str:
    front = f"{at // 12},{when(at)}"
    given = ",".join(map(repr, amounts))
    if kind == "creations":
        return f"{front},{vault},ETH-B,0x{vault:040x}"
    return (
        f"{front},0x{vault:040x},ETH-B,{vault},{given}"
        if kind in ("deposits", "withdrawals")
        else f"{front},{vault},{given}"
    )


def write_ilk(folder: Path, rows: Mapping[str, Sequence[tuple[int | float, ...]]], name: str = "maker_ethb") -> Path:
    """A folder of an ilk's events: kind -> (unix seconds, vault, amounts...); stability fee 5 %, ratio 1.3 throughout."""
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    for kind, header in HEADERS.items():
        lines = [line(kind, int(at), int(vault), *amounts) for at, vault, *amounts in rows.get(kind, ())]
        (place / f"ethb_{'' if kind.startswith(('borrows', 'repay')) else 'vault_'}{kind}.csv").write_text(
            "\n".join([header, *lines, ""])
        )
    parameters = ["BLOCK,TIMESTAMP,TX_HASH,SOURCE,PARAMETER,ILK,FROM_VALUE,TO_VALUE,SOURCE_TYPE"]
    for parameter, value in (("JUG.ilks.duty", 0.05), ("SPOTTER.ilks.mat", 1.3)):
        parameters.append(f"1,{when(BEGIN)},0x0,0x0,{parameter},ETH-B,0,{value},DssSpell")
    (place / "ETHB-Parameter-Changes.csv").write_text("\n".join([*parameters, ""]))
    return place


def vaults(closes: np.ndarray, count: int = 60, seed: int = 1) -> dict[str, list[tuple[int | float, ...]]]:
    """Vaults opened through time with health factors of 1.02 to 1.6, and what liquidates those that fall below 1."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[tuple[int | float, ...]]] = {kind: [] for kind in HEADERS}
    for vault in range(1, count + 1):
        hour = int(rng.integers(24, len(closes) - 400))
        at = BEGIN + (hour + 1) * HOUR + 60
        debt = 10_000.0
        ink = float(np.round(debt * 1.3 * rng.uniform(1.02, 1.6) / closes[hour], 3))
        rows["creations"].append((at, vault))
        rows["deposits"].append((at, vault, ink))
        rows["borrows"].append((at, vault, debt))
        below = np.flatnonzero(ink * closes[hour:] / 1.3 < debt)
        if len(below):
            ends = at + (int(below[0]) + 2) * HOUR
            rows["liquidations"].append((ends, vault, round(ink), debt * 1.05 ** ((ends - at) / (365 * DAY))))
    end = BEGIN + (len(closes) - 2) * HOUR
    rows["creations"].append((end, 0))
    rows["deposits"].append((end, 0, 1.0))
    return rows
