"""The colours of every document and chart, by light and by dark; an SVG carries the light ones and takes the page's."""

from collections.abc import Mapping

#: Okabe and Ito's colours, told apart by the colour-blind too
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
NEGATIVE = SERIES[1]
GUIDE = "#c0392b"
INK, FAINT, AXIS, GRID, PAPER = "#222", "#5a5a5a", "#444", "#e4e4e4", "#fff"

LIGHT: Mapping[str, str] = {
    "ink": INK, "faint": FAINT, "axis": AXIS, "grid": GRID, "paper": PAPER, "danger": "#b03000", "warning": "#8a5a00",
    "link": "#005f94", "line": "#b9b9b9", "field": "#fff", "raised": "#f7f7f7", "good": "#007a55", "flash": "#ffe9a8",
    "alarm": "#b3261e", "on-alarm": "#fff", "notice": "#0b4f78", "on-notice": "#fff",
    "series-1": SERIES[0], "series-2": SERIES[1], "series-3": SERIES[2],
}  # fmt: skip
DARK: Mapping[str, str] = {
    "ink": "#e6e6e6", "faint": "#a8a8a8", "axis": "#bbb", "grid": "#3a3a3a", "paper": "#161616", "danger": "#ff8a5c",
    "warning": "#f0b84d", "link": "#6cc0f5", "line": "#5a5a5a", "field": "#1f1f1f", "raised": "#1e1e1e", "good": "#35c48f",
    "flash": "#5b4a12", "alarm": "#8c1d18", "on-alarm": "#fff", "notice": "#0e4a6e", "on-notice": "#fff",
    "series-1": "#56b4e9", "series-2": "#ff8a5c", "series-3": "#35c48f",
}  # fmt: skip
#: the classes of an SVG's elements, and what of them a page colours
CLASSES = {"ink": "fill", "faint": "fill", "paper": "fill", "axis": "stroke", "grid": "stroke", "inkline": "stroke"}


def variables(colours: Mapping[str, str]) -> str:
    """The colours as CSS variables."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
