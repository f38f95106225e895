"""Short pieces of code on the stand-in; ``python -m tests.cuda_standin.snippets`` tells in JSON what came of each.

A process of its own, for the stand-in makes it believe that it has a GPU. Each piece is given the name of a device.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ddq_port.ops.nms import batched_nms_keep
from tools.cuda_standin import device as standin
from tools.cuda_standin.refusals import RefusedError
from tools.cuda_standin.waits import MASK, TO_CPU, TO_GPU, Waits


def numbers(device: str, *shape: int) -> Tensor:
    """Return 0, 1, 2 ... in a shape, [4] by default."""
    shape = shape or (4,)
    return torch.arange(float(np.prod(shape)), device=device).view(shape)


class _Doubling(torch.autograd.Function):
    """Twice the input; in backward the factor is made where the gradient is, or on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: str | None) -> Tensor:
        ctx.where = where
        return 2 * x

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * torch.full(grad.shape, 2.0, device=ctx.where or grad.device), None


def _gradient(x: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    x.requires_grad_()
    of(x).sum().backward()
    return x.grad


def _written(x: Tensor, index: Any, value: Any) -> Tensor:
    x[index] = value
    return x


def _row_of_view(d: str) -> Tensor:
    x = numbers(d, 3, 4)
    row = x[1]
    row += 10
    return x


def _trained(d: str) -> Tensor:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.1), nn.Flatten(), nn.Linear(16, 3)
    )
    model.to(d)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        loss = F.cross_entropy(model(numbers(d, 2, 2, 4, 4)), torch.tensor([0, 2], device=d))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()
    return torch.cat([value.double().flatten() for value in model.state_dict().values()])


def _without_autocast(d: str) -> Tensor:
    with torch.autocast(d, enabled=False):
        return numbers(d, 2, 2) @ numbers(d, 2, 2)


def _kept(d: str) -> Tensor:
    """Keep boxes of more than two blocks of a GPU, among them a chain in which each overlaps the next too much."""
    chain = torch.arange(40.0)[:, None] * torch.tensor([1.0, 0, 1, 0]) + torch.tensor([0.0, 0, 10, 10])
    corners = torch.rand(2500, 2) * 200
    boxes = torch.cat([chain, torch.cat([corners, corners + 5 + 30 * torch.rand(2500, 2)], 1)]).to(d)
    return batched_nms_keep(boxes, torch.linspace(1, 0, len(boxes)).to(d), 0.7)


def _sampled(d: str) -> Tensor:
    return F.grid_sample(numbers(d, 1, 1, 4, 4), numbers(d, 1, 2, 2, 2) / 8, align_corners=False)


#: Code that is right: what it computes must have the bits it has on the CPU.
RIGHT: dict[str, Callable[[str], Any]] = {
    "index on the CPU": lambda d: numbers(d)[torch.tensor([2, 0])],
    "written by an index on the CPU": lambda d: _written(numbers(d), torch.tensor([2, 0]), 7.0),
    "index in a list": lambda d: numbers(d)[[2, 0]],
    "indices in lists": lambda d: _written(numbers(d, 2, 3), ([0, 1], [2, 0]), 7.0)[:, [2, 0]],
    "copied from the CPU": lambda d: torch.zeros(4, device=d).copy_(torch.arange(4.0)),
    "number on the CPU": lambda d: numbers(d) * torch.tensor(2.0) + torch.tensor(1),
    "compared in place with a number on the CPU": lambda d: numbers(d).gt_(torch.tensor(1.5)),
    "number on the CPU where a mask says so": lambda d: torch.where(numbers(d) > 1, numbers(d), torch.tensor(0.0)),
    "number written by a mask": lambda d: _written(numbers(d), numbers(d) > 1, 5.0),
    "values written by a mask": lambda d: _written(numbers(d), numbers(d) > 1, numbers(d)[:2]),
    "number written to a slice": lambda d: _written(numbers(d), slice(1, 3), torch.tensor(9.0)),
    "view changed in place": _row_of_view,
    "result written to a given tensor": lambda d: torch.add(numbers(d), 1, out=torch.empty(4, device=d)),
    "array of a copy": lambda d: torch.from_numpy(numbers(d).cpu().numpy()).to(d),
    "array by force": lambda d: torch.from_numpy(numbers(d).numpy(force=True)).to(d),
    "numbers for the host": lambda d: torch.tensor([int(numbers(d)[1]), *numbers(d).tolist()], device=d),
    "made beside another": lambda d: torch.stack([numbers(d), numbers(d).new_tensor([1, 2, 3, 4.5]),
                                                  numbers(d).new_zeros(4), torch.full_like(numbers(d), 2)]),
    "made of an array": lambda d: torch.as_tensor(np.arange(4.0), device=d) + torch.asarray([1.0] * 4, device=d),
    "made inside of torch": lambda d: F.one_hot(numbers(d).long(), 5).float().cumsum(0),
    "moved beside another": lambda d: torch.arange(4).to(numbers(d)) + torch.arange(4).type_as(numbers(d)),
    "other types": lambda d: numbers(d).double().to(torch.float16).to(d, torch.float32),
    "copied deeply": lambda d: copy.deepcopy(numbers(d)) + 1,
    "drawn": lambda d: torch.rand(4, device=d) + torch.randn_like(numbers(d)),
    "upsampled": lambda d: F.interpolate(numbers(d, 1, 1, 4, 4), scale_factor=2.0, mode="nearest"),
    "sampled": _sampled,
    "NMS": _kept,
    "gradient of a function in Python": lambda d: _gradient(numbers(d), lambda x: _Doubling.apply(x, None)),
    "gradient of a mask": lambda d: _gradient(numbers(d), lambda x: x[x > 1] ** 2),
    "gradient computed again": lambda d: _gradient(numbers(d), lambda x: checkpoint(torch.sin, x, use_reentrant=False)),
    "autocast that is off": _without_autocast,
    "two training steps": _trained,
}  # fmt: skip


