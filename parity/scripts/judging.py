"""Judge two traces that scripts recorded: by rules and names, with what a script must give both sides alike."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from converters.errors import listed
from converters.rules.mapping import Mapping as Rules
from converters.rules.mapping import Rule
from legacy_adapters.ground.names import LEGACY, NEW
from legacy_adapters.ground.words import counted
from legacy_adapters.recording.scripts import BACKWARD_LOSS, PHASE
from legacy_adapters.recording.trace_writer import Record

from ..comparing.compare import Tolerance
from ..comparing.evidence import Evidence
from ..comparing.pairing import Exclusion
from ..traces.kinds import FLOW, Kind
from ..traces.trace import Recording, Trace
from ..verdict.blame import Divergence, describe_added
from ..verdict.outcome import INCOMPARABLE, MATCH
from ..verdict.sentences import DETECTOR
from ..verdict.verdict import Verdict, judge
from .names import whole_mapping
from .outputs import renamed_outputs


def is_script(trace: Recording) -> bool:
    """Tell whether a trace was recorded by a script and not by a run."""
    return bool(trace.provenance.get("script"))


def mapping_of(legacy: Recording, new: Recording, rules: Sequence[Rule]) -> Rules:
    """Return the mapping between two scripts' traces; see :func:`.names.whole_mapping`."""
    keys = {
        side: list(dict.fromkeys(r.name for r in of.records if r.kind in (Kind.PARAM, Kind.STATE, Kind.GRAD)))
        for side, of in ((LEGACY, legacy), (NEW, new))
    }
    shared = {side: of.coverage.get("shared", ()) for side, of in ((LEGACY, legacy), (NEW, new))}
    return whole_mapping(rules, keys[LEGACY], keys[NEW], shared)


def judge_scripts(
    legacy: Trace, new: Trace, rules: Sequence[Rule], exclusions: tuple[Exclusion, ...] = (),
    tolerance: Tolerance = Tolerance(), evidence: Evidence | None = None,
) -> Verdict:  # fmt: skip
    """Pair, compare and judge what two scripts recorded.

    Beside what :func:`parity.verdict.verdict.judge` asks for, both sides must have been given the same inputs, been in one
    mode and, where random numbers were drawn, begun with the same states of the generators. Gradients that flow between
    modules are compared if both sides recorded them.

    Raises:
        converters.errors.MappingError: if the rules contradict each other.
        parity.sides.settings.SettingsError: if a rule takes no key, or gives one that is kept.
        parity.traces.trace.TraceError: if a tensor is not what was recorded.
    """
    legacy, new = _alike_in_flow(legacy, new)
    mapping = mapping_of(legacy, new, rules)
    reasons = tuple(_conditions(legacy, new))
    verdict = _in_own_words(judge(legacy, new, mapping, exclusions, tolerance, evidence))
    verdict = _outputs_first(_changed_first(verdict, new))
    verdict = replace(verdict, renamed_outputs=renamed_outputs(c.pair for c in verdict.comparisons))
    given, calls = _other_input(verdict), _other_calls(verdict, legacy, new) or _older_gradients(verdict, legacy, new)
    if given or calls or reasons:
        why = (*reasons, *filter(None, (given or calls,)))
        divergence = verdict.divergence if given and not reasons else None
        return replace(verdict, outcome=INCOMPARABLE, reasons=why, divergence=divergence)
    unseen = tuple(_unseen(legacy, new))
    if verdict.outcome == MATCH and unseen:
        return replace(verdict, outcome=INCOMPARABLE, reasons=unseen)
    if verdict.outcome == INCOMPARABLE:
        return replace(verdict, reasons=(*verdict.reasons, *unseen, *_advice(verdict, mapping)))
    return verdict


