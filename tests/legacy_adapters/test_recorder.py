"""Every call of every module is recorded, with all its inputs and outputs."""

from functools import wraps

import numpy as np
import torch
from torch import nn

from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.traces.trace import Trace


class Two(nn.Module):
    def forward(self, x, *, scale=1.0):
        return {"up": x * scale, "down": (x - 1, [x - 2])}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.relu = nn.ReLU(inplace=True)
        self.two = Two()
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.relu(self.fc(x))
        return self.two(self.fc(x), scale=2.0)["up"]


def recorded(tmp_path, call):
    net = Net()
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    recorder.attach(net)
    call(net, recorder)
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    return Trace.load(tmp_path / "t")


def run_once(net, recorder):
    with recorder.in_phase("predict"):
        net(torch.ones(1, 2))


def keys(trace):
    return [(r.kind, r.name, r.call, r.slot) for r in trace.records]


def test_inputs_and_outputs_of_every_structure_in_order(tmp_path):
    assert keys(recorded(tmp_path, run_once)) == [
        ("module_in", "fc", 0, "input"),
        ("module_out", "fc", 0, ""),
        ("module_in", "relu", 0, "input"),
        ("module_out", "relu", 0, ""),
        ("module_in", "fc", 1, "input"),
        ("module_out", "fc", 1, ""),
        ("module_in", "two", 0, "x"),
        ("module_in", "two", 0, "scale"),
        ("module_out", "two", 0, "up"),
        ("module_out", "two", 0, "down.0"),
        ("module_out", "two", 0, "down.1.0"),
    ]


def test_input_of_an_in_place_module_is_recorded_before_it_is_overwritten(tmp_path):
    trace = recorded(tmp_path, run_once)
    by_key = {(r.kind, r.name, r.call): trace.tensor(r) for r in trace.records if r.name in ("fc", "relu")}
    assert torch.equal(by_key["module_in", "relu", 0], by_key["module_out", "fc", 0])
    assert torch.equal(by_key["module_out", "relu", 0], by_key["module_in", "relu", 0].relu())


def test_coverage_counts_leaf_calls_and_lists_what_never_ran(tmp_path):
    coverage = recorded(tmp_path, run_once).coverage
    assert {c["name"]: c["count"] for c in coverage["leaf_calls"]} == {"fc": 2, "relu": 1, "two": 1}
    assert coverage["never_executed"] == ["unused"]


def test_nothing_is_recorded_outside_a_phase_and_calls_restart_in_each(tmp_path):
    def call(net, recorder):
        net(torch.ones(1, 2))
        run_once(net, recorder)
        run_once(net, recorder)

    calls = [r.call for r in recorded(tmp_path, call).records if r.name == "fc" and r.kind == "module_out"]
    assert calls == [0, 1, 0, 1]


def test_positional_and_keyword_calls_record_alike(tmp_path):
    def call(net, recorder):
        with recorder.in_phase("predict"):
            net.two(torch.ones(1))
            net.two(x=torch.ones(1))

            net.two(torch.ones(1), scale=1)
            net.two(scale=np.float64(1.0), x=torch.ones(1))
            net.two(torch.ones(1), scale=True)

    found = [r for r in recorded(tmp_path, call).records if r.kind == "module_in"]
    assert [r.slot for r in found] == ["x", "scale"] * 5
    assert len({r.digest for r in found}) == 2, "a default, 1, 1.0, numpy's 1.0 and True are one number"


def test_arguments_are_handed_on_as_they_were_given(tmp_path):
    given = []

    # looks at keywords, under the signature of what it wraps, as mmcv's `deprecated_api_warning` does
    @wraps(lambda x: x)
    def forward(*args, **kwargs):
        given.append((args, kwargs))

    net, x = nn.ModuleDict(dict(picky=nn.Module())), torch.ones(1)
    net.picky.forward = forward
    recorder = Recorder(TraceWriter(str(tmp_path / "t")), gradient_flow=True)
    recorder.attach(net)
    with recorder.in_phase("predict"):
        net.picky.forward(x=x)
        net.picky.forward(x)
    assert given == [((), dict(x=x)), ((x,), {})]


def test_scope_is_the_module_that_made_the_call(tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        def forward(self, x):
            return self.inner(x)

    outer, recorder = Outer(), Recorder(TraceWriter(str(tmp_path / "t")))
    recorder.attach(outer)
    with recorder.in_phase("predict"):
        outer(torch.ones(1, 2))
    scopes = {r.name: r.scope for r in recorder.writer.records}
    assert scopes["inner"] == "" and scopes["inner.fc"] == "inner"


def test_recording_does_not_change_the_result(tmp_path):
    torch.manual_seed(0)
    net = Net()
    expected = net(torch.ones(1, 2))
    recorder = Recorder(TraceWriter(str(tmp_path / "t")))
    recorder.attach(net)
    with recorder.in_phase("predict"):
        assert torch.equal(net(torch.ones(1, 2)), expected)
