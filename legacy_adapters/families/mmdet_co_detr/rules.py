"""The rules from the layout of MMDetection's `projects/CO-DETR` to this toolkit's, where the backbone is a Swin Transformer.

With a ResNet the two have the same names. Swin's are those of MMDetection there, those of its authors here. Of four tokens
that are merged, MMDetection has the four numbers of a channel side by side, the authors the channels of a token. To read
beside a state_dict listing.
"""

from __future__ import annotations

from converters.rules.mapping import Keep, Permute, Rename, Rule
from legacy_adapters.family import Variant
from legacy_adapters.targets.co_detr.rules import HEADS

_STAGES = "backbone.stages", "backbone.layers"
_BLOCK = tuple(f"{stages}.*.blocks.*" for stages in _STAGES)
_BLOCKS = tuple(
    Rename(f"{_BLOCK[0]}.{there}", f"{_BLOCK[1]}.{here}")
    for there, here in (
        ("norm1.*", "norm1.*"),
        ("attn.w_msa.**", "attn.**"),
        ("norm2.*", "norm2.*"),
        ("ffn.layers.0.0.*", "mlp.fc1.*"),
        ("ffn.layers.1.*", "mlp.fc2.*"),
    )
)
#: Place of a token among the four that are merged, down the columns -> its place along the rows.
_ALONG_ROWS = (0, 2, 1, 3)


def rules(variant: Variant) -> tuple[Rule, ...]:
    """Return the rules of a variant."""
    width = variant.settings["embed_dims"]
    return (
        Rename("backbone.patch_embed.projection.*", "backbone.patch_embed.proj.*"),
        Keep("backbone.patch_embed.norm.*"),
        *_BLOCKS,
        *(rule for stage in range(3) for rule in _merging(stage, width * 2**stage)),
        *(Keep(f"backbone.norm{stage}.*") for stage in range(4)),
        *HEADS,
        Keep("query_head.dn_generator.label_embedding.weight"),
    )


def _merging(stage: int, width: int) -> tuple[Rule, ...]:
    """Return the rules of what leads from a stage to the next one.

    Args:
        stage: its number.
        width: of its tokens.
    """
    there, here = (f"{stages}.{stage}.downsample" for stages in _STAGES)
    index = tuple(channel * 4 + place for place in _ALONG_ROWS for channel in range(width))
    return (
        *(Permute(f"{there}.norm.{leaf}", f"{here}.norm.{leaf}", index=index, axis=0) for leaf in ("weight", "bias")),
        Permute(f"{there}.reduction.weight", f"{here}.reduction.weight", index=index, axis=1),
    )
