"""The rows that people ask for, as SQL. Nothing here can write.

Doors: `queries.run` runs SQL of the user's, `exports.select` and `ranking.top` are lists, of what `scope.Scope` takes in;
`freshness.freshness` says how old rows are.
"""
