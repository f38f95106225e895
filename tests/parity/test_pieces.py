"""Traces are read and measured in pieces: the same figures, and the same memory whatever the size of a tensor."""

import functools
import json
import os
import subprocess
import sys
import threading
import time

import pytest
import torch

from converters.threads import in_order
from parity.comparing.compare import Tolerance, compare_all
from parity.comparing.derived import examine
from parity.comparing.evidence import Norms, Sample, distance, norms, spreads
from parity.comparing.metrics import measure
from parity.comparing.pairing import pair
from parity.traces.pieces import PIECE, pieces, together

from .synthetic import INF, NAN, SAME_NAMES, Rec, write_trace

LONG = 11 * PIECE + 3  # more than is read at once


def compared(one, two, tolerance):
    return list(compare_all(one, two, pair(one.records, two.records, SAME_NAMES, ()).pairs, tolerance))


def numbers(seed, dtype=torch.float32, count=LONG):
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.bool:
        return torch.rand(count, generator=generator) < 0.5
    if not dtype.is_floating_point:
        return torch.randint(0, 100, (count,), generator=generator).to(dtype)
    values = torch.randn(count, generator=generator).to(dtype)
    values[::PIECE] = NAN
    values[5::PIECE] = -INF
    return values


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool], ids=str)
@pytest.mark.parametrize("count", [0, 1, PIECE, LONG])
def test_stored_tensor_comes_in_pieces_and_whole(tmp_path, dtype, count):
    values = [torch.ones(3, dtype=torch.bool), numbers(0, dtype, count), numbers(1, dtype, count)]  # odd offsets
    trace = write_trace(tmp_path, *(Rec("module_out", f"m{i}", value) for i, value in enumerate(values)))
    for record, value in zip(trace.records, values):
        assert torch.equal(trace.tensor(record).nan_to_num(), value.nan_to_num())
        parts = [piece.clone() for piece in pieces(trace.stored(record))]
        assert all(len(part) == PIECE for part in parts[:-1]) and sum(map(len, parts)) == value.numel()
        assert not parts or torch.equal(torch.cat(parts).nan_to_num(), value.nan_to_num())


def test_reading_leaves_no_file_open_that_threads_would_share(tmp_path):
    trace = write_trace(tmp_path, *(Rec("module_out", f"m{i}", numbers(i)) for i in range(8)))
    before = len(os.listdir("/proc/self/fd"))
    for value, record in zip(in_order(functools.partial(trace.tensor, r) for r in trace.records), trace.records):
        assert value.shape == record.shape
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.int32, torch.bool], ids=str)
def test_stored_tensors_measure_like_those_in_memory(tmp_path, dtype):
    one, two = numbers(0, dtype), numbers(1, dtype)
    legacy, new = (write_trace(tmp_path / str(i), Rec("module_out", "m", x)) for i, x in enumerate((one, two)))
    (found,) = compared(legacy, new, Tolerance())
    assert found.difference.metrics == measure(one, two)


@pytest.mark.parametrize("place", [0, PIECE, LONG - 1])
@pytest.mark.parametrize(("gap", "accepted"), [(0.5, True), (0.50001, False)])
def test_fixed_tolerance_holds_for_every_piece(tmp_path, place, gap, accepted):
    one = torch.ones(LONG)
    two = one.clone()
    two[place] += gap
    legacy, new = (write_trace(tmp_path / str(i), Rec("module_out", "m", x)) for i, x in enumerate((one, two)))
    (found,) = compared(legacy, new, Tolerance("fixed", atol=0.5))
    assert found.accepted is accepted


def test_equal_contents_are_compared_once_and_told_of_every_pair(tmp_path):
    def side(name, change):
        x = torch.arange(4.0) + change
        kinds = (("module_out", "a", ""), ("module_in", "b", "x"), ("module_in", "c", "y"))
        return write_trace(tmp_path / name, *(Rec(kind, module, x, slot) for kind, module, slot in kinds))

    one, two = side("legacy", 0.0), side("new", 0.25)
    found = compared(one, two, Tolerance())
    assert [(c.pair.legacy, c.pair.new) for c in found] == list(zip(one.records, two.records))
    assert {c.difference.max_abs for c in found} == {0.25} and len({id(c.difference) for c in found}) == 1


def test_norms_of_pieces_are_those_of_the_whole(tmp_path):
    one, two = numbers(0).double(), numbers(1).double()
    trace = write_trace(tmp_path, Rec("module_out", "a", one), Rec("module_out", "b", two))
    stored = [trace.stored(record) for record in trace.records]
    finite = one[one.isfinite()]
    expected = Norms(finite.abs().max().item(), pytest.approx(finite.square().mean().sqrt().item(), rel=1e-13))
    assert norms(one) == expected and norms(stored[0]) == expected
    gap = (one - two)[(one - two).isfinite()]
    expected = Norms(gap.abs().max().item(), pytest.approx(gap.square().mean().sqrt().item(), rel=1e-13))
    assert distance(one, two) == expected and distance(*stored) == expected


