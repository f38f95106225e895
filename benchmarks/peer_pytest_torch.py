"""What pytest-torch says of two models: mmdet's DDQ-DETR and the port of it with a planted error.

It needs both models in one process. It is given what it asks for: the same weights, inputs and seeds, and a map of
module names. It is asked twice, for the first layer that differs (``localize_divergence``) and for the outputs
(``assert_matches_reference``). Of a setting with losses, detections and losses are both outputs of the pair that it is
given, so that it can see everything that a forward pass in either mode computes.
"""

from __future__ import annotations

import os
import pickle
import resource
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pytest_torch import assert_matches_reference, localize_divergence
from safetensors.torch import load_file
from torch import Tensor, nn

from legacy_adapters import worker
from legacy_adapters.family import SIDES
from legacy_adapters.inputs import PREDICT, TRAIN, of_phase, placed
from legacy_adapters.loading import load_adapter
from legacy_adapters.named_inputs import NamedInputs
from legacy_adapters.numerics.seeding import seed_all
from parity.comparing.pairing import LEGACY, NEW
from parity.sides.sides import Sides
from tests.faults.fault import WEIGHTS, Fault, Rewrite

_MODEL = "detector"
_ROOT = "<root>"
_LIMIT = 300  # seconds


@dataclass(frozen=True)
class Told:
    """What it said.

    Attributes:
        layers: (name, inputs differ) of every layer that differs, in its order; names of the first model, ``""`` is it.
        outputs: the message about outputs; empty if these are close enough.
        crash: the error that ended it.
        seconds: of the processor, to build both models, to run and to compare them.
        memory: most bytes of its process.
    """

    layers: tuple[tuple[str, bool], ...]
    outputs: str
    crash: str
    seconds: float
    memory: int

    @property
    def detected(self) -> bool:
        """Tell whether it found anything."""
        return bool(self.layers or self.outputs or self.crash)

    @property
    def places(self) -> tuple[str, ...]:
        """The layers that it may be said to name: the first, and the first that is given the same inputs."""
        same = [name for name, inputs_differ in self.layers if not inputs_differ]
        return tuple(dict.fromkeys([name for name, _ in self.layers[:1]] + same[:1]))


