"""Charts as handwritten SVG, and as text: bars of one quantity, lines over time. They load nothing external.

Their strings come from strangers: text is escaped, and control characters are spelt out.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from indexer.report.diagram import Diagram, diagram_svg, diagram_text
from indexer.report.palette import AXIS, FAINT, GRID, GUIDE, INK, NEGATIVE, PAPER, SERIES
from indexer.text.values import printable

#: names beside the generic ones, of which what makes a PNG of it knows nothing
FONTS = "system-ui, Helvetica, Arial, Liberation Sans, DejaVu Sans, Noto Sans, sans-serif"
WIDTH = 760
LABELS, VALUES = 190, 110
LETTERS = 24  # characters of a label that fit into LABELS
ROW = 24
HEIGHT = 260
#: a health factor far above 1 says nothing more, and would flatten the line near 1
CEILING = 4.0
TEXT_BAR = 40
BLOCKS = " ▏▎▍▌▋▊▉█"
SPARKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Bars:
    """One bar per label, to the left of zero where the value is negative; None is drawn as "unknown"."""

    title: str
    unit: str
    bars: Sequence[tuple[str, float | None]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Series of (unix seconds, value); None interrupts the line. `guide` is a level marked by a line of its own."""

    title: str
    unit: str
    series: Mapping[str, Sequence[tuple[int, float | None]]]
    guide: float | None = None


Chart = Bars | Lines | Diagram


def short(value: float) -> str:
    """A number for an axis or a bar: 1.2k, 3.45M."""
    if 0 < abs(value) < 0.01:
        return f"{value:.2g}"
    for limit, letter in ((1.0, ""), (1e3, "k"), (1e6, "M"), (1e9, "B")):
        if round(abs(value) / limit, 2) < 1000:
            return f"{value / limit:,.2f}{letter}"
    return f"{value / 1e12:,.2f}T"


def svg(chart: Chart, caption: str) -> str:
    """The chart with its title and unit above it, and `caption`, its block and time, below."""
    match chart:
        case Bars():
            body, height = bars_svg(chart)
        case Lines():
            body, height = lines_svg(chart)
        case Diagram():
            body, height = diagram_svg(chart)
    return framed(f"{chart.title} ({chart.unit})" if chart.unit else chart.title, body, height, caption)


def framed(title: str, body: str, height: int, caption: str) -> str:
    """A whole picture: the title, `body` (SVG, `height` high), and the caption."""
    total = height + 64
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}" role="img"'
        f' font-family="{FONTS}" font-size="12" class="ink" fill="{INK}"><title>{safe(title)}</title>'
        f'<rect width="{WIDTH}" height="{total}" class="paper" fill="{PAPER}"/>'
        f'<text x="8" y="20" font-size="14" font-weight="600">{safe(title)}</text>'
        f'<g transform="translate(0 34)">{body}</g>'
        f'<text x="8" y="{total - 8}" font-size="11" class="faint" fill="{FAINT}">{safe(caption)}</text></svg>'
    )


def safe(text: str) -> str:
    return escape(printable(text))


