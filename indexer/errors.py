"""Every error the indexer raises on purpose.

IndexerError                 ends the command with one clear line
├── ConfigError              the configuration or a flag is wrong (exit code 2)
├── InstallationError        a package differs from what its distribution installed
├── StoreError               the database file cannot be used
│   └── StoreLockedError     another sync works on the file
├── ChainError               the node's answer cannot be used
│   ├── WrongChainError      the endpoint serves another chain
│   ├── NoCodeError          an address of the configuration holds no contract
│   ├── PrunedError          the endpoint no longer holds that state or history
│   ├── ReadFailedError      a contract read that must succeed failed
│   ├── UnconfirmedError     the chain contradicts what was final, and no second endpoint confirms that
│   └── ReorgError           the pinned block left the canonical chain; take a new snapshot
└── RetryableError           worth another try, here or at the next endpoint; never leaves Chain
"""


class IndexerError(Exception):
    """Something the user has to know; str() is one line that says what to do."""


class ConfigError(IndexerError):
    """A flag, a file or an environment variable is wrong; nothing was changed."""


class InstallationError(IndexerError):
    """Another package hides one of ours, or has overwritten its files."""


class StoreError(IndexerError):
    """The database file cannot be used as it is."""


class StoreLockedError(StoreError):
    """Another process is syncing into this file."""


class ChainError(IndexerError):
    """The node's answer cannot be used, and trying again did not help."""


class WrongChainError(ChainError):
    """The endpoint serves another chain than the configuration says."""


class NoCodeError(ChainError):
    """A configured address holds no contract at that block."""


class PrunedError(ChainError):
    """No endpoint holds the state or the logs of that block any more."""


class ReadFailedError(ChainError):
    """A contract read that must succeed failed."""


class UnconfirmedError(ChainError):
    """One endpoint alone contradicts what was final; nothing is undone."""


class ReorgError(ChainError):
    """The pinned block is no longer canonical (or this node never saw it)."""


class RetryableError(IndexerError):
    """A passing failure of one endpoint; only chain/retry.py retries it."""
