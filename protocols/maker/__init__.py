"""Maker and Sky (dss)."""

from protocols.maker.adapter import Maker

__all__ = ["Maker"]
