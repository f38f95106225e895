"""Head of the fast numerics: all losses from one copy of costs, all detections from one ranking."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.models.layers import inverse_sigmoid
from mmdet.structures import SampleList
from mmdet.structures.bbox import bbox_cxcywh_to_xyxy
from mmdet.utils import InstanceList, reduce_mean
from mmengine.structures import InstanceData
from torch import Tensor

from ddq_port.registry import MODELS

from ..aux_loss import to_float32
from ..head import DDQDETRHead, image_size, layer_losses, named, per_axis
from ..queries import QueryLayout
from .costs import check_costs, cost_matrix, match
from .dense import match_dense
from .detections import best_pairs
from .losses import Pairs, box_losses, check_losses, dense_sums, focal_sums, normalised
from .noise import Objects


@MODELS.register_module()
class FastDDQDETRHead(DDQDETRHead):
    """The head with fast losses; its arguments and parameters are the same.

    Raises:
        ValueError: if a loss or a matching cost is of a class that is not computed in this form.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        check_losses(self)
        if self.train_cfg:
            check_costs(self.assigner.match_costs, "bbox_head.assigner")
        check_costs(self._dense_costs, "aux_loss_for_dense.assigner")

    @property
    def _dense_costs(self) -> list[object]:
        assigner = self.aux_loss_for_dense.assigner
        return [assigner.cls_cost, assigner.reg_cost, assigner.iou_cost]

    def forward(
        self, hidden_states: Tensor, references: Tensor, query_layout: QueryLayout, last_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Predict classes and boxes as the head that this is one of, from every decoder layer or from the last one only.

        Returns:
            Class logits [num_layers or 1, bs, num_queries_total, num_classes] and boxes
            [num_layers or 1, bs, num_queries_total, 4] cxcywh in [0, 1].
        """
        if not last_only:
            return super().forward(hidden_states, references, query_layout)
        lid = len(hidden_states) - 1
        delta = self.reg_branches[lid](hidden_states[lid])
        boxes = delta + inverse_sigmoid(references[lid])
        if not self.float32_boxes:
            boxes = boxes.to(delta.dtype)
        # [1, bs, num_queries_total, num_classes] and [1, bs, num_queries_total, 4]
        return self.cls_branches[lid](hidden_states[lid])[None], boxes.sigmoid()[None]

    def loss(
        self,
        hidden_states: Tensor,
        references: Tensor,
        active_masks: list[Tensor],
        settled: Tensor,
        query_layout: QueryLayout,
        num_groups: int,
        enc_outputs_class: Tensor,
        enc_outputs_coord: Tensor,
        aux_enc_outputs_class: Tensor,
        aux_enc_outputs_coord: Tensor,
        objects: Objects,
    ) -> dict[str, Tensor | list[Tensor]] | None:
        """Compute all loss terms, named as in the official training logs; None if ``settled`` is False.

        Args:
            hidden_states: [num_layers, bs, num_queries_total, dim].
            references: [num_layers + 1, bs, num_queries_total, 4] cxcywh in [0, 1].
            active_masks: per layer [bs, num_matching] bool, the matching queries its loss is taken on.
            settled: [] bool, whether the masks are final.
            query_layout: division of the query axis.
            num_groups: of denoising queries.
            enc_outputs_class: logits of the selected encoder proposals [bs, num_matching, num_classes].
            enc_outputs_coord: their boxes [bs, num_matching, 4] cxcywh in [0, 1].
            aux_enc_outputs_class: logits of the dense encoder proposals [bs, num_dense, num_classes].
            aux_enc_outputs_coord: their boxes [bs, num_dense, 4] cxcywh in [0, 1].
            objects: of the images.
        """
        logits, boxes = self(hidden_states, list(references), query_layout)
        with torch.autocast(logits.device.type, enabled=False):
            sizes = [query_layout.num_denoising, query_layout.num_matching, query_layout.num_dense]
            # each [num_layers, bs, n, num_classes] and [num_layers, bs, n, 4]
            logits, boxes = to_float32(logits).split(sizes, 2), to_float32(boxes).split(sizes, 2)
            # with the encoder as the last set: [num_layers + 1, bs, n, ...]
            matching = tuple(
                torch.cat([of_layers, to_float32(of_encoder)[None]])  # [num_layers + 1, bs, num_matching, ...]
                for of_layers, of_encoder in ((logits[1], enc_outputs_class), (boxes[1], enc_outputs_coord))
            )
            dense = tuple(
                torch.cat([of_layers, to_float32(of_encoder)[None]])  # [num_layers + 1, bs, num_dense, ...]
                for of_layers, of_encoder in ((logits[2], aux_enc_outputs_class), (boxes[2], aux_enc_outputs_coord))
            )
            active = torch.stack([*active_masks, torch.ones_like(active_masks[0])])  # [num_layers + 1, bs, num_matching]
            return self._losses((logits[0], boxes[0]), matching, (dense[0].sigmoid(), dense[1]), active, settled,
                                num_groups, objects)  # fmt: skip

    def _losses(
        self,
        denoising: tuple[Tensor, Tensor],
        matching: tuple[Tensor, Tensor],
        dense: tuple[Tensor, Tensor],
        active: Tensor,
        settled: Tensor,
        num_groups: int,
        objects: Objects,
    ) -> dict[str, Tensor | list[Tensor]] | None:
        costs = cost_matrix(self.assigner.match_costs, *matching, objects)
        dense_costs = cost_matrix(self._dense_costs, *dense, objects)
        given = _on_host(costs, dense_costs, active, settled)
        if not given[3]:
            return None
        noise = _noise_pairs(objects.counts, num_groups, objects.most, len(denoising[0]))
        assigned = (
            match(given[0], objects.counts, given[2].astype(bool)),
            match_dense(given[1], objects.counts, self.aux_loss_for_dense.assigner.topk),
            noise,
        )
        matched, dense_matched, noised = _on_device(assigned, costs.device)
        targets = objects.normalised.to(costs.dtype)

        sums = []  # of classes, L1 and IoU, for matching and then for denoising queries
        for (logits, boxes), pairs, mask in ((matching, matched, active), (denoising, noised, None)):
            labels = objects.labels[pairs.images, pairs.objects]
            sums.append(focal_sums(self.loss_cls, logits, pairs, labels, mask))
            sums += box_losses(self.loss_bbox, self.loss_iou, boxes, pairs, objects, targets)
        of_dense = dense_sums(self.aux_loss_for_dense, *dense, dense_matched, objects)

        counts = [
            pairs.sums(torch.ones_like(pairs.sets, dtype=costs.dtype), len(logits))
            for pairs, logits in ((matched, matching[0]), (noised, denoising[0]))
        ]
        sizes = [len(counts[0]), len(counts[1]), len(of_dense.quality)]
        # averaged over ranks in one piece: [2 * (num_layers + 1) + num_layers]
        averaged = reduce_mean(torch.cat([*counts, of_dense.quality])).split(sizes)
        class_counts = averaged[:2] if self.sync_cls_avg_factor else counts
        terms = [normalised(total, factor) for total, factor in zip(
            sums, (class_counts[0], averaged[0], averaged[0], class_counts[1], averaged[1], averaged[1])
        )]  # fmt: skip
        if self.sync_cls_avg_factor:  # mmdet's class losses then have one element each
            terms[0], terms[3] = terms[0][:, None], terms[3][:, None]
        per_layer = [list(zip(*(term.unbind() for term in part))) for part in (terms[:3], terms[3:])]

        *of_layers, of_encoder = per_layer[0]
        losses = layer_losses("", of_layers)
        losses.update(named("enc_", of_encoder))
        losses.update(layer_losses("dn_", per_layer[1]))
        factor = averaged[2].clamp(min=1)[:, None]  # [num_layers + 1, 1]
        *prefixes, last = [f"{lid}_aux_" for lid in range(len(factor))]
        for prefix, classes, boxes in zip([*prefixes, "aux_enc_"], of_dense.classes / factor, of_dense.boxes / factor):
            losses[f"{prefix}aux_loss_cls"] = list(classes.unbind())
            losses[f"{prefix}aux_loss_bbox"] = list(boxes.unbind())
        return losses

    def predict(
        self,
        hidden_states: Tensor,
        references: Tensor,
        active_masks: list[Tensor],
        settled: Tensor,
        query_layout: QueryLayout,
        batch_data_samples: SampleList,
        rescale: bool = True,
    ) -> InstanceList | None:
        """Return detections of the last layer's distinct queries; None if ``settled`` is False.

        Args:
            hidden_states: as in :meth:`loss`, like the next four.
            references: only those of the last layer are used.
            active_masks: likewise.
            settled: [] bool.
            query_layout: of matching queries only.
            batch_data_samples: need ``img_shape`` and, for ``rescale``, ``scale_factor``.
            rescale: divide the boxes by ``scale_factor``, back to the original image.
        """
        logits, boxes = (x[0] for x in self(hidden_states, list(references), query_layout, last_only=True))
        active = active_masks[-1]
        # one copy: [1 + bs]
        done, *counts = torch.cat([settled[None].long(), active.sum(1)]).tolist()
        if not done:
            return None
        num_classes = logits.shape[-1]
        limit = (self.test_cfg or {}).get("max_per_img")
        wanted = [min(n if limit is None else limit, n * num_classes) for n in counts]
        scores, pairs = best_pairs(logits.sigmoid(), active, wanted)  # each [bs, most detections]
        # [bs, most detections, 4] xyxy in pixels
        found = boxes.gather(1, (pairs // num_classes)[..., None].expand(-1, -1, 4))
        metas = [sample.metainfo for sample in batch_data_samples]
        sizes = torch.stack([image_size(meta, to_float32(boxes)) for meta in metas])  # [bs, 1, 4]
        bboxes = (bbox_cxcywh_to_xyxy(found) * sizes).clamp(min=0).minimum(sizes).to(boxes.dtype)
        if rescale:
            bboxes = bboxes / torch.stack([per_axis(*meta["scale_factor"], bboxes) for meta in metas])  # [bs, n, 4]
        labels = pairs % num_classes
        return [
            InstanceData(bboxes=bboxes[i, :n], scores=scores[i, :n], labels=labels[i, :n])
            for i, n in enumerate(wanted)
        ]


def _on_host(*tensors: Tensor) -> list[np.ndarray]:
    """Copy tensors to the host in one piece."""
    dtype = tensors[0].dtype
    together = torch.cat([x.detach().to(dtype).flatten() for x in tensors]).cpu()  # [elements of all]
    sizes = [x.numel() for x in tensors]
    # [elements of all] -> each tensor in its own shape
    return [part.view(x.shape).numpy() for part, x in zip(together.split(sizes), tensors)]


def _on_device(assigned: Sequence[np.ndarray], device: torch.device) -> list[Pairs]:
    """Copy pairs, int64 [4, n] each, to a device in one piece."""
    together = torch.from_numpy(np.concatenate(assigned, axis=1)).to(device)  # [4, n of all]
    return [Pairs(*part.unbind()) for part in together.split([x.shape[1] for x in assigned], 1)]


def _noise_pairs(counts: Sequence[int], num_groups: int, most: int, num_layers: int) -> np.ndarray:
    """Return which denoising query stands for which object, int64 [4, n], as :func:`~.costs.match` does.

    A group has a query for each object, padded to ``most``, and then as many to be rejected.
    """
    one_layer = [  # of each image [4, num_groups, n]
        np.stack(np.broadcast_arrays(0, image, 2 * most * np.arange(num_groups)[:, None] + objects, objects))
        for image, objects in enumerate(map(np.arange, counts))
    ]
    # [4, num_groups, n of an image] -> [4, n] of all images, then of all layers
    flat = np.concatenate([part.reshape(4, -1) for part in one_layer], axis=1)
    layers = np.tile(flat, num_layers)  # [4, num_layers * n]
    layers[0] = np.repeat(np.arange(num_layers), flat.shape[1])
    return layers.astype(np.int64)
