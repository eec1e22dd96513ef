"""Exact health factors of every lending position on Aave, Compound and Maker, in one SQLite file.

`open` reads a database, `connect` asks a chain; `__all__` is what other programs may rely on (docs/api.md). `indexer.model`
and `indexer.adapter` are what an author of a protocol reads; `python -m indexer` is the command.
"""

TYPE_CHECKING = False  # what type checkers take for true; `typing` itself takes a while to import

if TYPE_CHECKING:
    from indexer.api.book import Book
    from indexer.api.book import opened as open  # noqa: A004 - `indexer.open`, as `io.open`
    from indexer.api.chain import Connection, SyncOutcome, connect
    from indexer.api.forecasting import Forecast
    from indexer.api.positions import Balance, Position
    from indexer.api.rows import BlockRef, Rows
    from indexer.api.simulation import SimulatedAsset, SimulatedDeployment, SimulatedPosition, Simulation
    from indexer.api.wallet import LiquidationPrice, Remedy, Wallet
    from indexer.errors import (
        ChainError,
        ConfigError,
        IndexerError,
        InstallationError,
        NoCodeError,
        PrunedError,
        ReadFailedError,
        ReorgError,
        StoreError,
        StoreLockedError,
        UnconfirmedError,
        WrongChainError,
    )

    __version__: str

__all__ = [
    "Balance",
    "BlockRef",
    "Book",
    "ChainError",
    "ConfigError",
    "Connection",
    "Forecast",
    "IndexerError",
    "InstallationError",
    "LiquidationPrice",
    "NoCodeError",
    "Position",
    "PrunedError",
    "ReadFailedError",
    "Remedy",
    "ReorgError",
    "Rows",
    "SimulatedAsset",
    "SimulatedDeployment",
    "SimulatedPosition",
    "Simulation",
    "StoreError",
    "StoreLockedError",
    "SyncOutcome",
    "UnconfirmedError",
    "Wallet",
    "WrongChainError",
    "__version__",
    "connect",
    "open",
]

#: where each name is that is not in `indexer.errors`; imported when it is asked for, as the command must start at once
_MODULES = {
    "book": ("Book", "open"),
    "chain": ("Connection", "SyncOutcome", "connect"),
    "forecasting": ("Forecast",),
    "positions": ("Balance", "Position"),
    "rows": ("BlockRef", "Rows"),
    "simulation": ("SimulatedAsset", "SimulatedDeployment", "SimulatedPosition", "Simulation"),
    "wallet": ("LiquidationPrice", "Remedy", "Wallet"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - the metadata of packages takes a while to read

        return version("lending-indexer")
    from importlib import import_module  # noqa: PLC0415 - see `_MODULES`

    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"indexer.api.{module}"), "opened" if name == "open" else name)
    return getattr(import_module("indexer.errors"), name)


def __dir__() -> list[str]:
    return __all__
