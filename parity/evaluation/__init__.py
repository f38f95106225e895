"""Detections of both sides over a data set."""
