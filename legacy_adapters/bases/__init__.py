"""Bases of adapters, for kinds of code bases."""
