"""Box proposals of the encoder's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .encoder import Tokens, token_places

#: A proposal of level i is 0.05 * 2 ** i of the image wide and high.
_SIZE = 0.05
#: All four numbers of a valid proposal lie between these.
_LOW, _HIGH = 0.01, 0.99


def token_boxes(tokens: Tokens) -> tuple[Tensor, Tensor]:
    """Return a box for each token, as mmdet's ``DeformableDETR.gen_encoder_output_proposals`` does.

    Returns:
        Logits of cxcywh [bs, num_tokens, 4], infinite where not valid, and [bs, num_tokens] bool, which are valid.
    """
    parts = []
    for level, shape in enumerate(tokens.shapes):
        x, y = token_places(shape, tokens.valid_ratios[:, level])
        size = torch.full_like(x, _SIZE * 2.0**level)
        parts.append(torch.stack([x, y, size, size], -1))  # [bs, h * w, 4]
    boxes = torch.cat(parts, 1)  # [bs, num_tokens, 4] cxcywh in [0, 1], more in padding
    valid = ((boxes > _LOW) & (boxes < _HIGH)).all(-1)
    if tokens.padding is not None:
        valid = valid & ~tokens.padding
    logits = torch.log(boxes / (1 - boxes))
    return logits.masked_fill(~valid[..., None], torch.inf), valid


def masked_memory(memory: Tensor, valid: Tensor) -> Tensor:
    """Return memory [bs, num_tokens, dim] with zeros where a token's box is not valid."""
    return memory.masked_fill(~valid[..., None], 0.0)
