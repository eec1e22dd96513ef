"""Aave V2 and its forks."""

from protocols.aave_v2.adapter import AaveV2

__all__ = ["AaveV2"]
