"""Golden files: what the legacy code computed, small enough to keep, to compare with where that code is not at hand.

One compressed numpy archive: a JSON header with the task, the provenance and the list of records; for every float
record sketches of its value in float32 and in float64 and the legacy code's rounding error; the decisions and random
draws. Weights and inputs are not in it: they follow from the seed (or the checkpoint) and are checked by digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from legacy_adapters.family import FamilyError
from legacy_adapters.ground.files import write_whole
from legacy_adapters.recording.replay import decision_key
from legacy_adapters.recording.trace_writer import DTYPES, Key, Record, content_digest

from ..comparing.evidence import ZERO, Norms
from ..comparing.pairing import LEGACY
from ..sides.prepared import Prepared
from ..sides.settings import SettingsError, Task
from ..traces.fields import check_fields
from ..traces.kinds import Kind
from ..traces.trace import Trace
from .sketches import Sketches

FORMAT_VERSION = 3
SEAL = "seal"
_DECISION, _GIVEN, _PLACES = "decision/", "given/", "places/"
#: Of the coverage: gradients that are cut off are asked of the new side only, and there are no steps of a training.
_OF_TRACES = ("cut_off", "not_finite")
_COLUMNS = ("phase", "kind", "name", "call", "slot", "dtype", "shape", "digest", "scope")
#: Of the provenance; the rest says where things lay on the machine that recorded.
_PORTABLE = (
    "altered", "batch_sizes", "checks", "code_base", "code_sha256", "commit", "cpu_capability", "device", "dtype",
    "family", "gpu",
    "gradient_flow", "machine", "numpy", "python", "replayed", "seed", "threads", "torch", "variant",
)  # fmt: skip
#: What numpy, zipfile and torch raise on damaged or foreign content.
_NOT_A_GOLDEN = (
    zipfile.BadZipFile, zlib.error, tokenize.TokenError, ValueError, LookupError, TypeError, AttributeError, EOFError,
    RuntimeError, OverflowError, MemoryError, OSError,
)  # fmt: skip


class GoldenError(Exception):
    """A file is not a golden file, or does not belong to these weights or inputs; the message is one line."""


@dataclass(frozen=True)
class GoldenValues:
    """What is known of one float record: sketches in float32 and float64, and the legacy code's rounding error."""

    legacy: Tensor
    reference: Tensor
    spread: Norms


@dataclass(frozen=True)
class Golden:
    """A recording of the legacy side that needs no legacy code.

    Attributes:
        task: what was computed; None for a module of a script, which whoever checks it must run again.
        sources: digests of the ``weights`` and ``inputs``; of a script's module, of each of its inputs.
        provenance: which code ran, on what.
        coverage: as of a trace.
        records: as of a trace, in recording order.
        values: of the float records.
        decisions: bundle for replay.
        given: weights and inputs of a script's module as whole numbers of the same bits, by name, if they are few.
        places: where the records hold images, of those that hold padding besides; see :class:`.padding.Images`.
        seal: digest of all that the file holds; empty before it is saved.
    """

    task: Task | None
    sources: dict[str, str]
    provenance: dict[str, Any]
    coverage: dict[str, Any]
    records: tuple[Record, ...]
    values: Mapping[Key, GoldenValues] = field(repr=False)
    decisions: Mapping[str, Tensor] = field(repr=False)
    places: Mapping[Key, Tensor] = field(default_factory=dict, repr=False)
    seal: str = ""
    given: Mapping[str, Tensor] = field(default_factory=dict, repr=False)

    def check_seal(self, path: Path, expected: str | None) -> None:
        """Refuse a file of another digest than the one that is asked for.

        Args:
            path: of the file, for the message.
            expected: the digest, or how it begins; None for any.

        Raises:
            GoldenError: if it is another.
        """
        if expected is not None and not self.seal.startswith(expected):
            raise GoldenError(f"{path} has the digest {self.seal}; expected {expected}.")

    def values_of(self, phase: str, kind: str, name: str, call: int) -> dict[str, Tensor]:
        """Return the tensors of one value by slot: of a tap; of anything else there are sketches only, so none."""
        prefix = decision_key(phase, name, call, "")
        bundle = self.decisions.items() if kind == Kind.TAP else ()
        return {key.removeprefix(prefix): tensor for key, tensor in bundle if key.startswith(prefix)}

    def number(self, record: Record) -> float | None:
        """Return what a float record of a single number holds, of which the sketch is the number; else None."""
        values = self.values.get(record.key)
        return values.legacy.item() if values is not None and values.legacy.numel() == 1 else None

    def check_given(self, prepared: Prepared) -> None:
        """Refuse weights or inputs other than those it was recorded with.

        Raises:
            GoldenError: naming what differs.
        """
        for what, digest in digests(prepared).items():
            if digest != self.sources.get(what):
                raise GoldenError(
                    f"The golden file was recorded with other {what}: pass the same --checkpoint, "
                    "or record it again with this version."
                )


