"""Teacher forcing: run every new module on what its twin was given, so that each shows only its own error.

The isolated run takes the legacy side's decisions and draws, gives every module the inputs of its twin, goes on with
the twin's outputs and, backward, with the gradients of these. What differs then is computed otherwise by that very
module, or by the code that calls it; several errors are seen apart from each other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from legacy_adapters.inputs import TRAIN
from legacy_adapters.recording.trace_writer import INDEX_NAME, Key, Record, TraceWriter
from legacy_adapters.tasks import made_up, probes

from ..comparing.compare import Comparison
from ..traces.kinds import FLOW, OF_METHODS, OF_MODULES, Kind
from ..traces.trace import Trace
from .blame import DETECTOR, Divergence, describe, describe_missing
from .counterparts import Counterparts
from .diagnosing import Explanation

#: Phases in which no module is recorded.
_NOT_FORCED = (made_up.PHASE, probes.PHASE)
#: Kinds of records of the way forward that belong to the code between modules.
_FORWARD = frozenset((Kind.MODULE_IN, Kind.BASIS, Kind.TAP)) | OF_METHODS


@dataclass(frozen=True)
class Culprit:
    """A place whose code computes something else by itself.

    Attributes:
        where: module path, parameter or loss term; ``the detector`` for the detector's own code.
        message: what differs first, one sentence.
        records: how many of its records differ by themselves, or are missing.
        record: the first of them; of the legacy side if it is missing.
        alone: its comparison in the isolated run; None if it is missing.
        accumulated: its comparison in the ordinary run, with what came before; None if that has none.
        follows: where records differ that follow from it: module paths, parameters, loss terms.
        explanation: what the difference of ``alone`` is, and where in the tensor.
    """

    where: str
    message: str
    records: int
    record: Record
    alone: Comparison | None
    accumulated: Comparison | None
    follows: tuple[str, ...] = ()
    explanation: Explanation = field(default_factory=Explanation, repr=False)


@dataclass(frozen=True)
class Isolation:
    """What an isolated run showed.

    Attributes:
        comparisons: every pair of it.
        culprits: what differs by itself.
        reasons: why it cannot be compared with the legacy side, one sentence each; empty if it can.
    """

    comparisons: tuple[Comparison, ...]
    culprits: tuple[Culprit, ...]
    reasons: tuple[str, ...] = ()


def write_forcing(path: Path, legacy: Trace, keys: Mapping[Key, Key]) -> str:
    """Write what :class:`legacy_adapters.recording.forcing.Forcing` reads, by the new side's names; return its path.

    Args:
        path: of the file.
        legacy: the values.
        keys: the new side's key for each of the legacy side's, as in :class:`.pairing.Pairing`.
    """
    records = [
        (*keys.get(record.key, record.key), record.digest) for record in legacy.records if record.kind in OF_MODULES
    ]
    made = _written(path.with_suffix(".views"), legacy, {digest for *_, digest in records if not legacy.stores(digest)})
    shards = {digest: made.get(digest) or legacy.shard_of(digest) for *_, digest in records}
    path.write_text(json.dumps(dict(folder=str(legacy.folder), shards=shards, records=records)))
    return str(path)


def _written(folder: Path, legacy: Trace, digests: set[str]) -> dict[str, str]:
    """Write what is made of stored tensors; return the file of each digest, from the trace's folder."""
    if not digests:
        return {}
    writer = TraceWriter(str(folder))
    for record in {record.digest: record for record in legacy.records if record.digest in digests}.values():
        writer.add(*record.key, legacy.tensor(record))
    writer.finish(provenance={}, coverage={})
    shards = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))["shards"]
    return {digest: os.path.relpath(folder / shard, legacy.folder) for digest, shard in shards.items()}


