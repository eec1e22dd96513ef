"""The command's entry: the rest takes a moment to import, in which Ctrl-C has to be as quiet as later."""

import sys


def main() -> None:
    try:
        from indexer.cli.main import main as command  # noqa: PLC0415
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted.\n")
        sys.exit(130)
    command()


if __name__ == "__main__":
    main()
