"""The command line: flags in, rows out, no logic.

Door: `main.main`. Each verb is a function of the module that `main.MODULES` names, imported when the verb is called; a verb
imports what is slow to import when it runs.
"""
