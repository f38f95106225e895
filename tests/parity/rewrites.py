"""Run two small models as the worker does and judge what they recorded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from legacy_adapters.numerics.precision import computing_in
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.taps import Tap, installed, random_taps
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.comparing.compare import DERIVED, EXACT, Tolerance
from parity.comparing.evidence import TraceEvidence, spreads
from parity.traces.trace import Trace, decisions
from parity.verdict.verdict import Verdict, judge

from .synthetic import PROVENANCE, SAME_NAMES

DIM = 8
BOTH = (Tolerance(EXACT), Tolerance(DERIVED))

Make = Callable[[], nn.Module]
Taps = Callable[[nn.Module], list[Tap]]


def batch(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return the input [12, DIM] that every model gets."""
    return torch.randn(12, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)


def seeded(model: nn.Module) -> nn.Module:
    """Give weights that follow from their names, however the model is built."""
    for name, parameter in sorted(model.named_parameters()):
        generator = torch.Generator().manual_seed(sum(map(ord, name)))
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.5
    return model


def recorded(
    folder: Path, make: Make, dtype: str = "float32", replay: dict | None = None, taps: Taps = lambda model: []
) -> Trace:
    """Build, run inference, then forward and backward of the sum of the dict of losses that the model gives."""
    model = seeded(make()).to(getattr(torch, dtype))
    recorder = Recorder(TraceWriter(str(folder)), gradient_flow=True)
    recorder.attach(model)
    with recorder.in_phase("weights"):
        for name, tensor in model.state_dict().items():
            recorder.add("param", name, 0, tensor)
    x = batch(getattr(torch, dtype))
    with computing_in(dtype), installed(taps(model), recorder, replay):
        model.eval()
        torch.manual_seed(0)
        with torch.no_grad(), recorder.in_phase("predict", draws=True):
            recorder.add("tap", "result", 0, model(x))
        model.train()
        torch.manual_seed(0)
        with recorder.in_phase("train", draws=True):
            terms = model(x)
            for name, value in terms.items():
                recorder.add("loss", name, 0, value)
            sum(terms.values()).backward()
            for name, parameter in sorted(model.named_parameters()):
                if parameter.grad is not None:
                    recorder.add("grad", name, 0, parameter.grad)
    coverage = dict(recorder.coverage(), without_gradient=[], frozen=[])
    provenance = {**PROVENANCE, "checks": ["forward", "loss", "grad"], "gradient_flow": True, "dtype": dtype}
    recorder.writer.finish(provenance, coverage)
    return Trace.load(folder)


def random_only(model: nn.Module) -> list[Tap]:
    """Return the taps of random draws."""
    return list(random_taps())


def verdict_on(
    folder: Path, legacy: Make, new: Make, tolerance: Tolerance, taps: Taps = lambda model: []
) -> Verdict:
    """Judge the model that ``new`` makes against the one that ``legacy`` makes."""
    one = recorded(folder / "legacy", legacy, taps=taps)
    if tolerance.name == EXACT:
        return judge(one, recorded(folder / "new", new, taps=taps), SAME_NAMES, (), tolerance)
    bundle = decisions(one)
    two = recorded(folder / "new", new, replay=bundle, taps=taps)
    reference = recorded(folder / "legacy64", legacy, "float64", bundle, taps)
    again = recorded(folder / "new64", new, "float64", bundle, taps)
    evidence = TraceEvidence(one, reference, spreads([one], reference), two, again)
    return judge(one, two, SAME_NAMES, (), tolerance, evidence)
