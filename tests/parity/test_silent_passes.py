"""What other alignment tools let pass in silence must not pass here: on real modules, under every tolerance.

Each test plants what such a tool would overlook in one of two otherwise equal models, runs forward and backward of
both, and judges the two recordings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from converters.rules.mapping import Mapping, Rename
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.comparing.compare import DERIVED, EXACT, FIXED, Tolerance
from parity.comparing.evidence import TraceEvidence, spreads
from parity.comparing.pairing import LEGACY, NEW, Exclusion
from parity.traces.trace import Trace
from parity.verdict.verdict import INCOMPARABLE, MATCH, MISMATCH, Verdict, judge

from ..faults.planting import output
from .synthetic import PROVENANCE, SAME_NAMES

TOLERANCES = (Tolerance(EXACT), Tolerance(FIXED, rtol=1e-5, atol=1e-6), Tolerance(DERIVED))
DIM = 16

pytestmark = pytest.mark.parametrize("tolerance", TOLERANCES, ids=lambda tolerance: tolerance.name)


class Encoder(nn.Module):
    """Gives two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(DIM, DIM)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        memory = self.proj(x).relu()
        return memory, memory.cumsum(0)


class Head(nn.Module):
    """Gives a dict with a list and a dict in it."""

    def __init__(self) -> None:
        super().__init__()
        self.score, self.box = nn.Linear(DIM, 3), nn.Linear(DIM, 4)

    def forward(self, memory: Tensor, summed: Tensor) -> dict:
        return {"scores": [self.score(memory)], "boxes": {"centres": self.box(summed)}}


class Detector(nn.Module):
    """An encoder, a head, and the sum of what they give as its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.head = Encoder(), Head()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        memory, summed = self.encoder(x)
        out = self.head(memory, summed)
        return {"loss_cls": out["scores"][0].square().sum(), "loss_bbox": out["boxes"]["centres"].square().sum()}


def detector() -> Detector:
    """Return the same model every time."""
    torch.manual_seed(0)
    return Detector()


def recorded(folder: Path, model: Detector, dtype: torch.dtype, recording: bool) -> Trace:
    """Run ``model`` forward and backward as the worker does and load its trace."""
    model.to(dtype)
    recorder = Recorder(TraceWriter(str(folder)))
    recorder.attach(model)
    x = torch.randn(200, DIM, generator=torch.Generator().manual_seed(1)).to(dtype)
    with recorder.in_phase("weights" if recording else ""):
        for name, tensor in model.state_dict().items():
            recorder.add("param", name, 0, tensor)
    with recorder.in_phase("train" if recording else ""):
        terms = model(x)
        for name, value in terms.items():
            recorder.add("loss", name, 0, value)
        sum(terms.values()).backward()
        for name, parameter in model.named_parameters():
            if parameter.grad is not None:
                recorder.add("grad", name, 0, parameter.grad)
    coverage = dict(recorder.coverage(), without_gradient=[], frozen=[])
    checks = ["loss", "grad"] if recording else []
    recorder.writer.finish({**PROVENANCE, "checks": checks}, coverage)
    return Trace.load(folder)


@pytest.fixture
def verdict_on(tmp_path: Path, tolerance: Tolerance) -> Callable[..., Verdict]:
    """Return a function that plants something in the new side's model and gives the verdict."""

    def run(plant: Callable[[Detector], object], recording: bool = True) -> Verdict:
        def side(name: str, dtype: torch.dtype = torch.float32) -> Trace:
            model = detector()
            if name.startswith("new"):
                plant(model)
            return recorded(tmp_path / name, model, dtype, recording)

        legacy, new = side("legacy"), side("new")
        evidence = None
        if tolerance.name == DERIVED:
            reference = side("legacy64", torch.float64)
            evidence = TraceEvidence(legacy, reference, spreads([legacy], reference), new, side("new64", torch.float64))
        return judge(legacy, new, SAME_NAMES, (), tolerance, evidence)

    return run


def test_equal_models_match(verdict_on):
    verdict = verdict_on(lambda model: None)
    assert verdict.outcome == MATCH and len(verdict.comparisons) > 20


def rows_permuted(x: Tensor) -> Tensor:
    """Move every value, keep mean, deviation, extremes and histogram."""
    return x.flip(0)


def noise_like(x: Tensor) -> Tensor:
    """Return other numbers with the same mean and deviation."""
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    noise = (noise - noise.mean()) / noise.std()
    return (noise * x.double().std() + x.double().mean()).to(x.dtype) + 0 * x


@pytest.mark.parametrize("change", [rows_permuted, noise_like])
def test_comparing_only_means(verdict_on, change):
    verdict = verdict_on(output("head.box", change))
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "head.box"
    pair = verdict.divergence.comparison.pair
    assert pair.legacy.shape == pair.new.shape == (200, 4)


