"""Every page in a real browser, in both themes and four widths: what it asks for, what it shows, and how it changes.

One server, one file and one browser for all of it. The screenshots are kept beside pytest's other temporary files.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from indexer.store.store import Store
from indexer.terminal.options import Session
from indexer.web.desk import Desk
from tests.conftest import required
from tests.devnet.packages import package
from tests.recorded import CONFIG, recorded
from tests.web.conftest import HOSTILE
from tests.web.test_events import Running, wait_for
from tests.web.test_events import listening as listens

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing")

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()
WIDTHS = (390, 768, 1280, 1920)
THEMES = ("light", "dark")
AXE = "4.14.1"
#: a page shows a commit of another process within 3 s; twice that, as the machine may be busy
DEADLINE_MS = 6_000
PATHS = {
    "at-risk": "/",
    "at-risk-below": "/?below=3&sort=health",
    "wallet-search": "/wallet",
    "wallet": "/wallet/{wallet}",
    "wallet-supposed": "/wallet/{wallet}?price.WETH=-20",
    "person": "/wallet/@family",
    "book": "/book",
    "what-if": "/what-if",
    "what-if-supposed": "/what-if?price.eth=-20&sweep=btc",
    "opportunities": "/opportunities",
    "forecast": "/forecast",
    "alerts": "/alerts",
    "sync": "/sync",
    "refused": "/?below=x",
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six markets as a sync recorded them, with a watch list of which one label is hostile."""
    path = recorded(tmp_path_factory.mktemp("desk") / "indexer.db")
    with Store(path) as store:
        found = store.conn.execute(
            "select distinct wallet from positions where deployment like 'aave%' and debt_usd > 0 order by debt_usd desc limit 3"
        ).fetchall()
        for number, (wallet,) in enumerate(found):
            label = HOSTILE if number == 2 else f"wallet {number}"
            store.conn.execute("insert into watches values (?, ?, null, 0)", (wallet, label))
            store.conn.execute("insert into watch_groups values ('family', ?)", (wallet,))
        store.conn.commit()
    return path


@pytest.fixture(scope="module")
def wallet(file: Path) -> str:
    with closing(sqlite3.connect(file)) as conn:
        return str(conn.execute("select wallet from watches where label = 'wallet 0'").fetchone()[0])


@contextmanager
def serving(file: Path) -> Iterator[Running]:
    desk = Desk(Session(CONFIG, file), query_seconds=60, wait_seconds=60)
    with listens("127.0.0.1", 0) as listener:
        found = Running(desk, listener, keep_alive=15)
        found.thread.start()
        wait_for(lambda: found.server.started)
        yield found
        found.end()


@pytest.fixture(scope="module")
def server(file: Path) -> Iterator[Running]:
    with serving(file) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    required(found is not None, "Chromium")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=found, args=FLAGS)
        yield opened
        opened.close()


class Tab:
    """A page, and everything it said or asked for that it should not have."""

    def __init__(self, browser: Any, server: Running, width: int = 1280, theme: str = "light") -> None:
        self.base = f"http://127.0.0.1:{server.port}"
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce"
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.wrong: list[str] = []
        self.finished: list[Any] = []
        self.page.on("console", lambda message: self.wrong.append(message.text))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("request", self._asks)
        self.page.on("requestfinished", self._finishes)

    def _asks(self, request: Any) -> None:
        if not request.url.startswith(self.base):
            self.wrong.append(f"asks {request.url}")

    def _finishes(self, request: Any) -> None:
        self.finished.append(request)

    def weight(self) -> int:
        """Bytes of the bodies that came, the stream of events apart."""
        came = [request for request in self.finished if not request.url.endswith("/events")]
        return sum(request.sizes()["responseBodySize"] for request in came)

    def open(self, path: str) -> Any:
        self.page.goto(self.base + path)
        self.page.wait_for_function("() => typeof htmx !== 'undefined'")
        return self.page


@pytest.fixture
def tab(browser: Any, server: Running) -> Iterator[Callable[..., Tab]]:
    opened: list[Tab] = []

    def new(width: int = 1280, theme: str = "light") -> Tab:
        opened.append(Tab(browser, server, width, theme))
        return opened[-1]

    yield new
    for one in opened:
        one.context.close()


@pytest.fixture(scope="module")
def shots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screenshots")


