"""The command line as a whole: its verbs by name, help, completion, and how errors end a command.

Door: `main.main`. Each verb is a function of the module that `main.VERBS` names, imported when the verb is called.
"""
