"""Carry what is more than a renamed tensor: optimizer, averages, classes, dtypes."""
