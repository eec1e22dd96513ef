"""Whole files in: lists of accounts that others made, and several databases as one.

Doors: `accounts_file.load` reads a list of accounts, `merging.merge` makes one database of several.
"""
