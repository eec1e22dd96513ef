"""Watched wallets: the rules, the messages and their delivery. Never prints.

Doors: `watches.add`, `watches.remove` and `watches.watches` keep the list of watched wallets, `wallets_file.load_watches`
reads a file of them; `watcher.Watcher` judges each snapshot by `rules.decide` and queues alerts; `delivery.Dispatch`, in a
process of its own, delivers them to the channels of `places.Places`; `blind.Lookout` says when the watch cannot see.
"""
