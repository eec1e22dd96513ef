"""The only package where chain and store meet: snapshots of all deployments, following, verifying.

Doors: `sync.Sync` takes snapshots, `follow.follow` takes one at each new block; `verify.verify` compares the rows with
the contracts; `live.live` reads one wallet without a file.
"""
