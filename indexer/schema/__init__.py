"""The tables and views of the file: what they are, what their columns mean, and how an older file gets them.

Doors: `steps.migrations` registers a change of the schema, `migrations.apply` makes the changes that a file lacks;
`dictionary.dictionary` says what every column means.
"""
