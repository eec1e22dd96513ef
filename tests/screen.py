"""A terminal of a given width for the program under test."""

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Sequence
from pathlib import Path


def terminal(command: Sequence[str], folder: Path, env: dict[str, str], width: int) -> bytes:
    """Everything that a command writes to a terminal of 50 lines and so many columns; its exit code must be 0."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
    with subprocess.Popen(command, cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        out = bytearray()
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so at the end
                break
            if not piece:
                break
            out += piece
        assert process.wait(60) == 0
    os.close(ours)
    return bytes(out)
