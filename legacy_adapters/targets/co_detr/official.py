"""Adapter of the official Co-DETR: github Sense-X/Co-DETR.

The repo holds its own mmdet 2.25.3; mmcv 1.x and others are packages. Runs in the legacy interpreter.
"""

from __future__ import annotations

from typing import Any, Mapping

from legacy_adapters import shims
from legacy_adapters.targets.repo2.adapter import RepoAdapter

from . import packages
from .checkout import CHECKOUT, PACKAGES
from .observing import OF_FURTHER_HEADS, Observed


class OfficialCoDETR(Observed, RepoAdapter):
    """Build and run a model of the repo."""

    checkout = CHECKOUT
    methods = (*RepoAdapter.methods, *OF_FURTHER_HEADS)
    code_base = "Sense-X/Co-DETR"

    def make_importable(self, options: Mapping[str, Any], device: str) -> None:
        """Find the packages that the repo imports, too."""
        shims.install(device)
        packages.make_importable(options["repo"], PACKAGES)
        super().make_importable(options, device)


ADAPTER = OfficialCoDETR()
