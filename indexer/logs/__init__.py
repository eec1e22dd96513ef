"""Complete logs of block ranges and blocks, checked against the blocks themselves.

Doors: `ranges.fetch` for old blocks, `recent_logs.fetch_recent` for those that may still be reorganised.
"""
