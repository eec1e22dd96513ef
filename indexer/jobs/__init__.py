"""The verbs that work: they ask the chain, write into the file or send alerts. No logic, as in lists.

Doors: one module a verb, such as `sync.sync` or `verify.verify`, and `watch.watch` for the group of that name.
"""
