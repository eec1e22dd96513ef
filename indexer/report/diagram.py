"""A reliability diagram: how often came what was forecast, over the forecast, on logarithmic axes, as SVG and as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from indexer.report.palette import AXIS, FAINT, GRID, SERIES

LEFT, RIGHT, TOP, BOTTOM = 64, 560, 8, 316
#: the ends of both axes; what lies below is drawn at the lower one
LOWEST, HIGHEST = 0.0005, 1.0
TICKS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
TEXT_BAR = 30
#: what the words of a line take, with seven digits of observations
WORDS = 56


@dataclass(frozen=True, slots=True)
class Diagram:
    """Points (mean probability, frequency, low and high end of its interval or None, observations); `unit` is of both axes."""

    title: str
    points: Sequence[tuple[float, float, float | None, float | None, int]]
    unit: str = "share"


def along(value: float) -> float:
    """Where a share lies between the ends of an axis, 0 to 1."""
    return math.log(min(max(value, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)


def x(value: float) -> float:
    return LEFT + (RIGHT - LEFT) * along(value)


def y(value: float) -> float:
    return BOTTOM - (BOTTOM - TOP) * along(value)


def diagram_svg(chart: Diagram) -> tuple[str, int]:
    """The body and its height."""
    parts = [
        f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{RIGHT}" y2="{y(tick):.1f}" class="grid" stroke="{GRID}"/>'
        f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{BOTTOM}" class="grid" stroke="{GRID}"/>'
        f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick * 100:g} %</text>'
        f'<text x="{x(tick):.1f}" y="{BOTTOM + 16}" text-anchor="middle">{tick * 100:g} %</text>'
        for tick in TICKS
    ]
    parts.append(
        f'<line x1="{x(LOWEST)}" y1="{y(LOWEST)}" x2="{x(HIGHEST)}" y2="{y(HIGHEST)}" class="axis" stroke="{AXIS}"'
        ' stroke-dasharray="5 4"/>'
    )
    for probability, frequency, low, high, count in chart.points:
        at = x(probability)
        if low is not None and high is not None:
            parts.append(
                f'<line x1="{at:.1f}" y1="{y(low):.1f}" x2="{at:.1f}" y2="{y(high):.1f}" stroke="{SERIES[0]}"'
                ' stroke-width="1.6"/>'
            )
        parts.append(
            f'<circle cx="{at:.1f}" cy="{y(frequency):.1f}" r="4" fill="{SERIES[0]}"/>'
            f'<text x="{at + 7:.1f}" y="{y(frequency) + 14:.1f}" font-size="10" class="faint" fill="{FAINT}">{count:,}</text>'
        )
    parts.append(
        f'<text x="{(LEFT + RIGHT) / 2}" y="{BOTTOM + 34}" text-anchor="middle">forecast (mean of the bin); '
        "numbers: observations</text>"
        f'<text transform="translate(14 {(TOP + BOTTOM) / 2}) rotate(-90)" text-anchor="middle">how often it came, 95 %</text>'
    )
    return "".join(parts), BOTTOM + 40


def diagram_text(chart: Diagram, width: int) -> list[str]:
    """One line a bin: the forecast, what came with its interval, a bar of what came with a mark at the forecast."""
    room = max(min(TEXT_BAR, width - WORDS), 1)
    lines = []
    for probability, frequency, low, high, count in chart.points:
        filled = round(along(frequency) * room)
        bar = ["█"] * filled + [" "] * (room + 1 - filled)
        bar[round(along(probability) * room)] = "|"
        ends = "" if low is None or high is None else f"[{low * 100:.2f}, {high * 100:.2f}]"
        lines.append(f"{probability * 100:6.2f} %  came {frequency * 100:6.2f} % {ends:15} {''.join(bar)} n {count:,}")
    return lines
