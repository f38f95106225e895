"""Detectors of MMDetection 2.x, carried to MMDetection 3.x by their two configs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from legacy_adapters.family import SIDES, Checkout, Family, Side, Variant
from legacy_adapters.ground.packages import MMDET

from . import model_configs, rules_detr
from .aliases import ALIASES
from .exclusions import exclusions
from .forms import forms
from .hints import hints
from .rules import former, rules
from .seeding import DENSE_SOFTMAX, EXPONENTS, FEW, OF_STAGES, SEEDING, WITHIN_IMAGES

#: Detectors, and dense heads, whose weights are drawn otherwise than those of the others.
_SEEDINGS = dict(
    QueryInst=WITHIN_IMAGES, YOLACT=DENSE_SOFTMAX, SSDHead=DENSE_SOFTMAX, PISASSDHead=DENSE_SOFTMAX, CascadeRCNN=OF_STAGES,
    YOLOV3=EXPONENTS, PointRend=FEW,
)


def configured(legacy: str, new: str) -> Variant:
    """Return the model of two configs.

    Raises:
        FamilyError: if there is no such config of the new side, or it is none of 3.x.
    """
    model = model_configs.read(new) if new else {}
    kinds = [str(part.get("type")) for part in (model, model.get("bbox_head") or {})]
    seeding = next((_SEEDINGS[kind] for kind in kinds if kind in _SEEDINGS), None)
    title = " -> ".join(Path(config).stem for config in (legacy, new) if config)
    return Variant(title, legacy=dict(config=legacy), new=dict(config=new), title=title, seeding=seeding)


def configs() -> Any:
    """Return what carries configs over; it needs mmdet and mmengine, which the command lines do without."""
    from .migration.migration import MIGRATION

    return MIGRATION


def resumption() -> Any:
    """Return what goes on with trainings; it needs mmdet and mmengine, as `configs` does."""
    from .resumption import RESUMPTION

    return RESUMPTION


def zoo() -> Any:
    """Return what tries the configs that come with 2.x; it needs mmdet and mmengine."""
    from .zoo.zoo import ZOO

    return ZOO


#: Small models, to try the family and in its tests.
_TRANSFORMERS = ("tiny_detr", "tiny_deformable", "tiny_deformable_refine", "tiny_deformable_two_stage")
_SMALL = (
    "tiny_retinanet",
    "tiny_fcos",
    "tiny_atss",
    "tiny_yolox",
    "tiny_faster_rcnn",
    "tiny_mask_rcnn",
    "tiny_cascade_rcnn",
    "tiny_sparse_rcnn",
    *_TRANSFORMERS,
)


def _own(name: str, legacy: str = "") -> Variant:
    """Return a model of two configs of this folder; the legacy one may have another name."""
    folder = Path(__file__).parent / "configs"
    names = zip(SIDES, (legacy or name, name))
    return Variant(name, classes=7, **{side: dict(config=str(folder / side / f"{own}.py")) for side, own in names})


FAMILY = Family(
    name="mmdet2",
    variants=(*(_own(name) for name in _SMALL), *(_own(f"{name}_sequence_first", name) for name in _TRANSFORMERS)),
    legacy=Side(
        "mmdet 2.x",
        Path("legacy.py"),
        checkout=Checkout(
            files=("mmdet/__init__.py",),
            hint="a folder with the packages mmdet 2.x and mmcv 1.x",
            code=("mmdet",),
            or_installed=True,
        ),
        frozen_groups=True,
    ),
    new=Side("mmdet 3.x", Path("new.py"), packages=("mmengine",), needs=MMDET),
    rules=rules,
    former=former,
    seeding=SEEDING,
    aliases=(*ALIASES, *rules_detr.ALIASES),
    forms=forms,
    paddings=rules_detr.PADDINGS,
    hints=hints,
    exclusions=exclusions,
    batch_divisor=32,
    configured=configured,
    configs=configs,
    resumption=resumption,
    zoo=zoo,
    layouts=Path("layouts"),
)
