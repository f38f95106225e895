"""Seeds that no code can repeat by a literal, and the watch over the states of random generators."""

import random

import numpy
import pytest
import torch

from legacy_adapters.numerics.seeding import RandomWatch, seed_all, seed_of
from legacy_adapters.recording.recorder import Recorder


def test_seeds_differ_by_run_and_purpose_and_are_the_same_everywhere():
    purposes = ("build", "predict", "train", *(f"step {number}" for number in range(1, 11)))
    seeds = {seed_of(seed, purpose) for seed in range(10) for purpose in purposes}
    assert len(seeds | set(range(10))) == 140 and all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(0, "train") == 912984095427804297
    assert seed_of(2**63 - 1, "train") != seed_of(0, "train")


def drawn():
    return torch.rand(1).item(), numpy.random.rand(), random.random()


def test_all_three_generators_are_seeded():
    seed_all(0, "train")
    first = drawn()
    seed_all(0, "predict")
    other = drawn()
    seed_all(0, "train")
    assert drawn() == first and all(one != two for one, two in zip(first, other))


@pytest.mark.parametrize(
    ("change", "moved"),
    [
        (lambda: None, []),
        (lambda: torch.rand(1), ["torch"]),
        (lambda: torch.manual_seed(0), ["torch"]),
        (numpy.random.rand, ["numpy"]),
        (lambda: numpy.random.seed(0), ["numpy"]),
        (random.random, ["python"]),
        (lambda: random.seed(0), ["python"]),
    ],
)
def test_a_change_is_noticed_once(change, moved):
    seed_all(0, "train")
    watch = RandomWatch()
    watch.moved()
    change()
    assert list(watch.moved()) == moved and not watch.moved()


class Noisy(torch.nn.Module):
    def forward(self, x):
        torch.manual_seed(0)
        return x


class Writer:
    def __init__(self):
        self.scopes = []

    def add(self, phase, kind, name, call, slot, tensor, scope):
        if kind == "random":
            self.scopes.append((name, slot, scope))


@pytest.mark.parametrize("modules", [True, False])
def test_a_change_is_recorded_with_the_code_that_made_it(modules):
    model = torch.nn.Sequential(torch.nn.Identity(), Noisy())
    recorder = Recorder(Writer())
    recorder.attach(model)
    seed_all(0, "train")
    with recorder.in_phase("train", modules, draws=True):
        random.random()
        model(torch.zeros(1))
    changes = [entry for entry in recorder.writer.scopes if entry[1] != "end"]
    assert changes == [("python", "", ""), ("torch", "", "1")]
    assert [name for name, slot, _ in recorder.writer.scopes if slot == "end"] == ["torch", "numpy", "python"]
