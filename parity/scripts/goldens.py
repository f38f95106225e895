"""Golden files of any module: record what it computes, and compare what it computes later, elsewhere, or rewritten.

Who checks must give the weights and inputs that were recorded, and :mod:`.sources` sees to it.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from converters.rules.mapping import Mapping as Rules
from converters.rules.mapping import Rule
from legacy_adapters.ground.words import counted, sentence
from legacy_adapters.recording.trace_writer import Record
from legacy_adapters.scripting.capturing import check_model, shared_modules

from ..comparing.compare import DERIVED, Tolerance
from ..comparing.converted import decisions_for_new_side
from ..comparing.evidence import ZERO, spreads
from ..comparing.pairing import LEGACY, NEW
from ..golden.evidence import GoldenEvidence, loose_records
from ..golden.golden import Golden, GoldenError, GoldenValues
from ..golden.sketches import Sketches
from ..traces.kinds import Kind
from ..traces.trace import Trace, decisions
from ..verdict.blame import Divergence
from ..verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from ..verdict.sentences import DETECTOR
from ..verdict.verdict import Verdict
from .checking import Checked, Progress, Runs, copied_inputs, copied_model, own_states
from .judging import judge_scripts
from .names import rules_of, whole_mapping
from .sources import bits_of, digests_of, give_weights, given_inputs

_FLOAT64 = "float64"
_PERTURBED = (1, 2, 3, 4)
#: Of the provenance and of the coverage: what is of the machine that recorded, and what is of whole traces only.
_LOCAL = ("executable", "files", "modules", "packages", "peak_memory")
_OF_TRACES = ("cut_off", "not_finite")


def record_module(model: nn.Module, asked: Checked, progress: Progress) -> Golden:
    """Run copies of a module several times, and distil what it computes and how it rounds.

    Raises:
        GoldenError: if it stops with an error, in its own precision or in float64.
        legacy_adapters.scripting.CaptureError: if it cannot be recorded.
        parity.sides.settings.SettingsError: if an argument cannot be used.
    """
    check_model(model)
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made, own_states():
        runs = Runs(asked, Path(made), {NEW: copied_model(model, "The module")})
        progress("running the module")
        trace = _whole(runs.run(NEW, NEW), "")
        own = decisions(trace)
        progress("measuring its rounding")
        reference = _whole(runs.run(NEW, "reference", dtype=_FLOAT64, replay=own, decide=False), "in float64 ")
        sketches = Sketches()
        spread = spreads(_repeats(runs, trace, own), reference, sketches.of)
        values = {
            record.key: GoldenValues(
                sketches.of(trace, record), sketches.of(reference, _twin(reference, record)), spread.get(record.key, ZERO)
            )
            for record in trace.records
            if record.is_float
        }
    provenance = {name: value for name, value in trace.provenance.items() if name not in _LOCAL}
    provenance["modules"] = {name: dict(version=one["version"]) for name, one in trace.provenance["modules"].items()}
    coverage = {name: value for name, value in trace.coverage.items() if name not in _OF_TRACES}
    sources = digests_of(asked.inputs)
    return Golden(None, sources, provenance, coverage, trace.records, values, own, given=bits_of(model, asked.inputs))


def check_module(golden: Golden, model: nn.Module, asked: Checked, progress: Progress) -> Verdict:
    """Run copies of a module under the decisions and draws of a golden file and judge by the rounding that it holds.

    A module that stops with an error has a verdict with a ``stop``.

    Raises:
        GoldenError: if the module has other weights or inputs, or the rules change tensors.
        legacy_adapters.scripting.CaptureError: if it cannot be recorded.
        parity.sides.settings.SettingsError: if an argument cannot be used.
    """
    check_model(model)
    rules = rules_of(asked.rules)
    with tempfile.TemporaryDirectory(prefix="ddq-parity-") as made, own_states():
        model = copied_model(model, "The module")
        mapping = _mapping(golden, model, rules)
        if mapping.changes_tensors:
            raise GoldenError(
                "A golden file holds no whole tensors, so rules with it can only rename; compare both modules with "
                "parity.compare, or record anew."
            )
        replay = decisions_for_new_side(golden.decisions, mapping)
        give_weights(golden, model, mapping)
        asked = replace(asked, inputs=given_inputs(golden, copied_inputs(asked.inputs)))
        runs = Runs(asked, Path(made), {NEW: model})
        progress("running the module")
        new = runs.run(NEW, NEW, replay=replay)
        progress("running the module in float64")
        reference = runs.run(NEW, "reference", dtype=_FLOAT64, replay=replay, decide=False)
        evidence = GoldenEvidence(golden, new, reference)
        verdict = judge_scripts(golden, new, rules, asked.exclusions, Tolerance(DERIVED), evidence)
        if verdict.outcome == MATCH and verdict.renamed_outputs:
            one, two = verdict.renamed_outputs[0]
            text = f"The module gives `{two}` where `{one}` was recorded, with the same numbers; record anew if that is right."
            return replace(verdict, outcome=MISMATCH, reasons=(text,), divergence=Divergence(DETECTOR, None, text, None))
        stop = reference.provenance.get("stopped")
        if stop is not None and new.provenance.get("stopped") is None and verdict.outcome != MATCH:
            why = f"Bits differ, and how much rounding explains is not known: in float64 the module stops with {stop['error']}"
            return replace(verdict, outcome=INCOMPARABLE, reasons=(sentence(why),), divergence=None, stop=None)
        return verdict


def too_loose(golden: Golden) -> str:
    """Say which records a golden file cannot tell an error of, where bits differ; empty if there are none."""
    loose = [record for record in loose_records(golden) if not _is_given(record)]
    if not loose:
        return ""
    where = f"{loose[0].kind} `{loose[0].name}` {loose[0].slot}".strip()
    return (
        f"The rounding of {counted(len(loose), 'record')} is so large that it could hide an error, of {where} first: on a "
        "machine that computes other bits there will be no verdict. Use weights and inputs that are better conditioned."
    )


def _is_given(record: Record) -> bool:
    """Tell weights and the module's inputs, which have equal bits wherever they are given."""
    return record.kind == Kind.PARAM or (record.kind == Kind.MODULE_IN and not record.name)


