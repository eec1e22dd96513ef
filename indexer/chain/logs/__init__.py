"""Logs, whole ones only: what a block range or a block logged, held against the blocks themselves.

Doors: `ranges.fetch` for old blocks, `recent_logs.fetch_recent` for those that may still be reorganised.
"""
