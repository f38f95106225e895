"""Read what a side recorded."""
