"""Convert a file: read, detect, convert, write. What `ddq-convert convert` calls, for scripts to call too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from converters.carrying.plans import Plan
from converters.errors import (
    CheckpointError,
    OutputExistsError,
    VerificationError,
    listed,
)
from converters.formats import finite
from converters.formats.finite import NotFinite
from converters.options import DEFAULTS, Options
from converters.planning import dotted, plan
from converters.reading import checkpoint
from converters.rules import ports
from converters.rules.ledger import CHANGED
from converters.writing import hashing, manifest, writer
from converters.writing.conversion import FileConversion
from converters.writing.manifest import SideManifest
from converters.writing.publication import Publication
from legacy_adapters.ground.names import LEGACY


def convert_file(
    source: str | Path,
    destination: str | Path,
    options: Options = DEFAULTS,
    force: bool = False,
    port: ports.Port | None = None,
) -> FileConversion:
    """Convert the checkpoint `source` and write it to `destination`, with a manifest beside it.

    Args:
        source: A `.pth` or `.safetensors` checkpoint.
        destination: The file to write; its suffix chooses the format.
        options: What is asked for.
        force: Replace an existing destination.
        port: As of `plan`.

    Raises:
        CheckpointError: If the source cannot be read or changes meanwhile, or the destination cannot be a checkpoint.
        OutputExistsError: If the destination exists and `force` is not set, or is the source.
        AlreadyConvertedError, ConversionError, FamilyError: As `plan` says.
        OSError: If a file cannot be read or written.
    """
    source, destination = Path(source), Path(destination)
    before = _state(source)
    planned, replaceable = _prepared(source, destination, options, force, port)
    not_finite: dict[str, NotFinite] = {}
    record = prove(planned, not_finite)
    planned = _with_not_finite(planned, not_finite)
    embedded = {} if options.strip else {manifest.KEY: record.to_json()}
    with Publication(destination.parent, partial(writer.is_output, destination), replaceable) as opened:
        meta = {**planned.meta, **embedded}
        versions = planned.detection.port.family.versions if options.to == LEGACY else {}
        files = writer.write(
            opened, destination, planned.state_dict, meta, planned.parts, options.shard_size, versions
        )
        writer.write_side(opened, destination, SideManifest(record, files))
        if _state(source) != before:
            raise CheckpointError(f"The source `{source}` changed while it was read; convert it when it is complete.")
        opened.commit(last=destination.with_name(files[-1].name))
    return FileConversion(planned, destination, record, files)


def plan_file(
    source: str | Path, destination: str | Path, options: Options = DEFAULTS, force: bool = False
) -> FileConversion:
    """Do all of `convert_file` that can be done without writing: a dry run.

    Raises:
        As `convert_file` does.
    """
    planned, _ = _prepared(Path(source), Path(destination), options, force)
    not_finite = hashing.not_finite({**planned.state_dict, **manifest.part_tensors(planned.parts)})
    return FileConversion(_with_not_finite(planned, not_finite), Path(destination))


def _with_not_finite(planned: Plan, counts: Mapping[str, NotFinite]) -> Plan:
    """Tell of numbers that are not finite; they are carried all the same, for a conversion changes no value."""
    if not counts:
        return planned
    names = {
        entry.target: planned.in_file(entry) for entry in planned.ledger.entries if not planned.rule_words(entry)
    }
    named = finite.listed_counts({names.get(key, dotted(key)): counted for key, counted in sorted(counts.items())})
    note = f"{named}. Values are written as they are; a model that has such numbers computes NaN."
    return replace(planned, not_finite=dict(sorted(counts.items())), notes=(*planned.notes, note))


def prove(planned: Plan, not_finite: dict[str, NotFinite] | None = None) -> manifest.Manifest:
    """Read and hash everything that a plan is about.

    Args:
        planned: What is done.
        not_finite: Is given the counts of numbers that are not finite, by what `Plan.not_finite` has as keys.

    Raises:
        CheckpointError: If the source is damaged.
        OSError: If it cannot be read.
    """
    tensors = {**planned.state_dict, **manifest.part_tensors(planned.parts)}
    files, digests = hashing.digests(checkpoint.files(planned.source.path), tensors, not_finite)
    _check_origin(planned, digests)
    return manifest.build(planned, files, digests)


def _check_origin(planned: Plan, digests: Mapping[str, str]) -> None:
    """Compare a source that was itself converted with the manifest that it holds."""
    text, path = planned.source.meta.get(manifest.KEY), planned.source.path
    if not isinstance(text, str):
        return
    try:
        recorded = {line.target: line.sha256 for line in manifest.Manifest.from_json(text).tensors}
    except VerificationError as error:
        raise CheckpointError(f"Cannot trust the manifest inside the source `{path}`: {error}.") from error
    read = planned.source.state_dict
    own = {
        entry.source: digests[entry.target]
        for entry in planned.ledger.entries
        if entry.target is not None and planned.state_dict[entry.target] is read.get(entry.source)
    }
    # what a rule changes has no digest of its own among those of the output
    changed = {entry.source for entry in planned.ledger.entries if entry.action in CHANGED and entry.source in read}
    own |= {key: read[key].sha256() for key in sorted(changed)}
    damaged = [key for key, digest in sorted(own.items()) if digest != recorded.get(key)]
    if damaged:
        raise CheckpointError(
            f"The source `{path}` is damaged or was changed: {len(damaged)} tensor(s) do not have the SHA-256 that its "
            f"own manifest recorded: {listed(damaged)}; convert the original again."
        )


def _prepared(
    source: Path, destination: Path, options: Options, force: bool, port: ports.Port | None = None
) -> tuple[Plan, list[Path]]:
    """Return the plan, and the files that may be replaced."""
    for path in checkpoint.files(source):
        if destination.exists() and path.exists() and os.path.samefile(path, destination):
            raise OutputExistsError(f"The destination `{destination}` is the source itself; choose another name.")
    replaceable = writer.check_destination(destination, force)
    planned = plan(source, options, destination.suffix, port)
    for path in checkpoint.files(source):
        if any(other.exists() and os.path.samefile(path, other) for other in replaceable):
            raise OutputExistsError(f"The destination `{destination}` would replace `{path}` of the source itself.")
    writer.check_format(destination, planned.state_dict, planned.parts, options.shard_size)
    return planned, replaceable


def _state(source: Path) -> tuple[tuple[int, ...], ...]:
    """Return what changes when a checkpoint's files are written to, or replaced."""
    files = checkpoint.files(source) if source.exists() else []
    stats = [path.stat() for path in files if path.exists()]  # what is missing is told when it is read
    return tuple((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)
