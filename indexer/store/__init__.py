"""The SQLite file: all SQL is here. Knows no node and no adapter."""
