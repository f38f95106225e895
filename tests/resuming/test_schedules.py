"""Schedules of mmcv 1.x go on in mmengine: its own schedulers, made of the written config, take the states and are run on."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("mmdet")

from converters.errors import PartsError
from converters.mmcv1.stops import Stop, counts_epochs
from converters.mmcv1.taken_up import Goal
from legacy_adapters.families.mmdet2.migration.draft import Draft
from legacy_adapters.families.mmdet2.migration.schedules import schedule
from legacy_adapters.families.mmdet2.migration.toolkit import known
from legacy_adapters.families.mmdet2.resumption import RESUMPTION, courses_of

REPO = os.environ.get("DDQ_MMDET2_REPO", "")
LENGTH = 6  # steps of an epoch
EPOCHS = dict(type="EpochBasedRunner", max_epochs=8)
STEPS = dict(type="IterBasedRunner", max_iters=48)
LINEAR = dict(warmup="linear", warmup_iters=9, warmup_ratio=0.001)
SGD, ADAM = dict(lr=0.02, momentum=0.9), dict(lr=0.02, betas=(0.9, 0.999))
POLICIES = dict(
    step=dict(policy="step", step=[2, 5]),
    every=dict(policy="step", step=3, gamma=0.5),
    exponential=dict(policy="exp", gamma=0.7),
    poly=dict(policy="poly", power=0.9),
    poly_low=dict(policy="poly", power=2.0, min_lr=1e-4),
    cosine=dict(policy="CosineAnnealing", min_lr=0.0),
    cosine_ratio=dict(policy="CosineAnnealing", min_lr_ratio=0.01),
    flat=dict(policy="FlatCosineAnnealing", start_percent=0.5, min_lr_ratio=0.05),
    down=dict(policy="LinearAnnealing", min_lr_ratio=0.1),
    down_to=dict(policy="LinearAnnealing", min_lr=1e-4),
    restart=dict(policy="CosineRestart", periods=[3, 9], restart_weights=[1, 1], min_lr=0.0),
    fixed=dict(policy="fixed"),
)
CASES = {
    **{f"{name} by epoch": dict(lr_config=own, runner=EPOCHS) for name, own in POLICIES.items()},
    **{
        f"{name} by step": dict(lr_config=dict(own, **({} if name != "step" else dict(step=[12, 30]))), runner=STEPS)
        for name, own in POLICIES.items()
        if name != "restart"
    },
    "linear warm-up": dict(lr_config=dict(POLICIES["step"], **LINEAR), runner=EPOCHS),
    "constant warm-up": dict(lr_config=dict(POLICIES["step"], **{**LINEAR, "warmup": "constant"}), runner=EPOCHS),
    "exponential warm-up": dict(lr_config=dict(POLICIES["step"], **{**LINEAR, "warmup": "exp"}), runner=EPOCHS),
    "warm-up of steps": dict(lr_config=dict(POLICIES["poly"], **LINEAR), runner=STEPS),
    "warm-up of epochs": dict(
        lr_config=dict(POLICIES["step"], warmup="linear", warmup_iters=2, warmup_ratio=0.1, warmup_by_epoch=True), runner=EPOCHS
    ),
    "steps of an epoch's runner": dict(lr_config=dict(policy="step", step=[10, 30], by_epoch=False), runner=EPOCHS),
    "poly of an epoch's runner": dict(lr_config=dict(POLICIES["poly_low"], by_epoch=False), runner=EPOCHS),
    "cosine of an epoch's runner": dict(lr_config=dict(POLICIES["cosine"], by_epoch=False, **LINEAR), runner=EPOCHS),
    "yolox": dict(
        lr_config=dict(
            policy="YOLOX", warmup="exp", by_epoch=False, warmup_by_epoch=True, warmup_ratio=1, warmup_iters=2,
            num_last_epochs=2, min_lr_ratio=0.05,
        ),
        runner=EPOCHS, optimizer=dict(type="SGD", lr=0.02),
    ),
    "momentum": dict(
        lr_config=POLICIES["step"], momentum_config=dict(policy="CosineAnnealing", min_momentum_ratio=0.5), runner=EPOCHS
    ),
    "momentum by step": dict(
        lr_config=POLICIES["poly"], momentum_config=dict(policy="step", step=[20], gamma=0.9, by_epoch=False), runner=STEPS
    ),
    "old runner": dict(lr_config=POLICIES["step"], total_epochs=8),
}  # fmt: skip


def place(old, epoch):
    """Return the place behind an epoch, or as many steps."""
    if counts_epochs(old):
        return Stop(True, epoch, epoch * LENGTH, LENGTH, at_end=True)
    return Stop(False, 0, epoch * LENGTH)


def written(old):
    """Return what the config of 3.x says of schedules."""
    draft, by_epoch = Draft(), counts_epochs(old)
    length = (old.get("runner") or {}).get("max_epochs" if by_epoch else "max_iters", 8)
    schedule(draft, old, by_epoch, length)
    loop = dict(max_epochs=length) if by_epoch else dict(type="IterBasedTrainLoop", max_iters=length)
    return Goal(by_epoch, dict(param_scheduler=draft.config.get("param_scheduler", []), train_cfg=loop))


def at(courses, start, epoch, iteration):
    rate, momentum = start
    return (
        courses["lr_config"].at(rate, epoch, iteration),
        courses["momentum_config"].at(momentum, epoch, iteration) if "momentum_config" in courses else momentum,
    )


def slots_of(courses, stop, own):
    """Return two groups, one with a tenth of the rate, as the last step left them."""
    slots = []
    for rate in (own["lr"], own["lr"] / 10):
        value, momentum = at(courses, (rate, 0.9), *stop.last)
        changed = dict(betas=(momentum, 0.999)) if "betas" in own else dict(momentum=momentum)
        initial = dict(initial_momentum=0.9) if "momentum_config" in courses else {}
        slots.append(dict(lr=value, initial_lr=rate, **changed, **initial))
    return slots


def resumed(goal, taken, slots, own, steps):
    """Yield what mmengine's schedulers of a config set, when they have taken the states."""
    groups = [dict(params=[torch.nn.Parameter(torch.zeros(1))]) for _ in taken.settings]
    optimizer = (torch.optim.Adam if "betas" in own else torch.optim.SGD)(groups, **own)
    schedulers = []
    for one, state in zip(goal.config["param_scheduler"], taken.states):
        kind, given = known("param_scheduler", one["type"]), {key: one[key] for key in one if key not in ("type", "convert_to_iter_based")}
        convert = kind.build_iter_from_epoch if one.get("convert_to_iter_based") else kind
        schedulers.append(convert(optimizer, **given, **(dict(epoch_length=LENGTH) if one.get("convert_to_iter_based") else {})))
    for group, slot, settings in zip(optimizer.param_groups, slots, taken.settings):
        group.update({**slot, **settings})
    for scheduler, state in zip(schedulers, taken.states):
        scheduler.load_state_dict(state)
    for epoch_ends in steps:
        yield [(group["lr"], group["betas"][0] if "betas" in group else group["momentum"]) for group in optimizer.param_groups]
        for by_epoch in (False, True) if epoch_ends else (False,):
            for scheduler in schedulers:
                if scheduler.by_epoch == by_epoch:
                    scheduler.step()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("epoch", [1, 5])
