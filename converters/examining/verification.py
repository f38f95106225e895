"""Check a converted file against its manifest, and against its source. What `ddq-convert verify` calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from converters import api, planning
from converters.errors import (
    AlreadyConvertedError,
    CheckpointError,
    ClassMapError,
    ConversionError,
    FamilyError,
    MalformedError,
    VerificationError,
    listed,
)
from converters.formats import shards
from converters.formats.plain import copied
from converters.formats.stored import StoredTensor
from converters.options import Options
from converters.reading import checkpoint, wrapping
from converters.reading.checkpoint import Checkpoint
from converters.rules import built, engine, loose, ports
from converters.rules.layout import TensorSpec
from converters.rules.ledger import UNMAPPED
from converters.writing import hashing, manifest, writer
from converters.writing.manifest import FileDigest, Manifest, SideManifest


@dataclass(frozen=True)
class Verification:
    """What was checked and found right: the file, its manifest and, unless None, its source."""

    path: Path
    manifest: Manifest
    source: Path | None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "verified": True,
            "file": str(self.path),
            "tensors": len(self.manifest.tensors),
            "left_out": len(self.manifest.left_out),
            "parts": len(self.manifest.parts),
            "source": [asdict(file) for file in self.manifest.source],
            "source_checked": None if self.source is None else str(self.source),
        }


def verify_file(path: str | Path, source: str | Path | None = None) -> Verification:
    """Check everything that the manifest of a converted file says.

    That is: both copies of the manifest are whole and agree; the file has the recorded bytes; it has every tensor with
    the recorded dtype, shape and bytes, and no other; its layout is complete; the rules still make of every source key
    what they made then. With `source`: that it is the recorded file, and that the same conversion of it gives the same.

    Args:
        path: The converted file; of one in several files, the name that was asked for or its index.
        source: The file that was converted.

    Raises:
        CheckpointError: If a file to check is not there.
        VerificationError: If anything is not as recorded.
        OSError: If a file cannot be read.
    """
    path = Path(path)
    index = path if path.name.endswith(shards.INDEX_SUFFIX) else shards.index_path(path)
    destination = path.with_name(path.name.removesuffix(shards.INDEX_SUFFIX))
    path = index if index.exists() and not destination.exists() else destination
    for needed in (path, *(() if source is None else (Path(source),))):
        if not needed.is_file():
            raise CheckpointError(f"There is no file `{needed}` to verify.")
    loaded, side = _read(path), _side(destination)
    _check_embedded(path, loaded, side)
    _check_tensors(path, loaded, side)
    _check_names(path, side)
    _check_rules(path, side.manifest)
    if source is not None:
        _check_source(Path(source), side.manifest)
    return Verification(path, side.manifest, None if source is None else Path(source))


def _read(path: Path) -> Checkpoint:
    try:
        return checkpoint.read(path)
    except CheckpointError as error:
        raise VerificationError(str(error)) from error


def _side(destination: Path) -> SideManifest:
    path = writer.side_path(destination)
    if not path.is_file():
        raise VerificationError(f"There is no manifest `{path}`; copy it there from where the conversion wrote it.")
    try:
        return SideManifest.from_json(path.read_text(encoding="utf-8"))
    except (VerificationError, UnicodeDecodeError) as error:
        raise VerificationError(f"Cannot trust the manifest `{path}`: {error}.") from error


def _check_embedded(path: Path, loaded: Checkpoint, side: SideManifest) -> None:
    text = loaded.meta.get(manifest.KEY)
    stripped = side.manifest.options.get("strip") is True
    if stripped and text is None:
        return
    if not isinstance(text, str):
        raise VerificationError(f"The file `{path}` holds no manifest, expected the one of `{writer.side_path(path)}`.")
    try:
        embedded = Manifest.from_json(text)
    except VerificationError as error:
        raise VerificationError(f"Cannot trust the manifest inside `{path}`: {error}.") from error
    difference = manifest.first_difference(side.manifest, embedded)
    if stripped or difference is not None or embedded != side.manifest:
        raise VerificationError(
            f"The manifest inside `{path}` is another one than that beside it: they differ in {difference}."
        )


def _check_tensors(path: Path, loaded: Checkpoint, side: SideManifest) -> None:
    """Compare what the file holds with the manifest, then its bytes as a whole."""
    recorded = side.manifest
    rest = _beside(path, loaded)
    parts = manifest.part_tensors(rest)
    _check_set(path, loaded.state_dict, [line.target for line in recorded.tensors])
    _check_set(path, parts, [part.path for part in recorded.parts])
    lines = {**{line.target: line for line in recorded.tensors}, **{part.path: part for part in recorded.parts}}
    tensors: Mapping[str, StoredTensor] = {**loaded.state_dict, **parts}
    for key, line in lines.items():
        if (tensors[key].dtype, tensors[key].shape) != (line.dtype, line.shape):
            raise VerificationError(
                f"Tensor `{key}` of `{path}` is {tensors[key].dtype} {list(tensors[key].shape)}, the manifest recorded "
                f"{line.dtype} {list(line.shape)}."
            )
    try:
        _, digests = hashing.digests((), tensors)
    except CheckpointError as error:
        raise VerificationError(str(error)) from error
    differing = [key for key, line in lines.items() if digests[key] != line.sha256]
    if differing:
        raise VerificationError(
            f"{len(differing)} tensor(s) of `{path}` do not have the recorded SHA-256: {listed(differing)}; the file "
            "was changed or damaged after the conversion."
        )
    if manifest.rest_digest(loaded.meta, rest) != recorded.rest_sha256:
        raise VerificationError(f"The metadata of `{path}` are not those that were recorded.")
    _check_files(path, [hashing.output_digest(file) for file in checkpoint.files(path)], side.files)


def _beside(path: Path, loaded: Checkpoint) -> dict[str, Any]:
    """Return the parts beside the state dict and `meta`, which are plain in whatever was converted."""
    try:
        found = copied({name: part for name, part in loaded.content.items() if name != "meta"})
    except MalformedError as error:
        raise VerificationError(f"The file `{path}` is not what was written: {error}.") from error
    if found.left_out:
        place, kind = found.left_out[0]
        raise VerificationError(f"The file `{path}` holds an object of {kind} at `{place}`, which was not written.")
    return found.value


def _check_set(path: Path, found: Iterable[str], recorded: Iterable[str]) -> None:
    missing, unknown = sorted(set(recorded) - set(found)), sorted(set(found) - set(recorded))
    faults = [f"lacks {len(missing)} recorded tensor(s) ({listed(missing)})"] if missing else []
    faults += [f"holds {len(unknown)} that are not recorded ({listed(unknown)})"] if unknown else []
    if faults:
        raise VerificationError(f"The file `{path}` {' and '.join(faults)}.")


def _check_files(path: Path, found: list[FileDigest], recorded: tuple[FileDigest, ...]) -> None:
    """Compare whole files; a single one may have been renamed, of several the index has the names."""
    alone = len(found) == len(recorded) == 1
    have = {path.name if alone else file.name: replace(file, name="") for file in found}
    want = {path.name if alone else file.name: replace(file, name="") for file in recorded}
    differing = sorted(name for name in have.keys() | want.keys() if have.get(name) != want.get(name))
    if differing:
        raise VerificationError(
            f"The file {listed(differing)} does not have the recorded size and SHA-256, though every tensor does: "
            "bytes between them were changed."
        )


def _port(recorded: Manifest) -> ports.Port:
    """Return the model that a file was converted as; of a family that is not installed the options name the folder.

    Rules of a file have no layouts but those of the checkpoints, so the tensors are taken as they were recorded.
    """
    if recorded.options.get("rules") is not None:
        specs = {line.target: TensorSpec(line.dtype, line.shape) for line in recorded.tensors}
        return loose.port(recorded.options["rules"], specs, recorded.target_layout, None)
    return built.with_new_layout(ports.port(recorded.options.get("family") or recorded.family, recorded.variant))


def _check_names(path: Path, side: SideManifest) -> None:
    """Compare the recorded tensors with the layout; rules of a file have none but that of the records themselves."""
    recorded = side.manifest
    if recorded.options.get("rules") is not None:
        return
    try:
        options = replace(Options.from_dict(recorded.options), to=recorded.target_layout)
        wanted = planning.layout_after(_port(recorded), options).tensors
    except (FamilyError, ConversionError) as error:
        raise VerificationError(f"Cannot check `{path}` against its layout: {error}") from error
    lines = {line.target: line for line in recorded.tensors}
    _check_set(path, lines, wanted)
    for key, line in lines.items():
        if (line.dtype, line.shape) != (wanted[key].dtype, wanted[key].shape):
            raise VerificationError(
                f"Tensor `{key}` of `{path}` is {line.dtype} {list(line.shape)}, the layout of {_port(recorded)} has "
                f"{wanted[key].dtype} {list(wanted[key].shape)}."
            )


def _check_rules(path: Path, recorded: Manifest) -> None:
    """Ask this tool's rules what becomes of every recorded source key."""
    try:
        mapping = _port(recorded).mapping
    except FamilyError as error:
        raise VerificationError(f"Cannot check the rules of `{path}`: {error}") from error
    if manifest.mapping_version(mapping) != recorded.mapping_version:
        raise VerificationError(
            f"The file `{path}` was made with other rules (mapping {recorded.mapping_version}, here "
            f"{manifest.mapping_version(mapping)}); verify it with ddq-convert {recorded.tool_version}."
        )
    rules = engine.rules_between(mapping, recorded.source_layout, recorded.target_layout)
    said = [(key, (line.rule, line.action, line.target)) for line in recorded.tensors for key in line.sources]
    said += [(line.source, (line.rule, line.action, None)) for line in recorded.left_out]
    prefix = recorded.options.get("prefix") or ""
    for key, line in said:
        names = wrapping.forms(key, prefix)
        matches = [rules.match(name) for name in (*names, key)]
        matches += [] if names and key.startswith(prefix) else [None]
        if line not in [
            (None, UNMAPPED, None) if match is None else (match.rule, match.action, target)
            for match in matches
            for target in (match and match.targets) or (None,)
        ]:
            raise VerificationError(f"The manifest of `{path}` has `{key}` under a rule that does not say so.")
    for line in recorded.tensors:
        expected = len(rules.rules[line.rule].sources)
        if len(line.sources) != expected:
            raise VerificationError(
                f"The manifest of `{path}` has `{line.target}` made of {len(line.sources)} key(s), its rule makes it "
                f"of {expected}."
            )
    if recorded.rules != tuple(manifest.rule_text(rule) for rule in rules.rules):
        raise VerificationError(f"The manifest of `{path}` has other rules than its mapping version.")


