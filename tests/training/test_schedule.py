"""A training resumed with another learning rate or schedule is refused, or goes on with the new one if told to."""

from __future__ import annotations

import copy
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.hooks import Hook

from ddq_port.hooks import ResumeRefusedError, SameScheduleHook, saved_config

from . import toy

AT = 4  # iterations before the resumption; the checkpoint is in the midst of the first epoch of 7
SETTINGS = dict(
    optim_wrapper=dict(
        type="OptimWrapper",
        optimizer=dict(type="AdamW", lr=0.05, weight_decay=0.01),
        clip_grad=dict(max_norm=1.0),
        paramwise_cfg=dict(custom_keys={"layers.0": dict(lr_mult=0.1, decay_mult=1.0)}),
    ),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(type="MultiStepLR", by_epoch=False, milestones=[8, 10], gamma=0.3),
    ],
    train_cfg=dict(by_epoch=True, max_epochs=2),
    auto_scale_lr=dict(enable=False, base_batch_size=8),
    train_dataloader=dict(batch_size=toy.BATCH),
    custom_hooks=[dict(type="EMAHook", momentum=0.1)],
)


class Rates(Hook):
    """Keep the learning rates with which each step was taken."""

    priority = "HIGHEST"

    def __init__(self) -> None:
        self.rates: dict[int, list[float]] = {}
        self.decays: list[float] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        groups = runner.optim_wrapper.optimizer.param_groups
        self.rates[runner.iter + 1] = [group["lr"] for group in groups]
        self.decays = [group["weight_decay"] for group in groups]


def changed(key: str, value: Any, settings: dict = SETTINGS) -> dict[str, Any]:
    """Return the settings with another value at a dotted key; `...` removes it."""
    made = copy.deepcopy(settings)
    *path, last = [int(name) if name.isdigit() else name for name in key.split(".")]
    at: Any = made
    for name in path:
        at = at[name]
    if value is ...:
        del at[last]
    else:
        at[last] = value
    return made


