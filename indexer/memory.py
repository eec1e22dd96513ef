"""Memory of the process as the system sees it."""

import ctypes
from contextlib import suppress

#: glibc's mallopt parameter for how many arenas there may be
M_ARENA_MAX = -8


def share_one_heap() -> None:
    """Makes all threads allocate from one heap, where the C library is glibc; call it before there are threads.

    Else each thread that once took a large answer keeps its size, and a process that runs for weeks grows up to the sum of
    them. Nothing is slower: one thread at a time runs Python.
    """
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