def _repeats(runs: Runs, trace: Trace, own: Mapping[str, Tensor]) -> Iterator[Trace]:
    """Run the module again, each time with another order of sums or with other last bits."""
    yield trace
    yield runs.run(NEW, "thread", replay=own, threads=1)
    with warnings.catch_warnings(action="ignore"), torch.backends.mkldnn.flags(enabled=False):
        plain = runs.run(NEW, "plain", replay=own)
    yield plain
    for seed in _PERTURBED:
        yield runs.run(NEW, f"perturbed{seed}", replay=own, perturbed=seed)


def _whole(trace: Trace, how: str) -> Trace:
    stop = trace.provenance.get("stopped")
    if stop is not None:
        raise GoldenError(f"Nothing is recorded: {how}the module stops with {sentence(stop['error'])}")
    return trace


def _twin(reference: Trace, record: Record) -> Record:
    twin = reference.by_key.get(record.key)
    if twin is None:
        raise GoldenError(
            f"In float64 the module does not compute {record.kind} `{record.name}` {record.slot}".rstrip()
            + ", where a number fell on the other side of a threshold; use other inputs."
        )
    return twin


def _mapping(golden: Golden, model: nn.Module, rules: Sequence[Rule]) -> Rules:
    legacy = [record.name for record in golden.records if record.kind == Kind.PARAM]
    new = [key for key, value in model.state_dict().items() if isinstance(value, Tensor)]
    return whole_mapping(rules, legacy, new, {LEGACY: golden.coverage.get("shared", ()), NEW: shared_modules(model)})
