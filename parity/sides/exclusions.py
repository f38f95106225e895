"""What one side records and the other has no use for, per family, each with its reason.

A pair is always compared: an exclusion only accounts for records that have no twin.
"""

from __future__ import annotations

from ..comparing.pairing import LEGACY, NEW, Exclusion

_OURS = (
    Exclusion(NEW, "module_out", "decoder", "2.*", "masks of distinct queries are an output here, a shared dict there"),
    Exclusion(
        NEW, "module_in", "decoder", "self_attn_mask", "given at inference too; there the decoder makes it itself"
    ),
)
_MASK_REASON = "a mask that masks nothing is left out by mmdet 3.3.0"
_NO_PADDING = (
    Exclusion(LEGACY, "module_in", "positional_encoding", "mask", _MASK_REASON, zeros_only=True),
    Exclusion(NEW, "module_in", "positional_encoding", "input", _MASK_REASON),
    Exclusion(LEGACY, "module_in", "encoder*", "key_padding_mask", _MASK_REASON, zeros_only=True),
    Exclusion(LEGACY, "module_in", "decoder*", "key_padding_mask", _MASK_REASON, zeros_only=True),
)

EXCLUSIONS: dict[str, tuple[Exclusion, ...]] = {
    "ddq_detr": _OURS + _NO_PADDING,
    "mmdet_ddq": _OURS,
}
