"""The command line: flags in, rows out, no logic.

Door: `main.main`. Each verb is a function of the module that `main.MODULES` names, imported when it is asked for; what is
slow to import, a verb imports when it runs.
"""
