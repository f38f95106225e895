"""A config of 3.x in one form, whichever way it is written: scopes, paths, lists and types that may be left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .toolkit import SCOPES, class_names

#: Sections that decide what a model computes, is fed and learns.
COMPARED = (
    "model", "train_dataloader", "val_dataloader", "test_dataloader", "val_evaluator", "test_evaluator", "train_cfg",
    "optim_wrapper", "param_scheduler", "auto_scale_lr", "custom_hooks", "load_from", "resume",
    "find_unused_parameters",
)  # fmt: skip
#: Sections that decide what is shown, kept or run where; not compared.
ASIDE = (
    "default_scope", "default_hooks", "env_cfg", "visualizer", "vis_backends", "log_processor", "log_level", "work_dir",
    "custom_imports", "randomness", "launcher", "val_cfg", "test_cfg", "tta_model", "tta_pipeline", "experiment_name",
    "model_wrapper_cfg",
)  # fmt: skip
#: Settings of which no result depends.
_QUIET = ("backend_args", "num_workers", "persistent_workers", "pin_memory", "meta_keys", "outfile_prefix", "debug",
          "with_cp", "dataset_type", "priority", "_scope_", "file_client_args", "non_blocking")  # fmt: skip
_ATTENTION, _SAMPLING = "MultiheadAttention", "MultiScaleDeformableAttention"
_OF_DETR = {
    "encoder": "DetrTransformerEncoder",
    "encoder.layer_cfg": "DetrTransformerEncoderLayer",
    "encoder.layer_cfg.self_attn_cfg": _ATTENTION,
    "encoder.layer_cfg.ffn_cfg": "FFN",
    "decoder": "DetrTransformerDecoder",
    "decoder.layer_cfg": "DetrTransformerDecoderLayer",
    "decoder.layer_cfg.self_attn_cfg": _ATTENTION,
    "decoder.layer_cfg.cross_attn_cfg": _ATTENTION,
    "decoder.layer_cfg.ffn_cfg": "FFN",
    "positional_encoding": "SinePositionalEncoding",
}
_OF_MASKS = {
    "pixel_decoder.encoder": "DetrTransformerEncoder",
    "pixel_decoder.encoder.layer_cfg.self_attn_cfg": _SAMPLING,
    "pixel_decoder.encoder.layer_cfg.ffn_cfg": "FFN",
    "pixel_decoder.positional_encoding": "SinePositionalEncoding",
    "transformer_decoder": "DetrTransformerDecoder",
    "transformer_decoder.layer_cfg.self_attn_cfg": _ATTENTION,
    "transformer_decoder.layer_cfg.cross_attn_cfg": _ATTENTION,
    "transformer_decoder.layer_cfg.ffn_cfg": "FFN",
    "positional_encoding": "SinePositionalEncoding",
}
#: Heads that never look at `train_cfg`, and hooks that change no result.
_NOT_TRAINED_BY = ("FCOSHead", "NASFCOSHead", "FoveaHead", "CenterNetHead", "CornerHead")
_IDLE_HOOKS = ("NumClassCheckHook", "SetEpochInfoHook", "CheckInvalidLossHook", "MemoryProfilerHook")
#: Type of a detector -> path beneath it -> class of a dict that has no type of its own.
_TYPES: dict[str, dict[str, str]] = {
    "DETR": _OF_DETR,
    "DeformableDETR": {
        **_OF_DETR,
        "encoder": "DeformableDetrTransformerEncoder",
        "encoder.layer_cfg": "DeformableDetrTransformerEncoderLayer",
        "encoder.layer_cfg.self_attn_cfg": _SAMPLING,
        "decoder": "DeformableDetrTransformerDecoder",
        "decoder.layer_cfg": "DeformableDetrTransformerDecoderLayer",
        "decoder.layer_cfg.cross_attn_cfg": _SAMPLING,
    },
    "Mask2Former": {f"panoptic_head.{path}": kind for path, kind in _OF_MASKS.items()},
    "MaskFormer": {
        **{f"panoptic_head.{path}": kind for path, kind in _OF_MASKS.items()},
        "panoptic_head.pixel_decoder.encoder.layer_cfg.self_attn_cfg": _ATTENTION,
    },
}


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of a config that are compared, in one form."""
    found = {name: _plain(config[name]) for name in COMPARED if config.get(name) is not None}
    model = found.get("model")
    if isinstance(model, dict):
        for path, kind in _TYPES.get(str(model.get("type")), {}).items():
            _give_type(model, path.split("."), kind)
        if isinstance(model.get("bbox_head"), dict) and model["bbox_head"].get("type") in _NOT_TRAINED_BY:
            model.pop("train_cfg", None)
    for part in ("train", "val", "test"):
        dataset = found.get(f"{part}_dataloader", {}).get("dataset")
        if isinstance(dataset, dict):
            found[f"{part}_dataloader"]["dataset"] = _dataset(dataset)
    for name in ("val_evaluator", "test_evaluator"):
        if name in found:
            several = found[name] if isinstance(found[name], list) else [found[name]]
            found[name] = [_evaluator(one) for one in several]
    if isinstance(found.get("custom_hooks"), list):
        found["custom_hooks"] = [hook for hook in found["custom_hooks"] if hook.get("type") not in _IDLE_HOOKS]
    if isinstance(found.get("train_cfg"), dict):
        by_epoch = found["train_cfg"].pop("by_epoch", "max_iters" not in found["train_cfg"])
        found["train_cfg"].setdefault("type", "EpochBasedTrainLoop" if by_epoch else "IterBasedTrainLoop")
    if isinstance(found.get("optim_wrapper"), dict):
        found["optim_wrapper"].setdefault("type", "OptimWrapper")
    if isinstance(found.get("param_scheduler"), dict):
        found["param_scheduler"] = [found["param_scheduler"]]
    for scheduler in found.get("param_scheduler", ()):
        _without_idle_end(scheduler)
    return {name: value for name, value in found.items() if value != []}


