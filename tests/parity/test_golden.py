"""A golden file comes back as it was written; anything else is refused in one line."""

import json
import os
import pickle
import random
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from legacy_adapters.ground import files
from legacy_adapters.recording import replay
from parity.comparing.compare import Tolerance
from parity.comparing.evidence import Norms, spreads
from parity.comparing.pairing import LEGACY, NEW
from parity.golden import golden
from parity.golden.evidence import GoldenEvidence, loose_records
from parity.golden.golden import _COLUMNS, FORMAT_VERSION, GoldenError, GoldenValues
from parity.golden.sketch import sketch
from parity.golden.sketches import Sketches
from parity.sides.settings import Task
from parity.verdict.verdict import MATCH, MISMATCH, judge
from tests.models import port

from .golden_files import (
    BATCH,
    PREPARED,
    PROVENANCE,
    RECORDS,
    TASK,
    arrays_of,
    header_of,
    noise,
    recording,
    rewritten,
    widened,
)
from .synthetic import INF, NAN, SAME_NAMES, Rec, write_trace


@pytest.fixture
def recorded(tmp_path):
    """Return a golden recording of hand-written traces."""
    return recording(tmp_path)


@pytest.fixture
def saved(recorded, tmp_path):
    """Return the path of its file."""
    path = tmp_path / "file.npz"
    golden.save(recorded, path)
    return path


def same_bits(one, two):
    return one.dtype == two.dtype and one.shape == two.shape and one.numpy().tobytes() == two.numpy().tobytes()


def test_every_field_survives(recorded, saved):
    back = golden.load(saved)
    for name in ("task", "sources", "provenance", "coverage", "records"):
        assert getattr(back, name) == getattr(recorded, name), name
    assert type(back.task.sizes[0]) is tuple and type(back.records[0].shape) is tuple
    assert list(back.values) == list(recorded.values) and len(back.values) == 8
    for key, values in recorded.values.items():
        assert same_bits(back.values[key].legacy, values.legacy) and same_bits(
            back.values[key].reference, values.reference
        )
        assert back.values[key].spread == values.spread
    assert back.decisions.keys() == recorded.decisions.keys()
    assert all(same_bits(back.decisions[key], tensor) for key, tensor in recorded.decisions.items())


def test_what_is_kept_of_a_record(recorded):
    values = recorded.values["train", "module_out", "neck", 2, "0.1"]
    assert torch.equal(values.legacy, sketch(noise(5, 60, seed=1))) and values.legacy.dtype == torch.float64
    assert torch.equal(values.reference, values.legacy) and values.spread == Norms(0.0, 0.0)
    assert recorded.values["train", "loss", "total", 0, ""].spread == Norms(0.5, 0.5)
    assert recorded.values["train", "loss", "total", 0, ""].reference.tolist() == [2.5]
    kept = {key[1:3] for key in recorded.values}
    assert kept == {("module_in", "neck"), ("module_out", "neck"), ("module_in", "head"), ("module_out", "odd"),
                    ("module_out", "none"), ("basis", "dense"), ("tap", "noise.rand"), ("loss", "total")}  # fmt: skip
    decisions = dict(recorded.decisions)
    # by which a replay finds the decision where images come in another order; what a draw asked for needs none
    rests_on = decisions.pop("basis/train/dense/0/")
    assert torch.equal(rests_on, replay.sketch({"scores": torch.tensor([0.75, 0.5, 0.25])}))
    assert {key: tensor.tolist() for key, tensor in decisions.items()} == {
        "train/dense/0/keep": [0, 2], "predict/noise.rand/0/draw": [0.125],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sizes", "objects"),
    [(((64, 96),), None), (((64, 96),), (0,)), (((64, 96), (32, 32)), None), (((64, 96), (32, 32)), (3, 0))],
    ids=str,
)
def test_every_task_survives(recorded, tmp_path, sizes, objects):
    task = Task(port("ddq_detr", "tiny_4scale"), sizes, objects, 2**63 - 1, ("grad",))
    golden.save(replace(recorded, task=task), tmp_path / "g.npz")
    assert golden.load(tmp_path / "g.npz").task == task


def test_recording_without_floats_or_decisions_survives(recorded, tmp_path):
    empty = replace(recorded, records=(), values={}, decisions={})
    golden.save(empty, tmp_path / "g.npz")
    back = golden.load(tmp_path / "g.npz")
    assert (back.records, dict(back.values), back.decisions) == ((), {}, {})


