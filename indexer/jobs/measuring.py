"""The flags --metrics and --metrics-file of the verbs that go on, and what they make of a sync."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from indexer.errors import IndexerError
from indexer.extras import how_to_install
from indexer.terminal.options import Session

if TYPE_CHECKING:
    from indexer.chain.heads import Heads
    from indexer.model import Block
    from indexer.sync.sync import Sync

F = TypeVar("F", bound=Callable[..., Any])
#: the parameters that `metrics_options` gives a command
METRICS_FLAGS = ("metrics", "metrics_file")


def metrics_options(command: F) -> F:
    """Adds the flags that publish metrics."""
    flags = [
        click.option(
            "--metrics",
            metavar="[HOST:]PORT",
            help="Serve metrics for Prometheus there, for this machine unless HOST says otherwise; needs the extra `metrics`.",
        ),
        click.option(
            "--metrics-file",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE.prom",
            help="Write them to FILE after each snapshot, for the textfile collector of node_exporter.",
        ),
    ]
    for flag in reversed(flags):
        command = flag(command)
    return command


class Measured:
    """A sync whose metrics are published; without the flags it does nothing."""

    def __init__(self, write: Callable[[], None] = lambda: None) -> None:
        #: to be called after each snapshot, and after each that failed
        self.write = write
        self.follows: Callable[[Heads], None] = lambda _: None


@contextmanager
def needing_the_extra() -> Iterator[None]:
    """Around imports of what publishes. Raises `IndexerError` that says what to install where it is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise IndexerError(f"metrics need the extra `metrics`: {how_to_install('metrics')}") from error


@contextmanager
def measuring_all(
    flags: Mapping[str, Any], files: Sequence[Path], watch_db: Path
) -> Iterator[Callable[[], None] | None]:
    """Publishes what the processes of several chains write to these files; yields what is to be called after each snapshot.

    None without the flags. Raises `IndexerError` where the extra is missing. Evidence for what is removed, before and behind:
    only this command's own processes write these files, each anew with its next snapshot.
    """
    if flags["metrics"] is None and flags["metrics_file"] is None:
        yield None
        return
    with needing_the_extra():
        from prometheus_client import CollectorRegistry

        from indexer.metrics.gathered import Gathered
        from indexer.metrics.publishing import published
    for path in files:
        path.unlink(missing_ok=True)  # what an earlier command counted
    registry = CollectorRegistry()
    registry.register(Gathered(files, watch_db))
    try:
        with published(registry, flags["metrics"], flags["metrics_file"]) as write:
            yield write
    finally:
        for path in files:
            path.unlink(missing_ok=True)


@contextmanager
def measuring(session: Session, worker: "Sync", flags: Mapping[str, Any]) -> Iterator[Measured]:
    """Publishes the metrics of a sync until the end. Raises `IndexerError` where the extra is missing."""
    if flags["metrics"] is None and flags["metrics_file"] is None:
        yield Measured()
        return
    with needing_the_extra():
        from indexer.metrics.file_rows import FileRows
        from indexer.metrics.meters import Meters
        from indexer.metrics.publishing import published
    meters = Meters(worker.chain.name)
    meters.registry.register(FileRows(session.db))
    worker.chain.observe(meters.asked)
    worker.stage = meters.stage

    def saw(block: "Block") -> None:
        meters.saw(block.number)

    worker.canon.saw = saw
    with published(meters.registry, flags["metrics"], flags["metrics_file"]) as write:
        found = Measured(write)

        def follows(heads: "Heads") -> None:
            meters.announced = lambda: heads.announced

        found.follows = follows
        yield found
