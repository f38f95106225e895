"""Faults of the dense head, which both detectors have; planted in DDQ FCN."""

from __future__ import annotations

import ddq_port.models  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from dataclasses import replace
from typing import Any

import torch
from mmdet.models.task_modules.assigners.match_cost import BBoxL1Cost
from torch import Tensor, nn
from torch.nn import functional

from ddq_port.models.ddq_detr import aux_loss
from ddq_port.models.ddq_detr.assigner import TopkHungarianAssigner
from ddq_port.models.ddq_fcn import assigner, head, selection, shuffle

from .fault import FCN, Fault
from .planting import Plant, labels_exchanged, replacing, setting, with_arguments, with_result

_HEAD, _AUX, _MAIN = ("bbox_head",), ("bbox_head.aux_loss",), ("bbox_head.main_loss",)
_RESULT = ("bbox_head", "the detector")


def _fcn(name: str, where: tuple[str, ...], plant: Plant) -> Fault:
    return Fault(name, FCN, where, plant)


def _shuffled_by(order: Any) -> Plant:
    """Shuffle with other neighbours: ``order`` gives numbers of the coarser and the finer level."""

    def shuffled(maps: Any, channels: int) -> list[Tensor]:
        own, last = maps[0].size(1) - 2 * channels, len(maps) - 1
        return [
            torch.cat([level[:, :own], shuffle._resized(maps[coarser][:, own + channels :], level),
                       shuffle._resized(maps[finer][:, own : own + channels], level)], dim=1)
            for level, (coarser, finer) in ((maps[n], order(n, last)) for n in range(len(maps)))
        ]  # fmt: skip

    return replacing(head, "shuffled", lambda right: shuffled)


def _neighbours(number: int, last: int) -> tuple[int, int]:
    return min(number + 1, last), max(number - 1, 0)


def _channels_exchanged(right: Any) -> Any:
    def shuffled(maps: Any, channels: int) -> list[Tensor]:
        own = maps[0].size(1) - 2 * channels
        parts = [each.split([own, channels, channels], dim=1) for each in right(maps, channels)]
        return [torch.cat([first, last, middle], dim=1) for first, middle, last in parts]

    return shuffled


def _cornerless(right: Any) -> Any:
    return lambda part, like: functional.interpolate(part, size=like.shape[-2:], mode="bilinear", align_corners=False)


def _shuffled_from(branch: str, layer: int) -> Plant:
    return lambda model: head._FIRST_SHUFFLED.update({branch: layer})


def _predicting(change: Any) -> Plant:
    """Change how features are turned into predictions: ``change`` makes other arguments of its own ones."""
    return replacing(head, "_predicted", with_arguments(change))


class _Before(nn.Module):
    """A layer that something is done before, or behind."""

    def __init__(self, layer: nn.Module, before: Any = None, behind: Any = None) -> None:
        super().__init__()
        self.layer, self.before, self.behind = (layer,), before, behind

    def forward(self, x: Tensor) -> Tensor:
        result = self.layer[0](x if self.before is None else self.before(x))
        return result if self.behind is None else self.behind(result)


def _scored(score: Any) -> Plant:
    return replacing(head, "sigmoid_geometric_mean", lambda right: score)


def _scale_within(cls: Any, reg: Any, objectness: Any, classes: Any, distances: Any, scales: Any) -> tuple:
    inner = [_Before(scale, before=torch.log, behind=torch.exp) for scale in scales]
    return cls, reg, objectness, classes, distances, inner


def _softplus(cls: Any, reg: Any, objectness: Any, classes: Any, distances: Any, scales: Any) -> tuple:
    return cls, reg, objectness, classes, _Before(distances, behind=lambda x: functional.softplus(x).log()), scales


def _objectness_of_classes(cls: Any, reg: Any, objectness: Any, *rest: Any) -> tuple:
    moved = iter(cls)
    return cls, reg, _Before(objectness, before=lambda x: next(moved)), *rest


def _aux_of_main(number: int) -> Plant:
    """Predict the auxiliary outputs with one layer of the main ones, by its number among the layers."""

    def plant(model: nn.Module) -> None:
        own, right = model.bbox_head, head._predicted
        main = (own.objectness, own.conv_cls, own.conv_reg, own.scales)

        def predicted(cls: Any, reg: Any, *layers: Any) -> Any:
            return right(cls, reg, *layers[:number], main[number], *layers[number + 1 :])

        head._predicted = predicted

    return plant


