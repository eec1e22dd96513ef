"""`make demo`: boot a local node with the real contracts, give it a history, sync it, list who is at risk.

`make sample` does the same and keeps the database for `indexer demo`.
"""

import lzma
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

from tests.devnet.__main__ import MARKETS, deployed
from tests.devnet.node import CHAIN_ID, Anvil
from tests.devnet.packages import PackageError, missing_tools
from tests.devnet.scenario import config_toml

FOLDER = Path(".devnet")
SAMPLE = Path(__file__).parents[1] / "indexer" / "sample"
USERS = 40
SEED = 1


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n{text}", flush=True)


def indexer(*arguments: str) -> None:
    """Run one command as a user would, and show it."""
    say("$ indexer " + " ".join(arguments))
    subprocess.run([sys.executable, "-m", "indexer", *arguments], check=True)


def main() -> None:
    missing = missing_tools()
    if missing:
        sys.exit(f"the demo needs {' and '.join(missing)} on PATH: install Node.js 20 or later")
    started = time.monotonic()
    FOLDER.mkdir(exist_ok=True)
    config, db = FOLDER / "demo.toml", FOLDER / "demo.db"
    for old in FOLDER.glob("demo.db*"):
        old.unlink()
    with ExitStack() as stack:
        say("A local node with the real contracts, and a history made from a seed (the first time downloads them)")
        node = stack.enter_context(Anvil())
        markets = list(deployed(node, list(MARKETS), SEED, USERS))
        config.write_text(config_toml(CHAIN_ID, node.url, markets))
        options = ["--config", str(config), "--db", str(db)]
        indexer(*options, "sync", "--chain", "devnet", "--supplies", "--liquidations")
        indexer(*options, "verify", "--all", "--table")
        indexer(*options, "status", "--table")
        indexer(*options, "at-risk", "--table", "--min-debt", "1000")
    command = shutil.which("indexer", path=str(Path(sys.executable).parent)) or "indexer"
    say(f"{time.monotonic() - started:.0f} s. The node is gone, the database stays. Ask it:")
    print(f'  {Path(command).absolute()} --db {db} query "select status, count(*) from positions group by status" -t')
    print("To keep a node running: .venv/bin/python -m tests.devnet")
    if "--sample" in sys.argv[1:]:
        pack(db, config)


def pack(db: Path, config: Path) -> None:
    """Keep the database, packed, and its configuration for `indexer demo`."""
    whole = FOLDER / "sample.db"
    whole.unlink(missing_ok=True)
    with closing(sqlite3.connect(db)) as conn:
        conn.execute("vacuum into ?", (str(whole),))
    SAMPLE.mkdir(exist_ok=True)
    (SAMPLE / "indexer.db.xz").write_bytes(lzma.compress(whole.read_bytes(), preset=9))
    # The port that `python -m tests.devnet` serves the same chain at.
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8545", config.read_text())
    (SAMPLE / "indexer.toml").write_text(text)
    say(f"{SAMPLE} is written")


if __name__ == "__main__":
    try:
        main()
    except PackageError as error:
        sys.exit(str(error))
    except subprocess.CalledProcessError as error:  # it has told why
        sys.exit(error.returncode)
    except KeyboardInterrupt:
        sys.exit(130)
