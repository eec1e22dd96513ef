"""Pages over the file, which look at it again whenever a sync commits; read-only, and nothing leaves the host.

Doors: `serve.serve` is the verb, `app.application` the pages and what guards them, `desk.Desk` how a page reads the file.
"""
