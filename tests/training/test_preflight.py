"""The check before a training: when there is one, what it accepts, what it refuses."""

import hashlib
import json
import sys

import pytest

from ddq_port import configs
from ddq_port.training.checks import preflight
from ddq_port.training.checks.preflight import NotRecordedError, PreflightError

VERDICT = dict(verdict="MATCH", summary="MATCH 7 of 7 records bit-identical")


def child(tmp_path, output="", exit_code=0, message=""):
    """Return a command that does what a run of ddq-parity would do, and keeps its arguments and environment."""
    script = tmp_path / "parity.py"
    script.write_text(
        "import json, os, sys\n"
        f"json.dump([sys.argv[1:], dict(os.environ)], open({str(tmp_path / 'given.json')!r}, 'w'))\n"
        f"print({output!r}); print({message!r}, file=sys.stderr); sys.exit({exit_code})\n"
    )
    return sys.executable, str(script)


@pytest.fixture
def golden(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"recorded")
    return path


@pytest.mark.parametrize("variant", configs.VARIANTS)
def test_each_variant_has_recorded_numbers_of_its_kind(variant):
    plan = preflight.plan(configs.load(configs.VARIANTS[variant]).model, None)
    kind = "swinl" if "swin" in variant else "5scale" if "5scale" in variant else "4scale"
    assert plan.golden.is_file() and plan.golden.name == f"tiny_{kind}.npz"
    assert plan.text.startswith("preflight on: ddq_detr")


def test_off_where_it_is_not_wanted():
    plan = preflight.plan(configs.load("ddq-detr-4scale_tiny").model, False)
    assert plan == preflight.Plan(None, "preflight off: --no-preflight")


def test_off_for_other_models_unless_asked_for():
    plan = preflight.plan(dict(type="FasterRCNN"), None)
    assert plan.golden is None and plan.text.startswith("preflight off: FasterRCNN is of no family")
    with pytest.raises(NotRecordedError, match="--preflight: FasterRCNN is of no family"):
        preflight.plan(dict(type="FasterRCNN"), True)


def test_a_match_is_kept_under_its_digest(tmp_path, golden, monkeypatch):
    monkeypatch.setenv("DDQ_PARITY_CHECK_NEW_ADAPTER", "another.py")
    monkeypatch.setenv("RANK", "0")
    passed = preflight.run(golden, "cpu", child(tmp_path, json.dumps(VERDICT)))
    arguments, environment = json.loads((tmp_path / "given.json").read_text())
    assert arguments[:4] == ["check", str(golden), "--device", "cpu"] and "--json" in arguments
    assert "DDQ_PARITY_CHECK_NEW_ADAPTER" not in environment and "RANK" not in environment
    path = passed.write(tmp_path)
    content = path.read_bytes()
    assert passed.sha256 == hashlib.sha256(content).hexdigest() and path.name == f"preflight-{passed.sha256[:12]}.json"
    kept = json.loads(content)
    assert kept["verdict"] == VERDICT and kept["preflight"]["device"] == "cpu"
    assert kept["preflight"]["golden_sha256"] == hashlib.sha256(b"recorded").hexdigest()
    assert passed.write(tmp_path) == path and len(list(tmp_path.glob("*preflight-*"))) == 1


@pytest.mark.parametrize("exit_code, verdict", [(1, "MISMATCH"), (3, "INCOMPARABLE")])
def test_anything_but_a_match_ends_it(tmp_path, golden, exit_code, verdict):
    output = json.dumps(dict(verdict=verdict, summary=f"{verdict} at decoder.norm."))
    with pytest.raises(PreflightError, match=rf"{verdict} at decoder.norm. Nothing was trained; --no-preflight"):
        preflight.run(golden, "cuda:1", child(tmp_path, output, exit_code))


@pytest.mark.parametrize("output", ["", "[]", "{}", "not json"])
@pytest.mark.parametrize("exit_code", [0, 4])
def test_no_verdict_ends_it(tmp_path, golden, output, exit_code):
    with pytest.raises(PreflightError, match=rf"no verdict \(exit code {exit_code}\): the side crashed"):
        preflight.run(golden, "cpu", child(tmp_path, output, exit_code, "one\nthe side crashed"))
