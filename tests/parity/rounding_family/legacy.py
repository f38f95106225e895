"""The legacy form."""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter

WIDTH, CLASSES = 8, 3


class Net(nn.Module):
    """Convolve, normalise, attend."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.classes = nn.Linear(WIDTH, CLASSES)

    def forward(self, points):
        x = self.norm(self.conv(points)).relu().transpose(1, 2)  # [rows, places, width]
        weights = (self.query(x) @ self.key(x).transpose(1, 2) / WIDTH**0.5).softmax(-1)
        return self.classes((x + weights @ self.value(x)).mean(1))


class Legacy(ModuleAdapter):
    """Build and run it."""

    def build(self, options, device):
        return Net()

    def predict(self, model, batch):
        return {"scores": model(batch["points"]).softmax(-1)}

    def losses(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["points"]), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)


ADAPTER = Legacy()
