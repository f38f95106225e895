"""Co-DETR: a query head, trained together with heads that assign many boxes to an object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from mmengine.model import ModuleList
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .query_head import HeadOutput

EVALUATED = ("detr", "two-stage", "one-stage")


@MODELS.register_module()
class CoDETR(BaseDetector):
    """A detector whose further heads give its decoder more queries in training.

    Source: Co-DETR paper (https://arxiv.org/abs/2211.12860) and Sense-X/Co-DETR, ``projects/models/co_detr.py``.

    Args:
        backbone: config.
        neck: config.
        query_head: config of a ``CoDeformDETRHead`` or ``CoDINOHead``.
        rpn_head: config of the head whose proposals the RoI heads refine.
        roi_head: configs of the RoI heads.
        bbox_head: configs of the dense heads.
        train_cfg: of each head, the query head's first; the second is that of the first RoI head and has those of the
            RPN, ``rpn`` and ``rpn_proposal``, and of the RoI head itself, ``rcnn``.
        test_cfg: likewise.
        with_pos_coord: what further heads are trained with becomes queries.
        with_attn_mask: padding is masked. Otherwise images count as large as the whole batch, as those of large-scale
            jittering do.
        padding_is_image: without masks, the heads are given the size of the whole batch for that of an image, as in the
            official code. The public port for MMDetection 3.x means to but goes on with the image's own size: False.
        eval_module: which head detects: ``detr``, ``two-stage``, ``one-stage``.
        eval_index: which one of these.
        mask_head: not supported.
        mask_iou_head: not supported.
        data_preprocessor: config.
        init_cfg: config.

    Raises:
        ValueError: for a mask branch, a ViT, an ``eval_module`` of another name, or numbers of heads that do not fit.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        query_head: dict,
        rpn_head: dict | None = None,
        roi_head: Sequence[dict] = (),
        bbox_head: Sequence[dict] = (),
        train_cfg: Sequence[dict | None] | None = None,
        test_cfg: Sequence[dict | None] | None = None,
        with_pos_coord: bool = True,
        with_attn_mask: bool = True,
        padding_is_image: bool = True,
        eval_module: str = "detr",
        eval_index: int = 0,
        mask_head: dict | None = None,
        mask_iou_head: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if eval_module not in EVALUATED:
            raise ValueError(f"model.eval_module is {eval_module!r}; expected one of {', '.join(EVALUATED)}.")
        _check_supported(backbone, mask_head, mask_iou_head, roi_head)
        self.with_pos_coord = with_pos_coord
        self.counts_padding = not with_attn_mask and padding_is_image
        self.eval_module, self.eval_index = eval_module, eval_index
        count = 1 + len(roi_head) + len(bbox_head)
        of_training = list(train_cfg or [None] * count)
        of_test = list(test_cfg or [None] * count)
        _check_numbers(count, dict(train_cfg=of_training, test_cfg=of_test), bool(rpn_head), bool(roi_head))
        served = query_head["transformer"].get("num_co_heads", 1)
        if with_pos_coord and served < count - 1:
            raise ValueError(
                f"query_head.transformer.num_co_heads is {served}; expected {count - 1}, for roi_head and bbox_head."
            )
        self.backbone = MODELS.build(backbone)
        self.neck = MODELS.build(neck)
        self.query_head = _built(query_head, of_training[0], of_test[0])
        self.proposal_cfg = None
        if rpn_head is not None:
            self.rpn_head = _built(rpn_head, _part(of_training[1], "rpn"), _part(of_test[1], "rpn"))
            self.proposal_cfg = _part(of_training[1], "rpn_proposal") or _part(of_test[1], "rpn")
        self.roi_head = ModuleList(
            [
                _built(head, _part(trained, "rcnn"), _part(tested, "rcnn"))
                for head, trained, tested in zip(roi_head, of_training[1:], of_test[1:])
            ]
        )
        rest = 1 + len(roi_head)
        self.bbox_head = ModuleList(
            [
                _built(head, trained, tested)
                for head, trained, tested in zip(bbox_head, of_training[rest:], of_test[rest:])
            ]
        )
        self.train_cfg, self.test_cfg = train_cfg, test_cfg

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the neck's maps, per level [bs, dim, h, w], of images [bs, 3, h, w]."""
        return self.neck(self.backbone(batch_inputs))

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor | list[Tensor]]:
        """Compute the loss terms of all heads, and of the query head for what the others were trained with.

        The number of a head stands behind the names of its terms; some are lists, of levels.

        Args:
            batch_inputs: [bs, 3, h, w].
            batch_data_samples: with objects.
        """
        samples = self._samples(batch_data_samples)
        metas = [sample.metainfo for sample in samples]
        terms, x = self.query_head.loss(self.extract_feat(batch_inputs), samples)
        proposals: InstanceList = []
        if hasattr(self, "rpn_head"):
            of_proposals, proposals = self.rpn_head.loss_and_predict(
                x, _without_classes(samples), proposal_cfg=self.proposal_cfg
            )
            terms.update(of_proposals)
        trained = []
        for head in self.roi_head:
            trained.append(head.loss_and_positives(x, proposals, samples))
        for head in self.bbox_head:
            trained.append(head.loss_and_positives(x, samples))
        for number, (of_head, _) in enumerate(trained):
            terms.update(_numbered(of_head, number))
        if self.with_pos_coord:
            for number, (_, positives) in enumerate(trained):
                terms.update(_numbered(self.query_head.loss_aux(x, positives, metas, number), number))
        return terms

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detect objects with the head that ``eval_module`` names.

        Args:
            batch_inputs: [bs, 3, h, w].
            batch_data_samples: with ``img_shape``, ``batch_input_shape`` and, to rescale, ``scale_factor``.
            rescale: give boxes of the original image.

        Returns:
            The samples with ``pred_instances``: ``bboxes`` [n, 4] xyxy in pixels, ``scores`` [n], ``labels`` [n].
        """
        samples = self._samples(batch_data_samples)
        x = self.extract_feat(batch_inputs)
        return self.add_pred_to_datasample(batch_data_samples, self._detections(x, samples, rescale))

    def _detections(self, x: Sequence[Tensor], samples: SampleList, rescale: bool) -> InstanceList:
        if self.eval_module == "detr":
            return self.query_head.predict(x, samples, rescale=rescale)
        features = self.query_head(x, [sample.metainfo for sample in samples]).features
        if self.eval_module == "one-stage":
            return self.bbox_head[self.eval_index].predict(features, samples, rescale=rescale)
        proposals = self.rpn_head.predict(features, samples, rescale=False)
        return self.roi_head[self.eval_index].predict(features, proposals, samples, rescale=rescale)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> HeadOutput:
        """Return what the query head gives, without detections."""
        samples = self._samples(batch_data_samples)
        return self.query_head(self.extract_feat(batch_inputs), [sample.metainfo for sample in samples])

    def _samples(self, samples: SampleList) -> SampleList:
        """Return the samples, or copies whose images are as large as the whole batch; the caller's stay as they are."""
        if not self.counts_padding:
            return samples
        copies = [sample.new() for sample in samples]
        for copy in copies:
            copy.set_metainfo(dict(img_shape=tuple(copy.batch_input_shape)))
        return copies