@pytest.mark.parametrize("theme", THEMES)
def test_every_page_is_clean_whole_and_asks_nobody_else(
    tab: Callable[..., Tab], wallet: str, shots: Path, theme: str
) -> None:
    """No message in the console (of the policy, of scripts, of missing files), no request to another host, nothing wider
    than the screen, at every width."""
    one = tab(WIDTHS[0], theme)
    for name, path in PATHS.items():
        page = one.open(path.format(wallet=wallet))
        if name == "what-if-supposed":
            page.wait_for_selector(".plot canvas")
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            page.screenshot(path=shots / f"{name}-{width}-{theme}.png", full_page=True)
            page.wait_for_function("() => document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        expected = {"Failed to load resource: the server responded with a status of 400 (Bad Request)"}
        assert [text for text in one.wrong if name != "refused" or text not in expected] == [], name
        one.wrong.clear()
    print(f"screenshots: {shots}")


def test_no_page_weighs_more_than_a_photograph(tab: Callable[..., Tab], wallet: str) -> None:
    """As it is sent, with everything it asks for, nothing in the browser's memory."""
    for name, path in PATHS.items():
        one = tab()
        page = one.open(path.format(wallet=wallet))
        for _ in range(DEADLINE_MS // 100):  # what was loaded is told a moment later
            if one.weight() > 10_000:
                break
            page.wait_for_timeout(100)
        page.wait_for_timeout(300)
        assert 10_000 < one.weight() < 150_000, (name, one.weight())


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious(tab: Callable[..., Tab], wallet: str, theme: str) -> None:
    """Contrast, names of fields, order of headings, roles: https://github.com/dequelabs/axe-core"""
    required(shutil.which("npm") is not None, "npm")
    script = (package("axe-core", AXE) / "axe.min.js").read_text()
    one = tab(1280, theme)
    for name, path in PATHS.items():
        assert serious(one.open(path.format(wallet=wallet)), script) == [], name


@pytest.mark.parametrize("theme", THEMES)
def test_axe_finds_nothing_serious_where_nothing_is_synced(browser: Any, tmp_path: Path, theme: str) -> None:
    required(shutil.which("npm") is not None, "npm")
    script = (package("axe-core", AXE) / "axe.min.js").read_text()
    path = tmp_path / "empty.db"
    Store(path).close()
    with serving(path) as empty:
        one = Tab(browser, empty, 1280, theme)
        for name in ("/", "/opportunities", "/sync"):
            assert serious(one.open(name), script) == [], name
        one.context.close()


def serious(page: Any, script: str) -> list[tuple[str, list[str]]]:
    """What axe finds on a page that is serious or critical, with the elements."""
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [
        (violation["id"], [node["html"][:200] for node in violation["nodes"][:3]])
        for violation in found["violations"]
        if violation["impact"] in ("serious", "critical")
    ]


def test_numbers_on_screen_are_those_of_the_file(tab: Callable[..., Tab], file: Path) -> None:
    page = tab(1920).open("/")
    shown = page.eval_on_selector_all(
        "#part tbody tr", "rows => rows.map(row => [...row.cells].map(cell => [cell.dataset.name, cell.innerText]))"
    )
    with closing(sqlite3.connect(file)) as conn:
        rows = conn.execute(
            "select wallet, debt_usd, collateral_usd from positions where status in ('at-risk', 'liquidatable') order by debt_usd desc, health_factor"
        ).fetchall()
    assert len(shown) == len(rows) > 30
    for cells, (wallet, debt, collateral) in zip(map(dict, shown), rows, strict=True):
        assert (cells["Wallet"], cells["Debt (USD)"], cells["Collateral (USD)"]) == (
            wallet,
            f"{debt:,.2f}",
            f"{collateral:,.2f}",
        )


def commit(file: Path, sql: str) -> None:
    """A commit by another process."""
    code = "import sqlite3, sys; conn = sqlite3.connect(sys.argv[1]); conn.execute(sys.argv[2]); conn.commit()"
    subprocess.run([sys.executable, "-c", code, str(file), sql], check=True)


def test_a_commit_shows_and_filter_order_scroll_and_focus_stay(tab: Callable[..., Tab], file: Path) -> None:
    one = tab()
    page = one.open("/?below=3&sort=health&min_debt=100")
    page.wait_for_timeout(500)  # the browser listens by then
    first = page.locator("#part tbody tr").nth(12)
    key = first.get_attribute("data-key")
    debt = f"#part tr[data-key='{key}'] td[data-name='Debt (USD)']"
    before = page.inner_text(debt)
    page.locator("summary").first.evaluate("node => node.parentElement.open = true")
    page.focus("input[name=min_debt]")
    page.evaluate("window.scrollTo(0, 300)")
    page.evaluate("window.kept = document.querySelector('#part tbody tr')")
    wallet, deployment = str(key).split(" ")[:2]
    commit(
        file,
        f"update positions set debt_usd = debt_usd + 1234.5 where wallet = '{wallet}' and deployment = '{deployment}'",
    )
    page.wait_for_function(
        "([where, old]) => document.querySelector(where)?.innerText !== old", arg=[debt, before], timeout=DEADLINE_MS
    )
    assert float(page.inner_text(debt).replace(",", "")) == pytest.approx(float(before.replace(",", "")) + 1234.5)
    page.wait_for_function("where => document.querySelector(where).classList.contains('changed')", arg=debt)
    assert page.locator(".changed").count() < 6  # that cell and sums, not the whole table
    assert page.evaluate("document.activeElement.name") == "min_debt"
    assert page.evaluate("scrollY") == 300
    assert page.evaluate("kept.isConnected"), "the table was replaced instead of changed"
    assert page.url.endswith("/?below=3&sort=health&min_debt=100")
    assert page.input_value("select[name=sort]") == "health"
    assert page.get_attribute("th[aria-sort]", "aria-sort") == "ascending"
    assert one.wrong == []


def test_filters_apply_as_they_are_set_and_the_address_carries_them(tab: Callable[..., Tab], file: Path) -> None:
    one = tab()
    page = one.open("/")
    page.select_option("select[name=protocol]", "maker")
    page.wait_for_function("() => location.search.includes('protocol=maker')")
    page.fill("input[name=below]", "2")
    page.wait_for_function("() => location.search.includes('below=2')")
    with closing(sqlite3.connect(file)) as conn:
        (count,) = conn.execute(
            "select count(*) from positions where protocol = 'maker' and health_factor < 2"
        ).fetchone()
    page.wait_for_function("count => document.querySelectorAll('#part tbody tr').length === count", arg=count)
    assert "protocol=maker" in page.get_attribute("#twins a", "href")
    address = page.url
    again = tab().open(address.removeprefix(one.base))
    assert again.locator("#part tbody tr").count() == count
    page.click("text=Clear")
    page.wait_for_function("() => location.search === ''")
    assert one.wrong == []


def test_a_slider_shows_what_simulate_computes_and_the_link_carries_it(tab: Callable[..., Tab]) -> None:
    one = tab()
    page = one.open("/what-if")
    slider = page.locator("input[name='price.eth']")
    slider.focus()
    for _ in range(20):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function("() => location.search.includes('price.eth=-20')")
    assert page.locator("output").nth(1).inner_text() == "-20 %"
    page.wait_for_selector("text=Becomes liquidatable")
    told = page.inner_text("[data-value='new debt']")
    assert tab().open(page.url.removeprefix(one.base)).inner_text("[data-value='new debt']") == told
    assert one.wrong == []


def test_the_keyboard_reaches_everything(tab: Callable[..., Tab], wallet: str) -> None:
    """Skip link, navigation, search, filters, headings that sort, wallets; each with a visible focus."""
    page = tab().open("/")
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "() => { const e = document.activeElement, s = getComputedStyle(e);"
                " return [e.tagName, e.name || e.innerText || e.className, s.outlineStyle !== 'none' || s.outlineWidth !== '0px'] }"
            )
        )
    names = [str(name) for _, name, _ in reached]
    assert names[0] == "To the content"
    for wanted in ("At risk", "Sync", "whom", "wallet", "sort", "Clear", "Health factor"):
        assert any(wanted in name for name in names), (wanted, names)
    assert all(visible for _, _, visible in reached)
    page.focus("input[name=whom]")
    page.keyboard.type(wallet)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/wallet/{wallet}")


def test_a_page_without_a_server_says_so(browser: Any, file: Path) -> None:
    with listens("127.0.0.1", 0) as listener:
        running = Running(Desk(Session(CONFIG, file)), listener, keep_alive=15)
        running.thread.start()
        wait_for(lambda: running.server.started)
        one = Tab(browser, running)
        page = one.open("/sync")
        wait_for(lambda: running.bell.clients == 1)
        assert "The server does not answer" not in page.inner_text("#band")
        running.end()
    page.wait_for_selector("html.unheard", state="attached")
    assert "The server does not answer" in page.inner_text("#band")
    one.context.close()