def _priors(change: Any) -> Plant:
    def plant(model: nn.Module) -> None:
        generator = model.bbox_head.prior_generator
        right = generator.grid_priors
        generator.grid_priors = lambda *args, **kwargs: [change(points) for points in right(*args, **kwargs)]

    return plant


def _by_own_class(right: Any) -> Any:
    """Suppress within classes only."""

    def distinct(queries: Any, nms: dict) -> Any:
        best = queries.scores.max(-1)
        return queries.at(selection.batched_nms(queries.bboxes, best.values, best.indices, nms)[1])

    return distinct


def _clipped(queries: Any) -> Any:
    return replace(queries, bboxes=queries.bboxes.clamp(0, 64))


def _detached(queries: Any) -> Any:
    return replace(queries, scores=queries.scores.detach())


def _unclipped(right: Any) -> Any:
    def detections(self: Any, queries: Any, img_meta: dict, rescale: bool) -> Any:
        return right(self, queries, {**img_meta, "img_shape": (10**4, 10**4)}, rescale)

    return detections


def _scale_multiplied(right: Any) -> Any:
    def detections(self: Any, queries: Any, img_meta: dict, rescale: bool) -> Any:
        inverse = tuple(1 / factor for factor in img_meta["scale_factor"])
        return right(self, queries, {**img_meta, "scale_factor": inverse}, rescale)

    return detections


def _scale_exchanged(right: Any) -> Any:
    def detections(self: Any, queries: Any, img_meta: dict, rescale: bool) -> Any:
        return right(self, queries, {**img_meta, "scale_factor": img_meta["scale_factor"][::-1]}, rescale)

    return detections


def _next_label(found: Any) -> Any:
    found.labels = (found.labels + 1) % 3
    return found


def _of_loss(name: str, value: Any) -> Plant:
    """Set something of the auxiliary loss, at a dotted path."""
    return setting(f"bbox_head.aux_loss.{name}", value)


def _targets(change: Any) -> Plant:
    return replacing(aux_loss.DenseAuxLoss, "targets", with_result(change))


def _of_ddq_detr(right: Any) -> Any:
    return TopkHungarianAssigner.class_basis


def _without_negatives(targets: Any) -> Any:
    return replace(targets, label_weights=targets.quality.gt(0).float())


def _exchanged(model: nn.Module) -> None:
    loss = model.bbox_head.aux_loss, model.bbox_head.main_loss
    loss[0].assigner, loss[1].assigner = loss[1].assigner, loss[0].assigner


def _summed_count(right: Any) -> Any:
    def terms(self: Any, queries: Any, *args: Any) -> Any:
        found = right(self, queries, *args)
        return {**found, "num_proposal": found["num_proposal"] * len(queries)}

    return terms


def _losses_of_all(right: Any) -> Any:
    """Give the main loss all queries of the main predictions, also those that NMS drops."""

    def queries(self: Any, main: Any, aux: Any) -> Any:
        right_distinct, head.distinct = head.distinct, lambda queries, nms: queries
        try:
            return right(self, main, aux)
        finally:
            head.distinct = right_distinct

    return queries


