"""Weights and inputs for a golden file of a module: the same as were recorded, to the last bit, or a refusal.

Random numbers of one seed have other last bits on another machine, for kernels of torch that make them differ. Those
that were recorded take their place, so that what is computed is held to sharp bounds on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from converters.errors import listed
from converters.rules.mapping import Mapping as Rules
from legacy_adapters.recording.trace_writer import DTYPES, Record, content_digest
from legacy_adapters.recording.values import changed, flatten

from ..comparing.evidence import relative_gap
from ..comparing.pairing import translator
from ..golden.golden import Golden, GoldenError
from ..golden.sketch import sketch
from ..traces.kinds import Kind

#: Most weights and inputs that a file holds, about a megabyte; inputs come first.
MOST_NUMBERS = 250_000
#: How far numbers are apart that differ by rounding only, in units of their type's precision, of the largest of a tensor.
_LAST_PLACES = 8.0
#: The same of sketches, as a share of their size.
_OF_SKETCHES = 2.0**-18
#: Whole numbers of the size of each type.
_WHOLE = {
    torch.float64: torch.int64, torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16,
}  # fmt: skip
_INPUTS, _WEIGHTS = "inputs/", "weights/"


def digests_of(inputs: Any) -> dict[str, str]:
    """Return the digests of the tensors that a module is given, by place."""
    return {_INPUTS + slot: content_digest(tensor) for slot, tensor in _tensors(inputs)}


def bits_of(model: nn.Module, inputs: Any) -> dict[str, Tensor]:
    """Return float inputs and weights as whole numbers of the same bits, by name, as long as there are not too many."""
    left, found = MOST_NUMBERS, {}
    weights = ((_WEIGHTS + name, tensor) for name, tensor in _weights(model))
    for name, tensor in (*((_INPUTS + slot, tensor) for slot, tensor in _tensors(inputs)), *weights):
        if tensor.dtype in _WHOLE and tensor.numel() <= left:
            left -= tensor.numel()
            plain = tensor.detach().cpu().contiguous()
            found[name] = plain.reshape(-1).view(_WHOLE[tensor.dtype]).reshape(plain.shape)
    return found


def given_inputs(golden: Golden, inputs: Any) -> Any:
    """Return inputs with those that were recorded in place of such as differ by rounding only.

    Raises:
        GoldenError: if they are others.
    """
    others: list[str] = []

    def change(slot: str, tensor: Tensor) -> Tensor | None:
        digest = golden.sources.get(_INPUTS + slot)
        if digest is None or not _is_kept(tensor) or content_digest(tensor) == digest:
            return None
        made = _made(tensor, golden.given.get(_INPUTS + slot), digest)
        if made is None:
            others.append(slot)
        return made

    given = changed(inputs, change)
    if others:
        names = listed([f"`{slot}`" for slot in others if slot])
        raise GoldenError(
            f"The inputs are not those that were recorded{f': {names}' if names else ''}. Give the module the same, "
            "of the same seed or file, or record anew."
        )
    return given


def give_weights(golden: Golden, model: nn.Module, mapping: Rules) -> None:
    """Give a module the weights that were recorded in place of such as differ by rounding only.

    Raises:
        GoldenError: naming the weights that are others.
    """
    named = translator(mapping)
    recorded = {named(record): record for record in golden.records if record.kind == Kind.PARAM}
    others: dict[str, float] = {}
    for name, tensor in _weights(model):
        record = recorded.get(name)
        kind = DTYPES[tensor.dtype], tuple(tensor.shape)
        if record is None or kind != (record.dtype, record.shape) or content_digest(tensor) == record.digest:
            continue
        made = _made(tensor, golden.given.get(_WEIGHTS + record.name), record.digest)
        if made is None:
            others[name] = _gap(golden, record, tensor)
        else:
            with torch.no_grad():
                tensor.copy_(made)
    if others:
        raise GoldenError(_other_weights(others))


def _other_weights(others: Mapping[str, float]) -> str:
    name, gap = max(others.items(), key=lambda item: item[1])
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    if gap <= _OF_SKETCHES:
        return (
            f"The weights differ from those that were recorded in their last bits: `{name}`{more}. Another machine may draw "
            f"such, and a golden file holds {MOST_NUMBERS:,} numbers at most; let the test load the weights from a file."
        )
    size = f" by {gap:.1e} of its size" if gap < float("inf") else ""
    return (
        f"The weights are not those that were recorded: `{name}` differs{size}{f',{more}' if more else ''}. Give the module "
        "the same, of the same seed or file, or record anew."
    )


def _gap(golden: Golden, record: Record, tensor: Tensor) -> float:
    values = golden.values.get(record.key)
    return float("inf") if values is None else relative_gap(values.legacy, sketch(tensor.detach().cpu()))


def _made(tensor: Tensor, bits: Tensor | None, digest: str) -> Tensor | None:
    """Return what was recorded; None if the tensor is another, or the file does not hold it."""
    if bits is None or bits.shape != tensor.shape or _WHOLE.get(tensor.dtype) != bits.dtype:
        return None
    made = bits.reshape(-1).view(tensor.dtype).reshape(tensor.shape)
    if content_digest(made) != digest or not _is_rounding(made, tensor.detach().cpu()):
        return None
    return made.to(tensor.device).requires_grad_(tensor.requires_grad)


def _is_rounding(recorded: Tensor, found: Tensor) -> bool:
    """Tell whether two tensors differ by no more than the rounding of their largest numbers."""
    one, two = recorded.double(), found.double()
    largest = one.abs().max().item()
    return bool(((one - two).abs() <= _LAST_PLACES * torch.finfo(recorded.dtype).eps * largest).all())


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, value) for name, value in sorted(model.state_dict().items()) if _is_kept(value))


def _tensors(inputs: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield tensors in lists, tuples and dicts; numbers follow from the test's code."""
    numbers = {slot for slot, tensor in flatten(inputs) if tensor.dim() == 0}
    return ((slot, tensor) for slot, tensor in flatten(inputs) if slot not in numbers and _is_kept(tensor))


def _is_kept(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout == torch.strided and value.dtype in DTYPES
