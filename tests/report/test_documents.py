"""HTML documents on paper, on a phone and in the dark, as a browser lays them out: nothing is cut, nothing is hidden."""

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from indexer.cli.main import main
from indexer.report import document
from indexer.report.document import Form, Report, Section, heading, write
from indexer.report.palette import DARK, LIGHT
from indexer.store.store import Store
from tests.conftest import required
from tests.recorded import CONFIG, recorded

pytestmark = pytest.mark.slow

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    required(found is not None, "Chromium")
    required(shutil.which("pdftotext") is not None, "pdftotext of poppler-utils")
    assert found is not None
    return found


@pytest.fixture(scope="module")
def documents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of the book and of several wallets, of six markets as a sync recorded them."""
    folder = tmp_path_factory.mktemp("documents")
    options = ["--config", str(CONFIG), "--db", str(recorded(folder / "indexer.db"))]
    with Store(folder / "indexer.db") as store:
        store.conn.execute("update deployments set chain = 'devnet'")  # as a sync by now does
        store.conn.commit()
        wallets = [
            row[0]
            for row in store.conn.execute(
                "select wallet from positions where status in ('at-risk', 'liquidatable') group by protocol, status"
            )
        ]
    found = {}
    for name, whom in (("book", ["book"]), ("wallets", wallets)):
        path = folder / f"{name}.html"
        result = CliRunner().invoke(main, [*options, "report", *whom, "--output", str(path)])
        assert result.exit_code == 0, result.output
        found[name] = path
    return found


class Cells(HTMLParser):
    """The texts of all table cells and headings, in order; what print leaves out of an address is left out."""

    def __init__(self) -> None:
        super().__init__()
        self.depth, self.skipping, self.many = 0, False, False
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        names = dict(attributes)
        if tag == "div" and "wide" in (names.get("class") or ""):
            self.many = "many" in (names["class"] or "")
        if tag in ("td", "th"):
            self.depth += 1
        if tag == "span":
            self.skipping = names.get("class") == ("whole" if self.many else "short")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.depth -= 1
        if tag == "span":
            self.skipping = False

    def handle_data(self, data: str) -> None:
        if self.depth and data.strip() and not self.skipping:
            self.texts.append(data.strip())


def printed(browser: str, page: Path, folder: Path) -> str:
    """The words of the page's PDF with their boxes, as pdftotext tells them."""
    pdf = folder / "page.pdf"
    subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={folder / 'profile'}",
         f"--print-to-pdf={pdf}", page.as_uri()],
        check=True, capture_output=True, timeout=120, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    done = subprocess.run(["pdftotext", "-bbox", str(pdf), "-"], check=True, capture_output=True, text=True)
    return done.stdout


WORD = re.compile(r'<word xMin="([\d.-]+)" yMin="([\d.-]+)" xMax="([\d.-]+)" yMax="([\d.-]+)">(.*?)</word>')


def problems(boxes: str, page: Path) -> list[str]:
    """What is not whole on paper: words beyond an edge, and words of tables that are missing or broken."""
    found, words = [], []
    for width, height, body in re.findall(r'<page width="([\d.]+)" height="([\d.]+)">(.*?)</page>', boxes, re.DOTALL):
        assert float(width) > float(height), "landscape"
        for left, top, right, bottom, word in WORD.findall(body):
            words.append(word)
            inside = (
                float(left) >= 0 and float(right) <= float(width) and float(top) >= 0 and float(bottom) <= float(height)
            )
            found += [] if inside else [f"beyond the edge: {word}"]
    parser = Cells()
    parser.feed(page.read_text())
    there: dict[str, int] = {}
    for word in words:
        there[word] = there.get(word, 0) + 1
    wanted: dict[str, int] = {}
    for text in parser.texts:
        for word in text.split():
            wanted[word] = wanted.get(word, 0) + 1
    return found + [f"missing: {word}" for word, count in wanted.items() if there.get(word, 0) < count]


@pytest.mark.parametrize("name", ["book", "wallets"])
def test_on_paper_every_table_is_whole(browser: str, documents: dict[str, Path], tmp_path: Path, name: str) -> None:
    assert problems(printed(browser, documents[name], tmp_path), documents[name]) == []


