"""Inference on made-up predictions, in which every class wins: what a side makes of logits and boxes is its label mapping.

A wrong label shows only for classes that are detected, and under weights of a user that may be few. So inference runs
once more, with made-up class logits and boxes in place of those that the model's last module gives. What comes behind
it is the side's own: which queries count, scores, labels, boxes of the original image.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from math import gcd
from typing import Any, Callable, Collection, Dict, Iterator, List, Sequence, Set

import torch
from torch import nn

from ..recording.values import changed, flatten

PHASE, NAME = "labels", "labels"
_MOST_RUNS = 12


def run(predict: Callable[[], Sequence[Dict[str, torch.Tensor]]], module: nn.Module) -> List[Dict[str, torch.Tensor]]:
    """Return the detections of inference with made-up predictions, image by image.

    Where an image gives fewer detections than there are classes, inference is run again with the classes that were not
    among them first, as long as that shows more classes.

    Args:
        predict: runs inference and returns ``labels``, ``scores``, ``bboxes`` of each image.
        module: gives logits and boxes, or is the convolution that gives the logits of a level [bs, classes, h, w];
            nothing is returned if it gives something else.
    """
    found: List[Dict[str, torch.Tensor]] = []
    seen: Set[int] = set()
    for _ in range(_MOST_RUNS):
        shapes: List[torch.Size] = []
        with _in_place_of(module, shapes, seen):
            results = predict()
        if not shapes:
            return []
        found += results
        labels = {label for result in results for label in result["labels"].reshape(-1).tolist()}
        more = labels - seen
        seen |= labels
        if not more or len(seen) >= shapes[0][-1]:
            break
    return found


@contextmanager
def _in_place_of(module: nn.Module, shapes: List[torch.Size], seen: Set[int]) -> Iterator[None]:
    """Put made-up logits and boxes in place of the first two tensors of what ``module`` gives, in whatever holds them.

    Of a convolution, which gives the logits of a level and no boxes, the logits alone are replaced.

    Args:
        module: whose results are replaced. Results that are not logits and boxes stay as they are.
        shapes: gets the shape of the logits.
        seen: classes that need not win.
    """
    forward = module.forward

    def replaced(*args: Any, **kwargs: Any) -> Any:
        result = forward(*args, **kwargs)
        if isinstance(module, nn.Conv2d):
            points = result.flatten(2).transpose(1, 2)  # [bs, h * w, classes]
            shapes.append(points.shape)
            return logits(points, seen).transpose(1, 2).reshape(result.shape)  # [bs, classes, h, w]
        first = dict(islice(flatten(result), 2))
        if not _is_predictions(*first.values()):
            return result
        of_logits, of_boxes = first
        shapes.append(first[of_logits].shape)
        made = {of_logits: logits(first[of_logits], seen), of_boxes: boxes(first[of_boxes])}
        return changed(result, lambda slot, tensor: made.get(slot))

    module.forward = replaced
    try:
        yield
    finally:
        module.forward = forward


def _is_predictions(*first: torch.Tensor) -> bool:
    return (
        len(first) == 2
        and all(tensor.dim() >= 3 for tensor in first)
        and first[1].size(-1) == 4
        and first[0].shape[:-1] == first[1].shape[:-1]
    )


def logits(like: torch.Tensor, seen: Collection[int] = ()) -> torch.Tensor:
    """Make logits in which each class wins for some queries, no two equal in an image.

    Queries are ranked in an order of their own, which starts elsewhere in every image. The classes win in turn, rank by
    rank, from 4 down to 1; what is left of the classes has from 0 down to -4. Every number is a single division and a
    single addition of whole numbers, so that it has the same bits everywhere.

    Args:
        like: [..., bs, n, classes].
        seen: classes that win last, where it can be chosen; the others' turns are spread over the images.
    """
    bs, queries, classes = like.shape[-3:]
    number = torch.arange(queries)
    unseen = [label for label in range(classes) if label not in seen] or list(range(classes))
    made = []
    for image in range(bs):
        rank = (number * _coprime(queries) + image * 5) % queries  # [n]
        first = unseen[image * len(unseen) // bs]
        # 0 for the class that wins, then as many classes as there are between them, in turn
        behind = (torch.arange(classes)[None] - rank[:, None] - first) % classes  # [n, classes]
        wins = 4.0 - 3.0 * rank[:, None].double() / queries
        place = (behind - 1) * queries + rank[:, None]
        loses = 0.0 - 4.0 * place.double() / max(queries * (classes - 1), 1)
        made.append(torch.where(behind == 0, wins, loses))
    return torch.stack(made).float().to(like.device, like.dtype).expand(like.shape).contiguous()


def boxes(like: torch.Tensor) -> torch.Tensor:
    """Make boxes, no two alike in a batch; some reach over the image's border.

    Args:
        like: [..., bs, n, 4].
    """
    bs, queries = like.shape[-3:-1]
    count = bs * queries
    number = torch.arange(count, dtype=torch.float64).reshape(bs, queries)
    step = _coprime(count)
    columns = ((number * step) % count / count, (number * step * step) % count / count)
    sizes = (0.05 + 0.3 * number / count, 0.35 - 0.25 * number / count)
    made = torch.stack([*columns, *sizes], dim=-1).float()
    return made.to(like.device, like.dtype).expand(like.shape).contiguous()


def _coprime(count: int) -> int:
    """Return a whole number without a common divisor with ``count``, so that its multiples go through all rests."""
    return next(step for step in range(max(count * 5 // 13, 1), count * 5 // 13 + count + 2) if gcd(step, count) == 1)

