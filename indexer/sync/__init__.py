"""The only place where the chain and the store meet: snapshots, following, verifying."""
