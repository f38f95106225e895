"""Say what the legacy side recorded of its parameters in terms of the new side's.

A rule that only renames pairs a record with one of the new side's as it is. One that splits, joins, permutes, reshapes
or cuts a parameter makes other tensors, so the legacy side's records of it (weights, gradients, states, optimizer's
states, initial values) are replaced by those that the rule makes: each is a view of what was recorded, with a digest of
its own, and pairs with one record of the new side. Every element of both sides is compared this way. What an element
does not have of its own, such as a learning rate or the number of steps, every part has.

What cannot be made stays as it was recorded and has no twin: a part of what is to be joined is missing or its settings
are others, or the shape does not fit the rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from converters.errors import ConversionError
from converters.rules.changing import UnfitShapeError
from converters.rules.mapping import Application
from converters.rules.mapping import Mapping as Rules
from converters.rules.values import applied
from legacy_adapters.correspondence import TAP
from legacy_adapters.recording.replay import renamed_decision
from legacy_adapters.recording.trace_writer import DTYPES, Record, content_digest
from legacy_adapters.tasks.initialising import TRAINED

from ..traces.kinds import OF_PARAMETERS, Kind
from ..traces.trace import Recording, Trace
from .forms import PERMUTED, SELECTED, formed

_ARROW, _PLUS = " -> ", " + "
_VALUES = frozenset((Kind.PARAM, Kind.STATE, Kind.INIT))


@dataclass(frozen=True)
class View:
    """A tensor that a rule makes of recorded ones.

    Attributes:
        sources: the records, in the rule's order.
        one: the rule.
        number: which of the rule's targets it is.
        rest: of tensors that are no weights, as in :func:`converters.rules.values.applied`; None for weights.
    """

    sources: tuple[Record, ...]
    one: Application
    number: int
    rest: float | None

    def made(self, trace: Trace) -> Tensor:
        """Read the sources, checked, and return the tensor."""
        return applied(self.one.rule, [trace.checked_tensor(record) for record in self.sources], self.rest)[self.number]


def in_new_form(legacy: Recording, rules: Rules) -> Recording:
    """Return a recording of the legacy side with its parameters, and what the family's forms name, as the new side has it.

    A golden file has been recorded so, and a recording of that form is returned as it is.

    Raises:
        parity.traces.trace.TraceError: if a tensor that a rule changes cannot be read or is not what was recorded.
    """
    if not isinstance(legacy, Trace) or not (rules.changes_tensors or rules.forms) or legacy.views:
        return legacy
    return _with_forms(_with_parameters(legacy, rules) if rules.changes_tensors else legacy, rules)


def _with_forms(legacy: Trace, rules: Rules) -> Trace:
    made = {one.view.source: one for one in formed(legacy, legacy.records, rules.forms)}
    if not made:
        return legacy
    views = {one.record.digest: one.view for one in made.values()}
    entries = {
        kind: [one.entry for one in made.values() if one.kind == kind] for kind in (PERMUTED, SELECTED)
    }
    return replace(
        legacy,
        records=tuple(made[record].record if record in made else record for record in legacy.records),
        views={**views, **legacy.views},
        coverage={**legacy.coverage, **entries},
    )


def _with_parameters(legacy: Trace, rules: Rules) -> Trace:
    shapes = {record.name: record.shape for record in legacy.records if record.kind in _VALUES and not record.slot}
    making = _Making(legacy, shapes)
    made: dict[Record, Sequence[Record]] = {}
    for one, records in _applications(legacy.records, rules):
        found = making.made(one, records)
        if found:
            made |= {records[0]: found, **{record: () for record in records[1:]}}
    new = tuple(form for record in legacy.records for form in made.get(record, (record,)))
    coverage = {**legacy.coverage, **_counts(legacy, new)}
    return replace(legacy, records=new, views=making.views, coverage=coverage)


def _counts(legacy: Trace, new: Sequence[Record]) -> dict[str, list[dict[str, Any]]]:
    """Return the numbers of records that the run counted, with those made of several or to several."""
    more = Counter((record.phase, record.kind) for record in new)
    more.subtract((record.phase, record.kind) for record in legacy.records)
    counted = legacy.coverage.get("records")
    if counted is None:
        return {}
    return {"records": [dict(one, count=one["count"] + more[one["phase"], one["kind"]]) for one in counted]}


def decisions_for_new_side(bundle: Mapping[str, Tensor], rules: Rules) -> dict[str, Tensor]:
    """Return the legacy side's decisions and draws, which are in the new side's form, under the new side's names."""
    return {renamed_decision(key, lambda name: rules.other_names.new_name(TAP, name)): bundle[key] for key in bundle}


