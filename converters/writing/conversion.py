"""What was converted, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.carrying.plans import Plan
from converters.writing.manifest import FileDigest, Manifest


@dataclass(frozen=True)
class FileConversion:
    """What was converted, and into what; of a dry run there are no files and no manifest."""

    plan: Plan
    destination: Path
    manifest: Manifest | None = None
    files: tuple[FileDigest, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for `--json`."""
        return {
            **self.plan.as_dict(),
            "destination": str(self.destination),
            "files": [asdict(file) for file in self.files],
        }