FAULTS = (
    _fcn("levels_exchanged", _HEAD, _shuffled_by(lambda n, last: _neighbours(n, last)[::-1])),
    _fcn("coarsest_from_the_finer", _HEAD, _shuffled_by(lambda n, last: (min(n + 1, 2 * last - n - 1), max(n - 1, 0)))),
    _fcn("finest_from_the_coarser", _HEAD, _shuffled_by(lambda n, last: (min(n + 1, last), n - 1 if n else 1))),
    _fcn("channels_exchanged", _HEAD, replacing(head, "shuffled", _channels_exchanged)),
    _fcn("corners_not_on_corners", _HEAD, replacing(shuffle, "_resized", _cornerless)),
    _fcn("classes_shuffled_late", _HEAD, _shuffled_from("cls", 3)),
    _fcn("boxes_shuffled_early", _HEAD, _shuffled_from("reg", 2)),
    _fcn("shuffled_never", _HEAD, _shuffled_from("reg", 4)),
    _fcn("norm_eps", ("bbox_head.cls_convs.0.gn",), setting("bbox_head.cls_convs.0.gn.eps", 1e-3)),
    _fcn("score_without_root", _HEAD, _scored(lambda classes, objectness: classes.sigmoid() * objectness.sigmoid())),
    _fcn("score_without_objectness", _HEAD, _scored(lambda classes, objectness: classes.sigmoid() + 0 * objectness)),
    _fcn("scale_within_the_exponent", (*_HEAD, "bbox_head.scales.0"), _predicting(_scale_within)),
    _fcn("softplus_for_exp", _HEAD, _predicting(_softplus)),
    _fcn("objectness_of_class_features", _HEAD, _predicting(_objectness_of_classes)),
    _fcn("aux_scales_of_main", _HEAD, _aux_of_main(3)),
    _fcn("aux_classes_of_main", _HEAD, _aux_of_main(1)),
    _fcn("points_at_corners", _HEAD, _priors(lambda points: points - points.min())),
    _fcn("points_transposed", _HEAD, _priors(lambda points: points.flip(-1))),
    _fcn("distances_in_pixels", _HEAD, setting("bbox_head.strides", (1, 1, 1, 1, 1))),
    _fcn("fewer_points_of_a_level", _HEAD, setting("bbox_head.nms_pre", 20)),
    _fcn("nms_threshold", _HEAD, setting("bbox_head.dqs_cfg.iou_threshold", 0.6)),
    _fcn("nms_within_classes", _HEAD, replacing(head, "distinct", _by_own_class)),
    _fcn("queries_not_distinct", _HEAD, replacing(head.DDQFCNHead, "queries", _losses_of_all)),
    _fcn("clipped_in_training", _HEAD, replacing(head, "best_of_levels", with_result(_clipped))),
    _fcn("scores_detached", _HEAD, replacing(head, "distinct", with_result(_detached))),
    _fcn("not_clipped", _RESULT, replacing(head.DDQFCNHead, "_detections", _unclipped)),
    _fcn("scale_factor_multiplied", _RESULT, replacing(head.DDQFCNHead, "_detections", _scale_multiplied)),
    _fcn("scale_factor_exchanged", _RESULT, replacing(head.DDQFCNHead, "_detections", _scale_exchanged)),
    _fcn("next_label", _RESULT, replacing(head.DDQFCNHead, "_detections", with_result(_next_label))),
    _fcn("labels_exchanged", _RESULT, replacing(head.DDQFCNHead, "_detections", with_result(labels_exchanged))),
    _fcn("fewer_detections", _RESULT, setting("bbox_head.test_cfg.max_per_img", 20)),
    _fcn("four_queries_for_an_object", _AUX, _of_loss("assigner.topk", 4)),
    _fcn("two_queries_for_an_object", _MAIN, setting("bbox_head.main_loss.assigner.topk", 2)),
    _fcn("losses_exchanged", _AUX, _exchanged),
    _fcn("second_sigmoid", _AUX, replacing(assigner.LogitTopkHungarianAssigner, "class_basis", _of_ddq_detr)),
    _fcn("cost_without_shares", _AUX, _of_loss("assigner.reg_cost", BBoxL1Cost(weight=5.0))),
    _fcn("cost_weight", _AUX, _of_loss("assigner.cls_cost.weight", 1.0)),
    _fcn("alignment_exponent", _AUX, _of_loss("assigner.beta", 4)),
    _fcn("quality_as_it_is_aligned", _AUX, _targets(lambda targets: replace(targets, quality=targets.quality**2))),
    _fcn("negatives_without_weight", _AUX, _targets(_without_negatives)),
    _fcn("normaliser_with_eps", ("bbox_head.aux_loss.loss_cls",), _of_loss("loss_cls.normaliser_eps", True)),
    _fcn("box_loss_weight", ("bbox_head.aux_loss.loss_bbox",), _of_loss("loss_bbox.loss_weight", 1.0)),
    _fcn("focal_exponent", ("bbox_head.aux_loss.loss_cls",), _of_loss("loss_cls.beta", 1.0)),
    _fcn("counted_together", ("num_proposal", *_HEAD), replacing(head.DDQFCNHead, "query_losses", _summed_count)),
)
