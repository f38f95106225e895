"""The official DDQ R-CNN."""
