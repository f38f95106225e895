"""Run the new side alone where the legacy code cannot run under autocast."""

from __future__ import annotations

import shutil
from collections.abc import Callable

from legacy_adapters.ground.words import sentence
from legacy_adapters.inputs import TRAIN
from legacy_adapters.launch import SideError
from legacy_adapters.tasks.initialising import INIT

from ..comparing.drift import AutocastFailure, drifts
from ..comparing.pairing import LEGACY, NEW
from ..sides.sides import Sides
from ..sides.stopped import Stop
from ..traces.trace import Trace, TraceError, decisions

#: What is added to the name of a run without autocast.
_PLAIN = ".float32"


def unable(sides: Sides, progress: Callable[[str], None]) -> AutocastFailure | None:
    """Find out whether a legacy side that has crashed under autocast does so because of that; if so, run the new side.

    The new side runs under autocast, which leaves its trace, and in float32 under the decisions and draws of that run.

    Returns:
        None if the legacy side crashes without autocast as well, or left no trace.

    Raises:
        legacy_adapters.launch.SideError: if the new side leaves no trace.
    """
    stop, task = _stop_of_legacy(sides), sides.task
    if stop is None:
        return None
    progress("the legacy side stopped under autocast; running it without")
    try:
        shutil.rmtree(sides.legacy(LEGACY + _PLAIN, amp=None).folder)
    except SideError:
        return None
    in_training = f"the {TRAIN} phase" in stop.place
    what = "losses" if in_training else "detections"
    told = f"The legacy code cannot compute {what} under {task.amp} autocast, though it can without: {sentence(str(stop))}"
    compared = tuple(check for check in task.checks if check == INIT or (check == "forward" and in_training))
    checks = tuple(check for check in task.checks if check not in compared)
    progress("running the new side under autocast, and in float32 under the same decisions and draws")
    given = dict(gradient_flow=False, checks=checks)
    ran = sides.new(**given)
    own = Stop.of(ran, NEW)
    if own is not None:
        return AutocastFailure(f"{told} Nor can the new side: {sentence(str(own))}", compared, ())
    replay = sides.write_decisions(decisions(ran))
    with sides.passing(sides.new(NEW + _PLAIN, amp=None, replay=replay, decide=False, **given)) as plain:
        return AutocastFailure(f"{told} The new side can.", compared, tuple(drifts(plain, ran)))


def _stop_of_legacy(sides: Sides) -> Stop | None:
    try:
        return Stop.of(Trace.load(sides.folder / LEGACY), LEGACY)
    except TraceError:
        return None
