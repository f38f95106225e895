"""The RoI head that is trained beside the query head."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from torch import Tensor

from ddq_port.registry import MODELS

from .positives import Positives

#: No image gives more proposals than these to the decoder.
MOST = 2000


@MODELS.register_module()
class CoStandardRoIHead(StandardRoIHead):
    """mmdet's RoI head for boxes, which tells what it was trained with."""

    def loss_and_positives(
        self, x: Sequence[Tensor], rpn_results_list: InstanceList, batch_data_samples: SampleList
    ) -> tuple[dict[str, Tensor], Positives]:
        """Compute the loss terms.

        Args:
            x: per level [bs, dim, h, w].
            rpn_results_list: ``bboxes`` [n, 4] xyxy in pixels of each image.
            batch_data_samples: with objects.

        Returns:
            The terms; and the sampled proposals, of each image as many as of that with the fewest.
        """
        samples = []
        objects, ignored, _ = unpack_gt_instances(batch_data_samples)
        for image, proposals in enumerate(rpn_results_list):
            proposals.priors = proposals.pop("bboxes")
            assigned = self.bbox_assigner.assign(proposals, objects[image], ignored[image])
            samples.append(
                self.bbox_sampler.sample(
                    assigned, proposals, objects[image], feats=[level[image][None] for level in x]
                )
            )
        boxes = [sample.priors for sample in samples]
        rois = bbox2roi(boxes)  # [num_rois, 5], number of the image and xyxy
        found = self._bbox_forward(x, rois)
        targets = self.bbox_head.get_targets(samples, self.train_cfg)
        terms = self.bbox_head.loss(found["cls_score"], found["bbox_pred"], rois, *targets)
        labels, _, regressed, _ = targets  # [num_rois] and [num_rois, 4]
        pooled = found["bbox_feats"].mean(-1).mean(-1)  # [num_rois, dim, h, w] -> [num_rois, dim]
        counts = [len(each) for each in boxes]
        length = min(MOST, *counts)
        of_images = [
            [rows[:length] for rows in each.split(counts)] for each in (rois[:, 1:], labels, regressed, pooled)
        ]
        return terms, Positives(*of_images)
