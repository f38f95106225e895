"""A detector that meets a number that is not finite ends in one stop: images, iteration, and what made it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ddq_port.models  # noqa: F401  # isort: skip

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.hooks import EMAHook
from mmengine.logging import MessageHub
from mmengine.model import ExponentialMovingAverage
from mmengine.optim import OptimWrapper
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from ddq_port.amp import AmpOptimWrapper
from ddq_port.hooks import NonFiniteLossError, StopOnNonFiniteLossHook, nan_stop, not_finite
from ddq_port.hooks.not_finite import image_names
from ddq_port.registry import MODELS
from ddq_port.training.cli import cli as train_command
from ddq_port.training.eval_cli import cli as eval_command
from ddq_port.training.settings import config as settings

NAN, INF = float("nan"), float("inf")
AT = 2  # iteration of the defect


@pytest.fixture(scope="module")
def built(config: str) -> tuple[nn.Module, list[Any]]:
    """Return the tiny detector and the batches of an epoch."""
    cfg = settings.load(config)
    with DefaultScope.overwrite_default_scope("mmdet"):
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        model.init_weights()
        batches = list(Runner.build_dataloader(cfg.train_dataloader, seed=0))
    return model, batches


class Training:
    """Steps of a copy of the detector with the hook, as mmengine's loop takes them."""

    def __init__(self, built: tuple[nn.Module, list[Any]], wrapper: type = OptimWrapper, **options: Any) -> None:
        self.model, self.batches = copy.deepcopy(built[0]).train(), copy.deepcopy(built[1])
        options.setdefault("clip_grad", dict(max_norm=0.1))
        optimizer = torch.optim.AdamW(self.model.parameters(), lr=options.pop("lr", 1e-4))
        self.optim_wrapper = wrapper(optimizer=optimizer, **options)
        self.optim_wrapper.initialize_count_status(nn.Identity(), 0, 100)
        self.hook = StopOnNonFiniteLossHook()
        self.iter = self.epoch = self.saved = 0
        self.hooks: list[Any] = [self.hook]
        self.message_hub = MessageHub.get_current_instance()

    def save_checkpoint(self) -> None:
        self.saved += 1

    def run(self, steps: int = AT, plant: Callable[[Training], None] | None = None) -> None:
        self.hook.before_train(self)
        for number in range(steps):
            if number + 1 == AT and plant:
                plant(self)
            batch = self.batches[number % len(self.batches)]
            self.hook.before_train_iter(self, number, batch)
            losses = self.model.train_step(batch, optim_wrapper=self.optim_wrapper)
            self.hook.after_train_iter(self, number, batch, losses)
            self.iter += 1
        self.save_checkpoint()

    def stopped(self, plant: Callable[[Training], None] | None = None, steps: int = AT) -> NonFiniteLossError:
        with pytest.raises(NonFiniteLossError) as caught:
            self.run(steps, plant)
        return caught.value


def value(name: str, number: float) -> Callable:
    def change(training: Any) -> None:
        tensors = {**dict(training.model.named_parameters()), **dict(training.model.named_buffers())}
        tensors[name].data.view(-1)[0] = number

    return change


def output(name: str, number: float) -> Callable:
    def change(training: Any) -> None:
        def spoil(module: nn.Module, args: Any, out: Any) -> Any:
            return out + torch.full_like(out, number)

        training.model.get_submodule(name).register_forward_hook(spoil, prepend=True)

    return change


def between(training: Any) -> None:
    """Let code between modules make NaN of finite values."""
    model = training.model
    original = model.forward_transformer

    def spoiled(img_feats: Any, batch_data_samples: Any = None) -> Any:
        return original(tuple(feat * INF * 0 for feat in img_feats), batch_data_samples)

    model.forward_transformer = spoiled


def assigner(training: Any) -> None:
    """Let code that gives nothing to a module make NaN: matching."""
    match = training.model.bbox_head.assigner.match_costs[0]
    kind = type(match)
    training.model.bbox_head.assigner.match_costs[0] = lambda **kw: kind.__call__(match, **kw) * INF * 0


def gradient(training: Any) -> None:
    training.model.neck.convs[0].conv.weight.register_hook(lambda grad: grad * NAN)


