"""Record the legacy side into a golden file, and compare the new side with one."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from legacy_adapters.ground.words import counted
from legacy_adapters.tasks.initialising import without_init

from ..comparing.compare import DERIVED, Tolerance
from ..comparing.converted import decisions_for_new_side
from ..comparing.padding import Images
from ..comparing.pairing import NEW
from ..golden.evidence import GoldenEvidence, loose_records
from ..golden.golden import Golden, distil
from ..golden.sketches import Sketches
from ..sides.prepared import Prepared
from ..sides.settings import Machine, Sources, Task
from ..sides.sides import Sides, prepare
from ..traces.trace import decisions
from ..verdict.verdict import Verdict, ended, judge
from .isolate import FLOAT64, Progress
from .run import MOST_SEEDS, measure_legacy, next_seed


def capture(
    task: Task, sources: Sources, machine: Machine, prepared: Prepared, folder: Path, progress: Progress
) -> Golden:
    """Run the legacy side several times in ``folder``, which must be empty, and distil what it computed.

    Where CPU kernels give other bits, records whose rounding could hide an error leave no verdict. If there are any,
    the next seeds are tried, up to :data:`.run.MOST_SEEDS` in all, and that with the fewest is kept.

    Raises:
        legacy_adapters.launch.SideError: if the side crashes or takes too long.
    """
    best, loose = _capture(task, sources, machine, prepared, folder, progress)
    before = []
    while loose and len(before) < MOST_SEEDS - 1:
        before.append(task.seed)
        task = next_seed(task, folder, f"rounding of {counted(loose, 'record')} is too large for a verdict", progress)
        golden, number = _capture(task, sources, machine, prepare(task, sources, machine), folder, progress)
        if number < loose:
            best, loose = golden, number
    before = [seed for seed in (*before, task.seed) if seed != best.task.seed]
    return replace(best, provenance={**best.provenance, "seeds_before": before, "loose": loose})


def _capture(
    task: Task, sources: Sources, machine: Machine, prepared: Prepared, folder: Path, progress: Progress
) -> tuple[Golden, int]:
    sides = Sides(task, sources, machine, prepared, folder, variant_calls=False)  # a golden file is to stay small
    progress(f"running the legacy side ({task.port})")
    legacy = sides.legacy()
    images = Images(legacy, task.port.mapping.paddings)
    masks = ((record.key, images.places(record)) for record in legacy.records)
    sketches = Sketches({key: places for key, places in masks if places is not None})
    measured = measure_legacy(sides, legacy, progress, sketches.of, sketches.places_of)
    golden = distil(task, prepared, legacy, measured.reference, measured.spread, decisions(legacy), sketches)
    return golden, len(loose_records(golden))


def check(
    golden: Golden, sources: Sources, machine: Machine, prepared: Prepared, folder: Path, progress: Progress
) -> Verdict:
    """Run the new side in ``folder`` under the golden file's decisions and draws and judge with derived tolerance.

    Raises:
        GoldenError: if ``prepared`` is not what the golden file was recorded with.
        legacy_adapters.launch.SideError: if the side crashes or takes too long.
    """
    golden.check_given(prepared)
    settings = dict(task=golden.task.as_dict(), sources=asdict(sources), machine=asdict(machine))
    (folder / "run.json").write_text(json.dumps(settings, indent=1, sort_keys=True, default=str))
    sides = Sides(golden.task, sources, machine, prepared, folder, variant_calls=False)
    replay = sides.write_decisions(decisions_for_new_side(golden.decisions, golden.task.port.mapping))
    progress(f"running the new side ({sides.new_title})")
    given = dict(replay=replay, gradient_flow=golden.provenance.get("gradient_flow", False))
    new = sides.new(**given)
    progress("running the new side in float64")
    checks = without_init(golden.task.checks)
    new_reference = sides.new(NEW + FLOAT64, dtype="float64", decide=False, checks=checks, **given)
    progress("comparing")
    port, evidence = golden.task.port, GoldenEvidence(golden, new, new_reference)
    return ended(judge(golden, new, port.mapping, port.exclusions, Tolerance(DERIVED), evidence))
