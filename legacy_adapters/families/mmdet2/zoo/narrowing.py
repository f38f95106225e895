"""A model of MMDetection 2.x with narrow layers and otherwise as it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from converters.configs.zoo import NarrowError

#: All widths are divided by this.
FACTOR = 4
#: Beside what ends in `channels` or `channel`: names of widths.
_NAMES = ("embed_dims", "num_feats", "num_deconv_filters", "rfp_inplanes")
#: What is narrow already stays, as do the three colours of an image.
_LEAST = 16
#: Backbones whose width is one number -> its name and its default.
_BY_BASE = dict.fromkeys(
    ("ResNet", "ResNetV1d", "ResNeXt", "Res2Net", "DetectoRS_ResNet", "DetectoRS_ResNeXt", "TridentResNet"),
    ("base_channels", 64),
)
_BY_EMBEDDING = dict(
    SwinTransformer=("embed_dims", 96),
    PyramidVisionTransformer=("embed_dims", 64),
    PyramidVisionTransformerV2=("embed_dims", 64),
)
_BY_STAGES = ("HourglassNet", "HRNet")
_WIDTHS = {**_BY_BASE, **_BY_EMBEDDING}


#: What layers of transformers have by default, whose width follows no other setting.
_FFN = dict(
    type="FFN", embed_dims=256, feedforward_channels=1024, num_fcs=2, ffn_drop=0.0, act_cfg=dict(type="ReLU", inplace=True)
)  # fmt: skip


def spelled_out(model: Mapping[str, Any]) -> dict[str, Any]:
    """Return a model that says how wide its backbone and its layers of transformers are, be it as by default.

    Raises:
        NarrowError: if the width of its backbone is no setting.
    """
    kind = str((model.get("backbone") or {}).get("type"))
    if kind not in _WIDTHS and kind not in _BY_STAGES:
        raise NarrowError(f"`{kind}` has no setting of its width")
    return _with_defaults(model)


def _with_defaults(value: Any) -> Any:
    """Return a part of a model in which backbones, also those within a neck, and layers say how wide they are."""
    if isinstance(value, (list, tuple)):
        return type(value)(map(_with_defaults, value))
    if not isinstance(value, Mapping):
        return value
    new = {name: _with_defaults(item) for name, item in value.items()}
    if str(new.get("type")) in _WIDTHS:
        new.setdefault(*_WIDTHS[str(new["type"])])
    if "attn_cfgs" in new and "ffn_cfgs" not in new:
        # what stands beside it still decides, as it does over the default
        new["ffn_cfgs"] = dict(_FFN)
    return new


def narrowed(value: Any, name: str = "") -> Any:
    """Return a model, or a part of it, with a quarter of its widths, and of the groups of its group norms.

    Args:
        value: as :func:`spelled_out` gives it.
        name: under which a part stands in what holds it.
    """
    if isinstance(value, Mapping):
        return {key: narrowed(item, str(key)) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(narrowed(item, name) for item in value)
    is_width = name.endswith(("channels", "channel")) or name in _NAMES or name == "num_groups"
    is_number = isinstance(value, int) and not isinstance(value, bool)
    return value // FACTOR if is_width and is_number and value >= _LEAST and value % FACTOR == 0 else value
