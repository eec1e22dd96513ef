"""The picture of README: what a terminal shows, as SVG. `make docs` draws it, a test compares it."""

import io
import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.screen import terminal

PICTURE = Path(__file__).parents[2] / "docs" / "at-risk.svg"
WIDTH = 118
LINE = "indexer at-risk --min-debt 9000"
CHILD = "import sys; from indexer.cli.main import main; main(sys.argv[1:], prog_name='indexer')"


def drawn() -> str:
    """The command of LINE on the database of `indexer demo`."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")
    }
    environment["TERM"] = "xterm-256color"
    with tempfile.TemporaryDirectory() as folder:
        for words in (["demo", "demo"], LINE.split()[1:]):
            place = Path(folder) / "demo" if words != ["demo", "demo"] else Path(folder)
            out = terminal([sys.executable, "-c", CHILD, *words], place, environment, WIDTH)
    # How old the rows are depends on when it is drawn; bars go away again.
    shown = (re.sub(r"\x1b\[(\?25[hl]|\d*[AK])|\r", "", line) for line in out.decode().splitlines())
    lines = [line for line in shown if line.strip() and " old" not in line and "━" not in line]
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text(f"$ {LINE}", style="bold"))
    for line in lines:
        console.print(Text.from_ansi(line))
    picture = console.export_svg(title="indexer", unique_id="at-risk")
    picture = re.sub(r"\s*@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # no font is fetched from elsewhere
    return picture.replace("Fira Code, monospace", "ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace")


if __name__ == "__main__":
    PICTURE.write_text(drawn())
