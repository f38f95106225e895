"""What a setting does to results, in words, by its path."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from converters.configs.kinds import ABSENT

#: Groups in the order in which they are told -> globs of paths.
_GROUPS: dict[str, tuple[str, ...]] = {
    "classes": ("*num_classes", "*metainfo*", "*num_things_classes", "*num_stuff_classes"),
    "inputs": ("model.data_preprocessor*", "*_dataloader*.pipeline*"),
    "detections": ("model.test_cfg*",),
    "model": ("model.backbone*", "model.neck*", "model.encoder*", "model.decoder*", "model.*roi_extractor*"),
    "learning": ("model.train_cfg*", "model*.loss*", "model*assigner*", "model*sampler*", "model*init_cfg*"),
    "training": ("optim_wrapper*", "param_scheduler*", "train_cfg*", "auto_scale_lr*", "custom_hooks*", "train_dataloader*",
                 "load_from", "resume", "find_unused_parameters"),
    "evaluation": ("val_*", "test_*"),
    "the rest": ("*",),
}  # fmt: skip
_ORDER = ("classes", "inputs", "detections", "model", "the rest", "learning", "training", "evaluation")
#: Which of several groups that fit is taken.
_FIRST = ("classes", "inputs", "detections", "training", "evaluation", "learning", "model", "the rest")


def group(path: str) -> str:
    """Return what a setting belongs to."""
    for name in _FIRST:
        if any(fnmatchcase(path, pattern) for pattern in _GROUPS[name]):
            return "model" if name == "the rest" and path.startswith("model") else name
    return "the rest"


def place(name: str) -> int:
    """Return at which place a group is told."""
    return _ORDER.index(name)


_STARTS = "The weights that a training starts from are others."
_SAMPLED = "In training other boxes are learnt from, or in another share."
_MATCHED = "In training other anchors or queries are given an object, so that losses and gradients differ."
_BOXES = "Boxes are read from and learnt as other offsets: all boxes move."
_ANCHOR = "Anchors have other places or sizes: all boxes and targets differ; trained weights do not fit."
_SHAPE = "The model has other weights or another number of them; a checkpoint may not load."
_LOSS = "A loss has another value, and so have its gradients. Inference stays as it is."
_IMAGE = "The network is given other pixels: every number behind it differs, and scores of a trained model fall."
_RATE = "Steps of the training have another size."
#: Glob of a path -> what it does; the first that fits is told.
_EFFECTS: dict[str, str] = {
    # classes
    "*metainfo.classes": "A label is an index into these names: with another order or number, detections get other names, and AP falls.",
    "*num_classes": "The head has another number of classes. Since 2.0 the background is not counted; configs of 1.x had one more.",
    "*metainfo*": "The dataset says other things of its classes.",
    # inputs
    "*data_preprocessor.mean": "Another mean, or the same in another order of colours. " + _IMAGE,
    "*data_preprocessor.std": "Another deviation, or the same in another order of colours. " + _IMAGE,
    "*data_preprocessor.bgr_to_rgb": "Red and blue are exchanged. " + _IMAGE,
    "*data_preprocessor.rgb_to_bgr": "Red and blue are exchanged. " + _IMAGE,
    "*data_preprocessor.pad_size_divisor": "Batches are padded to another size: features at the right and lower border differ, and so may detections there.",
    "*data_preprocessor.pad_value": "Padding has another colour: features at the border differ.",
    "*data_preprocessor.pad_mask": "Masks are padded with their images or not; training with masks fails or learns from other masks.",
    "*data_preprocessor.pad_seg": "Maps of segments are padded with their images or not.",
    "*data_preprocessor.seg_pad_value": "Padding counts as another class in maps of segments; 255 is heeded by no loss.",
    "*data_preprocessor.batch_augments*": "In training batches get other sizes.",
    "*data_preprocessor*": _IMAGE,
    "*pipeline.*.packed": "The head needs the border of the padded image (`meta_keys`), or inference fails.",
    "*pipeline.*.keep_ratio": "Images are stretched or not. " + _IMAGE,
    "*pipeline.*.scale": "Images get another size, and so do objects in them: all detections differ.",
    "*pipeline.*.scales": "Images get other sizes, and so do objects in them.",
    "*pipeline.*.interpolation": "Images are scaled by another formula: pixels differ a little, and so does every score.",
    "*pipeline.*.size_divisor": "Images are padded to another size.",
    "*pipeline.*.prob": "In training a step is taken more or less often.",
    "*pipeline.*.ratio_range": "In training images get other sizes.",
    "*pipeline.*.to_float32": "Pixels are rounded to whole numbers by each step or not.",
    "*pipeline.*.with_bbox": "Objects are loaded with their boxes or without.",
    "*pipeline.*.with_mask": "Objects are loaded with their masks or without; AP of masks needs them.",
    "*pipeline.*.with_seg": "Maps of segments are loaded or not.",
    "*pipeline.*.poly2mask": "Masks are polygons or bitmaps, which are scaled and cut otherwise.",
    "train_dataloader*pipeline*": "In training images are changed otherwise before the model sees them.",
    "test_dataloader*pipeline*": _IMAGE,
    "val_dataloader*pipeline*": "What the validation during a training sees differs, and so do its AP and the best checkpoint.",
    # detections
    "model.test_cfg.min_bbox_size": "Dense heads of 3.x drop boxes narrower or lower than this before the NMS, those of 2.x none (D28): with 0 a few detections of no area are missing. -1 is as 2.x, which does not heed the setting.",
    "model.test_cfg*min_bbox_size": "Proposals narrower or lower than this are dropped before the NMS.",
    "model.test_cfg*score_thr": "Detections are cut off at another score: more or fewer of them, and another AP.",
    "model.test_cfg*iou_threshold": "The NMS removes more or fewer boxes that overlap: double detections, or missing neighbours.",
    "model.test_cfg*nms_pre": "Another number of boxes gets as far as the NMS: low scores are missing or added.",
    "model.test_cfg*max_per_img": "Another number of detections, or of proposals, is kept.",
    "model.test_cfg*nms*": "Another NMS: other boxes are kept, or with other scores.",
    "model.test_cfg*mask_thr_binary": "Masks are cut out at another value: they grow or shrink.",
    "model.test_cfg*": "Detections are chosen otherwise; what the model computes stays the same.",
    # learning
    "model.train_cfg*assigner*pos_iou_thr": "An anchor counts as an object from another overlap on. " + _MATCHED,
    "model.train_cfg*assigner*neg_iou_thr": "An anchor counts as background below another overlap. " + _MATCHED,
    "model.train_cfg*assigner*": _MATCHED,
    "model*.assigner*": _MATCHED,
    "model.train_cfg*sampler*": _SAMPLED,
    "model.train_cfg.rpn_proposal*": "In training the second stage is given other proposals.",
    "model.train_cfg*pos_weight": "Positives weigh otherwise in the loss.",
    "model.train_cfg*allowed_border": "Anchors beyond the border of the image are learnt from or not.",
    "model.train_cfg*": "A training learns otherwise; inference stays as it is.",
    "model*.loss*.loss_weight": "A loss weighs otherwise against the others: "
    + _RATE[0].lower()
    + _RATE[1:-1]
    + " for that part. Inference stays as it is.",
    "model*.loss*use_sigmoid": "Scores are made by a sigmoid or a softmax: all scores differ, also at inference.",
    "model*.loss*.type": "Another loss: its value and gradients differ. Where it decides on sigmoid or softmax, scores differ, too.",
    "model*.loss*": _LOSS,
    "model*.init_cfg*": _STARTS,
    "model*stage_loss_weights*": _LOSS,
    "model*.sync_cls_avg_factor": "With several GPUs a loss is divided by another number.",
    # model
    "model.type": "Another detector.",
    "*frozen_stages": "Other stages of the backbone are trained. Inference stays as it is.",
    "*norm_eval": "Statistics of batch norm are learnt or kept: with small batches the trained model differs.",
    "*norm_cfg.requires_grad": "Norms are trained or not. Inference stays as it is.",
    "*norm_cfg.eps": "Every norm adds another number under its root: features differ a little in every layer, and so does every score.",
    "*norm_cfg.momentum": "In training statistics of batch norm follow quicker or slower.",
    "*norm_cfg.type": "Another norm: features behind it differ, and its weights may not load.",
    "*norm_cfg*": "Norms compute or learn otherwise.",
    "*act_cfg*": "Another activation: every feature behind it differs.",
    "*conv_cfg*": "Another kind of convolution. " + _SHAPE,
    "*dcn*": "Deformable convolutions. " + _SHAPE,
    "*bbox_coder.clip_border": "Boxes beyond the image are cut off at its border or not.",
    "*bbox_coder*clip": "Only boxes of extreme shape are cut off elsewhere.",
    "*bbox_coder*clamp": "Only boxes with a very distant centre are moved otherwise.",
    "*bbox_coder*": _BOXES,
    "*reg_class_agnostic": "One box for each class, or one for all. " + _SHAPE,
    "*anchor_generator*": _ANCHOR,
    "*prior_generator*": _ANCHOR,
    "*roi_extractor*featmap_strides": "Regions are taken from other levels, at other places.",
    "*roi_extractor*finest_scale": "Regions are taken from other levels.",
    "*roi_extractor*aligned": "Regions are moved by half a pixel: all boxes and masks of the second stage differ.",
    "*roi_extractor*sampling_ratio": "Features of a region are averaged over another number of points: scores differ a little.",
    "*roi_extractor*": "Features of a region are taken otherwise.",
    "*style": "The stride of a bottleneck is in another convolution: weights load, and every feature is wrong.",
    "*.depth": _SHAPE,
    "*out_channels": _SHAPE,
    "*in_channels*": _SHAPE,
    "*out_indices*": "The backbone hands on other stages. " + _SHAPE,
    "*start_level": "The neck begins at another stage. " + _SHAPE,
    "*add_extra_convs": "Additional levels are made of another input, or without weights. " + _SHAPE,
    "*relu_before_extra_convs": "Additional levels are made with a ReLU before or without: their features differ.",
    "*upsample_cfg*": "Levels are scaled up by another formula: features of the neck differ.",
    "*num_outs": "Another number of levels.",
    "model.backbone*strides": "Features have another resolution: everything behind them differs.",
    "*strides": _ANCHOR,
    "*.dropout": "In training another share is dropped. Inference stays as it is.",
    "*drop*": "In training another share is dropped. Inference stays as it is.",
    "*reg_decoded_bbox": "The loss of boxes is computed from boxes, or from offsets.",
    "model.num_queries": "Another number of queries. " + _SHAPE,
    "model*": "The model computes otherwise.",
    # training
    "optim_wrapper.optimizer.lr": _RATE + " Mind the batch: a rate belongs to a number of images per step.",
    "optim_wrapper.optimizer.weight_decay": "Weights shrink more or less in every step.",
    "optim_wrapper.optimizer.momentum": _RATE,
    "optim_wrapper.optimizer.nesterov": _RATE,
    "optim_wrapper.optimizer*": _RATE,
    "optim_wrapper.clip_grad*": "Large gradients are cut off at another length, or not at all: "
    + _RATE[0].lower()
    + _RATE[1:],
    "optim_wrapper.paramwise_cfg*": "Some weights get another rate or decay than the rest, or no longer do.",
    "optim_wrapper.accumulative_counts": "Gradients of several batches make one step: the batch is as many times larger, and steps are fewer.",
    "optim_wrapper.loss_scale": "Gradients of half precision are scaled otherwise.",
    "optim_wrapper*": "Steps are taken otherwise.",
    "param_scheduler.*.end": "A phase of the schedule ends at another time. For a warm-up: mmengine arrives one step early (S1), so `end` is `warmup_iters` + 1.",
    "param_scheduler.*.start_factor": "The warm-up starts at another rate.",
    "param_scheduler.*.milestones": "The rate drops at other times.",
    "param_scheduler.*.gamma": "The rate drops by another factor.",
    "param_scheduler.*.T_max": "The cosine has another length: the rate ends at another value. 2.x counts from the end of the warm-up.",
    "param_scheduler*": "Rates over the training differ.",
    "train_cfg.max_epochs": "The training has another length.",
    "train_cfg.max_iters": "The training has another length.",
    "train_cfg.val*": "Validation happens at other times; the best checkpoint may be another.",
    "train_cfg.dynamic_intervals*": "Validation happens at other times; the best checkpoint may be another.",
    "train_cfg*": "The training loop differs.",
    "auto_scale_lr.enable": "The rate is scaled with the number of GPUs and images, or not.",
    "auto_scale_lr*": "With --auto-scale-lr the rate is scaled from another batch.",
    "custom_hooks*ema_type": "Weights are averaged otherwise: another model is tested and saved.",
    "custom_hooks*momentum": "The averaged weights follow quicker or slower: another model is tested and saved.",
    "custom_hooks*": "A hook changes the training, or no longer does.",
    "val_dataloader.batch_size": "A validation pads images to the largest of another batch: features at borders may differ.",
    "test_dataloader.batch_size": "A test pads images to the largest of another batch: features at borders may differ.",
    "*_dataloader.batch_size": "A step sees another number of images per GPU: rate, warm-up and number of steps belong to the old one; a test pads otherwise.",
    "*_dataloader.drop_last": "An incomplete last batch is used or not.",
    "*_dataloader.sampler*": "Images come in another order, or other images.",
    "*_dataloader.batch_sampler*": "Images of one shape, wide or tall, are put into one batch or not: padding differs.",
    "*filter_cfg.bbox_min_size": "Objects smaller than this, in pixels, are not learnt from. 2.x learns from all, unless it is told `min_size`.",
    "*filter_cfg*": "Images without objects, or small ones, are learnt from or not: the number of steps differs.",
    "*ann_file": "Other annotations.",
    "*data_prefix.seg": "Maps of segments lie elsewhere; only a pipeline that loads them uses it.",
    "*data_prefix*": "Other images.",
    "*test_mode": "Images are left out of a test, or not.",
    "train_dataloader*": "A training sees other images, or in another order.",
    "load_from": _STARTS,
    "resume": "The training goes on from a checkpoint, with its steps and schedules, or begins with its weights only.",
    # evaluation
    "*_evaluator*metric": "Other figures are computed.",
    "*_evaluator*format_only": "A test writes results and computes no figures.",
    "*_evaluator*eval_mode": "AP of VOC is computed by another formula.",
    "*_evaluator*": "Results are evaluated otherwise; detections stay the same.",
    "val_dataloader*": "A validation sees other images.",
    "test_dataloader*": "A test sees other images.",
}


def effect(path: str, old: Any, new: Any) -> str:
    """Say what a difference does; nothing if the setting is not known."""
    if path in _SECTIONS and (old in _NOTHING or new in _NOTHING):
        return _of_one(path, new in _NOTHING)
    if path.endswith("metainfo.classes") and isinstance(old, list) and isinstance(new, list):
        return _of_classes(old, new)
    if path.endswith("norm_cfg.type") and all(_type_of(side) in _BATCH_NORMS for side in (old, new)):
        return "In training batch norm takes its statistics from one GPU or from all. Inference stays as it is."
    if path.endswith("pipeline") and isinstance(old, list) and isinstance(new, list):
        return _of_order(path, old, new)
    return next((text for pattern, text in _EFFECTS.items() if fnmatchcase(path, pattern)), "")


def _type_of(value: Any) -> Any:
    return value.get("type") if isinstance(value, dict) else value


_BATCH_NORMS = ("BN", "BN2d", "SyncBN", "MMSyncBN", "NaiveSyncBN")
_NOTHING = (ABSENT, None)
#: Parts that a config without a training, or without data, does not have.
_SECTIONS = (
    "model.data_preprocessor",
    "train_dataloader",
    "val_dataloader",
    "test_dataloader",
    "val_evaluator",
    "test_evaluator",
    "train_cfg",
    "optim_wrapper",
)


def _of_one(path: str, is_missing: bool) -> str:
    """Say what it means that only one of two configs has a part."""
    if path == "model.data_preprocessor" and is_missing:
        return "Without it images are neither normalised nor padded: every number that is computed differs."
    if is_missing:
        return "The new config has nothing in its place."
    return "The old config has nothing in its place, so that there was nothing to compare it with."


def _of_order(path: str, old: list[Any], new: list[Any]) -> str:
    orders = [[name for name in side if name in ("LoadAnnotations", "Resize")] for side in (old, new)]
    if path.startswith(("test_", "val_")) and orders[0] != orders[1]:
        return (
            "Objects that are loaded behind Resize keep the size of the file; before it they are resized, and metrics that "
            "use them compare detections with boxes of another size."
        )
    return "Steps are taken in another order: images and objects are changed otherwise."


def _of_classes(old: list[Any], new: list[Any]) -> str:
    if sorted(map(str, old)) == sorted(map(str, new)):
        first = next(index for index, pair in enumerate(zip(old, new)) if pair[0] != pair[1])
        return (
            f"The same names in another order: label {first} was {old[first]!r} and is {new[first]!r}. "
            "Weights keep the old order: detections get wrong names, and AP falls."
        )
    return _EFFECTS["*metainfo.classes"]
