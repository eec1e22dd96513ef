"""How likely a liquidation is: paths of prices, the positions they make unsafe, and the proof by the past.

Doors: `model.simulate` makes joint paths of prices from their own past, `search.search` counts the paths that end each position.
"""
