"""The node and nothing else: requests, retries, blocks. Knows neither store nor adapters.

Doors: `connect.connect` opens a `client.Chain`, which asks several endpoints in turn; `heads.Heads` waits for new blocks;
`ens.resolve` resolves a name.
"""