def test_thresholds_on_summary_statistics_one_element_of_thousands(verdict_on):
    def nudged(x: Tensor) -> Tensor:
        return x + 1e-3 * (torch.arange(x.numel()) == 1234).view_as(x)

    verdict = verdict_on(output("encoder.proj", nudged))
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "encoder.proj"


def test_thresholds_on_summary_statistics_a_share_of_all_elements(verdict_on):
    # mean and deviation move by a few percent
    verdict = verdict_on(output("encoder.proj", lambda x: x * 1.02))
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "encoder.proj"


def transposed_weight(model: Detector) -> None:
    model.encoder.proj.weight.data = model.encoder.proj.weight.data.t().contiguous()


def test_auto_transposing_a_square_weight(verdict_on):
    verdict = verdict_on(transposed_weight)
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "encoder.proj.weight"


def test_auto_transposing_an_output(verdict_on):
    verdict = verdict_on(output("head.score", lambda x: x.t()))
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "head.score"
    assert verdict.divergence.comparison.difference.note == "F32[200, 3] became F32[3, 200]"


def test_skipping_unmatched_outputs_with_a_warning(verdict_on):
    # one output more, and else all is equal
    verdict = verdict_on(output("head", lambda out: {**out, "angles": out["scores"][0] * 2}))
    assert verdict.outcome == INCOMPARABLE and verdict.divergence.where == "head"
    assert "`head` angles of the new side" in " ".join(verdict.reasons)


def test_skipping_a_module_that_one_side_lacks(verdict_on):
    def plant(model: Detector) -> None:
        model.head.more = nn.Softmax(-1)
        output("head", lambda out: {**out, "rest": bool(model.head.more(out["scores"][0]).dim())})(model)

    assert verdict_on(plant).outcome != MATCH


def test_comparing_only_output_0(verdict_on):
    verdict = verdict_on(output("encoder", lambda out: (out[0], out[1].flip(0))))
    assert verdict.outcome == MISMATCH and verdict.divergence.where == "encoder"
    assert "output 1" in verdict.divergence.message


@pytest.mark.parametrize(
    ("change", "outcome", "slot"),
    [
        (lambda out: {**out, "scores": [out["scores"][0] + 1]}, MISMATCH, "output scores.0"),
        (lambda out: {**out, "boxes": {"centres": out["boxes"]["centres"] + 1}}, MISMATCH, "output boxes.centres"),
        (
            lambda out: {**out, "boxes": Renamed({"centres": out["boxes"]["centres"] + 1})},
            MISMATCH,
            "output boxes.middles",
        ),
    ],
    ids=["list in a dict", "dict in a dict", "other key"],
)
def test_ignoring_dict_outputs(verdict_on, change, outcome, slot):
    verdict = verdict_on(output("head", change))
    assert verdict.outcome == outcome and verdict.divergence.where == "head" and slot in verdict.divergence.message


class Renamed(dict):
    """A dict that records under another key and is read as before."""

    def __iter__(self):
        return iter(["middles"])

    def __getitem__(self, key):
        return super().__getitem__("centres")


class Doubled(torch.autograd.Function):
    """Forward as it is, backward twice as large."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def test_backward_check_that_runs_forward(verdict_on):
    verdict = verdict_on(output("head.box", Doubled.apply))
    assert verdict.outcome == MISMATCH
    differing = {c.pair.new.kind for c in verdict.comparisons if not c.accepted}
    assert differing == {"grad"}, "everything forward is equal, so only a real backward can tell"


def test_backward_that_stops_half_way(verdict_on):
    verdict = verdict_on(output("encoder", lambda out: tuple(x.detach() for x in out)))
    assert verdict.outcome == INCOMPARABLE and verdict.divergence.where.startswith("encoder.proj.")


def test_empty_comparison(verdict_on):
    verdict = verdict_on(lambda model: None, recording=False)
    assert verdict.outcome == INCOMPARABLE and verdict.comparisons == ()


def test_comparison_of_two_models_with_no_name_in_common(tmp_path, tolerance):
    other = Mapping("toy", (Rename("**", "other.**"),))
    everything = tuple(
        Exclusion(side, kind, "*", "*", "another model")
        for side in (LEGACY, NEW)
        for kind in ("module_in", "module_out", "param", "grad", "loss")
    )
    sides = [recorded(tmp_path / name, detector(), torch.float32, recording=True) for name in (LEGACY, NEW)]
    evidence = TraceEvidence(*sides[:1] * 2, {}, *sides[1:] * 2) if tolerance.name == DERIVED else None
    assert judge(*sides, other, everything, tolerance, evidence).outcome == INCOMPARABLE
