"""Check and measure the port on a GPU within a time limit: ``python -m tools.gpu_check --out FOLDER``.

Writes ``report.txt``, ``report.json``, ``logs.txt`` and ``verdicts.zip`` after every part; a part that fails or takes
too long stops no other one. First come checks, several at once; then what is timed, alone; then what time is left for.
``--plan`` chooses what: DDQ-DETR with times and waits, the other families, or a rehearsal. ``--dry-run`` runs every part
on the CPU at tiny width.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from . import gpu_ddq_detr, gpu_families
from .gpu_families import Repos
from .gpu_run import Phase, Report, run_phases

PLANS = ("ddq_detr", "families", "rehearsal")

#: Where runs keep their traces, the one with most free space first. The second one is in memory.
SCRATCH = (Path(tempfile.gettempdir()), Path("/dev/shm"))


def plan(name: str, dry: bool, repos: Repos) -> tuple[Phase, ...]:
    """Return what a plan runs, the most valuable first; parts whose legacy code is not there are left out."""
    if name == "ddq_detr":
        return gpu_ddq_detr.plan(gpu_ddq_detr.DRY if dry else gpu_ddq_detr.FULL, repos.ddq_detr)
    make = gpu_families.families if name == "families" else gpu_families.rehearsal
    return make("cpu" if dry else "cuda", dry, repos)


def _scratch() -> list[Path]:
    """Make a folder in each place, the one with most free space first."""
    places = sorted((place for place in SCRATCH if place.is_dir()), key=lambda place: -shutil.disk_usage(place).free)
    return [Path(tempfile.mkdtemp(prefix="gpu-check-", dir=place)) for place in places]


def needs(phases: tuple[Phase, ...], seconds: float) -> str:
    """Say what a check takes: chains of a phase run at the same time, and a part's files go with it."""
    disk = max(sum(max(part.disk for part in chain) for chain in phase.chains) for phase in phases)
    parts = sum(len(chain) for phase in phases for chain in phase.chains)
    return f"{parts} parts, at most {seconds / 60:.0f} minutes, at most {disk:.0f} GB on disk at a time"


def _only(phases: tuple[Phase, ...], name: str) -> tuple[Phase, ...]:
    """Keep the parts whose names begin with ``name``."""
    kept = []
    for phase in phases:
        chains = [tuple(part for part in chain if part.name.startswith(name)) for chain in phase.chains]
        kept.append(Phase(tuple(chain for chain in chains if chain), phase.until))
    return tuple(phase for phase in kept if phase.chains)


def main() -> int:
    """Run the check; exit code 0 says that it ran, the report what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the reports")
    parser.add_argument("--plan", choices=PLANS, default=PLANS[0], help="what to run; ddq_detr by default")
    parser.add_argument("--legacy-repo", type=Path, help="checkout of jshilong/DDQ, branch ddq_detr")
    parser.add_argument("--main-repo", type=Path, help="the same, branch main")
    parser.add_argument("--mmdet2-repo", type=Path, help="folder with mmdet 2.x and mmcv 1.x")
    parser.add_argument("--seconds", type=float, default=540.0, help="for everything")
    parser.add_argument("--dry-run", action="store_true", help="on the CPU, at tiny width")
    parser.add_argument("--only", default="", metavar="PART", help="parts whose names begin so")
    given = parser.parse_args()
    repos = Repos(*(repo and repo.resolve() for repo in (given.legacy_repo, given.main_repo, given.mmdet2_repo)))
    phases, full = (_only(plan(given.plan, dry, repos), given.only) for dry in (given.dry_run, False))
    if not phases:
        parser.error(f"--plan {given.plan} has no part for the legacy code given and --only {given.only!r}")
    sys.stdout.write(f"{'at full width' if given.dry_run else 'needs'}: {needs(full, given.seconds)}\n")
    scratch = _scratch()
    try:
        run_phases(phases, Report(given.out), scratch, given.seconds)
    finally:
        for place in scratch:
            shutil.rmtree(place, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
