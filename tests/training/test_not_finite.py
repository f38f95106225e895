"""A detector that meets a number that is not finite ends in one stop, which names images, iteration and what made it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.hooks import Hook
from torch import nn

from ddq_port.hooks import NonFiniteLossError
from ddq_port.training import run
from ddq_port.training.cli import cli as train_command
from ddq_port.training.config import TrainOptions
from ddq_port.training.eval_cli import cli as eval_command

NAN, INF = float("nan"), float("inf")
AT = 2  # iteration of the defect


class Plant(Hook):
    """Change the runner before the second step."""

    def __init__(self, change: Callable[[Any], None]) -> None:
        self.change = change

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter + 1 == AT:
            self.change(runner)


def train(config: str, folder: Path, *pairs: str, plant: Callable | None = None, **options: Any) -> run.Outcome:
    given = TrainOptions(
        config, folder, seed=1, check_data=False, cfg_options=("train_cfg.val_begin=9", *pairs), **options
    )
    return run.train(given, check=False, quiet=True, hooks=[Plant(plant)] if plant else [])


def stopped(*args: Any, **kwargs: Any) -> NonFiniteLossError:
    with pytest.raises(NonFiniteLossError) as caught:
        train(*args, **kwargs)
    return caught.value


def value(name: str, number: float) -> Callable:
    def change(runner: Any) -> None:
        tensors = {**dict(runner.model.named_parameters()), **dict(runner.model.named_buffers())}
        tensors[name].data.view(-1)[0] = number

    return change


def output(name: str, number: float) -> Callable:
    def change(runner: Any) -> None:
        def spoil(module: nn.Module, args: Any, out: Any) -> Any:
            return out + torch.full_like(out, number)

        runner.model.get_submodule(name).register_forward_hook(spoil, prepend=True)

    return change


def between(runner: Any) -> None:
    """Let code between modules make NaN of finite values."""
    model = runner.model
    original = model.forward_transformer

    def spoiled(img_feats: Any, batch_data_samples: Any = None) -> Any:
        return original(tuple(feat * INF * 0 for feat in img_feats), batch_data_samples)

    model.forward_transformer = spoiled


def assigner(runner: Any) -> None:
    """Let code that gives nothing to a module make NaN: matching."""
    match = runner.model.bbox_head.assigner.match_costs[0]
    kind = type(match)
    runner.model.bbox_head.assigner.match_costs[0] = lambda **kw: kind.__call__(match, **kw) * INF * 0


def gradient(runner: Any) -> None:
    runner.model.neck.convs[0].conv.weight.register_hook(lambda grad: grad * NAN)


CASES = [
    ("a parameter", value("decoder.layers.1.ffn.layers.1.bias", NAN), "parameter", "decoder.layers.1.ffn.layers.1.bias"),
    ("an infinite parameter", value("level_embed", INF), "parameter", "level_embed"),
    ("a running variance", value("backbone.bn1.running_var", NAN), "buffer", "backbone.bn1.running_var"),
    ("the backbone", output("backbone.layer3.0.conv2", INF), "output", "backbone.layer3.0.conv2"),
    ("the neck", output("neck.convs.1.conv", NAN), "output", "neck.convs.1.conv"),
    ("the encoder", output("encoder.layers.0.norms.1", NAN), "output", "encoder.layers.0.norms.1"),
    ("classification", output("bbox_head.cls_branches.0", NAN), "output", "bbox_head.cls_branches.0"),
    ("a loss", output("bbox_head.loss_iou", INF), "output", "bbox_head.loss_iou"),
    ("the embedding", output("dn_query_generator.label_embedding", NAN), "output", "dn_query_generator.label_embedding"),
    ("code between modules", between, "input", "encoder.layers.0.self_attn.value_proj"),
    ("matching", assigner, "operation", ""),
    ("a gradient", gradient, "gradient", "neck.convs.0.conv.weight"),
]


@pytest.mark.parametrize(("plant", "what", "name"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_stop_names_what_was_not_finite_first(config, tmp_path, plant, what, name):
    error = stopped(config, tmp_path / "work", plant=plant)
    assert error.cause is not None and (error.cause.what, error.cause.name) == (what, name), str(error)
    assert error.iteration == AT and len(error.images) == 2 and all(image.endswith(".png") for image in error.images)
    assert f"not finite at iteration {AT} (epoch 1)" in str(error) and f"after iteration {AT - 1}." in str(error)
    assert name in str(error) and all(image in str(error) for image in error.images)
    assert not list((tmp_path / "work").glob("*.pth"))
