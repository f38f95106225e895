"""The new form: [batch, length, width], three dropouts, only the last layer in inference."""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter

from .legacy import CLASSES, WIDTH, Dropout, Encoding, mask_taps


class Layer(nn.Module):
    """Mix, thrice."""

    def __init__(self):
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.drop1, self.drop2, self.drop3 = (Dropout() for _ in range(3))

    def forward(self, x):
        x = x + self.drop1(self.one(x))
        x = x + self.drop2(self.two(x).relu())
        return x + self.drop3(self.three(x))


class Port(nn.Module):
    """Stand for the port."""

    def __init__(self):
        super().__init__()
        self.encoding = Encoding()
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):
        x = tokens + self.encoding(tokens)
        states = []
        for layer in self.layers:
            x = layer(x)
            states.append(x)
        return self.classes(torch.stack(states if self.training else states[-1:]))


class New(ModuleAdapter):
    """Build and run it."""

    def build(self, options, device):
        return Port()

    def taps(self, model):
        return mask_taps("dropped")

    def predict(self, model, batch):
        return {"scores": model(batch["tokens"])[-1].softmax(-1)}

    def losses(self, model, batch):
        scores = model(batch["tokens"]).mean(2)  # [layers, batch, classes]
        terms = {f"s{i}.loss": nn.functional.cross_entropy(s, batch["labels"]) for i, s in enumerate(scores)}
        return terms, sum(terms.values())


ADAPTER = New()
