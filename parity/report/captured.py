"""Say in one line what a golden file holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from legacy_adapters.ground.words import counted
from legacy_adapters.provenance import originals

from ..golden.golden import Golden

#: How much of a digest is shown; JSON has all.
SEAL_DIGITS = 16


def golden_line(golden: Golden, file: Path) -> str:
    """Say in one line what was recorded, e.g. ``CAPTURED 2243 records of a_family a_variant -> FILE, 0.4 MB``."""
    size = file.stat().st_size
    task = golden.task
    remarks = (originals.remark(golden.provenance), _conditioning(golden))
    said = (
        f"CAPTURED {counted(len(golden.records), 'record')} of {task.port} -> {file}, "
        f"{f'{size / 1e6:.1f} MB' if size >= 1e5 else f'{size / 1e3:.0f} kB'}, digest {golden.seal[:SEAL_DIGITS]}"
    )
    return ", ".join((said, *filter(None, remarks)))


def _conditioning(golden: Golden) -> str:
    """Say under which seed a recording was made, if not under that asked for, and whether its rounding is too large."""
    loose = golden.provenance.get("loose", 0)
    if loose:
        return (
            f"rounding of {counted(loose, 'record')} is too large to show an error under seed {golden.task.seed}: "
            "`check` gives a verdict only where CPU kernels give the same bits; try another --seed or --size"
        )
    if not (before := golden.provenance.get("seeds_before")):
        return ""
    return f"under seed {golden.task.seed}, because {too_large_under(before)}"


def too_large_under(seeds: Sequence[int]) -> str:
    """Say why there is no verdict under some seeds, to go on after "because"."""
    return f"under {', '.join(map(str, seeds))} rounding is too large for a verdict"
