"""Values as people read them: text, tables, bars and what a command says on stderr while it works.

Doors: `values.shown` and `values.printable` make text of a value, `table.write_table` prints rows, `console` has progress,
log lines and remarks.
"""
