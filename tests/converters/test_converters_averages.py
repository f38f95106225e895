"""Checkpoints with averaged weights, in every form in which trainings save them: what is taken, and what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from torch import Tensor

from converters.cli.main import cli
from converters.reading import averages
from tests.models import mapping as mapping_of

StateDict = dict[str, Tensor]
VARIANT = "tiny_r18"
MAPPING = mapping_of("ddq_detr", VARIANT)
BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _renamed(state: StateDict) -> StateDict:
    found = {MAPPING.target_of(key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in found.items() if key is not None}


def _plain(state: StateDict) -> StateDict:
    """Return a state dict without what training saves twice."""
    return {key: tensor for key, tensor in state.items() if not key.startswith("decoder.aux_reg_branches")}


def _parameters(state: StateDict) -> StateDict:
    return {key: tensor for key, tensor in _plain(state).items() if not key.endswith(BUFFERS)}


def _twice(state: StateDict) -> StateDict:
    """Add what training saves twice."""
    heads = {key: tensor for key, tensor in state.items() if key.startswith("bbox_head.aux_reg_branches")}
    return {**state, **{key.replace("bbox_head.", "decoder."): tensor for key, tensor in heads.items()}}


def _spelled(prefix: str, state: StateDict, dot: str = ".") -> StateDict:
    return {prefix + key.replace(".", dot): tensor for key, tensor in state.items()}


# How each form holds training weights `w` and averaged ones `a`, and where the averages stand.
FORMS: dict[str, tuple[Callable[[StateDict, StateDict], dict[str, Any]], str]] = {
    "timm": (lambda w, a: {"state_dict": w, "state_dict_ema": a, "epoch": 5}, "state_dict_ema"),
    "detr": (lambda w, a: {"model": w, "ema_model": a, "epoch": 5}, "ema_model"),
    "rt_detr": (lambda w, a: {"model": w, "ema": {"module": a, "updates": 7, "warmups": 2}}, "ema.module"),
    "efficient_teacher": (lambda w, a: {"model": w, "ema": a, "updates": 7}, "ema"),
    "d2": (lambda w, a: {"model": w, "ema_state": _spelled("module.", a)}, "ema_state"),
    "torch": (
        lambda w, a: {"model": w, "swa_model": {"n_averaged": torch.tensor(7), **_spelled("module.", a)}},
        "swa_model",
    ),
    "no_steps": (lambda w, a: {"state_dict": w, "ema_state_dict": _spelled("module.", a)}, "ema_state_dict"),
    "bare": (lambda w, a: {"state_dict": w, "ema_state_dict": a}, "ema_state_dict"),
    "a name with a dot": (lambda w, a: {"model": w, "ema.module": a, "epoch": 5}, "ema.module"),
    "a name with a dash": (lambda w, a: {"model": w, "model-EMA": a, "updates": float("nan")}, "model-EMA"),
    "yolox": (lambda w, a: {"model": w, "model_ema": {"ema_state_dict": a}}, "model_ema.ema_state_dict"),
    "compiled": (
        lambda w, a: {"state_dict": _spelled("_orig_mod.", w), "model_ema": _spelled("_orig_mod.", a)},
        "model_ema",
    ),
    "shadow": (lambda w, a: {"model": w, "ema": {"decay": 0.9, "shadow": _parameters(a)}}, "ema.shadow"),
    "lightning": (
        lambda w, a: {"state_dict": {**_spelled("model.", w), **_spelled("ema_model.", a)}},
        "state_dict.ema_model.*",
    ),
    "lit_ema": (
        lambda w, a: {
            "state_dict": {
                **_spelled("model.", w),
                **_spelled("model_ema.", _parameters(a), dot=""),
                "model_ema.num_updates": torch.tensor(7, dtype=torch.int32),
                "model_ema.decay": torch.tensor(0.9),
            }
        },
        "state_dict.model_ema.*",
    ),
    "mmcv": (
        lambda w, a: {"state_dict": {**w, **_twice(_parameters(a)), **_spelled("ema_", _parameters(w), dot="_")}},
        "state_dict",
    ),
    "mmengine": (
        lambda w, a: {
            "state_dict": {**w, **_plain(a)},
            "ema_state_dict": {"steps": torch.tensor(7), **_spelled("module.", _plain(w))},
        },
        "state_dict",
    ),
}
BUFFERS_OF_TRAINING = ("shadow", "lit_ema", "mmcv")  # average parameters alone
STEPS = ("rt_detr", "efficient_teacher", "torch", "lit_ema", "mmengine")  # tell how often


@pytest.fixture
def saved(tmp_path: Path, make_state: Callable[..., StateDict]) -> Callable[..., tuple[Path, StateDict, StateDict]]:
    """Return a function that saves a form and returns the file, the training and the averaged weights of the model."""

    def save(form: str, side: str = "legacy", **more: Any) -> tuple[Path, StateDict, StateDict]:
        weights = make_state(side, VARIANT, duplicates=side == "legacy")
        average = {
            key: tensor * 0.5 if tensor.is_floating_point() else tensor for key, tensor in _plain(weights).items()
        }
        path = tmp_path / f"{form}.pth"
        torch.save({**FORMS[form][0](weights, average), **more}, path)
        if form in BUFFERS_OF_TRAINING:
            average = {key: weights[key] if key.endswith(BUFFERS) else tensor for key, tensor in average.items()}
        return path, _plain(weights), average

    return save


SameBytes = Callable[[StateDict, StateDict], None]
Saved = Callable[..., tuple[Path, StateDict, StateDict]]


@pytest.mark.parametrize("form", FORMS)
def test_both_sets_of_every_form_are_written_as_mmengine_has_them(
    saved: Saved, tmp_path: Path, assert_same: SameBytes, form: str
) -> None:
    path, weights, average = saved(form)
    result = _run("convert", path, tmp_path / "new.pth", "--json")
    assert result.exit_code == 0, result.stderr
    made = torch.load(tmp_path / "new.pth", weights_only=True)
    assert_same(made["state_dict"], _renamed(average))
    ema = dict(made["ema_state_dict"])
    assert ema.pop("steps").item() == (7 if form in STEPS else 1)
    assert_same({key.removeprefix("module."): tensor for key, tensor in ema.items()}, _renamed(weights))
    sets = json.loads(result.stdout)["sets"]
    assert [held["name"] for held in sets] == ["averaged weights", "training weights"]
    assert sets[0]["place"] == FORMS[form][1] and [held["target"] for held in sets] == ["state_dict", "ema_state_dict"]
    assert [held["kept"] + held["renamed"] for held in sets] == [308, 308]
    assert sum(held["duplicates_dropped"] for held in sets) == 18
    verified = _run("verify", tmp_path / "new.pth", "--source", path)
    assert verified.exit_code == 0, verified.stderr


@pytest.mark.parametrize("keep", ["ema", "model", None])
@pytest.mark.parametrize("form", ["timm", "rt_detr", "lightning", "lit_ema", "mmcv", "mmengine"])
def test_one_set_and_which_is_said(
    saved: Saved, tmp_path: Path, assert_same: SameBytes, form: str, keep: str | None
) -> None:
    path, weights, average = saved(form)
    out = tmp_path / "new.safetensors"
    result = _run("convert", path, out, *(["--keep", keep] if keep else []))
    assert result.exit_code == 0, result.stderr
    assert_same(load_file(out), _renamed(weights if keep == "model" else average))
    taken, left = ("training", "averaged") if keep == "model" else ("averaged", "training")
    assert f"CONVERTED 308 tensors ({taken} weights of " in result.stdout
    repeated = (
        18 if FORMS[form][1] != "state_dict" and left == "training" or (form, left) == ("mmcv", "averaged") else 0
    )
    assert f"; {308 + repeated} {left} weights of " in result.stdout and ": left out -> " in result.stdout


@pytest.mark.parametrize("form", ["timm", "lit_ema", "mmengine"])
@pytest.mark.parametrize("keep", ["all", "ema", "model"])
def test_every_key_of_every_set_is_accounted_for(saved: Saved, tmp_path: Path, form: str, keep: str) -> None:
    path, _, _ = saved(form)
    out = tmp_path / "new.pth"
    lines = _run("convert", path, out, "--keep", keep, "-vv").stderr.splitlines()
    duplicates = [line for line in lines if line.startswith("drop_duplicate ")]
    assert len(duplicates) == (0 if (form, keep) in {("timm", "ema"), ("lit_ema", "ema")} else 18)
    keys = [line for line in lines if line.startswith(("keep ", "rename ", "left out ")) and ": " not in line]
    in_left_set = 326 if form != "mmengine" and keep == "ema" else 308
    assert len(keys) == 308 + in_left_set
    manifest = json.loads((tmp_path / "new.pth.manifest.json").read_text())
    left = {line["part"]: line["detail"] for line in manifest["carried"] if line["action"] == "left out"}
    if keep == "all":
        beside = [part for part in manifest["parts"] if part["path"].startswith("/ema_state_dict/module.")]
        assert len(beside) == 308 and all(part["source"] for part in beside)
    else:
        other = "averaged weights" if keep == "model" else "training weights"
        assert left[other].startswith(f"{in_left_set} of `")
    recorded = [line for line in manifest["left_out"] if line["action"] == "drop_duplicate"]
    assert len(recorded) == (18 if form == "mmengine" or keep == "model" else 0)


def test_dry_run_lists_both_sets(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("mmengine")
    lines = _run("convert", path, tmp_path / "new.pth", "--dry-run").stdout.splitlines()
    assert "averaged weights of state_dict -> state_dict" in lines
    assert "training weights of ema_state_dict -> ema_state_dict" in lines
    assert sum(line.startswith(("keep ", "rename ")) for line in lines) == 616
    assert sum(line.startswith("repeated ") for line in lines) == 18
    left = _run("convert", path, tmp_path / "new.pth", "--dry-run", "--keep", "ema").stdout.splitlines()
    assert sum(line.startswith("left out float32") or line.startswith("left out int64") for line in left) == 308
    assert not (tmp_path / "new.pth").exists()


@pytest.mark.parametrize(
    ("form", "weights", "duplicates"),
    [
        ("timm", "308 averaged weights in state_dict_ema; 308 training weights in state_dict",
         "18 against the training weights: all equal to their twins"),
        ("mmcv", "308 averaged weights in state_dict; 308 training weights in state_dict.ema_*",
         "18 against the averaged weights: all equal to their twins"),
        ("mmengine", "308 averaged weights in state_dict; 308 training weights in ema_state_dict",
         "18 against the averaged weights: 18 differ, first decoder.aux_reg_branches.0.0.bias; 18 against the training "
         "weights: all equal to their twins"),
    ],
)  # fmt: skip
def test_inspect_tells_both_sets_and_duplicates_of_each(saved: Saved, form: str, weights: str, duplicates: str) -> None:
    path, _, _ = saved(form)
    text = " ".join(_run("inspect", path).stdout.split())
    assert f"weights {weights}" in text and f"duplicates {duplicates}" in text


@pytest.mark.parametrize("form", ["timm", "rt_detr", "lightning", "mmengine"])
@pytest.mark.parametrize("keep", ["ema", "model"])
def test_diff_compares_the_set_that_was_taken_and_says_which(
    saved: Saved, tmp_path: Path, form: str, keep: str
) -> None:
    path, _, _ = saved(form)
    _run("convert", path, tmp_path / "new.safetensors", "--keep", keep)
    for a, b in ((path, tmp_path / "new.safetensors"), (tmp_path / "new.safetensors", path)):
        result = _run("diff", a, b)
        assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "EQUAL 308 tensors"
        text = " ".join(result.stdout.split())
        taken, left = ("averaged", "training") if keep == "ema" else ("training", "averaged")
        assert f"weights {taken} weights in " in text and f"not compared {left} weights in " in text
        dropped = form == "mmengine" or keep == "model"
        assert ("18 duplicates in" in text) == dropped
        if form == "mmengine":
            assert "equal to their twins among the training weights in ema_state_dict" in text


@pytest.mark.parametrize("form", FORMS)
def test_diff_of_both_sets(saved: Saved, tmp_path: Path, form: str) -> None:
    path, _, _ = saved(form)
    _run("convert", path, tmp_path / "new.pth")
    result = _run("diff", path, tmp_path / "new.pth")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "EQUAL 616 tensors", result.stdout


@pytest.mark.parametrize("form", ["timm", "lit_ema", "mmengine"])
def test_inspect_counts_numbers_that_are_not_finite_in_both_sets(saved: Saved, tmp_path: Path, form: str) -> None:
    path, _, _ = saved(form)
    content = torch.load(path, weights_only=True)
    at, key = {
        "timm": ("state_dict_ema", "query_map.bias"),
        "lit_ema": ("state_dict", "model_ema.query_mapbias"),
        "mmengine": ("ema_state_dict", "module.query_map.bias"),
    }[form]
    content[at][key] = content[at][key] * float("nan")
    torch.save(content, path)
    named = key if at == "state_dict" else f"{at}.{key}"
    assert list(json.loads(_run("inspect", path, "--json").stdout)["not_finite"]) == [named]


def test_a_ready_file_with_nan_in_its_training_weights_says_so(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("mmengine", side="new")
    content = torch.load(path, weights_only=True)
    content["ema_state_dict"]["module.query_map.bias"] *= float("nan")
    torch.save(content, path)
    result = _run("convert", path, tmp_path / "o.pth")
    assert result.exit_code == 2 and "`ema_state_dict.module.query_map.bias` (" in result.stderr, result.output


def test_diff_finds_a_change_in_either_set(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("timm")
    content = torch.load(path, weights_only=True)
    content["state_dict_ema"]["level_embed"] = content["state_dict_ema"]["level_embed"] + 1
    content["state_dict"]["query_map.bias"] = content["state_dict"]["query_map.bias"] + 1
    torch.save(content, tmp_path / "b.pth")
    result = _run("diff", path, tmp_path / "b.pth")
    assert result.exit_code == 1 and result.stdout.splitlines()[-1] == "DIFFERENT 2 of 616 tensors"
    assert "  state_dict_ema.level_embed" in result.stdout and "  query_map.bias" in result.stdout


def test_names_that_begin_like_averages_are_weights_where_few_have_a_twin() -> None:
    """A gate of a model may be called so, too."""
    weights = {"ema_gate.weight": 1, "ema_gate.bias": 2, "ema_model.head.weight": 3, "head.weight": 4}
    assert averages.split(weights) == (weights, {})
    assert averages.split({"ema_model.head.weight": 3, "head.weight": 4}) == (
        {"head.weight": 4},
        {"ema_model.head.weight": 3},
    )


class Whole:
    """Stands for a module that is pickled as a whole."""


@pytest.mark.parametrize(
    ("ema", "message"),
    [
        (Whole(), "`ema` is called like averaged weights, but is an object of"),
        ({"decay": 0.9}, "`ema` is called like averaged weights, but is a dict with 0 tensors, of which too few"),
        ({"other.weight": torch.ones(1)}, "`ema` is called like averaged weights, but is a dict with 1 tensors"),
        (0.9, "`ema` is called like averaged weights, but is of type float"),
    ],
)
def test_what_is_called_an_average_and_is_none_is_said(
    tmp_path: Path, make_state: Callable[..., StateDict], ema: Any, message: str
) -> None:
    torch.save({"state_dict": make_state(), "ema": ema}, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "new.pth")
    assert result.exit_code == 0 and message in " ".join(result.stderr.split())
    assert message in " ".join(_run("inspect", tmp_path / "a.pth").stdout.split())
    refused = _run("convert", tmp_path / "a.pth", tmp_path / "b.pth", "--keep", "ema")
    assert refused.exit_code == 1 and refused.stderr.count("\n") == 1
    assert "The source holds no averaged weights" in refused.stderr and message in refused.stderr


@pytest.mark.parametrize("form", ["timm", "rt_detr"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda held: held.update({"extra.weight": torch.ones(1)}), "have no twin in the weights of training"),
        (lambda held: held.pop("level_embed"), "missing from the result: `level_embed`"),
        (lambda held: held.update(level_embed=torch.ones(2)), "level_embed (expected [4, 64], found [2])"),
    ],
)
def test_average_of_another_model_is_refused_and_the_training_weights_can_be_had(
    saved: Saved, tmp_path: Path, form: str, change: Callable[[StateDict], None], message: str
) -> None:
    path, _, _ = saved(form)
    content = torch.load(path, weights_only=True)
    held = content["state_dict_ema"] if form == "timm" else content["ema"]["module"]
    change(held)
    torch.save(content, path)
    result = _run("convert", path, tmp_path / "new.pth")
    assert result.exit_code == 1 and message in result.stderr and result.stderr.count("\n") == 1
    assert not (tmp_path / "new.pth").exists()
    assert _run("convert", path, tmp_path / "new.pth", "--keep", "model").exit_code == 0


def test_an_average_that_cannot_be_used_is_told_by_those_who_only_look(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("timm")
    content = torch.load(path, weights_only=True)
    content["state_dict_ema"]["extra.weight"] = torch.ones(1)
    torch.save(content, path)
    for command, counted in ((["inspect", path], "tensors 326 "), (["diff", path, path], "EQUAL 308 tensors")):
        result = _run(*command)
        said = " ".join(result.output.split())
        assert result.exit_code == 0 and counted in said, said
        assert "1 key(s) of the averaged weights in `state_dict_ema` have no twin in the weights of training" in said


def test_training_weights_that_do_not_fit_are_told_by_their_place(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("mmengine")
    content = torch.load(path, weights_only=True)
    content["ema_state_dict"]["module.level_embed"] = torch.ones(2)
    torch.save(content, path)
    result = _run("convert", path, tmp_path / "new.pth")
    assert result.exit_code == 1 and result.stderr.count("\n") == 1
    assert "The training weights, which stand in `ema_state_dict`, do not fit: " in result.stderr
    assert _run("convert", path, tmp_path / "new.pth", "--keep", "ema").exit_code == 0


@pytest.mark.parametrize(
    ("more", "steps"),
    [
        ({"meta": {"iter": 90}}, 90),
        ({"global_step": 91}, 91),
        ({"ema_updates": 92}, 92),
        ({"ema_updates": torch.tensor(93)}, 93),
        ({"ema_updates": torch.tensor([94, 95]), "global_step": 91}, 91),
        ({"ema_updates": torch.tensor(96.0).double()}, None),
        ({}, None),
    ],
)
def test_a_training_is_resumed_with_the_count_of_its_average_or_refused(
    saved: Saved, tmp_path: Path, more: dict[str, Any], steps: int | None
) -> None:
    groups = [{"lr": 1e-4, "params": []}]
    path, _, _ = saved("timm", side="new", optimizer={"state": {}, "param_groups": groups}, **more)
    result = _run("convert", path, tmp_path / "new.pth")
    if steps is None:
        assert result.exit_code == 1 and "does not say how often its average in `state_dict_ema` was" in result.stderr
        for keep in ("ema", "model"):  # which the message names
            assert _run("convert", path, tmp_path / f"{keep}.pth", "--keep", keep).exit_code == 0
    else:
        assert result.exit_code == 0, result.stderr
        made = torch.load(tmp_path / "new.pth", weights_only=True)
        assert made["ema_state_dict"]["steps"].item() == steps


@pytest.mark.parametrize("place", [("ema", "module"), ("ema_model",), ("state_dict_ema",)])
def test_averages_alone_are_called_so(
    tmp_path: Path, make_state: Callable[..., StateDict], assert_same: SameBytes, place: tuple[str, ...]
) -> None:
    content: Any = make_state()
    for name in reversed(place):
        content = {name: content}
    torch.save({**content, "epoch": 3}, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "new.pth", "--keep", "ema")
    assert result.exit_code == 0, result.stderr
    assert f"CONVERTED 308 tensors (averaged weights of {'.'.join(place)}): " in result.stdout
    assert_same(torch.load(tmp_path / "new.pth", weights_only=True)["state_dict"], _renamed(make_state()))
    for out in ("all.pth", "weights.safetensors"):
        assert "(averaged weights of " in _run("convert", tmp_path / "a.pth", tmp_path / out).stdout
    refused = _run("convert", tmp_path / "a.pth", tmp_path / "b.pth", "--keep", "model")
    assert refused.exit_code == 1 and "holds averaged weights alone" in refused.stderr
    assert f"308 averaged weights in {'.'.join(place)}" in " ".join(_run("inspect", tmp_path / "a.pth").stdout.split())


@pytest.mark.parametrize("counter", ["n_averaged", "steps"])
def test_the_state_of_an_averaged_model_alone(
    tmp_path: Path, make_state: Callable[..., StateDict], counter: str
) -> None:
    torch.save({counter: torch.tensor(7), **_spelled("module.", make_state())}, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "new.pth", "--keep", "ema")
    assert result.exit_code == 0 and "308 tensors (averaged weights of its top level)" in result.stdout, result.output


def test_of_several_averages_one_is_taken_and_said(saved: Saved, tmp_path: Path, assert_same: SameBytes) -> None:
    path, weights, average = saved("timm")
    torch.save({**torch.load(path, weights_only=True), "swa_model": weights}, path)
    result = _run("convert", path, tmp_path / "new.safetensors")
    note = "`swa_model` holds averaged weights, too; those in `state_dict_ema` are taken, and `swa_model` is not"
    assert f"{note} converted." in " ".join(result.stderr.split())
    assert_same(load_file(tmp_path / "new.safetensors"), _renamed(average))


def test_a_compiled_model_of_mmengine(saved: Saved, tmp_path: Path, assert_same: SameBytes) -> None:
    path, weights, average = saved("mmengine")
    content = torch.load(path, weights_only=True)
    ema = content["ema_state_dict"]
    content["state_dict"] = _spelled("_orig_mod.", content["state_dict"])
    content["ema_state_dict"] = {key.replace("module.", "module._orig_mod.", 1): value for key, value in ema.items()}
    torch.save(content, path)
    for keep, expected in (("ema", average), ("model", weights)):
        out = tmp_path / f"{keep}.safetensors"
        assert _run("convert", path, out, "--keep", keep).exit_code == 0
        assert_same(load_file(out), _renamed(expected))


def test_averages_of_mmcv_may_be_the_other_way_round_and_that_is_said(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("mmcv")
    text = " ".join(_run("convert", path, tmp_path / "new.pth").stderr.split())
    assert "if the hook ran before the saving" in text and "--keep model takes the averaged ones" in text


def test_duplicates_that_differ_from_training_are_refused_whichever_set_is_kept(saved: Saved, tmp_path: Path) -> None:
    path, _, _ = saved("mmengine")
    content = torch.load(path, weights_only=True)
    key = "decoder.aux_reg_branches.0.0.bias"
    content["state_dict"][key] = content["state_dict"][key] + 1
    torch.save(content, path)
    for keep in ("all", "ema", "model"):
        result = _run("convert", path, tmp_path / "new.pth", "--keep", keep)
        assert result.exit_code == 1 and f"Key `{key}` should repeat" in result.stderr
