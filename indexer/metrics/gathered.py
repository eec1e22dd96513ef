"""What the processes of several chains tell, as if one process did: each writes its metrics to a file of the folder."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from indexer.metrics.file_rows import FileRows
from indexer.metrics.meters import PREFIX

log = logging.getLogger(__name__)

#: of alerts, which the file of watched wallets has and no chain's
OF_ALERTS = frozenset({f"{PREFIX}_alert_queue", f"{PREFIX}_alerts"})


class Gathered(Collector):
    """A collector of the files that the chains' processes write, and of the alerts in `watch_db`."""

    def __init__(self, files: Iterable[Path], watch_db: Path) -> None:
        self.files, self.alerts = list(files), FileRows(watch_db)

    def describe(self) -> Iterable[Metric]:
        """Nothing: what there is depends on the files."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Each metric once, with the samples of all chains."""
        found: dict[str, Metric] = {}
        seen: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        for one in self._told():
            merged = found.setdefault(one.name, Metric(one.name, one.documentation, one.type))
            for sample in one.samples:
                key = (sample.name, labels(sample.labels))
                if key not in seen:  # the version is the same everywhere
                    seen.add(key)
                    merged.samples.append(sample)
        yield from found.values()

    def _told(self) -> Iterator[Metric]:
        yield from self.alerts.collect()  # that file holds no chain
        for path in self.files:
            try:
                text = path.read_text(encoding="utf-8")
            except FileNotFoundError:
                continue  # its first snapshot is not there yet
            except OSError as error:
                log.warning("%s cannot be read, so a chain's metrics are left out: %s", path, error.strerror)
                continue
            yield from (one for one in text_string_to_metric_families(text) if one.name not in OF_ALERTS)


def labels(of: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(of.items()))