def test_spread_survives_to_the_last_bit(recorded, tmp_path):
    key = next(iter(recorded.values))
    spread = Norms(0.1 + 0.2, 5e-324)
    golden.save(replace(recorded, values={key: replace(recorded.values[key], spread=spread)}), tmp_path / "g.npz")
    back = golden.load(tmp_path / "g.npz")
    assert back.values.keys() == {key} and back.values[key].spread == spread


def test_equal_values_are_stored_once(saved):
    # the input of `head` is the output of `neck`: 7 contents for 8 records
    assert len(arrays_of(saved)["lengths"]) == 7


def test_values_that_differ_in_the_sign_of_zero_only_are_kept_apart(recorded, tmp_path):
    one, two = list(recorded.values)[:2]
    zero = torch.zeros(1, dtype=torch.float64)
    values = {one: GoldenValues(zero, zero, Norms(0.0, 0.0)), two: GoldenValues(-zero, zero, Norms(0.0, 0.0))}
    golden.save(replace(recorded, values=values), tmp_path / "g.npz")
    back = golden.load(tmp_path / "g.npz").values
    assert not back[one].legacy.signbit() and back[two].legacy.signbit()


def test_equal_values_with_another_spread_are_kept_apart(recorded, tmp_path):
    one, two = list(recorded.values)[:2]
    zero = torch.zeros(1, dtype=torch.float64)
    values = {one: GoldenValues(zero, zero, Norms(1.0, 0.5)), two: GoldenValues(zero, zero, Norms(2.0, 0.5))}
    golden.save(replace(recorded, values=values), tmp_path / "g.npz")
    back = golden.load(tmp_path / "g.npz").values
    assert [back[key].spread.max for key in (one, two)] == [1.0, 2.0]


def test_same_content_gives_the_same_bytes(recorded, saved, tmp_path, monkeypatch):
    os.utime(saved, (0, 0))
    monkeypatch.setattr("time.time", lambda: 2e9)
    names = ("decisions", "sources", "provenance", "coverage")
    shuffled = {name: dict(reversed(getattr(recorded, name).items())) for name in names}
    golden.save(replace(recorded, **shuffled), tmp_path / "again.npz")
    golden.save(golden.load(saved), tmp_path / "reloaded.npz")
    assert saved.read_bytes() == (tmp_path / "again.npz").read_bytes() == (tmp_path / "reloaded.npz").read_bytes()


def test_file_appears_only_when_it_is_complete(recorded, saved, monkeypatch):
    before, moved = saved.read_bytes(), []

    def fail(source, target):
        moved.append((source, target))
        assert golden.load(Path(source)).task == recorded.task
        raise OSError("no")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="no"):
        golden.save(replace(recorded, sources={}), saved)
    ((source, target),) = moved
    assert target == saved and Path(source).parent == saved.parent and source != str(saved)
    assert saved.read_bytes() == before


def test_file_holds_no_path_of_the_machine(recorded, saved, tmp_path):
    assert sum("/" in str(value) for value in PROVENANCE.values()) == 5
    text = json.dumps(header_of(saved))
    for trace_of_a_path in ("/somewhere", "/opt", "venv", str(tmp_path), os.path.expanduser("~/"), "file"):
        assert trace_of_a_path not in text, trace_of_a_path
    assert '"/' not in text
    assert recorded.provenance["modules"] == {"mmdet": {"version": "3.0.0rc6"}}
    assert recorded.provenance["commit"] == "80c7d5f" and recorded.provenance["threads"] == 2
    assert not {"repo", "config", "executable", "mmcv_ops"} & recorded.provenance.keys()


def with_batch(batch):
    return replace(PREPARED, given={**PREPARED.given, "predict": batch.to_tensors()})


def test_decision_is_found_by_its_record(recorded):
    record = next(r for r in recorded.records if r.kind == "tap" and r.name == "dense")
    ((slot, keep),) = GoldenEvidence(recorded, None, None).decision(record).items()
    assert slot == "keep" and keep.tolist() == [0, 2]