class _Both(nn.Module):
    """A detector that infers and computes losses in one call.

    Args:
        model: the detector.
        adapter: how it is run.
        seed: of both.
    """

    def __init__(self, model: nn.Module, adapter: Any, seed: int) -> None:
        super().__init__()
        self.add_module(_MODEL, model)
        self._adapter, self._seed = adapter, seed
        self.plant = lambda: None

    def named_modules(self, *args: Any, **kwargs: Any) -> Any:
        """Plant what is to be planted when the turn of this model comes: the other one may share code with it."""
        plant, self.plant = self.plant, lambda: None
        plant()
        return super().named_modules(*args, **kwargs)

    def forward(self, predict: Mapping[str, Tensor], train: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
        """Return detections and, of a batch to train on, losses."""
        model, adapter = getattr(self, _MODEL), self._adapter
        model.eval()
        seed_all(self._seed, PREDICT)
        results = adapter.predict(model, adapter.batch(NamedInputs(PREDICT, dict(predict))))
        found = dict(detections=[dict(result) for result in results])
        if train is None:
            return found
        model.train()
        seed_all(self._seed, TRAIN)
        terms, total = adapter.losses(model, adapter.batch(NamedInputs(TRAIN, dict(train))))
        return dict(found, losses=dict(terms), total=total)


class PytestTorch:
    """Asks pytest-torch about faults, each in a fork of this process.

    Args:
        sides: with weights and inputs written.
    """

    def __init__(self, sides: Sides) -> None:
        self._sides = sides
        family, begin = sides.task.port.family, time.process_time()
        self._adapters = {side: load_adapter(str(family.side(side).adapter)) for side in SIDES}
        self._clean: dict[float | None, Told] = {}
        # built once, and inherited by the forks
        self._old, self._new = self._pair(LEGACY), self._pair(NEW)
        self._built_in = time.process_time() - begin
        with torch.inference_mode():
            self._expected = self._old(**self._inputs())

    def see(self, fault: Fault | Rewrite, tolerance: float | None) -> Told:
        """Return what it says of a fault beyond what it says of the clean pair.

        Args:
            fault: that is planted.
            tolerance: absolute and relative; None for its own.
        """
        told, known = self._in_fork(fault, tolerance), {name for name, _ in self.clean(tolerance).layers}
        return replace(told, layers=tuple(layer for layer in told.layers if layer[0] not in known))

    def clean(self, tolerance: float | None) -> Told:
        """Return what it says of the clean pair."""
        if tolerance not in self._clean:
            self._clean[tolerance] = self._in_fork(None, tolerance)
        return self._clean[tolerance]

    def _in_fork(self, fault: Fault | Rewrite | None, tolerance: float | None) -> Told:
        return _in_fork(lambda: self._told(fault, tolerance))

    def _told(self, fault: Fault | Rewrite | None, tolerance: float | None) -> Told:
        begin = time.process_time()
        try:
            layers, outputs, crash = *self._compared(fault, tolerance), ""
        except Exception as error:  # it compares nothing then; a planted error that crashes is seen nevertheless
            layers, outputs, crash = (), "", f"{type(error).__name__}: {error}"
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return Told(layers, outputs, crash, self._built_in + time.process_time() - begin, memory)

    def _compared(self, fault: Fault | Rewrite | None, tolerance: float | None) -> tuple[tuple, str]:
        old, new, inputs = self._old, self._new, self._inputs()
        if fault is not None:
            new.plant = lambda: self._plant(fault, new)
        bounds = dict(rtol=tolerance, atol=tolerance)
        found = localize_divergence(old, new, inputs, module_map=self._map(old), leaf_only=False, **bounds)
        layers = tuple((_plain(layer.name), layer.inputs_diverged) for layer in found.layers if layer.diverged)
        try:
            assert_matches_reference(new, self._expected, inputs, **bounds)
            return layers, ""
        except AssertionError as error:
            return layers, str(error)

    def _pair(self, side: str) -> _Both:
        adapter, task = self._adapters[side], self._sides.task
        model = adapter.build(dict(task.port.variant.options(side)), "cpu")
        _load(model, self._weights(side))
        return _Both(model, adapter, task.seed)

    def _weights(self, side: str) -> dict[str, Tensor]:
        return load_file(str(Path(self._sides.folder) / f"{side}.weights.safetensors"))

    def _plant(self, fault: Fault | Rewrite, new: _Both) -> None:
        model = getattr(new, _MODEL)
        if fault.place == WEIGHTS:
            weights = self._weights(NEW)
            fault.apply(weights)
            _load(model, weights)
        else:
            fault.apply(model)

    def _inputs(self) -> dict[str, dict[str, Tensor]]:
        given = load_file(str(Path(self._sides.folder) / "inputs.safetensors"))
        phases = (PREDICT, TRAIN) if "loss" in self._sides.task.checks else (PREDICT,)
        return {phase: placed(of_phase(given, phase), "cpu", torch.float32) for phase in phases}

    def _map(self, old: nn.Module) -> dict[str, str]:
        """Return the names that modules have on the new side."""
        mapping, before = self._sides.task.port.mapping, f"{_MODEL}."
        names = [name.removeprefix(before) for name, _ in old.named_modules() if name.startswith(before)]
        return {before + name: before + (mapping.map_module(name) or name) for name in names}


def _load(model: nn.Module, weights: dict[str, Tensor]) -> None:
    worker._load_weights(model, weights)


def _plain(name: str) -> str:
    """Return the name of a layer as the detector has it; the detector, and what holds it, have an empty one."""
    return "" if name in (_ROOT, _MODEL) else name.removeprefix(f"{_MODEL}.")


def _in_fork(work: Any) -> Told:
    """Do ``work`` in a fork of this process, so that a planted fault is gone afterwards."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(read)
            signal.alarm(_LIMIT)
            with os.fdopen(write, "wb") as pipe:
                pickle.dump(work(), pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        content = pipe.read()
    os.waitpid(child, 0)
    return pickle.loads(content) if content else Told((), "", "its process ended without a word", 0.0, 0)
