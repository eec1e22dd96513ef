"""JSON ABIs of the functions and events that the adapters use, one file per kind of contract; `indexer.abi` loads them.

A file lists what any version of the contract has; the adapter knows which version answers what. Functions that share a
name but return different types (an ERC-20's symbol as a string or as a word) are in separate files.
"""
