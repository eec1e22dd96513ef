"""Tasks that read side by side: each gets its own answers, in as few requests as the longest of them takes turns."""

from collections.abc import Iterator

import pytest

from indexer.adapter import Reader
from indexer.chain.client import Chain
from indexer.errors import ChainError, PrunedError
from indexer.model import Read
from indexer.reads.lockstep import Habit, Task, side_by_side
from indexer.reads.multicall import FIRST_SIZE, PinnedReader
from tests.devnet.node import CHAIN_ID, MULTICALL3, Anvil
from tests.tiny_contracts import COUNTER, ECHO, GAS_EATER, REVERT_42, address

ECHOES, COUNTS, REVERTS, EATS = (address(n) for n in range(1, 5))
COUNT = Read(COUNTS, "count()(uint256)")
#: any answer to it must come from the block asked for
STORED = (COUNTS, 0)


@pytest.fixture(scope="module")
def node(needs_node: None) -> Iterator[Anvil]:
    with Anvil() as anvil:
        anvil.place_multicall3()
        for where, code in ((ECHOES, ECHO), (COUNTS, COUNTER), (REVERTS, REVERT_42), (EATS, GAS_EATER)):
            anvil.set_code(where, code)
        anvil.rpc("anvil_setStorageAt", COUNTS, hex(0), "0x" + (100).to_bytes(32).hex())
        anvil.mine(3)
        yield anvil


@pytest.fixture
def chain(node: Anvil) -> Iterator[Chain]:
    chain = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3, backoff=0.01, attempts=3)
    yield chain
    chain.close()


def echo(value: int) -> Read:
    return Read(ECHOES, "echo(uint256)(uint256)", (value,))


def run(chain: Chain, *tasks: Task, habits: list[Habit] | None = None) -> int:
    """Runs them at the newest block; the requests they took."""
    read = PinnedReader(chain, chain.block("latest"))
    before = chain.requests
    side_by_side(read, list(zip(tasks, habits or [Habit() for _ in tasks], strict=True)))
    return chain.requests - before


def test_each_gets_its_own_answers_however_long_it_goes_on(chain: Chain) -> None:
    found: dict[int, list[int]] = {}

    def task(number: int) -> Task:
        def reads(read: Reader) -> None:
            found[number] = []
            for turn in range(number):
                found[number] += read([echo(1000 * number + 10 * turn + i) for i in range(number)])

        return reads

    requests = run(chain, *(task(number) for number in range(8)))
    for number in range(8):
        assert found[number] == [1000 * number + 10 * turn + i for turn in range(number) for i in range(number)]
    assert requests == 7, "as many as the longest of them has turns"


def test_many_reads_of_one_leave_the_others_right(chain: Chain) -> None:
    found = {}

    def huge(read: Reader) -> None:
        found["huge"] = read([echo(i) for i in range(3 * FIRST_SIZE)])

    def small(read: Reader) -> None:
        found["small"] = read([echo(7)]) + read([echo(8)])

    run(chain, small, huge, small)
    assert found == {"huge": list(range(3 * FIRST_SIZE)), "small": [7, 8]}


def test_what_changes_state_is_seen_by_nobody_else(chain: Chain) -> None:
    found = {}

    def plain(read: Reader) -> None:
        found["echo"] = read([echo(1), COUNT])
        found["storage"] = read.storage([STORED])

    def behind(read: Reader) -> None:
        found["behind"] = read([COUNT], prelude=[COUNT, COUNT])

    def mutating(read: Reader) -> None:
        found["mutating"] = read([COUNT._replace(mutates=True), echo(2)])

    assert run(chain, mutating, behind, plain) == 2
    assert found["storage"] == [100]
    assert found["echo"] == [1, 101], "it is asked before anything that changes state"
    assert found["behind"] in ([103], [104]), "behind its own prelude"
    assert found["mutating"][1] == 2


def test_what_fails_fails_where_it_was_asked(chain: Chain) -> None:
    found: dict[str, object] = {}

    def good(read: Reader) -> None:
        found["good"] = read([echo(1)]) + read([echo(2)])

    def wrong(read: Reader) -> None:
        read([echo(3)])
        try:
            read([Read(ECHOES, "echo(uint256)(uint256)", ("no number",))])
        except Exception as error:  # noqa: BLE001 - whatever the codec says
            found["wrong"] = type(error).__name__
        found["later"] = read([echo(4)])

    def reverts(read: Reader) -> None:
        (found["reverts"],) = read([Read(REVERTS, "x()(uint256)")])

    def starves(read: Reader) -> None:
        (found["starves"],) = read([Read(EATS, "x()(uint256)")])

    run(chain, good, wrong, reverts, starves)
    assert found["good"] == [1, 2]
    assert "Error" in str(found["wrong"])
    assert found["later"] == [4]
    assert not found["reverts"]
    assert not found["starves"]


def test_what_ends_one_ends_all_and_lets_go_what_they_hold(chain: Chain) -> None:
    ended = []

    def holds(read: Reader) -> None:
        try:
            read([echo(1)])
            read([echo(2)])
        finally:
            ended.append("holds")

    def breaks(read: Reader) -> None:
        read([echo(3)])
        raise PrunedError("gone")

    with pytest.raises(PrunedError):
        run(chain, holds, breaks)
    assert ended == ["holds"]


def test_a_node_that_is_gone_is_told_to_each(node: Anvil) -> None:
    gone = Chain("devnet", CHAIN_ID, ["http://127.0.0.1:1"], MULTICALL3, backoff=0.01, attempts=1)
    alive = Chain("devnet", CHAIN_ID, [node.url], MULTICALL3)
    told = []

    def task(read: Reader) -> None:
        try:
            read([echo(1)])
        except ChainError:
            told.append(1)

    side_by_side(PinnedReader(gone, alive.block("latest")), [(task, Habit()), (task, Habit())])
    assert len(told) == 2


def test_what_is_read_at_every_block_is_asked_at_once(chain: Chain, node: Anvil) -> None:
    found: list[list[int]] = []

    def task(read: Reader) -> None:
        first = read([echo(1)])
        second = read([echo(first[0] + 1)])
        last = read([COUNT], prelude=[echo(9)])
        found.append([*first, *second, *last, *(read.storage([STORED]) or ())])

    habits = [Habit()]
    requests = []
    for count in (200, 300, 400):
        node.rpc("anvil_setStorageAt", COUNTS, hex(0), "0x" + count.to_bytes(32).hex())
        node.mine(1)
        requests.append(run(chain, task, habits=habits))
    assert found == [[1, 2, count + 1, count] for count in (200, 300, 400)], "asked anew at each block"
    assert requests == [4, 4, 2], "one aggregate, and storage"


def test_the_same_question_is_asked_once_at_a_block(chain: Chain) -> None:
    def task(read: Reader) -> None:
        for _ in range(5):
            assert read([echo(1), echo(1)]) == [1, 1]
        with_list = Read(ECHOES, "echo(uint256[2])(uint256,uint256)", ([1, 2],))
        assert read([with_list])[0] == read([with_list])[0]

    assert run(chain, task) == 2