def culprits_of(
    isolated: Iterable[Comparison],
    missing: Iterable[Record],
    accumulated: Iterable[Comparison],
    order: Sequence[Record],
    forced: Iterable[Sequence] = (),
    lone: Iterable[Record] = (),
    counterparts: Counterparts | None = None,
) -> tuple[Culprit, ...]:
    """Group what differs by itself by the place to blame, in the order of the first difference of each.

    Left out is what is inside a module that lacks an input or gets one of another shape, because it could not be given
    its twin's. What another place explains is folded into that.

    Args:
        isolated: of the isolated run, which makes no steps of a training.
        missing: records of the legacy side that the isolated run should have and has not.
        accumulated: of the ordinary run.
        order: all legacy records, in recording order.
        forced: keys of the isolated run's records in whose stead the twin's value was gone on with.
        lone: records of the new side that have no twin.
        counterparts: give what is missing its names on the new side; None if they are the same.
    """
    position = {record.key: index for index, record in enumerate(order)}
    calls = [record for record in missing if record.kind == Kind.MODULE_IN]
    renamed = [record if counterparts is None else counterparts.renamed(record) for record in calls]
    wrong = [_Wrong(position[call.key], record, None) for call, record in zip(calls, renamed)]
    isolated = tuple(isolated)
    wrong += [_Wrong(position[c.pair.legacy.key], c.pair.new, c) for c in isolated if not c.accepted]
    flow = _Flow(isolated, forced, lone)
    ordinary = {comparison.pair.new.key: comparison for comparison in accumulated}
    culprits: dict[str, Culprit] = {}
    strangers = {(item.record.phase, item.record.name) for item in wrong if item.comparison is None}
    # what is not forced at all comes last: it shows what is known already, or what nothing else shows
    for item in sorted(wrong, key=lambda item: (item.record.phase in _NOT_FORCED, item.position)):
        record, comparison, own = item.record, item.comparison, item.divergence
        if any((record.phase, path) in strangers for path in _paths(own.where)):
            continue
        if comparison is not None and record.kind == Kind.MODULE_IN and _form(record) != _form(comparison.pair.legacy):
            strangers.add((record.phase, record.name))
        where = flow.source(item, culprits)
        if where not in culprits:
            culprits[where] = Culprit(where, own.message, 0, record, comparison, ordinary.get(record.key))
        culprit = culprits[where]
        if where == own.where:
            culprits[where] = replace(culprit, records=culprit.records + 1)
        elif own.where not in culprit.follows:
            culprits[where] = replace(culprit, follows=(*culprit.follows, own.where))
        flow.carry(item, where)
    return tuple(culprits.values())


def count_line(culprits: Sequence[Culprit]) -> str:
    """Say how many places there are."""
    if len(culprits) == 1:
        return "1 place differs by itself, given equal inputs"
    return f"{len(culprits)} places differ by themselves, given equal inputs"


@dataclass(frozen=True)
class _Wrong:
    """A record that differs or is missing.

    Attributes:
        position: in the legacy side's recording order.
        record: of the new side; of the legacy side if it is missing.
        comparison: of it; None if it is missing.
    """

    position: int
    record: Record
    comparison: Comparison | None

    @cached_property
    def divergence(self) -> Divergence:
        return describe_missing(self.record) if self.comparison is None else describe(self.comparison)


