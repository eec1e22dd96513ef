"""docs/errors.md names every error of the chain layer with its class."""

import re
from pathlib import Path

import indexer.errors as common
from indexer.chain import errors, retry
from indexer.errors import ChainError, RetryableError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_every_error_of_the_chain_layer_has_its_class() -> None:
    rows = re.findall(r"^\| `(\w+Error)` \| .+ \| (again|elsewhere|final) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    found = {
        kind
        for module in (common, errors, retry)
        for name, kind in vars(module).items()
        if isinstance(kind, type) and issubclass(kind, RetryableError | ChainError) and not name.startswith("_")
    }
    assert {name for name, _ in rows} == {kind.__name__ for kind in found}
    again = {name for name, kind in rows if kind == "again"}
    assert again == {kind.__name__ for kind in found if issubclass(kind, RetryableError)} | {"UnclearError"}
