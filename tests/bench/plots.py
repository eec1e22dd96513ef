"""The pictures of docs/performance.md: `python -m tests.bench.plots RESULTS`, a file of JSON lines as `make bench` prints them."""

import json
import sys
from pathlib import Path

from indexer.report.charts import Bars, svg

DOCS = Path(__file__).parents[2] / "docs"
#: file, title, what of which bench, unit
PLOTS = (
    ("performance-follow.svg", "A block of a live tail, by borrowers", "follow", "borrowers, follow: CPU", "s of CPU"),
    ("performance-sync.svg", "A first sync, by borrowers", "follow", "borrowers, first sync: CPU", "s of CPU"),
    (
        "performance-report.svg",
        "report book, by positions",
        "reading",
        "positions, report book --format md: CPU",
        "s of CPU",
    ),
    ("performance-top.svg", "top, by positions", "reading", "positions, top --csv: CPU", "s of CPU"),
)


def main() -> None:
    found = {}
    for line in Path(sys.argv[1]).read_text().splitlines():
        report = json.loads(line)
        found[report["bench"]] = report
    for file, title, bench, name, unit in PLOTS:
        if bench not in found:
            continue
        bars = [
            (result["name"].removesuffix(f" {name}"), result["value"])
            for result in found[bench]["results"]
            if result["name"].endswith(f" {name}")
        ]
        (DOCS / file).write_text(svg(Bars(title, unit, bars), f"Python {found[bench]['python']}, {bench}") + "\n")


if __name__ == "__main__":
    main()