CASES = [
    (
        "a parameter",
        value("decoder.layers.1.ffn.layers.1.bias", NAN),
        "parameter",
        "decoder.layers.1.ffn.layers.1.bias",
    ),
    ("an infinite parameter", value("level_embed", INF), "parameter", "level_embed"),
    ("a running variance", value("backbone.bn1.running_var", NAN), "buffer", "backbone.bn1.running_var"),
    ("the backbone", output("backbone.layer3.0.conv2", INF), "output", "backbone.layer3.0.conv2"),
    ("the neck", output("neck.convs.1.conv", NAN), "output", "neck.convs.1.conv"),
    ("the encoder", output("encoder.layers.0.norms.1", NAN), "output", "encoder.layers.0.norms.1"),
    ("classification", output("bbox_head.cls_branches.0", NAN), "output", "bbox_head.cls_branches.0"),
    ("a loss", output("bbox_head.loss_iou", INF), "output", "bbox_head.loss_iou"),
    (
        "the embedding",
        output("dn_query_generator.label_embedding", NAN),
        "output",
        "dn_query_generator.label_embedding",
    ),
    ("code between modules", between, "input", "positional_encoding"),
    ("matching", assigner, "operation", ""),
    ("a gradient", gradient, "gradient", "neck.convs.0.conv.weight"),
]


