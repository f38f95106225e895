"""What is written is what was there at that moment, once."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from legacy_adapters.recording.trace_writer import TraceWriter, UnsupportedTensorError, content_digest
from parity.traces.trace import Trace, TraceError

COVERAGE = dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={})


def finished(folder, *tensors, beside=None):
    writer = TraceWriter(str(folder), beside)
    for index, tensor in enumerate(tensors):
        writer.add("predict", "module_out", f"m{index}", 0, "", tensor)
    writer.finish({}, COVERAGE)
    return Trace.load(folder)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3, 4),
        torch.randn(3, 4).double(),
        torch.randn(5).half(),
        torch.randn(5).bfloat16(),
        torch.arange(6).reshape(2, 3),
        torch.tensor([True, False]),
        torch.tensor(1.5),
        torch.empty(0, 4),
        torch.randn(4, 6).t(),
        torch.randn(2, 3, 4)[:, ::2],
        torch.tensor([float("nan"), float("inf"), -0.0]),
    ],
    ids=lambda t: f"{t.dtype}-{tuple(t.shape)}",
)
def test_tensor_comes_back_bit_for_bit(tmp_path, tensor):
    trace = finished(tmp_path / "t", tensor)
    back = trace.tensor(trace.records[0])
    assert back.dtype == tensor.dtype and back.shape == tensor.shape
    assert bytes(back.contiguous().reshape(-1).view(torch.uint8).numpy()) == bytes(
        tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
    )


def test_one_element_is_recorded_whatever_its_stride(tmp_path):
    trace = finished(tmp_path / "t", torch.arange(5.0).reshape(1, 5)[:, 4])
    assert trace.tensor(trace.records[0]).tolist() == [4.0]


def test_equal_tensors_are_stored_once_and_share_a_digest(tmp_path):
    trace = finished(tmp_path / "t", torch.ones(1000), torch.ones(1000), torch.ones(10, 100))
    first, second, other_shape = trace.records
    assert first.digest == second.digest != other_shape.digest
    assert len(load_file(tmp_path / "t" / "trace-00001.safetensors")) == 2


@pytest.mark.parametrize("size", [1000, 1 << 20], ids=["small", "large"])
def test_what_the_trace_beside_holds_is_not_stored_again(tmp_path, size):
    shared, own = torch.arange(float(size)), torch.arange(float(size)) + 1
    finished(tmp_path / "run" / "one", shared)
    two = finished(tmp_path / "run" / "two", shared, own, shared.clone(), beside=str(tmp_path / "run" / "one"))
    assert len(load_file(tmp_path / "run" / "two" / "trace-00001.safetensors")) == 1
    two.verify()
    (tmp_path / "run").rename(tmp_path / "moved")  # both together
    two = Trace.load(tmp_path / "moved" / "two", checked=True)
    assert [two.tensor(record)[0].item() for record in two.records] == [0.0, 1.0, 0.0]
    (tmp_path / "moved" / "two").rename(tmp_path / "two")
    with pytest.raises(TraceError, match="move both traces"):
        Trace.load(tmp_path / "two")


def test_sign_of_zero_changes_the_digest(tmp_path):
    trace = finished(tmp_path / "t", torch.tensor([0.0]), torch.tensor([-0.0]))
    assert trace.records[0].digest != trace.records[1].digest


def test_later_in_place_change_does_not_reach_the_record(tmp_path):
    writer = TraceWriter(str(tmp_path / "t"))
    tensor = torch.zeros(4)
    writer.add("predict", "module_out", "m", 0, "", tensor)
    tensor += 1
    writer.finish({}, COVERAGE)
    trace = Trace.load(tmp_path / "t")
    assert trace.tensor(trace.records[0]).tolist() == [0, 0, 0, 0]


def test_unfinished_trace_is_refused(tmp_path):
    writer = TraceWriter(str(tmp_path / "t"))
    writer.add("predict", "module_out", "m", 0, "", torch.ones(3))
    with pytest.raises(TraceError, match="not a trace"):
        Trace.load(tmp_path / "t")


def test_missing_shard_is_named(tmp_path):
    finished(tmp_path / "t", torch.ones(3))
    (tmp_path / "t" / "trace-00001.safetensors").unlink()
    with pytest.raises(TraceError, match="trace-00001"):
        Trace.load(tmp_path / "t")


def test_truncated_shard_is_refused_when_the_trace_is_loaded(tmp_path):
    finished(tmp_path / "t", torch.ones(3000))
    shard = tmp_path / "t" / "trace-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(TraceError, match="damaged"):
        Trace.load(tmp_path / "t")


def test_changed_byte_is_found_by_verify(tmp_path):
    finished(tmp_path / "t", torch.ones(3000)).verify()
    shard = tmp_path / "t" / "trace-00001.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(TraceError, match="`m0` is not what was recorded"):
        Trace.load(tmp_path / "t").verify()


@pytest.mark.parametrize("key", ["leaf_calls", "classes"])
def test_index_without_its_coverage_is_malformed(tmp_path, key):
    finished(tmp_path / "t", torch.ones(3))
    index = json.loads((tmp_path / "t" / "index.json").read_text())
    del index["coverage"][key]
    (tmp_path / "t" / "index.json").write_text(json.dumps(index))
    with pytest.raises(TraceError, match=f"malformed.*{key}"):
        Trace.load(tmp_path / "t")


def test_other_format_version_is_refused(tmp_path):
    finished(tmp_path / "t", torch.ones(3))
    index = json.loads((tmp_path / "t" / "index.json").read_text())
    (tmp_path / "t" / "index.json").write_text(json.dumps({**index, "format_version": 99}))
    with pytest.raises(TraceError, match="version 99"):
        Trace.load(tmp_path / "t")


def test_many_tensors_go_to_several_shards(tmp_path):
    trace = finished(tmp_path / "t", *(torch.tensor([float(i)]) for i in range(1500)))
    assert len(list((tmp_path / "t").glob("*.safetensors"))) == 2
    assert trace.tensor(trace.records[1499]).item() == 1499


LARGE = 3 << 18  # float32 elements of a tensor that two threads take care of


def test_large_tensor_has_the_digest_of_its_bytes_and_comes_back(tmp_path):
    tensors = [
        torch.randn(LARGE),
        torch.randn(LARGE + 1).bfloat16(),
        torch.randn(1024, LARGE // 1024).t(),
        torch.ones(3),
    ]
    trace = finished(tmp_path / "t", *tensors)
    assert [record.digest for record in trace.records] == [content_digest(tensor) for tensor in tensors]
    assert all(torch.equal(trace.tensor(record), tensor) for record, tensor in zip(trace.records, tensors))
    trace.verify()
    assert len(load_file(tmp_path / "t" / "trace-00001.safetensors")) == len(tensors)


def test_equal_large_tensors_are_stored_once(tmp_path):
    tensor = torch.randn(LARGE)
    changed = tensor.clone()
    changed[LARGE // 2] *= -1
    trace = finished(tmp_path / "t", tensor, tensor.clone(), changed, tensor.reshape(2, -1), tensor)
    digests = [record.digest for record in trace.records]
    assert digests[0] == digests[1] == digests[4] and len(set(digests)) == 3
    assert (tmp_path / "t" / "trace-00001.safetensors").stat().st_size < 3.2 * 4 * LARGE
    assert torch.equal(trace.tensor(trace.records[2]), changed)


def test_equal_large_tensor_that_came_last_leaves_no_bytes_behind(tmp_path):
    trace = finished(tmp_path / "t", torch.zeros(LARGE), torch.ones(LARGE), torch.zeros(LARGE))
    assert trace.records[0].digest == trace.records[2].digest
    assert set(load_file(tmp_path / "t" / "trace-00001.safetensors")) == {record.digest for record in trace.records}
    trace.verify()


def test_tensor_in_the_memory_of_another_one_is_another_one(tmp_path):
    """torch gives freed memory to the next tensor of that size; where a tensor lies says nothing of what it is."""
    writer = TraceWriter(str(tmp_path / "t"))
    places = set()
    for number in range(6):
        tensor = torch.full((LARGE,), float(number % 3))
        places.add(tensor.data_ptr())
        writer.add("predict", "module_out", "m", number, "", tensor)
        writer.add("predict", "module_in", "m", number, "", tensor)
        del tensor
    writer.finish({}, COVERAGE)
    trace = Trace.load(tmp_path / "t")
    assert len(places) < 6
    assert [trace.tensor(record)[7].item() for record in trace.records] == [i // 2 % 3 for i in range(12)]
    assert len({record.digest for record in trace.records}) == 3


def test_later_in_place_change_of_a_large_tensor_does_not_reach_the_record(tmp_path):
    writer = TraceWriter(str(tmp_path / "t"))
    tensor = torch.zeros(LARGE)
    for number in range(3):
        writer.add("predict", "module_out", "m", number, "", tensor)
        tensor += 1
        tensor.data.copy_(tensor.data.clone())  # and what torch's own count of changes does not see
        tensor.data[0] = -number
    writer.finish({}, COVERAGE)
    trace = Trace.load(tmp_path / "t")
    assert [trace.tensor(record)[:2].tolist() for record in trace.records] == [[0, 0], [0, 1], [-1, 2]]


def test_records_keep_their_order_whatever_their_size(tmp_path):
    sizes = (1, LARGE, 2, LARGE, 3, LARGE // 2, 4)
    trace = finished(tmp_path / "t", *(torch.full((size,), float(index)) for index, size in enumerate(sizes)))
    assert [(r.name, r.shape) for r in trace.records] == [(f"m{i}", (size,)) for i, size in enumerate(sizes)]
    assert [trace.tensor(record)[0].item() for record in trace.records] == list(range(len(sizes)))


def test_disk_that_is_full_is_an_error_of_the_caller(tmp_path):
    code = (
        "import resource, sys, torch\n"
        "from legacy_adapters.recording.trace_writer import TraceWriter\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))\n"
        f"writer = TraceWriter({str(tmp_path / 't')!r})\n"
        "try:\n"
        f"    writer.add('predict', 'module_out', 'm', 0, '', torch.randn({2 * LARGE}))\n"
        "except OSError as error:\n"
        "    print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "OSError\n", done.stderr
    assert not (tmp_path / "t" / "index.json").exists()


@pytest.mark.parametrize(
    ("tensor", "says"),
    [
        (torch.zeros(2, dtype=torch.complex64), "is a tensor of torch.complex64, torch.strided; a trace keeps"),
        (torch.zeros(2, 2).to_sparse(), "is a tensor of torch.float32, torch.sparse_coo; a trace keeps"),
    ],
    ids=["complex", "sparse"],
)
def test_tensor_that_a_trace_cannot_keep_is_named(tmp_path, tensor, says):
    writer = TraceWriter(str(tmp_path))
    with pytest.raises(UnsupportedTensorError) as error:
        writer.add("predict", "module_out", "neck.fft", 0, "0.1", tensor)
    message = str(error.value)
    assert message.startswith("module_out `neck.fft` 0.1 ") and says in message and "\n" not in message