def test_weights_and_inputs_of_the_recording_are_accepted(recorded):
    recorded.check_given(PREPARED)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(PREPARED, weights={**PREPARED.weights, LEGACY: {"fc.weight": torch.tensor([1.0, 2.0])}}), "weights"),
        (replace(PREPARED, weights={**PREPARED.weights, LEGACY: {"fc.bias": torch.ones(2)}}), "weights"),
        (replace(PREPARED, weights={**PREPARED.weights, LEGACY: {"fc.weight": torch.ones(2).double()}}), "weights"),
        (replace(PREPARED, weights={**PREPARED.weights, LEGACY: {"fc.weight": torch.ones(1, 2)}}), "weights"),
        (with_batch(replace(BATCH, images=BATCH.images + 1e-7)), "inputs"),
        (with_batch(replace(BATCH, image_sizes=((32, 31),))), "inputs"),
        (with_batch(replace(BATCH, gt_labels=[torch.tensor([3])])), "inputs"),
        (with_batch(replace(BATCH, gt_bboxes=[torch.zeros(1, 4)])), "inputs"),
    ],
    ids=["value", "key", "dtype", "shape", "image", "size", "label", "box"],
)
def test_other_weights_or_inputs_are_refused_by_name(recorded, other, named):
    with pytest.raises(GoldenError, match=f"other {named}: pass the same --checkpoint") as caught:
        recorded.check_given(other)
    assert "\n" not in str(caught.value)


def test_order_and_memory_layout_of_the_weights_do_not_matter():
    tensors = {"a": noise(2, 3), "b": noise(3)}
    other = {"b": noise(3), "a": noise(2, 3).t().contiguous().t()}
    digests = [golden.digests(replace(PREPARED, weights={LEGACY: w, NEW: {}})) for w in (tensors, other)]
    assert digests[0] == digests[1]


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def refused(path):
    """Return the one line with which ``path`` is refused."""
    with pytest.raises(GoldenError) as caught:
        golden.load(path)
    message = str(caught.value)
    assert message.startswith(str(path)) and len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    "content",
    [b"", b"\0", b"hello", b"PK\x03\x04 and so on", bytes(1000), random.Random(0).randbytes(5000), b"\x93NUMPY" * 9],
    ids=["empty", "one byte", "text", "zip magic", "zeros", "random", "npy magic"],
)
def test_foreign_bytes_are_refused(tmp_path, content):
    (tmp_path / "g.npz").write_bytes(content)
    assert "is not a golden file or is damaged" in refused(tmp_path / "g.npz")


def test_archive_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "g.npz", boxes=np.zeros(3))
    assert "is not a golden file or is damaged" in refused(tmp_path / "g.npz")


def test_single_array_is_refused(tmp_path):
    with open(tmp_path / "g.npz", "wb") as file:
        np.save(file, np.zeros(3))
    refused(tmp_path / "g.npz")


def test_zip_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "g.npz", "w") as archive:
        archive.writestr("header", b'{"format_version": 1}')
    refused(tmp_path / "g.npz")


@pytest.mark.parametrize("name", ["header", "legacy", "decision/a", "other"])
def test_pickle_inside_is_never_executed(saved, tmp_path, name):
    def plant(arrays, header):
        arrays[name] = np.array([Trap(tmp_path / "executed")], dtype=object)

    arrays = arrays_of(saved)
    plant(arrays, None)
    np.savez(tmp_path / "g.npz", **arrays)
    refused(tmp_path / "g.npz")
    assert not (tmp_path / "executed").exists()


def test_bare_pickle_is_never_executed(tmp_path):
    (tmp_path / "g.npz").write_bytes(pickle.dumps(Trap(tmp_path / "executed")))
    refused(tmp_path / "g.npz")
    assert not (tmp_path / "executed").exists()


