"""The new encoder: attention is a module of its own, with three projections."""

import torch
from torch import nn

from legacy_adapters.bases.module import ModuleAdapter


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x):
        bs, length, width = x.shape
        q, k, v = (layer(x).reshape(bs, length, self.heads, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-2, -1) * (width // self.heads) ** -0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(bs, length, width))


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class NewEncoder(nn.Module):
    def __init__(self, width, heads, layers):
        super().__init__()
        self.embedding = nn.Embedding(50, width)
        self.blocks = nn.ModuleList([Block(width, heads) for _ in range(layers)])
        self.head = nn.Linear(width, 5)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


class New(ModuleAdapter):
    max_norm = 1.0

    def build(self, options, device):
        return NewEncoder(**options)

    def predict(self, model, batch):
        return {"scores": model(batch["tokens"]).softmax(-1)}

    def losses(self, model, batch):
        loss = nn.functional.cross_entropy(model(batch["tokens"]), batch["labels"])
        return {"loss_cls": loss}, loss

    def optimizer(self, model, options):
        return torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)


ADAPTER = New()
