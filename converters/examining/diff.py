"""Compare two checkpoints tensor by tensor, across layouts. What `ddq-convert diff` calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from converters.carrying import parts
from converters.errors import ConversionError, DetectionError, PartsError
from converters.examining import gaps
from converters.formats.stored import StoredTensor
from converters.reading import checkpoint
from converters.reading.averages import AVERAGED, TRAINING, Weights
from converters.reading.checkpoint import Checkpoint
from converters.rules import built, engine
from converters.rules.detect import Detection
from converters.rules.layout import TensorSpec, spec_of
from converters.rules.ledger import CHANGED, DROP, DROP_DUPLICATE
from converters.rules.mapping import Mapping as KeyMapping
from converters.rules.ports import Port

SHAPE, DTYPE, VALUE = "shape", "dtype", "value"
Tensors: TypeAlias = Mapping[str, StoredTensor]
_ONLY = "weights"  # of a file with one set


@dataclass(frozen=True)
class Side:
    """One of the two files.

    Attributes:
        path: The file.
        tensors: How many tensors its state dict has.
        detection: What it is; None where unknown.
        duplicates: Keys that were left out because they repeat another key bit by bit.
        repeated: Which weights these repeat.
        not_compared: What was not compared: sets of weights with their places, and top-level keys.
        compared: The sets of weights that were, with their places; empty where there is one set only.
        notes: What the user should know about averages, in sentences.
        wrapping: What the state dict is wrapped in, in phrases.
        dropped: Keys that were left out because a rule drops them and the other file has none of that name.
    """

    path: Path
    tensors: int
    detection: Detection | None
    duplicates: tuple[str, ...]
    repeated: str
    not_compared: tuple[str, ...]
    compared: tuple[str, ...]
    notes: tuple[str, ...]
    wrapping: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A tensor that both files have and that is not the same in both.

    Attributes:
        a, b: Its keys.
        kind: `shape`, `dtype` or `value`.
        spec_a, spec_b: Its dtypes and shapes.
        differing: Elements with other bits, or of another dtype other values; None where shapes differ.
        max_abs: Largest absolute difference, inf and nan included; 0.0 if only bits differ, as of 0.0 and -0.0.
    """

    a: str
    b: str
    kind: str
    spec_a: TensorSpec
    spec_b: TensorSpec
    differing: int | None = None
    max_abs: float | None = None

    @property
    def elements(self) -> int:
        """Number of elements in the first file."""
        return math.prod(self.spec_a.shape)


