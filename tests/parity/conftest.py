"""Run ``ddq-parity`` in this process; its sides run in processes of their own, forked from warm ones."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from converters import api
from converters.options import Options
from parity.cli.main import cli
from parity.comparing.compare import Tolerance
from parity.sides.settings import Machine, Sources, Task
from parity.sides.sides import Sides, prepare
from parity.verdict import reasons
from parity.verdict.verdict import MATCH, judge
from tests.models import port

from ..faults.fault import VARIABLE
from ..warm.execute import in_forks
from .synthetic import MODULES

PLANTED = Path(__file__).parent / "planted"
#: The port with faults of the fault suite.
FAULTY = PLANTED / "fault.py"

#: Fault of the fault suite, or file in ``planted``, the check that shows it, the place that must be named.
PLANTED_ERRORS = [
    ("swapped_aux_branch", "loss", "decoder"),
    ("eps_inverse_sigmoid", "loss", "decoder"),
    ("eps_layer_norm", "forward", "decoder.norm"),
    ("off_by_one_reference", "forward", "bbox_head"),
    ("always_active", "forward", "decoder"),
    ("mask_row_2", "forward", "decoder"),
    ("threshold_of_selection", "forward", "the detector"),
    ("no_padding_mask_in_decoder", "forward", "the detector"),
    ("ascending_dense", "loss", "the detector"),
    ("fewer_dense", "loss", "the detector"),
    ("fewer_detections", "forward", "bbox_head"),
    ("changed_state", "loss", "level_embed"),
    ("label_range_short", "loss", "the detector"),
    ("reseeds", "forward", "backbone"),
    ("reseeds", "loss", "backbone"),
]

#: Errors of training, named likewise, the place that must be named, a part of the message. Epochs of 2 steps.
TRAINING_ERRORS = [
    ("betas", "the optimizer", "In step 1 `betas` differs for all 230 parameters"),
    ("adam_eps", "the optimizer", "In step 1 `eps` differs for all 230 parameters"),
    ("no_bias_correction", "the optimizer", "In step 1 the optimizer leaves "),
    ("amsgrad", "the optimizer", "In step 1 the optimizer's option `amsgrad` is set on the new side only, for all"),
    ("maximize", "the optimizer", "In step 1 the optimizer's option `maximize` is set on the new side only"),
    ("adam_for_adamw", "the optimizer", "In step 1 the optimizer is Adam, the legacy side's is AdamW."),
    ("accumulates_two_steps", "the optimizer wrapper", "In step 1 the optimizer wrapper has another `accumulative_counts`."),
    ("strict_clip", "gradient clipping", "In step 1 clipping has `error_if_nonfinite` on the new side only."),
    ("one_without_decay", "query_map.weight", "In step 1 `weight_decay` differs for 1 of 230 parameters: `query_map.weight`"),
    ("parameter_left_out", "level_embed", "In step 1 the new side's optimizer does not train `level_embed`"),
    ("backbone_as_fast_as_the_rest", "backbone", "In step 1 `lr` differs for 42 of 230 parameters: `backbone`"),
    ("warm_up_in_1000_steps", "the schedule", "In step 2 `lr` differs for all 230 parameters"),
    ("schedule_stuck", "the schedule", "In step 3 `lr` differs for all 230 parameters"),
    ("decay_after_first_epoch", "the schedule", "In step 3 `lr` differs for all 230 parameters"),
    ("clipped_to_another_norm", "gradient clipping", "In step 1 gradients are clipped by another `max_norm`"),
    ("not_clipped", "gradient clipping", "In step 1 the new side's optimizer does not clip gradients"),
    ("gradients_kept", "the optimizer wrapper", "In step 2 230 of 230 gradients differ"),
    ("average_forgotten", "query_map.bias", "In step 2 the optimizer's `exp_avg` of `query_map.bias` differs"),
    ("nudged_parameter", "level_embed", "After step 2 `level_embed` differs"),
    ("drifting_loss", "loss_bbox", "In step 3 the loss term `loss_bbox` differs"),
]


def training_judge(folder, family, legacy_repo=None):
    """Train the legacy side for 4 steps; return a function that trains an adapter and judges it."""
    task = Task(port(family, "tiny_4scale"), ((64, 64),), None, 0, ("train",), 4, 2)
    machine, sources = Machine("cpu", 1, None, 300.0), Sources(legacy_repo)
    prepared = prepare(task, sources, machine)
    legacy = Sides(task, sources, machine, prepared, folder).legacy()

    def run(adapter):
        sides = Sides(task, replace(sources, new_adapter=adapter), machine, prepared, folder)
        with sides.passing(sides.new("new", twin=legacy.records)) as new:
            return judge(legacy, new, task.port.mapping, task.port.exclusions, Tolerance())

    return run


#: Errors that one process cannot show: file in ``planted``, the place that must be named, a part of the message.
RANK_ERRORS = [
    ("own_matching_factor", "bbox_head", "(call 0 in step 1 on rank 0, result loss_cls)"),
    ("own_denoising_factor", "bbox_head", "(call 0 in step 1 on rank 0, result dn_loss_cls)"),
    ("own_dense_factor", "bbox_head.aux_loss_for_dense", "(call 0 in step 1 on rank 0, result aux_loss_cls.0)"),
    ("clamp_before_reduce", "bbox_head", "(call 0 in step 2 on rank 0, result loss_cls)"),
]


def ranks_judge(folder, family, legacy_repo=None):
    """Train the legacy side with two ranks for 4 steps; return a function that trains an adapter and judges it."""
    task = Task(port(family, "tiny_4scale"), ((64, 64), (64, 80)), None, 0, ("train",), 4, ranks=2)
    machine, sources = Machine("cpu", 1, None, 300.0), Sources(legacy_repo)
    prepared = prepare(task, sources, machine)
    legacy = Sides(task, sources, machine, prepared, folder).legacy()

    def run(adapter):
        sides = Sides(task, replace(sources, new_adapter=adapter), machine, prepared, folder)
        with sides.passing(sides.new("new", twin=legacy.records, beside=str(legacy.folder))) as new:
            return judge(legacy, new, task.port.mapping, task.port.exclusions, Tolerance())

    return run


def assert_every_rank_matches(verdict):
    """Expect a match of two ranks in which all that a step computes was compared on both, bit by bit."""
    assert verdict.outcome == MATCH, verdict.divergence
    assert all(comparison.identical for comparison in verdict.comparisons)
    counts = Counter((c.pair.new.phase, c.pair.new.kind) for c in verdict.comparisons)
    phases = [f"step {step} on rank {rank}" for step in range(1, 5) for rank in (0, 1)]
    for kind, number in (("grad", 230), ("optim_state", 3 * 230), ("state", 506)):
        assert {counts[phase, kind] for phase in phases} == {number}
    assert min(counts[phase, "loss"] for phase in phases) > 20
    objects = [sum(verdict.provenance["legacy"]["objects"][phase]) for phase in phases]
    assert objects[0] != objects[1] and 0 not in objects[:3] and objects[3:7] == [0] * 4 and objects[7] > 0
    wrapper = dict(name="MMDistributedDataParallel", broadcast_buffers=False, find_unused_parameters=False)
    assert verdict.provenance["legacy"]["wrapper"] == verdict.provenance["new"]["wrapper"] == wrapper


def resumed_by_legacy(folder, family, legacy_repo=None):
    """Stop the port's training after step 2 of 4, resume the legacy side from its checkpoint; return the verdict."""
    task = Task(port(family, "tiny_4scale"), ((64, 64),), None, 0, ("train",), 4, 2, resume_at=2)
    machine, sources = Machine("cpu", 1, None, 300.0), Sources(legacy_repo)
    sides = Sides(task, sources, machine, prepare(task, sources, machine), folder)
    # norms are summed in the order of the legacy side's optimizer, which a run of one step tells
    order = sides.legacy("order", step_inputs=(str(folder / "steps" / "00001.safetensors"),), resume_at=0)
    new = sides.new(twin=order.records, checkpoint_to=str(folder / "port.pth"))
    api.convert_file(folder / "port.pth", folder / "legacy.pth", Options(to="legacy", family=family))
    legacy = sides.legacy(checkpoint_from=str(folder / "legacy.pth"))
    return judge(legacy, new, task.port.mapping, task.port.exclusions, Tolerance())


@pytest.fixture(autouse=True, scope="module")
def warm_sides():
    """Run the sides in forks of processes that have imported their code bases; live runs of real repos are not."""
    with in_forks():
        yield


@pytest.fixture
def planted(monkeypatch):
    """Return a function that gives the adapter with an error: a file in ``planted``, or faults of the fault suite."""

    def adapter(error):
        file = PLANTED / f"{error}.py"
        if file.is_file():
            return file
        monkeypatch.setenv(VARIABLE, error)
        return FAULTY

    return adapter


@pytest.fixture(autouse=True)
def checks_of_tests(monkeypatch):
    """Let hand-written traces ask for the one kind of record most of them are made of."""
    monkeypatch.setitem(reasons.EVIDENCE_OF_CHECKS, *MODULES)


@pytest.fixture
def parity():
    """Return a function that runs the command line and gives click's result."""

    def call(*arguments):
        return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, [str(a) for a in arguments])

    return call


@pytest.fixture
def tiny(parity):
    """Return a function that runs tiny mmdet 3.3.0 against the port."""

    def call(*arguments, sizes="128x160,96x128"):
        return parity("run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", sizes, *arguments)

    return call
