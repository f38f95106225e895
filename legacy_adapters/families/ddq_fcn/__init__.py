"""The official DDQ FCN."""
