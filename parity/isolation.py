"""Teacher forcing: run every new module on what its twin was given, so that each shows only its own error.

The isolated run takes the legacy side's decisions and draws, gives every module the inputs of its twin, goes on with
the twin's outputs and, backward, with the gradients of these. What differs then is computed otherwise by that very
module, or by the code that calls it; several errors are seen apart from each other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from legacy_adapters.steps import step_of
from legacy_adapters.trace_writer import Key, Record

from .blame import Divergence, describe, describe_missing
from .compare import Comparison
from .pairing import OF_METHODS
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
        reasons: why it cannot be compared with the legacy side, one sentence each; empty if it can.
    """

    comparisons: tuple[Comparison, ...]
    places: tuple[Place, ...]
    reasons: tuple[str, ...] = ()


def write_forcing(path: Path, legacy: Trace, keys: Mapping[Key, Key]) -> str:
    """Write what :class:`legacy_adapters.forcing.Forcing` reads, under the new side's names, and return its path.

    Args:
        path: of the file.
        legacy: the values.
        keys: the new side's key for each of the legacy side's, as in :class:`.pairing.Pairing`.
    """
    records = [
        (*keys.get(record.key, record.key), record.digest) for record in legacy.records if record.kind in FORCED
    ]
    shards = {digest: legacy.shard_of(digest) for *_, digest in records}
    path.write_text(json.dumps(dict(folder=str(legacy.folder), shards=shards, records=records)))
    return str(path)


def places(
    isolated: Iterable[Comparison],
    missing: Iterable[Record],
    accumulated: Iterable[Comparison],
    order: Sequence[Record],
) -> tuple[Place, ...]:
    """Group what differs by itself by the place to blame, in the order of the first difference of each.

    Left out is what says nothing of its own: a gradient that several modules give on, after the first of them; what is
    inside a module that lacks an input or gets one of another shape, because it could not be given its twin's; and
    steps of a training, in which no module is forced. What a module entered by a method computes from arguments that
    its caller makes otherwise is the caller's.

    Args:
        isolated: of the isolated run.
        missing: records of the legacy side that the isolated run should have and has not.
        accumulated: of the ordinary run.
        order: all legacy records, in recording order.
    """
    position = {record.key: index for index, record in enumerate(order)}
    ordinary = {comparison.pair.new.key: comparison for comparison in accumulated}
    wrong: list[tuple[int, Record, Comparison | None]] = [
        (position[record.key], record, None) for record in missing if record.kind == "module_in"
    ]
    wrong += [(position[c.pair.legacy.key], c.pair.new, c) for c in isolated if not c.accepted]
    misled: dict[tuple[str, str], Divergence] = {}
    strangers = {(record.phase, record.name) for _, record, comparison in wrong if comparison is None}
    found: dict[str, Place] = {}
    given_on = ""
    for _, record, comparison in sorted(wrong, key=lambda item: item[0]):
        if step_of(record.phase) is not None:
            continue
        told = describe_missing(record) if comparison is None else describe(comparison)
        where = told.where
        if any((record.phase, path) in strangers for path in _paths(where)):
            continue
        if record.kind in OF_METHODS:
            # methods are not forced: a module that is entered by one with other arguments differs in isolation, too
            if where != record.name:
                misled.setdefault((record.phase, record.name), told)
            continue
        told = misled.get((record.phase, where), told)
        where = told.where
        if comparison is not None:
            if record.kind == "module_in" and _form(record) != _form(comparison.pair.legacy):
                strangers.add((record.phase, record.name))
            if record.kind == "out_grad" and record.digest == given_on:
                continue
            given_on = record.digest
        if record.kind == "grad":
            where = next((path for path in _paths(where) if path in found), where)
        known = found.setdefault(where, Place(where, told.message, 0, record, comparison, ordinary.get(record.key)))
        found[where] = replace(known, records=known.records + 1)
    return tuple(found.values())


def _form(record: Record) -> tuple[str, tuple[int, ...]]:
    return record.dtype, record.shape


def _paths(name: str) -> Iterator[str]:
    """Yield ``name`` and the paths of the modules it is in, innermost first."""
    while name:
        yield name
        name = name.rpartition(".")[0]
