"""Convert a file: read, detect, convert, write. What `ddq-convert convert` calls, for scripts to call too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from converters import __version__, checkpoint, detect, engine, families, hashing, layout, manifest, writer
from converters.errors import AlreadyConvertedError, CheckpointError, OutputExistsError, VerificationError, listed
from converters.ledger import DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Entry, Ledger
from converters.manifest import FileDigest, SideManifest
from converters.mapping import Mapping as KeyMapping
from converters.options import DEFAULTS, Options
from converters.publication import Publication
from converters.stored import StoredTensor


@dataclass(frozen=True)
class Plan:
    """What a conversion comes to, before anything is written.

    Attributes:
        source: The checkpoint as it was read.
        options: What was asked for.
        detection: What the source is.
        rules: The mapping that was applied, in its direction.
        ledger: What becomes of every key of the state dict.
        state_dict: The tensors to write, by key, sorted.
        changes: For each key whose values are not those of the source: what was done to them, in words.
        parts: What is written beside the state dict and `meta`, by its name at the top level of a `.pth`.
        meta: The plain metadata to write.
    """

    source: checkpoint.Checkpoint
    options: Options
    detection: detect.Detection
    rules: KeyMapping
    ledger: Ledger
    state_dict: Mapping[str, StoredTensor]
    meta: Mapping[str, Any]
    changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "source": str(self.source.path),
            "family": self.detection.family,
            "variant": self.detection.variant,
            "from": self.detection.side,
            "to": self.options.to,
            "options": self.options.as_dict(),
            "tensors": len(self.state_dict),
            "kept": self.ledger.count(KEEP),
            "renamed": self.ledger.count(RENAME),
            "duplicates_dropped": self.ledger.count(DROP_DUPLICATE),
            "dropped": self.ledger.count(DROP),
            "unmapped": self.ledger.count(UNMAPPED),
            "ledger": [self._line(entry) for entry in self.ledger.entries],
        }

    def tensor(self, entry: Entry) -> StoredTensor:
        """Return the tensor that is written for a line of the ledger, or the source's where none is."""
        return self.source.state_dict[entry.source] if entry.target is None else self.state_dict[entry.target]

    def _line(self, entry: Entry) -> dict[str, Any]:
        tensor = self.tensor(entry)
        return {
            **asdict(entry),
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "changes": list(self.changes.get(entry.target, ())),
        }


@dataclass(frozen=True)
class FileConversion:
    """What was converted, and into what; of a dry run there are no files and no manifest."""

    plan: Plan
    destination: Path
    manifest: manifest.Manifest | None = None
    files: tuple[FileDigest, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            **self.plan.as_dict(),
            "destination": str(self.destination),
            "files": [asdict(file) for file in self.files],
        }


def plan(source: str | Path, options: Options = DEFAULTS) -> Plan:
    """Work out what a conversion comes to; nothing is written.

    Raises:
        CheckpointError: If the source cannot be read.
        AlreadyConvertedError: If the source has the layout asked for already, and nothing else is to be done.
        ConversionError: If the source does not fit.
        UnknownFamilyError: If there is no such family or variant.
        OSError: If the source cannot be read.
    """
    if options.family is not None and options.variant is not None:
        families.variant(options.family, options.variant)
    loaded = checkpoint.read(source)
    found = detect.detect(loaded.state_dict, options.family, options.variant)
    step = engine.canonicalise if found.side == options.to else engine.convert
    result = step(
        loaded.state_dict,
        families.mapping(found.family, found.variant),
        options.to,
        layout.load(found.variant, found.family, options.to),
        options.allow_unmapped,
    )
    if result.ledger.changes_nothing and not options.changes_more_than_names:
        raise AlreadyConvertedError(_nothing_to_do(source, found))
    meta = _meta(loaded.meta, found, options)
    planned = Plan(loaded, options, found, result.rules, result.ledger, result.state_dict, meta)
    # every further step takes a plan and returns one with other tensors, changes or parts
    return _stripped(planned) if options.strip else planned


