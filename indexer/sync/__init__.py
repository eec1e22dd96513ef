"""The only place where the chain and the store meet: snapshots, following, verifying.

Doors: `sync.Sync` takes snapshots, `follow.follow` one of each new block; `verify.verify` compares the rows with the
contracts; `live.live` reads one wallet without a file.
"""
