"""A family whose rules change tensors: the two forms of the tiny model of ``tests/fused.py``, without images."""

from pathlib import Path

from legacy_adapters.family import Family, Side, Variant


def inputs(phase: str, seed: int) -> dict:
    """Make points as named tensors; each phase has other numbers of them."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = {"predict": 5, "train": 4}.get(phase, 3)
    return {"points": torch.rand(rows, 6, 4, generator=generator) - 0.5,
            "labels": torch.randint(0, 3, (rows,), generator=generator)}  # fmt: skip


FAMILY = Family(
    name="fused",
    variants=(Variant("tiny"),),
    legacy=Side("the fused code", Path("legacy.py")),
    new=Side("the code in parts", Path("new.py")),
    rules="rules.json",
    inputs=inputs,
)
