"""The history of prices: which feeds stand behind an oracle, what they answered when, and what that tells of them.

Doors: `history.PriceHistory` brings the feeds of a chain to a block, `oracles.rows` shows them as they are, `estimators.ewma`
and its siblings measure how much they move.
"""
