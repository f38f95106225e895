"""Detectors of MMDetection 2.x, carried to MMDetection 3.x."""
