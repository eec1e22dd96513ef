"""A report as plain data - titles, tables, charts - and its three forms: terminal, Markdown, self-contained HTML.

A column is called as in SQL and carries its unit in its name: `_usd`, `_percent`, amounts in whole tokens.
"""

import csv
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum
from html import escape
from typing import Any, TextIO

from indexer.model import Status
from indexer.report.charts import Chart, svg
from indexer.report.charts import text as chart_text
from indexer.report.style import STYLE, TABLE_CARDS, TABLE_SMALL
from indexer.text.table import BOLD, DIM, STATUS_STYLES, folded, room, styled, write_table
from indexer.text.values import Row, cell_text, json_value, printable, short_address, shown

BLOCK = {"block_number", "block_time"}


class Form(StrEnum):
    """How a report is written."""

    TERMINAL = "terminal"
    MARKDOWN = "md"
    HTML = "html"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class Section:
    """One table with notes for the reader, and its charts."""

    title: str
    columns: Sequence[str] = ()
    rows: Sequence[Row] = ()
    notes: Sequence[str] = ()
    charts: Sequence[Chart] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """`as_of` says the block and time (UTC) of every number; it is repeated under each chart."""

    title: str
    as_of: str
    sections: Sequence[Section] = field(default_factory=list)


def write(report: Report, form: Form, stream: TextIO) -> None:
    """Write a report in one of its forms."""
    {
        Form.TERMINAL: write_terminal,
        Form.MARKDOWN: write_markdown,
        Form.HTML: write_html,
        Form.JSON: write_json,
        Form.CSV: write_csv,
    }[form](report, stream)


def cells(section: Section) -> list[list[str]]:
    """The rows as people read them."""
    return [[shown(name, value) for name, value in zip(section.columns, row, strict=True)] for row in section.rows]


def numeric(section: Section) -> list[bool]:
    """Which columns hold numbers, and are aligned to the right."""
    return [
        bool(section.rows) and all(row[i] is None or not isinstance(row[i], str) for row in section.rows)
        for i in range(len(section.columns))
    ]


def for_reading(section: Section) -> Section:
    """The section without what tells a reader nothing: columns that are empty throughout, and the one block of all rows.

    That block and its time are at the head of every report.
    """
    if not section.rows:
        return section
    several = {name for i, name in enumerate(section.columns) if len({str(row[i]) for row in section.rows}) > 1} & BLOCK
    kept = [
        i
        for i, name in enumerate(section.columns)
        if any(row[i] not in (None, "") for row in section.rows) and (name not in BLOCK or several)
    ]
    rows = [[row[i] for i in kept] for row in section.rows]
    return replace(section, columns=[section.columns[i] for i in kept], rows=rows)


# for programs ------------------------------------------------------------------------------------------------------


def write_json(report: Report, stream: TextIO) -> None:
    """One object: title, as_of, and of each section title, notes and rows as objects; numbers are not rounded."""
    sections = [
        {
            "title": section.title,
            "notes": list(section.notes),
            "rows": [
                {name: bare(value) for name, value in zip(section.columns, row, strict=True)} for row in section.rows
            ],
        }
        for section in report.sections
    ]
    json.dump({"title": report.title, "as_of": report.as_of, "sections": sections}, stream, indent=1)
    stream.write("\n")


def write_csv(report: Report, stream: TextIO) -> None:
    """One line a value: section, row (from 1 on), column, value; those of the section `report` are title and as_of."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("section", "row", "column", "value"))
    writer.writerow(("report", 1, "title", cell_text(report.title)))
    writer.writerow(("report", 1, "as_of", cell_text(report.as_of)))
    for section in report.sections:
        for number, row in enumerate(section.rows, 1):
            for name, value in zip(section.columns, row, strict=True):
                writer.writerow([cell_text(part) for part in (section.title, number, name, bare(value))])


def bare(value: Any) -> Any:
    """A value as JSON carries it; a health factor with all of its digits as text."""
    return str(value) if isinstance(value, Decimal) else json_value(value)


# terminal ----------------------------------------------------------------------------------------------------------


def write_terminal(report: Report, stream: TextIO) -> None:
    width = room(stream)

    def line(text: str, style: str = "") -> None:
        stream.writelines(styled(part, style, stream) + "\n" for part in folded(text, width))

    line(printable(report.title), BOLD)
    line(printable(report.as_of), DIM)
    for section in map(for_reading, report.sections):
        line("")
        line(printable(section.title), BOLD)
        if section.rows:
            write_table(section.columns, section.rows, stream)
        stream.writelines(f"\n{chart_text(chart, width)}\n" for chart in section.charts)
        for note in section.notes:
            line(printable(note), DIM)


# Markdown ----------------------------------------------------------------------------------------------------------

MARKUP = re.compile(r"[\\`*\[\]<>|#&~$]")
LINK = re.compile(r"www\.|://|@", re.IGNORECASE)


def marked(text: str) -> str:
    """Escapes text so that Markdown sees no markup, HTML or link in it."""
    quiet = MARKUP.sub(lambda match: "\\" + match[0], printable(text))
    return re.sub(r"[.:@]", r"\\\g<0>", quiet) if LINK.search(quiet) else quiet


def write_markdown(report: Report, stream: TextIO) -> None:
    stream.write(f"# {marked(report.title)}\n\n{marked(report.as_of)}\n")
    for section in report.sections:
        stream.write(f"\n## {marked(section.title)}\n")
        if section.rows:
            lines = [
                [marked(name) for name in section.columns],
                ["---:" if number else "---" for number in numeric(section)],
                *([marked(cell).replace("\n", " ") for cell in row] for row in cells(section)),
            ]
            stream.write("\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
        stream.writelines(
            "\n" + "".join(f"    {line}\n" for line in chart_text(chart).splitlines()) for chart in section.charts
        )
        stream.writelines(f"\n{marked(note)}\n" for note in section.notes)


# HTML --------------------------------------------------------------------------------------------------------------

#: nothing is fetched and no script runs, whatever a symbol says
ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STATUSES = frozenset(Status)


UNITS = {"usd": "USD", "percent": "%", "seconds": "s", "hhi": "HHI"}


def heading(column: str) -> str:
    """A column's name as people write it, with its unit: debt_at_risk_usd is Debt at risk (USD)."""
    words, _, last = column.rpartition("_")
    unit = UNITS.get(last) if words else None
    text = (words if unit else column).replace("_", " ")
    text = re.sub(r"\b(aave|compound) (v\d)\b", lambda found: f"{found[1].title()} {found[2].upper()}", text)
    text = text[:1].upper() + text[1:]
    return f"{text} ({unit})" if unit else text


