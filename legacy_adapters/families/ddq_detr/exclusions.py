"""What one side records and the other has no use for, each with its reason."""

from __future__ import annotations

from legacy_adapters.family import LEGACY, NEW, Exclusion
from legacy_adapters.targets.ddq_detr import OWN_RECORDS

_NO_MASK = "a mask that masks nothing is left out by mmdet 3.3.0"
EXCLUSIONS = (
    *OWN_RECORDS,
    Exclusion(LEGACY, "module_in", "positional_encoding", "mask", _NO_MASK, zeros_only=True),
    Exclusion(NEW, "module_in", "positional_encoding", "input", _NO_MASK),
    Exclusion(LEGACY, "module_in", "encoder*", "key_padding_mask", _NO_MASK, zeros_only=True),
    Exclusion(LEGACY, "module_in", "decoder*", "key_padding_mask", _NO_MASK, zeros_only=True),
)
