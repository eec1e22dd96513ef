"""Watched wallets: the rules, the messages and their delivery. Never prints.

Doors: `watches.add`, `watches.remove` and `watches.watches` keep who is watched, `wallets_file.load_watches` reads a file
of them; `watcher.Watcher` judges each snapshot by `rules.decide`; `delivery.Dispatch` delivers what it queued, in a process
of its own, to the channels of `places.Places`; `blind.Lookout` says when the watch cannot see.
"""
