"""The taken apart form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from legacy_adapters.bases.module import ModuleAdapter

WIDTH, PLACES, CLASSES = 4, 6, 3


class NewBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.out = nn.Linear(WIDTH, WIDTH)
        self.gate_up = nn.Linear(WIDTH, 10)
        self.mix = nn.Linear(10, WIDTH, bias=False)
        self.order = nn.Parameter(torch.zeros(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.gate_up(self.out(self.q(x) + self.k(x) * self.v(x)))) + self.order


class New(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(PLACES, WIDTH))
        self.block = NewBlock()
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.block(x + self.places))


class Points(ModuleAdapter):
    """Build and run it on points."""

    def build(self, options, device):
        return New()

    def predict(self, model, batch):
        return {"scores": torch.stack([model(points) for points in batch["points"]]).softmax(-1)}

    def losses(self, model, batch):
        scores = torch.stack([model(points) for points in batch["points"]])  # [n, places, classes]
        loss = nn.functional.cross_entropy(scores.mean(1), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = Points()
