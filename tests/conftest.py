"""Fixtures that tests share: the local node and the markets on it.

A test that needs the node is skipped, with a reason, on a machine without Node.js; with CI=true it fails instead.
"""

import gc
import logging
import os
import signal
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import repairs
from tests.devnet import aave_v3
from tests.devnet.aave_v3 import AaveV3
from tests.devnet.node import Anvil
from tests.devnet.packages import missing_tools

# Started in the background by a shell, everything here ignores SIGINT, and so would the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Collecting imports everything and drops nothing: looking for garbage meanwhile takes a sixth of that time.
gc.disable()

# No test fails because the machine is slow or busy.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

REPAIRS = pytest.StashKey[list[str]]()
SHARED = Path(__file__).resolve().parents[2] / "shared"


def required(present: bool, what: str) -> None:
    """Skip the test when something outside the repository is missing; fail it in CI, where nothing may be missing."""
    if present:
        return
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{what} is missing, and CI must run every test")
    pytest.skip(f"{what} is missing")


@pytest.hookimpl(tryfirst=True)  # xdist looks at the groups in this hook too, and only once
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs the node, group what shares one, and leave the `long` tests out unless -m names them.

    Tests of the node come first, those of syncs at their head: they are long, and the many short ones then fill what is
    left of each processor.
    """
    for item in items:
        if "needs_node" in fixtures(item):
            item.add_marker("node")
        group = together(item)
        if group is not None and config.pluginmanager.hasplugin("xdist"):
            item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=lambda item: (item.get_closest_marker("node") is None, "tests/sync/" not in item.nodeid))
    if "long" in config.getoption("markexpr"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is imported by now stays: the garbage collector need not look at it again and again.

    Fails where pytest-xdist does not see the groups (it writes them into node ids): all would pass, but each process would
    make for itself what is to be made once.
    """
    gc.freeze()
    gc.enable()
    grouped = [item.nodeid for item in session.items if item.get_closest_marker("xdist_group")]
    if session.config.getoption("loadgroup", False) and not all("@" in name for name in grouped):
        raise pytest.UsageError("this pytest-xdist cannot group tests under this pytest: see pyproject.toml")


def pytest_make_parametrize_id(val: object) -> str | None:
    """A long text is named by its beginning: pytest puts names into the environment, which the programs under test get."""
    return f"{val[:40]!a} and {len(val) - 40:,} more" if isinstance(val, str | bytes) and len(val) > 100 else None


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: tests wait for the node, and for the processes that they start."""
    return (os.cpu_count() or 1) + 1


def fixtures(item: pytest.Item) -> dict[str, Sequence[pytest.FixtureDef[Any]]]:
    """Name -> definitions of every fixture the test takes, itself or through another one."""
    return item._fixtureinfo.name2fixturedefs if isinstance(item, pytest.Function) else {}


def together(item: pytest.Item) -> str | None:
    """Which tests one process runs, so that they share what is made once for them: those of a module with a fixture
    in common, each of the fixture's parameters apart. None: it runs anywhere."""
    shared = [name for name, (*_, last) in fixtures(item).items() if last.scope == "module" or name == "session_node"]
    if not shared:
        return None
    indices = item.callspec.indices if hasattr(item, "callspec") else {}
    parameters = [f"{name}-{indices[name]}" for name in sorted(shared) if name in indices]
    return " ".join([item.nodeid.split("::")[0], *parameters])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that starts a node without asking for it fails: neither its mark nor its skip could be right."""
    with pytest.MonkeyPatch.context() as patch, repairs.noted() as item.stash[REPAIRS]:
        if "needs_node" not in fixtures(item):
            patch.setattr(Anvil, "start", not_asked_for)
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A test that syncs, itself or in a fixture, fails if something was repaired, unless it is marked as `disturbed`."""
    result = yield
    if item.get_closest_marker("disturbed") is None:
        folder = getattr(item, "funcargs", {}).get("tmp_path")
        found = item.stash[REPAIRS] or (repairs.stored(folder) if folder is not None else [])
        assert not found, "an undisturbed sync repaired something"
    return result


def not_asked_for(node: Anvil) -> None:
    pytest.fail("a test that starts a node takes the fixture needs_node, or one that does")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of recorded mainnet data beside the repository."""
    required(SHARED.is_dir(), "the recorded data in ../shared")
    return SHARED


@pytest.fixture(scope="session")
def needs_node() -> None:
    """Asks for what the devnet is run by."""
    missing = missing_tools()
    required(not missing, " and ".join(missing))


@pytest.fixture
def fresh_node(needs_node: None) -> Iterator[Anvil]:
    """A node of the test's own, with nothing but Multicall3."""
    with Anvil() as node:
        node.place_multicall3()
        yield node


@pytest.fixture(scope="session")
def session_node(needs_node: None) -> Iterator[Anvil]:
    """The node that the session's markets live on; tests undo what they do to it."""
    with Anvil() as node:
        node.place_multicall3()
        yield node


@pytest.fixture(scope="session")
def populated_aave_v3_0(session_node: Anvil) -> AaveV3:
    """A populated Aave 3.0.2 market."""
    market = aave_v3.deploy(session_node, "3.0.2")
    market.populate(seed=1, users=100)
    return market


@pytest.fixture(scope="session")
def populated_aave_v3_6(session_node: Anvil) -> AaveV3:
    """A populated Aave 3.6 market."""
    market = aave_v3.deploy(session_node, "3.6")
    market.populate(seed=1, users=100)
    return market


@pytest.fixture
def aave_v3_0(populated_aave_v3_0: AaveV3) -> Iterator[AaveV3]:
    """The 3.0.2 market; what a test does to it is undone."""
    with populated_aave_v3_0.rewound():
        yield populated_aave_v3_0


@pytest.fixture
def aave_v3_6(populated_aave_v3_6: AaveV3) -> Iterator[AaveV3]:
    """The 3.6 market; what a test does to it is undone."""
    with populated_aave_v3_6.rewound():
        yield populated_aave_v3_6


@pytest.fixture(params=["3.0.2", "3.6"])
def any_aave_v3(request: pytest.FixtureRequest, session_node: Anvil) -> AaveV3:
    """Each of the two markets; what a test does to it is undone."""
    name = {"3.0.2": "aave_v3_0", "3.6": "aave_v3_6"}[request.param]
    market: AaveV3 = request.getfixturevalue(name)
    return market


@pytest.fixture(autouse=True)
def untouched_logging() -> Iterator[None]:
    """What a command sets up for its log lines ends with the test, or the fixture of a module, that ran it."""
    plain_logging()
    yield
    plain_logging()


def plain_logging() -> None:
    logger = logging.getLogger("indexer")
    logger.handlers, logger.propagate = [], True
    logger.setLevel(logging.NOTSET)
