"""The verbs that show what the file holds, and change nothing. No logic: a verb asks the packages below and shows the rows.

Doors: one module a verb, such as `positions.show` or `simulate.simulate`; a verb imports what is slow to import when it runs.
"""
