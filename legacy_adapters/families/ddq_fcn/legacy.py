"""Adapter of the official DDQ FCN: the legacy side."""

from legacy_adapters.targets.ddq_main.official import ADAPTER

__all__ = ["ADAPTER"]
