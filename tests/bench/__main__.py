"""`python -m tests.bench`: the names of all benches, one a line; each is a command, `python -m tests.bench.NAME`."""

from pathlib import Path

for file in sorted(Path(__file__).parent.glob("*.py")):
    if '__name__ == "__main__":\n    run(' in file.read_text():
        print(file.stem)
