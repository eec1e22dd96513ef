"""What the adapters ask of contracts, and the logs they follow: JSON ABIs, one file a kind of contract, by `indexer.abi`.

A file holds what any version of that contract has: which version answers what is for the adapter to know. Two functions
of one name that answer differently (an ERC-20's symbol as a string or as a word) stand in files of their own.
"""
