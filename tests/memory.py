"""What an act takes in memory."""

import tracemalloc
from collections.abc import Callable


def peak(act: Callable[[], object]) -> int:
    """The most memory that an act adds, in bytes."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
