"""Known positions keep their numbers and blocks, whoever leaves or joins."""

from random import Random

from indexer.model import PositionKey
from indexer.snapshot.keys import NEVER, Keys


def key(n: int) -> PositionKey:
    return PositionKey(f"0x{n:040x}", ("", "ETH-A")[n % 2])


def test_keys_say_what_a_dictionary_of_each_position_says() -> None:
    rng, keys = Random(7), Keys()
    named: dict[PositionKey, int] = {}
    read: dict[PositionKey, int] = {}
    for _ in range(5_000):
        one, block = key(rng.randrange(300)), rng.randrange(1_000)
        match rng.randrange(50):
            case 0:
                gone = {key(rng.randrange(300)) for _ in range(5)}
                keys.drop(gone)
                named, read = ({k: b for k, b in of.items() if k not in gone} for of in (named, read))
            case 1:
                keys.sort()
                assert [*keys] == sorted(named)
            case 2:
                keys.forget_reads()
                read.clear()
            case n if n < 20 and one in named:
                keys.was_read(one, block)
                read[one] = block
            case _:
                keys.touch(one, block)
                named[one] = max(named.get(one, block), block)
        assert len(keys) == len(named)
        assert one not in keys or keys.stale(one) == (one not in read or named[one] > read[one])
    assert {*keys} == named.keys()
    for number, one in enumerate(keys):
        assert keys[one] == number
        assert (keys.named[number], keys.read[number]) == (named[one], read.get(one, NEVER))
