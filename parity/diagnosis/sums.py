"""Differences by a term: a missing residual, or one too many; and activations between modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ..traces.kinds import Kind
from .functions import ACTIVATIONS
from .kinds import Diagnosis, DiagnosisKind
from .measuring import FLOOR, explains, is_telling, numbers, off, off_after
from .scene import Both, Scene

#: A sum is stated before an activation, and before another record, which may be one of its terms.
_RANK, _OF_ACTIVATION = 6, 12
#: A sigmoid's result nearer to 0 or 1 does not tell what it is of; nor does a difference of which more is rounding.
_LEAST_OF_SIGMOID, _MOST_FLOOR = 1e-4, 0.01
#: Within its bounds an activation is a plainer one.
_PLAINER = {"ReLU6": "ReLU", "Hardtanh": "no activation"}
_COMMON = ("no activation", "ReLU", "GELU", "SiLU")


def diagnoses(scene: Scene) -> Iterator[Diagnosis]:
    """Yield a term that one side adds alone, or an activation that the sides do not share."""
    legacy, new = scene.values
    record = scene.record
    kinds = (Kind.MODULE_OUT, Kind.MODULE_IN, Kind.METHOD_IN, Kind.METHOD_OUT, Kind.BASIS)
    if legacy.shape != new.shape or not record.is_float or record.kind not in kinds or not is_telling(legacy, 8):
        return
    parts = [part for one in scene.parts() for part in _laid_out(one, legacy.shape, record.kind == Kind.BASIS)]
    parts = [part for part in parts if np.isfinite(numbers(part.legacy)).all()]
    yield from _terms(scene, parts)
    yield from _opposite_terms(scene, parts)
    yield from _terms_under_activation(scene, parts)
    if record.kind != Kind.MODULE_OUT or not scene.weights:
        yield from _activations(scene, parts)


def _laid_out(part: Both, shape: tuple[int, ...], each: bool) -> Iterator[Both]:
    """Yield a part in a record's shape; with ``each`` what it has for each image, as decisions are made by image."""
    whole = laid_out(part, shape)
    if whole is not None:
        yield whole
    elif each and tuple(part.legacy.shape[1:]) == shape and part.new.shape == part.legacy.shape:
        yield from (replace(part, legacy=one, new=two) for one, two in zip(part.legacy, part.new))


def laid_out(part: Both, shape: tuple[int, ...]) -> Both | None:
    """Return a part in a record's shape, images and elements exchanged if need be; None if it has another."""
    if tuple(part.legacy.shape) == shape and part.new.shape == part.legacy.shape:
        return part
    turned = [tensor.transpose(0, 1) if tensor.dim() > 2 else tensor for tensor in (part.legacy, part.new)]
    is_turned = all(tuple(tensor.shape) == shape for tensor in turned)
    return replace(part, legacy=turned[0], new=turned[1]) if is_turned else None


def name_of(scene: Scene, part: Both) -> str:
    if part.kind == Kind.MODULE_IN:
        mine = part.name == (scene.record.name if scene.record.kind == Kind.MODULE_OUT else scene.record.scope)
        return f"its input `{part.slot}`" if mine else f"the input `{part.slot}` of `{part.name}`"
    return f"the output of `{part.name}`"


def _terms(scene: Scene, parts: list[Both]) -> Iterator[Diagnosis]:
    legacy, new = scene.values
    difference = legacy - new
    size = float(np.abs(difference).max())
    if not np.isfinite(size) or size == 0.0:
        return
    # the difference is known as far as the rounding of the two numbers that it is of
    floor = FLOOR * max(float(np.abs(legacy).max()), float(np.abs(new).max())) / size
    if floor > 0.01:
        return
    for part in parts:
        term = numbers(part.legacy)
        if not is_telling(term, 8):
            continue
        for sign, text, less, more, why in (
            (1.0, "the new side's plus {} is the legacy side's", new, legacy, "a term is missing"),
            (-1.0, "the legacy side's plus {} is the new side's", legacy, new, "a term too many"),
        ):
            residual = off(sign * term, difference)
            if explains(residual, 1.0, floor):
                text = f"{text.format(name_of(scene, part))}: {_why(parts, part, less, more, why)}"
                yield scene.diagnosis(DiagnosisKind.RESIDUAL, text, residual, _RANK)
                return


