"""Tests of the history of prices."""