class _Flow:
    """Follow what could not be forced from one place to the next.

    Inputs and outputs of modules and of their methods are forced, and so are decisions and gradients of outputs. Wrong
    values reach other code all the same as gradients of inputs and of parameters, in arguments and results that cannot
    be replaced, in the calls of a module that is called more or less often, and where no module is recorded.

    Args:
        isolated: comparisons of the isolated run.
        forced: as in :func:`culprits_of`.
        lone: as in :func:`culprits_of`.
    """

    def __init__(self, isolated: Sequence[Comparison], forced: Iterable[Sequence], lone: Iterable[Record]) -> None:
        self._forced = {tuple(key) for key in forced}
        #: who makes what has no twin where it is made, but perhaps where a method passes it on
        self._makers = {(r.phase, r.digest): r.name for r in lone if r.kind == Kind.MODULE_OUT}
        records = [comparison.pair.new for comparison in isolated]
        #: modules whose gradient of an output, or an input, is known, so that it is forced, or seen
        self._with_gradient = {(record.kind, record.name) for record in records if record.kind in FLOW}
        self._callers: dict[str, set[str]] = {}
        for record in records:
            if record.kind == Kind.METHOD_IN:
                self._callers.setdefault(record.name, set()).add(record.scope)
        called = self._called = {record.name for record in records if record.kind == Kind.MODULE_OUT}
        #: modules that go on with values which are not forced: what comes of them reaches the loss terms
        self._open = {"", *self._callers} - (called - set(self._callers))
        #: loss terms that the detector's own methods give: slots are method, term, number
        self._terms = {term for r in records if r.kind == Kind.METHOD_OUT and not r.name for term in _parts(r.slot)[1:]}
        self._differing = {c.pair.new.key for c in isolated if not c.accepted}
        #: whose code decides differently about made-up predictions because it is given others
        self._other_basis = {
            r.scope for r in records if r.key in self._differing and r.key[:2] == (made_up.PHASE, Kind.BASIS)
        }
        self._tainted: dict[tuple[str, str], str] = {}
        self._backward: dict[str, str] = {}
        self._miscounted: dict[tuple[str, str], str] = {}
        self._decided: dict[str, str] = {}
        self._random: dict[str, str] = {}
        #: the last differing gradient of an output, which modules inside may give on, and its place
        self._given_on = ("", "")

    def source(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str:
        """Return the place that ``item`` follows from; its own if it follows from none of those in ``culprits``."""
        record, where = item.record, item.divergence.where
        for explain in (self._of_weights, self._of_phase, self._of_calls, self._of_kind):
            source = explain(item, culprits)
            if source is not None:
                return source
        return self._tainted.get((record.phase, where), where)

    def carry(self, item: _Wrong, where: str) -> None:
        """Note where the wrong values of ``item``, which belongs to the place ``where``, go on."""
        record, comparison = item.record, item.comparison
        phase = record.phase
        if record.kind == Kind.LOSS:
            for scope in self._open:
                self._loosen(scope, where)
        if phase == TRAIN and record.kind in _FORWARD and record.key not in self._forced and self._is_open(where):
            for caller in self._callers.get(where, ()):
                self._loosen(caller, where)
        if record.kind == Kind.MODULE_IN:
            strange = comparison is not None and comparison.pair.scope != record.scope
            if comparison is None or strange:
                self._miscounted.setdefault((phase, record.name), where)
            if strange:
                self._taint(phase, record.scope, where)
        elif record.kind == Kind.METHOD_IN and record.key not in self._forced:
            self._taint(phase, record.name, where)
        elif record.kind == Kind.METHOD_OUT and record.key not in self._forced:
            for caller in self._callers.get(record.name, ()):
                self._taint(phase, caller, where)
        elif record.kind == Kind.IN_GRAD:
            self._backward.setdefault(record.name, where)
            self._loosen(record.scope, where)
        elif record.kind == Kind.OUT_GRAD:
            self._given_on = (record.digest, where)
        elif record.kind == Kind.TAP and not self._basis_differs(record):
            self._decided.setdefault(record.name, where)
        elif record.kind == Kind.RANDOM:
            self._random.setdefault(phase, where)

    def _taint(self, phase: str, scope: str, where: str) -> None:
        if (scope or DETECTOR) != where:
            self._tainted.setdefault((phase, scope or DETECTOR), where)

    def _loosen(self, scope: str, where: str) -> None:
        """Note that the code of ``scope`` goes on with a wrong gradient, and who calls its methods does, too."""
        stack = [scope]
        while stack:
            scope = stack.pop()
            if (scope or DETECTOR) not in self._backward:
                self._backward[scope or DETECTOR] = where
                stack += self._callers.get(scope, ())

    def _basis_differs(self, record: Record) -> bool:
        keys = (key for key in self._differing if key[1] == Kind.BASIS)
        return any((key[0], key[2], key[3]) == (record.phase, record.name, record.call) for key in keys)

    def _of_weights(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str | None:
        """A module with other weights computes something else."""
        if item.record.kind not in (Kind.MODULE_OUT, Kind.IN_GRAD):
            return None
        weights = (where for where, culprit in culprits.items() if culprit.record.kind == Kind.PARAM)
        return next((where for where in weights if _owner(where) == item.divergence.where), None)

    def _of_phase(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str | None:
        """Where modules are not recorded, nothing is forced but decisions, and made-up predictions are equal."""
        record = item.record
        if record.phase not in _NOT_FORCED or not culprits:
            return None
        if item.divergence.where in culprits:
            return item.divergence.where
        if record.phase == probes.PHASE:
            return None
        is_result = record.name == made_up.NAME
        rests_on_other = record.scope in self._other_basis if is_result else self._basis_differs(record)
        return next(iter(culprits)) if record.kind != Kind.TAP or rests_on_other else None

    def _of_calls(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str | None:
        """Of a module that is called more or less often, another call than the twin stands under each number."""
        comes = item.record.scope or DETECTOR
        expected = item.divergence.where
        if expected != comes and item.record.kind == Kind.MODULE_IN and expected not in culprits:
            # somebody comes in another's stead: whoever did something else before
            return comes if item.comparison is not None and comes in culprits else None
        paths = _paths(item.record.name) if item.record.kind in OF_MODULES else ()
        return next((w for path in paths if (w := self._miscounted.get((item.record.phase, path)))), None)

    def _of_kind(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str | None:
        record, where = item.record, item.divergence.where
        if record.kind == Kind.LOSS:
            return self._of_loss(item, culprits)
        if record.kind in OF_METHODS:
            maker = self._makers.get((record.phase, record.digest))
            return maker if maker in culprits else None
        if record.kind == Kind.GRAD:
            owner = _owner(record.name)
            holders = (*_paths(record.name), *(() if owner else (DETECTOR,)))
            if any(path in culprits for path in holders):
                return next(path for path in holders if path in culprits)
            return self._of_gradient(owner, _owner(owner), culprits)
        if record.kind == Kind.IN_GRAD:
            return self._of_gradient(record.name, record.scope, culprits)
        if record.kind == Kind.OUT_GRAD:
            if record.digest == self._given_on[0]:
                return self._given_on[1]
            return self._backward.get(where) or self._around(record.scope, culprits)
        if record.kind == Kind.TAP and not self._basis_differs(record):
            return self._decided.get(record.name)
        if record.kind == Kind.RANDOM:
            return self._random.get(record.phase)
        if record.kind in (Kind.STATE, Kind.PARAM):
            return next((path for path in _paths(record.name) if path in culprits), None)
        return None

    def _of_loss(self, item: _Wrong, culprits: Mapping[str, Culprit]) -> str | None:
        """A loss term follows from code whose results are not forced, if the terms are not results of a method."""
        if self._terms and (item.record.name == "total" or item.record.name in self._terms):
            return self._tainted.get((item.record.phase, DETECTOR))
        losses = [w for w, culprit in culprits.items() if culprit.record.kind == Kind.LOSS]
        code = [w for w, culprit in culprits.items() if self._is_open(w) and culprit.record.phase == item.record.phase]
        return next(iter((*reversed(code), *losses)), None)

    def _around(self, scope: str, culprits: Mapping[str, Culprit]) -> str | None:
        """Name who gives a wrong gradient to a module that has no twin, which is none that could be forced."""
        if not scope or scope in self._called:
            return None
        return next((place for place in (*_paths(_owner(scope)), DETECTOR) if place in culprits), None)

    def _is_open(self, where: str) -> bool:
        return ("" if where == DETECTOR else where) in self._open

    def _of_gradient(self, name: str, scope: str, culprits: Mapping[str, Culprit]) -> str | None:
        """What a module gives back follows from what its parts give back, or from a gradient that is not known."""
        inner = self._backward.get(name or DETECTOR)
        if inner is not None or not name:
            return inner
        if (Kind.OUT_GRAD, name) in self._with_gradient:
            return None
        beside = [w for w in culprits if w.startswith(f"{scope}.") and (Kind.IN_GRAD, w) not in self._with_gradient]
        return next(reversed(beside), self._backward.get(scope or DETECTOR))


def _parts(slot: str) -> tuple[str, str]:
    """Return the method's name in a slot, and the rest without the numbers of a list at its end."""
    method, _, rest = slot.partition(".")
    parts = rest.split(".")
    while len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    return method, ".".join(parts)


def _owner(parameter: str) -> str:
    return parameter.rpartition(".")[0]


def _form(record: Record) -> tuple[str, tuple[int, ...]]:
    return record.dtype, record.shape


def _paths(name: str) -> Iterator[str]:
    """Yield ``name`` and the paths of the modules it is in, innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
