"""This toolkit's own DDQ-DETR, legacy numerics against fast ones."""
