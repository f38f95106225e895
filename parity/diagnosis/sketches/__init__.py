"""Explanations where of the legacy side a sketch or a digest is at hand, as in a golden file."""
