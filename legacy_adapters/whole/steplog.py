"""What a whole training did at each step: data, learning rates, losses, norm of the gradient, weights.

A file with a JSON object a line. Numbers are exact (``float.hex``), tensors are digests, so that two sides can be
compared bit by bit and the first thing that differs names the cause.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        step: counted from 1.
        images: ids of the batch, in its order.
        pixels: digest of the images as the model is given them, before it normalises them.
        objects: digest of boxes and labels.
        rates: all learning rates that the optimizer had in this step, each once, ascending; ``float.hex``.
        before: digest of the weights that the step began with, see :func:`digest_of_weights`.
        terms: loss term -> value, ``float.hex``.
        total: sum of the terms as the code base logs it; None if it does not.
        norm: of the gradient before clipping; None if it is not clipped.
        after: digest of the weights that it ended with; None where that is not computed.
    """

    step: int
    images: Tuple[int, ...]
    pixels: str
    objects: str
    rates: Tuple[str, ...]
    before: Optional[str]
    terms: Dict[str, str]
    total: Optional[str]
    norm: Optional[str]
    after: Optional[str]


class StepLog:
    """Append steps to a file.

    Args:
        path: of the file.
        done: steps that a training which goes on has behind it; later ones in the file are dropped.
    """

    def __init__(self, path: str, done: int) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= done]
        temporary = "{}.{}.tmp".format(path, os.getpid())
        with open(temporary, "w", encoding="utf-8") as file:
            file.writelines(kept)
        os.replace(temporary, path)
        self._file = open(path, "a", encoding="utf-8", buffering=1)  # a kill loses no whole line

    def add(self, step: Step) -> None:
        """Append a step."""
        self._file.write(json.dumps(asdict(step), sort_keys=True) + "\n")

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(path: str) -> List[Step]:
    """Return the steps of a file, an incomplete last line left out; none if there is no file."""
    steps = []
    for line in _lines(path):
        fields = json.loads(line)
        fields.update(images=tuple(fields["images"]), rates=tuple(fields["rates"]))
        steps.append(Step(**fields))
    return steps


def count(path: str) -> int:
    """Return the number of the last step in a file, 0 if there is none."""
    lines = _lines(path)
    return json.loads(lines[-1])["step"] if lines else 0


def exact(value: Any) -> str:
    """Return a number, or a tensor of one, with all its bits."""
    return float(value).hex()


def exact_all(values: Iterable[float]) -> Tuple[str, ...]:
    """Return numbers with all their bits, each once, ascending."""
    return tuple(value.hex() for value in sorted({float(value) for value in values}))


def digest(tensors: Sequence[Any]) -> str:
    """Return a digest of tensors: of their shapes and bytes, in this order."""
    whole = hashlib.sha256()
    for tensor in tensors:
        array = tensor.detach().cpu().contiguous().numpy()
        whole.update(repr((array.dtype.str, array.shape)).encode())
        whole.update(array.tobytes())
    return whole.hexdigest()[:24]


def digest_of_weights(model: Any) -> str:
    """Return a digest of a model's parameters and buffers that does not depend on their names or order.

    A tensor that stands under several names counts once, and a buffer that no checkpoint has, as of a preprocessor, not.
    """
    saved = set(model.state_dict())
    tensors = [*model.parameters(), *(buffer for name, buffer in model.named_buffers() if name in saved)]
    return hashlib.sha256("".join(sorted(digest([tensor]) for tensor in tensors)).encode()).hexdigest()[:24]


def _lines(path: str) -> List[str]:
    if not os.path.isfile(path):
        return []
    with open(path, encoding="utf-8") as file:
        return [line for line in file if line.endswith("\n")]