def test_file_that_was_cut_is_refused(saved, tmp_path):
    content = saved.read_bytes()
    for length in range(0, len(content), len(content) // 40):
        (tmp_path / "g.npz").write_bytes(content[:length])
        refused(tmp_path / "g.npz")


def test_file_with_a_changed_bit_is_refused_or_holds_the_same(recorded, saved, tmp_path):
    content, draw = saved.read_bytes(), random.Random(0)
    path = tmp_path / "g.npz"
    for _ in range(300):
        changed = bytearray(content)
        changed[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        try:
            back = golden.load(path)
        except GoldenError as error:
            assert len(str(error).splitlines()) == 1
        else:  # dates, attributes and padding of the archive mean nothing
            assert (back.task, back.sources, back.records) == (recorded.task, recorded.sources, recorded.records)
            golden.save(back, path)
            assert path.read_bytes() == content


def without(name):
    return lambda arrays, header: arrays.pop(name)


def header_without(name):
    return lambda arrays, header: header.pop(name)


@pytest.mark.parametrize("version", [0, FORMAT_VERSION + 1, str(FORMAT_VERSION), None], ids=str)
def test_other_format_version_is_refused(saved, tmp_path, version):
    path = rewritten(saved, tmp_path / "g.npz", lambda arrays, header: header.update(format_version=version))
    assert refused(path) == (
        f"{path} has format version {version}; expected {FORMAT_VERSION}: record it again with `ddq-parity capture` of "
        "this version."
    )


def test_other_format_version_is_told_before_anything_else_is_read(saved, tmp_path):
    def future(arrays, header):
        header.clear()
        header["format_version"] = FORMAT_VERSION + 1
        for name in arrays.keys() - {"header"}:
            del arrays[name]

    assert f"has format version {FORMAT_VERSION + 1}" in refused(rewritten(saved, tmp_path / "g.npz", future))


@pytest.mark.parametrize(
    "change",
    [
        *(without(name) for name in ("header", "legacy", "reference", "lengths", "spread")),
        *(header_without(name) for name in ("format_version", "task", "given", "provenance", "coverage", "records")),
        lambda arrays, header: header["task"].pop("seed"),
        lambda arrays, header: header["task"].update(colour="red"),
        lambda arrays, header: header["task"].update(sizes=[[1, 2, 3]]),
        lambda arrays, header: header["task"].update(sizes=3),
        lambda arrays, header: header["records"][0].pop(),
        lambda arrays, header: header["records"].append([]),
        lambda arrays, header: header.update(records=None),
    ],
    ids=["no header", "no legacy", "no reference", "no lengths", "no spread", "no version", "no task", "no given",
         "no provenance", "no coverage", "no records", "no seed", "a field more", "size of three", "no sizes",
         "short row", "empty row", "null"],
)  # fmt: skip
def test_file_that_lacks_a_part_is_refused(saved, tmp_path, change):
    assert "is not a golden file or is damaged" in refused(rewritten(saved, tmp_path / "g.npz", change))


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, header: arrays.update(lengths=arrays["lengths"] + 1),
        lambda arrays, header: arrays.update(lengths=-arrays["lengths"]),
        lambda arrays, header: arrays.update(spread=arrays["spread"][:1]),
        lambda arrays, header: header["records"][2].__setitem__(-1, 99),
    ],
    ids=["lengths", "negative lengths", "one spread", "place behind the end"],
)
def test_file_whose_parts_do_not_fit_is_refused(saved, tmp_path, change):
    assert "is not a golden file or is damaged" in refused(rewritten(saved, tmp_path / "g.npz", change))


def test_missing_file_and_folder_are_input_errors(tmp_path):
    for path in (tmp_path / "missing.npz", tmp_path):
        with pytest.raises(golden.GoldenError, match="is not a file"):
            golden.load(path)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("sizes", [], "Sizes"),
        ("sizes", [[-64, 64]], "Sizes"),
        ("sizes", [["a", 64]], "Sizes"),
        ("sizes", [[10**9, 10**9]], "Sizes"),
        ("objects", [1, 2, 3], "Objects"),
        ("objects", [-1], "Objects"),
        ("seed", "x", "Seed"),
        ("seed", -1, "Seed"),
        ("checks", [], "Checks"),
        ("checks", ["walk"], "Checks"),
    ],
)
def test_task_that_cannot_be_run_is_refused(recorded, tmp_path, field, value, says):
    golden.save(recorded, tmp_path / "g.npz")

    def change(arrays, header):
        header["task"][field] = value

    assert says in refused(rewritten(tmp_path / "g.npz", tmp_path / "changed.npz", change))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0])
def test_rounding_error_that_is_no_number_is_refused(recorded, tmp_path, value):
    golden.save(recorded, tmp_path / "g.npz")

    def change(arrays, header):
        arrays["spread"][0, 0] = value

    assert "rounding errors" in refused(rewritten(tmp_path / "g.npz", tmp_path / "changed.npz", change))


def _wider(arrays, header):
    arrays["spread"][0] *= 100


def _other_value(arrays, header):
    arrays["legacy"] = np.concatenate([arrays["legacy"][:-1], [7.0]])


def _other_decision(arrays, header):
    arrays["decision/train/dense/0/keep"] = np.array([2, 0])


def _fewer_records(arrays, header):
    header["records"].pop()


