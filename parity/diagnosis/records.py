"""Differences that are another record of the legacy side: swapped twins or outputs, a layer too early or too late."""

from __future__ import annotations

from collections.abc import Iterator

from legacy_adapters.recording.trace_writer import Record

from ..traces.kinds import Kind
from .kinds import Diagnosis, DiagnosisKind
from .scene import Scene

#: So many different numbers tell one record from others; of booleans and whole numbers two, if there are many.
_LEAST_NUMBERS, _LEAST_WHOLE = 4, 12
#: One of the same call or of a like module is stated first; any other if nothing simpler explains the difference.
_NEAR, _ELSEWHERE = 8, 35


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield which other record of the legacy side holds the very numbers of the new one."""
    new, own = scene.record, scene.comparison.pair.legacy
    others = [one for one in scene.legacy.records if one.digest == new.digest and one.key != own.key]
    if not others or not _is_telling(scene):
        return
    nearest = min(others, key=lambda other: distance_of(own, other))
    text = f"the legacy side's {said_of(nearest, own)}"
    if _is_exchanged(scene, nearest):
        text += ", and the other way round"
    is_near = (nearest.phase, _pattern(nearest.name)) == (own.phase, _pattern(own.name)) or nearest.scope == own.scope
    yield scene.diagnosis(DiagnosisKind.OTHER_RECORD, text, 0.0, _NEAR if is_near else _ELSEWHERE)


def _is_telling(scene: Scene) -> bool:
    import torch

    new, is_float = scene.tensors[1], scene.record.is_float
    if new.numel() < (_LEAST_NUMBERS if is_float else _LEAST_WHOLE):
        return False
    return len(torch.unique(new)) >= (_LEAST_NUMBERS if is_float else 2)


def distance_of(own: Record, other: Record) -> tuple:
    """Tell how far two records are apart, as a person would look for them."""
    same_call = (own.phase, own.name, own.call) == (other.phase, other.name, other.call)
    return (
        not (same_call and own.kind == other.kind),
        not (same_call and other.kind == Kind.MODULE_IN),
        not ((own.phase, own.kind, own.name, own.slot) == (other.phase, other.kind, other.name, other.slot)),
        own.phase != other.phase,
        own.kind != other.kind,
        _pattern(own.name) != _pattern(other.name),
        other.name != own.scope,
        own.scope != other.scope,
    )


def _pattern(name: str) -> str:
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def _is_exchanged(scene: Scene, other: Record) -> bool:
    """Tell whether the twin of the other record holds what this one should."""
    own = scene.comparison.pair.legacy
    twins = (one.pair.new for one in scene.comparisons if one.pair.legacy.key == other.key)
    return any(twin.digest == own.digest for twin in twins)


def said_of(record: Record, own: Record) -> str:
    """Name a record as seen from another."""
    what = f"{Kind(record.kind).noun} `{record.name}`"
    slot = f", `{record.slot}`" if record.slot else ""
    if (record.phase, record.name, record.call, record.kind) == (own.phase, own.name, own.call, own.kind):
        return f"`{record.slot}` in place of `{own.slot}`"
    same_call = (record.phase, record.name, record.call) == (own.phase, own.name, own.call)
    if same_call and record.kind == Kind.MODULE_IN and own.kind == Kind.MODULE_OUT:
        return f"input `{record.slot}` of the same call"
    phase = f" of the {record.phase} phase" if record.phase != own.phase else ""
    call = f" (call {record.call}{phase})" if phase or (record.call, record.name) != (own.call, own.name) else ""
    return f"{what}{slot}{call}"
