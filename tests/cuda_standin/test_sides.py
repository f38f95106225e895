"""Every variant of both sides runs on tensors that call themselves ``cuda:0``; the port waits no more than it did."""

import os

import pytest

from ddq_port import configs
from legacy_adapters.targets import ddq_detr

from .conftest import child

REPO = os.environ.get("DDQ_LEGACY_REPO", "")
TINY = [name for name in configs.VARIANTS if name.startswith("tiny")]
STAGES = ["predict", "unscaled", "tensor", "loss", "backward", "training step"]
SIDES = [
    "ddq_port",
    "mmdet_ddq",
    pytest.param("ddq_detr", marks=pytest.mark.skipif(not REPO, reason="DDQ_LEGACY_REPO is not set")),
]


@pytest.mark.parametrize("side", SIDES)
def test_no_variant_mixes_devices(side):
    repo = ["--legacy-repo", REPO] if REPO else []
    lines = child("tools.cuda_standin", side, *repo, "--variant", *TINY)
    assert [line.get("refused") for line in lines if "refused" in line] == []
    assert [(line["variant"], line["stage"]) for line in lines] == [(name, stage) for name in TINY for stage in STAGES]


def test_what_is_refused_ends_a_variant(tmp_path):
    adapter = tmp_path / "adapter.py"
    adapter.write_text(
        "from parity.adapters.ddq_port import *\n"
        "import torch\n"
        "def losses(model, batch):\n"
        "    return {}, batch.images.sum() + torch.ones(1)\n"
    )
    arguments = ("ddq_port", "--new-adapter", adapter, "--variant", "tiny_4scale", "--images", 1)
    *before, last = child("tools.cuda_standin", *arguments, exit_code=1)
    assert [line["stage"] for line in before] == STAGES[:3]
    assert f"{adapter}:4 losses: aten.add" in last["refused"]


#: Number of images -> stage -> kind -> how often the port waits, with 3 objects, none and 12 in turns.
WAITS: dict[int, dict[str, dict[str, int]]] = {
    1: {
        "predict": {"item": 24, "nonzero": 6, "copy to the CPU": 5, "copy to the GPU": 4, "equal": 3},
        "loss": {"copy to the GPU": 77, "item": 66, "nonzero": 25, "copy to the CPU": 13, "unique": 8, "equal": 3},
    },
    2: {
        "predict": {"item": 42, "nonzero": 12, "equal": 6, "copy to the CPU": 5, "copy to the GPU": 4},
        "loss": {"copy to the GPU": 92, "item": 86, "nonzero": 49, "unique": 16, "copy to the CPU": 13, "equal": 6},
    },
    4: {
        "predict": {"item": 48, "nonzero": 24, "equal": 12, "copy to the CPU": 5, "copy to the GPU": 4},
        "loss": {"copy to the GPU": 196, "item": 104, "nonzero": 97, "unique": 32, "copy to the CPU": 29, "equal": 12},
    },
}


def test_the_port_waits_no_more_than_it_did():
    images = tuple(map(str, WAITS))
    lines = child("tools.cuda_standin", "ddq_port", "--variant", "tiny_4scale", "--no-gradients", "--images", *images)
    for line in lines:
        recorded = WAITS[line["images"]][line["stage"]]
        # how many steps an NMS takes follows from boxes, whose last bits are a property of the machine
        steps = line["kinds"].pop("equal", 0)
        assert {kind: count for kind, count in line["kinds"].items() if count > recorded.get(kind, 0)} == {}
        assert steps <= 2 * recorded["equal"]


FAST = ddq_detr.LAYOUTS.parent / "fast.py"


def test_fast_numerics_wait_as_often_for_any_number_of_images():
    arguments = ("ddq_port", "--new-adapter", FAST, "--variant", "tiny_4scale", "--no-gradients", "--images", 1, 4)
    lines = child("tools.cuda_standin", *arguments)
    # the distinct tokens; flags and numbers of detections, or costs; how many labels are noisy; the matching; the log
    kinds = {
        "predict": {"copy to the CPU": 2},
        "loss": {"copy to the CPU": 3, "nonzero": 1, "copy to the GPU": 1},
    }
    assert [(line["stage"], line["kinds"]) for line in lines] == 2 * list(kinds.items())


def test_fast_numerics_mix_no_devices():
    lines = child("tools.cuda_standin", "ddq_port", "--new-adapter", FAST, "--variant", "tiny_4scale", "--images", 2)
    assert [line["stage"] for line in lines] == STAGES


def test_a_whole_iteration_of_the_runner_waits_as_often_for_any_number_of_layers():
    two, four = child("tools.cuda_standin.iteration", "--variant", "tiny_r18", "--layers", 2, 4)
    # a selection that finds too few among the tokens it looks at first asks once more
    further = "copy to the CPU, ddq_port/models/ddq_detr/fast/distinct.py"
    counts = [
        {place: count for place, count in told["places"].items() if not place.startswith(further)} for told in (two, four)
    ]
    assert counts[0] == counts[1] and max(two["waits"], four["waits"]) <= 20
