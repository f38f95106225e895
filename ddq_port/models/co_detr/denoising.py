"""Denoising queries of Co-DINO: objects with noise, from which the decoder learns to find them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from mmdet.utils import InstanceList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn


class DenoisingQueries(NamedTuple):
    """Queries in groups; each group holds every object of the image twice, near to its box and further away.

    Attributes:
        labels: [bs, num_denoising, dim], embedded classes.
        boxes: [bs, num_denoising, 4] cxcywh before the sigmoid.
        attn_mask: [num_queries_total, num_queries_total] bool, True where a query must not see another.
        num_groups: how many groups.
    """

    labels: Tensor
    boxes: Tensor
    attn_mask: Tensor
    num_groups: int

    @property
    def length(self) -> int:
        """How many queries there are for each image; the same for all."""
        return self.boxes.shape[1]


class CdnQueryGenerator(BaseModule):
    """Make denoising queries.

    mmdet's class of this name makes the same draws, but adds the noise to boxes that it divided before it took their
    corners, and so rounds otherwise. The names of weights are the same.

    Args:
        num_classes: number of classes.
        embed_dims: width of a query.
        num_matching_queries: how many queries there are besides.
        noise_scale: ``label``, twice the part of labels that is drawn anew, and ``box``, in half sides of the box; for
            0 nothing is drawn.
        group_cfg: ``dynamic``, and ``num_dn_queries`` then, otherwise ``num_groups``.

    Raises:
        ValueError: if the number in ``group_cfg`` is missing or less than 1.
    """

    def __init__(
        self, num_classes: int, embed_dims: int, num_matching_queries: int, noise_scale: dict, group_cfg: dict
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_matching_queries = num_matching_queries
        self.label_noise_scale, self.box_noise_scale = noise_scale["label"], noise_scale["box"]
        self.is_dynamic = group_cfg.get("dynamic", False)
        key = "num_dn_queries" if self.is_dynamic else "num_groups"
        self.size = group_cfg.get(key)
        if not isinstance(self.size, int) or self.size < 1:
            raise ValueError(f"dn_cfg.group_cfg.{key} is {self.size!r}; expected a number of at least 1.")
        self.label_embedding = nn.Embedding(num_classes, embed_dims)

    def generate(self, batch_gt_instances: InstanceList, batch_img_metas: Sequence[dict]) -> DenoisingQueries:
        """Draw the queries of a batch.

        Args:
            batch_gt_instances: ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n] of each image.
            batch_img_metas: with ``img_shape`` (h, w) in pixels.
        """
        counts = [len(objects) for objects in batch_gt_instances]
        longest = max(counts)
        num_groups = self._num_groups(longest)
        labels = torch.cat([objects.labels for objects in batch_gt_instances])  # [num_objects]
        boxes = torch.cat([_normalised(*each) for each in zip(batch_gt_instances, batch_img_metas)])  # [num_objects, 4]
        # [num_objects]
        images = torch.cat([torch.full_like(each.labels, i) for i, each in enumerate(batch_gt_instances)])
        # each group twice, all its near boxes first
        labels = self._noisy_labels(labels.repeat(2 * num_groups, 1).view(-1))  # [2 * num_groups * num_objects]
        boxes = self._noisy_boxes(boxes.repeat(2 * num_groups, 1), len(images), num_groups)
        embedded, logits = self.label_embedding(labels), inverse_sigmoid(boxes, eps=1e-3)
        rows = images.repeat(2 * num_groups, 1).view(-1)  # [2 * num_groups * num_objects]
        within = torch.cat([torch.arange(count, device=images.device) for count in counts])  # [num_objects]
        columns = torch.cat([within + longest * part for part in range(2 * num_groups)])  # as rows: [...]
        length = 2 * num_groups * longest
        of_labels = embedded.new_zeros(len(counts), length, embedded.shape[-1])
        of_boxes = logits.new_zeros(len(counts), length, 4)
        of_labels[rows, columns] = embedded
        of_boxes[rows, columns] = logits
        return DenoisingQueries(of_labels, of_boxes, self._mask(longest, num_groups, labels.device), num_groups)

    def _num_groups(self, longest: int) -> int:
        if not self.is_dynamic:
            return self.size
        return max(self.size // longest, 1) if longest else 1

    def _noisy_labels(self, labels: Tensor) -> Tensor:
        """Return ``labels`` [n], some of which are drawn anew."""
        if not self.label_noise_scale > 0:
            return labels
        chance = torch.rand_like(labels.float())
        index = torch.nonzero(chance < self.label_noise_scale * 0.5).view(-1)  # [k, 1] -> [k]
        return labels.scatter(0, index, torch.randint_like(index, 0, self.num_classes))

    def _noisy_boxes(self, boxes: Tensor, num_objects: int, num_groups: int) -> Tensor:
        """Return ``boxes`` [2 * num_groups * num_objects, 4] cxcywh in [0, 1] with their corners moved."""
        if not self.box_noise_scale > 0:
            return boxes
        half = boxes[:, 2:] / 2
        corners = torch.cat([boxes[:, :2] - half, boxes[:, :2] + half], 1)  # [n, 4] xyxy
        sign = torch.randint_like(boxes, low=0, high=2, dtype=torch.float32) * 2.0 - 1.0
        part = torch.rand_like(boxes)
        # the second half of each group, [num_groups, num_objects, 4], is moved by more than half a side
        part.view(num_groups, 2, num_objects, 4)[:, 1] += 1.0
        corners = corners + torch.mul(part * sign, half.repeat(1, 2)) * self.box_noise_scale
        corners = corners.clamp(min=0.0, max=1.0)
        return torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], 1)  # [n, 4] cxcywh

    def _mask(self, longest: int, num_groups: int, device: torch.device) -> Tensor:
        """Let no query see those of another group, and no matching query see any of them."""
        length = 2 * num_groups * longest
        total = length + self.num_matching_queries
        mask = torch.zeros(total, total, dtype=torch.bool, device=device)
        mask[length:, :length] = True
        for start in range(0, length, max(2 * longest, 1)):
            end = start + 2 * longest
            mask[start:end, :start] = True
            mask[start:end, end:length] = True
        return mask


def _normalised(objects: InstanceData, meta: dict) -> Tensor:
    """Return the boxes [n, 4] cxcywh in [0, 1] of an image's objects."""
    h, w = meta["img_shape"][:2]
    return bbox_xyxy_to_cxcywh(objects.bboxes) / objects.bboxes.new_tensor([w, h, w, h])[None]
