"""Pairs of layouts of which it is known what becomes of every tensor, for `ddq-convert suggest` and its peers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from converters.formats.stored import StoredTensor
from converters.rules import engine, ports
from converters.rules.values import applied
from converters.suggesting.links import Findings
from ddq_port.ops import standin
from legacy_adapters.ground.names import LEGACY, NEW

State = dict[str, Tensor]
standin.install()  # operators, where mmcv was installed without its compiled ones


@dataclass(frozen=True)
class Pair:
    """Two layouts.

    Attributes:
        name: What they are.
        a: Weights of the one, of which no two numbers are alike.
        convert: Makes the other of the one.
    """

    name: str
    a: State
    convert: Callable[[State], State]

    @property
    def b(self) -> State:
        """The same weights in the other layout."""
        return self.convert(self.a)

    def same(self) -> tuple[State, State]:
        """Return both with the same weights, as trained: counters of batches are all 0."""
        held = {key: value if value.is_floating_point() else torch.zeros_like(value) for key, value in self.a.items()}
        return held, self.convert(held)

    def fresh(self) -> tuple[State, State]:
        """Return both with the same weights, as initialised: vectors are all 0 or all 1."""
        held = {
            key: value
            if value.dim() > 1
            else torch.full_like(value, float(key.endswith(("weight", "var", "weight_g"))))
            for key, value in self.a.items()
        }
        return held, self.convert(held)

    def other(self) -> tuple[State, State]:
        """Return both with other weights, of which nothing can be told."""
        generator = torch.Generator().manual_seed(99)
        return self.same()[0], {
            key: torch.randn(value.shape, generator=generator) if value.is_floating_point() else torch.zeros_like(value)
            for key, value in self.b.items()
        }


@dataclass(frozen=True)
class Score:
    """How many tensors of B have a rule that is right, a wrong one, or none."""

    right: int
    wrong: int
    open: int
    wrong_keys: tuple[str, ...] = ()


def stored(state: State) -> dict[str, StoredTensor]:
    """Return a state dict as files give it."""
    return {key: StoredTensor.from_torch(value) for key, value in state.items()}


def score(pair: Pair, found: Findings) -> Score:
    """Apply every rule that was found to the weights of the pair, and compare with what they should be."""
    a, b = pair.a, pair.b
    right, wrong = set(), set()
    for link in found.links:
        if link.rule.targets:
            made = applied(link.rule, [StoredTensor.from_torch(a[key]) for key in link.rule.sources])
            for key, tensor in zip(link.rule.targets, made):
                (right if torch.equal(tensor.to_torch(), b[key]) else wrong).add(key)
    return Score(len(right), len(wrong), len(b.keys() - right - wrong), tuple(sorted(wrong)))


def unlike(shapes: Mapping[str, tuple[torch.Size, torch.dtype]], seed: int = 0) -> State:
    """Make weights of which no two numbers are alike."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: torch.randn(shape, generator=generator).to(dtype)
        if dtype.is_floating_point
        else torch.full(shape, 1000 + number, dtype=dtype)
        for number, (key, (shape, dtype)) in enumerate(shapes.items())
    }


def of_module(module: nn.Module) -> State:
    """Make weights for a module."""
    return unlike({key: (value.shape, value.dtype) for key, value in module.state_dict().items()})


def of_family(name: str, family: str, variant: str) -> Pair:
    """Return a model of a family, by whose rules it is known."""
    port = ports.port(family, variant)
    held = {
        key: (torch.Size(spec.shape), getattr(torch, spec.dtype)) for key, spec in port.layout(LEGACY).tensors.items()
    }

    def convert(state: State) -> State:
        made = engine.convert(stored(state), port.mapping, NEW, port.layout(NEW)).state_dict
        return {key: tensor.to_torch() for key, tensor in made.items()}

    return Pair(name, unlike(held), convert)


def renamed(name: str, module: nn.Module, *changes: tuple[str, str]) -> Pair:
    """Return a module against a copy whose keys are changed by regular expressions."""

    def convert(state: State) -> State:
        made = {}
        for key, value in state.items():
            for pattern, text in changes:
                key = re.sub(pattern, text, key)
            made[key] = value.clone()
        return made

    return Pair(name, of_module(module), convert)


def detr_official() -> Pair:
    """Return a transformer of torch against the names of its layers elsewhere, with other numbers for norms."""
    layer = nn.TransformerDecoderLayer(24, 4, 48)
    return renamed(
        "torch's decoder, other names",
        nn.TransformerDecoder(layer, 3, nn.LayerNorm(24)),
        (r"multihead_attn", "cross_attn"), (r"linear(\d)", lambda found: f"ffn.layers.{int(found[1]) - 1}"),
        (r"norm(\d)", lambda found: f"norms.{int(found[1]) - 1}"), (r"^norm\.", "post_norm."),
    )  # fmt: skip


