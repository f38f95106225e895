"""Apply a mapping to a state dict: a pure function, in both directions, that accounts for every key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from converters import errors
from converters.errors import listed
from converters.formats.stored import StoredTensor
from converters.rules.class_rows import class_counts
from converters.rules.layout import Layout, TensorSpec, fitting_specs, spec_of
from converters.rules.ledger import DROP_DUPLICATE, UNMAPPED, Entry, Ledger
from converters.rules.mapping import Application
from converters.rules.mapping import Mapping as KeyMapping
from converters.rules.values import AnyTensor, applied
from legacy_adapters.ground.names import LEGACY, NEW


@dataclass(frozen=True)
class Conversion:
    """A converted state dict, keys sorted, the ledger of how it came about, and the rules in their direction.

    The tensors are those of the source, not copies, but for those that a rule changes.
    """

    state_dict: Mapping[str, AnyTensor]
    ledger: Ledger
    rules: KeyMapping


def convert(
    state_dict: Mapping[str, AnyTensor],
    mapping: KeyMapping,
    direction: str,
    target_layout: Layout,
    allow_unmapped: bool = False,
    originals: Mapping[str, AnyTensor] | None = None,
) -> Conversion:
    """Carry a state dict to the other layout, and check the result against it.

    Args:
        state_dict: The source's tensors by key.
        mapping: The family's mapping, always from legacy to new, whatever the direction.
        direction: The side to reach: `new` or `legacy`.
        target_layout: What the result has to look like, of that same side.
        allow_unmapped: Leave out the source keys that no rule matches, instead of refusing the source.
        originals: Tensors that duplicates have to repeat, if these are not those of the state dict itself.

    Raises:
        ConversionError: One of its subclasses, naming the first keys concerned, if the source has the wrong number of
            classes, a key without a rule, a duplicate that differs or a shape that does not fit its rule, or if the
            result has a missing, unexpected, misshapen or mistyped key, or cannot be made because the rules are not
            invertible.
        ValueError: If `direction` is not a side.
    """
    source = NEW if _is_legacy(direction) else LEGACY
    rules = rules_between(mapping, source, direction)
    return _applied(state_dict, rules, target_layout, allow_unmapped, originals)


def canonicalise(
    state_dict: Mapping[str, AnyTensor],
    mapping: KeyMapping,
    side: str,
    layout: Layout,
    allow_unmapped: bool = False,
    originals: Mapping[str, AnyTensor] | None = None,
) -> Conversion:
    """Leave out of a state dict what the mapping would drop, rename nothing, and check the result.

    What training adds to the layout that a model is built with, such as duplicates, is gone afterwards.

    Args:
        state_dict: The source's tensors by key.
        mapping: The family's mapping, always from legacy to new, whatever the side.
        side: The side of the source, and of the result: `new` or `legacy`.
        layout: What the result has to look like, of that same side.
        allow_unmapped: Leave out the source keys that no rule matches, instead of refusing the source.
        originals: As in `convert`.

    Raises:
        ConversionError: As `convert` does.
        ValueError: If `side` is not a side.
    """
    return _applied(state_dict, rules_between(mapping, side, side), layout, allow_unmapped, originals)


def rules_between(mapping: KeyMapping, source: str, target: str) -> KeyMapping:
    """Return the rules that take a state dict of side `source` to side `target`, which may be the same.

    Raises:
        ValueError: If one of them is not a side.
    """
    rules = mapping if _is_legacy(source) else mapping.inverse()
    return rules.canonical() if _is_legacy(source) == _is_legacy(target) else rules


def _is_legacy(side: str) -> bool:
    if side not in (LEGACY, NEW):
        raise ValueError(f"There is no side `{side}`, expected `{NEW}` or `{LEGACY}`.")
    return side == LEGACY


def _applied(
    state_dict: Mapping[str, AnyTensor],
    rules: KeyMapping,
    target_layout: Layout,
    allow_unmapped: bool,
    originals: Mapping[str, AnyTensor] | None,
) -> Conversion:
    check_computable(rules)
    _check_class_count(state_dict, rules, target_layout)
    ledger = Ledger(tuple(_entries(state_dict, rules)))
    if not allow_unmapped:
        _check_unmapped(ledger, rules)
    _check_duplicates(state_dict, state_dict if originals is None else originals, ledger, rules)
    produced = {key: tensor for one in rules.applications(sorted(state_dict)) for key, tensor in made(one, state_dict)}
    _check_layout(produced, target_layout)
    return Conversion(dict(sorted(produced.items())), ledger, rules)


def check_computable(rules: KeyMapping) -> None:
    """Refuse rules that cannot be applied: inverses that lack the values they would have to put back.

    Raises:
        NotInvertibleError: Naming the first.
    """
    for rule in rules.rules:
        if not rule.is_computable:
            back = rule.inverse()
            raise errors.NotInvertibleError(
                f"Mapping `{rules.family}` is not invertible: its rule `{back.text}` leaves out numbers of "
                f"`{back.source}` that the way back needs; say what number the rest is, if it is one (`rest`), or "
                "convert the other way only."
            )


def made(one: Application, tensors: Mapping[str, AnyTensor], rest: float | None = None) -> list[tuple[str, AnyTensor]]:
    """Apply a rule to tensors by key, and return its targets with their tensors.

    Args:
        one: The rule and its keys.
        tensors: With the shapes of the sources, and of one dtype.
        rest: As in `values.applied`: what stands for the rest of a tensor that is none of the weights.

    Raises:
        MissingKeyError, ShapeMismatchError, DtypeMismatchError: If a source is not there or does not fit the others.
        RestDiffersError: If numbers that the rule says to know are others.
    """
    if not one.targets:
        return []
    specs = fitting_specs(one, {key: spec_of(tensors[key]) for key in one.sources if key in tensors})
    try:
        found = applied(one.rule, [tensors[key] for key in one.sources], rest)
    except errors.RestDiffersError as error:
        raise errors.RestDiffersError(
            f"Key `{one.sources[0]}` {error} (rule {one.index}: `{one.rule.text}`)."
        ) from None
    return list(zip(specs, found))


def with_known_rests(state_dict: Mapping[str, AnyTensor], mapping: KeyMapping) -> dict[str, AnyTensor]:
    """Return a state dict of the mapping's source with the numbers that its rules say to know, where it has others.

    So made-up weights can be converted. What rules leave out without a word on its values stays as it is.
    """
    changed = {}
    for one in mapping.applications(state_dict):
        back = one.rule.inverse() if one.rule.action == "slice" and one.rule.rest is not None else None
        if back is not None:
            tensors = applied(one.rule, [state_dict[one.sources[0]]], rest=one.rule.rest)
            changed[one.sources[0]] = applied(back, tensors)[0]
    return {**state_dict, **changed}


def same_bits(first: AnyTensor, second: AnyTensor) -> bool:
    """Tell whether two tensors have the same dtype, shape and bits; NaN equals the same NaN, 0.0 is not -0.0."""
    if spec_of(first) != spec_of(second):
        return False
    one, other = (
        tensor if isinstance(tensor, StoredTensor) else StoredTensor.from_torch(tensor) for tensor in (first, second)
    )
    return all(left == right for left, right in zip(one.chunks(), other.chunks(), strict=True))


def _entries(keys: Iterable[str], mapping: KeyMapping) -> Iterable[Entry]:
    for key in sorted(keys):
        match = mapping.match(key)
        if match is None:
            yield Entry(key, None, None, UNMAPPED)
        else:
            yield from (Entry(key, target, match.rule, match.action) for target in match.targets or (None,))


def classes_of(state_dict: Mapping[str, AnyTensor], rules: KeyMapping) -> dict[int, list[str]]:
    """Group the tensors that have one row per class by their number of rows.

    What a rule changes is counted as it is afterwards, under its new key: before, its rows may be of several tensors.
    """
    specs = {key: spec_of(tensor) for key, tensor in sorted(state_dict.items())}
    for one in rules.applications(specs) if rules.changes_tensors else ():
        if one.rule.changes_tensors:
            try:
                changed = fitting_specs(one, specs)
            except errors.ConversionError:  # which is told when it is converted
                changed = {}
            for key in one.sources:
                specs.pop(key, None)
            specs |= changed
    return class_counts(specs, rules.class_keys)


def _check_class_count(state_dict: Mapping[str, AnyTensor], mapping: KeyMapping, layout: Layout) -> None:
    expected = sorted(class_counts(layout.tensors, mapping.class_keys))
    found = classes_of(state_dict, mapping)
    if not expected or not found or sorted(found) == expected:
        return
    if len(found) > 1:
        parts = "; ".join(f"{count} in {listed(keys, 1)}" for count, keys in sorted(found.items()))
        raise errors.ClassCountError(
            f"The source disagrees about its number of classes ({parts}), variant "
            f"`{layout.variant}` has {expected[0]}; check how the source was saved."
        )
    ((count, keys),) = found.items()
    raise errors.ClassCountError(
        f"The source has {count} classes, variant `{layout.variant}` has {expected[0]} (seen "
        f"in {listed(keys, 1)}); choose the variant that the source was trained as, or pass --num-classes to "
        "`ddq-convert convert`."
    )


def _check_unmapped(ledger: Ledger, mapping: KeyMapping) -> None:
    unmapped = [entry.source for entry in ledger.of(UNMAPPED)]
    if len(unmapped) == 1:
        raise errors.UnmappedKeyError(
            f"Key `{unmapped[0]}` of the source is matched by no rule of mapping "
            f"`{mapping.family}`; add a rule or pass --allow-unmapped to `ddq-convert convert`."
        )
    if unmapped:
        raise errors.UnmappedKeyError(
            f"{len(unmapped)} keys of the source are matched by no rule of mapping "
            f"`{mapping.family}`: {listed(unmapped)}; add rules or pass --allow-unmapped to `ddq-convert convert`."
        )


def _check_duplicates(
    state_dict: Mapping[str, AnyTensor], originals: Mapping[str, AnyTensor], ledger: Ledger, mapping: KeyMapping
) -> None:
    differing = []
    for entry in ledger.of(DROP_DUPLICATE):
        match = mapping.match(entry.source)
        twin = None if match is None else match.twin
        fault = _fault_of_twin(state_dict[entry.source], originals, twin, mapping)
        if fault is not None:
            differing.append((entry.source, twin, fault))
    if differing:
        key, twin, fault = differing[0]
        more = f" (and {len(differing) - 1} more like it)" if len(differing) > 1 else ""
        raise errors.DuplicateDiffersError(
            f"Key `{key}` should repeat `{twin}` bit by bit but {fault}{more}; "
            "decide which of the two holds the weights and remove the other."
        )


def _fault_of_twin(
    tensor: AnyTensor, originals: Mapping[str, AnyTensor], twin: str | None, mapping: KeyMapping
) -> str | None:
    """Say why a tensor cannot be left out for `twin`; None where it can."""
    if twin is None or twin not in originals:
        return "has no such twin"
    if mapping.match(twin) is None:
        return "that is matched by no rule"
    return None if same_bits(tensor, originals[twin]) else "differs from it"


def _remedy(specs: Iterable[tuple[TensorSpec, TensorSpec]]) -> str:
    """Say what makes dtypes fit, of pairs found and wanted: an option, where floating numbers are all that differs."""
    differing = [(have.dtype, want.dtype) for have, want in specs if have.dtype != want.dtype]
    if all("float" in have and want == "float32" for have, want in differing):
        return "pass --dtype fp32 to `ddq-convert convert`, which casts them"
    return "save the source with the expected dtypes"


def _check_layout(produced: Mapping[str, AnyTensor], layout: Layout) -> None:
    unexpected = sorted(produced.keys() - layout.tensors.keys())
    if unexpected:
        raise errors.UnexpectedKeyError(
            f"{len(unexpected)} key(s) of the result are not in the layout of "
            f"`{layout.variant}`: {listed(unexpected)}; check the rules and the variant."
        )
    missing = sorted(layout.tensors.keys() - produced.keys())
    if missing:
        raise errors.MissingKeyError(
            f"{len(missing)} key(s) of the layout of `{layout.variant}` are missing from the "
            f"result: {listed(missing)}; check that the source is complete."
        )
    specs = {key: (spec_of(tensor), layout.tensors[key]) for key, tensor in sorted(produced.items())}
    shapes = [
        f"{key} (expected {list(want.shape)}, found {list(have.shape)})"
        for key, (have, want) in specs.items()
        if have.shape != want.shape
    ]
    if shapes:
        raise errors.ShapeMismatchError(
            f"{len(shapes)} key(s) have another shape than those of `{layout.variant}`: "
            f"{listed(shapes)}; check the variant or config that was named, its number of classes included."
        )
    dtypes = [
        f"{key} (expected {want.dtype}, found {have.dtype})"
        for key, (have, want) in specs.items()
        if have.dtype != want.dtype
    ]
    if dtypes:
        raise errors.DtypeMismatchError(
            f"{len(dtypes)} key(s) have another dtype than those of `{layout.variant}`: "
            f"{listed(dtypes)}; {_remedy(specs.values())}."
        )