def test_examining_pieces_is_examining_the_whole(tmp_path):
    reference = numbers(0).double()
    sides = [reference * (1 + k * 2.0**-24) for k in (1, 0, -1, 2.0**-25)]
    trace = write_trace(tmp_path, *(Rec("module_out", f"m{i}", side) for i, side in enumerate(sides)))
    spread = distance(sides[0], sides[1])
    in_memory = examine(Sample(sides[0], sides[1], spread, *sides[2:]))
    legacy, reference, new, new_reference = map(trace.stored, trace.records)
    assert examine(Sample(legacy, reference, spread, new, new_reference)) == in_memory
    assert in_memory.objection == "" and in_memory.error.max > 0 and in_memory.error64.max > 0


@pytest.mark.parametrize("place", [1, PIECE + 1, LONG - 1])
@pytest.mark.parametrize(("value", "says"), [(NAN, "NaN or Inf"), (INF, "NaN or Inf"), (9.0, "max error")])
@pytest.mark.parametrize("run", ["", " in float64"])
def test_every_piece_is_examined(place, value, says, run):
    x = torch.ones(LONG, dtype=torch.float64)
    other = x.clone()
    other[place] = value
    new, new_reference = (x, other) if run else (other, x)
    found = examine(Sample(x, x, Norms(1e-3, 1e-3), new, new_reference)).objection
    assert found.startswith(says) and run in found


def test_spreads_measure_equal_contents_for_every_record(tmp_path):
    def side(name, *values):
        return write_trace(tmp_path / name, *(Rec("module_out", f"m{i}", value) for i, value in enumerate(values)))

    reference = side("reference", *(torch.tensor([x], dtype=torch.float64) for x in (1.0, 1.0, 2.0)))
    found = spreads([side("one", [1.5], [1.25], [2.0]), side("two", [1.5], [1.5], [2.5])], reference)
    assert [found["train", "module_out", f"m{i}", 0, ""].max for i in range(3)] == [0.5, 0.5, 0.5]


def test_tensors_of_other_shapes_do_not_come_together():
    with pytest.raises(ValueError, match="element by element"):
        list(together(torch.zeros(PIECE), torch.zeros(1)))


def test_tasks_give_their_results_in_order():
    def task(number):
        time.sleep(0.002 * (5 - number % 5))
        return number

    assert list(in_order(functools.partial(task, number) for number in range(20))) == list(range(20))


def test_error_of_a_task_is_raised_and_what_has_not_begun_is_dropped():
    done = []
    started = threading.Event()

    def fail():
        started.wait(10)
        raise RuntimeError("task 0")

    def slow():
        started.set()
        time.sleep(0.2)
        done.append(1)

    with pytest.raises(RuntimeError, match="task 0"):
        list(in_order([fail, *[slow] * 200]))
    assert len(done) < 100


MEGABYTES = 96  # of each tensor

PEAK = f"""
import json, sys, torch
from pathlib import Path
from legacy_adapters.recording.trace_writer import TraceWriter
from parity.comparing.compare import Tolerance, compare_all
from parity.comparing.evidence import TraceEvidence, spreads
from parity.comparing.pairing import pair
from parity.traces.trace import Trace
from converters.rules.mapping import Keep, Mapping

folder = Path(sys.argv[1])

def status(name):
    return int(next(l for l in open("/proc/self/status") if l.startswith(name)).split()[1]) / 1024

def peak(work):
    before = status("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # peak from here on
    work()
    return status("VmHWM") - before

def write(name, values):
    writer = TraceWriter(str(folder / name))
    writer.add("train", "module_out", "m", 0, "", values)
    writer.finish({{}}, dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={{}}))

def trace(name):
    return Trace.load(folder / name)

def compare(new, tolerance, evidence=None):
    one, two = trace("legacy"), trace(new)
    pairs = pair(one.records, two.records, Mapping("toy", (Keep("**"),)), ()).pairs
    (found,) = compare_all(one, two, pairs, tolerance, evidence)
    assert found.difference.max_abs > 0

def derived():
    spread = spreads([trace("legacy")], trace("reference"))
    traces = {{name: trace(name) for name in ("legacy", "reference", "new", "new_reference")}}
    compare("new", Tolerance("derived"), TraceEvidence(spread=spread, **traces))

def both(count):
    x = torch.linspace(1, 2, count)
    for name, values in dict(legacy=x, new=x * 1.0000002, reference=x.double(), new_reference=x.double()).items():
        write(name, values)
    del x
    works = dict(
        exact=lambda: compare("new", Tolerance()), fixed=lambda: compare("new", Tolerance("fixed", atol=1.0)),
        derived=derived, verify=lambda: trace("legacy").verify(),
    )
    return {{name: peak(work) for name, work in works.items()}}

import shutil
both(1 << 18)
shutil.rmtree(folder)
print(json.dumps(both({MEGABYTES} << 18)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_does_not_follow_the_size_of_a_tensor(tmp_path):
    command = [sys.executable, "-c", PEAK, str(tmp_path / "traces")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    peaks = json.loads(done.stdout)
    assert set(peaks) == {"exact", "fixed", "derived", "verify"}
    assert max(peaks.values()) < MEGABYTES / 2, peaks
