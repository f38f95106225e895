"""Head of DDQ FCN: dense predictions, of which the distinct ones are trained one to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule, Scale
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.task_modules.prior_generators import MlvlPointGenerator
from mmdet.models.utils import sigmoid_geometric_mean
from mmdet.utils import InstanceList
from mmengine.model import bias_init_with_prob, normal_init
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .selection import DensePredictions, Queries, best_of_levels, distinct
from .shuffle import shuffled

#: Layers of the two branches, counted from 0, from which on levels exchange channels.
_FIRST_SHUFFLED = dict(cls=2, reg=3)


@MODELS.register_module()
class DDQFCNHead(BaseDenseHead):
    """Dense head whose queries are made distinct by NMS before they are matched, each object with one of them.

    Source: DDQ paper, section 3, and jshilong/DDQ, branch main, ``projects/models/ddq_fcn_head.py``.

    Args:
        num_classes: number of classes.
        in_channels: of the features, more than ``2 * shuffle_channels``.
        feat_channels: of the branches' convolutions.
        stacked_convs: convolutions of each branch.
        strides: of the levels in pixels, the finest first.
        shuffle_channels: that a level gets from the one above and the one below, see :func:`.shuffle.shuffled`.
        nms_pre: largest number of points of a level that become queries.
        dqs_cfg: config of the NMS that makes queries distinct.
        offset: of the points within their cells, in strides.
        norm_cfg: config of the branches' norms.
        main_loss: config of the loss of distinct queries.
        aux_loss: config of the loss of all queries.
        always_rescale: give boxes of the original image also where those of the resized one are asked for, as the
            official code does (D39 of the register).
        train_cfg: not looked at; mmdet's detectors hand it on.
        test_cfg: ``max_per_img``, the number of detections of an image.
        init_cfg: not looked at but for mmengine's sake.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        feat_channels: int = 256,
        stacked_convs: int = 4,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        shuffle_channels: int = 64,
        nms_pre: int = 1000,
        dqs_cfg: dict | None = None,
        offset: float = 0.5,
        norm_cfg: dict | None = None,
        main_loss: dict | None = None,
        aux_loss: dict | None = None,
        always_rescale: bool = False,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.num_classes, self.in_channels, self.feat_channels = num_classes, in_channels, feat_channels
        self.stacked_convs, self.strides, self.shuffle_channels = stacked_convs, tuple(strides), shuffle_channels
        self.nms_pre, self.dqs_cfg = nms_pre, dict(dqs_cfg or dict(type="nms", iou_threshold=0.7))
        self.norm_cfg, self.always_rescale = norm_cfg, always_rescale
        self.train_cfg, self.test_cfg = train_cfg, test_cfg
        self.prior_generator = MlvlPointGenerator(self.strides, offset=offset)
        self._init_layers()
        self.aux_loss = MODELS.build(aux_loss or dict(type="ddq_port.QueryLoss", topk=8))
        self.main_loss = MODELS.build(main_loss or dict(type="ddq_port.QueryLoss", topk=1))

    def _init_layers(self) -> None:
        """Make the layers, in the order in which the official code makes them."""
        self.cls_convs, self.reg_convs = nn.ModuleList(), nn.ModuleList()
        for layer in range(self.stacked_convs):
            channels = self.feat_channels if layer else self.in_channels
            for branch in (self.cls_convs, self.reg_convs):
                branch.append(ConvModule(channels, self.feat_channels, 3, padding=1, norm_cfg=self.norm_cfg))
        self.objectness, self.conv_cls, self.conv_reg, self.scales = self._predictors()
        # in training only
        self.aux_conv_objectness, self.aux_conv_cls, self.aux_conv_reg, self.aux_scales = self._predictors()

    def _predictors(self) -> tuple[nn.Sequential, nn.Conv2d, nn.Conv2d, nn.ModuleList]:
        """Return what predicts objectness, classes and distances, and the factors of distances of each level."""
        channels = self.feat_channels
        objectness = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(inplace=True), nn.Conv2d(channels // 4, 1, 3, padding=1)
        )
        classes, distances = (nn.Conv2d(channels, count, 3, padding=1) for count in (self.num_classes, 4))
        return objectness, classes, distances, nn.ModuleList(Scale(1.0) for _ in self.strides)

    def init_weights(self) -> None:
        """Initialise as the official code: the first layer of the auxiliary objectness stays as torch made it."""
        prior = bias_init_with_prob(0.01)
        for branch in (self.cls_convs, self.reg_convs, self.objectness):
            for module in branch.modules():
                if isinstance(module, nn.Conv2d):
                    normal_init(module, std=0.01)
        normal_init(self.conv_cls, std=0.01, bias=prior)
        normal_init(self.conv_reg, std=0.01)
        normal_init(self.aux_conv_objectness[-1], std=0.01, bias=prior)
        normal_init(self.aux_conv_cls, std=0.01, bias=prior)
        normal_init(self.aux_conv_reg, std=0.01)

    def forward(self, x: Sequence[Tensor]) -> tuple[DensePredictions, DensePredictions | None]:
        """Predict densely.

        Args:
            x: per level [bs, in_channels, h, w].

        Returns:
            The predictions that are made distinct, and in training those of the auxiliary loss.
        """
        cls_feats = self._branch(x, self.cls_convs, _FIRST_SHUFFLED["cls"])
        reg_feats = self._branch(x, self.reg_convs, _FIRST_SHUFFLED["reg"])
        main = _predicted(cls_feats, reg_feats, self.objectness, self.conv_cls, self.conv_reg, self.scales)
        if not self.training:
            return main, None
        aux = (self.aux_conv_objectness, self.aux_conv_cls, self.aux_conv_reg, self.aux_scales)
        return main, _predicted(cls_feats, reg_feats, *aux)

    def _branch(self, maps: Sequence[Tensor], convs: nn.ModuleList, first_shuffled: int) -> list[Tensor]:
        for layer, conv in enumerate(convs):
            if layer >= first_shuffled:
                maps = shuffled(maps, self.shuffle_channels)
            maps = [conv(level) for level in maps]
        return maps

    def queries(
        self, main: DensePredictions, aux: DensePredictions | None
    ) -> tuple[list[Queries], list[Queries] | None]:
        """Return the distinct queries of each image and, where there are auxiliary predictions, all of theirs."""
        like = main.cls_scores[0]
        sizes = [scores.shape[-2:] for scores in main.cls_scores]
        priors = self.prior_generator.grid_priors(sizes, dtype=like.dtype, device=like.device)

        def best(predictions: DensePredictions) -> list[Queries]:
            return [
                best_of_levels(predictions, image, priors, self.strides, self.nms_pre) for image in range(len(like))
            ]

        candidates, others = best(main), None if aux is None else best(aux)
        return [distinct(of_image, dict(self.dqs_cfg)) for of_image in candidates], others

    def loss_by_feat(
        self,
        main: DensePredictions,
        aux: DensePredictions,
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
        batch_gt_instances_ignore: InstanceList | None = None,
    ) -> dict[str, list[Tensor] | Tensor]:
        """Compute the loss terms of dense predictions; arguments as of :meth:`query_losses` but for the queries.

        Args:
            main: predictions that are made distinct.
            aux: predictions of the auxiliary loss.
            batch_gt_instances: see there.
            batch_img_metas: see there.
            batch_gt_instances_ignore: not looked at.
        """
        return self.query_losses(*self.queries(main, aux), batch_gt_instances, batch_img_metas)

    def query_losses(
        self,
        distinct_queries: list[Queries],
        all_queries: list[Queries],
        batch_gt_instances: InstanceList,
        batch_img_metas: list[dict],
    ) -> dict[str, list[Tensor] | Tensor]:
        """Compute the loss terms of queries.

        Args:
            distinct_queries: of each image.
            all_queries: auxiliary ones of each image.
            batch_gt_instances: per image ``bboxes`` [n, 4] xyxy in pixels and ``labels`` [n]; n may be 0.
            batch_img_metas: per image, needs ``img_shape`` (h, w).

        Returns:
            ``aux_loss_cls``, ``aux_loss_bbox``, ``loss_cls``, ``loss_bbox``, each a list of bs scalars, and
            ``num_proposal``, the mean number of distinct queries.
        """
        terms = {}
        for prefix, loss, queries in (("aux_", self.aux_loss, all_queries), ("", self.main_loss, distinct_queries)):
            scores, bboxes = [each.scores for each in queries], [each.bboxes for each in queries]
            of_loss = loss(scores, bboxes, batch_gt_instances, batch_img_metas)
            terms.update({prefix + name: values for name, values in of_loss.items()})
        count = sum(len(each.scores) for each in distinct_queries)
        terms["num_proposal"] = distinct_queries[0].scores.new_tensor(float(count)) / len(distinct_queries)
        return terms

    def predict_by_feat(
        self,
        main: DensePredictions,
        aux: None = None,
        batch_img_metas: list[dict] | None = None,
        rescale: bool = False,
        **kwargs: object,
    ) -> InstanceList:
        """Return the detections of each image, the highest scores first.

        Args:
            main: dense predictions.
            aux: not looked at.
            batch_img_metas: per image ``img_shape`` (h, w) and, to rescale, ``scale_factor`` (w, h).
            rescale: give boxes of the original image.

        Returns:
            Per image ``bboxes`` [n, 4] xyxy in pixels, ``scores`` [n] and ``labels`` [n].
        """
        queries, _ = self.queries(main, None)
        return [self._detections(*each, rescale or self.always_rescale) for each in zip(queries, batch_img_metas)]

    def _detections(self, queries: Queries, img_meta: dict, rescale: bool) -> InstanceData:
        height, width = img_meta["img_shape"][:2]
        bboxes = queries.bboxes
        bboxes = torch.stack(  # [n, 4]
            [bboxes[:, 0].clamp(0, width), bboxes[:, 1].clamp(0, height), bboxes[:, 2].clamp(0, width),
             bboxes[:, 3].clamp(0, height)], dim=-1,
        )  # fmt: skip
        if rescale:
            bboxes = bboxes / bboxes.new_tensor(img_meta["scale_factor"]).repeat(2)
        flat = queries.scores.flatten()  # [n * num_classes]
        scores, indices = flat.topk(min(self.test_cfg["max_per_img"], len(flat)))
        return InstanceData(
            bboxes=bboxes[indices // self.num_classes], scores=scores, labels=indices % self.num_classes
        )


def _predicted(
    cls_feats: list[Tensor],
    reg_feats: list[Tensor],
    objectness: nn.Module,
    classes: nn.Module,
    distances: nn.Module,
    scales: nn.ModuleList,
) -> DensePredictions:
    """Predict from the features of each level; a score is the geometric mean of those of class and objectness."""
    scores, boxes = [], []
    for cls_feat, reg_feat, scale in zip(cls_feats, reg_feats, scales):
        scores.append(sigmoid_geometric_mean(classes(cls_feat), objectness(reg_feat)))  # [bs, num_classes, h, w]
        boxes.append(scale(distances(reg_feat).exp()).float())  # [bs, 4, h, w]
    return DensePredictions(scores, boxes, cls_feats, reg_feats)
