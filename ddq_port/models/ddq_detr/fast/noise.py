"""Denoising queries whose number the host knows, so that it waits only for how many labels are changed."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from mmdet.models.layers import CdnQueryGenerator
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_xyxy_to_cxcywh
from torch import Tensor

from ..head import image_size


@dataclass(frozen=True)
class Objects:
    """The objects of a batch, padded to the largest number of an image.

    Attributes:
        boxes: [bs, most, 4] xyxy in pixels; a padded one is (0, 0, 0, 0).
        labels: [bs, most].
        counts: of each image.
        sizes: [bs, 1, 4], (w, h, w, h) of each image without padding, in pixels.
    """

    boxes: Tensor
    labels: Tensor
    counts: tuple[int, ...]
    sizes: Tensor

    @classmethod
    def of(cls, samples: SampleList, like: Tensor) -> Objects:
        """Gather the ``gt_instances`` of samples; boxes get the dtype of ``like`` if it is wider than theirs."""
        counts = tuple(len(sample.gt_instances.labels) for sample in samples)
        most = max(counts)
        pad = torch.nn.functional.pad
        boxes = [pad(s.gt_instances.bboxes, (0, 0, 0, most - n)) for s, n in zip(samples, counts)]
        labels = [pad(s.gt_instances.labels, (0, most - n)) for s, n in zip(samples, counts)]
        sizes = torch.stack([image_size(s.metainfo, like) for s in samples])  # [bs, 1, 4]
        # [bs, most, 4] and [bs, most]
        return cls(torch.stack(boxes), torch.stack(labels), counts, sizes)

    @property
    def most(self) -> int:
        """Objects of the image that has the most."""
        return self.boxes.shape[1]

    @property
    def normalised(self) -> Tensor:
        """Boxes as cxcywh in [0, 1], [bs, most, 4]."""
        return bbox_xyxy_to_cxcywh(self.boxes / self.sizes)


@dataclass(frozen=True)
class Noise:
    """Denoising queries.

    Attributes:
        content: [bs, num_denoising, dim].
        coords: [bs, num_denoising, 4] logits of cxcywh.
        num_groups: in each of which an object has a query to be found again, and one to be rejected.
    """

    content: Tensor
    coords: Tensor
    num_groups: int


class FastCdnQueryGenerator(CdnQueryGenerator):
    """mmdet's generator with the same draws; queries are put into place by indices made where they are needed."""

    def __call__(self, objects: Objects) -> Noise:
        """Draw noise for the objects of a batch."""
        boxes = objects.boxes / objects.sizes
        # of all images one after another, [total] and [total, 4] xyxy in [0, 1]
        labels = torch.cat([x[:n] for x, n in zip(objects.labels, objects.counts)])
        num_groups = self.get_num_groups(objects.most)
        content = self.generate_dn_label_query(labels, num_groups)
        # [total, 4]
        coords = self.generate_dn_bbox_query(torch.cat([x[:n] for x, n in zip(boxes, objects.counts)]), num_groups)
        return Noise(*(self._placed(x, objects.counts, num_groups) for x in (content, coords)), num_groups)

    @staticmethod
    def _placed(drawn: Tensor, counts: tuple[int, ...], num_groups: int) -> Tensor:
        """Put [2 * num_groups * total, n] into [bs, num_denoising, n]: of each image, every half group padded."""
        halves = drawn.view(2 * num_groups, -1, drawn.shape[-1])  # [2 * num_groups, total, n]
        most = max(counts)
        padded = [
            torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[1])).flatten(0, 1)  # [num_denoising, n]
            for part in halves.split(list(counts), 1)
        ]
        return torch.stack(padded)  # [bs, num_denoising, n]
