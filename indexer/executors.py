"""Where tasks run that only compute: in line, in processes of this machine, or on Dask's workers.

A task is a function of a module with paths, names and numbers as its arguments, and small results: a task names a file and
never carries positions, as moving one costs more than evaluating it. Workers of other machines see the same files.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any, TypeVar
from urllib.parse import urlsplit

from indexer.errors import ConfigError, IndexerError
from indexer.extras import NAME, how_to_install

T = TypeVar("T")
#: how often processes are started anew after one was killed
RENEWALS = 5
#: for the first answer of a scheduler
CONNECT_SECONDS = 5


class InLine(Executor):
    """Runs each task at once, in this process."""

    def submit(self, task: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(task(*args, **kwargs))
        return done


def check(where: str | None, *, insecure: bool = False) -> None:
    """Raises `ConfigError` for what names no place for tasks, and for one that whoever reaches it could make run code."""
    if where is None or re.fullmatch(r"processes:[1-9]\d{0,3}", where):
        return
    url = urlsplit(where)
    try:
        named = url.scheme in ("tcp", "tls") and bool(url.hostname) and url.port is not None
    except ValueError:
        named = False
    if not named:
        raise ConfigError(
            f"{where!r} is no scheduler: processes:4, tcp://HOST:PORT or tls://HOST:PORT of a Dask scheduler"
        )
    if url.scheme == "tcp" and not insecure and not _loopback(str(url.hostname)):
        raise ConfigError(
            f"{where} runs the code of whoever reaches its port: use tls:// with certificates (docs/scale.md), or say "
            "--insecure-scheduler where nobody else can reach it"
        )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@contextmanager
def executor(where: str | None, *, insecure: bool = False) -> Iterator[Executor]:
    """None: in line; `processes:N`; `tcp://` or `tls://` of a Dask scheduler (extra `dask`)."""
    check(where, insecure=insecure)
    if where is None:
        yield InLine()
    elif where.startswith("processes:"):
        with ProcessPoolExecutor(int(where.partition(":")[2]), get_context("spawn")) as pool:
            yield pool
    else:
        try:
            from distributed import Client, Security  # noqa: PLC0415 - an extra, and slow to import
        except ImportError:
            raise IndexerError(f"{where} needs the extra `dask`: {how_to_install('dask')}") from None
        try:
            if where.startswith("tls:") and Security().get_connection_args("client")["ssl_context"] is None:  # type: ignore[no-untyped-call]
                raise ValueError("Dask's configuration names none of its certificates")
            client = Client(where, set_as_default=False, timeout=CONNECT_SECONDS)  # type: ignore[no-untyped-call]
        except (OSError, TimeoutError, ValueError) as error:
            raise IndexerError(f"no scheduler at {where}: {_why(where, error)}") from None
        with closing(client):
            _require_same_version(client, where)
            yield client.get_executor()  # type: ignore[no-untyped-call]


def _why(where: str, error: Exception) -> str:
    """What Dask says, in one line; of tls:// also what both sides need."""
    told = " ".join(str(error.__cause__ or error).split())
    if where.startswith("tls:"):
        return f"{told}; scheduler, workers and this program need certificates of one authority (docs/scale.md)"
    return told


def _require_same_version(client: Any, where: str) -> None:
    """IndexerError naming workers that run another version of this program, or none."""
    mine = version(NAME)
    found = client.run(installed, on_error="return")
    wrong = {str(worker): told for worker, told in found.items() if told != mine}
    if wrong:
        told = ", ".join(f"{worker}: {one}" for worker, one in sorted(wrong.items()))
        raise IndexerError(
            f"{where}: this is {NAME} {mine}, and workers run another: {told}; install the same everywhere"
        )


def installed() -> str:
    """The version of this program where this runs."""
    return version(NAME)


def results(
    where: str | None, task: Callable[..., T], arguments: Sequence[Sequence[Any]], *, insecure: bool = False
) -> list[T]:
    """What the task answers to each of these arguments, in their order, wherever it runs.

    Tasks of a process that was killed run again. Raises what a task raises.
    """
    found: dict[int, T] = {}
    for _ in range(1 + RENEWALS):
        with executor(where, insecure=insecure) as pool:
            futures = {place: pool.submit(task, *given) for place, given in enumerate(arguments) if place not in found}
            try:
                for place, future in futures.items():
                    found[place] = future.result()
            except BrokenProcessPool:
                found |= {
                    place: one.result() for place, one in futures.items() if one.done() and one.exception() is None
                }
                continue
        return [found[place] for place in range(len(arguments))]
    raise IndexerError(f"{where}: processes were killed {1 + RENEWALS} times; is there enough memory for so many?")