@pytest.mark.parametrize(("plant", "what", "name"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_stop_names_what_was_not_finite_first(built, plant, what, name):
    training = Training(built)
    error = training.stopped(plant)
    assert error.cause is not None and (error.cause.what, error.cause.name) == (what, name), str(error)
    assert error.iteration == AT and list(error.images) == image_names(training.batches[1])
    assert f"not finite at iteration {AT} (epoch 1)" in str(error) and f"after iteration {AT - 1}." in str(error)
    assert name in str(error) and all(image in str(error) for image in error.images)


@pytest.mark.parametrize(("number", "what"), [(NAN, "NaN"), (INF, "infinite")])
def test_an_image_is_named_by_itself(built, number, what):
    training = Training(built)
    inputs = training.batches[1]["inputs"]
    inputs[1] = inputs[1].float()
    inputs[1][0, 3, 4] = number
    error = training.stopped()
    assert (
        error.cause.what == "image"
        and error.cause.name == error.images[1]
        and f"1 of 15360 values, {what}" in str(error)
    )
    assert "Mend this image or leave it out." in str(error)


def test_boxes_of_an_image(built):
    training = Training(built)
    training.batches[1]["data_samples"][0].gt_instances.bboxes.tensor[0, 2] = NAN
    error = training.stopped()
    assert error.cause.what == "boxes" and error.cause.name == error.images[0] and "Mend the annotations" in str(error)


@pytest.mark.parametrize("rate", [1e3, 1e12, 1e30, INF])
def test_learning_rate(built, rate):
    """Whatever it ends in: weights that overflow, outputs that do, a gradient; never in anything but the stop."""
    training = Training(built, lr=rate)
    error = training.stopped(steps=30)
    assert error.cause is not None and error.cause.what in ("parameter", "output", "input", "operation", "gradient")
    assert error.cause.name in dict(training.model.named_parameters()) | dict(training.model.named_modules())
    assert f"Weights are those after iteration {error.iteration - 1}. If the training" in str(error)


def test_weights_are_those_from_before_a_gradient_that_is_not_finite(built):
    training = Training(built)
    before = {}

    def plant(training):
        before.update({name: param.detach().clone() for name, param in training.model.named_parameters()})
        gradient(training)

    error = training.stopped(plant)
    assert str(error).startswith("Gradients are not finite at iteration 2 (epoch 1): their norm is nan.")
    assert all(torch.equal(before[name], param) for name, param in training.model.named_parameters())


def test_gradients_that_are_accumulated_are_of_several_batches(built):
    training = Training(built, accumulative_counts=2)
    error = training.stopped(gradient)
    assert list(error.images) == image_names(training.batches[0]) + image_names(training.batches[1])


def test_steps_that_a_gradient_scaler_leaves_out_are_no_reason_to_stop(built):
    training = Training(built, AmpOptimWrapper, dtype="bfloat16", loss_scale=dict(init_scale=8.0))
    training.run(3, gradient)
    assert training.saved == 1 and training.optim_wrapper.loss_scaler.get_scale() == 2.0


def test_a_scaler_that_leaves_out_every_step_is(built, monkeypatch):
    monkeypatch.setattr("ddq_port.hooks.nan_stop._MOST_SKIPPED", 2)
    training = Training(built, AmpOptimWrapper, dtype="bfloat16")
    error = training.stopped(gradient, steps=5)
    assert "Gradients were not finite in the last 2 iterations, all of which were left out" in str(error)


@pytest.mark.parametrize("kind", [IndexError, RuntimeError])
def test_a_bug_stays_one(built, kind):
    def plant(training):
        def broken(*args):
            raise kind("list index out of range: not finite")

        training.model.bbox_head.loss_bbox.register_forward_hook(broken)

    with pytest.raises(kind):
        Training(built).run(plant=plant)


def test_running_out_of_memory_is_not_explained(built):
    def plant(training):
        value("level_embed", NAN)(training)
        training.model.train_step = full

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("full")

    with pytest.raises(torch.OutOfMemoryError):
        Training(built).run(plant=plant)


def test_repeating_the_step_changes_nothing(built):
    training = Training(built)
    state = {}

    def plant(training):
        output("neck.convs.1.conv", NAN)(training)
        state.update(copy.deepcopy(training.model.state_dict()))

    training.stopped(plant)
    changed = [name for name, tensor in training.model.state_dict().items() if not torch.equal(tensor, state[name])]
    assert changed == [] and all(not module._forward_pre_hooks for module in training.model.modules())


def test_weights_are_looked_at_before_the_first_step(built):
    training = Training(built)
    value("encoder.layers.0.self_attn.value_proj.weight", NAN)(training)
    error = training.stopped()
    start = "Weights are not finite before the first step: the parameter `encoder.layers.0.self_attn.value_proj.weight`"
    assert str(error).startswith(start) and "(1 of 4096 values, NaN)" in str(error) and training.saved == 0


@pytest.mark.parametrize("averaged", [False, True])
def test_what_is_not_finite_is_not_saved(built, averaged):
    training = Training(built, clip_grad=None)
    if averaged:
        ema = EMAHook()
        ema.ema_model = ExponentialMovingAverage(training.model)
        ema.ema_model.update_parameters(training.model)
        training.hooks.append(ema)

    def plant(training):
        spoiled = ema.ema_model.module if averaged else training.model
        training.optim_wrapper.optimizer.register_step_post_hook(
            lambda *_: value("level_embed", INF)(SimpleNamespace(model=spoiled))
        )

    error = training.stopped(plant)
    what = "Averaged weights" if averaged else "Weights"
    assert str(error).startswith(f"{what} are not finite after iteration 2: the parameter `level_embed`")
    assert training.saved == 0 and list(error.images) == image_names(training.batches[1])


def test_averages_that_no_step_has_written_yet_may_hold_anything(built):
    training = Training(built)
    ema = EMAHook()
    ema.ema_model = ExponentialMovingAverage(training.model)
    value("level_embed", NAN)(SimpleNamespace(model=ema.ema_model.module))
    training.hooks.append(ema)
    training.hook.before_train(training)


@pytest.mark.parametrize("name", ["bbox_head.reg_branches.0.4", "memory_trans_norm"])
def test_inference(built, name):
    training = Training(built)
    training.hook.before_test(training)
    output(name, NAN)(training)
    training.model.eval()
    batch = training.batches[0]
    with pytest.raises(NonFiniteLossError) as caught, torch.no_grad():
        outputs = training.model.test_step(batch)
        training.hook.after_test_iter(training, 0, batch, outputs)
    assert caught.value.cause.name == name and str(caught.value).startswith("Predictions ")
    assert image_names(batch)[0] in str(caught.value)


def test_running_averages_are_no_cause_where_they_are_only_written():
    norm = nn.BatchNorm1d(4)
    norm.running_mean[1] = NAN
    assert not_finite.in_state(norm, written=False) is None
    assert not_finite.in_state(norm).name == not_finite.in_state(norm.eval(), written=False).name == "running_mean"


@pytest.mark.parametrize(("number", "found"), [(-INF, False), (NAN, True)])
def test_masks_may_be_infinite(number, found):
    module = nn.Linear(2, 2)
    module.register_buffer("mask", torch.tensor([0.0, number]))
    assert (not_finite.in_state(module) is not None) is found


def test_another_rank_tells_why_it_is_gone(monkeypatch):
    store = torch.distributed.HashStore()
    monkeypatch.setattr(torch.distributed.distributed_c10d, "_get_default_store", lambda: store)
    monkeypatch.setattr(nan_stop, "get_world_size", lambda: 2)
    nan_stop._raise_what_another_rank_told()  # nothing so far
    nan_stop._tell_other_ranks(NonFiniteLossError("text", 3, {}, ["a.png"], not_finite.Cause("image", "a.png", "a")))
    with pytest.raises(NonFiniteLossError, match="text") as caught:
        nan_stop._raise_what_another_rank_told()
    assert caught.value.cause.name == "a.png"


def call(command, *words, code):
    result = CliRunner().invoke(command, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == code and "Traceback" not in result.output, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    return line


@pytest.fixture(scope="module")
def float_config(config: str, data: Path, tmp_path_factory) -> str:
    """Return a config that reads float images, one of which holds a NaN, as scientific cameras write it."""
    folder = tmp_path_factory.mktemp("float")
    (folder / "images").mkdir()
    for path in sorted((data / "images").iterdir()):
        pixels = cv2.imread(str(path)).astype(np.float32)
        if path.stem == "2":
            pixels[5, 6, 0] = NAN
        cv2.imwrite(str(folder / "images" / f"{path.stem}.tif"), pixels)
    annotations = (data / "annotations.json").read_text().replace(".png", ".tif")
    (folder / "annotations.json").write_text(annotations)
    text = Path(config).read_text().replace(str(data), str(folder))
    text = text.replace('type="LoadImageFromFile"', 'type="LoadImageFromFile", color_type="unchanged", to_float32=True')
    (folder / "float.py").write_text(text)
    return str(folder / "float.py")


def test_command_with_a_float_image_that_holds_nan(float_config, tmp_path):
    words = (float_config, "--work-dir", tmp_path / "work", "--no-preflight", "--seed", 1, "-q", "--no-check-data")
    line = call(train_command, *words, code=1)
    assert (
        "not finite at iteration" in line
        and "images/2.tif as the data pipeline gives it (1 of 15360 values, NaN)" in line
    )
    assert not list((tmp_path / "work").glob("*.pth"))


@pytest.fixture(scope="module")
def checkpoint(built, tmp_path_factory) -> Path:
    """Return a checkpoint with one NaN."""
    state = copy.deepcopy(built[0].state_dict())
    state["bbox_head.reg_branches.1.2.bias"][7] = NAN
    path = tmp_path_factory.mktemp("checkpoint") / "nan.pth"
    optimizer = dict(state={3: dict(exp_avg=torch.zeros(2))}, param_groups=[])
    content = dict(
        state_dict=state, optimizer=optimizer, message_hub={}, meta=dict(epoch=1, iter=2), param_schedulers=[]
    )
    torch.save(content, path)
    return path


NAMED = "holds numbers that are not finite: `bbox_head.reg_branches.1.2.bias` (1 of 64 values, NaN). Take an earlier"


@pytest.mark.parametrize("words", [("--load-from",), ("--resume",)])
def test_command_with_a_checkpoint_that_holds_nan(config, checkpoint, tmp_path, words):
    given = ("--work-dir", tmp_path / "work", "--no-preflight", "-q", *words, checkpoint)
    assert f"{checkpoint} {NAMED}" in call(train_command, config, *given, code=2)
    assert not (tmp_path / "work").exists()


def test_evaluation_of_a_checkpoint_that_holds_nan(config, checkpoint):
    assert f"{checkpoint} {NAMED}" in call(eval_command, config, checkpoint, "-q", code=2)


def test_state_of_the_optimizer_is_looked_at_when_it_is_resumed(config, checkpoint, tmp_path):
    content = torch.load(checkpoint, weights_only=True)
    content["state_dict"]["bbox_head.reg_branches.1.2.bias"].zero_()
    content["optimizer"]["state"][3]["exp_avg"][1] = INF
    torch.save(content, tmp_path / "c.pth")
    given = ("--work-dir", tmp_path / "work", "--no-preflight", "-q", "--resume", tmp_path / "c.pth")
    assert "`optimizer.state.3.exp_avg` (1 of 2 values, infinite)" in call(train_command, config, *given, code=2)
