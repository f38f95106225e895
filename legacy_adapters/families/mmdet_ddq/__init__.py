"""MMDetection 3.3.0's own DDQ-DETR."""
