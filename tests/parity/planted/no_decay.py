"""The port with an error: one parameter has no weight decay."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import training as _right


def training(model, *arguments):
    made = _right(model, *arguments)
    for group in made.optimizer.param_groups:
        if group["params"][0] is model.query_map.weight:
            group["weight_decay"] = 0.0
    return made
