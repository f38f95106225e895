"""Whole trainings and tests of a side, by its code base's own runner."""