def _in_own_words(verdict: Verdict) -> Verdict:
    """Leave out of a verdict the name of the only phase that a script has."""
    stop, divergence, said = verdict.stop, verdict.divergence, f" (the {PHASE} phase)"
    if stop is not None:
        place = stop.place.replace(f"the detector{said}", "its own code").replace(said, "")
        stop = replace(stop, place=place)
    if divergence is not None:
        divergence = replace(divergence, message=divergence.message.replace(said, "").replace(f", {PHASE} phase)", ")"))
    reasons = tuple(reason.replace(said, "") for reason in verdict.reasons)
    return replace(verdict, stop=stop, divergence=divergence, reasons=reasons)


def _changed_first(verdict: Verdict, new: Trace) -> Verdict:
    """Blame a weight that the new script alone changes, if that comes before all else that differs."""
    of_both = {c.pair.new.name for c in verdict.comparisons if c.pair.new.kind == Kind.PARAM}
    changed = {
        item.record.key for item in verdict.coverage.unaccounted
        if item.side == NEW and item.record.kind == Kind.STATE and item.record.phase == PHASE
        and item.record.name in of_both
    }  # fmt: skip
    if verdict.divergence is None or not changed:
        return verdict
    comparison = verdict.divergence.comparison
    for record in new.records:
        if comparison is not None and record.key == comparison.pair.new.key:
            break
        if record.key in changed:
            return replace(verdict, divergence=describe_added(record))
    return verdict


def _outputs_first(verdict: Verdict) -> Verdict:
    """Blame an output that one model alone gives, where only what goes backward from the outputs differs."""
    comparison = verdict.divergence.comparison if verdict.divergence is not None else None
    if comparison is None or comparison.pair.new.kind != Kind.LOSS or comparison.pair.new.name != BACKWARD_LOSS:
        return verdict
    for item in verdict.coverage.unaccounted:
        record = item.record
        if record.kind == Kind.MODULE_OUT and not record.name:
            slot = f" `{record.slot}`" if record.slot else ""
            text = f"The {'old' if item.side == LEGACY else 'new'} model alone gives the output{slot} (call {record.call})."
            return replace(verdict, divergence=Divergence(DETECTOR, None, text, None))
    return verdict


def _alike_in_flow(legacy: Trace, new: Trace) -> tuple[Trace, Trace]:
    """Leave out the gradients between modules where only one side recorded them; torch before 2.1 cannot."""
    has = [bool(side.provenance.get("gradient_flow")) for side in (legacy, new)]
    if has[0] == has[1]:
        return legacy, new
    return _without_flow(legacy), _without_flow(new)


def _without_flow(trace: Trace) -> Trace:
    counts = [one for one in trace.coverage.get("records", ()) if one["kind"] not in FLOW]
    return replace(
        trace,
        records=tuple(record for record in trace.records if record.kind not in FLOW),
        coverage={**trace.coverage, "records": counts, "cut_off": []},
        provenance={**trace.provenance, "gradient_flow": False},
    )


def _conditions(legacy: Trace, new: Trace) -> Iterator[str]:
    """Say what scripts did not do alike, so that nothing can be compared."""
    modes = [side.provenance.get("mode") for side in (legacy, new)]
    if modes[0] != modes[1]:
        yield f"The old model is in {modes[0]} mode, the new one in {modes[1]} mode; call .train() or .eval() on both."
    drawn = {record.name for side in (legacy, new) for record in side.records if record.kind == Kind.RANDOM}
    drawn |= {"cuda" for side in (legacy, new) if side.provenance.get("cuda_drawn")}
    starts: list[dict[str, Any]] = [side.provenance.get("random_start") or {} for side in (legacy, new)]
    other = [name for name in sorted(drawn) if starts[0].get(name) != starts[1].get(name)]
    same_torch = legacy.provenance.get("torch") == new.provenance.get("torch")
    if other and same_torch:
        yield (
            f"Random numbers are drawn, and {listed(other)} was in another state when the blocks began; seed "
            "both alike, for instance with capture(..., seed=0)."
        )


