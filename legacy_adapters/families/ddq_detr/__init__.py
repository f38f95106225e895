"""The official DDQ-DETR."""
