"""The model of a config: what 3.x calls otherwise, or has in another place."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from .draft import Draft, taken
from .transformers import TRANSFORMERS

#: Costs of matching, in the order in which 2.x adds them up -> their defaults there.
_COSTS = {
    "HungarianAssigner": dict(
        cls_cost=dict(type="ClassificationCost", weight=1.0),
        reg_cost=dict(type="BBoxL1Cost", weight=1.0),
        iou_cost=dict(type="IoUCost", iou_mode="giou", weight=1.0),
    ),
    "MaskHungarianAssigner": dict(
        cls_cost=dict(type="ClassificationCost", weight=1.0),
        mask_cost=dict(type="FocalLossCost", weight=1.0, binary_input=True),
        dice_cost=dict(type="DiceCost", weight=1.0),
    ),
}


def model(draft: Draft, old: Mapping[str, Any]) -> dict[str, Any]:
    """Translate the model and return it; it stands in the draft, too."""
    new = deepcopy(dict(old["model"]))
    for part in ("train_cfg", "test_cfg"):  # beside the model in configs of the first versions of 2.x
        beside = old.get(part)
        if beside is not None and new.get(part) is None:
            new[part] = deepcopy(beside)
            draft.came(f"model.{part}", part)
    _weights(draft, new)
    _boxes_without_area(draft, new)
    _sampler_without_effect(draft, new)
    for part, name in (("train_cfg", "rpn_proposal"), ("test_cfg", "rpn")):
        settings = (new.get(part) or {}).get(name) if isinstance(new.get(part), dict) else None
        if isinstance(settings, dict):
            _proposals_of_first_versions(draft, settings, f"model.{part}.{name}", _by_level(new))
    new = _walk(draft, new, "model")
    draft.config["model"] = new
    return new


def _weights(draft: Draft, new: dict[str, Any]) -> None:
    """Move `pretrained` to the backbone."""
    weights = new.pop("pretrained", None)
    backbone = new.get("backbone")
    if weights is not None and isinstance(backbone, dict) and backbone.get("init_cfg") is None:
        backbone["init_cfg"] = dict(type="Pretrained", checkpoint=weights)
        draft.came("model.backbone.init_cfg.checkpoint", "model.pretrained")
    if isinstance(backbone, dict) and "pretrained" in backbone:
        own = backbone.pop("pretrained")
        if own is not None and backbone.get("init_cfg") is None:
            backbone["init_cfg"] = dict(type="Pretrained", checkpoint=own)
            draft.came("model.backbone.init_cfg.checkpoint", "model.backbone.pretrained")


def _boxes_without_area(draft: Draft, new: dict[str, Any]) -> None:
    """Dense heads of 2.x do not heed `min_bbox_size`; those of 3.x do (D28)."""
    settings = new.get("test_cfg")
    if isinstance(settings, dict) and "min_bbox_size" in settings:
        settings["min_bbox_size"] = -1


def _sampler_without_effect(draft: Draft, new: dict[str, Any]) -> None:
    """Heads with anchors of 2.x do not heed a sampler beside a focal loss; those of 3.x do."""
    head, settings = new.get("bbox_head"), new.get("train_cfg")
    loss = head.get("loss_cls") if isinstance(head, dict) else None
    sampler = settings.get("sampler") if isinstance(settings, dict) else None
    if (
        isinstance(loss, dict)
        and loss.get("type") in _FOCAL
        and isinstance(sampler, dict)
        and "anchor_generator" in head
    ):
        if sampler.get("type") != "PseudoSampler":
            draft.remark("model.train_cfg.sampler", sampler, f"2.x does not heed it beside `{loss['type']}`; left out")
            settings["sampler"] = dict(type="PseudoSampler")


def _by_level(new: Mapping[str, Any]) -> bool:
    """Tell whether the head of proposals calls the NMS for each level by itself, on both sides, and reads how many it keeps."""
    return (new.get("rpn_head") or {}).get("type") == "GARPNHead"


def _proposals_of_first_versions(draft: Draft, settings: dict[str, Any], path: str, by_level: bool) -> None:
    """Say the NMS of proposals as later versions of 2.x do."""
    if "nms_thr" in settings:
        threshold = settings.pop("nms_thr")
        settings.setdefault("nms", dict(type="nms", iou_threshold=threshold))
        draft.came(f"{path}.nms.iou_threshold", f"{path}.nms_thr")
    if "max_num" in settings:
        count = settings.pop("max_num")
        settings.setdefault("max_per_img", count)
        draft.came(f"{path}.max_per_img", f"{path}.max_num")
    for name in () if by_level else ("nms_post", "nms_across_levels"):
        if settings.pop(name, False) is True:
            draft.remark(f"{path}.{name}", True, "2.28.2 and 3.x have no NMS over all levels in this place")


_FOCAL = ("FocalLoss", "GHMC", "QualityFocalLoss")


def _walk(draft: Draft, value: Any, path: str) -> Any:
    """Translate what is within first, then what holds it."""
    if isinstance(value, list):
        return [_walk(draft, item, f"{path}.{number}") for number, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    kind = value.get("type")
    whole = TRANSFORMERS.get(str(kind)) if isinstance(kind, str) else None
    if whole is not None:
        value = whole(draft, value, path)
    value = {key: _walk(draft, item, f"{path}.{key}") for key, item in value.items()}
    translate = _PARTS.get(str(kind)) if isinstance(kind, str) else None
    return translate(draft, value, path) if translate is not None else value


def _assigner(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
    part = dict(part)
    costs = []
    for name, default in _COSTS[part["type"]].items():
        given = name in part
        cost = part.pop(name, default)
        if cost is not None and (part["type"] == "HungarianAssigner" or cost.get("weight", 1.0) != 0):
            draft.came(f"{path}.match_costs.{len(costs)}", f"{path}.{name}" if given else path)
            costs.append(cost)
    return {**part, "type": "HungarianAssigner", "match_costs": part.pop("match_costs", costs)}


def _renamed(**names: str) -> Any:
    def translate(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
        for old, new in names.items():
            if old in part:
                draft.came(f"{path}.{new}", f"{path}.{old}")
        rest = dict(part)
        moved = taken(rest, names)
        return {**rest, **moved}

    return translate


def _without(**gone: Any) -> Any:
    """Return what leaves out settings of 2.x that 3.x has no use for, where they have the value that it has always."""

    def translate(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
        for name, usual in gone.items():
            value = part.pop(name, usual)
            if value != usual:
                draft.remark(
                    f"{path}.{name}",
                    value,
                    f"`{part['type']}` of 3.x has no such setting; it computes as with {usual!r}",
                )
        return part

    return translate


def _yolox(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
    """The sizes that a batch is resized to are the preprocessor's."""
    sizes, step = part.pop("random_size_range", (15, 25)), part.pop("size_multiplier", 32)
    interval, size = part.pop("random_size_interval", 10), part.pop("input_size", None)
    if size is None and "random_size_range" not in part:
        size = (640, 640)
    resize = dict(
        type="BatchSyncRandomResize",
        random_size_range=tuple(step * one for one in sizes),
        size_divisor=step,
        interval=interval,
    )
    draft.came(f"{path}.data_preprocessor.batch_augments.0.random_size_range", f"{path}.random_size_range")
    draft.came(f"{path}.data_preprocessor.batch_augments.0.interval", f"{path}.random_size_interval")
    draft.came(f"{path}.data_preprocessor.batch_augments.0.size_divisor", f"{path}.size_multiplier")
    part["data_preprocessor"] = dict(type="DetDataPreprocessor", pad_size_divisor=step, batch_augments=[resize])
    return part


