"""Watched wallets: the rules and what alerts say. Never prints, and knows no channel but by its name.

Doors: `watches.add`, `watches.remove` and `watches.watches` keep the list of watched wallets, `wallets_file.load_watches`
reads a file of them; `watcher.Watcher` judges each snapshot by `rules.decide` and queues alerts; `blind.Lookout` says when
the watch cannot see.
"""