def _opposite_terms(scene: Scene, parts: list[Both]) -> Iterator[Diagnosis]:
    """Try that one side adds what the other subtracts, in the numbers themselves or under a sigmoid."""
    for legacy, new, under in _as_sums(*scene.values):
        difference = legacy - new
        size = float(np.abs(difference).max())
        # the difference is known as far as the rounding of the numbers that it is of
        floor = _rounding(scene.values, under) / size if size else 1.0
        if floor > _MOST_FLOOR:
            continue
        for part in parts:
            term = 2 * numbers(part.legacy)
            if not is_telling(term, 8):
                continue
            for sign, whose, other in ((1.0, "new", "legacy"), (-1.0, "legacy", "new")):
                residual = off(sign * term, difference)
                if explains(residual, 1.0, max(FLOOR, floor)):
                    text = f"the {whose} side subtracts {name_of(scene, part)}, which the {other} side adds{under}"
                    yield scene.diagnosis(DiagnosisKind.SIGN, text, residual, _RANK)
                    return


def _as_sums(legacy: np.ndarray, new: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, str]]:
    """Yield both sides' numbers, and what a sigmoid makes them of, if they are its results."""
    yield legacy, new, ""
    if all(((values > _LEAST_OF_SIGMOID) & (values < 1 - _LEAST_OF_SIGMOID)).all() for values in (legacy, new)):
        yield np.log(legacy / (1 - legacy)), np.log(new / (1 - new)), ", before a sigmoid"


def _rounding(values: tuple[np.ndarray, np.ndarray], under: str) -> float:
    """Return how far both sides' numbers may be off by rounding; before a sigmoid as much more as it is flat."""
    if not under:
        return FLOOR * max(float(np.abs(side).max()) for side in values)
    return FLOOR * max(float((1 / (1 - side)).max()) for side in values)


def _why(parts: list[Both], term: Both, less: np.ndarray, more: np.ndarray, why: str) -> str:
    """Say whether the side without a term does not add it, or subtracts it: what else the sum is of tells that."""
    known = [numbers(part.legacy) for part in parts if part is not term]
    if any(off(part, less) <= FLOOR for part in known):
        return why
    if any(off(part, more) <= FLOOR for part in known):
        return "the new side subtracts it" if why == "a term is missing" else "the legacy side subtracts it"
    return f"{why}, or is subtracted" if why == "a term is missing" else f"{why}, or one that the legacy side subtracts"


def _terms_under_activation(scene: Scene, parts: list[Both]) -> Iterator[Diagnosis]:
    """Try a sum of two parts under an activation of which one side leaves one out."""
    legacy, new = scene.values
    if scene.record.kind != Kind.MODULE_OUT:
        return
    for name in _COMMON[1:]:
        function = ACTIVATIONS[name]
        for one in parts[:6]:
            body = numbers(one.new)
            for without, whole, text in (
                (new, legacy, "{} of the sum with {} is the legacy side's: the new side does not add it"),
                (legacy, new, "{} of the sum with {} is the new side's: the legacy side does not add it"),
            ):
                if off_after(function, body, without) > FLOOR:
                    continue
                for two in parts:
                    residual = off(function(body + numbers(two.legacy)), whole)
                    if two is not one and explains(residual, scene.gap):
                        text = text.format(name, name_of(scene, two))
                        yield scene.diagnosis(DiagnosisKind.RESIDUAL, text, residual, _RANK + 1)
                        return


def _activations(scene: Scene, parts: list[Both]) -> Iterator[Diagnosis]:
    """Try that both sides' numbers are activations, not the same, of what was computed just before."""
    legacy, new = scene.values
    for part in parts[:8]:
        pair = activations_of((numbers(part.legacy), numbers(part.new)), (legacy, new), scene.gap)
        if pair is not None:
            (expected, found), residual = pair
            text = f"{found} in place of {expected} on {name_of(scene, part)}"
            yield scene.diagnosis(DiagnosisKind.ACTIVATION, text, residual, _OF_ACTIVATION)
            return


def plainest(names: list[str]) -> list[str]:
    """Leave out activations that differ from a plainer one of them only where no number is."""
    return [name for name in names if _PLAINER.get(name) not in names]


def activations_of(
    given: tuple[np.ndarray, np.ndarray], results: tuple[np.ndarray, np.ndarray], gap: float
) -> tuple[tuple[str, str], float] | None:
    """Return which activations two sides apply to what they are given, and how far the new side's is off; or None.

    Each side's must be told from all others by the numbers.
    """
    names, residual = [], 0.0
    for side in (0, 1):
        with np.errstate(all="ignore"):
            tried = {name: off_after(function, given[side], results[side]) for name, function in ACTIVATIONS.items()}
        fitting = [name for name, residual in tried.items() if explains(residual, gap)]
        fitting = plainest(fitting)
        if len(fitting) != 1:
            return None
        names.append(fitting[0])
        residual = max(residual, tried[fitting[0]])
    return ((names[0], names[1]), residual) if names[0] != names[1] else None
