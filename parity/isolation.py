"""Teacher forcing: run every new module on what its twin was given, so that each shows only its own error.

The isolated run takes the legacy side's decisions and draws, gives every module the inputs of its twin, goes on with
the twin's outputs and, backward, with the gradients of these. What differs then is computed otherwise by that very
module, or by the code that calls it; several errors are seen apart from each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from converters.mapping import Mapping
from legacy_adapters.trace_writer import Record

from .blame import describe
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
        records: how many of its records differ by themselves.
        first: the first of them, in the isolated run.
        accumulated: the same record in the ordinary run, with what came before; None if that has no such record.
    """

    where: str
    records: int
    first: Comparison
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


def places(isolated: Iterable[Comparison], accumulated: Iterable[Comparison]) -> tuple[Place, ...]:
    """Group what differs by itself by the place to blame, in the order of the first difference of each.

    Left out is what says nothing of its own: a gradient that several modules give on, after the first of them; and what
    is inside a module whose input has another shape, because it could not be given its twin's.
    """
    ordinary = {comparison.pair.new.key: comparison for comparison in accumulated}
    found: dict[str, list[Comparison]] = {}
    strangers: set[tuple[str, str]] = set()
    given_on = ""
    for comparison in isolated:
        record = comparison.pair.new
        if comparison.accepted:
            continue
        where = describe(comparison).where
        if any((record.phase, path) in strangers for path in _paths(where)):
            continue
        if record.kind == "module_in" and _form(record) != _form(comparison.pair.legacy):
            strangers.add((record.phase, record.name))
        if record.kind == "out_grad" and record.digest == given_on:
            continue
        given_on = record.digest
        if record.kind == "grad":
            where = next((path for path in _paths(where) if path in found), where)
        found.setdefault(where, []).append(comparison)
    return tuple(
        Place(where, len(group), group[0], ordinary.get(group[0].pair.new.key)) for where, group in found.items()
    )


def _form(record: Record) -> tuple[str, tuple[int, ...]]:
    return record.dtype, record.shape


def _paths(name: str) -> Iterator[str]:
    """Yield ``name`` and the paths of the modules it is in, innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
