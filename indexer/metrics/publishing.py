"""Metrics to be scraped over http, for this machine unless told otherwise, or as a file that node_exporter reads."""

import ipaddress
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile

from indexer.errors import ConfigError, IndexerError
from indexer.text.console import remark

log = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"


def place(text: str) -> tuple[str, int]:
    """Address and port of [HOST:]PORT. Raises `ConfigError` for anything else."""
    host, separator, port = text.rpartition(":")
    host = host.strip("[]") if separator else LOOPBACK
    with suppress(ValueError):
        if port.isascii() and port.isdecimal() and 0 <= int(port) <= 65_535:
            return str(ipaddress.ip_address(LOOPBACK if host == "localhost" else host)), int(port)
    raise ConfigError(f"--metrics {text!r} is no [HOST:]PORT: 9108, or 0.0.0.0:9108 for other machines")


@contextmanager
def published(registry: CollectorRegistry, where: str | None, file: Path | None) -> Iterator[Callable[[], None]]:
    """Serves the registry until the end; yields what writes the file anew, which is to be called when something happened.

    Raises `IndexerError` where the port is taken or the file cannot be written at first.
    """

    def write() -> None:
        if file is None:
            return
        try:
            write_to_textfile(str(file), registry)
        except OSError as error:
            raise IndexerError(f"--metrics-file {file} cannot be written: {error.strerror or error}") from error

    def write_on() -> None:
        """A file that cannot be written later on ends no sync."""
        try:
            write()
        except IndexerError as error:
            log.warning("%s", error)

    write()
    if where is None:
        yield write_on
        return
    host, port = place(where)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise IndexerError(f"--metrics {where}: cannot listen there ({error.strerror}): choose another port") from error
    told = f"[{host}]" if ":" in host else host
    remark(f"Metrics are at http://{told}:{server.server_port}/metrics")
    try:
        yield write_on
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