def train(
    folder: Path,
    settings: dict[str, Any],
    *,
    stop_at: int | None = None,
    override: bool = False,
    more_hooks: list = (),
    **more: Any,
):
    """Train, or go on; return hooks with losses and rates, and what was said."""
    record, rates, lines = toy.Record(stop_at), Rates(), []
    settings = copy.deepcopy(settings)
    hook = SameScheduleHook(override, "c.pth", lines.append)
    average = settings["custom_hooks"]
    keys = ("optim_wrapper", "param_scheduler", "train_cfg", "auto_scale_lr")
    run = toy.runner(
        folder,
        record,
        by_epoch=True,
        hooks=[rates, hook, *average, *more_hooks],
        cfg=settings,
        **{key: copy.deepcopy(settings[key]) for key in keys},
        **more,
    )
    toy.losses_of(run, record)
    return record, rates, lines


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train up to the resumption."""
    folder = tmp_path_factory.mktemp("stopped")
    train(folder, SETTINGS, stop_at=AT + 1)
    return folder


@pytest.fixture
def begun(stopped: Path, tmp_path: Path) -> Path:
    """Return a copy of the work dir of a training up to the resumption."""
    checkpoint = tmp_path / f"iter_{AT}.pth"
    shutil.copy(stopped / checkpoint.name, checkpoint)
    (tmp_path / "last_checkpoint").write_text(str(checkpoint))
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[toy.Record, Rates, list[str]]:
    return train(tmp_path_factory.mktemp("whole"), SETTINGS)


def test_unchanged_settings_are_resumed_as_they_were(begun: Path, whole) -> None:
    for override in (False, True):
        record, rates, lines = train(begun, SETTINGS, resume=True, override=override, stop_at=None if override else 6)
        assert lines == [] and all(record.losses[step] == whole[0].losses[step] for step in record.losses)
    assert rates.rates == {step: whole[1].rates[step] for step in range(AT + 1, 15)}


REFUSED = [
    ("optim_wrapper.optimizer.lr", 0.02, "optim_wrapper.optimizer.lr 0.05, now 0.02"),
    ("optim_wrapper.optimizer.weight_decay", 0.1, "optim_wrapper.optimizer.weight_decay 0.01, now 0.1"),
    ("optim_wrapper.optimizer.betas", (0.8, 0.99), "optim_wrapper.optimizer.betas not set, now [0.8, 0.99]"),
    ("optim_wrapper.optimizer.eps", 1e-6, "optim_wrapper.optimizer.eps not set, now 1e-06"),
    (
        "optim_wrapper.paramwise_cfg",
        dict(custom_keys={"layers.0": dict(lr_mult=0.5, decay_mult=1.0)}),
        "optim_wrapper.paramwise_cfg.custom_keys.layers.0.lr_mult 0.1, now 0.5",
    ),
    (
        "optim_wrapper.paramwise_cfg",
        dict(custom_keys={"layers.0": dict(lr_mult=0.1, decay_mult=0.0)}),
        "optim_wrapper.paramwise_cfg.custom_keys.layers.0.decay_mult 1, now 0",
    ),
    ("optim_wrapper.clip_grad.max_norm", 0.1, "optim_wrapper.clip_grad.max_norm 1, now 0.1"),
    ("optim_wrapper.clip_grad", ..., "optim_wrapper.clip_grad.max_norm 1, now not set"),
    ("auto_scale_lr.enable", True, "auto_scale_lr.enable False, now True"),
    ("param_scheduler.1.milestones", [5, 10], "param_scheduler.1.milestones [8, 10], now [5, 10]"),
    ("param_scheduler.1.gamma", 0.5, "param_scheduler.1.gamma 0.3, now 0.5"),
    ("param_scheduler.0.end", 6, "param_scheduler.0.end 3, now 6"),
    ("param_scheduler.0.start_factor", 0.5, "param_scheduler.0.start_factor 0.1, now 0.5"),
    ("param_scheduler.1.begin", 2, "param_scheduler.1.begin not set, now 2"),
    ("param_scheduler", [], "param_scheduler.0.type LinearLR, now not set"),
    (
        "param_scheduler.1",
        dict(type="StepLR", by_epoch=False, step_size=8),
        "param_scheduler.1.type MultiStepLR, now StepLR",
    ),
    ("custom_hooks.0.momentum", 0.01, "custom_hooks, EMAHook.momentum 0.1, now 0.01"),
]


@pytest.mark.parametrize(("key", "value", "text"), REFUSED, ids=[f"{key}={value}"[:60] for key, value, _ in REFUSED])
def test_changed_setting_is_refused_with_both_values(begun: Path, key: str, value: Any, text: str) -> None:
    before = {path: path.stat().st_mtime for path in begun.glob("*.pth")}
    with pytest.raises(ResumeRefusedError) as caught:
        train(begun, changed(key, value), resume=True)
    message = str(caught.value)
    assert text in message and message.startswith("c.pth was saved with ") and "--override-schedule" in message
    assert len(message.splitlines()) == 1
    assert before == {path: path.stat().st_mtime for path in begun.glob("*.pth")}


OVERRIDDEN = [case for case in REFUSED if not re.search("clip_grad|custom_hooks|betas|eps|start_factor", case[0])]


@pytest.mark.parametrize(
    ("key", "value", "text"), OVERRIDDEN, ids=[f"{key}={value}"[:60] for key, value, _ in OVERRIDDEN]
)
def test_overridden_schedule_is_that_of_a_training_that_had_it_from_the_beginning(
    begun: Path, tmp_path_factory: pytest.TempPathFactory, key: str, value: Any, text: str
) -> None:
    other = changed(key, value)
    _, expected, _ = train(tmp_path_factory.mktemp("other"), other)
    _, rates, lines = train(begun, other, resume=True, override=True)
    assert rates.rates == {step: expected.rates[step] for step in range(AT + 1, 15)}
    assert rates.decays == expected.decays
    taken, held = lines
    assert taken.startswith("taken from the config: ") and text.replace(", now ", " -> ") in taken
    assert re.match(r"kept from the checkpoint: weights, the optimizer's state of \d+ parameters, counters; ", held)
    assert f"after iteration {AT} (epochs done: 0), with a learning rate of" in held


def test_override_keeps_what_the_optimizer_has_averaged(begun: Path) -> None:
    saved = torch.load(begun / f"iter_{AT}.pth", weights_only=True)["optimizer"]["state"]

    class Look(Hook):
        def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
            if runner.iter == AT:
                self.state = copy.deepcopy(runner.optim_wrapper.optimizer.state_dict()["state"])

    look = Look()
    train(
        begun,
        changed("optim_wrapper.optimizer.lr", 0.02),
        resume=True,
        override=True,
        stop_at=AT + 2,
        more_hooks=[look],
    )
    assert all(torch.equal(look.state[n]["exp_avg"], saved[n]["exp_avg"]) for n in saved)
    assert all(torch.equal(look.state[n]["exp_avg_sq"], saved[n]["exp_avg_sq"]) for n in saved)


def test_longer_training_is_no_other_schedule(begun: Path, whole) -> None:
    record, rates, lines = train(begun, changed("train_cfg.max_epochs", 3), resume=True)
    assert lines == ["train_cfg.max_epochs 2 in the checkpoint, now 3: the schedules stay as they are"]
    assert len(record.losses) == 21 - AT and record.losses[14] == whole[0].losses[14]
    assert rates.rates[21] == whole[1].rates[14]


def test_longer_training_of_a_schedule_that_follows_its_length_is_refused(tmp_path: Path) -> None:
    cosine = changed("param_scheduler", [dict(type="CosineAnnealingLR", by_epoch=False)])
    train(tmp_path, cosine, stop_at=AT + 1)
    longer = changed("train_cfg.max_epochs", 3, cosine)
    with pytest.raises(ResumeRefusedError, match=r"param_scheduler\.0\.T_max 14, now 21; param_scheduler\.0\.end 14"):
        train(tmp_path, longer, resume=True)
    _, rates, lines = train(tmp_path, longer, resume=True, override=True)
    _, expected, _ = train(tmp_path / "other", longer)
    assert rates.rates == {step: expected.rates[step] for step in range(AT + 1, 22)} and len(lines) == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optim_wrapper.optimizer.foreach", False),
        ("optim_wrapper.optimizer.eps", 1e-8),
        ("param_scheduler.1.by_epoch", False),
        ("param_scheduler.1.end", 99),
        ("train_cfg.val_interval", 5),
    ],
)
def test_what_changes_nothing_is_not_refused(begun: Path, whole, key: str, value: Any) -> None:
    record, _, lines = train(begun, changed(key, value), resume=True)
    assert lines == [] and all(record.losses[step] == whole[0].losses[step] for step in record.losses)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "optim_wrapper.optimizer",
            dict(type="SGD", lr=0.05, weight_decay=0.01),
            "optim_wrapper.optimizer.type AdamW, now SGD",
        ),
        ("optim_wrapper.paramwise_cfg", ..., "6 parameters in 6 groups of the optimizer, now 6 in 1"),
    ],
)
def test_state_that_cannot_be_taken_is_refused_even_so(begun: Path, key: str, value: Any, text: str) -> None:
    with pytest.raises(ResumeRefusedError, match=text) as caught:
        train(begun, changed(key, value), resume=True, override=True, exact=False)
    assert "begin with its weights alone (--load-from)" in str(caught.value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        (
            "optim_wrapper.accumulative_counts",
            2,
            "accumulative_counts 1, now OptimWrapper of AdamW, accumulative_counts 2",
        ),
        ("optim_wrapper.type", "ddq_port.AmpOptimWrapper", "now AmpOptimWrapper of AdamW"),
    ],
)
@pytest.mark.parametrize("override", [False, True])
def test_no_option_is_named_where_none_helps(begun: Path, key: str, value: Any, text: str, override: bool) -> None:
    with pytest.raises(ResumeRefusedError, match=text) as caught:
        train(begun, changed(key, value), resume=True, override=override)
    assert "--override-schedule" not in str(caught.value)


def without_config(folder: Path) -> None:
    """Make the checkpoint one whose config is not known, as of the legacy code."""
    content = torch.load(folder / f"iter_{AT}.pth", weights_only=True)
    del content["meta"]["cfg"]
    torch.save(content, folder / f"iter_{AT}.pth")


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("optim_wrapper.optimizer.lr", 0.02, "optim_wrapper.optimizer.lr 0.05, now 0.02"),
        (
            "optim_wrapper.paramwise_cfg",
            dict(custom_keys={"layers.0": dict(lr_mult=0.5, decay_mult=1.0)}),
            "optim_wrapper.optimizer.lr of `layers.0.weight` and 1 more 0.005, now 0.025",
        ),
        ("param_scheduler.1.milestones", [5, 10], "param_scheduler.1.milestones [8, 10], now [5, 10]"),
        ("param_scheduler", [], "param_scheduler, number of schedules 2, now 0"),
    ],
)
def test_states_speak_where_the_config_is_not_known(begun: Path, key: str, value: Any, text: str) -> None:
    without_config(begun)
    with pytest.raises(ResumeRefusedError, match=re.escape(text)):
        train(begun, changed(key, value), resume=True)
    train(begun, SETTINGS, resume=True, stop_at=AT + 2)


def test_config_of_a_checkpoint_is_read_and_not_executed(tmp_path: Path) -> None:
    text = f"a = dict(b=[1, dict(c=(2.5, -1))], d=None)\nx = __import__('os').mkdir({str(tmp_path / 'made')!r})\n"
    found = saved_config.parse(text)
    assert found["a"] == dict(b=[1, dict(c=[2.5, -1])], d=None) and not (tmp_path / "made").exists()
    assert dict(saved_config.flat(found["a"], "a")) == {"a.b.0": 1, "a.b.1.c": [2.5, -1], "a.d": None}
