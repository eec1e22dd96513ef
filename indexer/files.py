"""Files that are replaced as a whole or not at all."""

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from indexer.errors import IndexerError


def write_file(path: Path, fill: Callable[[TextIO], None]) -> None:
    """Replace `path` by the text that `fill` writes, at once and only if it succeeds."""
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            fill(text)
        finally:
            text.detach()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes replace `path` at the end, at once and only if nothing was raised.

    A link stays, what it names is replaced. What is no file, such as a pipe or /dev/stdout, is written to as it is.
    """
    scratch = None
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        target = path.resolve()
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        scratch = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        scratch.chmod(target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~current_umask())
        scratch.replace(target)
    except OSError as error:
        raise IndexerError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            with suppress(FileNotFoundError):
                scratch.unlink()


def current_umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def open_lock(path: Path | str) -> int:
    """A descriptor of a file to lock, made where there is none; OSError also where the name is a link.

    Only its owner may open it; what is in it stays. A link planted beside the database would name somebody's file.
    """
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(lock).st_uid == os.getuid():
        os.fchmod(lock, 0o600)  # one of an older version may be readable to all
    return lock
