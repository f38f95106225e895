"""Whole runs: both sides, against a golden file, module by module."""
