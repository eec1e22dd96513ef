"""The node, and nothing but the node: requests, blocks, logs and pinned contract reads. Knows no store and no adapter."""
