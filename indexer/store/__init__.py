"""The SQLite file as a sync writes it and goes on from it. Knows neither node nor adapters.

Doors: `store.Store` writes, `rows.Snapshot` is what a sync commits; `database.open_readonly` opens for reading;
`books.load` and `books.deployments` return stored markets and positions.
"""
