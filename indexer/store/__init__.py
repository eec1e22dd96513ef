"""The SQLite file and all SQL. Knows neither node nor adapters.

Doors: `store.Store` writes; `database.open_readonly` opens for `queries`, `exports.select`, `ranking.top` and
`history.movements`; `migrations.migrations` registers a change of the schema; `rows.Snapshot` is what a sync commits;
`books.load` and `books.deployments` return stored markets and positions; `freshness.freshness` says how old rows are.
"""
