"""The command line: flags in, rows out, no logic."""
