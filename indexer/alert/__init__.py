"""Watched wallets: the rules, the messages and their delivery. Never prints."""