@pytest.mark.parametrize(
    "change",
    [_wider, _other_value, _other_decision, _fewer_records, lambda arrays, header: header["coverage"].update(frozen=[]),
     lambda arrays, header: header["given"].update(weights="0" * 64), without("decision/train/dense/0/keep")],
    ids=["spread", "values", "decision", "records", "coverage", "weights", "no decision"],
)  # fmt: skip
def test_edited_file_is_refused(saved, tmp_path, change):
    assert "has been changed since it was recorded: its digest is" in refused(
        rewritten(saved, tmp_path / "g.npz", change, seal=False)
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [(without("decision/train/dense/0/keep"), "lacks the decision train/dense/0/keep, which it names"),
     (_other_decision, "holds another decision train/dense/0/keep than was recorded")],
    ids=["missing", "other"],
)  # fmt: skip
def test_decisions_that_do_not_fit_are_refused_though_the_seal_does(saved, tmp_path, change, says):
    assert says in refused(rewritten(saved, tmp_path / "g.npz", change))


def test_digest_is_that_of_the_content_and_can_be_asked_for(recorded, saved, tmp_path):
    back, again = golden.load(saved), golden.load(rewritten(saved, tmp_path / "wider.npz", _wider))
    assert len(back.seal) == 64 and back.seal == golden.save(recorded, tmp_path / "again.npz")
    assert again.seal != back.seal  # sealed anew by one who meant it
    for expected in (None, back.seal, back.seal[:12]):
        back.check_seal(saved, expected)
    with pytest.raises(golden.GoldenError, match=f"has the digest {again.seal}; expected {back.seal[:12]}"):
        again.check_seal(tmp_path / "wider.npz", back.seal[:12])


def near(trace_of, seed=9, size=1e-7):
    """Return records like ``trace_of`` whose computed floats are off by noise of this size."""
    return [
        replace(r, values=r.tensor + noise(*r.tensor.shape, seed=seed) * size)
        if r.tensor.is_floating_point() and r.kind in ("module_in", "module_out") and r.name != "odd"
        else r
        for r in trace_of
    ]


@pytest.mark.parametrize(
    ("new", "wide", "outcome"),
    [
        (RECORDS, RECORDS, MATCH),
        (near(RECORDS), RECORDS, MATCH),
        (near(RECORDS, size=1e-3), RECORDS, MISMATCH),
        (near(RECORDS), near(map(widened, RECORDS), size=1e-10), MISMATCH),
    ],
    ids=["same", "noise", "more", "more in float64"],
)
def test_new_side_is_judged_by_sketches(saved, tmp_path, new, wide, outcome):
    back = golden.load(saved)
    side = write_trace(tmp_path / "new", *new, leaf_calls={"neck": 2}, without_gradient=("a.weight",))
    twins = write_trace(tmp_path / "new64", *map(widened, wide))
    verdict = judge(back, side, SAME_NAMES, (), Tolerance("derived"), GoldenEvidence(back, side, twins))
    assert verdict.outcome == outcome, verdict.reasons


def test_decision_of_a_golden_file_is_judged_as_a_tie(saved, tmp_path):
    back = golden.load(saved)
    other = [replace(r, values=torch.tensor([0, 1])) if r.kind == "tap" and r.name == "dense" else r for r in RECORDS]
    side = write_trace(tmp_path / "new", *other, leaf_calls={"neck": 2}, without_gradient=("a.weight",))
    twins = write_trace(tmp_path / "new64", *map(widened, other))
    verdict = judge(back, side, SAME_NAMES, (), Tolerance("derived"), GoldenEvidence(back, side, twins))
    (rejected,) = (c for c in verdict.comparisons if not c.accepted)
    assert rejected.difference.note.startswith("no tie: score margin 0.25, error")
    # the file holds no scores of the legacy side, so its decision is tried on those of the new one
    (told,) = verdict.decisions
    assert [(trial.decision, trial.numbers) for trial in told.trials] == [("new", "new"), ("legacy", "new")]
    assert told.gaps == {} and told.allowance == "derived error" and not told.is_explained
    assert told.reading == "no tie" and told.worst.margin.value == 0.25


