"""What a sync that goes on tells a monitoring system; no wallet, address or label of one is in it.

Doors: `meters.Meters` counts what a process does, `file_rows.FileRows` tells what the file holds, `publishing.published`
lets them be scraped or writes them to a file.
"""
