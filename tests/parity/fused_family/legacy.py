"""The fused form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from legacy_adapters.bases.module import ModuleAdapter

WIDTH, PLACES, CLASSES = 4, 6, 3


class Transposed(nn.Module):
    """A linear layer whose weight is [in, out]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(inputs, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class LegacyBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.gate, self.up = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5)
        self.mix = Transposed(10, WIDTH)
        self.order = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)  # each [places, width]
        x = self.proj(q + k * v)
        x = torch.cat([self.gate(x), self.up(x)], dim=-1)  # [places, 10]
        return self.mix(x) + self.order[[2, 0, 3, 1]]


class Legacy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(1, PLACES, 2, 2))
        self.block = LegacyBlock()
        self.head = nn.Linear(WIDTH, CLASSES + 1)  # with a row for the background, which is not used

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x + self.places.flatten(2)[0]))[:, :CLASSES]


class Points(ModuleAdapter):
    """Build and run it on points."""

    def build(self, options, device):
        return Legacy()

    def predict(self, model, batch):
        return {"scores": torch.stack([model(points) for points in batch["points"]]).softmax(-1)}

    def losses(self, model, batch):
        scores = torch.stack([model(points) for points in batch["points"]])  # [n, places, classes]
        loss = nn.functional.cross_entropy(scores.mean(1), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = Points()
