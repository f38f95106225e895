"""The port with an error: label noise of the denoising queries never draws the last class."""

import torch

from parity.adapters.ddq_port import *  # noqa: F403
from parity.adapters.ddq_port import taps as _right


def taps(model):
    # called before the taps are put in place, so that they see what the wrong code asks for
    generate = model.dn_query_generator.generate_dn_label_query

    def wrong(*args, **kwargs):
        draw = torch.randint_like
        torch.randint_like = lambda like, low, high, **rest: draw(like, low, high - 1, **rest)
        try:
            return generate(*args, **kwargs)
        finally:
            torch.randint_like = draw

    model.dn_query_generator.generate_dn_label_query = wrong
    return _right(model)
