"""Detectors whose transformer is a part of the head in 2.x, and the detector's in 3.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .draft import Draft, left_over, untyped

#: Of a feed-forward network: how a layer of 2.x may say it beside `ffn_cfgs` -> its own name.
_FFN = {"feedforward_channels": "feedforward_channels", "ffn_dropout": "ffn_drop", "ffn_num_fcs": "num_fcs"}
_SELF_FIRST = ("self_attn", "norm", "cross_attn", "norm", "ffn", "norm")
_ENCODING = ("self_attn", "norm", "ffn", "norm")
_NOT_KNOWN = "not known of a transformer; 3.x has no such setting here"


def layer(
    draft: Draft, old: Mapping[str, Any], path: str, new_path: str, orders: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    """Translate what one layer is made of.

    Args:
        draft: takes remarks and origins.
        old: `transformerlayers` of 2.x.
        path: of it in the old config.
        new_path: of the layer's config in the new one.
        orders: of its operations that 3.x has; another is remarked.
    """
    old = dict(old)
    old.pop("type", None)
    order = tuple(old.pop("operation_order", orders[0]))
    if order not in orders:
        draft.remark(f"{path}.operation_order", order, f"3.x has the order {', '.join(orders[0])} only")
    count = sum(name.endswith("attn") for name in order)
    attentions = old.pop("attn_cfgs", {})
    each = attentions if isinstance(attentions, list) else [attentions] * count
    names = [f"{name}_cfg" for name in order if name.endswith("attn")]
    new: dict[str, Any] = {}
    for number, (name, attention) in enumerate(zip(names, each)):
        draft.came(f"{new_path}.{name}", f"{path}.attn_cfgs" + (f".{number}" if isinstance(attentions, list) else ""))
        new[name] = {**untyped(attention), "batch_first": True}
    new = {name: new[name] for name in ("self_attn_cfg", "cross_attn_cfg") if name in new}
    forward = untyped(old.pop("ffn_cfgs", {}))
    draft.came(f"{new_path}.ffn_cfg", f"{path}.ffn_cfgs")
    for given, name in _FFN.items():
        if given in old:
            draft.came(f"{new_path}.ffn_cfg.{name}", f"{path}.{given}")
            forward[name] = old.pop(given)
    forward.setdefault("embed_dims", new["self_attn_cfg"].get("embed_dims", 256))
    forward.setdefault("feedforward_channels", 1024)
    new["ffn_cfg"] = forward
    norm = old.pop("norm_cfg", None)
    if norm is not None and norm != dict(type="LN"):
        new["norm_cfg"] = norm
    if old.pop("act_cfg", dict(type="ReLU", inplace=True)).get("type") != "ReLU":
        draft.remark(f"{path}.act_cfg", None, "2.x does not heed it here; say it in `ffn_cfgs`")
    old.pop("batch_first", None)
    left_over(draft, path, old, _NOT_KNOWN)
    return new


def stack(
    draft: Draft, old: Mapping[str, Any], path: str, new_path: str, orders: tuple[tuple[str, ...], ...]
) -> dict[str, Any]:
    """Translate an encoder or a decoder; arguments as of :func:`layer`."""
    draft.came(new_path, path)
    old = dict(old)
    old.pop("type", None)
    layers = old.pop("transformerlayers")
    new = dict(num_layers=old.pop("num_layers"))
    new["layer_cfg"] = layer(draft, layers, f"{path}.transformerlayers", f"{new_path}.layer_cfg", orders)
    old.pop("init_cfg", None)
    new.update({name: old.pop(name) for name in ("return_intermediate", "post_norm_cfg") if name in old})
    left_over(draft, path, old, _NOT_KNOWN)
    return new


def _lifted(draft: Draft, old: dict[str, Any], path: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return detector, head and transformer with the parts of the latter two that are the detector's in 3.x."""
    new, head = dict(old), dict(old["bbox_head"])
    transformer = dict(head.pop("transformer"))
    transformer.pop("type", None)
    here = f"{path}.bbox_head.transformer"
    new["encoder"] = stack(draft, transformer.pop("encoder"), f"{here}.encoder", f"{path}.encoder", (_ENCODING,))
    new["decoder"] = stack(draft, transformer.pop("decoder"), f"{here}.decoder", f"{path}.decoder", (_SELF_FIRST,))
    new["positional_encoding"] = untyped(head.pop("positional_encoding", dict(num_feats=128, normalize=True)))
    draft.came(f"{path}.positional_encoding", f"{path}.bbox_head.positional_encoding")
    new["num_queries"] = head.pop("num_query", 100)
    draft.came(f"{path}.num_queries", f"{path}.bbox_head.num_query")
    head["embed_dims"] = new["encoder"]["layer_cfg"]["self_attn_cfg"].get("embed_dims", 256)
    draft.came(f"{path}.bbox_head.embed_dims", f"{here}.encoder.transformerlayers.attn_cfgs.embed_dims")
    return new, head, transformer


