"""Trainings that are stopped and resumed, against the same ones uninterrupted: equal losses, bit for bit."""

from __future__ import annotations

import ddq_port  # noqa: F401  # isort: skip  (supplies mmcv._ext before mmdet asks)

from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets.samplers import AspectRatioBatchSampler
from mmengine.dataset import InfiniteSampler
from mmengine.fileio import LocalBackend
from mmengine.model import BaseModel  # noqa: F401
from torch.utils.data import DataLoader

from ddq_port.hooks import ResumeRefusedError
from ddq_port.hooks.checkpoint_files import LAST_COMPLETE
from ddq_port.hooks.exact_resume import KEY

from . import toy

AMP = dict(
    type="ddq_port.AmpOptimWrapper",
    dtype="bfloat16",
    loss_scale=dict(init_scale=4.0, growth_interval=3),
    optimizer=dict(type="AdamW", lr=0.05),
)
ACCUMULATE = dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9), accumulative_counts=3)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def train(folder: Path, *, stop_at: int | None = None, **settings: Any) -> toy.Record:
    record = toy.Record(stop_at)
    run = toy.runner(folder, record, **settings)
    toy.losses_of(run, record)
    record.read = list(run.train_dataloader.dataset.read)
    return record


def content(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found, expected), where
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}/{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected), where
        for index, (one, two) in enumerate(zip(found, expected)):
            assert_same(one, two, f"{where}/{index}")
    else:
        assert found == expected, where


def assert_ended_alike(found: Path, expected: Path) -> None:
    """Compare all that the last checkpoints of two trainings hold of the training's state."""
    one, two = content(found), content(expected)
    for part in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers", KEY):
        assert (part in one) == (part in two)
        assert_same(one.get(part), two.get(part), part)
    logged = [part["message_hub"]["log_history"]["train/loss"] for part in (one, two)]
    assert_same(*logged, "log")


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
@pytest.mark.parametrize(
    ("stops", "settings"),
    [
        # checkpoints after every 2nd of 21 iterations; the first epoch ends after the 7th
        pytest.param((4, 16), dict(), id="mid-epoch"),
        pytest.param((8, 15), dict(checkpoint=dict(interval=7)), id="at the end of an epoch"),
        pytest.param((12,), dict(loader=dict(num_workers=2, persistent_workers=True)), id="workers"),
        pytest.param((12,), dict(hooks=[dict(type="EMAHook", momentum=0.1)]), id="EMA"),
        pytest.param((12,), dict(optim_wrapper=AMP), id="AMP"),
        pytest.param((12,), dict(optim_wrapper=ACCUMULATE), id="accumulated gradients"),
        pytest.param((12,), dict(loader=dict(batch_sampler=dict(type=AspectRatioBatchSampler))), id="aspect ratios"),
        pytest.param((12,), dict(loader=dict(sampler=dict(type=toy.Drawn), num_workers=1)), id="sampler that draws"),
        pytest.param((12,), dict(randomness=dict(seed=None)), id="no seed"),
    ],
)
def test_resumed_training_takes_the_steps_of_the_uninterrupted_one(
    tmp_path: Path, by_epoch: bool, stops: tuple[int, ...], settings: dict[str, Any]
) -> None:
    losses: dict[int, str] = {}
    for number, stop_at in enumerate((*stops, None)):
        losses |= train(tmp_path / "stopped", by_epoch=by_epoch, stop_at=stop_at, resume=number > 0, **settings).losses
    if settings.get("randomness"):
        drawn = content(tmp_path / "stopped" / "iter_2.pth")["meta"]["seed"]
        settings = dict(randomness=dict(seed=drawn))
    whole = train(tmp_path / "whole", by_epoch=by_epoch, **settings)
    assert losses == whole.losses and len(losses) == 21
    # saved as the last one, or at the last multiple of the interval
    last = f"iter_{21 if 'checkpoint' in settings else 20}.pth"
    assert_ended_alike(tmp_path / "stopped" / last, tmp_path / "whole" / last)


def test_endless_sampler_goes_on_where_it_was(tmp_path: Path) -> None:
    settings = dict(by_epoch=False, loader=dict(sampler=dict(type=InfiniteSampler), num_workers=1))
    stopped = train(tmp_path / "stopped", stop_at=12, **settings)
    resumed = train(tmp_path / "stopped", resume=True, **settings)
    assert stopped.losses | resumed.losses == train(tmp_path / "whole", **settings).losses


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
def test_images_of_skipped_batches_are_not_read(tmp_path: Path, by_epoch: bool) -> None:
    stopped = train(tmp_path, by_epoch=by_epoch, stop_at=12)
    resumed = train(tmp_path, by_epoch=by_epoch, resume=True)
    assert list(resumed.losses) == list(range(11, 22))
    assert len(resumed.read) == 11 * toy.BATCH
    # the batch that the stop interrupted was read, but not trained on
    assert resumed.read[: 2 * toy.BATCH] == stopped.read[10 * toy.BATCH :]


