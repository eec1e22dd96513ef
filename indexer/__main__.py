"""The command's entry point: importing the rest takes a moment, and Ctrl-C must be quiet meanwhile too."""

import sys
from contextlib import suppress
from pathlib import Path


def main() -> None:
    leave_working_folder()
    try:
        from indexer.cli.main import main as command  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(130)
    command()


def leave_working_folder() -> None:
    """Takes the working folder off Python's path, where `python -m` puts it, unless it is this program's own.

    A folder `protocols` or a module `click.py` there would be imported instead of ours. `python -P` does the same.
    """
    with suppress(OSError):  # the folder may be gone
        here = Path.cwd()
        if not sys.flags.safe_path and Path(sys.path[0]) == here != Path(__file__).resolve().parents[1]:
            del sys.path[0]


if __name__ == "__main__":
    main()
