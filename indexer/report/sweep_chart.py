"""The chart of a sweep: liquidatable debt, stacked by protocol, over the change of a price; as SVG or PNG."""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from indexer.boundary.files import replacing
from indexer.errors import ConfigError, IndexerError
from indexer.extras import how_to_install
from indexer.report.charts import FONTS, WIDTH, cut, framed, safe, short, ticks
from indexer.report.palette import AXIS, FAINT, GRID, INK, SERIES

SUFFIXES = (".png", ".svg")
LEFT, RIGHT, TOP, HEIGHT = 84, WIDTH - 60, 10, 320
LEGEND = 18
ZOOM = 2  # of a PNG

Point = Callable[[int, float], str]


def check(path: Path) -> None:
    """Raise `ConfigError` for another format, and `IndexerError` where a PNG cannot be made, before any work is done."""
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"a chart is a .png or .svg file, not {path.name!r}")
    if path.suffix.lower() != ".png":
        return
    if find_spec("resvg_py") is None:
        raise IndexerError(f"a PNG needs resvg-py, an SVG does not: name a .svg file, or {how_to_install('charts')}")
    letter = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="20" height="20"><text y="15" font-family="{}">{}</text></svg>'
    )
    if png(letter.format(FONTS, "M")) == png(letter.format(FONTS, "")):
        raise IndexerError(
            f"a PNG needs one of the fonts {FONTS}, and none is installed: name a .svg file, or install one "
            "(Debian, Ubuntu: apt install fonts-dejavu-core)"
        )


def png(picture: str) -> bytes:
    """An SVG as PNG."""
    from resvg_py import svg_to_bytes  # noqa: PLC0415 - an extra

    return bytes(svg_to_bytes(svg_string=picture, zoom=ZOOM))


def draw(path: Path, name: str, rows: Sequence[Mapping[str, Any]], remark: str = "") -> None:
    """Write the chart of `sweep_rows`; `name` is what was swept, `remark` the other assumptions."""
    text = picture(name, rows, remark)
    content = png(text) if path.suffix.lower() == ".png" else text.encode()
    with replacing(path) as stream:
        stream.write(content)


def picture(name: str, rows: Sequence[Mapping[str, Any]], remark: str = "") -> str:
    """The chart as SVG, with debt in USD on the left axis and wallets on the right one."""
    steps = list(rows) if len(rows) > 1 else [*rows, *rows]  # a single step becomes a level line
    first, last = steps[0]["change_percent"], steps[-1]["change_percent"]
    shares = [(row["change_percent"] - first) / (last - first) if last != first else i for i, row in enumerate(steps)]
    layers = {
        column.removesuffix("_debt_usd").replace("_", "-"): [row[column] for row in steps]
        for column in rows[0]
        if column.endswith("_debt_usd") and column != "bad_debt_usd"
    }
    bad = [row["bad_debt_usd"] for row in steps]
    wallets = [row["wallets"] for row in steps]
    most = max(*bad, *(sum(values) for values in zip(*layers.values(), strict=True))) * 1.05 or 1.0
    crowd = max(*wallets, 1) * 1.05

    def at(highest: float) -> Point:
        return lambda i, value: f"{LEFT + (RIGHT - LEFT) * shares[i]:.1f},{height(value, highest):.1f}"

    parts = [
        *side(most, LEFT - 6, "end", short, grid=True),
        *side(crowd, RIGHT + 6, "start", lambda value: f"{value:g}" if value == int(value) else "", grid=False),
        *below(first, last),
        *stacked(layers, at(most)),
        line(bad, at(most), INK, dashes="6 4"),
        line(wallets, at(crowd), FAINT),
        f'<text transform="translate(14 {(TOP + HEIGHT) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "liquidatable debt (USD, at the changed prices)</text>",
        f'<text transform="translate({WIDTH - 8} {(TOP + HEIGHT) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "liquidatable wallets</text>",
        f'<text x="{(LEFT + RIGHT) / 2:.0f}" y="{HEIGHT + 36}" text-anchor="middle">'
        f"change of the price of {safe(cut(name, 60))} (%)</text>",
    ]
    keys = [(label, SERIES[i % len(SERIES)], "") for i, label in enumerate(layers)]
    keys += [("debt beyond collateral", INK, "6 4"), ("wallets (right)", FAINT, "")]
    for i, (label, colour, dashes) in enumerate(keys):
        x, y = LEFT + i % 3 * 205, HEIGHT + 54 + i // 3 * LEGEND
        parts.append(
            f'<line x1="{x}" y1="{y}" x2="{x + 18}" y2="{y}" stroke="{colour}" stroke-width="{3 if dashes else 8}"'
            f' stroke-dasharray="{dashes or "none"}"/><text x="{x + 24}" y="{y + 4}">{safe(label)}</text>'
        )
    caption = f"block {rows[0]['block_number']}, {rows[0]['block_time']}" + (f"; {remark}" if remark else "")
    title = f"Debt that could be liquidated if the price of {name} changed"
    return framed(title, "".join(parts), HEIGHT + 54 + (len(keys) + 2) // 3 * LEGEND, cut(caption, 130))


def height(value: float, highest: float) -> float:
    return HEIGHT - (HEIGHT - TOP) * value / highest


def side(highest: float, x: float, anchor: str, text: Callable[[float], str], *, grid: bool) -> list[str]:
    """The numbers along an axis from 0 to `highest`, with lines across the picture if `grid`."""
    parts = []
    for tick in ticks(0, highest):
        y = height(tick, highest)
        parts.append(f'<text x="{x}" y="{y + 4:.1f}" text-anchor="{anchor}">{text(tick)}</text>')
        if grid:
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" class="grid" stroke="{GRID}"/>')
    return parts


def below(first: float, last: float) -> list[str]:
    """The changes in per cent below the picture, in the direction of the sweep."""
    parts = []
    for tick in ticks(min(first, last), max(first, last)) if first != last else [first]:
        x = LEFT + (RIGHT - LEFT) * ((tick - first) / (last - first) if last != first else 0.5)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT + 18}" text-anchor="middle">{tick:g} %</text>')
        parts.append(f'<line x1="{x:.1f}" y1="{HEIGHT}" x2="{x:.1f}" y2="{HEIGHT + 4}" class="axis" stroke="{AXIS}"/>')
    return parts


def stacked(layers: Mapping[str, Sequence[float]], point: Point) -> list[str]:
    """One area per layer, each on top of those before it."""
    parts = []
    floor = [0.0] * max(map(len, layers.values()), default=0)
    for number, values in enumerate(layers.values()):
        top = [low + value for low, value in zip(floor, values, strict=True)]
        corners = [point(i, value) for i, value in enumerate(top)]
        corners += [point(i, value) for i, value in reversed(list(enumerate(floor)))]
        colour = SERIES[number % len(SERIES)]
        parts.append(f'<polygon points="{" ".join(corners)}" fill="{colour}" fill-opacity="0.85"/>')
        floor = top
    return parts


def line(values: Sequence[float], point: Point, colour: str, dashes: str = "none") -> str:
    path = " ".join(point(i, value) for i, value in enumerate(values))
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-dasharray="{dashes}"/>'
