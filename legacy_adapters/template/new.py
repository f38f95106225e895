"""The new side. Runs in a process of its own.

Replace `NewNet` with the import of your port, for example `from .model import NewNet` of a file beside this one.
"""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter


class Stem(nn.Module):
    """Stands for a part of your port."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, images):
        return self.norm(self.conv(images)).relu()


class NewNet(nn.Module):
    """Stands for your port."""

    def __init__(self, channels):
        super().__init__()
        self.stem = Stem(channels)
        self.blocks = nn.ModuleList([nn.Linear(channels, channels) for _ in range(2)])
        self.head = nn.Linear(channels, 4)

    def forward(self, images):
        features = self.stem(images).mean((2, 3))
        for block in self.blocks:
            features = features + block(features).relu()
        return self.head(features)


class New(ModuleAdapter):
    """Build and run the port."""

    def build(self, options, device):
        return NewNet(options["channels"])

    def predict(self, model, batch):
        return {"scores": model(batch["images"]).softmax(-1)}

    def losses(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = New()
