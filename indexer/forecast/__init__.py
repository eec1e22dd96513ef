"""How likely is a liquidation: price paths from the feeds' own past, decided by the adapters' exact `evaluate`.

It computes from the file alone, asks no node, and has no formula of a protocol.
"""
