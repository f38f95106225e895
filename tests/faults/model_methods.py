"""Faults between detector and head: what ``loss`` and ``predict`` are given; ``rescale=False``; raw outputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor

from .fault import DETECTOR, Fault
from .planting import Apply, around, result, shadowing

Inputs = dict[str, Any]


def _head_inputs(change: Callable[[Inputs], dict[str, Any]], training: bool) -> Apply:
    """Change what the detector hands to the head's ``loss`` or, without ``training``, to its ``predict``."""

    def changed(inputs: Inputs) -> Inputs:
        return {**inputs, **change(inputs)} if training == ("dn_meta" in inputs) else inputs

    return result("", "forward_transformer", changed)


def _of_first_layer(inputs: Inputs) -> Inputs:
    return dict(active_masks=[inputs["active_masks"][0]] * len(inputs["active_masks"]))


def _references_rolled(inputs: Inputs) -> Inputs:
    return dict(references=inputs["references"][1:] + inputs["references"][-1:])


def _encoder_classes_as_scores(inputs: Inputs) -> Inputs:
    return dict(enc_outputs_class=inputs["enc_outputs_class"].sigmoid())


def _aux_boxes_in_reverse(inputs: Inputs) -> Inputs:
    return dict(aux_enc_outputs_coord=inputs["aux_enc_outputs_coord"].flip(1))


def _hidden_states_scaled(inputs: Inputs) -> Inputs:
    return dict(hidden_states=inputs["hidden_states"] * 1.01)


class _Caller:
    """Stands for a module at one caller, which hands other arguments to one of its methods."""

    def __init__(self, module: Any, method: str, change: Callable[..., Any]) -> None:
        self.module, self.method, self.change = module, method, change

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.module(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        right = getattr(self.module, name)
        return partial(self.change, right) if name == self.method else right


def _calling_head(method: str, change: Callable[..., Any]) -> Apply:
    """Change what the detector's code hands to a method of the head."""
    return shadowing("", "bbox_head", lambda model: _Caller(model._modules["bbox_head"], method, change))


def _samples_reversed(right: Callable, *args: Any, **kwargs: Any) -> Any:
    return right(*args, **{**kwargs, "batch_data_samples": kwargs["batch_data_samples"][::-1]})


def _with_objects_in_units(right: Callable, *args: Any, **kwargs: Any) -> Any:
    """Hand the objects over in units of the image, as another head may want them."""
    samples = kwargs["batch_data_samples"]
    before = [sample.gt_instances.bboxes for sample in samples]
    try:
        for sample, boxes in zip(samples, before):
            height, width = sample.img_shape
            sample.gt_instances.bboxes = boxes / boxes.new_tensor([width, height, width, height])
        return right(*args, **kwargs)
    finally:
        for sample, boxes in zip(samples, before):
            sample.gt_instances.bboxes = boxes


def _always_rescaled(right: Callable, *args: Any, **kwargs: Any) -> Any:
    return right(*args, **{**kwargs, "rescale": True})


def _in_units_if_not_rescaled(right: Callable, *args: Any, **kwargs: Any) -> Any:
    found = right(*args, **kwargs)
    if not kwargs.get("rescale", True):
        for one, sample in zip(found, kwargs["batch_data_samples"]):
            height, width = sample.img_shape
            one.bboxes = one.bboxes / one.bboxes.new_tensor([width, height, width, height])
    return found


def _best_half_if_not_rescaled(right: Callable, *args: Any, **kwargs: Any) -> Any:
    found = right(*args, **kwargs)
    return found if kwargs.get("rescale", True) else [one[: len(one) // 2] for one in found]


def _scores(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs[0].sigmoid(), outputs[1]


def _last_layer(outputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return outputs[0][-1], outputs[1][-1]


def _of_images_without_padding(right: Callable, images: Tensor, samples: Any = None) -> Any:
    """Give raw outputs as if no image were padded."""
    before = [sample.img_shape for sample in samples]
    try:
        for sample in samples:
            sample.set_metainfo(dict(img_shape=tuple(images.shape[-2:])))
        return right(images, samples)
    finally:
        for sample, size in zip(samples, before):
            sample.set_metainfo(dict(img_shape=size))


FAULTS = (
    Fault("predict_given_masks_of_first_layer", "other masks for the head", DETECTOR,
          _head_inputs(_of_first_layer, training=False), setting="batch"),
    Fault("loss_given_masks_of_first_layer", "other masks for the head", DETECTOR,
          _head_inputs(_of_first_layer, training=True), setting="batch"),
    Fault("predict_given_later_references", "other references for the head", DETECTOR,
          _head_inputs(_references_rolled, training=False), setting="batch"),
    Fault("loss_given_later_references", "other references for the head", DETECTOR,
          _head_inputs(_references_rolled, training=True), setting="batch"),
    Fault("loss_given_scores_for_logits", "rescaled inputs of the head", DETECTOR,
          _head_inputs(_encoder_classes_as_scores, training=True), setting="batch"),
    Fault("loss_given_scaled_states", "rescaled inputs of the head", DETECTOR,
          _head_inputs(_hidden_states_scaled, training=True), setting="batch"),
    Fault("loss_given_dense_boxes_in_reverse", "permuted inputs of the head", DETECTOR,
          _head_inputs(_aux_boxes_in_reverse, training=True), setting="batch"),
    Fault("loss_given_samples_in_reverse", "permuted inputs of the head", DETECTOR,
          _calling_head("loss", _samples_reversed), setting="batch"),
    Fault("predict_given_samples_in_reverse", "permuted inputs of the head", DETECTOR,
          _calling_head("predict", _samples_reversed), setting="batch"),
    Fault("loss_given_objects_in_units", "rescaled inputs of the head", DETECTOR,
          _calling_head("loss", _with_objects_in_units), setting="batch"),
    Fault("always_rescaled", "rescale=False", "bbox_head", around("bbox_head", "predict", _always_rescaled),
          setting="batch"),
    Fault("units_if_not_rescaled", "rescale=False", "bbox_head",
          around("bbox_head", "predict", _in_units_if_not_rescaled), setting="batch"),
    Fault("fewer_if_not_rescaled", "rescale=False", "bbox_head",
          around("bbox_head", "predict", _best_half_if_not_rescaled), setting="batch"),
    Fault("raw_outputs_are_scores", "mode tensor", DETECTOR, result("", "_forward", _scores), setting="batch"),
    Fault("raw_outputs_exchanged", "mode tensor", DETECTOR, result("", "_forward", lambda x: x[::-1]),
          setting="batch"),
    Fault("raw_outputs_of_last_layer", "mode tensor", DETECTOR, result("", "_forward", _last_layer),
          setting="batch"),
    Fault("raw_outputs_without_padding", "mode tensor", DETECTOR,
          around("", "_forward", _of_images_without_padding), setting="batch"),
)  # fmt: skip
