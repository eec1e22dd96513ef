"""The SQLite file: all SQL is here. Knows no node and no adapter.

Doors: `store.Store` writes; `database.open_readonly` opens for `queries`, `exports.select`, `ranking.top` and
`history.movements`; `migrations.migrations` registers a change of the schema; `rows.Snapshot` is what a sync commits;
`books.load` and `books.deployments` give stored markets and positions back; `freshness.freshness` says how old rows are.
"""
