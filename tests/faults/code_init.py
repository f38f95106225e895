"""Faults in what ``__init__`` and ``init_weights`` make: forward with loaded weights is right."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import mmcv.ops
import torch
from mmdet.models.backbones import ResNet
from mmdet.models.layers import CdnQueryGenerator
from torch import nn

from ddq_port.models.ddq_detr import head
from ddq_port.models.ddq_detr.detector import DDQDETR
from ddq_port.models.ddq_detr.head import DDQDETRHead
from legacy_adapters import mmdet3

from .fault import CODE, Fault
from .planting import replaced, wrap

Apply = Callable[[Any], None]
INIT = "init"


def _fault(name: str, kind: str, where: str, apply: Apply, says: str = "") -> Fault:
    return Fault(name, kind, where, apply, place=CODE, says=says, setting=INIT)


def _method(owner: Any, name: str, change: Callable[..., Any]) -> Apply:
    """Put ``change(right, *args)`` in place of a method of a class or a function of a module."""
    return lambda _: wrap(owner, name, change)


def _behind(owner: Any, name: str, change: Callable[[Any], None]) -> Apply:
    """Call ``change(self)`` behind a method of a class."""

    def changed(right: Callable, self: Any, *args: Any, **kwargs: Any) -> None:
        right(self, *args, **kwargs)
        change(self)

    return _method(owner, name, changed)


def _without_attention(right: Callable, self: DDQDETR) -> None:
    with replaced(mmcv.ops.MultiScaleDeformableAttention, "init_weights", lambda module: None):
        right(self)


def _drawn(parameter: str, draw: Callable[[torch.Tensor], Any]) -> Apply:
    """Draw one parameter anew, in another way, in the end."""

    def change(model: DDQDETR) -> None:
        with torch.no_grad():
            draw(model.get_parameter(parameter))

    return _behind(DDQDETR, "init_weights", change)


def _normal_instead(right: Callable, self: DDQDETR) -> None:
    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return nn.init.xavier_normal_(tensor) if tensor is self.memory_trans_fc.weight else uniform(tensor)

    uniform = nn.init.xavier_uniform_
    with replaced(nn.init, "xavier_uniform_", draw):
        right(self)


def _uniform_instead(right: Callable, self: DDQDETR) -> None:
    normal = nn.init.normal_

    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return nn.init.uniform_(tensor) if tensor is self.level_embed else normal(tensor, *args, **kwargs)

    with replaced(nn.init, "normal_", draw):
        right(self)


def _small_level_embed(right: Callable, self: DDQDETR) -> None:
    normal = nn.init.normal_

    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return normal(tensor, std=0.02) if tensor is self.level_embed else normal(tensor, *args, **kwargs)

    with replaced(nn.init, "normal_", draw):
        right(self)


def _small_decoder(right: Callable, self: DDQDETR) -> None:
    uniform, decoder = nn.init.xavier_uniform_, {id(p) for p in self.decoder.parameters()}

    def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return uniform(tensor, gain=0.5 if id(tensor) in decoder else 1.0)

    with replaced(nn.init, "xavier_uniform_", draw):
        right(self)


def _level_embed_twice(model: DDQDETR) -> None:
    nn.init.normal_(model.level_embed)


def _refinement_not_zero(right: Callable, self: DDQDETRHead) -> None:
    with replaced(head, "constant_init", lambda module, value, bias: None):
        right(self)


def _built_anew(branches: str) -> Callable[[DDQDETRHead], None]:
    def change(self: DDQDETRHead) -> None:
        for module in getattr(self, branches).modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    return change


def _one_branch_for_all(self: DDQDETRHead) -> None:
    """Build the auxiliary branches from the last of the main ones, each drawn by itself."""
    for index, branch in enumerate(self.reg_branches):
        if index:
            for module in branch.modules():
                if isinstance(module, nn.Linear):
                    module.reset_parameters()


def _layers_copied(part: str) -> Callable[[DDQDETR], None]:
    """Make the second layer a copy of the first."""

    def change(model: DDQDETR) -> None:
        layers = getattr(model, part).layers
        layers[1].load_state_dict(copy.deepcopy(layers[0].state_dict()))

    return change


def _query_map_copied(model: DDQDETR) -> None:
    with torch.no_grad():
        model.query_map.weight.copy_(model.memory_trans_fc.weight)


def _checkpoint(value: Any) -> Apply:
    """Take another checkpoint for the backbone than the config says."""

    def changed(right: Callable, *args: Any, **kwargs: Any) -> Any:
        config = right(*args, **kwargs)
        config.model.backbone.init_cfg = value
        return config

    return _method(mmdet3, "load_config", changed)


def _last_norm_not_zero(right: Callable, self: ResNet, *args: Any, **kwargs: Any) -> None:
    right(self, *args, **{**kwargs, "zero_init_residual": False})


def _small_labels(generator: CdnQueryGenerator) -> None:
    with torch.no_grad():
        nn.init.normal_(generator.label_embedding.weight, std=0.02)


FAULTS = (
    _fault("init_level_embed_std", "other spread", "level_embed",
           _method(DDQDETR, "init_weights", _small_level_embed)),
    _fault("init_label_embedding_std", "other spread", "dn_query_generator.label_embedding.weight",
           _behind(CdnQueryGenerator, "__init__", _small_labels)),
    _fault("init_decoder_gain", "other spread", "decoder",
           _method(DDQDETR, "init_weights", _small_decoder)),
    _fault("init_class_prior", "other constant", "bbox_head",
           _method(head, "bias_init_with_prob", lambda right, prior: right(0.1))),
    _fault("init_attention_bias", "other constant", "encoder.layers.0.self_attn.sampling_offsets.bias",
           _behind(mmcv.ops.MultiScaleDeformableAttention, "init_weights",
                   lambda module: module.sampling_offsets.bias.data.mul_(0.5))),
    _fault("init_uniform_level_embed", "other distribution", "level_embed",
           _method(DDQDETR, "init_weights", _uniform_instead)),
    _fault("init_xavier_normal", "other distribution", "memory_trans_fc.weight",
           _method(DDQDETR, "init_weights", _normal_instead)),
    _fault("init_kaiming_query_map", "other distribution", "query_map.weight",
           _drawn("query_map.weight", nn.init.kaiming_normal_)),
    _fault("init_attention_left_out", "initialisation left out",
           "encoder.layers.0.self_attn.sampling_offsets.weight",
           _method(DDQDETR, "init_weights", _without_attention)),
    _fault("init_xavier_left_out", "initialisation left out", "encoder.layers.0.self_attn.value_proj.bias",
           _method(mmcv.ops.MultiScaleDeformableAttention, "init_weights", lambda right, self: None)),
    _fault("init_head_left_out", "initialisation left out", "bbox_head",
           _method(DDQDETRHead, "init_weights", lambda right, self: None)),
    _fault("init_refinement_not_zero", "initialisation left out", "bbox_head",
           _method(DDQDETRHead, "init_weights", _refinement_not_zero)),
    _fault("init_level_embed_twice", "initialised twice", "level_embed",
           _behind(DDQDETR, "init_weights", _level_embed_twice)),
    _fault("init_memory_twice", "initialised twice", "memory_trans_fc.weight",
           _behind(DDQDETR, "init_weights", lambda model: nn.init.xavier_uniform_(model.memory_trans_fc.weight))),
    _fault("init_dense_branches_anew", "anew instead of copied", "bbox_head.aux_reg_branches",
           _behind(DDQDETRHead, "_init_layers", _built_anew("aux_reg_branches"))),
    _fault("init_class_branches_anew", "anew instead of copied", "bbox_head.aux_cls_branches",
           _behind(DDQDETRHead, "_init_layers", _built_anew("aux_cls_branches"))),
    _fault("init_each_branch_anew", "anew instead of copied", "bbox_head.reg_branches",
           _behind(DDQDETRHead, "_init_layers", _one_branch_for_all)),
    _fault("init_encoder_layers_copied", "copied instead of anew", "encoder.layers",
           _behind(DDQDETR, "init_weights", _layers_copied("encoder"))),
    _fault("init_decoder_layers_copied", "copied instead of anew", "decoder.layers",
           _behind(DDQDETR, "init_weights", _layers_copied("decoder"))),
    _fault("init_query_map_copied", "copied instead of anew", "query_map.weight",
           _behind(DDQDETR, "init_weights", _query_map_copied)),
    _fault("init_backbone_checkpoint", "other checkpoint", "backbone",
           _checkpoint(dict(type="Pretrained", checkpoint="torchvision://resnet101"))),
    _fault("init_last_norm_not_zero", "zero initialisation left out", "backbone",
           _method(ResNet, "__init__", _last_norm_not_zero)),
)  # fmt: skip