def digests(prepared: Prepared) -> dict[str, str]:
    """Return a digest of the legacy side's weights and one of the inputs."""
    tensors = {"weights": prepared.weights[LEGACY], "inputs": prepared.inputs()}
    return {what: _digest_of(of_kind) for what, of_kind in tensors.items()}


def _digest_of(tensors: Mapping[str, Tensor]) -> str:
    lines = (f"{name} {content_digest(tensor)}\n" for name, tensor in sorted(tensors.items()))
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def distil(
    task: Task, prepared: Prepared, legacy: Trace, reference: Trace, spread: Mapping[Key, Norms],
    decisions: Mapping[str, Tensor], sketches: Sketches,
) -> Golden:  # fmt: skip
    """Make a golden recording of the legacy side's traces.

    Args:
        task: what was computed.
        prepared: the weights and inputs used.
        legacy: the trace of the first run.
        reference: the trace in float64.
        spread: rounding errors of sketches.
        decisions: of ``legacy``.
        sketches: that ``spread`` is of.

    Raises:
        GoldenError: if the run in float64 computed other things.
    """
    weights = {record.name: record.digest for record in legacy.records if record.kind == Kind.PARAM}
    measured = [r for r in legacy.records if r.is_float and r.kind not in (Kind.INIT, Kind.PARAM)]
    for held, instead in ((reference.by_key, "in float64"), (spread, "in that shape in float64")):
        lone = next((record for record in measured if record.key not in held), None)
        if lone is not None:
            place = f"{lone.phase} {lone.kind} {lone.name}#{lone.call} {lone.slot}".strip()
            raise GoldenError(
                f"The legacy side records {place} in float32 and not {instead}, where a number fell on the other side of "
                "a threshold; record with another --seed, --size or --objects."
            )
    values = {
        record.key: GoldenValues(
            sketches.of(legacy, record), sketches.of(reference, reference.by_key[record.key]), spread[record.key]
        )
        if record.kind != Kind.INIT
        else GoldenValues(sketches.of(legacy, record), sketches.of(legacy, record), ZERO)
        for record in legacy.records
        if record.is_float
        and record.kind != Kind.PARAM
        and not (record.kind == Kind.STATE and record.digest == weights.get(record.name))
    }
    provenance = {name: legacy.provenance[name] for name in _PORTABLE if name in legacy.provenance}
    modules = legacy.provenance.get("modules", {})
    provenance["modules"] = {name: {"version": module["version"]} for name, module in modules.items()}
    coverage = {name: value for name, value in legacy.coverage.items() if name not in _OF_TRACES}
    places = {key: sketches.places[key] for key in values if key in sketches.places}
    return Golden(task, digests(prepared), provenance, coverage, legacy.records, values, decisions, places)


