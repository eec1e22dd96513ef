"""Pages from templates: the whole page, or only the part that an open one asks for again."""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from indexer.report.charts import short
from indexer.report.document import Live, Report, Section, heading, write_html_sections, write_html_table
from indexer.text.values import age, for_people, iso, printable, shown
from indexer.web.band import Band

#: the pages by their path, as the navigation names them
NAVIGATION = (
    ("", "At risk"),
    ("wallet", "Wallet"),
    ("book", "Book"),
    ("what-if", "What-if"),
    ("opportunities", "Opportunities"),
    ("forecast", "Forecast"),
    ("alerts", "Alerts"),
    ("sync", "Sync"),
)
#: USD from which on a card shows the magnitude
LONG = 10_000_000
#: columns of addresses that have a page of their own
PEOPLE = ("wallet", "owner", "account")


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows: a template with what it needs, and the query under which its twins have the same rows."""

    title: str
    template: str
    context: Mapping[str, Any] = field(default_factory=dict)
    band: Band | None = None
    #: path and query of the rows as JSON and as CSV, with {form} for either
    twin: str | None = None
    status: int = 200


@cache
def environment() -> Environment:
    found = Environment(
        loader=PackageLoader("indexer.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {
        "shown": lambda value, column="": shown(column, value),
        "age": age,
        "iso": iso,
        "printable": printable,
    }
    found.filters |= {"money": money, "code": code}
    found.filters |= {"json": json.dumps, "heading": heading, "count": lambda value: f"{value:,}"}
    found.globals |= {"navigation": NAVIGATION}
    return found


def money(value: float | None) -> Markup:
    """An amount of USD for a card: whole up to ten million, by its magnitude beyond, with all digits behind it."""
    if value is None:
        return Markup("unknown")
    whole = f"${shown('usd', value)}"
    if abs(value) < LONG:
        return Markup("{}").format(whole)
    return Markup('<span title="{}">${}</span>').format(whole, short(value))


def code(text: str) -> Markup:
    """A sentence with its commands, which stand between backticks, set as such."""
    parts = printable(text).split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if i % 2 else part for i, part in enumerate(parts))


def response(request: Request, page: Shown) -> Response:
    """The page, or for a page that is open already (htmx says so) only what changes on it."""
    part = request.headers.get("hx-request") == "true"
    template = environment().get_template(page.template)
    here = request.url.path.strip("/").partition("/")[0]
    text = template.render(
        **{"page": page, "band": page.band, "here": "" if here == "at-risk" else here, "part": part, **page.context}
    )
    return HTMLResponse(text, page.status)


# tables ---------------------------------------------------------------------------------------------------------------


def person_link(column: str, value: Any) -> str | None:
    """Where an address in a table leads."""
    if column not in PEOPLE or not isinstance(value, str) or not value:
        return None
    return f"/wallet/{quote(value, safe='')}"


def table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    *,
    live: Live | None = None,
    key: Sequence[str] = (),
) -> Markup:
    """A table of rows; health factors are made of their exact digits, so that none is rounded up to safety."""
    section = Section(title, columns, list(for_people(columns, rows)))
    found = io.StringIO()
    write_html_table(section, found, live or Live(link=person_link, key=key))
    return Markup(found.getvalue())  # noqa: S704 - every cell was escaped by write_html_table


def sections(report: Report) -> Markup:
    """The sections of a report, as the document has them."""
    found = io.StringIO()
    write_html_sections(report, found, Live(link=person_link))
    return Markup(found.getvalue())  # noqa: S704 - as above


def refused(request: Request, title: str, words: str, status: int) -> Response:
    """A page that says why there is none."""
    return response(request, Shown(title, "refused.html", {"words": printable(words)}, status=status))
