"""Where faults are planted: small models of Co-DETR beside the real official code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from ..ddq_main.bench import Bench
from ..models import weights_of

ADAPTER = Path(__file__).with_name("adapter.py")
#: A fault that shows only where every score is 0.
OF_ZERO_SCORES = "zero_scores_kept"
SIZES = ((48, 70), (61, 57))


def without_scores(variant: str) -> dict[str, Any]:
    """Return official weights of a small model with which every score of the decoder is 0."""
    weights = weights_of(variant, 0, "co_detr", "legacy")
    for layer in range(3):
        weights[f"query_head.cls_branches.{layer}.bias"][:] = -200.0
    return weights


def bench(made: Path, repo: Path, variant: str, of_zero_scores: bool = False) -> Bench:
    """Make the bench of a small model, on images of two shapes; the second one has more objects.

    Args:
        made: folder for everything that is written.
        repo: checkout of the official code.
        variant: of the model.
        of_zero_scores: with weights of :func:`without_scores`.
    """
    name, checkpoint = variant, None
    if of_zero_scores:
        name, checkpoint = f"{variant}_zero", made / "zero.safetensors"
        save_file(without_scores(variant), checkpoint)
    return Bench("co_detr", made / name, repo, sizes=SIZES, variant=variant, adapter=ADAPTER, checkpoint=checkpoint)