def save(golden: Golden, path: Path) -> str:
    """Write a golden file, to a temporary name first, and return its seal; the same content gives the same bytes."""
    places: dict[tuple[bytes, ...], int] = {}  # a module's input is often another's output: kept once
    distinct_values: list[GoldenValues] = []
    rows, masks, masked = [], {}, {}
    for number, record in enumerate(golden.records):
        values = golden.values.get(record.key)
        place = -1
        if values is not None:
            content = values.legacy.numpy().tobytes(), values.reference.numpy().tobytes(), repr(values.spread).encode()
            place = places.setdefault(content, len(distinct_values))
            if place == len(distinct_values):
                distinct_values.append(values)
        rows.append([*(getattr(record, column) for column in _COLUMNS), place])
        if (mask := golden.places.get(record.key)) is not None:
            masked[number] = masks.setdefault(content_digest(mask), (len(masks), mask))[0]
    header = dict(
        format_version=FORMAT_VERSION, task=_plain(golden.task),
        given=golden.sources, provenance=golden.provenance,
        coverage=golden.coverage, records=rows, masked=masked,
    )  # fmt: skip
    arrays = {
        "header": np.frombuffer(json.dumps(header, sort_keys=True, separators=(",", ":")).encode(), np.uint8),
        "legacy": _packed([values.legacy for values in distinct_values]),
        "reference": _packed([values.reference for values in distinct_values]),
        "lengths": np.array([len(values.legacy) for values in distinct_values], np.int64),
        "spread": np.array([_columns(values.spread) for values in distinct_values]).reshape(-1, 4),
        **{f"{_PLACES}{number}": mask.numpy() for number, mask in masks.values()},
        **{_DECISION + key: tensor.numpy() for key, tensor in sorted(golden.decisions.items())},
        **{_GIVEN + key: tensor.numpy() for key, tensor in sorted(golden.given.items())},
    }
    seal = seal_of(arrays)
    arrays[SEAL] = np.frombuffer(bytes.fromhex(seal), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_whole(path, buffer.getvalue())
    return seal


def _plain(task: Task | None) -> dict[str, Any] | None:
    return None if task is None else {**task.as_dict(), "family": task.port.family.name}


def _task_of(path: Path, plain: dict[str, Any] | None, family: str | None) -> Task | None:
    """Return the task of a file's header, of the family that was asked for.

    Raises:
        GoldenError: if it is another family.
    """
    if plain is None:
        return None
    task = Task.from_dict({**plain, "family": family or plain["family"]})
    if task.port.family.name != plain["family"]:
        raise GoldenError(
            f"{path} was recorded for family {plain['family']}, and --family {family} is family "
            f"{task.port.family.name}; pass the folder of the first."
        )
    return task


def _columns(spread: Norms) -> tuple[float, ...]:
    images = spread.images
    return spread.max, spread.rms, *((-1.0, -1.0) if images is None else (images.max, images.rms))


def _norms(columns: Sequence[float]) -> Norms:
    """Return what :func:`_columns` was given; a file in which no padding is told apart may have two columns only."""
    largest, rms, *images = columns
    return Norms(largest, rms, Norms(*images) if images and images[0] >= 0 else None)


def seal_of(arrays: Mapping[str, np.ndarray]) -> str:
    """Return a SHA-256 over the names, types, shapes and bytes of all arrays but the seal itself."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        if name != SEAL:
            digest.update(repr((name, array.dtype.str, array.shape)).encode() + b"\0")
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _packed(tensors: list[Tensor]) -> np.ndarray:
    return torch.cat(tensors).numpy() if tensors else np.zeros(0)


def load(path: Path, family: str | None = None) -> Golden:
    """Read a golden file.

    Args:
        path: of the file.
        family: name or folder of the family it was recorded for; None for the name it tells.

    Raises:
        GoldenError: if it is none, damaged, or of another format version.
        OSError: if it cannot be read.
    """
    if not path.is_file():
        raise GoldenError(f"{path} is not a file; `ddq-parity capture` makes golden files.")
    content = io.BytesIO(path.read_bytes())
    try:
        with np.load(content, allow_pickle=False) as archive:
            return _from_arrays(path, {name: archive[name] for name in archive.files}, family)
    except (SettingsError, FamilyError) as error:
        hint = " Pass its folder with --family." if isinstance(error, FamilyError) and family is None else ""
        raise GoldenError(f"{path} is not a golden file that can be used: {error}{hint}") from error
    except _NOT_A_GOLDEN as error:
        raise GoldenError(f"{path} is not a golden file or is damaged: {type(error).__name__}.") from error


def _from_arrays(path: Path, arrays: Mapping[str, np.ndarray], family: str | None) -> Golden:
    header = json.loads(arrays["header"].tobytes())
    if header["format_version"] != FORMAT_VERSION:
        raise GoldenError(
            f"{path} has format version {header['format_version']}; expected {FORMAT_VERSION}: record it again with "
            "`ddq-parity capture` of this version."
        )
    seal = seal_of(arrays)
    if arrays[SEAL].tobytes().hex() != seal:
        raise GoldenError(
            f"{path} has been changed since it was recorded: its digest is {seal[:16]}, its seal "
            f"{arrays[SEAL].tobytes().hex()[:16]}; take it from where it came from, or record it again."
        )
    lengths = arrays["lengths"].tolist()
    columns = (torch.from_numpy(arrays[name]).split(lengths) for name in ("legacy", "reference"))
    rows = zip(*columns, arrays["spread"].tolist())
    distinct_values = [GoldenValues(one, two, _norms(errors)) for one, two, errors in rows]
    if not bool(np.isfinite(arrays["spread"]).all()) or (arrays["spread"][:, :2] < 0).any():
        raise GoldenError(f"{path} holds rounding errors that are no numbers from 0 on.")
    records, values, places, masked = [], {}, {}, header.get("masked", {})
    rows = [dict(zip(_COLUMNS, row)) for row in header["records"]]
    check_fields(header["provenance"], header["coverage"], rows)
    for number, (fields, (*_, place)) in enumerate(zip(rows, header["records"])):
        record = Record(**{**fields, "shape": tuple(fields["shape"])})
        if record.dtype not in DTYPES.values():
            raise GoldenError(f"{path} has a record of dtype {record.dtype!r}.")
        records.append(record)
        if place >= 0:
            values[record.key] = distinct_values[place]
        if str(number) in masked:
            places[record.key] = torch.from_numpy(arrays[f"{_PLACES}{masked[str(number)]}"])
    decisions = {
        name.removeprefix(_DECISION): torch.from_numpy(array)
        for name, array in arrays.items()
        if name.startswith(_DECISION)
    }
    _check_decisions(path, records, decisions)
    return Golden(
        task=_task_of(path, header["task"], family),
        sources=dict(header["given"]),
        provenance=header["provenance"],
        coverage=header["coverage"],
        records=tuple(records),
        values=values,
        decisions=decisions,
        places=places,
        seal=seal,
        given={name.removeprefix(_GIVEN): torch.from_numpy(one) for name, one in arrays.items() if name.startswith(_GIVEN)},
    )


def _check_decisions(path: Path, records: Sequence[Record], decisions: Mapping[str, Tensor]) -> None:
    """Refuse a file without a decision that it names, or with another: the new side could not be given it.

    Raises:
        GoldenError: naming the first.
    """
    for record in records:
        if record.kind == Kind.TAP:
            key = decision_key(record.phase, record.name, record.call, record.slot)
            if key not in decisions:
                raise GoldenError(f"{path} lacks the decision {key}, which it names; record it again.")
            if content_digest(decisions[key]) != record.digest:
                raise GoldenError(f"{path} holds another decision {key} than was recorded; record it again.")
