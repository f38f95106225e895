"""Mistakes that people make, or that issues of MMDetection tell of, when they carry a detector from 2.x to 3.x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .mistake import IMAGES, INCOMPARABLE, REFUSED, STEPS, Mistake, setting

_RETINA, _FASTER = "tiny_retinanet", "tiny_faster_rcnn"
_ALL_PARAMETERS, _SCHEDULE, _CLIPPING = "the optimizer", "the schedule", "gradient clipping"
_INPUTS = "the pipelines"


def _retina(name: str, where: str, path: str, value: Any, says: str = "") -> Mistake:
    return Mistake(name, _RETINA, where, setting(f"model.{path}", value), says)


def _faster(name: str, where: str, path: str, value: Any, says: str = "") -> Mistake:
    return Mistake(name, _FASTER, where, setting(f"model.{path}", value), says)


def _steps(name: str, where: str, path: str, value: Any, says: str = "") -> Mistake:
    return Mistake(name, _RETINA, where, setting(path, value), says, setting=STEPS)


def _images(name: str, path: str, value: Any) -> Mistake:
    return Mistake(name, _RETINA, _INPUTS, setting(path, value), setting=IMAGES)


def _objects(change: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what changes the objects of each image, in place, that the head learns from."""

    def apply(model: Any) -> None:
        right = model.bbox_head.loss

        def loss(x: Any, batch_data_samples: Any) -> Any:
            for sample in batch_data_samples:
                change(sample.gt_instances)
            return right(x, batch_data_samples)

        model.bbox_head.loss = loss

    return _built(apply)


def _labels_from_one(objects: Any) -> None:
    objects.labels = (objects.labels + 1) % 7


def _boxes_in_original_size(objects: Any) -> None:
    objects.bboxes = objects.bboxes / 2


def _results(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Any], None]:
    """Return what changes the detections that an adapter takes from its model."""

    def adapt(adapter: Any) -> None:
        right = type(adapter).predict
        adapter.predict = lambda model, batch: [change(found) for found in right(adapter, model, batch)]

    return adapt


