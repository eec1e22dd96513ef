"""Aave V3, all revisions, and its forks (Spark)."""

from protocols.aave_v3.adapter import AaveV3

__all__ = ["AaveV3"]
