"""Test and training pipelines: what 2.x does to an image before the model, in the steps of 3.x."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from .draft import Draft, left_over, taken

#: Steps that only pack what the others made; 3.x has one for them.
_PACKING = (
    "DefaultFormatBundle",
    "ImageToTensor",
    "Collect",
    "ToTensor",
    "ToDataContainer",
    "Transpose",
    "WrapFieldsToLists",
)
#: Steps behind which normalising is the same as before them.
_SHAPE_ONLY = ("SegRescale", "FilterAnnotations", "Pad", "RandomFlip", "RandomCrop", "RandomCenterCropPad", *_PACKING)
#: What 2.x takes for a test; 3.x packs the same for every detector.
META_OF_TEST = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
META_OF_TRAINING = (*META_OF_TEST, "flip", "flip_direction")
#: What 2.x can collect of an image and 3.x packs anyway, or has no use for.
_METAS = (
    *META_OF_TRAINING,
    "filename",
    "ori_filename",
    "pad_shape",
    "img_norm_cfg",
    "batch_input_shape",
    "pad_fixed_size",
    "pad_size_divisor",
)
_NO_TTA = (
    "2.x detects in several variants of an image and merges them; 3.x does that with `tta_model` and "
    "mmdet's test.py --tta. The new config detects in the first variant only"
)


@dataclass
class Steps:
    """A pipeline of 3.x, and what of the old one belongs to the model's preprocessor.

    Attributes:
        steps: of 3.x.
        normalize: settings of `Normalize`; None if nothing normalises.
        pad: settings of `Pad` that the preprocessor does; None if it pads no more than to the largest image of a batch.
        has_masks: objects have masks.
        has_segments: there are maps of segments.
        segment_scale: that they are scaled by, which the head does in 3.x; None if nothing scales them.
        origins: index of a step, path of the old one, and its type.
    """

    steps: list[dict[str, Any]] = field(default_factory=list)
    normalize: dict[str, Any] | None = None
    pad: dict[str, Any] | None = None
    has_masks: bool = False
    has_segments: bool = False
    segment_scale: float | None = None
    origins: list[tuple[int, str, str]] = field(default_factory=list)


def pipeline(draft: Draft, old: Sequence[Any], path: str, *, testing: bool) -> Steps:
    """Translate a pipeline.

    Args:
        draft: takes remarks.
        old: its steps.
        path: of it in the old config.
        testing: images are detected in, not learnt from.
    """
    made = Steps()
    metas: list[str] = []
    flat = list(_flat(draft, old, path, testing))
    normal = next((place for place, (_, step) in enumerate(flat) if step.get("type") == "Normalize"), len(flat))
    for place, (where, step) in enumerate(flat):
        step = deepcopy(step)
        name = step.get("type")
        if name in _PACKING:
            metas += [key for key in step.get("meta_keys", ()) if key not in _METAS and key not in metas]
            _packed(draft, step, where)
        elif name == "Normalize":
            made.normalize = {key: value for key, value in step.items() if key != "type"}
            made.normalize["origin"] = where
            behind = [later["type"] for _, later in flat[place + 1 :] if later.get("type") not in _SHAPE_ONLY]
            if behind:
                draft.remark(where, None, f"3.x normalises behind all steps, 2.x before {', '.join(behind)}")
        elif name == "SegRescale":
            made.segment_scale = step.get("scale_factor", 1)
        elif name == "Pad" and place > normal and _is_of_batch(step):
            made.pad = {**{key: value for key, value in step.items() if key != "type"}, "origin": where}
        else:
            _step(draft, made, step, where, testing)
    if testing and made.steps and not any(step["type"] == "LoadAnnotations" for step in made.steps):
        # behind the resizing, so that the objects that results are compared with keep the size of the file
        made.steps.append(dict(type="LoadAnnotations", with_bbox=True))
    if made.steps:
        packed = (*META_OF_TEST, *metas) if testing else (*META_OF_TRAINING, *metas) if metas else ()
        made.steps.append(dict(type="PackDetInputs", **(dict(meta_keys=packed) if packed else {})))
    return made


def _flat(draft: Draft, old: Sequence[Any], path: str, testing: bool) -> Any:
    """Yield the steps and their paths; those that test-time augmentation repeats for its first variant."""
    for number, step in enumerate(old):
        where = f"{path}.{number}"
        if step.get("type") != "MultiScaleFlipAug":
            if step.get("type") == "RandomFlip" and testing and not step.get("flip_ratio"):
                continue
            yield where, step
            continue
        options = dict(step)
        options.pop("type")
        transforms = options.pop("transforms", [])
        scale, factor = options.pop("img_scale", None), options.pop("scale_factor", None)
        scales = scale if isinstance(scale, list) else [scale]
        if options.pop("flip", False) or len(scales) > 1 or isinstance(factor, list):
            draft.remark(where, step.get("img_scale"), _NO_TTA)
        options.pop("flip_direction", None)
        left_over(draft, where, options, "not known of `MultiScaleFlipAug`")
        for place, inner in enumerate(transforms):
            if inner.get("type") == "RandomFlip":
                continue  # it flips only what the step around it says
            if inner.get("type") == "Resize":
                inner = dict(
                    inner, **(dict(img_scale=scales[0]) if scales[0] is not None else dict(scale_factor=factor))
                )
            yield f"{where}.transforms.{place}", inner


def _is_of_batch(step: dict[str, Any]) -> bool:
    """Tell whether a step pads as the preprocessor does: to a multiple, with one value."""
    value = step.get("pad_val", 0)
    value = value.get("img", 0) if isinstance(value, dict) else value
    return step.get("size") is None and not step.get("pad_to_square") and not isinstance(value, (list, tuple))


def _packed(draft: Draft, step: dict[str, Any], where: str) -> None:
    padding = step.get("pad_val") or {}
    if isinstance(padding, dict) and padding.get("img"):
        why = "3.x pads the images of a batch with `data_preprocessor.pad_value`, which is 0 in the new config"
        draft.remark(f"{where}.pad_val", padding, why)
    extra = [key for key in step.get("keys", ()) if key in ("proposals",)]
    if step.get("type") == "Collect" and extra:
        draft.remark(
            f"{where}.keys", extra, "3.x has proposals in the dataset (`proposal_file`) and packs them by itself"
        )


def _step(draft: Draft, made: Steps, step: dict[str, Any], where: str, testing: bool) -> None:
    name = step.pop("type", None)
    translate = _STEPS.get(str(name))
    new = translate(draft, step, where) if translate is not None else dict(type=name, **step)
    if name == "LoadAnnotations" and testing:
        return
    if new is None:
        return
    made.has_masks |= bool(new.get("with_mask"))
    made.has_segments |= bool(new.get("with_seg"))
    made.origins.append((len(made.steps), where, str(name)))
    made.steps.append(new)


def _load(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    new = dict(type="LoadImageFromFile", **taken(step, dict(to_float32="to_float32", color_type="color_type")))
    _no_client(draft, step, where)
    if step.pop("channel_order", "bgr") != "bgr":
        draft.remark(f"{where}.channel_order", "rgb", "3.x reads BGR; set bgr_to_rgb=False and mean, std in that order")
    return {**new, **step}


def _no_client(draft: Draft, step: dict[str, Any], where: str) -> None:
    client = step.pop("file_client_args", None)
    if client is not None and client.get("backend") != "disk":
        draft.remark(
            f"{where}.file_client_args", client, "3.x calls it `backend_args`; other backends were not carried over"
        )


def _annotations(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    _no_client(draft, step, where)
    if step.pop("denorm_bbox", False):
        draft.remark(f"{where}.denorm_bbox", True, "3.x has no such setting")
    return dict(type="LoadAnnotations", **{**dict(with_bbox=True), **step})


def _resize(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    scale, mode, ratio = (
        step.pop("img_scale", None),
        step.pop("multiscale_mode", "range"),
        step.pop("ratio_range", None),
    )
    common = dict(keep_ratio=step.pop("keep_ratio", True))
    common.update(
        taken(step, dict(interpolation="interpolation", backend="backend", bbox_clip_border="clip_object_border"))
    )
    step.pop("override", None)  # 3.x resizes again without being asked
    factor = step.pop("scale_factor", None)
    left_over(draft, where, step, "not known of `Resize`")
    scales = [tuple(one) for one in scale] if isinstance(scale, list) and not _is_pair(scale) else None
    if factor is not None:
        return dict(type="Resize", scale_factor=factor, **common)
    if ratio is not None:
        return dict(
            type="RandomResize", scale=tuple(scales[0] if scales else scale), ratio_range=tuple(ratio), **common
        )
    if scales is not None and len(scales) > 1:
        kind = (
            dict(type="RandomChoiceResize", scales=scales)
            if mode == "value"
            else dict(type="RandomResize", scale=scales)
        )
        return {**kind, **common}
    if scale is None:
        draft.remark(where, None, "no scale is said here; 3.x needs one")
        return dict(type="Resize", **common)
    return dict(type="Resize", scale=tuple(scales[0] if scales else scale), **common)


def _is_pair(scale: Any) -> bool:
    return len(scale) == 2 and not isinstance(scale[0], (list, tuple))


def _flip(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any] | None:
    prob = step.pop("flip_ratio", None)
    direction = step.pop("direction", "horizontal")
    left_over(draft, where, step, "not known of `RandomFlip`")
    if not prob:
        return None
    new: dict[str, Any] = dict(type="RandomFlip", prob=prob)
    return new if direction == "horizontal" else dict(new, direction=direction)


def _pad(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    value = step.get("pad_val")
    if isinstance(value, dict) and "masks" in value:
        step["pad_val"] = {key: one for key, one in value.items() if key != "masks"}
    size = step.get("size")
    if size is not None:  # (h, w) in 2.x
        step["size"] = tuple(size)[::-1]
    return dict(type="Pad", **step)


def _turned(name: str, key: str) -> Any:
    """Return what translates a step whose size is (h, w) in 2.x and (w, h) in 3.x."""

    def translate(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
        if step.get(key) is not None:
            step[key] = tuple(step[key])[::-1]
        for gone, usual in _FILTERS.get(name, {}).items():
            value = step.pop(gone, usual)
            if value != usual:
                draft.remark(
                    f"{where}.{gone}", value, f"`{name}` of 3.x has no such setting; `FilterAnnotations` drops boxes"
                )
        return dict(type=name, **step)

    return translate


#: Settings that 3.x leaves to `FilterAnnotations` -> their defaults in 2.x.
_FILTERS: dict[str, dict[str, Any]] = {
    "Mosaic": dict(min_bbox_size=0, skip_filter=True),
    "MixUp": dict(min_bbox_size=5, min_area_ratio=0.2, max_aspect_ratio=20, skip_filter=True),
    "RandomAffine": dict(min_bbox_size=2, min_area_ratio=0.2, max_aspect_ratio=20, skip_filter=True),
}


def _crop(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    if step.get("crop_type", "absolute") in ("absolute", "relative") and step.get("crop_size") is not None:
        step["crop_size"] = tuple(step["crop_size"])[::-1]
    return dict(type="RandomCrop", **step)


def _policies(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    policies = []
    for number, policy in enumerate(step.get("policies", ())):
        inner = Steps()
        for place, one in enumerate(policy):
            _step(draft, inner, deepcopy(one), f"{where}.policies.{number}.{place}", False)
        policies.append(inner.steps)
    return dict(type="RandomChoice", transforms=policies)


def _shift(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    return dict(type="RandomShift", **taken(step, dict(shift_ratio="prob")), **step)


def _renewed(name: str) -> Any:
    def translate(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
        draft.remark(
            where, dict(step), f"`{name}` draws and scales its strength otherwise in 3.x; look at its settings"
        )
        return dict(type=name, **step)

    return translate


def _proposals(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    return dict(type="LoadProposals", num_max_proposals=step.get("num_max_proposals"))


def _albu(draft: Draft, step: dict[str, Any], where: str) -> dict[str, Any]:
    step.pop("update_pad_shape", None)
    boxes = step.get("bbox_params")
    if isinstance(boxes, dict) and "gt_labels" in boxes.get("label_fields", ()):
        boxes["label_fields"] = ["gt_bboxes_labels", "gt_ignore_flags"]
    return dict(type="Albu", **step)


#: Type of a step -> what translates its settings; of others they are the same.
_STEPS: dict[str, Any] = {
    "LoadImageFromFile": _load,
    "LoadAnnotations": _annotations,
    "LoadPanopticAnnotations": lambda draft, step, where: dict(
        _annotations(draft, step, where), type="LoadPanopticAnnotations", with_bbox=step.get("with_bbox", True)
    ),
    "LoadProposals": _proposals,
    "Resize": _resize,
    "RandomFlip": _flip,
    "Pad": _pad,
    "Mosaic": _turned("Mosaic", "img_scale"),
    "MixUp": _turned("MixUp", "img_scale"),
    "RandomAffine": _turned("RandomAffine", "border"),
    "RandomCrop": _crop,
    "RandomCenterCropPad": _turned("RandomCenterCropPad", "crop_size"),
    "AutoAugment": _policies,
    "RandomShift": _shift,
    "Albu": _albu,
    **{name: _renewed(name) for name in ("Rotate", "Shear", "Translate", "ColorTransform", "EqualizeTransform",
                                         "BrightnessTransform", "ContrastTransform")},
}  # fmt: skip
