"""The legacy form: [length, batch, width], one dropout that is called three times, all layers stacked."""

from dataclasses import replace

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter
from legacy_adapters.recording.taps import random_taps

WIDTH, CLASSES, RATE = 8, 3, 0.25


class Dropout(nn.Module):
    """Drop what a draw of the input's shape says."""

    def forward(self, x):
        return x * (torch.rand_like(x) >= RATE) / (1 - RATE) if self.training else x


class Encoding(nn.Module):
    """Give each place of a sequence a number."""

    def forward(self, tokens):
        return torch.arange(tokens.shape[1], dtype=tokens.dtype)[None, :, None] / 8  # [1, length, 1]


class Layer(nn.Module):
    """Mix, thrice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.drop = Dropout()

    def forward(self, x):
        x = x + self.drop(self.one(x))
        x = x + self.drop(self.two(x).relu())
        return x + self.drop(self.three(x))


class Holder(nn.Module):
    """Hold what has no parameters."""

    def __init__(self):
        super().__init__()
        self.encoding = Encoding()


class Old(nn.Module):
    """Stand for the old code."""

    def __init__(self):
        super().__init__()
        self.classes_of = Holder()
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):
        x = (tokens + self.classes_of.encoding(tokens)).transpose(0, 1)  # [length, batch, width]
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        states = torch.stack(states)  # [layers, length, batch, width]
        if not self.training:
            states = states.transpose(1, 2)  # [layers, batch, length, width]
        return self.classes(states)


def mask_taps(name):
    """Return the taps of torch's draws under another name."""
    return [replace(tap, name=lambda *args, **kwargs: name) for tap in random_taps()]


class Legacy(ModuleAdapter):
    """Build and run it."""

    def build(self, options, device):
        return Old()

    def taps(self, model):
        return mask_taps("mask")

    def predict(self, model, batch):
        return {"scores": model(batch["tokens"])[-1].softmax(-1)}

    def losses(self, model, batch):
        scores = model(batch["tokens"]).mean(1)  # [layers, batch, classes]
        terms = {f"stage{i}_loss": nn.functional.cross_entropy(s, batch["labels"]) for i, s in enumerate(scores)}
        return terms, sum(terms.values())


ADAPTER = Legacy()
