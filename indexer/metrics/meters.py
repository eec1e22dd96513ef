"""What one process counts while it follows a chain: requests, the stages of a snapshot, the newest block it knows of."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

PREFIX = "lending_indexer"
#: seconds; a snapshot of a few deployments takes under one, a first sync hours
STAGE_BUCKETS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1_000, 3_600)
REQUEST_BUCKETS = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
STAGES = ("market", "logs", "read", "evaluate", "audit", "commit")


class Meters:
    """Counters of a process in a registry of their own, so that several in one process do not clash."""

    def __init__(self, chain: str, registry: CollectorRegistry | None = None) -> None:
        self.chain = chain
        self.registry = registry or CollectorRegistry()
        self.head = 0
        #: the newest block that a node has announced, -1 for none
        self.announced: Callable[[], int] = lambda: -1
        where: dict[str, Any] = {"namespace": PREFIX, "registry": self.registry}
        Gauge("build_info", "The version that runs.", ["version"], **where).labels(version("lending-indexer")).set(1)
        head = Gauge("head_block", "The newest block that a node has told of.", ["chain"], **where)
        head.labels(chain).set_function(lambda: max(self.head, self.announced()))
        self._stages = Histogram(
            "snapshot_seconds", "What a stage of a snapshot takes.", ["chain", "stage"], buckets=STAGE_BUCKETS, **where
        )
        for stage in STAGES:
            self._stages.labels(chain, stage)
        self._requests = Counter(
            "rpc_requests",
            "Requests to nodes by what became of them.",
            ["chain", "endpoint", "method", "outcome"],
            **where,
        )
        self._seconds = Histogram(
            "rpc_seconds", "How long a node takes to answer.", ["chain", "endpoint"], buckets=REQUEST_BUCKETS, **where
        )

    def asked(self, endpoint: str, method: str, outcome: str, seconds: float) -> None:
        """Counts one exchange with a node; `endpoint` is its masked URL, of which the host is kept."""
        host = urlsplit(endpoint).hostname or "unknown"
        self._requests.labels(self.chain, host, method, outcome).inc()
        self._seconds.labels(self.chain, host).observe(seconds)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures one of STAGES, whether it succeeds or not."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._stages.labels(self.chain, name).observe(time.monotonic() - began)

    def saw(self, block: int) -> None:
        """A node has this block."""
        self.head = max(self.head, block)