def test_every_rate_behind_a_stop_is_that_of_mmcv(name, epoch):
    old, own = CASES[name], ADAM if "momentum" in name else SGD
    stop, goal = place(old, epoch), written(old)
    courses = dict(courses_of(old, stop))
    slots = slots_of(courses, stop, own)
    taken = RESUMPTION.take_up(old, goal, stop, slots)
    ends = [stop.by_epoch and (number + 1) % LENGTH == 0 for number in range(stop.iteration, 48)]
    for number, values in enumerate(resumed(goal, taken, slots, own, ends), stop.iteration):
        step = (number // LENGTH if stop.by_epoch else 0, number)
        for value, rate in zip(values, (0.02, 0.002)):
            expected = at(courses, (rate, 0.9), *step)
            assert all(math.isclose(*pair, rel_tol=1e-12, abs_tol=1e-18) for pair in zip(value, expected)), (step, value, expected)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("epoch", [1, 5])
def test_without_the_old_config_the_new_one_tells(epoch):
    old = dict(CASES["linear warm-up"])
    stop, goal = place(old, epoch), written(old)
    courses = dict(courses_of(old, stop))
    slots = slots_of(courses, stop, SGD)
    known_, alone = RESUMPTION.take_up(old, goal, stop, slots), RESUMPTION.take_up(None, goal, stop, slots)
    assert "schedules are those of the new config" in alone.notes[0] and not known_.notes
    for one, two in zip(known_.settings, alone.settings):
        assert math.isclose(one["lr"], two["lr"], rel_tol=1e-12)
    progress = ("last_step", "_global_step", "end", "milestones", "total_iters")
    assert [{key: state.get(key) for key in progress} for state in known_.states] == [
        {key: state.get(key) for key in progress} for state in alone.states
    ]


def test_settings_of_the_new_config_that_are_not_those_of_2x_are_told_and_not_taken():
    old = dict(CASES["linear warm-up"])
    stop, goal = place(old, 1), written(old)
    goal.config["param_scheduler"][0]["end"] -= 1
    taken = RESUMPTION.take_up(old, goal, stop, slots_of(dict(courses_of(old, stop)), stop, SGD))
    assert "`param_scheduler.0.end` 9 (2.x: 10)" in taken.notes[0]
    assert taken.states[0]["end"] == 10


REFUSED = {
    "cyclic": (dict(lr_config=dict(policy="cyclic"), runner=EPOCHS), "`lr_config.policy` of the source's training is 'cyclic'"),
    "own": (dict(lr_config=dict(policy="Mine"), runner=EPOCHS), "is 'Mine', for which no schedule of 3.x is known"),
    "momentum": (
        dict(lr_config=POLICIES["step"], momentum_config=dict(policy="cyclic"), runner=EPOCHS), "`momentum_config.policy`"
    ),
    "inverse": (dict(lr_config=dict(policy="inv", gamma=0.1), runner=EPOCHS), "3.x has no schedule that goes on as `lr_config`"),
    "least rate": (dict(lr_config=dict(policy="step", step=[2, 3], min_lr=1e-3), runner=EPOCHS), "in step 13 it would have"),
    "overlap": (
        dict(lr_config=dict(policy="CosineAnnealing", min_lr=1e-3, by_epoch=False, **LINEAR), runner=STEPS), "in step 8 it would"
    ),
    "nothing of it": (dict(lr_config=dict(policy="exp"), runner=EPOCHS), r"training cannot be made \(KeyError: 'gamma'\)"),
    "epochs counted by steps": (
        dict(lr_config=dict(policy="step", step=[2], by_epoch=True), runner=STEPS), "its runner counts iterations"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_what_3x_cannot_go_on_with_is_refused(name):
    old, message = REFUSED[name]
    stop, goal = place(old, 1), Goal(True, {}) if "KeyError" in message else written(old)
    slots = [dict(lr=0.02, initial_lr=0.02, momentum=0.9)]
    if "in step" in message or "as `lr_config`" in message:
        slots = slots_of(dict(courses_of(old, stop)), stop, SGD)
    with pytest.raises(PartsError, match=message) as error:
        RESUMPTION.take_up(old, goal, stop, slots)
    assert "\n" not in str(error.value) and str(error.value).endswith("--keep model to convert the weights alone.")


def test_rates_that_are_not_those_of_the_schedule_are_refused():
    old = dict(CASES["step by epoch"])
    stop = place(old, 2)
    slots = [dict(lr=0.002, initial_lr=0.02, momentum=0.9)]
    with pytest.raises(PartsError, match="had the rate 0.002, and by `lr_config` of its config that is the rate 0.02"):
        RESUMPTION.take_up(old, written(old), stop, slots)
    with pytest.raises(PartsError, match="--legacy-config OLD.py"):
        RESUMPTION.take_up(None, written(old), stop, slots)


def test_schedules_of_other_classes_are_refused():
    old, other = CASES["step by epoch"], CASES["cosine by epoch"]
    stop = place(old, 1)
    with pytest.raises(PartsError, match="are, for 3.x, MultiStepLR by epoch, and the new config has CosineAnnealingLR by epoch"):
        RESUMPTION.take_up(old, written(other), stop, slots_of(dict(courses_of(old, stop)), stop, SGD))


def test_a_schedule_that_follows_from_validations_is_refused():
    goal = Goal(True, dict(param_scheduler=[dict(type="ReduceOnPlateauLR")], train_cfg=dict(max_epochs=8)))
    with pytest.raises(PartsError, match="`ReduceOnPlateauLR` of the new config follows from validations"):
        RESUMPTION.take_up(None, goal, place(CASES["step by epoch"], 1), [dict(lr=0.02, initial_lr=0.02, momentum=0.9)])


def test_the_length_of_an_epoch_is_asked_for_where_it_is_needed():
    old = CASES["yolox"]
    stop = replace(place(old, 3), epoch_length=None)
    with pytest.raises(PartsError, match="the source does not tell how many an epoch has"):
        RESUMPTION.take_up(old, written(old), stop, [dict(lr=0.02, initial_lr=0.02, momentum=0.9)])


@pytest.mark.skipif(not REPO, reason="DDQ_MMDET2_REPO is not set (a folder with mmdet 2.x and mmcv 1.x)")
def test_rates_are_those_of_mmcvs_own_hooks(tmp_path):
    (tmp_path / "cases.json").write_text(json.dumps(dict(length=LENGTH, cases=CASES)))
    script = Path(__file__).with_name("rates_of_hooks.py")
    ran = subprocess.run([sys.executable, script, REPO, tmp_path / "cases.json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    told = json.loads(ran.stdout.rpartition("told ")[2])
    for name, old in CASES.items():
        courses = dict(courses_of(old, place(old, 1)))
        for number, groups in enumerate(told[name]):
            epoch = number // LENGTH if counts_epochs(old) else 0
            assert groups == [list(at(courses, (rate, 0.9), epoch, number)) for rate in (0.02, 0.002)], (name, number)
