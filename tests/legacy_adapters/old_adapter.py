"""Adapter of :mod:`tests.legacy_adapters.old_code_base`; runs in the legacy process."""

from __future__ import annotations

from legacy_adapters.mmdet2 import MMDet2Adapter


class OldAdapter(MMDet2Adapter):
    def taps(self, model):
        return []


ADAPTER = OldAdapter()
