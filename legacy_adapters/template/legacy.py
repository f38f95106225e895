"""The old side. Runs in a process of its own, with --legacy-python in another interpreter: write for Python 3.8.

Replace `OldNet` with the import of the real old code, which must not be changed.
"""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter

# Other bases: legacy_adapters.bases.detection.DetectionAdapter (images with objects in, boxes, scores and labels out) and
# legacy_adapters.mmdet3.MMDet3Adapter (a detector of MMDetection 3.x, with its config).


class OldNet(nn.Module):
    """Stands for the old code."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.ModuleList([nn.Linear(width, width) for _ in range(2)])
        self.head = nn.Linear(width, 4)

    def forward(self, images):
        features = torch.relu(self.bn1(self.conv1(images))).mean((2, 3))
        for layer in self.layers:
            features = features + torch.relu(layer(features))
        return self.head(features)


class Legacy(ModuleAdapter):
    """Build and run the old model."""

    def build(self, options, device):
        # options: the variant's, and `repo`, the checkout, where the family has one; then begin with
        #   sys.path.insert(0, options["repo"])
        return OldNet(options["width"])

    def predict(self, model, batch):
        # tensors in any form: a tensor, tuples, dicts
        return {"scores": model(batch["images"]).softmax(-1)}

    def losses(self, model, batch):
        # loss terms by name, and their sum
        loss = nn.functional.cross_entropy(model(batch["images"]), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        # for --check train; use what the old code trains with
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = Legacy()
