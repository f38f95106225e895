"""Other floating dtypes: what is rounded, what is refused, and that it is done piece by piece."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from converters.carrying import casting
from converters.carrying.casting import CastStorage, Losses
from converters.errors import CastError, CheckpointError
from converters.formats.stored import StoredTensor
from converters.rules import layout
from converters.rules.mapping import Keep, Mapping, Rename

INF, NAN = math.inf, math.nan


def _cast(tensor: Tensor, dtype: str) -> tuple[Tensor, tuple[str, ...]]:
    done = casting.cast({"a.b": StoredTensor.from_torch(tensor)}, dtype)
    return done.state_dict["a.b"].to_torch(), done.changes.get("a.b", ())


@pytest.mark.parametrize("source", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e5m2])
@pytest.mark.parametrize("target", casting.DTYPES.values())
def test_values_are_those_that_torch_gives(source: torch.dtype, target: str) -> None:
    tensor = torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)).to(source)
    done, changes = _cast(tensor, target)
    wide = tensor if source == torch.float64 else tensor.float()
    assert done.dtype == getattr(torch, target) and torch.equal(done, wide.to(done.dtype))
    assert changes == (() if source == done.dtype else (f"{source} to {target}".removeprefix("torch."),))


@pytest.mark.parametrize("target", ["float16", "bfloat16"])
def test_every_pattern_of_bits_is_rounded_as_torch_does(target: str) -> None:
    """All upper halves of float32, with lower halves about the ties."""
    upper = torch.arange(1 << 16, dtype=torch.int64).repeat_interleave(8) << 16
    lower = torch.tensor([0, 1, 0x0FFF, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001]).repeat(1 << 16)
    tensor = (upper | lower).to(torch.int32).view(torch.float32)
    tensor = tensor[tensor.abs().to(getattr(torch, target)).isfinite() | tensor.isinf()]
    done, _ = _cast(tensor, target)
    assert len(tensor) > 200_000 and torch.equal(done.view(torch.int16), tensor.to(done.dtype).view(torch.int16))


@pytest.mark.parametrize(
    "tensor",
    [torch.tensor(7), torch.tensor([True]), torch.tensor([1 + 1e9j]), torch.tensor([200], dtype=torch.uint8)],
)
def test_what_is_no_floating_number_is_left_alone(tensor: Tensor) -> None:
    stored = StoredTensor.from_torch(tensor)
    done = casting.cast({"a": stored}, "float16")
    assert done.state_dict["a"] is stored and done.changes == {} == done.zeros


@pytest.mark.parametrize(
    "values, source, target, lost",
    [
        ([65519.0, -65519.0, 1.0], torch.float32, "float16", Losses(0, 0, 65519.0)),
        ([65520.0, -65520.0, 1.0], torch.float32, "float16", Losses(2, 0, 65520.0)),
        ([INF, -INF, NAN, 2.0], torch.float32, "float16", Losses(0, 0, 2.0)),
        ([INF, 1e6], torch.float32, "float16", Losses(1, 0, 1e6)),
        ([3.4e38], torch.float32, "bfloat16", Losses(1, 0, torch.tensor(3.4e38).item())),
        ([3e38, 1e-38], torch.float32, "bfloat16", Losses(0, 0, torch.tensor(3e38).item())),
        ([1e39], torch.float64, "float32", Losses(1, 0, 1e39)),
        ([1e-8, -1e-8, 0.0, -0.0, 1.0], torch.float32, "float16", Losses(0, 2, 1.0)),
        ([1e-50, 1e-300], torch.float64, "float32", Losses(0, 2, 1e-50)),
        ([NAN], torch.float32, "float16", Losses(0, 0, 0.0)),
        ([], torch.float32, "float16", Losses(0, 0, 0.0)),
    ],
)
def test_losses_are_counted(values: list[float], source: torch.dtype, target: str, lost: Losses) -> None:
    assert casting.losses(StoredTensor.from_torch(torch.tensor(values, dtype=source)), target) == lost


def test_numbers_that_would_be_infinite_are_refused_by_name() -> None:
    state = {
        "z": StoredTensor.from_torch(torch.tensor([1e6])),
        "b": StoredTensor.from_torch(torch.tensor([INF, 1.0, 70000.0])),
        "a": StoredTensor.from_torch(torch.ones(3)),
    }
    with pytest.raises(CastError) as caught:
        casting.cast(state, "float16")
    assert str(caught.value) == (
        "1 of 3 elements of key `b` would be infinite as float16 (largest 70000); choose a dtype with a wider range, "
        "such as bf16."
    )


def test_a_dtype_that_torch_lacks_is_not_cast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch, "float8_e8m0fnu")
    with pytest.raises(CheckpointError, match=r"The installed torch .* has no dtype float8_e8m0fnu; use a newer one\."):
        casting.cast({"a": StoredTensor.of("float8_e8m0fnu", (1,), b"\x7f")}, "float32")


def test_numbers_that_become_zero_are_told() -> None:
    assert _cast(torch.tensor([1e-9, 1.0]), "float16")[1] == ("float32 to float16, 1 of 2 elements became 0",)


def test_every_not_a_number_is_the_same_one() -> None:
    bits = torch.tensor([0x7FC00000, 0x7FC12345, -0x400000, -1, 0x7F800001], dtype=torch.int32)
    done, _ = _cast(bits.view(torch.float32), "float16")
    assert done.isnan().all() and len({*done.view(torch.int16).tolist()}) == 1


@pytest.mark.parametrize("size", [1, 6, 7, 1000, 1 << 20])
@pytest.mark.parametrize("source, target", [(torch.float32, "bfloat16"), (torch.float16, "float32")])
def test_pieces_of_any_size_are_the_whole(source: torch.dtype, target: str, size: int) -> None:
    count = 700_000 if size >= 1000 else 50  # pieces of the source are 2^20 bytes
    tensor = StoredTensor.from_torch(torch.arange(count).to(source) / 65536)
    storage = CastStorage(tensor, target)
    expected = tensor.to_torch().to(getattr(torch, target)).view(torch.uint8).numpy().tobytes()
    pieces = list(storage.chunks(0, storage.nbytes, size))
    assert b"".join(pieces) == expected and {len(piece) for piece in pieces[:-1]} <= {size}
    assert storage.read(3, 10) == expected[3:13] and b"".join(storage.chunks(5, 20, 6)) == expected[5:25]


def test_transposed_tensors_are_cast_in_their_order() -> None:
    tensor = torch.arange(6.0).reshape(2, 3)
    stored = StoredTensor("float32", (3, 2), StoredTensor.from_torch(tensor).storage, stride=(1, 3))
    done = casting.cast({"a": stored}, "float16").state_dict["a"]
    assert torch.equal(done.to_torch(), tensor.t().half())


def test_layouts_with_other_floats() -> None:
    wanted = layout.Layout(
        "v",
        {
            "x": layout.TensorSpec("float32", (2,)),
            "n": layout.TensorSpec("int64", ()),
            "y": layout.TensorSpec("float32", ()),
        },
    )
    state = {
        "old": StoredTensor.of("float16", (2,), bytes(4)),
        "n": StoredTensor.of("float16", (), bytes(2)),
        "y": StoredTensor.of("int8", (), bytes(1)),
    }
    rules = Mapping("f", (Rename("old", "x"), Keep("n"), Keep("y")))
    accepting = casting.accepting_floats(wanted, rules, state)
    assert {key: spec.dtype for key, spec in accepting.tensors.items()} == {
        "x": "float16",
        "n": "int64",
        "y": "float32",
    }
    with_floats = casting.with_floats(wanted, "bfloat16")
    assert {key: spec.dtype for key, spec in with_floats.tensors.items()} == {
        "x": "bfloat16",
        "n": "int64",
        "y": "bfloat16",
    }
