"""DDQ R-CNN: distinct queries of a dense head, refined by the stages of Sparse R-CNN."""

from __future__ import annotations

from mmdet.models.detectors import TwoStageDetector
from mmdet.structures import SampleList
from torch import Tensor

from ddq_port.registry import MODELS


@MODELS.register_module()
class DDQRCNN(TwoStageDetector):
    """A two-stage detector whose proposals have classes, and come from all levels but the finest.

    Source: jshilong/DDQ, branch main, ``projects/models/ddq_rcnn.py``.

    Args:
        backbone: config.
        neck: config; its first level is for the refinement stages only.
        rpn_head: config of a :class:`.rpn.DDQFCNRPN`.
        roi_head: config of mmdet's ``SparseRoIHead``.
        train_cfg: ``rpn`` and ``rcnn``, handed to the heads.
        test_cfg: the same for inference.
        options: as of mmdet's detectors.
    """

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        rpn_head: dict,
        roi_head: dict,
        train_cfg: dict,
        test_cfg: dict,
        **options: object,
    ) -> None:
        # the base class would give the head of proposals a single class
        super().__init__(backbone, neck, train_cfg=train_cfg, test_cfg=test_cfg, **options)
        self.rpn_head = MODELS.build({**rpn_head, "train_cfg": train_cfg.get("rpn"), "test_cfg": test_cfg.get("rpn")})
        self.roi_head = MODELS.build({**roi_head, "train_cfg": train_cfg["rcnn"], "test_cfg": test_cfg["rcnn"]})

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Tensor | list[Tensor]]:
        """Compute the loss terms: those of proposals, with ``rpn_`` before their names, then those of each stage.

        Args:
            batch_inputs: [bs, 3, h, w].
            batch_data_samples: with objects.
        """
        x = self.extract_feat(batch_inputs)
        terms, proposals = self.rpn_head.loss_and_predict(x[1:], batch_data_samples)
        of_stages = self.roi_head.loss(x, proposals, batch_data_samples)
        return {**{f"rpn_{name}": values for name, values in terms.items()}, **of_stages}

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Detect objects.

        Args:
            batch_inputs: [bs, 3, h, w].
            batch_data_samples: with ``img_shape`` and, to rescale, ``scale_factor``.
            rescale: give boxes of the original image.

        Returns:
            The samples with ``pred_instances``: ``bboxes`` [n, 4] xyxy in pixels, ``scores`` [n], ``labels`` [n].
        """
        x = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(x[1:], batch_data_samples)
        found = self.roi_head.predict(x, proposals, batch_data_samples, rescale=rescale)
        return self.add_pred_to_datasample(batch_data_samples, found)

    def _forward(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> tuple:
        """Return what the heads give, without detections; needs objects, as mmdet's ``SparseRoIHead.forward`` does."""
        x = self.extract_feat(batch_inputs)
        proposals = self.rpn_head.predict(x[1:], batch_data_samples)
        return (self.roi_head.forward(x, proposals, batch_data_samples),)
