"""What is read out of a checkpoint of mmcv 1.x: its config, where the training stopped, its rates and averages."""

from __future__ import annotations

from typing import Any

import pytest

from converters.carrying import groups
from converters.carrying.groups import Wanted
from converters.errors import OptimizerError, PartsError
from converters.mmcv1 import averages, saved, stops
from converters.mmcv1.rates import Course
from converters.rules.layout import Layout, TensorSpec
from converters.rules.mapping import Keep, Mapping


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        (dict(config="total_epochs = 3"), dict(total_epochs=3)),
        (dict(config="total_epochs = = 3"), None),
        (dict(config="runner = [1]"), None),
        (dict(config="custom_hooks = 3"), None),
        (dict(config=""), None),
        (dict(config=b"total_epochs = 3"), None),
        (dict(), None),
    ],
    ids=["a config", "no Python", "no section", "no list", "empty", "no text", "none"],
)
def test_a_config_is_read_where_a_file_has_one(meta: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert saved.config(meta) == expected


def test_a_training_that_was_stopped_within_an_epoch_begins_it_again() -> None:
    """Its 18th step was the last; mmcv writes `iter` before it counts the step."""
    by_steps = dict(checkpoint_config=dict(by_epoch=False, interval=6))
    found = stops.stop(dict(epoch=2, iter=17), by_steps, by_epoch=True)
    assert (found.by_epoch, found.epoch, found.iteration, found.at_end) == (True, 1, 18, False)
    assert found.notes[0].startswith("The source was written within epoch 2, after 18 steps.")
    for config in (None, dict(checkpoint_config=dict(interval=1))):
        found = stops.stop(dict(epoch=2, iter=18), config, by_epoch=True)
        assert (found.epoch, found.iteration, found.epoch_length, found.at_end, found.notes) == (2, 18, 9, True, ())


EARLY, USUAL = dict(type="ExpMomentumEMAHook", priority=49), dict(type="EMAHook")


@pytest.mark.parametrize(
    ("config", "file", "expected"),
    [
        (dict(custom_hooks=[EARLY]), "epoch_1.pth", True),
        (dict(custom_hooks=[EARLY], checkpoint_config=dict(by_epoch=False)), "iter_6.pth", False),
        (dict(custom_hooks=[EARLY], checkpoint_config=dict(by_epoch=False)), "best_mAP_epoch_1.pth", True),
        (dict(custom_hooks=[EARLY], runner=dict(type="IterBasedRunner", max_iters=9)), "iter_6.pth", False),
        (dict(custom_hooks=[USUAL]), "epoch_1.pth", False),
        (dict(custom_hooks=[USUAL, EARLY]), "epoch_1.pth", None),
        (dict(custom_hooks=[dict(USUAL, priority="SOMETIME")]), "epoch_1.pth", None),
        (dict(), "epoch_1.pth", None),
        (None, "epoch_1.pth", None),
    ],
)
def test_weights_and_averages_are_exchanged_at_the_end_of_an_epoch_alone(
    config: dict[str, Any] | None, file: str, expected: bool | None
) -> None:
    assert averages.are_swapped(config, file) is expected


def test_rates_of_restarts_end_with_the_last_period() -> None:
    course = Course(
        "lr_config", dict(policy="CosineRestart", periods=[2, 3], restart_weights=[1, 0.5], min_lr=0.0), 5, None, None
    )
    rates = [course.at(1.0, epoch, 0) for epoch in range(5)]
    assert rates == pytest.approx([1.0, 0.5, 0.5, 0.375, 0.125])
    with pytest.raises(PartsError, match="`lr_config.periods` of the source's training end before it does"):
        course.at(1.0, 5, 0)


def test_rates_that_follow_from_an_unknown_length_are_refused() -> None:
    options = dict(policy="poly", by_epoch=False)
    assert Course("lr_config", options, None, 8, None).at(1.0, 0, 2) == 0.75
    with pytest.raises(PartsError, match="`lr_config.policy` of the source's training needs its length in iterations"):
        Course("lr_config", options, 4, None, None).at(1.0, 0, 2)


LAYOUT = Layout("toy", {name: TensorSpec("float32", (1,)) for name in ("a", "b", "c")})
SAME = Mapping("toy", (Keep("*"),))


def fitted(members: dict[str, float], wanted: dict[str, float], base: float | None = None) -> list[dict[str, Any]]:
    """Carry an optimizer with a group for each parameter, by name and rate; return the groups, and last the base."""
    told = [dict(lr=rate, params=[number], param_names=[name]) for number, (name, rate) in enumerate(members.items())]
    settings = tuple(dict(lr=rate) for rate in wanted.values())
    new = Wanted("SGD", tuple((name,) for name in wanted), settings, None if base is None else dict(lr=base))
    made = groups.fit(dict(state={}, param_groups=told), LAYOUT, LAYOUT, new, SAME, None).regrouped.state_dict
    return [*made["param_groups"], *([made[groups.BASE]] if groups.BASE in made else [])]


def test_groups_that_name_what_the_model_does_not_have_are_refused() -> None:
    with pytest.raises(
        OptimizerError,
        match=r"`param_names` of the optimizer's groups tell 2 name\(s\) that the model does not have: `x`, `y`",
    ):
        fitted(dict(a=1.0, x=1.0, y=1.0), dict(a=1.0))


def test_parameters_that_the_old_optimizer_did_not_hold_are_refused() -> None:
    with pytest.raises(
        OptimizerError,
        match=r"holds 1 parameter\(s\) that the source's does not: `c`; freeze them in the config as 2.x did",
    ):
        fitted(dict(a=1.0, b=2.0), dict(a=1.0, b=2.0, c=3.0))


@pytest.mark.parametrize(
    ("members", "wanted", "base", "rate"),
    [
        (dict(a=1.0, b=2.0, c=3.0), dict(a=10.0, b=20.0, c=30.0), 20.0, 2.0),
        (dict(a=1.0, b=2.0, c=3.0), dict(a=10.0, c=30.0), 20.0, 2.0),
        (dict(a=1.0, b=2.0), dict(a=10.0, b=20.0), 30.0, 1.0),
    ],
    ids=["a group without multipliers", "the group that no other takes", "the first"],
)
def test_base_settings_are_those_of_a_group_without_multipliers(
    members: dict[str, float], wanted: dict[str, float], base: float, rate: float
) -> None:
    *own, last = fitted(members, wanted, base)
    assert [group["lr"] for group in own] == [members[name] for name in wanted] and last["lr"] == rate
