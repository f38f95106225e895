"""Convert a file: read, detect, convert, write. What `ddq-convert convert` calls, for scripts to call too."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters import __version__, checkpoint, detect, engine, families, layout, writer
from converters.errors import AlreadyConvertedError, OutputExistsError
from converters.ledger import DROP, DROP_DUPLICATE, KEEP, RENAME, UNMAPPED, Ledger

_KEPT_META = ("dataset_meta", "CLASSES", "PALETTE")  # what inference needs beside the weights


@dataclass(frozen=True)
class FileConversion:
    """What was converted, into what, and the ledger of it."""

    source: Path
    destination: Path
    detection: detect.Detection
    to: str
    ledger: Ledger
    tensors: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            "source": str(self.source),
            "destination": str(self.destination),
            "family": self.detection.family,
            "variant": self.detection.variant,
            "from": self.detection.side,
            "to": self.to,
            "tensors": self.tensors,
            "kept": self.ledger.count(KEEP),
            "renamed": self.ledger.count(RENAME),
            "duplicates_dropped": self.ledger.count(DROP_DUPLICATE),
            "dropped": self.ledger.count(DROP),
            "unmapped": self.ledger.count(UNMAPPED),
            "ledger": [asdict(entry) for entry in self.ledger.entries],
        }


def convert_file(
    source: str | Path,
    destination: str | Path,
    to: str = layout.NEW,
    family: str | None = None,
    variant: str | None = None,
    allow_unmapped: bool = False,
    force: bool = False,
) -> FileConversion:
    """Convert the checkpoint `source` to the layout `to` and write it to `destination`.

    Args:
        source: A `.pth` or `.safetensors` checkpoint.
        destination: The file to write; its suffix chooses the format.
        to: `new` or `legacy`; a source of that layout is rid of what the mapping drops.
        family: Take the source for this family instead of detecting it.
        variant: Take the source for this variant instead of detecting it.
        allow_unmapped: Leave out source keys that no rule matches.
        force: Replace an existing destination.

    Raises:
        CheckpointError: If the source cannot be read, or the destination cannot be a checkpoint.
        OutputExistsError: If the destination exists and `force` is not set, or is the source.
        AlreadyConvertedError: If the source has the layout `to` already, and nothing to drop.
        ConversionError: If the source does not fit.
        UnknownFamilyError: If there is no such family or variant.
        OSError: If a file cannot be read or written.
    """
    if os.path.exists(destination) and os.path.exists(source) and os.path.samefile(source, destination):
        raise OutputExistsError(f"The destination `{destination}` is the source itself; choose another name.")
    writer.check_destination(destination, force)
    if family is not None and variant is not None:
        families.variant(family, variant)
    loaded = checkpoint.read(source)
    found = detect.detect(loaded.state_dict, family, variant)
    step = engine.canonicalise if found.side == to else engine.convert
    result = step(
        loaded.state_dict,
        families.mapping(found.family, found.variant),
        to,
        layout.load(found.variant, found.family, to),
        allow_unmapped,
    )
    if result.ledger.changes_nothing:
        raise AlreadyConvertedError(_nothing_to_do(source, found))
    tensors = {key: tensor.to_torch() for key, tensor in result.state_dict.items()}
    writer.write(destination, tensors, _meta(loaded.meta, found, to), force)
    return FileConversion(Path(source), Path(destination), found, to, result.ledger, len(result.state_dict))


def _nothing_to_do(source: str | Path, found: detect.Detection) -> str:
    legacy = (families.family(name).code for name in (found.family, *families.same_layout(found.family)))
    other, loaders = (layout.NEW, legacy) if found.side == layout.LEGACY else (layout.LEGACY, ("ddq_port",))
    return (
        f"The source `{source}` already has the {found.side} layout of {found.family} {found.variant}; it can be "
        f"loaded as it is by {' and by '.join(loaders)}, or converted with --to {other}."
    )


def _meta(source: Mapping[str, Any], found: detect.Detection, to: str) -> dict[str, Any]:
    kept = {name: source[name] for name in _KEPT_META if name in source}
    return {
        **kept,
        "family": found.family,
        "variant": found.variant,
        "layout": to,
        "tool": "ddq-convert",
        "tool_version": __version__,
    }
