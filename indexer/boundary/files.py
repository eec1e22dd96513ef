"""Files that are replaced as a whole or not at all, and checks of who owns a file."""

import io
import os
import pwd
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from indexer.errors import ConfigError, IndexerError


def write_file(path: Path, fill: Callable[[TextIO], None]) -> None:
    """Replace `path` atomically by the text that `fill` writes, only if `fill` succeeds."""
    with replacing(path) as stream:
        text = io.TextIOWrapper(stream, encoding="utf-8", newline="")
        try:
            fill(text)
        finally:
            text.detach()


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes replace `path` atomically at the end, only if nothing was raised.

    Evidence for what is replaced: the whole new content, flushed to the disk. A link stays, its target is replaced. Anything that is not a file, such as a pipe or /dev/stdout, is written to directly.
    """
    import tempfile  # noqa: PLC0415 - slow to import, and most commands write no file

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


def beside(path: Path, ending: str) -> Path:
    """The file of this name and a further ending: beside the file itself where `path` is a link, whoever comes by which."""
    return Path(os.path.realpath(path) + ending)


def open_lock(path: Path | str) -> int:
    """A descriptor of a file to lock, created if missing; OSError also if the name is a link.

    Only its owner may open it; its content stays. A link planted beside the database could lead to any file.
    """
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if os.fstat(lock).st_uid == os.getuid():
        os.fchmod(lock, 0o600)  # an older version made it readable for everyone
    return lock


def require_own(path: Path, named: str) -> None:
    """Raise `ConfigError` if someone else could have written a file that was found rather than `named` with a flag.

    It must belong to the user or root, be writable by nobody else, and by a group only if that is the user's own. The
    same holds for a link's target. A file that does not exist passes.
    """
    for found in (path.lstat(), path.stat()) if path.exists() else (path.lstat(),) if path.is_symlink() else ():
        doubt = foreign(found)
        if doubt:
            raise ConfigError(
                f"{path} {doubt}, so somebody else decides what is in it; if you trust it, name it: {named}"
            )


def foreign(found: os.stat_result) -> str | None:
    """Who besides the user and root can write such a file, as the end of a sentence; None if nobody can."""
    if found.st_uid not in (os.geteuid(), 0):
        return f"belongs to another user ({user_name(found.st_uid)})"
    if stat.S_ISLNK(found.st_mode):
        return None  # the mode of a link means nothing
    if found.st_mode & stat.S_IWOTH:
        return "can be written by everybody on this machine"
    if found.st_mode & stat.S_IWGRP and found.st_gid != own_group():
        return f"can be written by another group than your own (group id {found.st_gid})"
    return None


def own_group() -> int:
    """The user's primary group; a user without an account, as in some containers, has that of the process."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_gid
    except KeyError:
        return os.getegid()


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user id {uid}"
