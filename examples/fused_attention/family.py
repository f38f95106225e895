"""A small text encoder without mmdet, whose fused projection of queries, keys and values the port has taken apart.

Gradients are sums in another order there, so the last bits may differ. From a checkout of this toolkit:

    ddq-parity run --family examples/fused_attention --tolerance derived
"""

from pathlib import Path

from legacy_adapters.family import Exclusion, Family, Side, Variant


def inputs(phase: str, seed: int) -> dict:
    """Make token ids [bs, length] and labels [bs], of another length in every phase."""
    import torch

    length = {"predict": 12, "train": 9}.get(phase, 7)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 50, (3, length), generator=generator)
    return {"tokens": tokens, "labels": torch.randint(0, 5, (3,), generator=generator)}


FAMILY = Family(
    name="fused_attention",
    variants=(Variant("small", legacy=dict(width=32, heads=4, layers=2), new=dict(width=32, heads=4, layers=2)),),
    legacy=Side("the old encoder", Path("legacy.py")),
    new=Side("the new encoder", Path("new.py")),
    rules="rules.json",
    inputs=inputs,
    exclusions=(Exclusion("new", "*", "blocks.*.attention", "*", "the attention is no module of its own in the old code"),),
)