def convert_file(
    source: str | Path, destination: str | Path, options: Options = DEFAULTS, force: bool = False
) -> FileConversion:
    """Convert the checkpoint `source` and write it to `destination`, with a manifest beside it.

    Args:
        source: A `.pth` or `.safetensors` checkpoint.
        destination: The file to write; its suffix chooses the format.
        options: What is asked for.
        force: Replace an existing destination.

    Raises:
        CheckpointError: If the source cannot be read or changes meanwhile, or the destination cannot be a checkpoint.
        OutputExistsError: If the destination exists and `force` is not set, or is the source.
        AlreadyConvertedError, ConversionError, UnknownFamilyError: As `plan` says.
        OSError: If a file cannot be read or written.
    """
    source, destination = Path(source), Path(destination)
    before = _state(source)
    planned, replaceable = _prepared(source, destination, options, force)
    record = prove(planned)
    embedded = {} if options.strip else {manifest.KEY: record.to_json()}
    with Publication(destination.parent, partial(writer.is_output, destination), replaceable) as opened:
        meta = {**planned.meta, **embedded}
        files = writer.write(opened, destination, planned.state_dict, meta, planned.parts, options.shard_size)
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
    return FileConversion(_prepared(Path(source), Path(destination), options, force)[0], Path(destination))


def prove(planned: Plan) -> manifest.Manifest:
    """Read and hash everything that a plan is about.

    Raises:
        CheckpointError: If the source is damaged.
        OSError: If it cannot be read.
    """
    tensors = {**planned.state_dict, **manifest.part_tensors(planned.parts)}
    files, digests = hashing.digests(checkpoint.files(planned.source.path), tensors)
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
    untouched = {
        entry.source: entry.target
        for entry in planned.ledger.entries
        if entry.target is not None and planned.state_dict[entry.target] is planned.source.state_dict.get(entry.source)
    }
    damaged = [key for key, target in untouched.items() if digests[target] != recorded.get(key)]
    if damaged:
        raise CheckpointError(
            f"The source `{path}` is damaged or was changed: {len(damaged)} tensor(s) do not have the SHA-256 that its "
            f"own manifest recorded: {listed(damaged)}; convert the original again."
        )


def _prepared(source: Path, destination: Path, options: Options, force: bool) -> tuple[Plan, list[Path]]:
    """Return the plan, and the files that may be replaced."""
    for path in checkpoint.files(source):
        if destination.exists() and path.exists() and os.path.samefile(path, destination):
            raise OutputExistsError(f"The destination `{destination}` is the source itself; choose another name.")
    replaceable = writer.check_destination(destination, force)
    planned = plan(source, options)
    for path in checkpoint.files(source):
        if any(other.exists() and os.path.samefile(path, other) for other in replaceable):
            raise OutputExistsError(f"The destination `{destination}` would replace `{path}` of the source itself.")
    writer.check_format(destination, planned.state_dict, planned.parts, options.shard_size)
    return planned, replaceable


def _state(source: Path) -> tuple[tuple[int, ...], ...]:
    """Return what changes when a checkpoint's files are written to, or replaced."""
    stats = [path.stat() for path in checkpoint.files(source)] if source.exists() else []
    return tuple((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def _stripped(planned: Plan) -> Plan:
    meta = {name: planned.meta[name] for name in checkpoint.CLASS_META if name in planned.meta}
    return replace(planned, meta=meta, parts={})


def _nothing_to_do(source: str | Path, found: detect.Detection) -> str:
    legacy = (families.family(name).code for name in (found.family, *families.same_layout(found.family)))
    other, loaders = (layout.NEW, legacy) if found.side == layout.LEGACY else (layout.LEGACY, ("ddq_port",))
    return (
        f"The source `{source}` already has the {found.side} layout of {found.family} {found.variant}; it can be "
        f"loaded as it is by {' and by '.join(loaders)}, or converted with --to {other}."
    )


def _meta(source: Mapping[str, Any], found: detect.Detection, options: Options) -> dict[str, Any]:
    kept = {name: source[name] for name in checkpoint.CLASS_META if name in source}
    return {
        **kept,
        "family": found.family,
        "variant": found.variant,
        "layout": options.to,
        "tool": "ddq-convert",
        "tool_version": __version__,
    }
