"""Turns rows into documents.

Doors: `book.book` and `wallet.wallet_report` make a `document.Report`, which `document.write` writes for the terminal, as
Markdown or as HTML; `charts.svg` draws its charts, `sweep_chart.draw` that of a sweep.
"""
