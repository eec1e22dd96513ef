"""The edge between the program and what others wrote: what comes in is bounded and checked, what goes out shows no key.

Doors: `files.replacing` writes a file whole or not at all, `files.require_own` refuses one of somebody else;
`bounded_json.loads` parses a stranger's JSON, `masking.harmless` makes an error fit to print,
`installation.require_genuine` checks what Python is about to import.
"""
