"""Queries of further heads: the boxes these were trained with become queries of the decoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor
from torch.nn import functional

#: A pass of the decoder has at least so many queries.
FEWEST = 9


class Positives(NamedTuple):
    """What a head was trained with in a batch.

    Attributes:
        boxes: per image [n, 4] xyxy in pixels: proposals or anchors.
        labels: per image [n], the number of classes for background.
        targets: per image [n, 4] xyxy in pixels; zeros for background.
        features: per image [n, dim]; None where they are those of the tokens, of which each has n / num_tokens boxes.
    """

    boxes: Sequence[Tensor]
    labels: Sequence[Tensor]
    targets: Sequence[Tensor]
    features: Sequence[Tensor] | None


class AuxQueries(NamedTuple):
    """Queries of a pass of the decoder, with what they are to become.

    Attributes:
        boxes: [bs, n, 4] cxcywh in [0, 1].
        labels: [bs, n].
        targets: [bs, n, 4] cxcywh in [0, 1].
        label_weights: [bs, m], m is n but where an image has fewer boxes in all than are wanted.
        bbox_weights: [bs, m, 4].
        features: [bs, n, dim].
        attn_masks: [bs * num_heads, n, n] bool, True where a query must not see another; None if each sees all.
    """

    boxes: Tensor
    labels: Tensor
    targets: Tensor
    label_weights: Tensor
    bbox_weights: Tensor
    features: Tensor
    attn_masks: Tensor | None


class _Rows(NamedTuple):
    """Queries of one image; attributes as of :class:`AuxQueries`, without the batch."""

    boxes: Tensor
    labels: Tensor
    targets: Tensor
    features: Tensor
    num_positives: int


def aux_queries(
    positives: Positives,
    features: Sequence[Tensor],
    batch_img_metas: Sequence[dict],
    num_classes: int,
    most: int,
    zero_padding: bool,
    num_heads: int,
) -> AuxQueries:
    """Choose the queries of a pass: all positives of an image, or as many of them by chance as there is room for.

    Args:
        positives: of the head.
        features: per level [bs, dim, h, w].
        batch_img_metas: with ``img_shape`` (h, w) in pixels.
        num_classes: the label of the background.
        most: largest number of queries of an image.
        zero_padding: an image with fewer positives than another is filled up with zeros; otherwise with background by
            chance.
        num_heads: of the decoder's self attention.
    """
    counts = [int(((labels >= 0) & (labels < num_classes)).sum()) for labels in positives.labels]
    length = max(FEWEST, min(most, max(counts)))
    images = [
        _image(positives, i, _features_of(positives, features, i), meta, num_classes, length, zero_padding)
        for i, meta in enumerate(batch_img_metas)
    ]
    boxes = positives.boxes[0]
    label_weights = boxes.new_zeros(len(images), length) if zero_padding else boxes.new_ones(len(images), length)
    bbox_weights = boxes.new_zeros(len(images), length, 4)
    for i, image in enumerate(images):
        bbox_weights[i, : image.num_positives] = 1
        if zero_padding:
            label_weights[i, : image.num_positives] = 1
    return AuxQueries(  # of images: [bs, n, ...]
        boxes=torch.stack([image.boxes for image in images]),
        labels=torch.stack([image.labels for image in images]),
        targets=torch.stack([image.targets for image in images]),
        label_weights=label_weights,
        bbox_weights=bbox_weights,
        features=torch.stack([image.features for image in images]),
        attn_masks=_masks([image.num_positives for image in images], length, num_heads, boxes.device)
        if zero_padding
        else None,
    )


def _features_of(positives: Positives, features: Sequence[Tensor], image: int) -> Tensor:
    """Return the features [n, dim] of an image's boxes."""
    if positives.features is not None:
        return positives.features[image]
    # per level [dim, h, w] -> [h * w, dim]; together [num_tokens, dim]
    tokens = torch.cat([level[image].reshape(level.shape[1], -1).transpose(1, 0) for level in features])
    return tokens.repeat_interleave(len(positives.boxes[image]) // len(tokens), 0)  # [n, dim]


def _image(
    positives: Positives, image: int, features: Tensor, meta: dict, num_classes: int, length: int, zero_padding: bool
) -> _Rows:
    """Choose the queries of an image; arguments as of :func:`aux_queries`."""
    labels = positives.labels[image]
    chosen = ((labels >= 0) & (labels < num_classes)).nonzero().squeeze(1)
    if len(chosen) > length:
        chosen = chosen[torch.randperm(len(chosen))[:length].to(chosen.device)]
    num_positives, lacking = len(chosen), length - len(chosen)
    if lacking and not zero_padding:
        background = (labels == num_classes).nonzero().squeeze(1)
        # drawn on the CPU, whatever the device
        drawn = background[torch.randperm(len(background))[:lacking].to(chosen.device)]
        chosen = torch.cat([chosen, drawn])  # [length], if there is background enough
    h, w = meta["img_shape"][:2]
    factor = positives.boxes[image].new_tensor([w, h, w, h])[None]
    boxes = bbox_xyxy_to_cxcywh(positives.boxes[image][chosen] / factor)
    targets = bbox_xyxy_to_cxcywh(positives.targets[image][chosen] / factor)
    labels, features = labels[chosen], features[chosen]
    if lacking and zero_padding:
        boxes, targets = (functional.pad(each, (0, 0, 0, lacking)) for each in (boxes, targets))  # [length, 4]
        features = functional.pad(features, (0, 0, 0, lacking))  # [length, dim]
        labels = functional.pad(labels, (0, lacking), value=num_classes)  # [length]
    return _Rows(boxes, labels, targets, features, num_positives)


def _masks(counts: Sequence[int], length: int, num_heads: int, device: torch.device) -> Tensor:
    """Return the masks [len(counts) * num_heads, length, length] of images with as many positives, then zeros.

    As in the official code, a row of zeros sees nothing at all: attention makes NaN of it.
    """
    masks = torch.zeros(len(counts), length, length, dtype=torch.bool, device=device)
    for mask, count in zip(masks, counts):
        mask[count:] = True
        mask[:, count:] = True
    return masks.repeat_interleave(num_heads, 0)
