"""The port with an error: a hand-made AdamW that keeps the right state and does not correct its bias."""

import torch

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(*arguments):
    made = _right(*arguments)
    step = made.optimizer.step

    def uncorrected(*args, **kwargs):
        held = [(p, p.detach().clone(), group) for group in made.optimizer.param_groups for p in group["params"]]
        step(*args, **kwargs)
        with torch.no_grad():
            for param, start, group in held:
                if param in made.optimizer.state:
                    state = made.optimizer.state[param]
                    move = state["exp_avg"] / (state["exp_avg_sq"].sqrt() + group["eps"])
                    param.copy_(start * (1 - group["lr"] * group["weight_decay"]) - group["lr"] * move)

    made.optimizer.step = uncorrected
    return made