#: Code that CUDA refuses, and a part of the message: the operation.
WRONG: dict[str, tuple[Callable[[str], Any], str]] = {
    "arange without device": (lambda d: numbers(d) + torch.arange(4), "aten.add.Tensor mixes cuda:0 [4] with cpu [4]"),
    "mask without device": (lambda d: numbers(d).masked_fill(torch.zeros(4) > 0, 1.0), "aten.masked_fill"),
    "condition without device": (lambda d: torch.where(torch.zeros(4) > 0, numbers(d), 0.0), "aten.where"),
    "mask on the CPU written by a GPU index": (
        lambda d: _written(torch.zeros(4) > 0, torch.tensor([1], device=d), True), "aten.index_put_"),
    "tensor on the CPU with a GPU index": (lambda d: torch.arange(4)[numbers(d).long()], "aten.index"),
    "values on the CPU written by a mask": (
        lambda d: _written(numbers(d), numbers(d) > 1, torch.ones(2)), "aten.index_put_"),
    "matched indices in arithmetic": (
        lambda d: numbers(d).long() * 3 + torch.from_numpy(np.array([3, 1, 0, 2])), "aten.add"),
    "list made a tensor without device": (lambda d: numbers(d) * torch.tensor([1, 2, 3, 4.0]), "aten.mul"),
    "new tensor elsewhere": (lambda d: numbers(d) * numbers(d).new_tensor([1.0] * 4, device="cpu"), "aten.mul"),
    "numbers on the CPU joined": (lambda d: torch.stack([numbers(d)[0], torch.tensor(1.0)]), "aten.stack"),
    "joined": (lambda d: torch.cat([numbers(d), torch.ones(1)]), "aten.cat"),
    "product": (lambda d: numbers(d, 2, 2) @ torch.ones(2, 2), "aten.mm"),
    "embedding of labels on the CPU": (lambda d: F.embedding(torch.tensor([1]), numbers(d, 2, 2)), "aten.embedding"),
    "scattered by an index on the CPU": (lambda d: numbers(d).scatter(0, torch.tensor([1]), 7.0), "aten.scatter"),
    "sum on the CPU": (lambda d: torch.zeros(()).add_(numbers(d).sum()), "aten.add_"),
    "result on the CPU": (lambda d: torch.add(numbers(d), 1, out=torch.empty(4)), "aten.add.out"),
    "array": (lambda d: numbers(d).numpy(), "numpy() of cuda:0 [4]"),
    "array by numpy": (lambda d: np.asarray(numbers(d)), "numpy() of cuda:0 [4]"),
    "generator of the CPU": (
        lambda d: torch.rand(4, device=d, generator=torch.Generator()), "a generator of cpu"),
    "permutation by a generator of the CPU": (
        lambda d: torch.randperm(4, device=d, generator=torch.Generator()), "a generator of cpu"),
    "in backward": (lambda d: _gradient(numbers(d), lambda x: _Doubling.apply(x, "cpu")), "aten.mul"),
}  # fmt: skip


