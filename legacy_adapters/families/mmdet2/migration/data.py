"""Datasets, loaders, evaluators, and the preprocessor that pipelines of 2.x contain."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .draft import Draft, left_over, taken
from .pipelines import Steps, pipeline

_WRAPPERS = ("RepeatDataset", "ConcatDataset", "ClassBalancedDataset", "MultiImageMixDataset")
#: Datasets whose class of 3.x is given a folder of images and a file of annotations, as in 2.x.
_OF_COCO = ("CocoDataset", "LVISDataset", "LVISV05Dataset", "LVISV1Dataset", "CityscapesDataset", "DeepFashionDataset",
            "Objects365V1Dataset", "Objects365V2Dataset")  # fmt: skip
_OF_VOC = ("VOCDataset", "XMLDataset", "WIDERFaceDataset")
_LOADER = dict(samples_per_gpu="batch_size", workers_per_gpu="num_workers", persistent_workers="persistent_workers",
               pin_memory="pin_memory", drop_last="drop_last")  # fmt: skip
_PARTS = ("train", "val", "test")


def loaders(draft: Draft, old: Mapping[str, Any]) -> dict[str, Steps]:
    """Translate `data`; return the pipelines of its parts, by name."""
    data = dict(old.get("data") or {})
    common = {key: data.pop(key) for key in _LOADER if key in data}
    made: dict[str, Steps] = {}
    for part in _PARTS:
        dataset, own = data.pop(part, None), data.pop(f"{part}_dataloader", {})
        if dataset is None:
            continue
        path, origin = f"{part}_dataloader", f"data.{part}"
        root = str(old.get("data_root") or "")
        new = _dataset(draft, dataset, f"{path}.dataset", origin, root, part, made)
        options = {**(common if part == "train" else {**common, "samples_per_gpu": 1}), **own}
        if "samples_per_gpu" in (dataset if isinstance(dataset, Mapping) else {}) and part != "train":
            options["samples_per_gpu"] = dataset["samples_per_gpu"]
        is_by_epoch = "max_iters" not in (old.get("runner") or {})
        draft.config[path] = {
            **(_loading(draft, part, options, is_by_epoch) if _is_whole(dataset) else {}),
            "dataset": new,
        }
    left_over(draft, "data", data, "not known of `data`")
    if made.get("train") is not None:
        _load_as_learnt(draft, made["train"])
    return made


def _load_as_learnt(draft: Draft, learnt: Steps) -> None:
    """Load of the objects that a test compares with what a training learns, as packaged configs do."""
    for part in ("val", "test"):
        steps = ((draft.config.get(f"{part}_dataloader") or {}).get("dataset") or {}).get("pipeline") or ()
        for step in steps:
            if step["type"] == "LoadAnnotations":
                step.update(dict(with_mask=True) if learnt.has_masks else {})


def _is_whole(dataset: Any) -> bool:
    return isinstance(dataset, list) or "type" in dataset


def _loading(draft: Draft, part: str, options: dict[str, Any], is_by_epoch: bool) -> dict[str, Any]:
    path, shuffle = f"{part}_dataloader", part == "train"
    origin = "data" if part == "train" else f"data.{part}"
    for old, new in _LOADER.items():
        draft.came(f"{path}.{new}", f"{origin}.{old}")
    new = dict(dict(batch_size=2 if part == "train" else 1, num_workers=2), **taken(options, _LOADER))
    new.setdefault("persistent_workers", bool(new["num_workers"]))
    if part != "train":
        new.setdefault("drop_last", False)
    kind = "DefaultSampler" if is_by_epoch or part != "train" else "InfiniteSampler"
    new["sampler"] = dict(type=kind, shuffle=options.pop("shuffle", shuffle))
    sampler = options.pop("class_aware_sampler", None)
    if sampler is not None:
        new["sampler"] = dict(type="ClassAwareSampler", **sampler)
    elif shuffle and new["sampler"]["shuffle"]:
        new["batch_sampler"] = dict(type="AspectRatioBatchSampler")  # the grouping that 2.x does without being asked
    left_over(draft, origin, options, "not known of a loader")
    return new


def _dataset(
    draft: Draft, old: Any, path: str, origin: str, root: str, part: str, made: dict[str, Steps]
) -> dict[str, Any]:
    """Translate a dataset and those within it."""
    draft.came(path, origin)
    if isinstance(old, list):
        return _concatenated(draft, [dict(one) for one in old], path, origin, root, part, made)
    old = dict(old)
    for key in ("samples_per_gpu", "workers_per_gpu", "separate_eval"):
        old.pop(key, None)
    kind = old.get("type")
    if kind in _WRAPPERS:
        return _wrapper(draft, old, path, origin, root, part, made)
    files, folders = old.get("ann_file"), old.get("img_prefix")
    if isinstance(files, (list, tuple)):
        each = [
            dict(
                old,
                ann_file=file,
                **(
                    {}
                    if folders is None
                    else dict(img_prefix=folders[number] if isinstance(folders, (list, tuple)) else folders)
                ),
            )
            for number, file in enumerate(files)
        ]
        return _concatenated(draft, each, path, origin, root, part, made)
    return _plain(draft, old, path, origin, root, part, made)


def _concatenated(
    draft: Draft, each: list[dict[str, Any]], path: str, origin: str, root: str, part: str, made: dict[str, Steps]
) -> dict[str, Any]:
    parts = [_dataset(draft, one, f"{path}.datasets.{n}", origin, root, part, made) for n, one in enumerate(each)]
    ignored = dict(ignore_keys=["dataset_type"]) if any(one.get("type") in _OF_VOC for one in each) else {}
    return dict(type="ConcatDataset", **ignored, datasets=parts)


def _wrapper(
    draft: Draft, old: dict[str, Any], path: str, origin: str, root: str, part: str, made: dict[str, Steps]
) -> dict[str, Any]:
    new: dict[str, Any] = dict(type=old.pop("type"))
    inner, parts, steps = old.pop("dataset", None), old.pop("datasets", None), old.pop("pipeline", None)
    if old.pop("filter_empty_gt", True) is not True:
        draft.remark(f"{origin}.filter_empty_gt", False, "3.x filters in the dataset within this one only")
    new.update(old)
    if parts is not None:
        new["datasets"] = [
            _dataset(draft, one, f"{path}.datasets.{n}", f"{origin}.datasets.{n}", root, part, made)
            for n, one in enumerate(parts)
        ]
    if inner is not None:
        new["dataset"] = _dataset(draft, inner, f"{path}.dataset", f"{origin}.dataset", root, part, made)
    if steps is not None:
        _pipeline(draft, new, steps, path, origin, part, made)
    return new


def _plain(
    draft: Draft, old: dict[str, Any], path: str, origin: str, root: str, part: str, made: dict[str, Steps]
) -> dict[str, Any]:
    new: dict[str, Any] = {}
    kind = old.pop("type", None)
    if kind is not None:
        new["type"] = kind
    testing = part != "train"
    for key in ("file_client_args", "test_mode", "proposal_file", "palette", "PALETTE"):
        if key in old and key == "proposal_file":
            new["proposal_file"] = old[key]
        old.pop(key, None)
    own = old.pop("data_root", None)
    if own is not None:
        new["data_root"] = own
        draft.came(f"{path}.data_root", f"{origin}.data_root")
    _places(draft, new, old, kind, "" if own is not None else root, path, origin)
    classes = old.pop("classes", None)
    if classes is not None:
        draft.came(f"{path}.metainfo.classes", f"{origin}.classes")
        new["metainfo"] = dict(classes=(classes,) if isinstance(classes, str) else tuple(classes))
        if isinstance(classes, str):
            draft.remark(
                f"{origin}.classes", classes, "2.x reads names from such a file; 3.x wants the names themselves"
            )
    empty = old.pop("filter_empty_gt", True)
    if testing and kind is not None:
        new["test_mode"] = True
    elif kind is not None:
        draft.came(f"{path}.filter_cfg", origin)
        draft.came(f"{path}.filter_cfg.filter_empty_gt", f"{origin}.filter_empty_gt")
        new["filter_cfg"] = dict(filter_empty_gt=empty, min_size=32)
        if kind in _OF_VOC and old.get("min_size") is not None:
            draft.came(f"{path}.filter_cfg.bbox_min_size", f"{origin}.min_size")
            new["filter_cfg"]["bbox_min_size"] = old.pop("min_size")
    if kind in _OF_VOC:
        old.pop("min_size", None)  # only of a training
    steps = old.pop("pipeline", None)
    new.update(old)
    if steps is not None:
        _pipeline(draft, new, steps, path, origin, part, made)
    return new


def _pipeline(
    draft: Draft, new: dict[str, Any], old: Any, path: str, origin: str, part: str, made: dict[str, Steps]
) -> None:
    steps = pipeline(draft, old, f"{origin}.pipeline", testing=part != "train")
    is_inner = all(step.get("type") in ("LoadImageFromFile", "LoadAnnotations") for step in old)
    if is_inner and steps.steps and steps.steps[-1]["type"] == "PackDetInputs":
        steps.steps.pop()  # what stands around it packs
    new["pipeline"] = steps.steps
    for place, where, _ in steps.origins:
        draft.came(f"{path}.pipeline.{place}", where)
    former = made.get(part)
    if former is not None:
        steps.has_masks |= former.has_masks
        steps.has_segments |= former.has_segments
        steps.normalize = steps.normalize or former.normalize
        steps.pad = steps.pad or former.pad
    made[part] = steps


def _places(
    draft: Draft, new: dict[str, Any], old: dict[str, Any], kind: Any, root: str, path: str, origin: str
) -> None:
    """Say where images and annotations are, relative to the root where they lie beneath it."""
    file, folder, segments = (old.pop(key, None) for key in ("ann_file", "img_prefix", "seg_prefix"))
    under = root if root and file and all(str(one).startswith(root) for one in (file, folder) if one) else ""
    if under:
        new["data_root"] = under
    cut = len(under)
    if file is not None:
        draft.came(f"{path}.ann_file", f"{origin}.ann_file")
        new["ann_file"] = str(file)[cut:]
    prefix = {}
    if folder is not None:
        draft.came(f"{path}.data_prefix", f"{origin}.img_prefix")
        prefix["sub_data_root" if kind in _OF_VOC and kind != "WIDERFaceDataset" else "img"] = str(folder)[cut:]
    if segments is not None:
        prefix["seg"] = str(segments)[cut:] if str(segments).startswith(under) else str(segments)
    if prefix:
        new["data_prefix"] = prefix


def preprocessor(draft: Draft, made: Mapping[str, Steps], model: dict[str, Any]) -> None:
    """Give the model the preprocessor that the pipelines contain; they must agree on it."""
    steps = made.get("test") or made.get("val") or made.get("train")
    if steps is None:
        return
    learnt = made.get("train")
    new: dict[str, Any] = dict(type="DetDataPreprocessor")
    normalize, pad = steps.normalize, steps.pad
    if normalize is not None:
        for name, own in (("mean", "mean"), ("std", "std"), ("bgr_to_rgb", "to_rgb")):
            draft.came(f"model.data_preprocessor.{name}", f"{normalize['origin']}.{own}")
        new.update(mean=normalize.get("mean"), std=normalize.get("std"), bgr_to_rgb=normalize.get("to_rgb", True))
    if pad is not None:
        draft.came("model.data_preprocessor.pad_size_divisor", f"{pad['origin']}.size_divisor")
        draft.came("model.data_preprocessor.pad_value", f"{pad['origin']}.pad_val")
        value = pad.get("pad_val", 0)
        value = value.get("img", 0) if isinstance(value, dict) else value
        new.update({} if not value else dict(pad_value=value))
    for name in ("pad_mask", "pad_seg", "seg_pad_value"):
        draft.came(f"model.data_preprocessor.{name}", "data.train")
    if learnt is not None and learnt.has_masks:
        new["pad_mask"] = True
    if learnt is not None and learnt.has_segments:
        new.update(pad_seg=True, seg_pad_value=255)
    divisor = (pad or {}).get("size_divisor")
    new["pad_size_divisor"] = divisor or 1
    if learnt is not None and learnt is not steps:
        _agree(draft, learnt, steps)
    model["data_preprocessor"] = new
    if learnt is not None and learnt.segment_scale is not None:
        _scale_segments(draft, learnt.segment_scale, model)
    draft.came("model.data_preprocessor", "data")


def _scale_segments(draft: Draft, scale: float, model: dict[str, Any]) -> None:
    """Let the head scale maps of segments, as in 3.x."""
    fused = (model.get("roi_head") or {}).get("semantic_head") if isinstance(model.get("roi_head"), dict) else None
    if isinstance(fused, dict):
        fused["seg_scale_factor"] = scale
        draft.came("model.roi_head.semantic_head.seg_scale_factor", "data.train.pipeline")
    elif isinstance(model.get("semantic_head"), dict):
        if scale != 0.25:
            draft.remark(
                "data.train.pipeline", scale, "`SegRescale` is the head's in 3.x, which scales by its `start_level`"
            )
    else:
        draft.remark("data.train.pipeline", scale, "3.x has no `SegRescale`; its heads scale maps of segments")


def _agree(draft: Draft, learnt: Steps, steps: Steps) -> None:
    for name, one, other in (("Normalize", learnt.normalize, steps.normalize), ("Pad", learnt.pad, steps.pad)):
        settings = [{key: value for key, value in (side or {}).items() if key != "origin"} for side in (one, other)]
        if settings[0] != settings[1]:
            why = f"`{name}` of the training is another than that of the test, which 3.x's one preprocessor does"
            draft.remark(str((one or other or {}).get("origin")), settings[0], why)


def evaluators(draft: Draft, old: Mapping[str, Any]) -> None:
    """Translate `evaluation` into evaluators; the interval is that of the training loop."""
    options = dict(old.get("evaluation") or {})
    data = old.get("data") or {}
    for key in ("interval", "start", "by_epoch", "dynamic_intervals", "save_best", "rule", "gpu_collect"):
        options.pop(key, None)
    metric = options.pop("metric", None)
    for part in ("val", "test"):
        dataset, loader = data.get(part), draft.config.get(f"{part}_dataloader")
        if loader is None or not isinstance(dataset, Mapping) or "type" not in dataset:
            continue
        draft.came(f"{part}_evaluator", "evaluation")
        made = _evaluator(draft, str(dataset["type"]), metric, dataset, dict(options))
        if made is None:
            draft.remark(
                f"data.{part}.type", dataset["type"], "no evaluator of 3.x is known for it; name one in the new config"
            )
        else:
            draft.config[f"{part}_evaluator"] = made


def _evaluator(
    draft: Draft, kind: str, metric: Any, dataset: Mapping[str, Any], options: dict[str, Any]
) -> dict[str, Any] | list[dict[str, Any]] | None:
    if kind in _OF_VOC:
        left_over(draft, "evaluation", options, "not known of this evaluation")
        is_2007 = "VOC2007" in str(dataset.get("ann_file")) or "VOC2007" in str(dataset.get("img_prefix"))
        return dict(type="VOCMetric", metric=metric or "mAP", eval_mode="11points" if is_2007 else "area")
    if kind in _OF_COCO:
        file = str(dataset.get("ann_file"))
        root = dataset.get("data_root")
        file = os.path.join(str(root), file) if root else file
        new = dict(
            type="LVISMetric" if kind.startswith("LVIS") else "CocoMetric", ann_file=file, metric=metric or "bbox"
        )
        new["format_only"] = False
        names = dict(
            classwise="classwise", proposal_nums="proposal_nums", iou_thrs="iou_thrs", metric_items="metric_items"
        )
        new.update(taken(options, names))
        left_over(draft, "evaluation", options, "not known of this evaluation")
        return new
    return None