@pytest.mark.parametrize("in_float64", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("value", [NAN, INF, -INF], ids=str)
def test_one_element_of_a_large_gradient_that_is_not_finite_is_rejected(tmp_path, value, in_float64):
    # its code moves the sums of a sketch by 1 / 64, which is little beside half of the gradient's size
    gradient = Rec("grad", "fc.weight", noise(64, 64) * 100)
    broken = replace(gradient, values=gradient.tensor.clone())
    broken.tensor[7, 9] = value
    legacy = write_trace(tmp_path / "legacy", gradient)
    reference = write_trace(tmp_path / "reference", widened(gradient))
    spread = spreads([legacy], reference, Sketches().of)
    recorded = golden.distil(TASK, PREPARED, legacy, reference, spread, {}, Sketches())
    # as on another machine, the float32 values are not the very same bits, else float64 is not looked at
    nearly = replace(gradient, values=gradient.tensor * (1 + 2**-22))
    new = write_trace(tmp_path / "new", nearly if in_float64 else broken)
    twins = write_trace(tmp_path / "new64", widened(broken if in_float64 else gradient))
    verdict = judge(recorded, new, SAME_NAMES, (), Tolerance("derived"), GoldenEvidence(recorded, new, twins))
    assert verdict.outcome == MISMATCH
    assert "NaN or Inf in other places" in verdict.comparisons[0].difference.note


def test_records_whose_rounding_could_hide_an_error_are_known(recorded):
    assert [(record.kind, record.name) for record in loose_records(recorded)] == [("loss", "total")]
    steady = {key: replace(values, spread=Norms(1e-9, 1e-9)) for key, values in recorded.values.items()}
    assert loose_records(replace(recorded, values=steady)) == []


def test_padding_is_told_apart_and_comes_back(recorded, tmp_path):
    record = next(record for record in recorded.records if record.name == "head")  # [5, 60]
    places = torch.arange(5) < 3
    one, two = (sketch(noise(5, 60, seed=1)[which]) for which in (places, ~places))
    values = GoldenValues(torch.cat([one, two]), torch.cat([one, two]), Norms(0.5, 0.25, Norms(1e-9, 1e-10)))
    told = replace(recorded, values={**recorded.values, record.key: values}, places={record.key: places})
    golden.save(told, tmp_path / "padded.npz")
    back = golden.load(tmp_path / "padded.npz")
    assert back.values[record.key].spread == values.spread and torch.equal(back.places[record.key], places)
    assert record.name not in {one.name for one in loose_records(back)}
    assert record.name in {one.name for one in loose_records(replace(back, places={}))}
    sketches = Sketches(back.places)
    trace = write_trace(tmp_path / "new", *RECORDS)
    assert torch.equal(sketches.of(trace, record), values.legacy)
    assert sketches.places_of(record).tolist() == [True] * 32 + [False] * 32


def test_record_of_an_unknown_type_is_refused(saved, tmp_path):
    def change(arrays, header):
        header["records"][1][_COLUMNS.index("dtype")] = "F8"

    assert "has a record of dtype 'F8'" in refused(rewritten(saved, tmp_path / "g.npz", change))


@pytest.mark.parametrize("lacking", ["reference", "run"])
def test_a_record_that_another_run_lacks_is_told_with_what_to_try(tmp_path, lacking):
    """In float64, or in a run with other rounding, a decision may fall otherwise and leave fewer elements."""
    legacy = write_trace(tmp_path / "legacy", *RECORDS)
    fewer = [record for record in RECORDS if record.name != "odd"]
    reference = write_trace(tmp_path / "reference", *map(widened, fewer if lacking == "reference" else RECORDS))
    spread = spreads([legacy], reference, Sketches().of)
    if lacking == "run":
        spread = {key: errors for key, errors in spread.items() if key[2] != "odd"}
    instead = {"reference": "in float64", "run": "in that shape in float64"}[lacking]
    says = f"records train module_out odd#0 in float32 and not {instead}, .* record with another --seed, --size or"
    with pytest.raises(GoldenError, match=says):
        golden.distil(TASK, PREPARED, legacy, reference, spread, {}, Sketches())


def test_of_a_record_without_a_sketch_everything_is_as_near(recorded, tmp_path):
    records = Rec("module_out", "mask", [False, True]), Rec("module_in", "head", noise(5, 60), "feats")
    new = write_trace(tmp_path / "new", *records)
    legacy = {record.name: record for record in recorded.records}
    near = {one.name: GoldenEvidence(recorded, new, new).likeness(legacy[one.name], one) for one in new.records}
    assert near["mask"] == 0.0 < near["head"]
