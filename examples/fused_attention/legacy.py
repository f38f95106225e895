"""The old encoder: one layer projects to queries, keys and values."""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter


class Layer(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        bs, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(bs, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]  # [bs, heads, length, width / heads]
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        x = x + self.proj((weights @ v).transpose(1, 2).reshape(bs, length, width))
        return x + self.fc2(torch.relu(self.fc1(self.norm2(x))))


class OldEncoder(nn.Module):
    def __init__(self, width, heads, layers):
        super().__init__()
        self.embed = nn.Embedding(50, width)
        self.layers = nn.ModuleList([Layer(width, heads) for _ in range(layers)])
        self.head = nn.Linear(width, 5)

    def forward(self, tokens):
        x = self.embed(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Legacy(ModuleAdapter):
    max_norm = 1.0

    def build(self, options, device):
        return OldEncoder(**options)

    def predict(self, model, batch):
        return {"scores": model(batch["tokens"]).softmax(-1)}

    def losses(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["tokens"]), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = Legacy()
