"""Golden files: what the legacy code computed, small enough to keep."""
