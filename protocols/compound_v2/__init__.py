"""Compound V2 and its forks."""

from protocols.compound_v2.adapter import CompoundV2

__all__ = ["CompoundV2"]