@dataclass(frozen=True)
class Diff:
    """What two checkpoints have in common and what not.

    Attributes:
        a, b: The files.
        only_a, only_b: Keys without a counterpart.
        differences: Shapes first, then dtypes, then values, the largest difference first.
        equal: Number of tensors that are the same bit by bit.
        renamed: Number of compared tensors that have other keys in the two files.
    """

    a: Side
    b: Side
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]
    differences: tuple[Difference, ...]
    equal: int
    renamed: int

    @property
    def is_empty(self) -> bool:
        """Tell whether the files hold the same tensors."""
        return not (self.only_a or self.only_b or self.differences)

    def of(self, kind: str) -> tuple[Difference, ...]:
        """Return the differences of one kind."""
        return tuple(difference for difference in self.differences if difference.kind == kind)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`; numbers that JSON does not have are texts."""
        bare = replace(self, **{name: replace(getattr(self, name), detection=None) for name in ("a", "b")})
        plain = {**asdict(bare), "is_empty": self.is_empty}
        for name, side in (("a", self.a), ("b", self.b)):
            known = None if side.detection is None else side.detection.as_dict()
            plain[name] |= {"path": str(side.path), "detection": known}
        for difference in plain["differences"]:
            if difference["max_abs"] is not None and not math.isfinite(difference["max_abs"]):
                difference["max_abs"] = str(difference["max_abs"])
        return plain


def diff_files(
    a: str | Path,
    b: str | Path,
    keys: Sequence[str] = (),
    prefixes: Sequence[str] = (),
    family: str | None = None,
    variant: str | None = None,
) -> Diff:
    """Compare the weights of two files: their state dicts and, where both hold averaged and training weights, both.

    Where one of them alone holds both, those are compared that its state dict gives to a model; if these differ and the
    others are equal to the other file's, it is the others. If both have a known layout, keys of the first are
    translated to the layout of the second. What training saves twice is left out where it repeats its twin, and what a
    rule drops where the other file does not have it.

    Args:
        a, b: The files.
        keys: The key that the state dict stands under, of the first file, then of the second; none finds it.
        prefixes: What the keys of the state dict begin with, likewise.
        family: That both are of, by name or folder; None finds it among those that are known by their keys.
        variant: Of the family.

    Raises:
        CheckpointError: If one of them cannot be read as a checkpoint.
        DetectionError: If one of them is not of the family or variant that is named.
        FamilyError: If there is no such family or variant.
        OSError: If one of them cannot be read at all.
    """
    (key_a, key_b), (prefix_a, prefix_b) = _of_each(keys), _of_each(prefixes)
    return diff(checkpoint.read(a, key_a, prefix_a), checkpoint.read(b, key_b, prefix_b), family, variant)


def _of_each(given: Sequence[str]) -> tuple[str | None, str | None]:
    """Return what is said of the first file and of the second; what is said once is of the first."""
    one, two, *_ = (*given, None, None)
    return one, two


def diff(a: Checkpoint, b: Checkpoint, family: str | None = None, variant: str | None = None) -> Diff:
    """Compare two checkpoints that were opened; see `diff_files`."""
    among = built.candidates(family, variant)
    one, two = (_File.of(loaded, _detected(loaded, among, variant)) for loaded in (a, b))
    if one.other is not None and two.other is not None:
        return _diff(one, two, (AVERAGED, TRAINING), (AVERAGED, TRAINING))
    choices = [([first], [second]) for first in one.sets for second in two.sets]
    found = _diff(one, two, *choices[0])
    equal = (made for made in (_diff(one, two, *choice) for choice in choices[1:]) if made.is_empty)
    return found if found.is_empty else next(equal, found)


@dataclass(frozen=True)
class _File:
    """A checkpoint with its sets of weights.

    Attributes:
        loaded: The checkpoint.
        detection: What it is; None where unknown.
        sets: Its sets by name, the one that a model gets of its state dict first.
        held: Where the sets stand.
    """

    loaded: Checkpoint
    detection: Detection | None
    sets: Mapping[str, Tensors]
    held: Weights

    @classmethod
    def of(cls, loaded: Checkpoint, detection: Detection | None) -> _File:
        try:
            held = parts.weights(loaded)
        except PartsError as error:
            held = Weights(loaded.state_dict, notes=(str(error),))
        if held.averaged is None:
            return cls(loaded, detection, {_ONLY: held.training}, held)
        both = {AVERAGED: {**held.averaged, **held.late}, TRAINING: held.training}
        first = AVERAGED if held.places[1] == held.own else TRAINING
        return cls(loaded, detection, {first: both[first], **both}, held)

    @property
    def other(self) -> str | None:
        """The set that a model does not get; None if there is one only."""
        return next(iter(list(self.sets)[1:]), None)

    def place(self, name: str) -> str:
        """Return where a set stands."""
        return self.held.own if name == _ONLY else self.held.places[name == AVERAGED]

    def prefix(self, name: str) -> str:
        """Return what keys of a set begin with here."""
        return "" if self.place(name) == self.held.own else f"{self.place(name).removesuffix('*').rstrip('.')}."

    def originals(self, name: str) -> Tensors:
        """Return the weights that duplicates of a set have to repeat."""
        return self.held.training if self.held.late else self.sets[name]

    def side(self, duplicates: tuple[str, ...], dropped: tuple[str, ...], names: Sequence[str]) -> Side:
        """Say what was compared of it."""
        unseen = [f"{self._told(name)}" for name in self.sets if name not in names]
        unseen += [key for key in self.loaded.other_keys if key not in self.held.held_by]
        compared = tuple(self._told(name) for name in names if name != _ONLY)
        repeated = f"their twins among the {self._told(TRAINING)}" if self.held.late else "their twins"
        count = len(self.loaded.state_dict)
        return Side(
            self.loaded.path,
            count,
            self.detection,
            duplicates,
            repeated,
            tuple(unseen),
            compared,
            self.held.notes,
            tuple(self.loaded.wrapping.facts()),
            dropped,
        )

    def _told(self, name: str) -> str:
        return f"{name} in {self.place(name)}"


def _diff(one: _File, two: _File, sets_a: Sequence[str], sets_b: Sequence[str]) -> Diff:
    """Compare some sets of two files, the first with the first and so on."""
    known = one.detection is not None and two.detection is not None
    names_a = _Names.of(one, sets_a, _rules(one.detection, two.detection.side) if known else None)
    names_b = _Names.of(two, sets_b, _rules(two.detection, two.detection.side) if known else None)
    pairs = [(names_a.keys[name], names_b.keys[name]) for name in sorted(names_a.keys.keys() & names_b.keys.keys())]
    compared = [_compared(one, names_a.tensors[one], two, names_b.tensors[two]) for one, two in pairs]
    differences = sorted((found for found in compared if found is not None), key=_importance)
    only_a, dropped_a = names_a.alone(one for one, _ in pairs)
    only_b, dropped_b = names_b.alone(two for _, two in pairs)
    return Diff(
        a=one.side(names_a.duplicates, dropped_a, sets_a),
        b=two.side(names_b.duplicates, dropped_b, sets_b),
        only_a=only_a,
        only_b=only_b,
        differences=tuple(differences),
        equal=compared.count(None),
        renamed=sum(names_a.bare[one] != names_b.bare[two] for one, two in pairs),
    )


@dataclass(frozen=True)
class _Names:
    """The tensors of a file that are compared.

    Attributes:
        tensors: By their own keys; those of a set that does not stand in the state dict begin with its place.
        keys: Own keys by the name under which they are compared: which set, and the name there.
        bare: Keys in the set, without its place, by own keys.
        duplicates: Own keys that are not compared, for they repeat another one.
        dropped: Own keys that a rule drops.
    """

    tensors: Mapping[str, StoredTensor]
    keys: Mapping[tuple[int, str], str]
    bare: Mapping[str, str]
    duplicates: tuple[str, ...]
    dropped: frozenset[str]

    @classmethod
    def of(cls, file: _File, names: Iterable[str], rules: KeyMapping | None) -> _Names:
        """Name the tensors of some sets; of each set by the same rules."""
        tensors: dict[str, StoredTensor] = {}
        keys: dict[tuple[int, str], str] = {}
        bare: dict[str, str] = {}
        duplicates: list[str] = []
        late = file.held.late if AVERAGED in names else {}
        for number, name in enumerate(names):
            prefix, skipped = file.prefix(name), late if name == TRAINING else {}
            kept = {key: tensor for key, tensor in file.sets[name].items() if key not in skipped}
            held, changed = _changed(kept, rules)
            plain = {key: tensor for key, tensor in held.items() if key not in changed}
            own, repeated = _named(plain, file.originals(name), rules)
            own |= {target: key for key, target in changed.items()}
            tensors |= {f"{prefix}{key}": tensor for key, tensor in held.items()}
            bare |= {f"{prefix}{key}": key for key in held}
            keys |= {(number, target): f"{prefix}{key}" for target, key in own.items()}
            duplicates += [f"{prefix}{key}" for key in repeated]
        dropped = frozenset(own for own, key in bare.items() if rules is not None and _is_dropped(key, rules))
        return cls(tensors, keys, bare, tuple(duplicates), dropped)

    def alone(self, paired: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the own keys that have no counterpart: those that need one, and those that a rule drops."""
        left = sorted(set(self.tensors) - set(self.duplicates) - set(paired))
        return tuple(k for k in left if k not in self.dropped), tuple(k for k in left if k in self.dropped)


def _detected(loaded: Checkpoint, among: tuple[Port, ...] | None, variant: str | None) -> Detection | None:
    try:
        return built.detected(loaded.state_dict, among, variant)
    except DetectionError as error:
        if among is not None or variant is not None:
            raise DetectionError(f"`{loaded.path}`: {error}") from error
        return None


def _is_dropped(key: str, rules: KeyMapping) -> bool:
    match = rules.match(key)
    return match is not None and match.action == DROP


def _rules(found: Detection, to: str) -> KeyMapping:
    return engine.rules_between(found.port.mapping, found.side, to)


def _changed(state_dict: Tensors, rules: KeyMapping | None) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Return the tensors as rules make them of those they change, under keys that tell so; and the target of each key.

    What does not fit its rule stays as it is, and has no counterpart then.
    """
    tensors, targets = dict(state_dict), {}
    for one in rules.applications(state_dict) if rules is not None and rules.changes_tensors else ():
        if not one.rule.changes_tensors or not one.rule.is_computable:
            continue
        try:
            made = engine.made(one, state_dict)
        except ConversionError:
            continue
        for key in one.sources:
            del tensors[key]
        for number, (target, tensor) in enumerate(made):
            own = " + ".join(one.sources) + (f" ({one.rule.describe(number)})" if len(one.sources) == 1 else "")
            tensors[own], targets[own] = tensor, target
    return tensors, targets


def _named(state_dict: Tensors, originals: Tensors, rules: KeyMapping | None) -> tuple[dict[str, str], list[str]]:
    """Name every key as the rules do, and list the duplicates of originals.

    A key that no rule keeps has its own name, unless another key is called so.
    """
    targets: dict[str, str] = {}
    others, duplicates = [], []
    for key, tensor in sorted(state_dict.items()):
        match = None if rules is None else rules.match(key)
        if match is None or match.action in CHANGED or (not match.targets and match.action != DROP_DUPLICATE):
            others.append(key)
        elif match.targets:
            targets[match.targets[0]] = key
        elif match.twin in originals and engine.same_bits(tensor, originals[match.twin]):
            duplicates.append(key)
        else:
            others.append(key)
    return {**{key: key for key in others}, **targets}, duplicates


def _compared(a: str, one: StoredTensor, b: str, two: StoredTensor) -> Difference | None:
    """Compare two tensors; None where they are the same bit by bit."""
    specs = spec_of(one), spec_of(two)
    if one.shape != two.shape:
        return Difference(a, b, SHAPE, *specs)
    if engine.same_bits(one, two):
        return None
    return Difference(a, b, VALUE if one.dtype == two.dtype else DTYPE, *specs, *gaps.numbers(one, two))


def _importance(difference: Difference) -> tuple[int, float, str]:
    largest = difference.max_abs or 0.0
    kinds = (SHAPE, DTYPE, VALUE)
    return kinds.index(difference.kind), -math.inf if math.isnan(largest) else -largest, difference.a
