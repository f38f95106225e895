"""What whole trainings of both sides share: draws and data as functions of the step, the log of steps, trust."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader

from legacy_adapters import shims
from legacy_adapters.job import Job
from legacy_adapters.whole import draws, own_files, steplog
from legacy_adapters.whole.given import merge_settings
from legacy_adapters.whole.request import TRAIN, WholeTraining, from_plain

STEP = steplog.Step(1, (3,), "p", "o", ("0x1p-3",), "b", {"a": "0x1p+0"}, None, "0x1p+1", "c")


class Shuffled:
    """A sampler as mmengine's: the order follows from the epoch."""

    epoch = 0

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        return iter(np.random.RandomState(self.epoch).permutation(7).tolist())

    def __len__(self):
        return 7


class Augmented:
    """Images with a random number each."""

    def __getitem__(self, index):
        return index, float(np.random.rand()), float(torch.rand(()))

    def __len__(self):
        return 7


def loader(workers=0):
    batches = BatchSampler(Shuffled(), 2, False)
    return DataLoader(Augmented(), batch_sampler=batches, num_workers=workers, collate_fn=list)


def batches(first, last, seed=5, workers=0):
    at = [first]
    stream = draws.Stream(loader(workers), seed, lambda: at[0])
    taken = []
    while at[0] < last:
        taken.append(next(stream))
        at[0] += 1
    return taken


def test_a_stream_that_begins_later_gives_the_same_batches():
    whole = batches(0, 10)
    assert batches(6, 10) == whole[6:]
    assert whole[0] != whole[4]  # another pass, another augmentation
    assert batches(0, 4, seed=6) != whole[:4]


def test_a_stream_keeps_the_order_of_the_sampler():
    ids = [item[0] for batch in batches(0, 8) for item in batch]
    assert ids == [*np.random.RandomState(0).permutation(7), *np.random.RandomState(1).permutation(7)]


def test_workers_change_nothing():
    assert batches(1, 6, workers=2) == batches(1, 6)


def test_a_batch_comes_again_until_its_step_is_done_and_the_models_draws_are_left_alone():
    stream = draws.Stream(loader(), 5, lambda: 3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert next(stream) == next(stream) == batches(3, 4)[0]
    assert torch.equal(torch.get_rng_state(), before)


def test_draws_follow_from_their_key():
    def drawn(*key):
        draws.seed_all(*key)
        return float(torch.rand(())), float(np.random.rand())

    assert drawn(1, 2) == drawn(1, 2) != drawn(1, 3)


def test_a_log_that_goes_on_drops_what_comes_after_its_checkpoint(tmp_path):
    path = str(tmp_path / "steps.jsonl")
    log = steplog.StepLog(path, 0)
    for number in (1, 2, 3):
        log.add(replace(STEP, step=number))
    log.close()
    with open(path, "a") as file:
        file.write('{"step": 4, "ima')  # cut by a kill
    assert steplog.count(path) == 3
    again = steplog.StepLog(path, 2)
    again.add(replace(STEP, step=3, pixels="other"))
    again.close()
    assert [(step.step, step.pixels) for step in steplog.read(path)] == [(1, "p"), (2, "p"), (3, "other")]


def test_a_digest_of_weights_depends_on_values_alone():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    other.load_state_dict(one.state_dict())
    first, second = torch.nn.Sequential(one), torch.nn.ModuleDict(dict(a=other, b=other))
    assert steplog.digest_of_weights(first) == steplog.digest_of_weights(second)
    with torch.no_grad():
        other.bias[0] = torch.nextafter(other.bias[0], torch.tensor(9.0))
    assert steplog.digest_of_weights(first) != steplog.digest_of_weights(second)


def test_only_checkpoints_that_were_noted_and_are_unchanged_are_own(tmp_path):
    for name in ("iter_1.pth", "iter_2.pth", "foreign.pth"):
        (tmp_path / name).write_bytes(name.encode())
    assert own_files.newest(str(tmp_path)) is None
    own_files.note(str(tmp_path), str(tmp_path / "iter_1.pth"))
    own_files.note(str(tmp_path), str(tmp_path / "iter_2.pth"))
    assert own_files.newest(str(tmp_path)) == str(tmp_path / "iter_2.pth")
    (tmp_path / "iter_2.pth").write_bytes(b"other")
    assert own_files.newest(str(tmp_path)) == str(tmp_path / "iter_1.pth")


class Planted:
    """An object that a pickle makes by a call."""

    def __reduce__(self):
        return list, ((1, 2),)


def test_a_pickle_is_executed_for_the_trusted_file_alone(tmp_path):
    trusted, other = tmp_path / "a.pth", tmp_path / "b.pth"
    for path in (trusted, other):
        torch.save(Planted(), path)
    with shims.pickles_loaded(str(trusted)):
        assert torch.load(str(trusted)) == [1, 2]
        with pytest.raises(pickle.UnpicklingError):
            torch.load(str(other))
    with pytest.raises(pickle.UnpicklingError):
        torch.load(str(trusted))


def test_a_request_survives_a_job_file(tmp_path):
    from dataclasses import asdict

    request = WholeTraining({"repo": "r"}, "w", ("a", "b"), ("c", "d"), seed=3, settings=("x=1",))
    job = Job(
        "f", "v", "a.py", {}, "", "", "", "s", (), 0, 1, None, "cpu", whole=dict(kind=TRAIN, request=asdict(request))
    )
    job.save(str(tmp_path / "job.json"))
    read = Job.load(str(tmp_path / "job.json"))
    assert from_plain(read.whole["kind"], read.whole["request"]) == request


def test_settings_are_merged_as_scripts_of_mmdetection_do():
    from mmengine.config import Config, DictAction

    config = Config(dict(a=dict(b=1), schedules=[dict(end=1), dict(end=2)]))
    merge_settings(config, ("a.b=2", "schedules.1.end=7"), DictAction)
    assert (config.a.b, config.schedules[1].end) == (2, 7)
    merge_settings(config, (), DictAction)


def test_yapf_takes_verify_again(monkeypatch):
    from yapf.yapflib import yapf_api

    monkeypatch.setattr(yapf_api, "FormatCode", lambda text, style_config=None: (text, True))
    assert shims._yapf() == ["yapf FormatCode(verify)"]
    assert yapf_api.FormatCode("a", style_config="pep8", verify=True) == ("a", True)
    assert shims._yapf() == []
