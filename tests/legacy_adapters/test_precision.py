"""Runs in double precision and runs with a perturbation in the last bit."""

import types

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file
from torch import nn

from legacy_adapters.numerics import precision
from legacy_adapters.numerics.precision import as_stored, computing_in, perturb
from legacy_adapters.origin import UnusableInputError
from legacy_adapters.recording import taps
from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.traces.trace import Trace

F32, F64 = torch.float32, torch.float64
HALVES = torch.tensor([0.5, 1.5], dtype=torch.float16)
ONES = torch.ones(2, dtype=F32)

#: What names torch.float32, or nothing at all, in ways that detectors use.
WIDENED = {
    "tensor": lambda: torch.tensor([1.0]),
    "tensor dtype": lambda: torch.tensor([1], dtype=F32),
    "as_tensor": lambda: torch.as_tensor([1], dtype=F32),
    "as_tensor of numpy": lambda: torch.as_tensor(np.ones(2), dtype=F32),
    "zeros": lambda: torch.zeros(2),
    "ones dtype": lambda: torch.ones(2, dtype=F32),
    "full": lambda: torch.full((2,), 1.0, dtype=F32),
    "rand": lambda: torch.rand(2),
    "arange": lambda: torch.arange(0, 4, dtype=F32),
    "linspace": lambda: torch.linspace(0.5, 3.5, 4, dtype=F32),
    "linspace without": lambda: torch.linspace(0.5, 3.5, 4),
    "cumsum": lambda: torch.ones(3, dtype=torch.bool).cumsum(0, dtype=F32),
    "torch.cumsum": lambda: torch.cumsum(torch.ones(3, dtype=torch.bool), 0, dtype=F32),
    "sum": lambda: torch.ones(3, dtype=torch.int64).sum(dtype=F32),
    "softmax": lambda: HALVES.softmax(0, dtype=F32),
    "functional softmax": lambda: torch.nn.functional.softmax(HALVES, 0, dtype=F32),
    "float": lambda: HALVES.float(),
    "float of bool": lambda: torch.tensor([True]).float(),
    "float of float32": lambda: ONES.float(),
    "to": lambda: torch.tensor([1]).to(F32),
    "to dtype": lambda: torch.tensor([1]).to(dtype=F32),
    "to device and dtype": lambda: torch.tensor([1]).to("cpu", F32),
    "to device, named": lambda: torch.tensor([1]).to(device="cpu", dtype=F32, non_blocking=True),
    "type": lambda: torch.tensor([1]).type(F32),
    "new_zeros": lambda: torch.tensor([1]).new_zeros(3, dtype=F32),
    "new_tensor": lambda: torch.tensor([1]).new_tensor([1, 2], dtype=F32),
    "zeros_like": lambda: torch.zeros_like(HALVES, dtype=F32),
    "view": lambda: torch.zeros(2, dtype=torch.int64).to(F32).view(2, 1),
    "torch.float": lambda: torch.zeros(2, dtype=torch.float),
    "type by name": lambda: torch.tensor([1]).type("torch.FloatTensor"),
    "type by class": lambda: torch.tensor([1]).type(torch.FloatTensor),
    "class": lambda: torch.FloatTensor([1, 2]),
    "class by size": lambda: torch.FloatTensor(2, 3),
    "default dtype": lambda: torch.tensor([1]).to(torch.get_default_dtype()),
    "tensor of numpy": lambda: torch.tensor(np.ones(2, dtype=np.float32)),
    "from_numpy": lambda: torch.from_numpy(np.ones(2, dtype=np.float32)),
    "from_numpy, named": lambda: torch.from_numpy(np.ones(2, dtype="float32")),
    "numpy number": lambda: torch.tensor(np.float32(2)),
    "division of whole numbers": lambda: torch.tensor([1]) / 2,
    "module": lambda: next(nn.Linear(2, 2).parameters()),
    "module.float": lambda: next(nn.Linear(2, 2).half().float().parameters()),
    "module.to": lambda: next(nn.Linear(2, 2).half().to(F32).parameters()),
}
LEFT_ALONE = {
    "half": lambda: ONES.half(),
    "to half": lambda: ONES.to(torch.float16),
    "bfloat16": lambda: torch.zeros(2, dtype=torch.bfloat16),
    "half softmax": lambda: HALVES.softmax(0),
    "long": lambda: ONES.long(),
    "arange of whole numbers": lambda: torch.arange(4),
    "int32": lambda: torch.zeros(2, dtype=torch.int32),
    "bool": lambda: ONES > 0,
    "a float32 tensor as it is": lambda: ONES * 1,
    "like a float32 tensor": lambda: torch.zeros_like(ONES),
    "type_as": lambda: torch.tensor([1]).type_as(ONES),
    "double": lambda: ONES.double(),
    "topk": lambda: ONES.topk(1)[1],
}


