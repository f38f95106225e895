"""Weights that code asks for while it is initialised are noted and not loaded, however it loads them."""

import pytest
import torch
from torch import nn

from legacy_adapters.tasks.initialising import _Watch

held_by_name = torch.load


@pytest.mark.parametrize("load", [
    lambda model: model.load_state_dict(torch.load("there_is_none.pth")),
    lambda model: model.load_state_dict(torch.load("there_is_none.pth", map_location="cpu")["state_dict"], strict=True),
    lambda model: model.load_state_dict(torch.load(f="there_is_none.pth").get("model", {}), strict=False),
    lambda model: model.load_state_dict(held_by_name("there_is_none.pth")),
])  # fmt: skip
def test_loading_is_noted(load):
    watch, model = _Watch(), nn.Linear(2, 2)
    before = model.weight.clone()
    with watch.loads():
        load(model)
    assert watch.loaded(model) == [("", "there_is_none.pth", "")] and torch.equal(model.weight, before)


def test_loading_is_as_before_afterwards():
    with _Watch().loads():
        pass
    assert held_by_name is torch.load
    with pytest.raises(RuntimeError, match="Missing key"):
        nn.Linear(2, 2).load_state_dict({})