def test_a_table_that_is_cut_would_be_noticed(browser: str, documents: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "cut.html"
    page.write_text(
        documents["book"]
        .read_text()
        .replace("@media print", "@media none")
        .replace("landscape", "landscape; size: 8in 4in")
    )
    assert problems(printed(browser, page, tmp_path), page)


def laid_out(browser: str, page: Path, folder: Path, width: int, script: str) -> str:
    """What a script sees in the page at that width; the page's own policy forbids scripts, so a frame around it looks."""
    frame = folder / "frame.html"
    frame.write_text(
        f'<body><iframe src="{page.as_uri()}" style="width:{width}px;height:2000px;border:0"></iframe><pre id="out"></pre>'
        f"<script>document.querySelector('iframe').onload = e => {{ const d = e.target.contentDocument;"
        f"document.getElementById('out').textContent = ({script})(d, e.target.contentWindow); }};</script>"
    )
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", f"--user-data-dir={folder / 'profile'}",
         "--virtual-time-budget=5000", "--window-size=1400,2200", "--dump-dom", frame.as_uri()],
        check=True, capture_output=True, text=True, timeout=120, env={**os.environ, "HOME": str(folder)},
    )  # fmt: skip
    (told,) = re.findall(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    return told


HIDDEN = (
    "(d, w) => [...d.querySelectorAll('td')].filter(c => ['Health factor', 'Status'].includes(c.dataset.name))"
    ".map(c => c.getBoundingClientRect()).filter(b => b.left < 0 || b.right > w.innerWidth || !b.width).length"
    " + ' of ' + [...d.querySelectorAll('td')].filter(c => ['Health factor', 'Status'].includes(c.dataset.name)).length"
    " + ', page ' + (d.documentElement.scrollWidth > w.innerWidth ? 'too wide' : 'fits')"
)


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_health_and_status_are_in_sight_at_every_width(
    browser: str, documents: dict[str, Path], tmp_path: Path, width: int
) -> None:
    told = laid_out(browser, documents["wallets"], tmp_path, width, HIDDEN)
    hidden, every, page = re.fullmatch(r"(\d+) of (\d+), page (.*)", told).groups()  # type: ignore[union-attr]
    assert (hidden, page) == ("0", "fits")
    assert int(every) > 10


def test_headings_are_words_with_units() -> None:
    names = {
        "debt_usd": "Debt (USD)", "health_factor": "Health factor", "fall_percent": "Fall (%)", "aave_v3_debt_usd": "Aave V3 debt (USD)",
        "unmeasured_seconds": "Unmeasured (s)", "usd": "Usd",
    }  # fmt: skip
    assert {name: heading(name) for name in names} == names


def test_every_column_of_a_document_has_a_heading_without_underscores(documents: dict[str, Path]) -> None:
    for path in documents.values():
        heads = re.findall(r"<th [^>]*>(.*?)</th>", path.read_text())
        assert heads
        assert not [head for head in heads if "_" in head]


def test_chain_is_named(documents: dict[str, Path]) -> None:
    assert "Chain devnet, block " in documents["book"].read_text()


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio."""

    def light(colour: str) -> float:
        digits = colour.lstrip("#")
        digits = "".join(2 * c for c in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_can_be_read_in_light_and_in_dark(colours: dict[str, str]) -> None:
    for name in ("ink", "faint", "danger", "warning", "axis"):
        assert contrast(colours[name], colours["paper"]) >= 4.5, name


def test_a_status_has_its_word_and_a_style_and_nothing_else_has(tmp_path: Path) -> None:
    rows = [["at-risk", "at-risk"], ["liquidatable", "x"], ["evil", "liquidatable"]]
    with (tmp_path / "a.html").open("w+") as stream:
        write(Report("t", "a", [Section("s", ["status", "symbol"], rows)]), Form.HTML, stream)
        stream.seek(0)
        text = stream.read()
    assert re.findall(r'<td class="([^"]*)"', text) == [
        "text at-risk",
        "text",
        "text liquidatable",
        "text",
        "text",
        "text",
    ]
    assert document.STYLE.count("@media print") == 1