@pytest.mark.parametrize("make", WIDENED.values(), ids=WIDENED)
def test_what_names_float32_or_nothing_is_double(make):
    before = make()
    with computing_in("float64"):
        found = make()
    assert before.dtype == F32 and found.dtype == F64 and found.shape == before.shape
    assert make().dtype == F32


@pytest.mark.parametrize("make", LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_other_dtypes_are_left_alone(make):
    before = make()
    with computing_in("float64"):
        found = make()
    assert found.dtype == before.dtype and torch.equal(found, before)


def test_values_are_those_of_double_precision():
    with computing_in("float64"):
        third = torch.arange(1, 4, dtype=F32) / 3
        third32 = torch.ones(1, dtype=torch.float16).float() / 3
    assert third.tolist() == [1 / 3, 2 / 3, 1.0] and third32.item() == 1 / 3


def test_numbers_named_single_in_numpy_are_double():
    with computing_in("float64"):
        assert torch.tensor(np.float32(0.1)).item() == torch.from_numpy(np.array([0.1], np.float32)).item() == 0.1


LIMITS = {
    "of float32": lambda: torch.finfo(F32).eps,
    "of a tensor": lambda: torch.finfo(torch.zeros(1).dtype).eps,
    "default": lambda: torch.finfo().eps,
    "least": lambda: torch.finfo(torch.zeros(1).dtype).min,
    "numpy": lambda: float(np.finfo(np.float32).eps),
    "numpy, by name": lambda: float(np.finfo("float32").eps),
    "half": lambda: torch.finfo(torch.float16).eps,
}


@pytest.mark.parametrize("limit", LIMITS.values(), ids=LIMITS)
def test_limits_of_types_are_those_of_the_run_in_single_precision(limit):
    expected = limit()
    with computing_in("float64"):
        assert limit() == expected


def test_classes_and_limits_are_put_back():
    before = torch.FloatTensor, torch.finfo, np.float32, np.finfo
    with pytest.raises(ZeroDivisionError), computing_in("float64"):
        1 / 0  # noqa: B018
    assert (torch.FloatTensor, torch.finfo, np.float32, np.finfo) == before


@pytest.mark.parametrize("make", WIDENED.values(), ids=WIDENED)
def test_float32_changes_nothing(make):
    with computing_in("float32"):
        assert make().dtype == F32 and torch.get_default_dtype() == F32
    assert torch.get_default_dtype() == F32


@pytest.mark.parametrize("dtype", precision.DTYPES)
def test_everything_is_as_before_also_after_an_exception(dtype):
    with pytest.raises(ZeroDivisionError), computing_in(dtype):
        1 / 0  # noqa: B018
    assert torch.get_default_dtype() == F32
    assert torch.zeros(1, dtype=F32).dtype == HALVES.float().dtype == torch.zeros(1).dtype == F32


def test_an_old_torch_says_what_is_needed(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "1.12.1+cu102")
    with pytest.raises(UnusableInputError, match="needs torch 1.13 or newer; .* has torch 1.12.1"), computing_in("float64"):
        pass
    assert torch.get_default_dtype() == F32
    with computing_in("float32"):
        pass


class Encoding(nn.Module):
    """Makes a sine encoding the way DETR does."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, mask):
        places = (~mask).cumsum(1, dtype=F32)
        steps = torch.arange(4, dtype=F32, device=mask.device)
        return self.fc((places[..., None] / 10 ** (2 * (steps // 2) / 4)).sin())


def test_model_in_double_precision_is_double_throughout():
    torch.manual_seed(0)
    model, mask = Encoding(), torch.zeros(2, 5, dtype=torch.bool)
    narrow = model(mask)
    model.to(F64)
    with computing_in("float64"):
        wide = model(mask)
        wide.sum().backward()
    assert wide.dtype == F64 and model.fc.weight.grad.dtype == F64
    assert 0 < (wide - narrow).abs().max() < 1e-6
    # by hand, in numpy's double precision: no float32 sine is in it
    places, steps = np.cumsum(np.ones((2, 5)), 1), np.arange(4)
    sines = np.sin(places[..., None] / 10 ** (2 * (steps // 2) / 4))
    by_hand = sines @ model.fc.weight.detach().numpy().T + model.fc.bias.detach().numpy()
    assert np.abs(wide.detach().numpy() - by_hand).max() < 1e-14


@pytest.mark.parametrize("dtype", [F32, F64, torch.float16, torch.bfloat16], ids=str)
def test_perturbation_is_of_one_epsilon(dtype):
    tensor = (torch.randn(5000, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    before = tensor.clone()
    perturb([tensor], 1)
    change = (tensor.double() - before.double()) / before.double() / torch.finfo(dtype).eps
    # the product is rounded once more, by at most half a unit in the last place: half of epsilon
    assert change.abs().max() <= 1.5
    for share in ((change == 0), (change > 0.4), (change < -0.4)):
        assert 0.28 < share.double().mean() < 0.39


def test_ones_go_up_or_down_by_just_one_epsilon():
    tensor = torch.ones(200)
    perturb([tensor], 0)
    assert set(tensor.tolist()) == {1.0 - 2.0**-23, 1.0, 1.0 + 2.0**-23}


def test_zeros_nan_and_infinities_stay():
    tensor = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), float("nan")] * 20)
    copy = tensor.clone()
    perturb([tensor], 3)
    assert tensor.numpy().tobytes() == copy.numpy().tobytes()


def test_whole_numbers_and_booleans_stay():
    tensors = [torch.arange(100), torch.arange(100, dtype=torch.int32), torch.ones(100, dtype=torch.bool)]
    copies = [tensor.clone() for tensor in tensors]
    perturb(tensors, 3)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(tensors, copies))


def perturbed(seed, *shapes):
    tensors = [torch.ones(shape) for shape in shapes]
    perturb(tensors, seed)
    return tensors


def test_perturbation_is_seeded():
    torch.manual_seed(0)
    one = perturbed(1, 50, (2, 30))
    torch.manual_seed(1)
    again, other = perturbed(1, 50, (2, 30)), perturbed(2, 50, (2, 30))
    assert all(torch.equal(a, b) for a, b in zip(one, again))
    assert not any(torch.equal(a, b) for a, b in zip(one, other))


def test_perturbation_leaves_the_global_generator_alone_and_varies_from_tensor_to_tensor():
    state = torch.random.get_rng_state()
    one, two = perturbed(1, 50, 50)
    assert not torch.equal(one, two) and torch.equal(torch.random.get_rng_state(), state)


def test_parameters_are_perturbed_in_place_and_stay_leaves():
    layer = nn.Linear(20, 20)
    before = layer.weight.detach().clone()
    perturb(list(layer.parameters()), 1)
    assert not torch.equal(layer.weight, before)
    layer(torch.ones(1, 20)).sum().backward()
    assert layer.weight.is_leaf and layer.weight.grad is not None


def use(tmp_path, tap_list, call, replay=None, dtype="float32", decide=True):
    """Call ``call`` with the taps installed as the worker does it; return its result and the trace."""
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    with computing_in(dtype), taps.installed(tap_list, recorder, replay, decide), recorder.in_phase("predict"):
        result = call()
    recorder.writer.finish({}, dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={}))
    return result, Trace.load(tmp_path / "t")


def keys(trace):
    return [(r.kind, r.name, r.call, r.slot) for r in trace.records]


@pytest.mark.parametrize("dtype", precision.DTYPES)
def test_topk_is_recorded_once_in_either_precision(tmp_path, dtype):
    scores = torch.tensor([0.1, 0.3, 0.2])
    results, trace = use(tmp_path, taps.rankings(), lambda: [scores.topk(2), scores.topk(k=1)], dtype=dtype)
    assert keys(trace) == [
        ("basis", "detections", 0, "scores"), ("tap", "detections", 0, "indices"),
        ("basis", "detections", 1, "scores"), ("tap", "detections", 1, "indices"),
    ]  # fmt: skip
    assert [indices.tolist() for _, indices in results] == [[1, 2], [1]]
    assert [trace.tensor(r).tolist() for r in trace.records if r.kind == "tap"] == [[1, 2], [1]]


@pytest.mark.parametrize("dtype", precision.DTYPES)
def test_topk_that_fails_does_not_stop_the_recording(tmp_path, dtype):
    def call():
        with pytest.raises(RuntimeError):
            torch.ones(2).topk(5)
        return torch.ones(2).topk(1)

    _, trace = use(tmp_path, taps.rankings(), call, dtype=dtype)
    assert ("tap", "detections", 1, "indices") in keys(trace)


@pytest.mark.parametrize("dtype", precision.DTYPES)
@pytest.mark.parametrize("decide", [True, False])
def test_topk_is_forced_once_in_either_precision(tmp_path, dtype, decide):
    forced = {"predict/detections/0/indices": torch.tensor([2, 0])}
    scores = torch.tensor([0.1, 0.3, 0.2])
    (values, indices), trace = use(
        tmp_path, taps.rankings(), lambda: scores.topk(2), forced, dtype=dtype, decide=decide
    )
    assert indices.tolist() == [2, 0] and torch.equal(values, scores[[2, 0]])
    assert keys(trace) == [("basis", "detections", 0, "scores"), ("tap", "detections", 0, "indices")]
    assert trace.tensor(trace.records[1]).tolist() == ([1, 2] if decide else [2, 0])


@pytest.mark.parametrize(("decide", "calls"), [(True, 1), (False, 0)])
def test_original_is_called_under_replay_only_to_decide(tmp_path, decide, calls):
    called = []

    def assign(cost):
        called.append(cost)
        return np.array([0, 1]), np.array([1, 0])

    owner = types.SimpleNamespace(linear_sum_assignment=assign)
    forced = {"predict/match/0/rows": torch.tensor([0, 1]), "predict/match/0/cols": torch.tensor([0, 1])}
    result, trace = use(
        tmp_path, [taps.matching_tap(owner, "match")], lambda: owner.linear_sum_assignment(np.eye(2)), forced,
        decide=decide,
    )  # fmt: skip
    assert len(called) == calls and [r.tolist() for r in result] == [[0, 1], [0, 1]]
    found = {r.slot: trace.tensor(r).tolist() for r in trace.records}
    assert found["cost"] == [[1.0, 0.0], [0.0, 1.0]] and found["cols"] == ([1, 0] if decide else [0, 1])


def test_without_replay_the_original_decides_whatever_decide_says(tmp_path):
    (_, indices), trace = use(
        tmp_path, taps.rankings(), lambda: torch.tensor([0.1, 0.3, 0.2]).topk(1), decide=False
    )
    assert indices.tolist() == [1] and trace.tensor(trace.records[-1]).tolist() == [1]


@pytest.mark.parametrize("decide", [True, False])
def test_decision_that_is_missing_is_an_error_in_either_case(tmp_path, decide):
    with pytest.raises(taps.ReplayError, match="predict/detections/0/"):
        use(tmp_path, taps.rankings(), lambda: torch.ones(2).topk(1), {}, decide=decide)


@pytest.mark.parametrize("decide", [True, False])
def test_draws_of_a_float32_run_are_the_same_numbers_in_float64(tmp_path, decide):
    def draw():
        like = torch.zeros(3)
        return [torch.rand(3), torch.rand_like(like), torch.randint_like(like, 0, 9), torch.rand(2, dtype=F32)]

    drawn, trace = use(tmp_path / "narrow", taps.random_taps(), draw)
    draws = [r for r in trace.records if r.kind == "tap"]
    bundle = {f"predict/{r.name}/{r.call}/{r.slot}": trace.tensor(r) for r in draws}
    assert len(bundle) == 4
    again, wide = use(tmp_path / "wide", taps.random_taps(), draw, bundle, "float64", decide)
    assert keys(wide) == keys(trace)
    assert all(two.dtype == F64 and torch.equal(two, one.double()) for one, two in zip(drawn, again))


def test_files_are_read_as_they_were_written(tmp_path):
    tensors = {"one": torch.tensor([1.5]), "two": torch.tensor([2.5], dtype=torch.float64), "text": torch.zeros(3).byte()}
    torch.save(tensors, tmp_path / "a.pth")
    save_file(tensors, tmp_path / "a.safetensors")
    with computing_in("float64"), as_stored():
        read = [torch.load(tmp_path / "a.pth", weights_only=True), load_file(tmp_path / "a.safetensors")]
        read.append({name: torch.from_numpy(value) for name, value in load_arrays(tmp_path / "a.safetensors").items()})
    for found in read:
        assert all(found[name].dtype == tensors[name].dtype for name in tensors)
        assert all(torch.equal(found[name], tensors[name]) for name in tensors)