def twin_name(record: Record, rules: Rules) -> str | None:
    """Return the name of a legacy record of a parameter on the new side; None if it has none there."""
    _, arrow, target = record.name.rpartition(_ARROW)
    if arrow:
        return target
    targets = rules.targets_of(record.name)
    match = rules.match(record.name)
    return targets[0] if len(targets) == len(match.sources) == 1 else None


def own_names(name: str) -> tuple[str, ...]:
    """Return the legacy side's parameters that a legacy record's name stands for."""
    sources, arrow, _ = name.partition(_ARROW)
    return tuple(sources.split(_PLUS)) if arrow else (name,)


def new_names(names: Iterable[str], rules: Rules) -> dict[str, tuple[tuple[str, int], ...]]:
    """Return of every parameter of the new side what it is made of, as far as ``names`` of the legacy side tell.

    That is: legacy parameters, in the order of the rule, each with the number of its part.
    """
    return {
        target: tuple((source, number) for source in one.sources)
        for one in rules.applications(names)
        if not one.missing
        for number, target in enumerate(one.targets)
    }


def _applications(records: Sequence[Record], rules: Rules) -> Iterator[tuple[Application, list[Record]]]:
    """Yield every rule that changes tensors with the records of one value that it takes."""
    groups: dict[tuple[str, str, int, str], dict[str, Record]] = {}
    for record in records:
        match = rules.match(record.name) if record.kind in OF_PARAMETERS else None
        if match is not None and rules.rules[match.rule].changes_tensors:
            groups.setdefault((record.phase, record.kind, record.call, record.slot), {})[record.name] = record
    for group in groups.values():
        for one in rules.applications(group):
            if not one.missing and one.rule.is_computable:
                yield one, [group[name] for name in one.sources]


class _Making:
    """Make records of others.

    Args:
        legacy: that they are of.
        shapes: of its parameters.

    Attributes:
        views: what the records that were made so far are views of, by their digest.
    """

    def __init__(self, legacy: Trace, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self.views: dict[str, View] = {}
        self._legacy, self._shapes = legacy, shapes
        self._known: dict[tuple, tuple[Record, ...]] = {}  # what a rule made of equal contents

    def made(self, one: Application, records: Sequence[Record]) -> list[Record]:
        """Return the records that a rule makes of others; none if it cannot."""
        first, names = records[0], _names(one)
        if not all(_is_of_elements(record, self._shapes.get(record.name)) for record in records):
            same = len({record.digest for record in records}) == 1
            return [replace(first, name=name) for name in names] if same else []
        rest = None if first.kind in _VALUES else 0.0
        content = (one.index, rest, tuple(record.digest for record in records))
        if content not in self._known:
            self._known[content] = tuple(self._contents(one, records, rest))
        return [
            replace(first, name=name, dtype=like.dtype, shape=like.shape, digest=like.digest)
            for name, like in zip(names, self._known[content])
        ]

    def _contents(self, one: Application, records: Sequence[Record], rest: float | None) -> Iterator[Record]:
        """Yield records with the dtype, shape and digest of what a rule makes; nothing if it cannot."""
        if len({record.dtype for record in records}) > 1:
            return
        try:
            one.rule.shapes([record.shape for record in records])
            tensors = applied(one.rule, [self._legacy.checked_tensor(record) for record in records], rest)
        except (UnfitShapeError, ConversionError):
            return
        for number, tensor in enumerate(tensors):
            digest = content_digest(tensor)
            self.views.setdefault(digest, View(tuple(records), one, number, rest))
            yield replace(records[0], dtype=DTYPES[tensor.dtype], shape=tuple(tensor.shape), digest=digest)


def _names(one: Application) -> list[str]:
    """Name the records that a rule makes: as on the legacy side, and where it is not one to one, as on both."""
    if len(one.sources) == len(one.targets) == 1:
        return list(one.sources)
    return [f"{_PLUS.join(one.sources)}{_ARROW}{target}" for target in one.targets]


def _is_of_elements(record: Record, shape: tuple[int, ...] | None) -> bool:
    """Tell whether a record has a number for every element of its parameter, of that shape if it is known."""
    if record.kind == Kind.SETTING or record.slot in (TRAINED, "step"):
        return False
    return bool(record.shape) or record.kind in (*_VALUES, Kind.GRAD) or shape == ()
