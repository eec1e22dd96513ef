"""The node and nothing else: requests, blocks, logs and pinned contract reads. Knows neither store nor adapters.

Doors: `connect.connect` opens a `client.Chain`, which asks several endpoints in turn; `multicall.PinnedReader` reads contracts
at one block; the package `logs` fetches logs; `heads.Heads` waits for new blocks; `ens.resolve`
resolves a name.
"""
