"""JSON from strangers: depth and size are bounded before it is parsed."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from indexer.boundary import bounded_json
from indexer.boundary.bounded_json import MAX_DEPTH, MAX_PARSED

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.sampled_from(["[", "]", '"', "\\", '[{"', '\\"[', "}"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.just("["), inner, max_size=3),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_every_ordinary_value_is_read_as_it_is(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only).encode(errors="replace")
    assert bounded_json.loads(text) == json.loads(text)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


STEPS: list[Any] = [
    lambda inner: [inner],
    lambda inner: {"a": inner},
    lambda inner: ["]", inner, "["],
    lambda inner: {"]": inner, "}": '"]'},
    lambda inner: [[], inner, {}, "\\"],
    lambda inner: ['"]', '\\"]', inner],
]


@pytest.mark.slow
@given(st.lists(st.sampled_from(STEPS), min_size=MAX_DEPTH + 1, max_size=150))
def test_what_is_nested_too_deep_is_refused_whatever_hides_it(steps: list[Any]) -> None:
    value: Any = 1
    for step in steps:
        value = step(value)
    assert depth(value) > MAX_DEPTH
    with pytest.raises(ValueError, match="levels deep"):
        bounded_json.loads(json.dumps(value).encode())


@pytest.mark.slow
@pytest.mark.parametrize("text", [b"[" * 10**6, b'{"a":' * 10**6, b'["]",' * 10**6, b"[[],{}," * 10**6])
def test_a_million_brackets_are_a_plain_error_where_the_recursion_limit_was_raised(text: bytes) -> None:
    """In a process of its own, as without the bound it ends with a segmentation fault."""
    program = (
        "import sys; sys.setrecursionlimit(10**9)\n"
        "from indexer.boundary import bounded_json\n"
        "try: bounded_json.loads(sys.stdin.buffer.read())\n"
        "except ValueError: print('refused')"
    )
    run = subprocess.run([sys.executable, "-c", program], input=text, capture_output=True, check=True)
    assert run.stdout == b"refused\n"


@pytest.mark.parametrize("item", [b"{}", b"[]", b'""', b'{"a":1}', b"99999", b"[{}]", b"1.5"])
def test_what_would_fill_the_memory_is_refused(item: bytes) -> None:
    text = b"[" + b",".join([item] * 5_000_000) + b"]"
    assert len(text) < 64 * 2**20
    with pytest.raises(ValueError, match="MB of memory"):
        bounded_json.loads(text)


@given(st.lists(st.sampled_from([b"{}", b"[]", b'"ab"', b'{"a":1}', b"99999", b"[{}]", b"1.5", b"null"]), max_size=50))
def test_the_size_is_never_underestimated(items: list[bytes]) -> None:
    text = b"[" + b",".join(items) + b"]"
    assert bounded_json.parsed_size(text) + 64 >= deep_size(json.loads(text))
    assert bounded_json.parsed_size(text) < MAX_PARSED


def deep_size(value: Any) -> int:
    size = sys.getsizeof(value)
    if isinstance(value, dict):
        return size + sum(deep_size(entry) for pair in value.items() for entry in pair)
    return size + sum(map(deep_size, value)) if isinstance(value, list) else size


@pytest.mark.parametrize("text", [b"", b"NaN", b"[Infinity]", b"[1", b"\xff\xfe[\0", b"1" * 5000, b'{"a"}', b"[}"])
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        bounded_json.loads(text)


@pytest.mark.slow
def test_the_recursion_limit_stays_what_it_was() -> None:
    program = (
        "import sys; before = sys.getrecursionlimit()\n"
        "from indexer.reads.codec import codec; codec('f()(uint256)')\n"
        "import indexer.chain.ens, indexer.cli.main\n"
        "assert 'py_ecc' in sys.modules\n"
        "print(sys.getrecursionlimit() - before)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert run.stdout == "0\n"
