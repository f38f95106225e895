"""Gradients are recorded where they cross the borders of module calls, and nothing is changed by that."""

import pytest
import torch
from torch import nn

from legacy_adapters.recording.recorder import Recorder
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.traces.trace import Trace


class Net(nn.Module):
    """``mix`` is called twice; its input goes past it as well; the norm's output is overwritten in place."""

    def __init__(self):
        super().__init__()
        self.mix, self.norm, self.relu = nn.Linear(3, 3), nn.LayerNorm(3), nn.ReLU(inplace=True)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        a = self.mix(x)
        b = self.relu(self.norm(a))
        self.unused(b)
        return self.mix(b) + a


def trained(net, x, recorder=None):
    if recorder is None:
        (net(x) ** 2).sum().backward()
        return
    recorder.attach(net)
    with recorder.in_phase("train"):
        (net(x) ** 2).sum().backward()


@pytest.fixture
def flow(tmp_path):
    """Return the trace of one training step, the input and the net."""
    torch.manual_seed(0)
    net, x = Net(), torch.randn(4, 3, requires_grad=True)
    recorder = Recorder(TraceWriter(str(tmp_path / "t")), gradient_flow=True)
    trained(net, x, recorder)
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    return Trace.load(tmp_path / "t"), x, net


def of(trace, kind, name, call=0):
    (record,) = trace.slots("train", kind, name, call).values()
    return trace.tensor(record)


def test_tensors_without_a_way_back_are_listed_in_forward_order(tmp_path):
    class Cut(Net):
        def forward(self, x):
            return self.mix(self.norm(self.mix(x)).detach())

    net, recorder = Cut(), Recorder(TraceWriter(str(tmp_path / "t")), gradient_flow=True)
    for parameter in net.norm.parameters():
        parameter.requires_grad_(False)
    trained(net, torch.randn(4, 3), recorder)
    assert recorder.coverage()["cut_off"] == [
        ("train", "in_grad", "mix", 0, "input"),
        ("train", "in_grad", "mix", 1, "input"),
    ]


def test_gradients_cross_borders_in_the_order_of_backward(flow):
    keys = [(r.kind, r.name, r.call, r.slot) for r in flow[0].records if r.kind.endswith("_grad")]
    assert keys == [
        ("out_grad", "mix", 1, ""),
        ("in_grad", "mix", 1, "input"),
        ("out_grad", "relu", 0, ""),
        ("in_grad", "relu", 0, "input"),
        ("out_grad", "norm", 0, ""),
        ("in_grad", "norm", 0, "input"),
        ("out_grad", "mix", 0, ""),
        ("in_grad", "mix", 0, "input"),
    ]


def test_input_gradient_is_the_share_of_its_call_and_output_gradient_the_total(flow):
    trace, x, _ = flow
    past, through = of(trace, "out_grad", "mix", 1), of(trace, "in_grad", "norm")
    assert torch.equal(of(trace, "out_grad", "mix", 0), past + through)
    assert torch.equal(of(trace, "in_grad", "mix", 0), x.grad)


def test_gradient_of_an_output_that_is_overwritten_in_place(flow):
    trace = flow[0]
    positive = of(trace, "module_out", "relu") > 0
    assert torch.equal(of(trace, "out_grad", "norm"), of(trace, "out_grad", "relu") * positive)


def test_what_does_not_reach_the_loss_has_no_gradient(flow):
    assert not flow[0].slots("train", "out_grad", "unused", 0)


def test_a_container_has_the_shares_of_what_is_inside(tmp_path):
    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = Net()

        def forward(self, x):
            return self.inner(x * 2)

    torch.manual_seed(0)
    outer, recorder = Outer(), Recorder(TraceWriter(str(tmp_path / "t")), gradient_flow=True)
    trained(outer, torch.randn(2, 3, requires_grad=True), recorder)
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    trace = Trace.load(tmp_path / "t")
    assert torch.equal(of(trace, "in_grad", "inner"), of(trace, "in_grad", "inner.mix", 0))
    scopes = {(r.kind, r.name): r.scope for r in trace.records}
    assert scopes["out_grad", "inner.mix"] == "inner" and scopes["in_grad", "inner"] == ""


def test_recording_changes_no_gradient(flow):
    _, x, net = flow
    torch.manual_seed(0)
    plain, again = Net(), torch.randn(4, 3, requires_grad=True)
    trained(plain, again)
    assert torch.equal(again.grad, x.grad)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.mix.parameters(), net.mix.parameters()))


def test_nothing_is_recorded_without_gradients_or_when_not_asked_for(tmp_path):
    for number, enabled in enumerate((True, False)):
        recorder = Recorder(TraceWriter(str(tmp_path / str(number))), gradient_flow=enabled)
        net = Net()
        recorder.attach(net)
        with recorder.in_phase("train"), torch.set_grad_enabled(not enabled):
            result = net(torch.ones(1, 3)).sum()
            if not enabled:
                result.backward()
        assert {r.kind for r in recorder.writer.records} == {"module_in", "module_out"}


class Chain(nn.Module):
    """``first``, then ``second``; the code of each place may put a hook on the tensor between them."""

    def __init__(self, place):
        super().__init__()
        self.first, self.second, self.place = Scaled(2.0, place == "first"), Scaled(3.0), place

    def forward(self, x):
        y = self.first(x)
        if self.place == "caller":
            y.register_hook(lambda gradient: gradient * 10)
        return self.second(y, hook=self.place == "second")


class Scaled(nn.Module):
    def __init__(self, factor, hook=False):
        super().__init__()
        self.factor, self.hook = factor, hook

    def forward(self, x, hook=False):
        if hook:
            x.register_hook(lambda gradient: gradient * 10)
        y = x * self.factor
        if self.hook:
            y.register_hook(lambda gradient: gradient * 10)
        return y


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("nowhere", [3.0, 3.0, 6.0]),
        ("caller", [3.0, 30.0, 60.0]),
        ("first", [3.0, 3.0, 60.0]),
        ("second", [30.0, 30.0, 60.0]),
    ],
)
def test_gradient_that_a_hook_changes_is_seen_where_the_hook_is_made(tmp_path, place, expected):
    net, x = Chain(place), torch.ones(2, requires_grad=True)
    recorder = Recorder(TraceWriter(str(tmp_path / "t")), gradient_flow=True)
    recorder.attach(net)
    with recorder.in_phase("train"):
        net(x).sum().backward()
    recorder.writer.finish({}, dict(recorder.coverage(), without_gradient=[]))
    trace = Trace.load(tmp_path / "t")
    found = [of(trace, *which) for which in (("in_grad", "second"), ("out_grad", "first"), ("in_grad", "first"))]
    assert [tensor.tolist() for tensor in found] == [[value] * 2 for value in expected]
    flow = [(r.kind, r.name) for r in trace.records if r.kind.endswith("_grad")]
    assert flow == [("out_grad", "second"), ("in_grad", "second"), ("out_grad", "first"), ("in_grad", "first")]
