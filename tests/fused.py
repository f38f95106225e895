"""A tiny model in two forms, for rules that change tensors: fused on the legacy side, taken apart on the new one.

Its numbers are whole and small, so that sums have no rounding and both forms compute the same bits in every order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from converters.rules.mapping import Concat, Mapping, Permute, Rename, Reshape, Slice, Split

WIDTH, PLACES, CLASSES = 4, 6, 3

RULES = (
    Split("block.qkv.*", ("block.q.*", "block.k.*", "block.v.*")),
    Rename("block.proj.*", "block.out.*"),
    Concat(("block.gate.*", "block.up.*"), "block.gate_up.*"),
    Permute("block.mix.weight", "block.mix.weight", axes=(1, 0)),
    Permute("block.order", "block.order", index=(2, 0, 3, 1), axis=0),
    Reshape("places", "places", shape=(-1, WIDTH), source_shape=(1, -1, 2, 2)),
    Slice("head.*", "classes.*", axis=0, start=0, stop=CLASSES, length=CLASSES + 1, rest=0.0),
)
MAPPING = Mapping("fused", RULES, ("classes.*",))


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


def legacy_weights(seed: int = 0) -> dict[str, Tensor]:
    """Return whole numbers from -2 to 2 as weights of the legacy form; the background's row is zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = {
        key: torch.randint(-2, 3, value.shape, generator=generator).float()
        for key, value in Legacy().state_dict().items()
    }
    for key in ("head.weight", "head.bias"):
        weights[key][CLASSES:] = 0.0
    return weights


def image() -> Tensor:
    """Return an input of whole numbers."""
    return torch.randint(-2, 3, (PLACES, WIDTH), generator=torch.Generator().manual_seed(1)).float()
