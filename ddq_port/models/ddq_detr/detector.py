"""The DDQ-DETR detector."""

from __future__ import annotations

import torch
from mmcv.ops import MultiScaleDeformableAttention
from mmdet.models.detectors import DINO, DeformableDETR
from mmdet.models.layers import SinePositionalEncoding
from mmdet.structures import OptSampleList
from torch import Tensor, nn

from ddq_port.registry import MODELS

from .aux_loss import to_float32
from .decoder import DDQTransformerDecoder
from .encoder import DDQTransformerEncoder
from .queries import DistinctSelection, QueryLayout, pad_to, select_dense, select_distinct

LEGACY, FAST = "legacy", "fast"
NUMERICS = (LEGACY, FAST)


@MODELS.register_module()
class DDQDETR(DINO):
    """Dense Distinct Query DETR (https://arxiv.org/abs/2303.12776).

    Equal, bit for bit on one machine in ``distinct_mask='legacy'``, to jshilong/DDQ, branch ddq_detr.

    Args:
        dqs_cfg: distinct query selection, ``dict(type='nms', iou_threshold=0.8)``.
        distinct_mask: ``'legacy'`` or ``'exact'``, see :class:`~.queries.DistinctSelection`.
        dense_topk_ratio: dense queries per matching query in training, more than 0.
        numerics: ``'legacy'`` computes as the official code does, in the same order; ``'fast'`` computes the same
            functions in less time and memory, rounded in another order. Weights are the same.
        **kwargs: of mmdet's ``DINO``.

    Raises:
        ValueError: if one of these arguments is not as said above.
    """

    def __new__(cls, *args, numerics: str = LEGACY, **kwargs) -> DDQDETR:
        """Choose the class by ``numerics``, as ``pathlib.Path`` does by the system.

        Raises:
            ValueError: for other numerics than these two.
        """
        if numerics not in NUMERICS:
            raise ValueError(f"numerics is {numerics!r}; expected one of {', '.join(NUMERICS)}.")
        if cls is DDQDETR and numerics == FAST:
            from .fast.detector import FastDDQDETR as cls
        return super().__new__(cls)

    def __init__(
        self,
        *args,
        dqs_cfg: dict | None = None,
        distinct_mask: str = "legacy",
        dense_topk_ratio: float = 1.5,
        numerics: str = LEGACY,
        **kwargs,
    ) -> None:
        self.selection = DistinctSelection.from_cfg(dqs_cfg or dict(type="nms", iou_threshold=0.8), distinct_mask)
        if dense_topk_ratio <= 0:
            raise ValueError(f"dense_topk_ratio is {dense_topk_ratio}; expected more than 0.")
        self.dense_topk_ratio, self.numerics = dense_topk_ratio, numerics
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        self._make_layers(DDQTransformerEncoder, DDQTransformerDecoder)

    def _make_layers(self, encoder: type[DDQTransformerEncoder], decoder: type[DDQTransformerDecoder]) -> None:
        """Make everything but backbone, neck and head."""
        self.positional_encoding = SinePositionalEncoding(**self.positional_encoding)
        self.encoder = encoder(**self.encoder)
        self.decoder = decoder(selection=self.selection, **self.decoder)
        self.embed_dims = self.encoder.embed_dims
        if self.positional_encoding.num_feats * 2 != self.embed_dims:
            raise ValueError(
                f"positional_encoding.num_feats is {self.positional_encoding.num_feats}; "
                f"expected half of the encoder's embed_dims, {self.embed_dims // 2}."
            )
        self.level_embed = nn.Parameter(torch.empty(self.num_feature_levels, self.embed_dims))
        self.memory_trans_fc = nn.Linear(self.embed_dims, self.embed_dims)
        self.memory_trans_norm = nn.LayerNorm(self.embed_dims)
        self.query_map = nn.Linear(self.embed_dims, self.embed_dims)

    def init_weights(self) -> None:
        """Initialise as the official code does; ``init_cfg`` of the parts first."""
        super(DeformableDETR, self).init_weights()
        for part in (self.encoder, self.decoder):
            for param in part.parameters():
                if param.dim() > 1:
                    nn.init.xavier_uniform_(param)
        for module in self.modules():
            if isinstance(module, MultiScaleDeformableAttention):
                module.init_weights()
        nn.init.xavier_uniform_(self.memory_trans_fc.weight)
        nn.init.normal_(self.level_embed)

    def pre_transformer(
        self, mlvl_feats: tuple[Tensor, ...], batch_data_samples: OptSampleList = None
    ) -> tuple[dict, dict]:
        """Flatten the feature maps as mmdet's ``DeformableDETR`` does; valid ratios are at least float32.

        Without padding mmdet makes them of the features' precision. Under autocast the reference points that follow
        from them would be rounded to half precision then, and only then.
        """
        encoder_inputs, decoder_inputs = super().pre_transformer(mlvl_feats, batch_data_samples)
        for inputs in (encoder_inputs, decoder_inputs):
            inputs["valid_ratios"] = to_float32(inputs["valid_ratios"])
        return encoder_inputs, decoder_inputs

    def pre_decoder(
        self,
        memory: Tensor,
        memory_mask: Tensor | None,
        spatial_shapes: Tensor,
        batch_data_samples: OptSampleList = None,
    ) -> tuple[dict, dict]:
        """Select distinct (and, in training, dense) queries from the encoder's output.

        Args:
            memory: [bs, num_tokens, dim].
            memory_mask: [bs, num_tokens] bool, True where padded, or None without padding.
            spatial_shapes: [num_levels, 2] (h, w).
            batch_data_samples: ground truth for the denoising queries, in training.

        Returns:
            Keyword arguments of :meth:`forward_decoder` and of the head.
        """
        # proposals are logits of cxcywh, +inf where invalid
        output_memory, proposals = self.gen_encoder_output_proposals(memory, memory_mask, spatial_shapes)
        head, lid = self.bbox_head, self.decoder.num_layers
        logits = head.cls_branches[lid](output_memory)  # [bs, num_tokens, num_classes]
        coords = head.reg_branches[lid](output_memory) + proposals  # [bs, num_tokens, 4]
        dense_logits = dense_coords = None
        if self.training:
            dense_logits = head.aux_cls_branches[lid](output_memory)
            dense_coords = head.aux_reg_branches[lid](output_memory) + proposals

        distinct, dense, content, dense_content = self._select_tokens(memory, logits, coords, dense_logits)
        # [bs, num_queries, 4] and [bs, num_queries, dim]; short images are padded with zeros, which decode to score 0.5
        # and box (.5, .5, .5, .5)
        coords = pad_to([x[inds] for x, inds in zip(coords, distinct)], self.num_queries)
        content = pad_to(content, self.num_queries)
        if not self.training:
            layout = QueryLayout(0, self.num_queries, 0)
            see_all = torch.zeros(self.num_queries, self.num_queries, dtype=torch.bool, device=memory.device)
            decoder_inputs = dict(
                query=content, memory=memory, reference_points=coords.sigmoid(), dn_mask=see_all, query_layout=layout
            )
            return decoder_inputs, {}

        dense_coords = torch.stack([x[inds] for x, inds in zip(dense_coords, dense)])  # [bs, num_dense, 4]
        all_coords = torch.cat([coords, dense_coords], dim=1)  # [bs, num_queries + num_dense, 4] logits of cxcywh
        boxes = all_coords.sigmoid()
        dn_content, dn_coords, dn_mask, dn_meta = self.dn_query_generator(batch_data_samples)
        layout = QueryLayout(dn_content.size(1), self.num_queries, dense_coords.size(1))
        decoder_inputs = dict(
            # [bs, num_denoising + num_queries + num_dense, dim]
            query=torch.cat([dn_content, content, torch.stack(dense_content)], dim=1),
            memory=memory,
            # [bs, num_denoising + num_queries + num_dense, 4] cxcywh in [0, 1]
            reference_points=torch.cat([dn_coords, all_coords.detach()], dim=1).sigmoid(),
            dn_mask=_with_dense_block(dn_mask, layout.num_dense),
            query_layout=layout,
        )
        head_inputs = dict(
            # [bs, num_queries, num_classes]
            enc_outputs_class=pad_to([x[inds] for x, inds in zip(logits, distinct)], self.num_queries),
            enc_outputs_coord=boxes[:, : self.num_queries],
            # [bs, num_dense, num_classes]
            aux_enc_outputs_class=torch.stack([x[inds] for x, inds in zip(dense_logits, dense)]),
            aux_enc_outputs_coord=boxes[:, self.num_queries :],
            dn_meta=dn_meta,
        )
        return decoder_inputs, head_inputs

    def _select_tokens(
        self, memory: Tensor, logits: Tensor, coords: Tensor, dense_logits: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
        """Choose tokens per image and map their memory to query content.

        Returns:
            Per image: distinct token indices, dense token indices, content of distinct queries [<= num_queries, dim]
            and of dense queries; the dense lists are empty at inference.
        """
        boxes = coords.detach().sigmoid()  # [bs, num_tokens, 4] cxcywh in [0, 1]
        scores = logits.detach().max(-1).values.sigmoid()  # [bs, num_tokens]
        dense_scores = None if dense_logits is None else dense_logits.detach().max(-1).values.sigmoid()
        distinct, dense, content, dense_content = [], [], [], []
        for i in range(len(memory)):
            distinct.append(select_distinct(boxes[i], scores[i], self.selection.iou_threshold, self.num_queries))
            if dense_scores is not None:
                dense.append(select_dense(dense_scores[i], int(self.num_queries * self.dense_topk_ratio)))
            mapped = self.query_map(memory[i].detach())  # [num_tokens, dim]
            content.append(mapped[distinct[i]])
            if dense_scores is not None:
                dense_content.append(mapped[dense[i]])
        return distinct, dense, content, dense_content

    def forward_decoder(
        self,
        query: Tensor,
        memory: Tensor,
        memory_mask: Tensor | None,
        reference_points: Tensor,
        spatial_shapes: Tensor,
        level_start_index: Tensor,
        valid_ratios: Tensor,
        dn_mask: Tensor,
        query_layout: QueryLayout,
    ) -> dict:
        """Run the decoder with the head's branches; shapes as in :meth:`DDQTransformerDecoder.forward`."""
        output = self.decoder(
            query=query,
            value=memory,
            key_padding_mask=memory_mask,
            self_attn_mask=dn_mask,
            reference_points=reference_points,
            spatial_shapes=spatial_shapes,
            level_start_index=level_start_index,
            valid_ratios=valid_ratios,
            cls_branches=self.bbox_head.cls_branches,
            reg_branches=self.bbox_head.reg_branches,
            aux_reg_branches=self.bbox_head.aux_reg_branches,
            query_layout=query_layout,
        )
        return dict(
            hidden_states=output.hidden_states,
            references=list(output.references),
            active_masks=output.active_masks,
            query_layout=query_layout,
        )

    def _forward(self, batch_inputs: Tensor, batch_data_samples: OptSampleList = None) -> tuple[Tensor, Tensor]:
        """Return the head's raw class logits and boxes (mode ``'tensor'``)."""
        outputs = self.forward_transformer(self.extract_feat(batch_inputs), batch_data_samples)
        return self.bbox_head(outputs["hidden_states"], outputs["references"], outputs["query_layout"])


def _with_dense_block(mask: Tensor, num_dense: int) -> Tensor:
    """Extend a mask [n, n] to [n + num_dense, n + num_dense]: dense queries see each other and nothing else."""
    size, total = len(mask), len(mask) + num_dense
    extended = torch.ones(total, total, dtype=torch.bool, device=mask.device)
    extended[:size, :size] = mask
    extended[size:, size:] = False
    return extended
