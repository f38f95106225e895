"""The port with an error: from the third step on one loss term is a little larger."""

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import losses as _right

_steps = []


def losses(model, batch):
    terms, total = _right(model, batch)
    _steps.append(batch)
    if len(_steps) >= 3:
        more = terms["loss_bbox"] * 1e-5
        terms["loss_bbox"], total = terms["loss_bbox"] + more, total + more
    return terms, total