def _built(change: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return what changes the model that an adapter builds."""

    def adapt(adapter: Any) -> None:
        right = type(adapter).build

        def build(options: Any, device: str) -> Any:
            model = right(adapter, options, device)
            change(model)
            return model

        adapter.build = build

    return adapt


def _averaged_by_one_more(model: Any) -> None:
    loss = model.bbox_head.loss_bbox
    right = loss.forward

    def forward(*args: Any, avg_factor: Any = None, **kwargs: Any) -> Any:
        return right(*args, avg_factor=avg_factor + 1, **kwargs)

    loss.forward = forward


def _levels_swapped(model: Any) -> None:
    right = model.roi_head.bbox_roi_extractor.forward
    model.roi_head.bbox_roi_extractor.forward = lambda feats, *args, **kwargs: right(
        (feats[1], feats[0], *feats[2:]), *args, **kwargs
    )


def _adapted(name: str, detector: str, where: str, adapt: Callable[[Any], None], says: str = "") -> Mistake:
    return Mistake(name, detector, where, says=says, adapt=adapt)


_HEAD, _RPN, _ROI = "bbox_head", "rpn_head", "roi_head"
_ANCHORS = "bbox_head.anchor_generator"
_PASS = (
    _adapted("labels_from_one", _RETINA, _HEAD, _objects(_labels_from_one), "`target`"),
    _adapted("boxes_in_original_size", _RETINA, _HEAD, _objects(_boxes_in_original_size)),
    _adapted("detected_labels_from_one", _RETINA, "the detector",
             _results(lambda found: dict(found, labels=found["labels"] + 1)), "`result`"),
    _adapted("averaged_by_one_more", _RETINA, "bbox_head.loss_bbox", _built(_averaged_by_one_more)),
    _retina("nms_threshold", _HEAD, "test_cfg.nms.iou_threshold", 0.6, "nms"),
    _retina("score_threshold", _HEAD, "test_cfg.score_thr", 0.6),
    _retina("fewer_before_nms", _HEAD, "test_cfg.nms_pre", 100),
    _retina("fewer_detections", _HEAD, "test_cfg.max_per_img", 50, "max_per_img"),
    _retina("coder_stds", _HEAD, "bbox_head.bbox_coder.target_stds", [0.1, 0.1, 0.2, 0.2]),
    _retina("coder_means", _HEAD, "bbox_head.bbox_coder.target_means", [0.0, 0.0, 0.1, 0.1]),
    _retina("anchor_scale", _HEAD, f"{_ANCHORS}.octave_base_scale", 3),
    _retina("anchor_ratios_backwards", _HEAD, f"{_ANCHORS}.ratios", [2.0, 1.0, 0.5]),
    _retina("anchor_strides", _HEAD, f"{_ANCHORS}.strides", [4, 8, 16, 32, 64]),
    _retina("anchors_at_centres", _HEAD, f"{_ANCHORS}.center_offset", 0.5),
    _retina("norm_eps", "backbone.bn1", "backbone.norm_cfg", dict(type="BN", requires_grad=True, eps=1e-3)),
    _retina("norm_learns_statistics", "backbone.layer2.0.bn1", "backbone.norm_eval", False),
    replace(_retina("stage_not_frozen", "backbone.layer1.0.bn1.bias", "backbone.frozen_stages", 0),
            outcome=INCOMPARABLE),
    replace(_retina("one_stage_more_frozen", "backbone.layer2.0.conv1", "backbone.frozen_stages", 2, "cut off"),
            outcome=INCOMPARABLE),
    _retina("loss_weight_of_classes", "bbox_head.loss_cls", "bbox_head.loss_cls.loss_weight", 2.0),
    _retina("loss_weight_of_boxes", "bbox_head.loss_bbox", "bbox_head.loss_bbox.loss_weight", 0.5),
    _retina("focal_alpha", "bbox_head.loss_cls", "bbox_head.loss_cls.alpha", 0.75),
    _retina("focal_gamma", "bbox_head.loss_cls", "bbox_head.loss_cls.gamma", 1.5),
    _retina("smooth_loss", "bbox_head.loss_bbox", "bbox_head.loss_bbox",
            dict(type="SmoothL1Loss", beta=0.11, loss_weight=1.0)),
    _retina("positive_threshold", _HEAD, "train_cfg.assigner.pos_iou_thr", 0.6),
    _retina("negative_threshold", _HEAD, "train_cfg.assigner.neg_iou_thr", 0.3),
    _retina("least_overlap", _HEAD, "train_cfg.assigner.min_pos_iou", 0.3),
    _retina("positive_weight", _HEAD, "train_cfg.pos_weight", 2.0),
    _retina("extra_levels_of_outputs", "neck", "neck.relu_before_extra_convs", True),
    _retina("levels_upsampled_smoothly", "neck", "neck.upsample_cfg", dict(mode="bilinear")),
    _retina("boxes_not_clipped", _HEAD, "bbox_head.bbox_coder.clip_border", False),
    _faster("roi_not_aligned", "roi_head.bbox_roi_extractor.roi_layers.0",
            "roi_head.bbox_roi_extractor.roi_layer.aligned", False),
    _faster("roi_samples", "roi_head.bbox_roi_extractor.roi_layers.0",
            "roi_head.bbox_roi_extractor.roi_layer.sampling_ratio", 2),
    _faster("roi_finest_scale", "roi_head.bbox_roi_extractor", "roi_head.bbox_roi_extractor.finest_scale", 28, "levels"),
    _faster("roi_strides", "roi_head.bbox_roi_extractor.roi_layers.0",
            "roi_head.bbox_roi_extractor.featmap_strides", [8, 4, 16, 32]),
    _adapted("roi_levels_swapped", _FASTER, "roi_head.bbox_roi_extractor", _built(_levels_swapped)),
    _faster("roi_coder_stds", "roi_head.bbox_head", "roi_head.bbox_head.bbox_coder.target_stds", [1.0] * 4),
    _faster("proposal_nms", _RPN, "test_cfg.rpn.nms.iou_threshold", 0.9, "nms"),
    _faster("fewer_proposals", _RPN, "test_cfg.rpn.max_per_img", 50, "max_per_img"),
    _faster("fewer_proposals_in_training", _RPN, "train_cfg.rpn_proposal.max_per_img", 50),
    _faster("proposal_threshold", _RPN, "train_cfg.rpn.assigner.pos_iou_thr", 0.5),
    _faster("sampler_of_proposals", _RPN, "train_cfg.rpn.sampler.num", 32),
    _faster("sampler_of_regions", _ROI, "train_cfg.rcnn.sampler.num", 32),
    _faster("share_of_positives", _ROI, "train_cfg.rcnn.sampler.pos_fraction", 0.5),
    _faster("objects_not_proposed", _ROI, "train_cfg.rcnn.sampler.add_gt_as_proposals", False),
    _faster("score_threshold_of_regions", "roi_head.bbox_head", "test_cfg.rcnn.score_thr", 0.3),
    replace(_faster("class_agnostic", "roi_head.bbox_head.fc_reg", "roi_head.bbox_head.reg_class_agnostic", True),
            outcome=REFUSED),
    replace(_retina("classes_of_coco", "bbox_head.retina_cls", "bbox_head.num_classes", 80), outcome=REFUSED),
    replace(_retina("outputs_of_bottleneck", "backbone", "backbone.depth", 34), outcome=REFUSED),
)  # fmt: skip
_OF_STEPS = (
    _steps("learning_rate", _ALL_PARAMETERS, "optim_wrapper.optimizer.lr", 0.02, "lr`"),
    _steps("momentum", _ALL_PARAMETERS, "optim_wrapper.optimizer.momentum", 0.8, "`momentum`"),
    _steps("weight_decay", _ALL_PARAMETERS, "optim_wrapper.optimizer.weight_decay", 1e-3, "`weight_decay`"),
    _steps("norms_decay", "backbone", "optim_wrapper.paramwise_cfg", None, "`weight_decay`"),
    _steps("backbone_slower", "backbone", "optim_wrapper.paramwise_cfg",
           dict(norm_decay_mult=0.0, custom_keys=dict(backbone=dict(lr_mult=0.1))), "lr`"),
    _steps("not_clipped", _CLIPPING, "optim_wrapper.clip_grad", None),
    _steps("clipped_to_another_norm", _CLIPPING, "optim_wrapper.clip_grad.max_norm", 3.5, "`max_norm`"),
    _steps("warm_up_ends_early", _SCHEDULE, "param_scheduler.0.end", 2, "`lr`"),
    _steps("warm_up_starts_higher", _SCHEDULE, "param_scheduler.0.start_factor", 0.1, "`lr`"),
    _steps("no_warm_up", _SCHEDULE, "param_scheduler", [], "lr`"),
    _steps("nesterov", _ALL_PARAMETERS, "optim_wrapper.optimizer.nesterov", True, "`nesterov`"),
    _steps("gradients_accumulated", "the optimizer wrapper", "optim_wrapper.accumulative_counts", 2),
)  # fmt: skip
_PREPROCESSOR, _PIPELINE = "model.data_preprocessor", "test_dataloader.dataset.pipeline"
_OF_IMAGES = (
    _images("colours_exchanged", f"{_PREPROCESSOR}.bgr_to_rgb", False),
    _images("not_padded", f"{_PREPROCESSOR}.pad_size_divisor", 1),
    _images("other_mean", f"{_PREPROCESSOR}.mean", [103.53, 116.28, 123.675]),
    _images("other_deviation", f"{_PREPROCESSOR}.std", [1.0, 1.0, 1.0]),
    _images("other_scale", f"{_PIPELINE}.1.scale", (160, 96)),
    _images("ratio_not_kept", f"{_PIPELINE}.1.keep_ratio", False),
    _images("other_interpolation", f"{_PIPELINE}.1.interpolation", "nearest"),
)
ALL = (*_PASS, *_OF_STEPS, *_OF_IMAGES)
MISTAKES: dict[str, Mistake] = {mistake.name: mistake for mistake in ALL}