def cut(text: str, length: int) -> str:
    text = printable(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def bars_svg(chart: Bars) -> tuple[str, int]:
    known = [value for _, value in chart.bars if value is not None]
    low, high = min([0.0, *known]), max([0.0, *known])
    span = (high - low) or 1.0
    room = WIDTH - LABELS - VALUES - (VALUES if low < 0 else 0)
    left = LABELS + (VALUES if low < 0 else 0)
    zero = left + room * -low / span
    parts = []
    for i, (label, value) in enumerate(chart.bars):
        y = i * ROW
        parts.append(f'<text x="{LABELS - 8}" y="{y + 15}" text-anchor="end">{safe(cut(label, LETTERS))}</text>')
        if value is None:
            parts.append(f'<text x="{zero + 6:.1f}" y="{y + 15}" class="faint" fill="{FAINT}">unknown</text>')
            continue
        width = abs(value) / span * room
        x = zero - width if value < 0 else zero
        colour = NEGATIVE if value < 0 else SERIES[0]
        parts.append(
            f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="{ROW - 8}" fill="{colour}"/>'
            f'<text x="{x - 6 if value < 0 else x + width + 6:.1f}" y="{y + 15}"'
            f' text-anchor="{"end" if value < 0 else "start"}">{short(value)}</text>'
        )
    height = max(len(chart.bars), 1) * ROW
    parts.append(f'<line x1="{zero:.1f}" y1="0" x2="{zero:.1f}" y2="{height}" class="axis" stroke="{AXIS}"/>')
    return "".join(parts), height


def lines_svg(chart: Lines) -> tuple[str, int]:
    points = [point for series in chart.series.values() for point in series]
    values = [min(value, CEILING) for _, value in points if value is not None]
    low, high = scale([*values, *([chart.guide] if chart.guide is not None else [])])
    first, last = min((at for at, _ in points), default=0), max((at for at, _ in points), default=1)
    left, right = 52, WIDTH - 16

    def x(at: float) -> float:
        return left + (right - left) * ((at - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return HEIGHT - 24 - (HEIGHT - 40) * (min(value, CEILING) - low) / (high - low)

    parts = [
        f'<line x1="{left}" y1="{y(tick):.1f}" x2="{right}" y2="{y(tick):.1f}" class="grid" stroke="{GRID}"/>'
        f'<text x="{left - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        for tick in ticks(low, high)
    ]
    if chart.guide is not None:
        level = y(chart.guide)
        parts.append(
            f'<line x1="{left}" y1="{level:.1f}" x2="{right}" y2="{level:.1f}" stroke="{GUIDE}" stroke-dasharray="5 4"/>'
        )
    for i in range(4 if last > first else 1):
        at = first + (last - first) * i / 3
        anchor = "start" if i == 0 and last > first else "end" if i == 3 else "middle"
        parts.append(f'<text x="{x(at):.1f}" y="{HEIGHT - 6}" text-anchor="{anchor}">{moment(at, last - first)}</text>')
    for number, (label, series) in enumerate(chart.series.items()):
        colour = SERIES[number % len(SERIES)]
        for run in runs(series):
            path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in run)
            if len(run) > 1:
                parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>')
            if len(run) <= 60:
                parts += [f'<circle cx="{x(at):.1f}" cy="{y(v):.1f}" r="2.4" fill="{colour}"/>' for at, v in run]
        parts.append(
            f'<rect x="{left}" y="{HEIGHT + 6 + number * 18}" width="12" height="12" fill="{colour}"/>'
            f'<text x="{left + 18}" y="{HEIGHT + 16 + number * 18}">{safe(cut(label, 90))}</text>'
        )
    return "".join(parts), HEIGHT + 8 + 18 * len(chart.series)


def runs(series: Sequence[tuple[int, float | None]]) -> list[list[tuple[int, float]]]:
    """The stretches of a series without a gap."""
    found: list[list[tuple[int, float]]] = [[]]
    for at, value in series:
        if value is None:
            found.append([])
        else:
            found[-1].append((at, value))
    return [run for run in found if run]


def scale(values: Sequence[float]) -> tuple[float, float]:
    """The ends of the axis: a little beyond the values, and far enough apart that its ticks differ in the digits shown."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    margin = max((high - low) * 0.08, abs(high) * 0.02, 0.01)
    return (max(low - margin, 0.0) if low >= 0 else low - margin), high + margin


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between both ends."""
    step = 10 ** math.floor(math.log10((high - low) / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 6)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def moment(at: float, span: float) -> str:
    """A time on the axis in UTC, as precise as the span needs."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d" if span > 5 * 86_400 else "%m-%d %H:%M:%S")


def text(chart: Chart, width: int | None = None) -> str:
    """The chart for a terminal of that many columns, or for Markdown, under its title."""
    title = printable(f"{chart.title} ({chart.unit})" if chart.unit else chart.title)
    match chart:
        case Bars():
            lines = bars_text(chart, width or 100)
        case Lines():
            lines = lines_text(chart, width or 100)
        case Diagram():
            lines = diagram_text(chart, width or 100)
    return "\n".join([title, *lines])


def bars_text(chart: Bars, width: int) -> list[str]:
    largest = max((abs(value) for _, value in chart.bars if value is not None), default=0.0) or 1.0
    letters = min(44, max(width - 24, 8))
    wide = max((len(cut(label, letters)) for label, _ in chart.bars), default=0)
    longest = min(TEXT_BAR, max(width - wide - 14, 1))
    lines = []
    for label, value in chart.bars:
        eighths = round(abs(value or 0.0) / largest * longest * 8)
        bar = "█" * (eighths // 8) + BLOCKS[eighths % 8].strip()
        told = "unknown" if value is None else short(value)
        lines.append(f"{cut(label, letters):{wide}}  {told:>10}  {bar}".rstrip())
    return lines


def lines_text(chart: Lines, width: int) -> list[str]:
    """One sparkline per series: the lowest value in each of equal parts of its time."""
    lines = []
    for label, series in chart.series.items():
        known = [(at, value) for at, value in series if value is not None]
        if not known:
            lines += [cut(label, min(90, width)), "  unknown throughout"]
            continue
        first, last = series[0][0], series[-1][0]
        cells: list[float | None] = [None] * min(TEXT_BAR, len(known), width - 2)
        for at, value in known:
            i = min(int((at - first) / ((last - first) or 1) * len(cells)), len(cells) - 1)
            cells[i] = min(value, CEILING) if cells[i] is None else min(value, CEILING, cells[i] or 0.0)
        low, high = scale([cell for cell in cells if cell is not None])
        line = "".join(" " if c is None else SPARKS[min(int((c - low) / (high - low) * 8), 7)] for c in cells)
        worst = min(value for _, value in known)
        lines += [
            cut(label, min(90, width)),
            f"  {line}",
            f"  {moment(first, last - first)} to {moment(last, last - first)} UTC, lowest {floor4(worst)}, "
            f"last {floor4(known[-1][1])}",
        ]
    return lines


def floor4(value: float) -> str:
    """Rounds down: a value below 1 must never read as 1."""
    return f"{math.floor(value * 10_000) / 10_000:,.4f}"
