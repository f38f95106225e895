"""Precision and random numbers: what both sides must have alike."""
