"""The fake node and an indexer that syncs from it, each a process of its own that is measured from outside."""

import json
import os
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

DEPLOYMENT = "fake-v3"
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Fake:
    """The node that runs, and the configuration and database of the indexer."""

    url: str
    config: Path
    database: Path

    def rpc(self, method: str, *params: Any) -> Any:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
        with urllib.request.urlopen(self.url, body) as answer:
            found = json.load(answer)
        if "error" in found:
            raise RuntimeError(f"{method}: {found['error']['message']}")
        return found["result"]

    def command(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "indexer", "--config", str(self.config), "--db", str(self.database), *words]

    def block(self) -> int | None:
        """The block of the last snapshot."""
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)) as conn:
            found: tuple[int | None] = conn.execute("select min(block_number) from deployments").fetchone()
            return found[0]


@contextmanager
def fake(
    folder: Path, users: int, logs: int, blocks: int, *, deployments: int = 1, options: Sequence[str] = ()
) -> Iterator[Fake]:
    """A node of so many users, logs and blocks; its market is configured under as many names as `deployments`.

    `options` are further ones of the node, such as its caps.
    """
    words = [f"--users={users}", f"--logs={logs}", f"--blocks={blocks}", *options]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.bench.fakenode", *words], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            _, port, provider = process.stdout.readline().split()
            config = folder / "fake.toml"
            lines = ["[chains.fake]", "chain_id = 1337", f'rpc = ["http://127.0.0.1:{port}"]']
            for n in range(deployments):
                lines += [
                    f"[deployments.{DEPLOYMENT}{n or ''}]",
                    'protocol = "aave-v3"\nchain = "fake"\nstart_block = 1',
                    f'addresses = {{ pool_addresses_provider = "{provider}" }}',
                ]
            config.write_text("\n".join(lines) + "\n")
            yield Fake(f"http://127.0.0.1:{port}", config, folder / "fake.db")
        finally:
            process.terminate()


class Spent(NamedTuple):
    """What a process has used so far: seconds of CPU, bytes written to the disk, megabytes of memory at most."""

    cpu: float
    written: int
    memory: float


def spent(pid: int) -> Spent:
    """Of a process that runs, by /proc (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    written = Path(f"/proc/{pid}/io").read_text().partition("write_bytes: ")[2].split()[0]
    peak = Path(f"/proc/{pid}/status").read_text().partition("VmHWM:")[2].split()[0]
    return Spent((int(fields[11]) + int(fields[12])) / TICKS, int(written), int(peak) / 1000)


def run_once(words: Sequence[str]) -> Spent:
    """What a process used by its end, its output dropped. Raises RuntimeError, with its message, if it fails."""
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        message = process.stderr.read()
        _, code, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(code)
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {message.decode().strip()}")
    return Spent(usage.ru_utime + usage.ru_stime, usage.ru_oublock * 512, usage.ru_maxrss / 1000)
