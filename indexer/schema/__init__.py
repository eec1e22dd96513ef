"""The tables and views of the file: what they are, what their columns mean, and how an older file gets them.

Doors: `migrations.migrations` registers a change of the schema; `dictionary.dictionary` says what every column means.
"""