def _other_input(verdict: Verdict) -> str:
    """Say that the scripts give their models other inputs, if nothing differs before that; else an empty string."""
    first = next((c for c in verdict.comparisons if not c.accepted), None)
    lone = [item.record for item in verdict.coverage.unaccounted if _is_root_input(item.record)]
    paired = {c.pair.new.call for c in verdict.comparisons if _is_root_input(c.pair.new)}
    if first is not None and _is_root_input(first.pair.new):
        record = first.pair.new
        note = first.difference.note if first.difference is not None else ""
        size = f" ({note})" if note else f" (by up to {first.difference.max_abs:.3g})" if first.difference else ""
        return (
            f"The models are given other inputs: `{record.slot or 'input'}` of call {record.call} differs{size}; give both "
            "the same, for instance from a file."
        )
    if lone and first is None and lone[0].call in paired | {0}:
        record = lone[0]
        return f"Only one model is given `{record.slot or 'input'}` (call {record.call}); give both the same inputs."
    return ""


def _other_calls(verdict: Verdict, legacy: Trace, new: Trace) -> str:
    """Say that one script calls its model more often, if nothing differs; else an empty string."""
    times = [sum(one["count"] for one in _calls(side) if one["name"] == "") for side in (legacy, new)]
    if times[0] == times[1] or not all(times) or not all(c.accepted for c in verdict.comparisons):
        return ""
    return (
        f"The old script calls its model {counted(times[0], 'time')}, the new one {counted(times[1], 'time')}; let both do the "
        "same."
    )


def _older_gradients(verdict: Verdict, legacy: Trace, new: Trace) -> str:
    """Say that gradients were there before the block, if a gradient that adds up is the first difference."""
    comparison = verdict.divergence.comparison if verdict.divergence is not None else None
    before = [side.provenance.get("gradients_before") or {} for side in (legacy, new)]
    if comparison is None or comparison.pair.new.kind != Kind.GRAD or not any(before):
        return ""
    names = comparison.pair.legacy.name, comparison.pair.new.name
    if before[0].get(names[0]) == before[1].get(names[1]):
        return ""
    return (
        f"`{names[1]}` has a gradient before the block, to which that of the block is added, and not the same on both sides; "
        "call zero_grad() on both models first."
    )


def _is_root_input(record: Record) -> bool:
    return record.kind == Kind.MODULE_IN and not record.name


def _unseen(legacy: Trace, new: Trace) -> Iterator[str]:
    """Say what a model gives that no trace can hold."""
    types = sorted({name for side in (legacy, new) for name in side.coverage.get("sealed", ())})
    if types:
        yield (
            f"The model gives objects whose content cannot be seen ({listed(types)}); record what matters with "
            "recording.tap(name, tensor)."
        )
    called = [any(one["name"] == "" for one in _calls(side)) for side in (legacy, new)]
    outputs = [any(r.kind == Kind.MODULE_OUT and not r.name for r in side.records) for side in (legacy, new)]
    added = any(r.kind in (Kind.TAP, Kind.LOSS) for r in new.records)
    if all(called) and not any(outputs):
        yield "The model gives no tensor, number or text; record what matters with recording.tap(name, tensor)."
    elif not any(called) and not added:
        yield (
            "The model itself is not called in the block, only modules of it, so what is made of their results is not seen; "
            "call the model, or record results with recording.tap(name, tensor)."
        )


def _calls(side: Trace) -> Iterator[dict[str, Any]]:
    for kind in ("leaf_calls", "inner_calls"):
        yield from side.coverage.get(kind, ())


def _advice(verdict: Verdict, mapping: Rules) -> Iterator[str]:
    """Say what to do about weights without a twin."""
    lone = {
        side: [i.record.name for i in verdict.coverage.unaccounted if i.side == side and i.record.kind == Kind.PARAM]
        for side in (LEGACY, NEW)
    }
    if lone[LEGACY] or lone[NEW]:
        told = [f"{word} {listed(names)}" for word, names in (("old", lone[LEGACY]), ("new", lone[NEW])) if names]
        yield f"Weights without a twin: {'; '.join(told)}. Give rules that say which becomes which (docs/rules.md)."


