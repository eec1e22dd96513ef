"""How a bench is run: `python -m tests.bench.NAME [--quick]`, which prints one JSON object."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple


class Result(NamedTuple):
    """One thing measured."""

    name: str
    value: float
    unit: str


def run(bench: Callable[[bool], Iterable[Result]]) -> None:
    """The command of a bench: measures, with little data if --quick is given, and prints what came out."""
    module = sys.modules[bench.__module__]
    parser = argparse.ArgumentParser(description=module.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="with little data, in seconds")
    quick = parser.parse_args().quick
    started = time.monotonic()
    results = [result._asdict() for result in bench(quick)]
    report = {
        "bench": Path(module.__file__ or "").stem,
        "quick": quick,
        "python": platform.python_version(),
        "seconds": round(time.monotonic() - started, 1),
        "results": [{**result, "value": float(f"{result['value']:.4g}")} for result in results],
    }
    print(json.dumps(report))