#: Code, and how often the host waits for it, by kind.
WAITING: dict[str, tuple[Callable[[str], Any], dict[str, int]]] = {
    "number": (lambda d: float(numbers(d)[1]), {"item": 1}),
    "condition": (lambda d: bool((numbers(d) > 1).any()), {"item": 1}),
    "number as an index": (lambda d: [1, 2, 3][numbers(d).long()[1]], {"item": 1}),
    "nonzero": (lambda d: (numbers(d) > 1).nonzero(), {"nonzero": 1}),
    "masked_select": (lambda d: numbers(d).masked_select(numbers(d) > 1), {"masked_select": 1}),
    "equal": (lambda d: torch.equal(numbers(d), numbers(d)), {"equal": 1}),
    "unique": (lambda d: numbers(d).unique(), {"unique": 1}),
    "bincount": (lambda d: numbers(d).long().bincount(), {"bincount": 1}),
    "repeats in a tensor": (lambda d: torch.repeat_interleave(numbers(d), numbers(d).long()), {"repeat_interleave": 1}),
    "repeats in a tensor of known sum": (
        lambda d: torch.repeat_interleave(numbers(d), numbers(d).long(), output_size=6), {}),
    "repeats as a number": (lambda d: numbers(d).repeat_interleave(2), {}),
    "read by a mask": (lambda d: numbers(d)[numbers(d) > 1], {MASK: 1}),
    "read by a mask, with gradient": (lambda d: _gradient(numbers(d), lambda x: x[x > 1]), {MASK: 2}),
    "number written by a mask": (lambda d: _written(numbers(d), numbers(d) > 1, 5.0), {}),
    "values written by a mask": (
        lambda d: _written(numbers(d), numbers(d) > 1, numbers(d)[:2]), {MASK: 1}),
    "read by an index": (lambda d: numbers(d)[numbers(d).long()], {}),
    "read by an index on the CPU": (lambda d: numbers(d)[torch.tensor([1])], {TO_GPU: 1}),
    "read by a list": (lambda d: numbers(d)[[1, 2]], {TO_GPU: 1}),
    "copy to the CPU": (lambda d: numbers(d).cpu(), {TO_CPU: 1}),
    "copied into a tensor of the CPU": (lambda d: torch.zeros(4).copy_(numbers(d)), {TO_CPU: 1}),
    "list": (lambda d: numbers(d).tolist(), {TO_CPU: 1}),
    "copy to the GPU": (lambda d: torch.tensor([1.0], device=d), {TO_GPU: 1}),
    "copy that is not waited for": (lambda d: torch.ones(4).to(d, non_blocking=True), {}),
    "copy to where it is": (lambda d: numbers(d).to(d).cuda(), {}),
    "made there": (lambda d: torch.zeros(4, device=d).new_ones(4) + numbers(d), {}),
    "on the CPU": (lambda d: (torch.ones(4).nonzero(), torch.ones(4)[torch.ones(4) > 0].sum().item()), {}),
}  # fmt: skip


def main() -> None:
    """Run all of them."""
    standin.install()
    print(json.dumps(dict(
        right={name: _difference(run) for name, run in RIGHT.items()},
        wrong={name: _refusal(run) for name, (run, _) in WRONG.items()},
        waiting={name: _waits(run) for name, (run, _) in WAITING.items()},
    )))  # fmt: skip


def _difference(run: Callable[[str], Tensor]) -> str:
    """Return what is wrong with the result on the stand-in, nothing if it has the bits it has on the CPU."""
    torch.manual_seed(0)
    expected = run("cpu")
    torch.manual_seed(0)
    try:
        with standin.StandIn():
            found = run("cuda")
    except RuntimeError as error:
        return str(error)
    if not isinstance(found, standin.CudaTensor):
        return f"the result is on {found.device}"
    return "" if torch.equal(found.held, expected) and found.dtype == expected.dtype else f"{found}, not {expected}"


def _refusal(run: Callable[[str], Any]) -> str:
    try:
        with standin.StandIn():
            run("cuda")
    except RefusedError as error:
        return str(error)
    return ""


def _waits(run: Callable[[str], Any]) -> dict[str, int]:
    waits = Waits()
    with standin.StandIn(waits):
        run("cuda")
    return waits.by_kind()


if __name__ == "__main__":
    main()
