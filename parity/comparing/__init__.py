"""Pair the records of two traces and measure how they differ."""
