"""Compound V3 (Comet)."""

from protocols.compound_v3.adapter import CompoundV3

__all__ = ["CompoundV3"]