def _detr(draft: Draft, old: dict[str, Any], path: str) -> dict[str, Any]:
    if "transformer" not in old.get("bbox_head", {}):
        return old
    new, head, transformer = _lifted(draft, old, path)
    channels = head.pop("in_channels")
    new["neck"] = dict(
        type="ChannelMapper", in_channels=[channels], kernel_size=1, out_channels=head["embed_dims"],
        act_cfg=None, norm_cfg=None, num_outs=1,
    )  # fmt: skip
    draft.came(f"{path}.neck.in_channels", f"{path}.bbox_head.in_channels")
    new["decoder"].setdefault("return_intermediate", False)
    left_over(draft, f"{path}.bbox_head.transformer", transformer, _NOT_KNOWN)
    return _ordered(dict(new, bbox_head=head))


def _deformable(draft: Draft, old: dict[str, Any], path: str) -> dict[str, Any]:
    if "transformer" not in old.get("bbox_head", {}):
        return old
    new, head, transformer = _lifted(draft, old, path)
    head.pop("in_channels", None)
    for name in ("with_box_refine", "as_two_stage"):
        draft.came(f"{path}.{name}", f"{path}.bbox_head.{name}")
        new[name] = head.pop(name, False)
    levels = transformer.pop("num_feature_levels", 4)
    new["num_feature_levels"] = levels
    draft.came(f"{path}.num_feature_levels", f"{path}.bbox_head.transformer.num_feature_levels")
    proposals = transformer.pop("two_stage_num_proposals", 300)
    if new["as_two_stage"] and proposals != new["num_queries"]:
        draft.remark(
            f"{path}.bbox_head.transformer.two_stage_num_proposals", proposals,
            "3.x takes as many proposals as there are queries (`num_queries`)",
        )  # fmt: skip
        new["num_queries"] = proposals
    transformer.pop("as_two_stage", None)
    new["decoder"].setdefault("return_intermediate", False)
    new["decoder"]["post_norm_cfg"] = None
    left_over(draft, f"{path}.bbox_head.transformer", transformer, _NOT_KNOWN)
    return _ordered(dict(new, bbox_head=head))


def _ordered(new: dict[str, Any]) -> dict[str, Any]:
    """Return a detector in the order in which an image goes through it."""
    first = (
        "type", "num_queries", "num_feature_levels", "with_box_refine", "as_two_stage", "data_preprocessor", "backbone",
        "neck", "encoder", "decoder", "positional_encoding", "bbox_head",
    )  # fmt: skip
    return {name: new[name] for name in dict.fromkeys((*first, *new)) if name in new}


_CROSS_FIRST = ("cross_attn", "norm", "self_attn", "norm", "ffn", "norm")


def _pixels(draft: Draft, old: dict[str, Any], path: str) -> dict[str, Any]:
    """A decoder of pixels, with an encoder in it."""
    new = dict(old)
    if "transformerlayers" in (old.get("encoder") or {}):
        new["encoder"] = stack(draft, old["encoder"], f"{path}.encoder", f"{path}.encoder", (_ENCODING,))
    return _positions(new)


def _segments(draft: Draft, old: dict[str, Any], path: str) -> dict[str, Any]:
    """A head of masks, with a decoder of queries in it."""
    new = dict(old)
    if "transformerlayers" in (old.get("transformer_decoder") or {}):
        place = f"{path}.transformer_decoder"
        new["transformer_decoder"] = stack(draft, old["transformer_decoder"], place, place, (_CROSS_FIRST, _SELF_FIRST))
    return _positions(new)


def _positions(new: dict[str, Any]) -> dict[str, Any]:
    if isinstance(new.get("positional_encoding"), dict):
        new["positional_encoding"] = untyped(new["positional_encoding"])
    return new


TRANSFORMERS: dict[str, Any] = {
    "DETR": _detr,
    "DeformableDETR": _deformable,
    "MSDeformAttnPixelDecoder": _pixels,
    "TransformerEncoderPixelDecoder": _pixels,
    "Mask2FormerHead": _segments,
    "MaskFormerHead": _segments,
}