def test_place_in_the_epoch_is_told_to_other_hooks(tmp_path: Path) -> None:
    train(tmp_path, by_epoch=True, stop_at=12)
    assert train(tmp_path, by_epoch=True, resume=True).places == [3, 4, 5, 6, 0, 1, 2, 3, 4, 5, 6]


def test_number_of_workers_may_change(tmp_path: Path) -> None:
    two = dict(loader=dict(num_workers=2))
    stopped = train(tmp_path / "stopped", by_epoch=True, stop_at=12, **two)
    resumed = train(tmp_path / "stopped", by_epoch=True, resume=True)
    assert (
        stopped.losses | resumed.losses == train(tmp_path / "whole", by_epoch=True, loader=dict(num_workers=1)).losses
    )


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
def test_validation_leaves_no_trace(tmp_path: Path, by_epoch: bool) -> None:
    """Also where the training is stopped behind it: a resumed training does not validate again."""
    settings = dict(
        by_epoch=by_epoch,
        checkpoint=dict(interval=7, by_epoch=False, save_best="toy/score", rule="greater"),
        **toy.validation(interval=1 if by_epoch else 7),
    )
    stopped = train(tmp_path / "stopped", stop_at=16, **settings)
    resumed = train(tmp_path / "stopped", resume=True, **settings)
    whole = train(tmp_path / "whole", by_epoch=by_epoch)
    assert stopped.losses | resumed.losses == whole.losses
    best = next((tmp_path / "stopped").glob("best_toy_score_iter_*.pth"))
    assert KEY not in content(best)  # nor an optimizer: not to be resumed, but loaded without running code


def test_checkpoints_of_epochs_are_resumed_at_the_next_epoch(tmp_path: Path) -> None:
    settings = dict(by_epoch=True, checkpoint=dict(interval=1, by_epoch=True))
    stopped = train(tmp_path / "stopped", stop_at=12, **settings)
    resumed = train(tmp_path / "stopped", resume=True, **settings)
    assert list(resumed.losses) == list(range(8, 22))
    state = content(tmp_path / "stopped" / "epoch_1.pth")[KEY]
    assert (state["epoch"], state["position"]) == (1, 0)
    assert stopped.losses | resumed.losses == train(tmp_path / "whole", **settings).losses


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (dict(loader=dict(batch_size=1)), "batch size 2, now 1"),
        (dict(loader=dict(dataset=dict(type=toy.Images, length=16))), "length of the data set 14, now 16"),
        (dict(loader=dict(sampler=dict(type=InfiniteSampler))), "sampler DefaultSampler, now InfiniteSampler"),
        (dict(loader=dict(sampler=dict(type="DefaultSampler", shuffle=False))), "shuffle True, now False"),
        (dict(optim_wrapper=AMP), "OptimWrapper of AdamW, .*, now AmpOptimWrapper of AdamW, .*bfloat16"),
        (dict(optim_wrapper=ACCUMULATE), "counts 1, now OptimWrapper of SGD, accumulative_counts 3"),
    ],
    ids=["batch size", "data set", "sampler", "shuffle", "precision", "accumulation"],
)
def test_other_data_are_refused(tmp_path: Path, settings: dict[str, Any], expected: str) -> None:
    train(tmp_path, by_epoch=False, stop_at=4)
    with pytest.raises(ResumeRefusedError, match=expected) as caught:
        train(tmp_path, by_epoch=False, resume=True, **settings)
    assert "load_from without resume" in str(caught.value) and "\n" not in str(caught.value)


def test_an_average_is_not_gone_on_from_as_if_it_were_the_weights(tmp_path: Path) -> None:
    ema = dict(hooks=[dict(type="EMAHook", momentum=0.1)])
    train(tmp_path, by_epoch=True, stop_at=4, **ema)
    with pytest.raises(ResumeRefusedError, match="its weights are the average; resume with EMAHook") as caught:
        train(tmp_path, by_epoch=True, resume=True)
    assert "\n" not in str(caught.value)
    train(tmp_path / "weights", by_epoch=True, load_from=str(tmp_path / "iter_2.pth"), stop_at=2)


def test_another_world_size_is_refused(tmp_path: Path) -> None:
    train(tmp_path, by_epoch=True, stop_at=4)
    saved = content(tmp_path / "iter_2.pth")
    saved[KEY]["setting"]["world size"] = 8
    torch.save(saved, tmp_path / "iter_2.pth")
    with pytest.raises(ResumeRefusedError, match="world size 8, now 1"):
        train(tmp_path, by_epoch=True, resume=True)


def test_a_loader_that_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ResumeRefusedError, match="a config of train_dataloader; found EpochBasedTrainLoop"):
        toy.runner(tmp_path, toy.Record(), by_epoch=True, train_dataloader=DataLoader(toy.Images())).train()


