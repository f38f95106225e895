"""The optimizer of ``--fast`` takes the steps of AdamW."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ddq_port.registry import OPTIMIZERS

SETTINGS = [dict(lr=0.1), dict(lr=0.01, weight_decay=0.0), dict(lr=0.1), dict(lr=0.1)]


class Calls(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.name())
        return func(*args, **(kwargs or {}))


def made(kind):
    torch.manual_seed(0)
    groups = [dict(settings, params=[torch.nn.Parameter(torch.randn(3, 2))]) for settings in SETTINGS]
    return OPTIMIZERS.build(dict(type=kind, params=groups, lr=1.0, weight_decay=0.5))


def stepped(optimizer, steps, seed):
    torch.manual_seed(seed)
    params = [group["params"][0] for group in optimizer.param_groups]
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn_like(param)
        optimizer.step()
    return [param.detach().clone() for param in params]


def test_steps_are_those_of_adamw():
    for mine, theirs in zip(stepped(made("ddq_port.FusedAdamW"), 5, 1), stepped(made("AdamW"), 5, 1), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_parameters_of_equal_settings_step_in_one_call():
    optimizer = made("ddq_port.FusedAdamW")
    before = [group["params"] for group in optimizer.param_groups]
    with Calls() as calls:
        stepped(optimizer, 1, 1)
    assert sum("_fused_adamw" in name for name in calls.names) == 2
    assert [group["params"] for group in optimizer.param_groups] == before


def test_a_learning_rate_that_was_changed_counts():
    optimizer = made("ddq_port.FusedAdamW")
    start = [group["params"][0].detach().clone() for group in optimizer.param_groups]
    optimizer.param_groups[2]["lr"] = 0.0
    moved = [not torch.equal(one, two) for one, two in zip(start, stepped(optimizer, 1, 1), strict=True)]
    assert moved == [True, True, False, True]


def test_closure_computes_the_gradients():
    optimizer = made("ddq_port.FusedAdamW")
    param = optimizer.param_groups[0]["params"][0]
    start = param.detach().clone()

    def closure():
        loss = param.square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == pytest.approx(start.square().sum().item())
    assert not torch.equal(param, start)


@pytest.mark.parametrize("kinds", [("AdamW", "ddq_port.FusedAdamW"), ("ddq_port.FusedAdamW", "AdamW")])
def test_goes_on_from_the_other_ones_checkpoint(kinds):
    first, second = map(made, kinds)
    stepped(first, 3, 1)
    state = copy.deepcopy(first.state_dict())
    with torch.no_grad():
        for one, two in zip(first.param_groups, second.param_groups, strict=True):
            two["params"][0].copy_(one["params"][0])
    second.load_state_dict(state)
    for one, two in zip(stepped(first, 2, 2), stepped(second, 2, 2), strict=True):
        torch.testing.assert_close(one, two)
