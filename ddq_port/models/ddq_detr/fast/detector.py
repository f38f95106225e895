"""DDQ-DETR with fast numerics."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import torch
from mmdet.structures import OptSampleList, SampleList
from mmengine.config import ConfigDict
from torch import Tensor

from ..detector import DDQDETR, FAST
from ..queries import QueryLayout
from .backbone import FoldedResNet  # noqa: F401  (registers it)
from .decoder import FastDecoder, FastDecoderOutput
from .distinct import Proposals, select_dense, select_distinct
from .encoder import FastEncoder, Tokens, tokens_of
from .head import FastDDQDETRHead  # noqa: F401
from .noise import FastCdnQueryGenerator, Objects
from .proposals import masked_memory, token_boxes

#: Type in a config -> what takes its place.
_HEADS = {"ddq_port.DDQDETRHead": "ddq_port.FastDDQDETRHead", "DDQDETRHead": "ddq_port.FastDDQDETRHead"}
_BACKBONES = {"ResNet": "ddq_port.FoldedResNet", "mmdet.ResNet": "ddq_port.FoldedResNet"}


class Prepared(NamedTuple):
    """What the decoder begins with.

    Attributes:
        query: [bs, num_queries_total, dim].
        reference_points: [bs, num_queries_total, 4] cxcywh in [0, 1].
        memory: [bs, num_tokens, dim].
        tokens: of the memory.
        layout: division of the query axis.
        num_groups: of denoising queries.
        encoder_outputs: the head's, in training.
    """

    query: Tensor
    reference_points: Tensor
    memory: Tensor
    tokens: Tokens
    layout: QueryLayout
    num_groups: int
    encoder_outputs: dict[str, Tensor]


class FastDDQDETR(DDQDETR, numerics=FAST):
    """The detector that ``DDQDETR(numerics='fast')`` makes.

    It has the parameters of the other one under the same names, and computes the same functions of them rounded in
    another order: see ``docs/fast.md``.

    Args:
        backbone: its config; frozen batch normalisation of a ``ResNet`` becomes part of the convolutions.
        bbox_head: its config.
        **kwargs: of :class:`~..detector.DDQDETR`.

    Raises:
        ValueError: if a part of the config is of a kind that has no fast form.
    """

    def __init__(self, *args: Any, backbone: dict, bbox_head: dict, **kwargs: Any) -> None:
        if bbox_head["type"] not in _HEADS:
            raise ValueError(f"numerics='fast': bbox_head is a {bbox_head['type']}; expected ddq_port.DDQDETRHead.")
        backbone, bbox_head = copy.deepcopy(ConfigDict(backbone)), ConfigDict(bbox_head)
        backbone["type"] = _BACKBONES.get(backbone["type"], backbone["type"])
        bbox_head["type"] = _HEADS[bbox_head["type"]]
        super().__init__(*args, backbone=backbone, bbox_head=bbox_head, **kwargs)
        # mmdet's detector names the class of its generator; the object with its embedding stays
        self.dn_query_generator.__class__ = FastCdnQueryGenerator

    def _init_layers(self) -> None:
        self._make_layers(FastEncoder, FastDecoder)

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict[str, Any]:
        """Return the loss terms of a batch; arguments as of mmdet's detectors."""
        prepared, objects = self._prepare(batch_inputs, batch_data_samples)
        for exact in (False, True):
            output = self._decode(prepared, exact)
            terms = self.bbox_head.loss(
                *output,
                query_layout=prepared.layout,
                num_groups=prepared.num_groups,
                objects=objects,
                **prepared.encoder_outputs,
            )
            if terms is not None:
                return terms
        raise RuntimeError("a selection of distinct queries that was followed to its end has none")

    def parse_losses(self, losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum the loss terms as mmengine does; what is logged is copied to the host in one piece."""
        total, terms = super().parse_losses(losses)
        on_host = torch.stack([term.detach() for term in terms.values()]).cpu()  # [number of terms]
        return total, dict(zip(terms, on_host.unbind()))

    def predict(self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True) -> SampleList:
        """Return the samples with their detections; arguments as of mmdet's detectors."""
        prepared, _ = self._prepare(batch_inputs, batch_data_samples)
        for exact in (False, True):
            output = self._decode(prepared, exact)
            found = self.bbox_head.predict(*output, prepared.layout, batch_data_samples, rescale)
            if found is not None:
                return self.add_pred_to_datasample(batch_data_samples, found)
        raise RuntimeError("a selection of distinct queries that was followed to its end has none")

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> tuple[Tensor, Tensor]:
        prepared, _ = self._prepare(batch_inputs, batch_data_samples)
        output = self._decode(prepared, exact=True)
        return self.bbox_head(output.hidden_states, list(output.references), prepared.layout)

    def _decode(self, prepared: Prepared, exact: bool) -> FastDecoderOutput:
        return self.decoder(
            query=prepared.query,
            value=prepared.memory,
            tokens=prepared.tokens,
            reference_points=prepared.reference_points,
            cls_branches=self.bbox_head.cls_branches,
            reg_branches=self.bbox_head.reg_branches,
            aux_reg_branches=self.bbox_head.aux_reg_branches,
            query_layout=prepared.layout,
            num_groups=prepared.num_groups,
            exact=exact,
        )

    def _prepare(self, batch_inputs: Tensor, samples: SampleList) -> tuple[Prepared, Objects | None]:
        """Encode images and choose queries; in training with the objects of the images."""
        features = self.extract_feat(batch_inputs)
        tokens = tokens_of(features, samples, self.positional_encoding, self.level_embed)
        memory = self.encoder(
            query=tokens.features, query_pos=tokens.positions, key_padding_mask=tokens.padding, tokens=tokens
        )
        if not self.training:
            return self._for_inference(memory, tokens), None
        objects = Objects.of(samples, batch_inputs)
        return self._for_training(memory, tokens, objects), objects

    def _for_inference(self, memory: Tensor, tokens: Tokens) -> Prepared:
        proposals, valid = token_boxes(tokens)
        transformed = self._transformed(masked_memory(memory, valid))
        chosen = self._choose(transformed, proposals, valid)
        # [bs, num_queries, dim]; where there are too few tokens zeros, which are live queries in DDQ-DETR
        content = self.query_map(_rows(memory, chosen.tokens)).masked_fill(~chosen.valid[..., None], 0)
        coords = chosen.coords.masked_fill(~chosen.valid[..., None], 0)
        layout = QueryLayout(0, self.num_queries, 0)
        return Prepared(content, coords.sigmoid(), memory, tokens, layout, 1, {})

    def _for_training(self, memory: Tensor, tokens: Tokens, objects: Objects) -> Prepared:
        head, lid = self.bbox_head, self.decoder.num_layers
        proposals, valid = token_boxes(tokens)
        masked = masked_memory(memory, valid)
        with torch.no_grad():
            transformed = self._transformed(masked)
            chosen = self._choose(transformed, proposals, valid)
            dense_scores = head.aux_cls_branches[lid](transformed).max(-1).values.sigmoid()  # [bs, num_tokens]
            wanted = min(int(self.num_queries * self.dense_topk_ratio), dense_scores.shape[1])
            dense = select_dense(dense_scores, wanted)  # [bs, num_dense]
        # gradients go to the chosen tokens alone, so these are computed once more: [bs, num_queries + num_dense, dim]
        both = torch.cat([chosen.tokens, dense], 1)  # [bs, num_queries + num_dense]
        sizes = [self.num_queries, wanted]
        distinct_features, dense_features = self._transformed(_rows(masked, both)).split(sizes, 1)
        distinct_boxes, dense_boxes = _rows(proposals, both).split(sizes, 1)
        missing = ~chosen.valid[..., None]
        logits = head.cls_branches[lid](distinct_features).masked_fill(missing, 0)
        coords = (head.reg_branches[lid](distinct_features) + distinct_boxes).masked_fill(missing, 0)
        dense_logits = head.aux_cls_branches[lid](dense_features)
        dense_coords = head.aux_reg_branches[lid](dense_features) + dense_boxes
        content = self.query_map(_rows(memory.detach(), both))
        content, dense_content = content.split(sizes, 1)
        noise = self.dn_query_generator(objects)
        layout = QueryLayout(noise.content.shape[1], *sizes)
        # [bs, num_denoising + num_queries + num_dense, dim]
        query = torch.cat([noise.content, content.masked_fill(missing, 0), dense_content], 1)
        # the same of coordinates, [..., 4]
        references = torch.cat([noise.coords, coords.detach(), dense_coords.detach()], 1).sigmoid()
        outputs = dict(
            enc_outputs_class=logits,
            enc_outputs_coord=coords.sigmoid(),
            aux_enc_outputs_class=dense_logits,
            aux_enc_outputs_coord=dense_coords.sigmoid(),
        )
        return Prepared(query, references, memory, tokens, layout, noise.num_groups, outputs)

    def _transformed(self, masked: Tensor) -> Tensor:
        return self.memory_trans_norm(self.memory_trans_fc(masked))

    @torch.no_grad()
    def _choose(self, transformed: Tensor, proposals: Tensor, valid: Tensor) -> Proposals:
        """Choose distinct tokens; boxes are made only of those that the selection looks at."""
        head, lid = self.bbox_head, self.decoder.num_layers
        scores = head.cls_branches[lid](transformed).max(-1).values.sigmoid()  # [bs, num_tokens]

        def coords_of(inds: Tensor) -> Tensor:
            return head.reg_branches[lid](_rows(transformed, inds)) + _rows(proposals, inds)  # [bs, n, 4]

        threshold = self.selection.iou_threshold
        return select_distinct(scores, coords_of, (~valid).any(), threshold, self.num_queries)


def _rows(x: Tensor, inds: Tensor) -> Tensor:
    """Return the rows of ``x`` [bs or 1, n, k] at ``inds`` [bs, m]: [bs, m, k]."""
    x = x.expand(len(inds), -1, -1)  # [bs, n, k]
    return x.gather(1, inds[..., None].expand(-1, -1, x.shape[-1]))
