"""A report as plain data - titles, tables, charts - and its three forms: terminal, Markdown, self-contained HTML.

A column is called as in SQL and carries its unit in its name: `_usd`, `_percent`, amounts in whole tokens.
"""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from html import escape
from typing import Any, TextIO

from indexer.report.charts import Chart, svg
from indexer.report.charts import text as chart_text
from indexer.table import BOLD, DIM, folded, room, styled, write_table
from indexer.text import Row, cell_text, json_value, printable, shown


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
    """One line a value: section, row (from 1 on), column, value."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("section", "row", "column", "value"))
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
    for section in report.sections:
        line("")
        line(printable(section.title), BOLD)
        if section.rows:
            write_table(section.columns, section.rows, stream, headers=True)
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
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1600px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.5em; margin-bottom: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15em; margin: 2em 0 .4em; }
.as-of, .note { color: #555; margin: .3em 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25em .7em; text-align: left; border-bottom: 1px solid #e4e4e4; white-space: nowrap; }
th { border-bottom: 2px solid #999; }
.number { text-align: right; font-variant-numeric: tabular-nums; }
td.text { font-family: ui-monospace, monospace; font-size: 12px; }
.charts { display: flex; flex-wrap: wrap; gap: 1em; align-items: flex-start; margin: 1em 0; }
svg { max-width: 100%; height: auto; border: 1px solid #e4e4e4; }
"""


def write_html(report: Report, stream: TextIO) -> None:
    """One file with its charts inside; it opens without a network."""
    title, as_of = safe(report.title), safe(report.as_of)
    stream.write(
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{title}</title>\n'
        f'<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class="as-of">{as_of}</p>\n'
    )
    for section in report.sections:
        stream.write(f"<h2>{safe(section.title)}</h2>\n")
        if section.rows:
            write_html_table(section, stream)
        if section.charts:
            pictures = "\n".join(svg(chart, report.as_of) for chart in section.charts)
            stream.write(f'<div class="charts">\n{pictures}\n</div>\n')
        stream.writelines(f'<p class="note">{safe(note)}</p>\n' for note in section.notes)
    stream.write("</body>\n</html>\n")


def write_html_table(section: Section, stream: TextIO) -> None:
    kinds = ["number" if number else "text" for number in numeric(section)]
    head = "".join(f'<th class="{kind}">{safe(name)}</th>' for kind, name in zip(kinds, section.columns, strict=True))
    stream.write(f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n')
    for row in cells(section):
        line = "".join(f'<td class="{kind}">{safe(cell)}</td>' for kind, cell in zip(kinds, row, strict=True))
        stream.write(f"<tr>{line}</tr>\n")
    stream.write("</tbody></table></div>\n")


def safe(value: Any) -> str:
    return escape(printable(str(value)))
