"""The history of prices: which feeds stand behind an oracle, what they answered when, and what that tells of them.

Doors: `history.PriceHistory` brings it up to date, `following.FollowedPrices` with each block; `oracles.rows` and
`volatility.rows` are what people read.
"""