def _without_idle_end(scheduler: dict[str, Any]) -> None:
    """Leave out an end behind which nothing would change."""
    milestones = scheduler.get("milestones")
    if scheduler.get("type") == "MultiStepLR" and milestones and scheduler.get("end", float("inf")) > max(milestones):
        scheduler.pop("end", None)


def aside(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the sections of a config that are known and not compared."""
    return tuple(name for name in config if name in ASIDE)


def _plain(value: Any) -> Any:
    """Return a copy with lists for tuples, types without their scope, and nothing of which no result depends."""
    if isinstance(value, Mapping):
        if value.get("type") in ("RandomChoice", "mmcv.RandomChoice") and not value.get("prob"):
            value = dict(type="AutoAugment", policies=value.get("transforms"))  # the same under two names
        if value.get("type") in ("PackDetInputs", "mmdet.PackDetInputs"):
            more = [
                key for key in value.get("meta_keys", ()) if key == "border"
            ]  # the only one that a head reads besides
            return dict(type="PackDetInputs", **(dict(packed=more) if more else {}))
        return {
            str(key): _type(item) if key == "type" else _plain(item)
            for key, item in value.items()
            if key not in _QUIET and not (key == "dropout_layer" and item is None)  # one that drops nothing
        }
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _type(kind: Any) -> str:
    """Return a type's name; of a class that a config of the newer form names by its import path, too."""
    if not isinstance(kind, str):
        return getattr(kind, "__name__", str(kind))
    is_of_toolkit = kind.startswith(SCOPES) or kind.startswith("torch.")
    return kind.rpartition(".")[2] if is_of_toolkit else kind


def _give_type(holder: Any, path: list[str], kind: str) -> None:
    for name in path:
        holder = holder.get(name) if isinstance(holder, dict) else None
    if isinstance(holder, dict):
        holder.setdefault("type", kind)


def _dataset(dataset: dict[str, Any]) -> dict[str, Any]:
    """Join places, and say the names of the classes."""
    dataset = dict(dataset)
    if isinstance(dataset.get("dataset"), dict):
        dataset["dataset"] = _dataset(dataset["dataset"])
        return dataset
    if isinstance(dataset.get("datasets"), list):
        dataset["datasets"] = [_dataset(one) for one in dataset["datasets"]]
        return dataset
    root = dataset.pop("data_root", None) or ""
    if dataset.get("test_mode"):
        dataset.pop("filter_cfg", None)  # nothing is left out of a test
    if dataset.get("ann_file"):
        dataset["ann_file"] = _under(root, dataset["ann_file"])
    if isinstance(dataset.get("data_prefix"), dict):
        dataset["data_prefix"] = {key: _under(root, one) for key, one in dataset["data_prefix"].items()}
    names = (dataset.get("metainfo") or {}).get("classes")
    names = names or (class_names(str(dataset["type"])) if "type" in dataset else None)
    if names is not None:
        dataset["metainfo"] = dict(classes=[names] if isinstance(names, str) else list(names))
    elif "metainfo" in dataset:
        dataset["metainfo"] = {key: one for key, one in dataset["metainfo"].items() if key != "palette"}
    return dataset


def _under(root: str, place: Any) -> Any:
    """Join a path as a dataset does."""
    if not isinstance(place, str) or not root or place.startswith(("/", "http")):
        return place
    return root + place if root.endswith("/") else f"{root}/{place}"


def _evaluator(evaluator: dict[str, Any]) -> dict[str, Any]:
    if isinstance(evaluator.get("metric"), str):
        evaluator = dict(evaluator, metric=[evaluator["metric"]])
    return evaluator
