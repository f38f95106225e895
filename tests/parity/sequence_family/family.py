"""A family whose sides name and lay out otherwise what no rule tells: sequence first against batch first, and more."""

from pathlib import Path

from converters.rules.mapping import Keep
from legacy_adapters.family import Alias, Family, Form, Side, Variant


def inputs(phase: str, seed: int) -> dict:
    """Make sequences as named tensors; each phase has other sizes."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    length, batch = {"predict": (5, 3), "train": (6, 2)}.get(phase, (4, 3))
    return {"tokens": torch.rand(batch, length, 8, generator=generator) - 0.5,
            "labels": torch.randint(0, 3, (batch,), generator=generator)}  # fmt: skip


LAYERS = "layers.*"

FAMILY = Family(
    name="sequence",
    variants=(Variant("small", settings=dict(layers=2)),),
    legacy=Side("the sequence-first code", Path("legacy.py")),
    new=Side("the batch-first code", Path("new.py")),
    rules=(Keep("layers.*.*.*"), Keep("classes.*")),
    inputs=inputs,
    aliases=lambda variant: (
        Alias("classes_of.encoding", "encoding"),
        Alias("layers.*.drop", ("layers.*.drop1", "layers.*.drop2", "layers.*.drop3")),
        *(Alias(f"stage{i}_loss", f"s{i}.loss", of="loss") for i in range(variant.settings["layers"])),
        Alias("mask", "dropped", of="tap"),
    ),
    forms=(
        Form("classes", phase="predict", select=(0, 1, 2), reason="only the last layer counts in inference"),
        Form("classes", phase="train", permute=(0, 2, 1, 3)),
        Form("layers.*", permute=(1, 0, 2)),
        Form("mask", permute=(1, 0, 2)),
    ),
)
