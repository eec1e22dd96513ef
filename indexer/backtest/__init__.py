"""The forecast against what happened: decisions at past times from what was known then, and the scores of what came.

Doors: `evidence.of_files` and `evidence.of_database` run it, `evidence.findings` says what is proven, `vaults.rebuilt` rebuilds a Maker book.
"""
