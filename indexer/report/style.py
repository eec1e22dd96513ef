"""The one design of documents and of the desk: tokens of colour, space and type, and what tables and charts look like.

A document carries STYLE inside; the desk serves it as a file and adds only what a page has and a document has not.
"""

from indexer.report.palette import CLASSES, DARK, LIGHT, variables


def cards(selector: str) -> str:
    """A style in which a table's rows are cards: each cell is a line with its heading before it."""
    lines = {
        "thead": "display: none;",
        "table, tbody, tr, td": "display: block;",
        "tr": "border-bottom: 2px solid var(--axis); padding: var(--space-2) 0;",
        "td": "display: flex; justify-content: space-between; gap: var(--space-4); padding: 2px 0; white-space: normal; "
        "text-align: right;",
        "td::before": "content: attr(data-name); color: var(--faint); text-align: left; font: var(--small) var(--sans);",
        "td.empty": "display: none;",
    }
    every = ((", ".join(f"{selector} {one.strip()}" for one in what.split(",")), how) for what, how in lines.items())
    return " ".join(f"{what} {{ {how} }}" for what, how in every)


#: columns from which on a table's rows are cards on all but wide screens, and from which on it is set smaller
TABLE_CARDS, TABLE_SMALL = 8, 10
#: sizes of type and steps of space, the same on paper and on every screen
SCALE = (
    "--sans: system-ui, sans-serif; --mono: ui-monospace, monospace; "
    "--tiny: 12px; --small: 13px; --text: 14px; --large: 1.15em; --title: 1.5em; "
    "--space-1: 4px; --space-2: 8px; --space-3: 12px; --space-4: 16px; --space-6: 24px; --space-8: 32px;"
)
TOKENS = f"""
:root {{ color-scheme: light dark; {SCALE} {variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}
"""
STYLE = f"""{TOKENS}
body {{ font: var(--text)/1.5 var(--sans); color: var(--ink); background: var(--paper); max-width: 1600px;
  margin: var(--space-8) auto; padding: 0 var(--space-4); }}
h1 {{ font-size: var(--title); margin-bottom: 0; overflow-wrap: anywhere; }}
h2 {{ font-size: var(--large); margin: var(--space-8) 0 var(--space-2); }}
.as-of, .note {{ color: var(--faint); margin: var(--space-1) 0; }}
.note {{ max-width: 80ch; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: var(--small); }}
th, td {{ padding: .25em .7em; text-align: left; border-bottom: 1px solid var(--grid); white-space: nowrap; vertical-align: top; }}
th {{ border-bottom: 2px solid var(--axis); white-space: normal; vertical-align: bottom; }}
.number {{ text-align: right; font-variant-numeric: tabular-nums; }}
.address {{ font-family: var(--mono); font-size: var(--tiny); }}
.many table {{ font-size: var(--tiny); }}
.many th, .many td {{ padding: .25em .5em; }}
.many .address {{ font-size: 11px; }}
.short {{ display: none; }}
@media screen and (max-width: 1500px) {{ .many .whole {{ display: none; }} .many .short {{ display: inline; }} }}
@media screen and (max-width: 1100px) {{ .whole {{ display: none; }} .short {{ display: inline; }} }}
.liquidatable {{ color: var(--danger); font-weight: 600; }}
.at-risk {{ color: var(--warning); font-weight: 600; }}
.status::before {{ content: ""; display: inline-block; width: .6em; height: .6em; margin-right: .45em; box-sizing: border-box;
  background: currentColor; print-color-adjust: exact; }}
.status.liquidatable::before {{ clip-path: polygon(50% 0, 100% 100%, 0 100%); }}
.status.at-risk::before {{ clip-path: polygon(50% 0, 100% 50%, 50% 100%, 0 50%); }}
.status.healthy::before {{ border-radius: 50%; }}
.status.no-debt::before {{ border-radius: 50%; background: none; border: 1.5px solid currentColor; }}
.status.unpriceable::before, .status.unverified::before {{ background: none; border: 1.5px solid currentColor; }}
.charts {{ display: flex; flex-wrap: wrap; gap: var(--space-4); align-items: flex-start; margin: var(--space-4) 0; }}
svg {{ max-width: 100%; height: auto; border: 1px solid var(--grid); }}
{"".join(f"svg.{name}, svg .{name} {{ {what}: var(--{name.removesuffix('line')}); }} " for name, what in CLASSES.items())}
@media screen and (max-width: 900px) {{ {cards(".some")} }}
@media screen and (max-width: 640px) {{ body {{ margin: var(--space-4) auto; }} {cards(".wide")} }}
@page {{ size: A4 landscape; margin: 10mm; }}
@media print {{
  :root {{ color-scheme: light; {variables(LIGHT)} }}
  body {{ margin: 0; max-width: none; padding: 0; font-size: 10pt; }}
  .wide {{ overflow: visible; }}
  table {{ font-size: 8pt; max-width: 100%; }}
  th, td {{ padding: .15em .45em; }}
  td.text {{ white-space: normal; }}
  .address {{ font-size: 6.5pt; }}
  .many table {{ font-size: 6.5pt; }}
  .whole {{ display: inline; }} .short {{ display: none; }}
  .many .whole {{ display: none; }} .many .short {{ display: inline; }}
  .many th, .many td {{ padding: .15em .3em; }}
  tr, svg {{ break-inside: avoid; }}
  thead {{ display: table-header-group; }}
  h2 {{ break-after: avoid; }}
}}
"""
