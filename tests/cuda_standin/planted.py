"""Errors of devices planted in the port; ``python -m tests.cuda_standin.planted`` tells in JSON what is said of each.

A process of its own, like :mod:`.snippets`. None of the errors shows on a CPU.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any
from unittest.mock import patch

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tools.cuda_standin import device, subject
from tools.cuda_standin.refusals import RefusedError

HERE, HEAD = "tests/cuda_standin/planted.py", "ddq_port/models/ddq_detr/head.py"
SIZES, OBJECTS = ((64, 96), (96, 64)), (3, 5)


def _mask(right: Callable, survivors: Tensor) -> Tensor:
    """Make a mask without a device."""
    number = survivors.shape[1]
    return torch.ones(len(survivors), number, number, dtype=torch.bool) & right(survivors)


def _order(right: Callable, scores: Tensor, max_num: int) -> Tensor:
    """Make indices without a device."""
    order = right(scores, max_num)
    return order + 0 * torch.arange(len(order))


def _matched(right: Callable, cost: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """Leave indices on the CPU and compute with them."""
    rows, cols = right(cost, copies)
    return rows, cols.cpu() + 0 * rows


def _array(right: Callable, cost: Tensor, copies: int) -> tuple[Tensor, Tensor]:
    """Give numpy what is on the GPU."""
    rows, cols = linear_sum_assignment(cost.repeat_interleave(copies, dim=1).numpy())
    return torch.from_numpy(rows).to(cost.device), torch.from_numpy(cols).to(cost.device) // copies


def _size(right: Callable, meta: dict, like: Tensor) -> Tensor:
    """Make the size of an image on the CPU."""
    height, width = meta["img_shape"]
    return torch.tensor([[width, height, width, height]], dtype=like.dtype)


class _Scaled(torch.autograd.Function):
    """Do nothing; in backward multiply by ones on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * torch.ones(grad.shape)


@dataclass(frozen=True)
class Planted:
    """An error.

    Attributes:
        module: of ``ddq_port.models.ddq_detr``.
        function: that is replaced there.
        error: given the right function and its arguments.
        place: file that must be named.
        operation: that must be named.
    """

    module: str
    function: str
    error: Callable
    place: str
    operation: str


PLANTED = {
    "mask without device": Planted("decoder", "attention_block", _mask, HERE, "bitwise_and"),
    "arange without device": Planted("detector", "select_dense", _order, HERE, "add"),
    "matched indices left on the CPU": Planted("assigner", "match_with_copies", _matched, HERE, "add"),
    "array of a cost on the GPU": Planted("assigner", "match_with_copies", _array, HERE, "numpy()"),
    "size of an image on the CPU": Planted("head", "image_size", _size, HEAD, "mul"),
    "in backward only": Planted("head", "to_float32", lambda right, x: _Scaled.apply(x), HERE, "mul"),
}


def main() -> None:
    """Plant one after the other in one model."""
    device.install()
    with redirect_stdout(StringIO()):  # mmengine's messages
        code = subject.code_of(subject.OURS, "tiny_4scale", None, None)
        built = subject.build(subject.OURS, "tiny_4scale", code, "cuda")
        told = {name: _told(built, planted) for name, planted in PLANTED.items()}
    print(json.dumps(told))


def _told(built: subject.Subject, planted: Planted) -> str:
    """Compute losses and gradients; return what is refused, nothing if nothing is."""
    owner = f"ddq_port.models.ddq_detr.{planted.module}"
    right = getattr(__import__(owner, fromlist=["_"]), planted.function)
    stages = subject.train(built, SIZES, OBJECTS)
    try:
        with patch(f"{owner}.{planted.function}", lambda *args: planted.error(right, *args)):
            next(stages), next(stages)
    except RefusedError as error:
        return str(error)
    return ""


if __name__ == "__main__":
    main()
