"""The models of both families, and what seeded weights of them need; imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Mapping, Tuple

from ddq_port import configs
from legacy_adapters.family import LEGACY, LINEAR, PRIOR, Draw, Exclusion, Rehearsal, Seeding, Side, Variant
from legacy_adapters.ground.packages import MMDET
from legacy_adapters.targets.repo2 import rehearsing

_TINY, _SHAPES = "tiny", "tiny_shapes"
#: Small models -> what is merged into the official config besides the family's own small width.
_SMALL = {_TINY: (), _SHAPES: (rehearsing.SHAPES,)}

SIDE = Side("ddq_port", Path(__file__).parent / "new.py", packages=("ddq_port",), needs=MMDET)

#: No image is the largest, the first neither the highest nor the widest; no side is a multiple of a stride.
_SMALL_SIZES = ((93, 115), (131, 121), (77, 157))
_FULL_SIZES = ((331, 397), (401, 467), (289, 499))

#: Of the head that DDQ FCN and the proposals of DDQ R-CNN have in common.
HEAD_CLASS_ROWS = {
    f"{head}.{name}": kind
    for head in ("bbox_head", "rpn_head")
    for layer in ("conv_cls", "aux_conv_cls")
    for name, kind in ((f"{layer}.weight", LINEAR), (f"{layer}.bias", PRIOR))
}
HEAD_SEEDING = Seeding(
    draws=(
        # factors of distances that are exponents
        Draw("*.scale", 0.1, 1.0, shape=()),
        # exponents of distances in strides
        Draw("*conv_reg.bias", 0.3, 0.7),
        Draw("*conv_cls.bias", 0.3, -1.0),
    ),
)

_OBJECTS = "the losses are given objects as lists here, as instances there; the matching and the targets are compared"
_META = "the losses are given all meta information here, of which they read the size"
#: What only the official code records.
EXCLUSIONS = (
    *(Exclusion(LEGACY, "module_in", f"*_head.{loss}_loss", f"gt_{what}.*", _OBJECTS)
      for loss in ("aux", "main") for what in ("bboxes", "labels")),
    *(Exclusion(LEGACY, "module_in", f"*_head.{loss}_loss", "img_metas.*.scale_factor", _META)
      for loss in ("aux", "main")),
)  # fmt: skip


def variants(folder: Path, legacy: Mapping[str, str]) -> Tuple[Variant, ...]:
    """Return the models.

    Args:
        folder: of the family, which has what makes the official config one of a small model in ``configs/legacy``.
        legacy: name of a variant -> its config in the checkout, without the folder and ``.py``; the first is that of
            the small models, too.
    """
    full = (
        _variant(folder, name, config, f"r50_8xb2-{name.removeprefix('r50_')}_coco", _FULL_SIZES)
        for name, config in legacy.items()
    )
    return (*full, _small(folder, _TINY, legacy))


def rehearsals(folder: Path, legacy: Mapping[str, str]) -> Tuple[Rehearsal, ...]:
    """Return the training of both sides on drawn images, in which all numbers are the same; arguments as above."""
    return (Rehearsal(_TINY, _small(folder, _SHAPES, legacy), rehearsing.STEPS, rehearsing.settings, expected_ap=0.5),)


def _small(folder: Path, name: str, legacy: Mapping[str, str]) -> Variant:
    overrides = (str(folder / "configs" / "legacy" / f"{name}.py"), *_SMALL[name])
    return _variant(folder, name, next(iter(legacy.values())), name, _SMALL_SIZES, overrides)


def _variant(
    folder: Path, name: str, legacy: str, new: str, sizes: Tuple[Tuple[int, int], ...], overrides: Tuple[str, ...] = ()
) -> Variant:
    family = folder.name
    return Variant(
        name,
        legacy=dict(config=f"projects/configs/{family}/{legacy}.py", overrides=list(overrides)),
        new=dict(config=str(configs.path(f"{family.replace('_', '-')}_{new}"))),
        sizes=sizes,
    )
