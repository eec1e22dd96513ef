"""The real protocol contracts on a local node: `python -m tests.devnet` boots it, the tests build on it."""
