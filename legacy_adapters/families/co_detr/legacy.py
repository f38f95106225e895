"""Adapter of the official Co-DETR: the legacy side."""

from legacy_adapters.targets.co_detr.official import ADAPTER

__all__ = ["ADAPTER"]