def resnet() -> Pair:
    """Return mmdet's ResNet against a copy with names of another style."""
    from mmdet.models.backbones import ResNet

    return renamed(
        "mmdet's ResNet, renamed", ResNet(50, base_channels=8, stem_channels=8),
        (r"^layer(\d)", lambda found: f"stages.{int(found[1]) - 1}.blocks"), (r"^conv1", "stem.conv"),
        (r"^bn1", "stem.norm"), (r"\.bn(\d)", r".norm_\1"), (r"\.conv(\d)", r".conv_\1"),
        (r"downsample\.0", "shortcut.conv"), (r"downsample\.1", "shortcut.norm"),
    )  # fmt: skip


def _swin() -> nn.Module:
    from mmdet.models.backbones import SwinTransformer

    return SwinTransformer(embed_dims=8, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4)


def swin() -> Pair:
    """Return mmdet's Swin against a copy with names of another style."""
    return renamed(
        "mmdet's Swin, renamed", _swin(),
        (r"^patch_embed\.projection", "stem.conv"), (r"^patch_embed\.norm", "stem.ln"), (r"^stages", "layers"),
        (r"attn\.w_msa", "attention"), (r"ffn\.layers\.0\.0", "mlp.up"), (r"ffn\.layers\.1", "mlp.down"),
        (r"\.norm(\d)\.", r".ln_\1."), (r"downsample", "merge"),
    )  # fmt: skip


def swin_official() -> Pair:
    """Return the official Swin against mmdet's, which orders the four neighbours of a reduction otherwise."""
    back = (
        (r"attn\.w_msa", "attn"), (r"ffn\.layers\.0\.0", "mlp.fc1"), (r"ffn\.layers\.1", "mlp.fc2"),
        (r"^stages", "layers"), (r"^patch_embed\.projection", "patch_embed.proj"),
    )  # fmt: skip
    names = {}
    for key in _swin().state_dict():
        old = key
        for pattern, text in back:
            old = re.sub(pattern, text, old)
        names[old] = key
    held = _swin().state_dict()
    shapes = {old: (held[key].shape, held[key].dtype) for old, key in names.items()}

    def convert(state: State) -> State:
        made = {}
        for old, value in state.items():
            if "downsample" in old:  # the last dimension is [4 neighbours, channels], and becomes [channels, 4]
                parts = value.reshape(*value.shape[:-1], 4, -1)[..., [0, 2, 1, 3], :]
                value = parts.transpose(-1, -2).reshape(value.shape)
            made[names[old]] = value.clone()
        return made

    return Pair("the official Swin, mmdet's", unlike(shapes), convert)


def attention() -> Pair:
    """Return `nn.MultiheadAttention` in layers against layers with three projections."""
    layers = nn.ModuleList(nn.MultiheadAttention(16, 4) for _ in range(3))

    def convert(state: State) -> State:
        made = {}
        for key, value in state.items():
            number, rest = key.split(".", 1)
            if rest.startswith("in_proj_"):
                for part, chunk in zip("qkv", value.chunk(3)):
                    made[f"blocks.{number}.{part}_proj.{rest.removeprefix('in_proj_')}"] = chunk.clone()
            else:
                made[f"blocks.{number}.{rest}"] = value.clone()
        return made

    return Pair("nn.MultiheadAttention, split QKV", {f"layers.{k}": v for k, v in of_module(layers).items()},
                lambda state: convert({key.removeprefix("layers."): value for key, value in state.items()}))  # fmt: skip


def transposed() -> Pair:
    """Return blocks of linear layers against blocks whose weights are stored as [in, out], a square one among them."""
    block = nn.ModuleDict(
        {"ln_1": nn.LayerNorm(16), "c_attn": nn.Linear(16, 48), "c_proj": nn.Linear(16, 16), "ln_2": nn.LayerNorm(16),
         "c_fc": nn.Linear(16, 64), "c_out": nn.Linear(64, 16)}
    )  # fmt: skip
    a = {f"layers.{number}.{key}": value for number in range(2) for key, value in of_module(block).items()}
    a = unlike({key: (value.shape, value.dtype) for key, value in a.items()})

    def convert(state: State) -> State:
        return {
            key.replace("layers", "h"): (value.t() if value.dim() == 2 else value).clone()
            for key, value in state.items()
        }

    return Pair("transposed weights", a, convert)


PAIRS: Mapping[str, Callable[[], Pair]] = {
    "ddq": lambda: of_family("DDQ-DETR, legacy and new", "ddq_detr", "tiny_4scale"),
    "detr": lambda: of_family("DETR of MMDetection 2.x and 3.x", "mmdet2", "tiny_detr"),
    "deformable": lambda: of_family("Deformable DETR of 2.x and 3.x", "mmdet2", "tiny_deformable_refine"),
    "resnet": resnet,
    "swin": swin,
    "swin_official": swin_official,
    "attention": attention,
    "decoder": detr_official,
    "transposed": transposed,
}
