"""A training stops at its first loss that is NaN or infinite, before that loss changes anything."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EMAHook, Hook
from mmengine.runner import Runner

from ddq_port.hooks import NonFiniteLossError
from ddq_port.hooks.nan_stop import image_names

from . import toy

STOP = dict(type="ddq_port.StopOnNonFiniteLossHook")


def failing(tmp_path: Path, fails_at: int) -> tuple[toy.Record, NonFiniteLossError, dict[str, torch.Tensor]]:
    record = toy.Record()
    run = toy.runner(tmp_path / "run", record, by_epoch=True, hooks=[STOP], model=toy.Model(fails_at=fails_at))
    with pytest.raises(NonFiniteLossError) as caught:
        run.train()
    return record, caught.value, toy.weights(run)


def test_message_names_iteration_terms_and_images(tmp_path: Path) -> None:
    record, error, _ = failing(tmp_path, fails_at=9)
    assert (error.iteration, list(error.terms)) == (9, ["loss_b"])
    assert len(error.images) == toy.BATCH and all(image.startswith("images/") for image in error.images)
    lines = str(error).splitlines()
    assert len(lines) == 2 and all(len(line) < 200 for line in lines)
    assert lines[0] == "Loss is not finite at iteration 9 (epoch 2): loss_b nan."
    assert all(image in lines[1] for image in error.images)


def test_weights_are_those_of_the_last_good_iteration(tmp_path: Path) -> None:
    record, _, stopped = failing(tmp_path, fails_at=9)
    assert len(record.losses) == 8
    saved = torch.load(tmp_path / "run" / "iter_8.pth", weights_only=True)["state_dict"]
    same = {name: torch.equal(stopped[name], saved[name]) for name in saved}
    # the forward pass has counted the batch in the batch norm, as it does in any evaluation of the loss
    assert all(same[name] for name in same if "running" not in name and "tracked" not in name)


def test_finite_training_is_not_touched(tmp_path: Path) -> None:
    with_hook, without = toy.Record(), toy.Record()
    run = toy.runner(tmp_path / "with", with_hook, by_epoch=True, hooks=[STOP])
    toy.losses_of(run, with_hook)
    toy.losses_of(toy.runner(tmp_path / "without", without, by_epoch=True), without)
    assert with_hook.losses == without.losses
    assert "parse_losses" not in vars(run.model)


def test_averages_that_no_step_has_written_yet_are_not_looked_at(tmp_path: Path) -> None:
    class Unwritten(Hook):
        priority = "LOWEST"

        def before_run(self, runner: Runner) -> None:
            average = next(hook for hook in runner.hooks if isinstance(hook, EMAHook)).ema_model
            assert not average.steps
            next(average.module.parameters()).data.fill_(float("nan"))  # as memory may be that was never written

    record = toy.Record()
    run = toy.runner(tmp_path / "run", record, by_epoch=True, hooks=[STOP, dict(type="EMAHook"), Unwritten()])
    toy.losses_of(run, record)
    assert record.losses


def test_images_without_a_path_are_named_by_id() -> None:
    with_path, without_path = toy.Sample("a.png"), toy.Sample("")
    assert image_names(dict(data_samples=[with_path, without_path])) == ["a.png", "image id 1"]
    assert image_names([torch.zeros(2)]) == []


def test_error_survives_being_sent_between_processes() -> None:
    error = NonFiniteLossError("text", 3, {"loss_a": 1.0}, ["a.png"])
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.iteration, copy.terms, copy.images) == ("text", 3, {"loss_a": 1.0}, ("a.png",))
