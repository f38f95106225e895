"""Equal recipes draw equal bits in any order; other recipes do not."""

import math

import pytest
import torch
from torch import nn

from legacy_adapters.numerics.drawing import Drawing, by_recipe


def drawn(*works, numbered=False):
    """Draw in this order and return the results."""
    with by_recipe(Drawing(numbered)):
        return [work() for work in works]


def filled(method, *args, shape=(3, 5), **kwargs):
    return lambda: getattr(torch.zeros(shape), method)(*args, **kwargs)


def old_trunc_normal(tensor, mean=0.0, std=1.0, a=-2.0, b=2.0):
    low, high = ((1.0 + math.erf((end - mean) / std / math.sqrt(2.0))) / 2.0 for end in (a, b))
    tensor.uniform_(2 * low - 1, 2 * high - 1)
    return tensor.erfinv_().mul_(std * math.sqrt(2.0)).add_(mean).clamp_(min=a, max=b)


SAME = [
    (filled("normal_", 0.0, 0.02), filled("normal_", std=2e-2)),
    (filled("uniform_", -0.5, 0.5), lambda: torch.zeros(3, 5).uniform_(-0.5, to=0.5)),
    (filled("uniform_", -(0.2**0.5), 0.2**0.5), filled("uniform_", -math.sqrt(1 / 5), 1 / math.sqrt(5))),
    (filled("normal_"), lambda: torch.randn(3, 5)),
    (filled("uniform_"), lambda: torch.rand((3, 5))),
    (filled("normal_", 0, 3.0), lambda: torch.normal(0.0, 3.0, (3, 5))),
    (lambda: torch.randint(0, 9, (4,)), lambda: torch.randint(9, (4,))),
    (lambda: torch.randperm(9), lambda: torch.randperm(9)),
    (lambda: nn.init.trunc_normal_(torch.zeros(3, 5), std=0.5), lambda: old_trunc_normal(torch.zeros(3, 5), std=0.5)),
    (lambda: nn.init.xavier_uniform_(torch.empty(3, 5)), filled("uniform_", -math.sqrt(6 / 8), math.sqrt(6 / 8))),
    (filled("bernoulli_", 0.3), lambda: torch.bernoulli(torch.zeros(3, 5), 0.3)),
    (filled("normal_"), lambda: torch.zeros(3, 5).normal_(generator=torch.Generator().manual_seed(5))),
]


@pytest.mark.parametrize(("one", "two"), SAME)
def test_equal_recipes_are_equal_bits_in_any_order(one, two):
    first = drawn(one, filled("uniform_"), two)
    second = drawn(two, filled("normal_", shape=(7,)), one)
    assert torch.equal(first[0], first[2]) and torch.equal(first[0], second[2]) and torch.equal(first[0], second[0])


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (filled("normal_", 0, 0.02), filled("normal_", 0, 0.021)),
        (filled("normal_", 0, 1), filled("normal_", 0.1, 1)),
        (filled("uniform_", -1, 1), filled("uniform_", -1, 2)),
        (filled("normal_", 0, 3**-0.5), filled("uniform_", -1, 1)),
        (filled("normal_", shape=(3, 5)), filled("normal_", shape=(5, 3))),
    ],
)
def test_other_recipes_are_other_bits(one, two):
    made = drawn(one, two)
    assert not torch.equal(made[0].flatten(), made[1].flatten())


def test_numbered_draws_are_all_different_and_the_same_in_each_run():
    made = drawn(*[filled("normal_")] * 2, numbered=True)
    assert not torch.equal(*made)
    assert torch.equal(made[0], drawn(filled("normal_"), numbered=True)[0])


def test_numbers_have_the_mean_and_deviation_that_were_asked_for():
    shape = (200, 200)
    normal, uniform, cut = drawn(
        filled("normal_", 2.0, 0.5, shape=shape),
        filled("uniform_", -1.0, 3.0, shape=shape),
        lambda: nn.init.trunc_normal_(torch.zeros(shape), std=1.0, a=-1.0, b=1.0),
    )
    assert normal.mean() == pytest.approx(2.0, abs=0.01) and normal.std() == pytest.approx(0.5, abs=0.01)
    assert -1 <= uniform.min() and uniform.max() < 3 and uniform.mean() == pytest.approx(1.0, abs=0.02)
    assert cut.abs().max() <= 1 and cut.mean() == pytest.approx(0.0, abs=0.01)


def test_memory_that_is_never_written_is_not_a_number():
    drawing = Drawing()
    with by_recipe(drawing):
        made = torch.empty(2, 3)
    assert made.isnan().all() and drawing.recipe_of(made) == "not initialised"


def test_a_recipe_is_known_by_its_numbers_also_of_a_copy():
    drawing = Drawing()
    with by_recipe(drawing):
        layer = nn.Linear(4, 4)
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.constant_(layer.bias, -4.59512)
    assert drawing.recipe_of(layer.weight.clone()) == "normal(0, 0.02)"
    assert drawing.recipe_of(layer.bias) == "constant -4.59512"
    assert drawing.recipe_of(torch.arange(3.0)).startswith("computed, mean 1")


def test_all_is_as_before_afterwards():
    before = torch.Tensor.normal_, torch.rand, torch.empty, nn.init._no_grad_trunc_normal_, torch.Tensor.fill_
    with pytest.raises(ZeroDivisionError), by_recipe(Drawing()):
        1 / 0
    assert before == (torch.Tensor.normal_, torch.rand, torch.empty, nn.init._no_grad_trunc_normal_, torch.Tensor.fill_)
