"""One side of a comparison on the stand-in: inference in all its ways, losses, backward, a step of its training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from converters.rules.ports import port
from ddq_port.ops.standin import StandinFinder
from legacy_adapters import worker
from legacy_adapters.inputs import PREDICT, TRAIN, Batch
from legacy_adapters.loading import load_adapter
from legacy_adapters.numerics.seeding import seed_all
from legacy_adapters.origin import PlainError
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.prepare import seeded_batch
from parity.sides.settings import Sources
from parity.sides.sides import Code, both_layouts, legacy_code, new_code, num_classes

from .device import StandIn
from .waits import Waits

OURS = "ddq_port"
#: Layouts and weights of the new side are the same under every family.
_FAMILY_OF_OURS = "mmdet_ddq"
LOSS, BACKWARD, STEP = "loss", "backward", "training step"


@dataclass(frozen=True)
class Subject:
    """A detector with seeded weights on a device.

    Attributes:
        adapter: runs it.
        model: with its weights.
        training: its optimizer and schedules, made before the model runs; None where its config has none.
        device: ``cuda`` of the stand-in, or ``cpu``.
        classes: how many it tells apart.
    """

    adapter: ModuleType
    model: torch.nn.Module
    training: Any
    device: str
    classes: int


@dataclass(frozen=True)
class Stage:
    """What was seen of one stage.

    Attributes:
        name: of the stage.
        waits: for the GPU.
        values: what it computed, on the CPU.
    """

    name: str
    waits: Waits
    values: dict[str, Tensor]


def code_of(side: str, variant: str, legacy_repo: Path | None, adapter: Path | None) -> Code:
    """Tell what runs a side: ``ddq_port`` or a legacy family; ``adapter`` takes the place of the port's own."""
    if side == OURS:
        return new_code(port(_FAMILY_OF_OURS, variant), Sources(new_adapter=adapter))
    return legacy_code(port(side, variant), Sources(legacy_repo))


def build(side: str, variant: str, code: Code, device: str) -> Subject:
    """Build the model of a variant with seeded weights and put it on a device."""
    of = port(_FAMILY_OF_OURS if side == OURS else side, variant)
    if side != OURS:  # legacy code runs with the operators that a comparison gives it, none of the port's
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, StandinFinder)]
    adapter = load_adapter(str(code.adapter))
    seed_all(0, "build")
    model = adapter.build(code.options, device)
    worker._load_weights(model, dict(both_layouts(of, 0, None)[NEW if side == OURS else LEGACY]))
    with _on(device, Waits()):
        model.to(device)
        training = _training(adapter, model, code)
    return Subject(adapter, model, training, device, num_classes(of))


def _training(adapter: ModuleType, model: torch.nn.Module, code: Code) -> Any:
    try:
        return adapter.training(model, code.options, None)
    except PlainError:  # its config has no optimizer
        return None


def infer(subject: Subject, sizes: tuple[tuple[int, int], ...], all_ways: bool = True) -> Iterator[Stage]:
    """Run inference, then the other ways of it that the adapter names; ``sizes`` are (h, w) of each image."""
    ways = {PREDICT: lambda batch: subject.adapter.predict(subject.model, batch)}
    ways |= subject.adapter.variants(subject.model) if all_ways else {}
    subject.model.eval()
    for name, run in ways.items():
        with torch.no_grad(), _stage(subject, name, sizes, ()) as (batch, waits, values):
            results = run(batch)
            values |= {f"{i}.{key}": value for i, result in enumerate(results) for key, value in _items(result)}
        yield Stage(name, waits, values)


def lose(subject: Subject, sizes: tuple[tuple[int, int], ...], objects: tuple[int, ...]) -> Stage:
    """Compute the losses of images with so many objects each; with a graph, unless torch is told to make none."""
    subject.model.train()
    with _stage(subject, LOSS, sizes, objects) as (batch, waits, values):
        terms, total = subject.adapter.losses(subject.model, batch)
        values |= {**{name: value for name, value in _items(terms)}, "total": total}
    return Stage(LOSS, waits, values)


def train(subject: Subject, sizes: tuple[tuple[int, int], ...], objects: tuple[int, ...]) -> Iterator[Stage]:
    """Compute losses and gradients; then take a step of the training as the side's own code does."""
    loss = lose(subject, sizes, objects)
    yield loss
    waits = Waits()
    with _on(subject.device, waits):
        loss.values["total"].backward()
    yield Stage(BACKWARD, waits, {n: p.grad for n, p in subject.model.named_parameters() if p.grad is not None})
    if subject.training is None:
        return
    with _stage(subject, STEP, sizes, objects) as (batch, waits, values):
        subject.training.optimizer.zero_grad()
        with subject.training.context():
            _, total = subject.adapter.losses(subject.model, batch)
        subject.training.update(total)
        subject.training.advance(False)
        values |= subject.model.state_dict()
    yield Stage(STEP, waits, values)


@contextmanager
def _stage(
    subject: Subject, name: str, sizes: tuple[tuple[int, int], ...], objects: tuple[int, ...]
) -> Iterator[tuple[Batch, Waits, dict[str, Tensor]]]:
    """Give a batch on the subject's device, what counts waits, and a dict for what is computed."""
    tensors = seeded_batch(sizes, 0, subject.classes, objects or None).to_tensors()
    with _on(subject.device, Waits()):
        batch = Batch.from_tensors(tensors, subject.device, torch.float32)
    seed_all(0, TRAIN if objects else name)
    waits = Waits()
    with _on(subject.device, waits):
        yield batch, waits, {}


def _on(device: str, waits: Waits) -> Any:
    return StandIn(waits) if device != "cpu" else nullcontext()


def _items(values: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield name and tensor of whatever holds tensors."""
    if isinstance(values, Tensor):
        yield "", values
    elif isinstance(values, (dict, list, tuple)):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            for name, tensor in _items(value):
                yield f"{key}.{name}".rstrip("."), tensor
