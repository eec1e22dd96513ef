"""Rows to documents."""