def _yolact(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
    segments = part.pop("segm_head", None)
    if segments is not None and "loss_segm" in segments:
        part["mask_head"]["loss_segm"] = segments["loss_segm"]
        draft.came(f"{path}.mask_head.loss_segm", f"{path}.segm_head.loss_segm")
    part["mask_head"]["with_seg_branch"] = segments is not None
    if isinstance(part.get("test_cfg"), dict):  # numbers in the code of 2.x
        part["test_cfg"].update(mask_thr=0.5, mask_thr_binary=0.5)
    return part


def _first_of_cascade(draft: Draft, part: dict[str, Any], path: str) -> dict[str, Any]:
    part.setdefault("num_classes", 1)
    return part


_PARTS: dict[str, Any] = {
    "HungarianAssigner": _assigner,
    "MaskHungarianAssigner": _assigner,
    "CTResNetNeck": _renamed(in_channel="in_channels"),
    "CenterNetHead": _renamed(in_channel="in_channels", feat_channel="feat_channels"),
    "NASFPN": _without(add_extra_convs=False),
    "CascadeRPNHead": _first_of_cascade,
    "StageCascadeRPNHead": lambda draft, part, path: {key: value for key, value in part.items() if key != "sampling"},
    "YOLOX": _yolox,
    "YOLACT": _yolact,
}
