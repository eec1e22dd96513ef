"""The forecast against what happened: decisions at past times from what was known then, and the scores of what came.

Doors: `vaults.rebuilt` rebuilds a Maker book, `scores.Scores` judges probabilities, `isotonic.fitted` calibrates them.
"""
