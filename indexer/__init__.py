"""Exact health factors of every lending position on Aave, Compound and Maker, in one SQLite file.

`indexer.model` and `indexer.adapter` are what an author of a protocol reads; `python -m indexer` is the command.
"""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: the metadata of packages takes a while to read."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 - see above

    return version("lending-indexer")
