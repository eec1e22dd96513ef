"""What the tests of each protocol do with the market that their module calls `populated`."""

from collections.abc import Iterator

import pytest

from tests.compound import Connection
from tests.devnet.scenario import Devnet


@pytest.fixture
def devnet(populated: Devnet) -> Iterator[Devnet]:
    """The market; what a test does to it is undone."""
    with populated.rewound():
        yield populated


@pytest.fixture
def node(devnet: Devnet) -> Iterator[Connection]:
    connection = Connection(devnet.node)
    yield connection
    connection.chain.close()
