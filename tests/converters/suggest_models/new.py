"""The same network with other names: norms the other way round, attention in parts, matrices as [in, out]."""

import torch
from torch import Tensor, nn

WIDTH = 8


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp_ln, self.attn_ln = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.wv, self.wq, self.wk, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.mix, self.mix_bias = nn.Parameter(torch.randn(WIDTH, WIDTH)), nn.Parameter(torch.randn(WIDTH))
        self.up, self.up_bias = nn.Parameter(torch.randn(WIDTH, 2 * WIDTH)), nn.Parameter(torch.randn(2 * WIDTH))
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        bs, length, width = x.shape
        y = self.attn_ln(x)
        q, k, v = (part(y).view(bs, length, 2, -1).transpose(1, 2) for part in (self.wq, self.wk, self.wv))
        weights = (q @ k.transpose(-1, -2) * (width // 2) ** -0.5).softmax(-1)  # [bs, 2, length, length]
        x = x + self.out((weights @ v).transpose(1, 2).reshape(bs, length, width))
        return x + self.down(torch.relu((self.mlp_ln(x) @ self.mix + self.mix_bias) @ self.up + self.up_bias))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.cls, self.x, self.y = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.extra = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x)
        return self.cls(x), self.x(x) + self.y(x)


def build() -> nn.Module:
    return Net()
