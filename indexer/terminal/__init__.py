"""What the verbs share: flags in, rows out.

Doors: `options.Session` holds the global options; `scope` and `people` are flags of lists; `output.write` writes rows in
every format; `freshness` tells how old they are.
"""
