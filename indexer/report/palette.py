"""The colours of every document and chart, by light and by dark; an SVG carries the light ones and takes the page's."""

from collections.abc import Mapping

#: Okabe and Ito's colours, told apart by the colour-blind too
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
NEGATIVE = SERIES[1]
GUIDE = "#c0392b"
INK, FAINT, AXIS, GRID, PAPER = "#222", "#5a5a5a", "#444", "#e4e4e4", "#fff"

LIGHT: Mapping[str, str] = {
    "ink": INK, "faint": FAINT, "axis": AXIS, "grid": GRID, "paper": PAPER, "danger": "#b03000", "warning": "#8a5a00",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ink": "#e6e6e6", "faint": "#a8a8a8", "axis": "#bbb", "grid": "#3a3a3a", "paper": "#161616", "danger": "#ff8a5c",
    "warning": "#f0b84d",
}  # fmt: skip
#: the classes of an SVG's elements, and what of them a page colours
CLASSES = {"ink": "fill", "faint": "fill", "paper": "fill", "axis": "stroke", "grid": "stroke", "inkline": "stroke"}


def variables(colours: Mapping[str, str]) -> str:
    """The colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