def _check_supported(backbone: dict, mask_head: Any, mask_iou_head: Any, roi_head: Sequence[dict]) -> None:
    if backbone["type"].rpartition(".")[2] == "ViT":
        raise ValueError("model.backbone is a ViT, which this port lacks; expected a ResNet or a SwinTransformerV1.")
    if mask_head or mask_iou_head or any(head.get("mask_head") for head in roi_head):
        raise ValueError("model has a mask_head, and this port detects boxes only; leave the mask branch out.")


def _check_numbers(count: int, given: dict[str, list], has_rpn: bool, has_roi_head: bool) -> None:
    for name, configs in given.items():
        if len(configs) != count:
            raise ValueError(
                f"model.{name} is for {len(configs)} heads; expected {count}: query_head, all roi_head, all bbox_head."
            )
    if has_rpn != has_roi_head:
        raise ValueError("model has only one of rpn_head and roi_head; expected both or neither.")


def _built(head: dict, train_cfg: dict | None, test_cfg: dict | None) -> nn.Module:
    return MODELS.build({**head, "train_cfg": train_cfg, "test_cfg": test_cfg})


def _part(config: dict | None, name: str) -> dict | None:
    return None if config is None else config.get(name)


def _numbered(terms: dict[str, Any], number: int) -> dict[str, Any]:
    return {f"{name}{number}": value for name, value in terms.items()}


def _without_classes(samples: SampleList) -> SampleList:
    """Return copies of samples all of whose objects are of class 0, as proposals are trained."""
    copies = []
    for sample in samples:
        copy = sample.new()
        objects = sample.gt_instances.new()
        objects.labels = torch.zeros_like(objects.labels)
        copy.gt_instances = objects
        copies.append(copy)
    return copies
