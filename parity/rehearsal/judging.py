"""What the stages of a rehearsal prove, each claim with its evidence; from the files that they wrote."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from legacy_adapters.ground.words import counted
from legacy_adapters.whole import steplog
from legacy_adapters.whole.request import STEPS

from ..curves.logs import load
from ..verdict.outcome import INCOMPARABLE, MATCH, MISMATCH
from . import plan
from .legacy_runs import outcome_of
from .parting import Parting, part
from .setup import FREE, MIDDLE, OWN, TWIN, Setup
from .stages import Mark

AP = "coco/bbox_mAP"
#: Steps that must be the same in every bit before two trainings may part by rounding.
LEAST_SAME = 100


@dataclass(frozen=True)
class Finding:
    """One claim.

    Attributes:
        stage: that it was proven, or not, by.
        claim: what should be so.
        outcome: ``MATCH``, ``MISMATCH`` or ``INCOMPARABLE``.
        evidence: figures, or what differs and why.
    """

    stage: str
    claim: str
    outcome: str
    evidence: str


def findings(setup: Setup) -> list[Finding]:
    """Return what was proven, in the order of the stages. All stages must be done.

    Raises:
        OSError, ValueError: if a file of a stage is not there or not whole.
    """
    makers: tuple[Callable[[Setup], Finding], ...] = (
        _legacy_aps, _conversion, _tests, _same_steps, _own_order, _from_the_middle, _back_again, _new_ap, _curves,
    )  # fmt: skip
    return [make(setup) for make in makers]


def outcome(found: list[Finding]) -> str:
    """Return the verdict over all: a mismatch counts first, then what cannot be compared."""
    outcomes = {finding.outcome for finding in found}
    return next((one for one in (MISMATCH, INCOMPARABLE) if one in outcomes), MATCH)


def closing_line(found: list[Finding], marks: Mapping[str, Mark]) -> str:
    """Return the verdict in one line."""
    verdict = outcome(found)
    if verdict == MATCH:
        return f"MATCH {counted(len(found), 'claim')} of {counted(len(marks), 'stage')} hold"
    first = next(finding for finding in found if finding.outcome == verdict)
    return f"{verdict} in stage {first.stage}: {first.claim}: {first.evidence}"


def legacy_aps(setup: Setup) -> list[float]:
    """Return the AP of the last validation of each legacy training."""
    return [outcome_of(setup.folder / plan.legacy_name(seed)).metrics[AP] for seed in range(setup.seeds)]


def ap_of(folder: Path) -> float:
    """Return the AP of the last validation of a training of either side."""
    return float(load(folder).aps["bbox_mAP"].values[-1])


def parting_of(setup: Setup, one: str, other: str) -> Parting:
    """Compare the steps of two trainings."""
    return part(*(steplog.read(str(setup.folder / name / STEPS)) for name in (one, other)))


def _legacy_aps(setup: Setup) -> Finding:
    aps = legacy_aps(setup)
    said = f"AP {', '.join(f'{ap:.3f}' for ap in aps)} of seeds {', '.join(map(str, range(setup.seeds)))}"
    if len(aps) > 1:
        said += f", mean {np.mean(aps):.3f}, standard deviation {np.std(aps, ddof=1):.3f}"
    if setup.expected_ap is None:
        return Finding(plan.legacy_name(0), "the legacy side trains", MATCH, said)
    low = [seed for seed, ap in enumerate(aps) if ap < setup.expected_ap]
    claim = f"the legacy side reaches AP {setup.expected_ap:.2f} with every seed"
    return Finding(plan.legacy_name(low[0] if low else 0), claim, MISMATCH if low else MATCH, said)


def _conversion(setup: Setup) -> Finding:
    report = json.loads((setup.folder / plan.EVAL / "report.json").read_text())
    claim = "both sides detect the same with the trained weights, every bit"
    return Finding(plan.EVAL, claim, report["verdict"], report["summary"].partition(" ")[2])


def _tests(setup: Setup) -> Finding:
    legacy = outcome_of(setup.folder / plan.TEST_LEGACY).metrics
    new = _tested(setup.folder / plan.TEST_NEW)
    differing = {name: (value, new.get(name)) for name, value in legacy.items() if new.get(name) != value}
    claim = "each side's own test loop gives the same AP of the trained and of the converted checkpoint"
    evidence = f"AP {legacy[AP]:.3f} on both, and {counted(len(legacy) - 1, 'other figure')}"
    if differing:
        evidence = ", ".join(f"{name} {a} and {b}" for name, (a, b) in differing.items())
    return Finding(plan.TEST_NEW, claim, MISMATCH if differing else MATCH, evidence)


def _tested(folder: Path) -> dict[str, Any]:
    """Return the metrics of the last test that mmengine logged below a folder."""
    files = sorted(path for path in folder.glob("*/*.json") if path.stem == path.parent.name)
    if not files:
        raise FileNotFoundError(f"{folder} holds no log of a test.")
    return {name: value for name, value in json.loads(files[-1].read_text()).items() if name.startswith("coco/")}


def _same_steps(setup: Setup) -> Finding:
    parting = parting_of(setup, plan.legacy_name(0), TWIN)
    claim = "from the same weights, both sides take the same steps: data, learning rates, losses, gradients, weights"
    least = min(LEAST_SAME, setup.steps)
    rounding = parting.field == "norm" and parting.equal >= least
    aps = legacy_aps(setup)[0], ap_of(setup.folder / TWIN)
    if parting.identical and aps[0] != aps[1]:
        told = f"all {parting.equal} steps are identical, but the APs are {aps[0]:.3f} and {aps[1]:.3f}: what is evaluated "
        return Finding(TWIN, claim, MISMATCH, told + "is not what is trained (an average of weights, the test settings)")
    good = parting.identical or rounding
    aps_told = f"AP {aps[0]:.3f} and {aps[1]:.3f}"
    return Finding(TWIN, claim, MATCH if good else MISMATCH, f"{_told(parting)}; {aps_told}")


def _own_order(setup: Setup) -> Finding:
    parting = parting_of(setup, plan.legacy_name(0), OWN)
    claim = "with its own order of norms the new side parts by rounding alone"
    good = parting.identical or parting.field == "norm"
    return Finding(OWN, claim, MATCH if good else MISMATCH, _told(parting))


def _from_the_middle(setup: Setup) -> Finding:
    first = plan.legacy_name(0)
    claim = f"the new side goes on from the legacy side's step {setup.middle} and ends where that does"
    return _going_on(setup, MIDDLE, claim, first, (legacy_aps(setup)[0], ap_of(setup.folder / MIDDLE)))


def _back_again(setup: Setup) -> Finding:
    claim = f"the legacy side goes on from the new side's step {setup.middle} and ends where that does"
    aps = ap_of(setup.folder / TWIN), outcome_of(setup.folder / plan.BACK).metrics[AP]
    return _going_on(setup, plan.BACK, claim, TWIN, aps)


def _going_on(setup: Setup, stage: str, claim: str, reference: str, aps: tuple[float, float]) -> Finding:
    parting = parting_of(setup, reference, stage)
    good = parting.identical and aps[0] == aps[1]
    return Finding(stage, claim, MATCH if good else MISMATCH, f"{_told(parting)}; AP {aps[0]:.3f} and {aps[1]:.3f}")


def _new_ap(setup: Setup) -> Finding:
    ap = ap_of(setup.folder / FREE)
    claim = "the new side, with everything its own, trains"
    if setup.expected_ap is not None:
        claim += f" to AP {setup.expected_ap:.2f}"
    low = setup.expected_ap is not None and ap < setup.expected_ap
    return Finding(FREE, claim, MISMATCH if low else MATCH, f"AP {ap:.3f}")


def _curves(setup: Setup) -> Finding:
    report = json.loads((setup.folder / plan.CURVES / "curves.json").read_text())
    claim = f"its losses and APs lie within the noise of {counted(setup.seeds, 'legacy training')}"
    return Finding(plan.CURVES, claim, report["verdict"], report["summary"].partition(" ")[2])


def _told(parting: Parting) -> str:
    if not parting.compared:
        return "no step is in both logs"
    if parting.identical:
        return f"all {counted(parting.compared, 'step')} identical in every bit"
    same = f"{counted(parting.equal, 'step')} identical, then step {parting.step} parts by {parting.cause} ({parting.detail})"
    return f"{same}; losses are equal for {counted(parting.same_losses, 'step')}"


def partings(setup: Setup) -> Iterator[tuple[str, str, Parting]]:
    """Yield the trainings whose steps were compared: reference, the other one, and how far they are the same."""
    pairs = ((plan.legacy_name(0), TWIN), (plan.legacy_name(0), OWN), (plan.legacy_name(0), MIDDLE), (TWIN, plan.BACK))
    for one, other in pairs:
        yield one, other, parting_of(setup, one, other)
