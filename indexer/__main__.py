"""The command's entry: the rest takes a moment to import, in which Ctrl-C has to be as quiet as later."""

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

    A folder `protocols` or a module `click.py` in there is none of ours. `python -P` does the same.
    """
    with suppress(OSError):  # the folder may be gone
        here = Path.cwd()
        if not sys.flags.safe_path and Path(sys.path[0]) == here != Path(__file__).resolve().parents[1]:
            del sys.path[0]


if __name__ == "__main__":
    main()
