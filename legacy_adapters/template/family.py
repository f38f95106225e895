"""What this port is: its models, both sides, and what carries weights from one to the other.

This file is read by the command lines before anything heavy is loaded, so import no torch at its top.
"""

from pathlib import Path

from legacy_adapters.family import Exclusion, Family, Side, Variant

from .rules import RULES


def inputs(phase: str, seed: int) -> dict:
    """Make what both sides are given, as named tensors; they reach the adapter's `predict` and `losses`.

    `phase` is `predict`, `train` or `step 1`, `step 2` and so on. Give each phase other sizes, as real use does.
    Leave `inputs` out of FAMILY for detectors: they are given images with objects (`--size`, `--objects`).
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    rows = {"predict": 5, "train": 4}.get(phase, 3)
    images = torch.rand(rows, 3, 16, 12, generator=generator) - 0.5
    labels = torch.randint(0, 4, (rows,), generator=generator)
    return {"images": images, "labels": labels}


FAMILY = Family(
    name="NAME",
    # One Variant per model. `legacy` and `new` are what `build(options, device)` of each side is given, plain data.
    variants=(Variant("small", legacy={"width": 8}, new={"channels": 8}),),
    # A legacy side that is run from a checkout says so, and then needs --legacy-repo (legacy_adapters.family.Checkout):
    #   checkout=Checkout(files=("models/net.py",), hint="a checkout of github.com/someone/old"),
    # `packages` of the new side must never be loaded in the legacy process, for then an error would be on both sides.
    legacy=Side("the old code", Path("legacy.py")),
    new=Side("my port", Path("new.py"), packages=()),
    rules=RULES,
    inputs=inputs,
    # What has no weights and another name (legacy_adapters.family.Alias), such as dropouts and loss terms:
    #   aliases=(Alias("blocks.*.drop", "layers.*.dropout"), Alias("loss_cls", "cls", of="loss")),
    # What one side records and the other has no twin for, each with its reason: side, kind, name, slot, reason. Often
    # it is a module of the port whose result the old code never has as one tensor.
    exclusions=(Exclusion("new", "*", "stem", "*", "a module of the port; the old model calls its parts"),),
    # class_rows={"head.*": LINEAR}, for `ddq-convert --num-classes`
    # layouts=Path("layouts"), which `python -m converters.layouts FOLDER` writes, so that `ddq-convert` builds no model
)
