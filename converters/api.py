"""Convert a file: read, detect, convert, write. What `ddq-convert convert` calls, for scripts to call too."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from converters import (
    __version__,
    checkpoint,
    detect,
    engine,
    families,
    hashing,
    layout,
    manifest,
    optimizer,
    parts,
    writer,
)
from converters.errors import AlreadyConvertedError, CheckpointError, OutputExistsError
from converters.ledger import DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Ledger
from converters.manifest import FileDigest, SideManifest
from converters.mapping import Mapping as KeyMapping
from converters.options import DEFAULTS, Options
from converters.parts import Line as PartLine
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
        part_lines: What became of every part of the source.
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
    part_lines: tuple[PartLine, ...] = ()

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
            "ledger": [asdict(entry) for entry in self.ledger.entries],
            "parts": [asdict(line) for line in self.part_lines],
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


def plan(source: str | Path, options: Options = DEFAULTS, suffix: str = ".pth") -> Plan:
    """Work out what a conversion to a file of that suffix comes to; nothing is written.

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
    chosen = parts.choose(loaded, options.keep, _weights_only(options, suffix))
    result = _converted(chosen.state_dict, found, options)
    if result.ledger.changes_nothing and not options.changes_more_than_names:
        raise AlreadyConvertedError(_nothing_to_do(source, found))
    carried = parts.carry(
        loaded,
        chosen,
        lambda tensors: _converted(tensors, found, options).state_dict,
        None if found.side == options.to else _regrouping(found, options.to),
    )
    asked = replace(options, keep=chosen.keep)
    meta = _meta(loaded.meta, found, asked)
    planned = Plan(loaded, asked, found, result.rules, result.ledger, result.state_dict, meta)
    # every further step takes a plan and returns one with other tensors, changes or parts
    planned = replace(planned, parts=carried.parts, part_lines=carried.lines)
    return _stripped(planned) if options.strip else planned


def _weights_only(options: Options, suffix: str) -> str | None:
    """Say why nothing but weights can be written, if that is so."""
    if options.strip:
        return "An output of --strip"
    return "A .safetensors file" if suffix == ".safetensors" else None


def _converted(tensors: Mapping[str, StoredTensor], found: detect.Detection, options: Options) -> engine.Conversion:
    step = engine.canonicalise if found.side == options.to else engine.convert
    return step(
        tensors,
        families.mapping(found.family, found.variant),
        options.to,
        layout.load(found.variant, found.family, options.to),
        options.allow_unmapped,
    )


def _regrouping(found: detect.Detection, to: str) -> Callable[[Mapping[str, Any]], optimizer.Regrouped]:
    """Return what carries an optimizer's state to the other side."""
    frozen_groups = to == layout.LEGACY and families.family(found.family).frozen_groups
    source = layout.load(found.variant, found.family, found.side)
    target = optimizer.Side(layout.load(found.variant, found.family, to), frozen_groups)
    rules = engine.rules_between(families.mapping(found.family, found.variant), found.side, to)
    return lambda saved: optimizer.regroup(saved, source, target, rules.target_of)


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
    check_destination(source, destination, force)
    before = _state(source)
    planned = plan(source, options, destination.suffix)
    record = prove(planned)
    embedded = {} if options.strip else {manifest.KEY: record.to_json()}
    with Publication(destination, force) as publication:
        meta = {**planned.meta, **embedded}
        files = writer.write(
            publication, destination, planned.state_dict, meta, planned.parts, planned.options.shard_size
        )
        writer.write_side(publication, destination, SideManifest(record, files))
        if _state(source) != before:
            raise CheckpointError(f"The source `{source}` changed while it was read; convert it when it is complete.")
        publication.commit(writer.obsolete(destination, files))
    return FileConversion(planned, destination, record, files)


def prove(planned: Plan) -> manifest.Manifest:
    """Read and hash everything that a plan is about.

    Raises:
        CheckpointError: If the source is damaged.
        OSError: If it cannot be read.
    """
    tensors = {**planned.state_dict, **manifest.part_tensors(planned.parts)}
    files, digests = hashing.digests(checkpoint.files(planned.source.path), tensors)
    return manifest.build(planned, files, digests)


def check_destination(source: str | Path, destination: str | Path, force: bool) -> None:
    """Refuse a destination before any work is done for it.

    Raises:
        CheckpointError, OutputExistsError: As `convert_file` says.
    """
    if os.path.exists(destination) and os.path.exists(source) and os.path.samefile(source, destination):
        raise OutputExistsError(f"The destination `{destination}` is the source itself; choose another name.")
    writer.check_destination(destination, force)


def _state(source: Path) -> tuple[tuple[int, ...], ...]:
    """Return what changes when a checkpoint's files are written to, or replaced."""
    stats = [path.stat() for path in checkpoint.files(source)] if source.exists() else []
    return tuple((stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in stats)


def _stripped(planned: Plan) -> Plan:
    meta = {name: planned.meta[name] for name in checkpoint.CLASS_META if name in planned.meta}
    return replace(planned, meta=meta)


def _nothing_to_do(source: str | Path, found: detect.Detection) -> str:
    legacy = (families.family(name).code for name in (found.family, *families.same_layout(found.family)))
    other, loaders = (layout.NEW, legacy) if found.side == layout.LEGACY else (layout.LEGACY, ("ddq_port",))
    return (
        f"The source `{source}` already has the {found.side} layout of {found.family} {found.variant}; it can be "
        f"loaded as it is by {' and by '.join(loaders)}, or converted with --to {other}."
    )


def _meta(source: Mapping[str, Any], found: detect.Detection, options: Options) -> dict[str, Any]:
    kept = {name: value for name, value in source.items() if name != manifest.KEY}
    if options.keep != parts.ALL:
        kept = {name: kept[name] for name in checkpoint.CLASS_META if name in kept}
    return {
        **parts.meta(kept, found.side, options.to),
        "family": found.family,
        "variant": found.variant,
        "layout": options.to,
        "tool": "ddq-convert",
        "tool_version": __version__,
    }
