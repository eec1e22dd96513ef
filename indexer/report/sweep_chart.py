"""The chart of a sweep: liquidatable debt, stacked by protocol, over the change of a price. Needs matplotlib."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from indexer.errors import ConfigError, IndexerError
from indexer.files import replacing
from indexer.text import printable

SUFFIXES = (".png", ".svg")


def check(path: Path) -> None:
    """Raise `ConfigError` for another format, and `IndexerError` where matplotlib is missing; before any work."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a chart is a .png or .svg file, not {path.name!r}")
    if find_spec("matplotlib") is None:
        raise IndexerError("a chart needs matplotlib: pip install 'lending-indexer[charts]'")


def draw(path: Path, name: str, rows: Sequence[Mapping[str, Any]], remark: str = "") -> None:
    """Write the chart of `sweep_rows`; `name` is what was swept, `remark` what else was supposed."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - an extra
    from matplotlib.ticker import FuncFormatter, PercentFormatter  # noqa: PLC0415

    changes = [row["change_percent"] for row in rows]
    columns = [column for column in rows[0] if column.endswith("_debt_usd")]
    labels = [column.removesuffix("_debt_usd").replace("_", "-") for column in columns if column != "bad_debt_usd"]
    series = [[row[column] for row in rows] for column in columns if column != "bad_debt_usd"]

    figure = Figure(figsize=(10, 6), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.stackplot(changes, series, labels=labels, alpha=0.85)
    axes.plot(
        changes, [row["bad_debt_usd"] for row in rows], color="black", linestyle="--", label="debt beyond collateral"
    )
    axes.set_xlabel(f"change of the price of {printable(name)} (%)", parse_math=False)
    axes.set_ylabel("liquidatable debt (USD, at the changed prices)")
    axes.xaxis.set_major_formatter(PercentFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if changes[0] != changes[-1]:
        axes.set_xlim(changes[0], changes[-1])
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    wallets = axes.twinx()
    wallets.plot(changes, [row["wallets"] for row in rows], color="tab:gray", linewidth=1.5, label="wallets (right)")
    wallets.set_ylabel("liquidatable wallets")
    wallets.set_ylim(bottom=0)
    handles, names = axes.get_legend_handles_labels()
    more, other = wallets.get_legend_handles_labels()
    axes.legend(handles + more, names + other, loc="upper left")
    when = f"block {rows[0]['block_number']}, {rows[0]['block_time']}"
    axes.set_title(
        printable(f"Debt that could be liquidated if the price of {name} changed")
        + f"\n{when}"
        + (f"; {printable(remark)}" if remark else ""),
        fontsize=11,
        parse_math=False,
    )
    with replacing(path) as stream:
        figure.savefig(stream, format=path.suffix.lower().removeprefix("."))


def short(value: float) -> str:
    """A sum in USD as an axis has it: 1.5 M, 20 k."""
    for size, letter in ((1e9, " bn"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"
