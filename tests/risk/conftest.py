"""What the tests of liquidations do with the market that their module calls `populated`."""

from collections.abc import Iterator

import pytest

from tests.liquidating import Ground


@pytest.fixture
def ground(populated: Ground) -> Iterator[Ground]:
    """A populated market; what a test does to it is undone."""
    with populated.devnet.rewound():
        yield populated
