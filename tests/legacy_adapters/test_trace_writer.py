"""What is written is what was there at that moment, once."""

import json

import pytest
import torch
from safetensors.torch import load_file

from legacy_adapters.trace_writer import TraceWriter
from parity.trace import Trace, TraceError

COVERAGE = dict(leaf_calls=[], never_executed=[], without_gradient=[], classes={})


def finished(folder, *tensors):
    writer = TraceWriter(str(folder))
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


def test_equal_tensors_are_stored_once_and_share_a_digest(tmp_path):
    trace = finished(tmp_path / "t", torch.ones(1000), torch.ones(1000), torch.ones(10, 100))
    first, second, other_shape = trace.records
    assert first.digest == second.digest != other_shape.digest
    assert len(load_file(tmp_path / "t" / "trace-00001.safetensors")) == 2


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