def _options(recorded: Manifest) -> Options:
    """Return the options to convert again with; a prefix that some weights lacked was found, and not asked for."""
    options = Options.from_dict(recorded.options)
    keys = (key for line in recorded.tensors for key in line.sources)
    lacking = (key for key in keys if not wrapping.forms(key, options.prefix or ""))
    return options if next(lacking, None) is None else replace(options, prefix=None)


def _check_source(source: Path, recorded: Manifest) -> None:
    """Compare the source with the recorded one, and convert it again in memory."""
    found, _ = hashing.digests(checkpoint.files(source), {})
    if [(file.size, file.sha256) for file in found] != [(file.size, file.sha256) for file in recorded.source]:
        raise VerificationError(
            f"The source `{source}` is not the file that was converted: its SHA-256 is {found[0].sha256}, the manifest "
            f"recorded {recorded.source[0].sha256}."
        )
    try:
        again = api.prove(planning.plan(source, _options(recorded)))
    except (CheckpointError, ClassMapError, ConversionError, FamilyError, AlreadyConvertedError) as error:
        raise VerificationError(f"The conversion of `{source}` cannot be repeated: {error}") from error
    difference = manifest.first_difference(recorded, replace(again, source=recorded.source))
    if difference is not None:
        raise VerificationError(f"The same conversion of `{source}` gives something else now: {difference} differs.")
