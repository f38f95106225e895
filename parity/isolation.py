"""Teacher forcing: run every new module on what its twin was given, so that each shows only its own error.

The isolated run takes the legacy side's decisions and draws, gives every module the inputs of its twin, goes on with
the twin's outputs and, backward, with the gradients of these. What differs then is computed otherwise by that very
module, or by the code that calls it; several errors are seen apart from each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from converters.mapping import Mapping
from legacy_adapters.steps import step_of
from legacy_adapters.trace_writer import Record

from .blame import describe, describe_missing
from .compare import Comparison
from .pairing import translator
from .trace import Trace

#: Kinds of records whose values the isolated run goes on with.
FORCED = ("module_in", "module_out", "in_grad", "out_grad")


@dataclass(frozen=True)
class Place:
    """A place that computes something else by itself.

    Attributes:
        where: module path, parameter or loss term; ``the detector`` for the detector's own code.
        message: what differs first, one sentence.
        records: how many of its records differ by themselves, or are missing.
        record: the first of them; of the legacy side if it is missing.
        alone: its comparison in the isolated run; None if it is missing.
        accumulated: its comparison in the ordinary run, with what came before; None if that has none.
    """

    where: str
    message: str
    records: int
    record: Record
    alone: Comparison | None
    accumulated: Comparison | None


@dataclass(frozen=True)
class Isolation:
    """What an isolated run showed.

    Attributes:
        comparisons: every pair of it.
        places: what differs by itself.
    """

    comparisons: tuple[Comparison, ...]
    places: tuple[Place, ...]


def write_forcing(path: Path, legacy: Trace, mapping: Mapping) -> str:
    """Write what :class:`legacy_adapters.forcing.Forcing` reads, under the new side's names, and return its path."""
    translate = translator(mapping)
    records = [
        (record.phase, record.kind, translate(record), record.call, record.slot, record.digest)
        for record in legacy.records
        if record.kind in FORCED
    ]
    shards = {digest: legacy.shard_of(digest) for *_, digest in records}
    path.write_text(json.dumps(dict(folder=str(legacy.folder), shards=shards, records=records)))
    return str(path)


def places(
    isolated: Iterable[Comparison], missing: Sequence[Record], accumulated: Iterable[Comparison]
) -> tuple[Place, ...]:
    """Group what differs by itself by the place to blame, in the order of the first difference of each.

    Left out is what says nothing of its own: a gradient that several modules give on, after the first of them; and what
    is inside a module that lacks an input or gets one of another shape, because it could not be given its twin's.

    Args:
        isolated: of the isolated run.
        missing: records of the legacy side that the isolated run should have and has not.
        accumulated: of the ordinary run.
    """
    ordinary = {comparison.pair.new.key: comparison for comparison in accumulated}
    strangers = {(record.phase, record.name) for record in missing if record.kind == "module_in"}
    found = _lost(missing, strangers)
    given_on = ""
    for comparison in isolated:
        record = comparison.pair.new
        if comparison.accepted or step_of(record.phase) is not None:  # no module is forced in steps of a training
            continue
        told = describe(comparison)
        where = told.where
        if any((record.phase, path) in strangers for path in _paths(where)):
            continue
        if record.kind == "module_in" and _form(record) != _form(comparison.pair.legacy):
            strangers.add((record.phase, record.name))
        if record.kind == "out_grad" and record.digest == given_on:
            continue
        given_on = record.digest
        if record.kind == "grad":
            where = next((path for path in _paths(where) if path in found), where)
        known = found.get(where)
        if known is None:
            found[where] = Place(where, told.message, 1, record, comparison, ordinary.get(record.key))
        else:
            found[where] = replace(known, records=known.records + 1)
    return tuple(found.values())


def _lost(missing: Sequence[Record], strangers: Set[tuple[str, str]]) -> dict[str, Place]:
    """Group the arguments that callers do not give, but for callers that are strangers themselves."""
    found: dict[str, Place] = {}
    for record in missing:
        told = describe_missing(record)
        if record.kind == "module_in" and not any((record.phase, path) in strangers for path in _paths(record.scope)):
            known = found.setdefault(told.where, Place(told.where, told.message, 0, record, None, None))
            found[told.where] = replace(known, records=known.records + 1)
    return found


def _form(record: Record) -> tuple[str, tuple[int, ...]]:
    return record.dtype, record.shape


def _paths(name: str) -> Iterator[str]:
    """Yield ``name`` and the paths of the modules it is in, innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
