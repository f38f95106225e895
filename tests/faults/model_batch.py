"""Faults that show only where the images of a batch, or one batch and the next, differ: sizes, scales, objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from mmdet.models.layers import CdnQueryGenerator
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.models.ddq_detr import aux_loss, head
from ddq_port.models.ddq_detr.aux_loss import DenseTargets

from .fault import DETECTOR, Fault
from .ground import STEPS
from .planting import Apply, around, calling, patching, replaced, result

_AUX = "bbox_head.aux_loss_for_dense"
_MASKS = "`positional_encoding`"
_SMALL = 10.0  # pixels


def _detections(change: Callable[..., InstanceData]) -> Apply:
    """Put ``change(right, metas, index, logits, boxes, limit, rescale)`` in place of the detections of image ``index``.

    ``metas`` are those of the whole batch.
    """

    def predict(right: Callable, *args: Any, **kwargs: Any) -> list[InstanceData]:
        metas, index = [sample.metainfo for sample in kwargs["batch_data_samples"]], iter(range(1000))

        def detect(one: Callable, logits: Tensor, boxes: Tensor, meta: dict, limit: int, rescale: bool) -> InstanceData:
            return change(one, metas, next(index), logits, boxes, limit, rescale)

        with replaced(head, "detections", calling(head.detections, detect)):
            return right(*args, **kwargs)

    return around("bbox_head", "predict", predict)


def _scale_of_first(right: Callable, metas: list, index: int, logits: Tensor, boxes: Tensor, *rest: Any) -> Any:
    return right(logits, boxes, {**metas[index], "scale_factor": metas[0]["scale_factor"]}, *rest)


def _scale_of_last(right: Callable, metas: list, index: int, logits: Tensor, boxes: Tensor, *rest: Any) -> Any:
    return right(logits, boxes, {**metas[index], "scale_factor": metas[-1]["scale_factor"]}, *rest)


def _size_of_padded(right: Callable, metas: list, index: int, logits: Tensor, boxes: Tensor, *rest: Any) -> Any:
    return right(logits, boxes, {**metas[index], "img_shape": metas[index]["pad_shape"]}, *rest)


def _third_not_rescaled(right: Callable, metas: list, index: int, logits: Tensor, boxes: Tensor, limit: int,
                        rescale: bool) -> InstanceData:  # fmt: skip
    return right(logits, boxes, metas[index], limit, rescale and index != 2)


def _largest_first(right: Callable, *args: Any, **kwargs: Any) -> list[InstanceData]:
    """Order the results as if the images had been sorted by their area."""
    areas = [sample.img_shape[0] * sample.img_shape[1] for sample in kwargs["batch_data_samples"]]
    found = right(*args, **kwargs)
    return [found[index] for index in sorted(range(len(areas)), key=lambda i: -areas[i])]


def _with_meta(change: Callable[[list], list[dict]]) -> Apply:
    """Change meta data of the samples while ``pre_transformer`` reads them; ``change`` gives the changed entries."""

    def pre_transformer(right: Callable, feats: Any, samples: list) -> Any:
        changes = change(samples)
        before = [{key: sample.metainfo[key] for key in new} for sample, new in zip(samples, changes)]
        try:
            for sample, new in zip(samples, changes):
                sample.set_metainfo(new)
            return right(feats, samples)
        finally:
            for sample, old in zip(samples, before):
                sample.set_metainfo(old)

    return around("", "pre_transformer", pre_transformer)


def _padded_size_for_batch_size(samples: list) -> list[dict]:
    return [dict(batch_input_shape=sample.metainfo["pad_shape"]) for sample in samples]


def _padded_size_for_image_size(samples: list) -> list[dict]:
    return [dict(img_shape=sample.metainfo["pad_shape"]) for sample in samples]


def _first_image_is_the_largest(samples: list) -> list[dict]:
    return [dict(batch_input_shape=samples[0].img_shape) for _ in samples]


def _third_not_masked(samples: list) -> list[dict]:
    return [
        dict(img_shape=sample.metainfo["batch_input_shape"]) if index == 2 else {}
        for index, sample in enumerate(samples)
    ]


class _First:
    """Keeps what it was given first and gives it ever after."""

    def __init__(self) -> None:
        self.value: Any = None

    def __call__(self, value: Any) -> Any:
        if self.value is None:
            self.value = value
        return self.value


def _sizes_of_first_batch(model: Any) -> None:
    known = _First()

    def change(samples: list) -> list[dict]:
        sizes = known([sample.img_shape for sample in samples])
        return [dict(img_shape=size) for size in sizes[: len(samples)]]

    _with_meta(change)(model)


def _by_shape(owner: str, method: str, key: Callable[..., Any]) -> Apply:
    """Cache what a method gives under ``key(*args)``, which does not tell all that it depends on."""

    def apply(model: Any) -> None:
        known: dict[Any, Any] = {}

        def cached(right: Callable, *args: Any, **kwargs: Any) -> Any:
            name = key(*args, **kwargs)
            if name not in known:
                known[name] = right(*args, **kwargs)
            return known[name]

        around(owner, method, cached)(model)

    return apply


def _encoding_by_shape(model: Any) -> None:
    """Encode positions once for each shape of a mask, whatever is masked; it depends on no parameter."""
    known: dict[Any, Tensor] = {}

    def forward(right: Callable, mask: Tensor | None, input: Tensor | None = None) -> Tensor:
        shape = tuple(mask.shape) if mask is not None else (None, *input.shape)
        encoded = right(mask, input)
        return known.setdefault(shape, encoded.detach())

    around("positional_encoding", "forward", forward)(model)


def _image_size_of_first_batch(model: Any) -> None:
    known: dict[int, Tensor] = {}

    def loss(right: Callable, logits: list, boxes: list, gts: list, metas: list) -> Any:
        for index, meta in enumerate(metas):
            known.setdefault(index, meta["img_shape"])
        return right(logits, boxes, gts, [{**meta, "img_shape": known[i]} for i, meta in enumerate(metas)])

    def predict(right: Callable, *args: Any, **kwargs: Any) -> Any:
        for index, sample in enumerate(kwargs["batch_data_samples"]):
            known.setdefault(index, sample.img_shape)
        return right(*args, **kwargs)

    around("bbox_head", "predict", predict)(model)
    around("bbox_head", "_matching_loss", loss)(model)


def _queries(change: Callable[..., Any]) -> Apply:
    """Put ``change(right, generator, samples)`` in place of the call of the generator of denoising queries."""
    return patching(CdnQueryGenerator, "__call__", change)


def _denoising_sizes_of_first_step(model: Any) -> None:
    """Normalise the objects for the denoising queries by the sizes that the images of the first step had."""
    known = _First()

    def change(right: Callable, generator: Any, samples: list) -> Any:
        now = [sample.img_shape for sample in samples]
        try:
            for sample, size in zip(samples, known(now)):
                sample.set_metainfo(dict(img_shape=size))
            return right(generator, samples)
        finally:
            for sample, size in zip(samples, now):
                sample.set_metainfo(dict(img_shape=size))

    _queries(change)(model)


def _objects(rule: Callable[[InstanceData, Any], Tensor]) -> Apply:
    """Train on some of the objects only; ``rule`` tells which, [n] bool."""

    def loss(right: Callable, images: Tensor, samples: list) -> Any:
        before = [sample.gt_instances for sample in samples]
        try:
            for sample, gt in zip(samples, before):
                sample.gt_instances = gt[rule(gt, sample)]
            return right(images, samples)
        finally:
            for sample, gt in zip(samples, before):
                sample.gt_instances = gt

    return around("", "loss", loss)


def _large_enough(gt: InstanceData, sample: Any) -> Tensor:
    return (gt.bboxes[:, 2:] - gt.bboxes[:, :2]).amin(1) >= _SMALL


def _away_from_the_border(gt: InstanceData, sample: Any) -> Tensor:
    height, width = sample.img_shape
    limit = gt.bboxes.new_tensor([width, height]) - 0.5
    return (gt.bboxes[:, :2] > 0.5).all(1) & (gt.bboxes[:, 2:] < limit).all(1)


def _with_a_box_of_its_own(gt: InstanceData, sample: Any) -> Tensor:
    same = (gt.bboxes[:, None] == gt.bboxes[None]).all(-1)
    return ~same.tril(-1).any(1)


def _small_not_matched(right: Callable, logits: Tensor, boxes: Tensor, gt: InstanceData, meta: dict) -> tuple:
    return right(logits, boxes, gt[_large_enough(gt, None)], meta)


def _equal_boxes_once(right: Callable, scores: Tensor, boxes: Tensor, gt: InstanceData, meta: dict) -> DenseTargets:
    return right(scores, boxes, gt[_with_a_box_of_its_own(gt, None)], meta)


def _clamped_inside(right: Callable, scores: Tensor, boxes: Tensor, gt: InstanceData, meta: dict) -> DenseTargets:
    """Take pixels for whole numbers: the last column of an image is its width less one."""
    height, width = meta["img_shape"]
    limit = gt.bboxes.new_tensor([width - 1, height - 1]).repeat(2)
    return right(scores, boxes, InstanceData(bboxes=gt.bboxes.minimum(limit), labels=gt.labels), meta)


def _last_object_kept_only(right: Callable, gt_bboxes: Tensor, groups: int) -> Tensor:
    """Give objects with one and the same box one and the same noise."""
    same = (gt_bboxes[:, None] == gt_bboxes[None]).all(-1)
    first = same.float().argmax(1)
    noisy = right(gt_bboxes, groups)
    return noisy.view(-1, len(gt_bboxes), 4)[:, first].reshape(noisy.shape)


def _meta_of_first(right: Callable, logits: Tensor, boxes: Tensor, gts: list, metas: list) -> Any:
    return right(logits, boxes, gts, [metas[0]] * len(metas))


def _meta_of_first_in_matching(right: Callable, logits: list, boxes: list, gts: list, metas: list, *rest: Any) -> Any:
    return right(logits, boxes, gts, [metas[0]] * len(metas), *rest)


def _as_many_as_in_first(right: Callable, generator: Any, samples: list) -> Any:
    """Count the objects of the first image only when the denoising groups are made."""
    first = len(samples[0].gt_instances)
    groups = calling(generator.get_num_groups, lambda one, max_num_target=None: one(first))
    with replaced(generator, "get_num_groups", groups):
        return right(generator, samples)


def _factor_of_two(right: Callable, losses: list[Tensor], factors: list[Tensor]) -> list[Tensor]:
    return right(losses, factors[:2])


def _content_of_second(selected: tuple) -> tuple:
    distinct, dense, content, dense_content = selected
    if len(content) > 2:
        content = [*content[:2], content[1][: len(content[2])], *content[3:]]
    return distinct, dense, content, dense_content


def _as_wide_as_the_first(samples: list) -> list[dict]:
    return [dict(img_shape=(sample.img_shape[0], samples[0].img_shape[1])) for sample in samples]


def _interpolated_from_the_first(right: Callable, feats: tuple, samples: list) -> Any:
    """Make the masks of all images from that of the first."""

    def interpolate(one: Callable, masks: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return one(masks[:, :1].expand_as(masks), *args, **kwargs)

    with replaced(F, "interpolate", calling(F.interpolate, interpolate)):
        return right(feats, samples)


FAULTS = (
    Fault("scale_of_first_image", "scale of another image", "bbox_head", _detections(_scale_of_first),
          setting="batch"),
    Fault("scale_of_last_image", "scale of another image", "bbox_head", _detections(_scale_of_last),
          setting="batch"),
    Fault("detections_in_padded_image", "padded for unpadded size", "bbox_head", _detections(_size_of_padded),
          setting="batch"),
    Fault("padded_size_for_batch_size", "padded for unpadded size", DETECTOR,
          _with_meta(_padded_size_for_batch_size), says=_MASKS, setting="batch"),
    Fault("padded_size_for_image_size", "padded for unpadded size", DETECTOR,
          _with_meta(_padded_size_for_image_size), says=_MASKS, setting="batch"),
    Fault("first_image_is_the_largest", "first image is special", DETECTOR, _with_meta(_first_image_is_the_largest),
          says=_MASKS, setting="batch"),
    Fault("as_wide_as_the_first", "first image is special", DETECTOR, _with_meta(_as_wide_as_the_first), says=_MASKS,
          setting="batch"),
    Fault("masks_of_the_first_image", "first image is special", DETECTOR,
          around("", "pre_transformer", _interpolated_from_the_first), says=_MASKS, setting="batch"),
    Fault("results_largest_first", "first image is special", "bbox_head",
          around("bbox_head", "predict", _largest_first), setting="batch"),
    Fault("groups_by_objects_of_first", "number of objects", DETECTOR,
          _queries(_as_many_as_in_first), setting="batch"),
    Fault("dense_sizes_of_first_image", "size of another image", "bbox_head",
          around("bbox_head", "_dense_losses", _meta_of_first), setting="batch"),
    Fault("matched_in_size_of_first_image", "size of another image", "bbox_head",
          around("bbox_head", "get_targets", _meta_of_first_in_matching), setting="batch"),
    Fault("third_image_not_rescaled", "third image", "bbox_head", _detections(_third_not_rescaled),
          setting="batch"),
    Fault("third_image_not_masked", "third image", DETECTOR, _with_meta(_third_not_masked), says=_MASKS,
          setting="batch"),
    Fault("third_image_has_queries_of_second", "third image", DETECTOR,
          result("", "_select_tokens", _content_of_second), says="query", setting="batch"),
    Fault("dense_normaliser_of_two_images", "third image", _AUX,
          patching(aux_loss, "_normalise", _factor_of_two), setting="batch"),
    Fault("sizes_of_first_batch", "stale size", DETECTOR, _sizes_of_first_batch, says=_MASKS, setting="batch"),
    Fault("encoding_by_shape", "stale size", "positional_encoding", _encoding_by_shape, setting="batch"),
    Fault("reference_points_by_shape", "stale size", "encoder",
          _by_shape("encoder", "get_encoder_reference_points", lambda shapes, *_, **__: str(shapes.tolist())),
          setting="batch"),
    Fault("image_sizes_of_inference", "stale size", "bbox_head", _image_size_of_first_batch, setting="batch"),
    Fault("denoising_sizes_of_first_step", "stale size in training", DETECTOR, _denoising_sizes_of_first_step,
          says="step 2", setting=STEPS),
    Fault("small_objects_dropped", "objects left out", DETECTOR, _objects(_large_enough), setting="batch"),
    Fault("border_objects_dropped", "objects left out", DETECTOR, _objects(_away_from_the_border), setting="batch"),
    Fault("equal_boxes_dropped", "objects left out", DETECTOR, _objects(_with_a_box_of_its_own), setting="batch"),
    Fault("small_objects_not_matched", "objects left out in the head", "bbox_head",
          around("bbox_head", "_get_targets_single", _small_not_matched), setting="batch"),
    Fault("equal_boxes_once_in_dense_targets", "objects left out in the head", _AUX,
          around(_AUX, "targets", _equal_boxes_once), setting="batch"),
    Fault("dense_objects_inside_by_a_pixel", "objects at the border", _AUX, around(_AUX, "targets", _clamped_inside),
          setting="batch"),
    Fault("equal_boxes_have_equal_noise", "objects of one box", DETECTOR,
          around("dn_query_generator", "generate_dn_bbox_query", _last_object_kept_only),
          says="reference_points", setting="batch"),
)  # fmt: skip
