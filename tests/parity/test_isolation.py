"""Isolation names every place that computes something else by itself."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import save_file

from parity.cli.main import cli
from parity.comparing.pairing import LEGACY, NEW, pair
from parity.runs.isolate import RunFolder, _isolable
from parity.sides.sides import DECISIONS
from parity.traces.trace import Trace, decisions
from parity.verdict.isolation import write_forcing
from parity.verdict.verdict import judge, with_isolation
from tests.faults.fault import DETECTOR, VARIABLE
from tests.models import exclusions as exclusions_of
from tests.models import mapping as mapping_of

ADAPTER = Path(__file__).parents[1] / "faults" / "adapter.py"

#: Faults that are planted together, and their places.
BOTH, TWO = "eps_layer_norm+gradient_doubled", ["decoder.norm", "encoder.layers.1.ffn"]


def places(result):
    return [place["where"] for place in json.loads(result.stdout)["isolated"]]


def isolated(tiny, *arguments, adapter=None, sizes="64x96,96x64"):
    new = ("--new-adapter", adapter, "--check", "forward,grad") if adapter else ()
    return tiny("--isolate", "--threads", "1", *new, *arguments, "--json", sizes=sizes)


def test_right_port_has_no_place(tiny):
    result = isolated(tiny)
    assert result.exit_code == 0 and places(result) == []


@pytest.mark.parametrize("check", ["loss", "grad"])
def test_beside_steps_of_a_training_the_rest_is_isolated(tiny, check):
    result = isolated(tiny, "--check", f"train,{check}", "--steps", "1", sizes="64x64")
    told = json.loads(result.stdout)
    assert result.exit_code == 0 and told["isolated"] == told["isolated_reasons"] == []


def test_two_errors_are_seen_apart_and_nothing_else_is_named(tiny, tmp_path, planted):
    arguments = ("--isolate", "--threads", "1", "--new-adapter", planted(BOTH), "--out", tmp_path / "run")
    result = tiny("--check", "forward,grad", *arguments, sizes="64x96,96x64")
    assert result.exit_code == 1
    verdict = json.loads((tmp_path / "run" / "report.json").read_text())
    assert [place["where"] for place in verdict["isolated"]] == TWO
    assert len(verdict["differing"]) > 1000 > sum(place["records"] for place in verdict["isolated"])
    first = verdict["isolated"][0]
    assert first["alone"]["max_abs"] == first["accumulated"]["max_abs"] > 0
    lines = result.stdout.splitlines()
    assert any(line.split()[:4] == ["stage", "records", "equal", "alone"] for line in lines)
    assert "isolated: 2 places differ by themselves, given equal inputs" in lines
    assert max(map(len, lines[:-1])) <= 80


def test_under_derived_tolerance_two_errors_are_seen_apart(tiny, planted):
    result = isolated(tiny, "--tolerance", "derived", adapter=planted(BOTH))
    assert result.exit_code == 1 and places(result) == TWO


@pytest.mark.parametrize(
    ("error", "where"), [("swapped_aux_branch", ["decoder"]), ("ascending_dense", ["the detector"])]
)
def test_code_between_modules_is_named(tiny, planted, error, where):
    assert places(isolated(tiny, adapter=planted(error))) == where


#: Faults of the fault suite, planted together, and the places they are planted in.
SEVERAL = {
    "eps_layer_norm": ["decoder.norm"],
    "activation_feed_forward": ["encoder.layers.0.ffn.layers.0.1"],
    "box_loss_weight": ["bbox_head.loss_bbox"],
    "term_scaled": ["bbox_head"],
    "three_positives": ["bbox_head.aux_loss_for_dense"],
    "total_without_denoising": ["total"],
    "proposal_size": [DETECTOR],
    "mask_row_2": ["decoder"],
    "gradient_of_box_loss_doubled_by_head": ["bbox_head"],
    "total_without_denoising+background_in_normaliser": ["bbox_head", "total"],
    "eps_layer_norm+gradient_doubled": ["decoder.norm", "encoder.layers.1.ffn"],
    "fewer_detections+threshold_of_selection": [DETECTOR, "bbox_head"],
    "labels_from_one+swapped_norms_encoder": ["encoder.layers.0", "bbox_head"],
    "eps_layer_norm+gradient_doubled+quality_beta": [
        "decoder.norm", "bbox_head.aux_loss_for_dense.loss_cls", "encoder.layers.1.ffn",
    ],
    "activation_backbone+box_loss_weight+swapped_aux_branch": ["backbone.relu", "decoder", "bbox_head.loss_bbox"],
}  # fmt: skip


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return a function that runs the port with planted faults in isolation and gives the places found."""
    folder = tmp_path_factory.mktemp("isolation") / "run"
    arguments = ("--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", "64x96", "--threads", "1")
    run = CliRunner().invoke(cli, ["run", *arguments, "--check", "forward,grad", "--out", str(folder)])
    assert run.exit_code == 0
    kept, legacy = RunFolder.load(folder), Trace.load(folder / LEGACY)
    mapping = mapping_of("mmdet_ddq", "tiny_4scale")
    save_file(decisions(legacy), str(folder / DECISIONS))
    keys = pair(legacy.records, Trace.load(folder / NEW).records, mapping, ()).keys
    force = write_forcing(folder / "forced.json", legacy, keys)

    def places_with(faults):
        job = dict(adapter=str(ADAPTER), force=force, replay=str(folder / DECISIONS), checks=kept.isolable(NEW))
        trace = kept.run_new(faults.replace("+", "_"), NEW, **job)
        verdict = judge(_isolable(legacy), trace, mapping, exclusions_of("mmdet_ddq"), kept.tolerance, None, keys)
        return with_isolation(verdict, verdict, legacy.records, trace.coverage["forced"]).isolation.culprits

    return places_with


@pytest.mark.parametrize(("faults", "where"), SEVERAL.items(), ids=SEVERAL)
def test_as_many_places_as_faults(alone, monkeypatch, faults, where):
    monkeypatch.setenv(VARIABLE, faults)
    assert [place.where for place in alone(faults)] == where


def test_what_follows_is_told_with_its_place(alone, monkeypatch):
    monkeypatch.setenv(VARIABLE, "box_loss_weight")
    (place,) = alone("box_loss_weight")
    assert "bbox_head" in place.follows
