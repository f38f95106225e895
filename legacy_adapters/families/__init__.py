"""Families that come with this package, a folder each; see :mod:`legacy_adapters.registry`."""
