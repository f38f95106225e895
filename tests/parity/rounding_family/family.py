"""A family with biases that have no effect: of a convolution before BatchNorm, and of the keys of attention."""

from pathlib import Path

from converters.rules.mapping import Keep
from legacy_adapters.family import Family, Side, Variant


def inputs(phase: str, seed: int) -> dict:
    """Make sequences as named tensors; each phase has another number of them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = {"predict": 5, "train": 4}.get(phase, 6)
    return {"points": torch.rand(rows, 3, 7, generator=generator) - 0.5,
            "labels": torch.randint(0, 3, (rows,), generator=generator)}  # fmt: skip


FAMILY = Family(
    name="rounding",
    variants=(Variant("small"),),
    legacy=Side("one order", Path("legacy.py")),
    new=Side("the other order", Path("new.py")),
    rules=(Keep("*.*"),),
    inputs=inputs,
)