@dataclass(frozen=True, slots=True)
class Live:
    """What a table on a page has and one on paper has not: links, each made of a column's name and a value."""

    #: of a heading: where a click leads, and `ascending` or `descending` if the rows are sorted by it, else empty
    sort: Callable[[str], tuple[str, str] | None] = lambda _column: None
    #: of a cell: where a click leads
    link: Callable[[str, Any], str | None] = lambda _column, _value: None
    #: of a row: the names of the columns by which it is the same row after an update
    key: Sequence[str] = ()


def write_html(report: Report, stream: TextIO) -> None:
    """One file with its charts inside; it opens without a network."""
    title, as_of = safe(report.title), safe(report.as_of)
    stream.write(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class="as-of">{as_of}</p>\n'
    )
    write_html_sections(report, stream)
    stream.write("</body>\n</html>\n")


def write_html_sections(report: Report, stream: TextIO, live: Live | None = None) -> None:
    """The sections alone, for a page that has its own head."""
    for section in map(for_reading, report.sections):
        stream.write(f"<h2>{safe(section.title)}</h2>\n")
        if section.rows:
            write_html_table(section, stream, live)
        if section.charts:
            pictures = "\n".join(svg(chart, report.as_of) for chart in section.charts)
            stream.write(f'<div class="charts">\n{pictures}\n</div>\n')
        stream.writelines(f'<p class="note">{safe(note)}</p>\n' for note in section.notes)


def write_html_table(section: Section, stream: TextIO, live: Live | None = None) -> None:
    live = live or Live()
    kinds = ["number" if number else "text" for number in numeric(section)]
    names = [safe(heading(name)) for name in section.columns]
    head = "".join(map(headed, kinds, section.columns, names, map(live.sort, section.columns)))
    # what is looked at every day scrolls in its box; on paper, and on a phone, there is none
    many = (" some" if len(names) >= TABLE_CARDS and not live.key else "") + (
        " many" if len(names) >= TABLE_SMALL else ""
    )
    label = f' tabindex="0" role="region" aria-label="{safe(section.title)}"' if live.key else ""
    stream.write(f'<div class="wide{many}"{label}><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n')
    keys = [section.columns.index(name) for name in live.key if name in section.columns]
    for row, texts in zip(section.rows, cells(section), strict=True):
        line = "".join(
            f'<td class="{" ".join([kind, *look(column, cell)])}" data-name="{name}">{content(column, cell, live.link(column, value))}</td>'
            for kind, name, column, cell, value in zip(kinds, names, section.columns, texts, row, strict=True)
        )
        key = f' data-key="{safe(" ".join(str(row[i]) for i in keys))}"' if keys else ""
        stream.write(f"<tr{key}>{line}</tr>\n")
    stream.write("</tbody></table></div>\n")


def headed(kind: str, column: str, name: str, sort: tuple[str, str] | None) -> str:
    """One heading, with a link where a click on it sorts the rows."""
    if sort is None:
        return f'<th class="{kind}" scope="col" title="{safe(column)}">{name}</th>'
    href, way = sort
    sorted_ = f' aria-sort="{way}"' if way else ""
    return f'<th class="{kind}" scope="col"{sorted_} title="{safe(column)}"><a href="{safe(href)}">{name}</a></th>'


def content(column: str, cell: str, href: str | None = None) -> str:
    """A cell's HTML: an address whole and shortened, of which the style shows one, or a status with its shape."""
    text = safe(cell)
    if ADDRESS.fullmatch(cell):
        text = f'<span class="whole">{cell}</span><span class="short" title="{cell}">{short_address(cell)}</span>'
    elif column.startswith("status") and cell in STATUSES:
        text = f'<span class="status {cell}">{cell}</span>'
    return text if href is None else f'<a href="{safe(href)}">{text}</a>'


def look(column: str, cell: str) -> list[str]:
    """What else a cell is, for its style: an address, empty, or a status with a colour of its own beside its word."""
    if ADDRESS.fullmatch(cell):
        return ["address"]
    if not cell:
        return ["empty"]
    return [cell] if column.startswith("status") and cell in STATUS_STYLES else []


def safe(value: Any) -> str:
    return escape(printable(str(value)))
