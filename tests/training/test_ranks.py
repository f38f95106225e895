"""Two ranks with one image each against one process with both."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddq_port.hooks import NonFiniteLossError

from . import children, ranks, toy


def on_two_ranks(work: Callable[[int, str], None], folder: Path) -> None:
    started = [children.start(work, rank, str(folder)) for rank in range(2)]
    try:
        for child in started:
            child.join(120)
        assert [child.exitcode for child in started] == [0, 0]
    finally:
        for child in started:
            child.kill()


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Take a step with both images in this process, in both precisions, and the same on two ranks."""
    folder = tmp_path_factory.mktemp("steps")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    both = ranks.batch([0, 1])
    single = ranks.step(ranks.model(torch.float32), both, torch.float32, None)
    double = ranks.step(ranks.model(torch.float64), both, torch.float64, single.draws)
    torch.set_num_threads(threads)
    torch.save(single.draws, folder / "draws.pth")
    on_two_ranks(ranks.steps, folder)
    loaded = [torch.load(folder / f"rank{rank}.pth") for rank in range(2)]
    return dict(float32=single, float64=double, ranks=loaded)


def relative(found: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative error of each gradient, as the norm of the difference over the norm."""
    assert found.keys() == expected.keys()
    return {name: float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalisers_are_those_of_the_whole_batch(steps: dict[str, Any], dtype: str) -> None:
    """A rank divides by the mean over ranks, and the ranks' gradients are averaged: the same as one sum over all."""
    whole = steps[dtype].factors
    one, two = (results[dtype]["factors"] for results in steps["ranks"])
    assert one == two
    # sums of quality scores, the last of which are those of the dense loss, are rounded
    assert [2 * factor for factor in one] == pytest.approx(whole, rel=1e-4 if dtype == "float32" else 1e-12)
    assert min(one) > 1  # smaller ones are raised to 1 on each rank, as in mmdet, and the sum would be another


def test_gradients_are_those_of_the_whole_batch(steps: dict[str, Any]) -> None:
    """In float64, in which rounding tips no decision; mmdet makes some positions in float32 even so."""
    errors = relative(steps["ranks"][0]["float64"]["gradients"], steps["float64"].gradients)
    assert max(errors.values()) < torch.finfo(torch.float32).eps


def test_gradients_in_single_precision_differ_by_rounding(steps: dict[str, Any]) -> None:
    """By no more than twice what rounding does to the whole batch's own, measured against float64."""
    rounding = relative(
        {name: grad.double() for name, grad in steps["float32"].gradients.items()}, steps["float64"].gradients
    )
    errors = relative(steps["ranks"][0]["float32"]["gradients"], steps["float32"].gradients)
    assert max(errors.values()) < 2 * max(rounding.values()) < 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_losses_are_the_mean_over_ranks(steps: dict[str, Any], dtype: str) -> None:
    one, two = (results[dtype]["losses"] for results in steps["ranks"])
    mean = {name: float(one[name] + two[name]) / 2 for name in one}
    tolerance = 1e-4 if dtype == "float32" else torch.finfo(torch.float32).eps
    assert mean == pytest.approx({name: float(x) for name, x in steps[dtype].losses.items()}, rel=tolerance)


@pytest.mark.parametrize("kind", ["one empty", "all empty"])
def test_ranks_without_objects_neither_wait_nor_differ(steps: dict[str, Any], kind: str) -> None:
    one, two = (results[kind] for results in steps["ranks"])
    # of the losses of matching queries; a rank without objects has no denoising queries to take a loss of
    expected = ranks.OBJECTS / 2 if kind == "one empty" else 1
    assert one["factors"][:12] == two["factors"][:12] == [expected] * 12
    assert one["gradients"].keys() == steps["float32"].gradients.keys()
    for name, gradient in one["gradients"].items():
        assert torch.isfinite(gradient).all() and torch.equal(gradient, two["gradients"][name]), name


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("trainings")
    on_two_ranks(ranks.trainings, folder)
    return [pickle.loads((folder / f"rank{rank}.pickle").read_bytes()) for rank in range(2)]


def test_training_on_two_ranks_is_resumed_exactly(trainings: list[dict[str, Any]]) -> None:
    for results in trainings:
        assert results["stopped"] == results["whole"] and len(results["whole"]) == 12
    assert trainings[0]["whole"] != trainings[1]["whole"]


def test_loss_that_is_not_finite_on_one_rank_stops_all(trainings: list[dict[str, Any]]) -> None:
    errors = [results["error"] for results in trainings]
    assert all(isinstance(error, NonFiniteLossError) for error in errors)
    assert str(errors[0]) == str(errors[1])
    assert "iteration 3 (epoch 1) on rank 1: loss_b nan" in str(errors[0])
    assert len(errors[0].images) == toy.BATCH