def test_weights_alone_begin_a_new_training(tmp_path: Path) -> None:
    train(tmp_path / "first", by_epoch=True, stop_at=4)
    record = train(tmp_path / "second", by_epoch=True, load_from=str(tmp_path / "first" / "iter_2.pth"))
    assert list(record.losses) == list(range(1, 22)) and record.places[:7] == list(range(7))


@pytest.mark.parametrize("by_epoch", [True, False], ids=["epochs", "iterations"])
def test_checkpoint_without_a_state_is_resumed_as_mmengine_does(tmp_path: Path, by_epoch: bool) -> None:
    stopped = train(tmp_path, by_epoch=by_epoch, stop_at=12)
    saved = content(tmp_path / "iter_10.pth")
    del saved[KEY]
    torch.save(saved, tmp_path / "iter_10.pth")
    resumed = train(tmp_path, by_epoch=by_epoch, resume=True)
    # the loop for epochs begins the epoch again, that for iterations goes on
    first, last = resumed.places[0], list(resumed.losses)[-1]
    assert (first, last) == ((0, 24) if by_epoch else (10, 21))
    assert len(resumed.read) == len(resumed.losses) * toy.BATCH
    assert resumed.read[:4] == stopped.read[(7 if by_epoch else 10) * toy.BATCH :][:4]


def test_checkpoint_is_loaded_without_running_code_and_keeps_its_histories(tmp_path: Path) -> None:
    train(tmp_path, by_epoch=True, stop_at=6)
    saved = content(tmp_path / "iter_4.pth")
    assert len(saved["message_hub"]["log_history"]["train/loss"]["values"]) == 4
    record = toy.Record(stop_at=8)
    run = toy.runner(tmp_path, record, by_epoch=True, resume=True)
    toy.losses_of(run, record)
    assert len(run.message_hub.get_scalar("train/loss").data[0]) == 7


class Killed(BaseException):
    """Ends a training at once, like SIGKILL."""


@pytest.mark.parametrize("keep", [-1, 1], ids=["all kept", "one kept"])
def test_kill_while_a_checkpoint_is_written(tmp_path: Path, keep: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dict(by_epoch=True, checkpoint=dict(max_keep_ckpts=keep))
    put, calls = LocalBackend.put, []

    def half(self: LocalBackend, data: bytes, path: str) -> None:
        calls.append(path)
        if len(calls) == 3:
            put(self, data[: len(data) // 2], path)
            raise Killed
        put(self, data, path)

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(LocalBackend, "put", half)
        train(tmp_path / "stopped", **settings)
    assert not (tmp_path / "stopped" / "iter_6.pth").exists()
    assert (tmp_path / "stopped" / "iter_4.pth").exists() == (keep < 0)
    resumed = train(tmp_path / "stopped", resume=True, **settings)
    assert list(resumed.losses) == list(range(5, 22))
    whole = train(tmp_path / "whole", by_epoch=True)
    assert resumed.losses.items() <= whole.losses.items()


@pytest.mark.parametrize("left", ["", "gone/iter_9.pth"], ids=["empty", "naming a removed file"])
def test_torn_pointer_to_the_last_checkpoint(tmp_path: Path, left: str) -> None:
    train(tmp_path, by_epoch=True, stop_at=8)
    (tmp_path / "last_checkpoint").write_text(left)
    resumed = train(tmp_path, by_epoch=True, resume=True)
    assert min(resumed.losses) == 7


def test_a_sound_pointer_is_followed(tmp_path: Path) -> None:
    train(tmp_path, by_epoch=True, stop_at=8)
    (tmp_path / "last_checkpoint").write_text(str(tmp_path / "iter_2.pth"))
    assert min(train(tmp_path, by_epoch=True, resume=True).losses) == 3


def test_second_name_takes_no_space(tmp_path: Path) -> None:
    train(tmp_path, by_epoch=True, stop_at=8)
    assert (tmp_path / LAST_COMPLETE).samefile(tmp_path / "iter_6.pth")
    assert not list(tmp_path.glob(".*"))


def test_without_hard_links_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any) -> None:
        raise OSError("not supported")

    monkeypatch.setattr("ddq_port.hooks.checkpoint_files.os.link", refused)
    assert len(train(tmp_path, by_epoch=True).losses) == 21
    assert not (tmp_path / LAST_COMPLETE).exists() and (tmp_path / "iter_20.pth").exists()


def test_runner_is_left_as_it_was(tmp_path: Path) -> None:
    record = toy.Record()
    run = toy.runner(tmp_path, record, by_epoch=True)
    toy.losses_of(run, record)
    assert "save_checkpoint" not in vars(run) and "run_iter" not in vars(run.train_loop)


def test_attributes_of_the_data_set_are_those_of_the_wrapped_one(tmp_path: Path) -> None:
    """mmdet's hooks switch pipelines by setting them."""
    record = toy.Record()
    run = toy.runner(tmp_path, record, by_epoch=True)
    toy.losses_of(run, record)
    data = run.train_dataloader.dataset
    data.length = 3
    assert len(data) == data.wrapped.length == 3
