"""Everything beside the weights: averaged weights, optimizer, schedules, message hub, metadata."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file
from torch import Tensor

from converters.cli.main import cli
from converters.formats import plain
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of

StateDict = dict[str, Tensor]
MAPPING = mapping_of("ddq_detr", "tiny_r18")
NEW, LEGACY = stored_layout("tiny_r18"), stored_layout("tiny_r18", side="legacy")
GROUPS = len(LEGACY.parameters)


def _convert(*args: object) -> Result:
    return CliRunner().invoke(cli, ["convert", *map(str, args)])


def _converted(*args: object) -> str:
    result = _convert(*args)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def _loaded(path: Path) -> dict[str, Any]:
    """Load as mmengine does under any torch from 2.6 on: without running anything."""
    return torch.load(path, weights_only=True)


def _renamed(state: StateDict) -> StateDict:
    found = {MAPPING.target_of(key): tensor for key, tensor in state.items()}
    return {key: tensor for key, tensor in found.items() if key is not None}


def _optimizer() -> dict[str, Any]:
    """Make the state that a legacy training has after some steps, in a few parameters."""
    generator = torch.Generator().manual_seed(1)
    states = {}
    for number, name in enumerate(LEGACY.parameters):
        if name not in LEGACY.frozen and number % 5 == 0:
            average = torch.randn(LEGACY.tensors[name].shape, generator=generator)
            states[number] = {"step": torch.tensor(3.0), "exp_avg": average, "exp_avg_sq": average.square()}
    groups = [{"lr": 1e-4 + 1e-7 * number, "betas": (0.9, 0.999), "params": [number]} for number in range(GROUPS)]
    return {"state": states, "param_groups": groups}


def _schedules() -> list[dict[str, Any]]:
    rates = [1e-4 + 1e-7 * number for number in range(GROUPS)]
    return [
        {"param_name": "lr", "base_values": rates, "_last_value": [2 * rate for rate in rates], "last_step": 3},
        {"base_values": rates, "_last_value": list(rates), "milestones": Counter([11]), "gamma": 0.1, "verbose": False},
    ]


@pytest.fixture
def training(tmp_path: Path, make_state: Callable[..., StateDict]) -> Callable[..., Path]:
    """Return a function that saves a legacy training's checkpoint with some parts changed; None takes a part away."""

    def save(name: str = "legacy.pth", **changes: Any) -> Path:
        parts = {
            "meta": {"epoch": 3, "iter": 90, "seed": 7, "cfg": "model = dict()", "dataset_meta": {"classes": ["a"]}},
            "state_dict": make_state(duplicates=True),
            "message_hub": {"log_scalars": {}, "runtime_info": {"iter": 89}, "resumed_keys": {"iter": True}},
            "optimizer": _optimizer(),
            "param_schedulers": _schedules(),
            **changes,
        }
        torch.save({key: part for key, part in parts.items() if part is not None}, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def averaged(training: Callable[..., Path], make_state: Callable[..., StateDict]) -> dict[str, Any]:
    """Save a checkpoint as mmengine's EMAHook leaves it; return the path, the training and the averaged weights.

    The hook swaps the averaged weights into `state_dict`, but not into what training has set as an attribute.
    """
    trained = make_state(duplicates=True)
    average = {
        key: tensor * 0.5 if tensor.is_floating_point() else tensor
        for key, tensor in trained.items()
        if not key.startswith("decoder.aux_reg_branches")
    }
    ema = OrderedDict({"steps": torch.tensor(90), **{f"module.{key}": trained[key] for key in average}})
    path = training("ema.pth", state_dict={**trained, **average}, ema_state_dict=ema)
    return {"path": path, "training": {key: trained[key] for key in average}, "averaged": average}


SameBytes = Callable[[StateDict, StateDict], None]


def test_pth_keeps_everything_that_resuming_needs(training: Callable[..., Path], tmp_path: Path) -> None:
    source, out = training(), tmp_path / "new.pth"
    last = _converted(source, out, "-v")
    assert last.endswith("new.pth with message_hub, optimizer, param_schedulers\n")
    found = _loaded(out)
    assert found.keys() == {"meta", "state_dict", "message_hub", "optimizer", "param_schedulers"}
    assert (found["meta"]["epoch"], found["meta"]["iter"], found["meta"]["seed"]) == (3, 90, 7)
    assert found["meta"]["dataset_meta"] == {"classes": ["a"]}
    assert len(found["optimizer"]["param_groups"]) == 203
    assert [len(schedule["base_values"]) for schedule in found["param_schedulers"]] == [204, 204]
    told = _convert(source, tmp_path / "again.pth", "-v").stderr.splitlines()
    states = len(_optimizer()["state"])
    assert f"rebuilt optimizer: 248 groups -> 203; state of {states} parameters" in told
    assert "rebuilt param_schedulers: 2 schedules, 248 values each -> 204" in told


def test_groups_schedules_and_averages_are_those_of_the_same_parameter(
    training: Callable[..., Path], tmp_path: Path
) -> None:
    _converted(training(), tmp_path / "new.pth")
    found, saved = _loaded(tmp_path / "new.pth"), _optimizer()
    origin = {MAPPING.target_of(name): number for number, name in enumerate(LEGACY.parameters)}
    trained = [name for name in NEW.parameters if name not in NEW.frozen]
    groups, schedules = found["optimizer"]["param_groups"], found["param_schedulers"]
    for slot, name in enumerate(trained):
        number = origin[name]
        assert groups[slot] == {**saved["param_groups"][number], "params": [slot]}
        assert schedules[0]["_last_value"][slot] == _schedules()[0]["_last_value"][number]
        state = found["optimizer"]["state"].get(slot)
        assert (state is None) == (number not in saved["state"])
        if state is not None:
            assert all(torch.equal(state[key], saved["state"][number][key]) for key in state)
    assert found["optimizer"]["base_param_settings"]["params"].tolist() == [0.0]
    assert schedules[1]["milestones"] == Counter([11]) and type(schedules[1]["milestones"]) is Counter


def test_way_back_restores_every_part(
    training: Callable[..., Path], tmp_path: Path, assert_same: Callable[[StateDict, StateDict], None]
) -> None:
    source = training()
    _converted(source, tmp_path / "new.pth")
    _converted(tmp_path / "new.pth", tmp_path / "back.pth", "--to", "legacy")
    before, after = torch.load(source, weights_only=True), _loaded(tmp_path / "back.pth")
    assert after["optimizer"]["state"].keys() == before["optimizer"]["state"].keys()
    for number, state in before["optimizer"]["state"].items():
        assert_same(after["optimizer"]["state"][number], state)
    frozen = [number for number, name in enumerate(LEGACY.parameters) if name in LEGACY.frozen]
    for number, group in enumerate(before["optimizer"]["param_groups"]):
        if number not in frozen:
            assert after["optimizer"]["param_groups"][number] == group
            assert (
                after["param_schedulers"][0]["base_values"][number]
                == before["param_schedulers"][0]["base_values"][number]
            )
    assert {key: after["meta"][key] for key in before["meta"]} == before["meta"]
    assert after["message_hub"]["runtime_info"] == before["message_hub"]["runtime_info"]


def test_cleaning_leaves_the_other_parts_as_they_are(training: Callable[..., Path], tmp_path: Path) -> None:
    source = training()
    _converted(source, tmp_path / "clean.pth", "--to", "legacy")
    before, after = torch.load(source, weights_only=True), _loaded(tmp_path / "clean.pth")
    assert after["optimizer"]["param_groups"] == before["optimizer"]["param_groups"]
    assert after["param_schedulers"] == before["param_schedulers"]
    assert after["meta"]["cfg"] == "model = dict()"


def test_weights_alone(training: Callable[..., Path], tmp_path: Path) -> None:
    source = training()
    without = "without message_hub, optimizer, param_schedulers\n"
    assert _converted(source, tmp_path / "new.safetensors").endswith(f"new.safetensors {without}")
    assert _converted(source, tmp_path / "new.pth", "--keep", "model").endswith(f"new.pth {without}")
    found = _loaded(tmp_path / "new.pth")
    assert found.keys() == {"meta", "state_dict"} and "iter" not in found["meta"]
    assert found["meta"]["dataset_meta"] == {"classes": ["a"]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("new.safetensors", "--keep", "all"), "A .safetensors file holds weights only, so --keep all is impossible;"),
        (("new.pth", "--keep", "all", "--strip"), "An output of --strip holds weights only, so --keep all"),
        (("new.pth", "--keep", "ema"), "The source holds no averaged weights (looked for `ema_state_dict` and"),
    ],
)
def test_parts_that_cannot_be_written_are_refused(
    training: Callable[..., Path], tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    name, *options = arguments
    result = _convert(training(), tmp_path / name, *options)
    assert result.exit_code == 1 and result.stderr.startswith(f"error: {message}")
    assert result.stderr.count("\n") == 1 and not (tmp_path / name).exists()


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("a.safetensors", (), "averaged"),
        ("b.safetensors", ("--keep", "ema"), "averaged"),
        ("c.safetensors", ("--keep", "model"), "training"),
        ("d.pth", ("--keep", "model"), "training"),
        ("e.pth", ("--keep", "ema"), "averaged"),
        ("f.pth", ("--strip",), "averaged"),
    ],
)
def test_one_set_of_weights_of_a_checkpoint_with_ema(
    averaged: dict[str, Any], tmp_path: Path, assert_same: SameBytes, name: str, options: tuple[str, ...], expected: str
) -> None:
    _converted(averaged["path"], tmp_path / name, *options)
    out = tmp_path / name
    found = load_file(out) if out.suffix == ".safetensors" else _loaded(out)["state_dict"]
    assert_same(dict(found), _renamed(averaged[expected]))


def test_both_sets_of_weights_stay_in_mmengines_form(
    averaged: dict[str, Any], tmp_path: Path, assert_same: SameBytes
) -> None:
    told = _convert(averaged["path"], tmp_path / "new.pth", "-v").stderr
    assert "converted ema_state_dict: 308 training weights; the averaged ones stand in `state_dict`" in told
    found = _loaded(tmp_path / "new.pth")
    assert_same(dict(found["state_dict"]), _renamed(averaged["averaged"]))
    ema = dict(found["ema_state_dict"])
    assert ema.pop("steps").item() == 90
    assert_same({key.removeprefix("module."): tensor for key, tensor in ema.items()}, _renamed(averaged["training"]))
    assert all(key.startswith("module.") for key in ema)


def test_duplicates_of_a_checkpoint_with_ema_repeat_the_training_weights(
    averaged: dict[str, Any], tmp_path: Path
) -> None:
    seen = json.loads(CliRunner().invoke(cli, ["inspect", str(averaged["path"]), "--json"]).stdout)
    assert len(seen["duplicates"]) == 18 and seen["duplicates_differing"] == seen["duplicates"]
    assert [(held["name"], held["place"], len(held["duplicates_differing"])) for held in seen["sets"]] == [
        ("averaged weights", "state_dict", 18),
        ("training weights", "ema_state_dict", 0),
    ]
    saved = torch.load(averaged["path"], weights_only=True)
    key = "decoder.aux_reg_branches.0.0.bias"
    saved["state_dict"][key] = saved["state_dict"][key] + 1
    torch.save(saved, tmp_path / "odd.pth")
    for options in ((), ("--keep", "model")):
        result = _convert(tmp_path / "odd.pth", tmp_path / "new.pth", *options)
        assert result.exit_code == 1 and "Key `decoder.aux_reg_branches.0.0.bias` should repeat" in result.stderr


def test_ema_of_another_model_is_refused(averaged: dict[str, Any], tmp_path: Path) -> None:
    saved = torch.load(averaged["path"], weights_only=True)
    saved["ema_state_dict"]["module.extra.weight"] = torch.zeros(1)
    torch.save(saved, tmp_path / "odd.pth")
    result = _convert(tmp_path / "odd.pth", tmp_path / "new.pth")
    assert result.exit_code == 1
    assert "1 key(s) of `ema_state_dict` have no twin in `state_dict`: `extra.weight`" in result.stderr
    del saved["ema_state_dict"]["module.extra.weight"], saved["ema_state_dict"]["module.level_embed"]
    torch.save(saved, tmp_path / "odd.pth")
    result = _convert(tmp_path / "odd.pth", tmp_path / "new.pth")
    assert (
        result.exit_code == 1
        and "1 key(s) of the model are missing from the averaged weights: `level_embed`" in result.stderr
    )


def test_config_text_of_the_other_code_does_not_pass_for_the_own_one(
    training: Callable[..., Path], tmp_path: Path
) -> None:
    hub = {"log_scalars": {}, "runtime_info": {"iter": 89, "cfg": "x"}, "resumed_keys": {"iter": True, "cfg": True}}
    _converted(training(message_hub=hub), tmp_path / "new.pth")
    found = _loaded(tmp_path / "new.pth")
    assert "cfg" not in found["meta"] and found["meta"]["legacy_cfg"] == "model = dict()"
    assert found["message_hub"]["runtime_info"] == {"iter": 89}
    assert found["message_hub"]["resumed_keys"] == {"iter": True}


def test_runner_finds_a_message_hub_even_if_the_source_has_none(training: Callable[..., Path], tmp_path: Path) -> None:
    told = _convert(training(message_hub=None), tmp_path / "new.pth", "-v").stderr
    assert "added message_hub: empty, because a Runner expects one" in told
    hub = _loaded(tmp_path / "new.pth")["message_hub"]
    assert {key: hub[key] for key in ("log_scalars", "runtime_info", "resumed_keys")} == dict.fromkeys(
        ("log_scalars", "runtime_info", "resumed_keys"), {}
    )


def test_published_weights_get_no_message_hub(training: Callable[..., Path], tmp_path: Path) -> None:
    _converted(training(message_hub=None, optimizer=None, param_schedulers=None), tmp_path / "new.pth")
    assert _loaded(tmp_path / "new.pth").keys() == {"meta", "state_dict"}


class Stranger:
    """An object that nobody knows."""


def test_objects_are_left_out_and_told(training: Callable[..., Path], tmp_path: Path) -> None:
    schedules = _schedules()
    schedules[0]["anneal_func"] = Stranger()
    source = training(param_schedulers=schedules, extra={"a": 1, "b": Stranger()}, odd=Stranger())
    told = _convert(source, tmp_path / "new.pth", "-v").stderr.splitlines()
    name = f"{Stranger.__module__}.Stranger"
    assert f"left out param_schedulers.0.anneal_func: an object of {name}" in told
    assert f"left out extra.b: an object of {name}" in told
    assert f"left out odd: an object of {name}" in told
    found = _loaded(tmp_path / "new.pth")
    assert "anneal_func" not in found["param_schedulers"][0] and found["extra"] == {"a": 1} and "odd" not in found


def test_own_training_of_the_new_code_loads_without_running_anything_afterwards(
    training: Callable[..., Path], tmp_path: Path
) -> None:
    _converted(training(), tmp_path / "new.pth", "-q")
    own = {**_loaded(tmp_path / "new.pth"), "odd": Stranger()}
    del own["meta"]["ddq_manifest"]
    torch.save(own, tmp_path / "own.pth")
    _converted(tmp_path / "own.pth", tmp_path / "again.pth")
    again = _loaded(tmp_path / "again.pth")
    assert "odd" not in again and again["param_schedulers"] == own["param_schedulers"]
    assert again["optimizer"]["param_groups"] == own["optimizer"]["param_groups"]


def _with_object(optimizer: dict[str, Any]) -> None:
    optimizer["param_groups"][3]["lr"] = Stranger()


def _too_short(parts: dict[str, Any]) -> None:
    parts["param_schedulers"][1]["_last_value"].pop()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda: {"optimizer": _changed(_optimizer(), _with_object)}, "`optimizer.param_groups.3.lr` is an object of"),
        (lambda: {"optimizer": {"head": _optimizer()}}, "The optimizer holds `head`, expected `state` and"),
        (lambda: {"optimizer": Stranger()}, "The optimizer holds nothing, expected `state` and `param_groups`"),
        (lambda: {"param_schedulers": {"head": _schedules()}}, "`param_schedulers` is not a list of schedules"),
        (
            lambda: _changed({"param_schedulers": _schedules()}, _too_short),
            "`_last_value` of a schedule has 247 values, expected 248, one for each of the optimizer's groups",
        ),
    ],
)
def test_training_that_cannot_be_carried_is_refused_but_its_weights_can(
    training: Callable[..., Path], tmp_path: Path, changes: Callable[[], dict[str, Any]], message: str
) -> None:
    source = training(**changes())
    result = _convert(source, tmp_path / "new.pth")
    assert result.exit_code == 1 and message in result.stderr and "pass --keep model" in result.stderr
    assert result.stderr.count("\n") == 1
    _converted(source, tmp_path / "new.pth", "--keep", "model")


def _changed(value: Any, change: Callable[[Any], None]) -> Any:
    change(value)
    return value


def test_nested_schedules_follow_the_groups_too(training: Callable[..., Path], tmp_path: Path) -> None:
    plain = _schedules()
    nested = [{"warmup": plain[0], "phases": [plain[1], {"end": [1, 2, 3]}]}]
    _converted(training(param_schedulers=nested), tmp_path / "nested.pth")
    _converted(training("b.pth", param_schedulers=plain), tmp_path / "plain.pth")
    found, expected = (_loaded(tmp_path / name)["param_schedulers"] for name in ("nested.pth", "plain.pth"))
    assert found == [{"warmup": expected[0], "phases": [expected[1], {"end": [1, 2, 3]}]}]


def test_schedules_without_an_optimizer_are_left_out(training: Callable[..., Path], tmp_path: Path) -> None:
    told = _convert(training(optimizer=None), tmp_path / "new.pth", "-v").stderr
    assert "left out param_schedulers: without an optimizer their groups are not known" in told
    assert "param_schedulers" not in _loaded(tmp_path / "new.pth")


def test_parts_that_contain_themselves_end_in_one_line(training: Callable[..., Path], tmp_path: Path) -> None:
    endless: list[Any] = []
    endless += [endless] * 10
    result = _convert(training(extra=endless), tmp_path / "new.pth")
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert "Cannot read `extra` of the checkpoint `" in result.stderr


def test_manifest_tells_where_each_part_stood_in_the_source(training: Callable[..., Path], tmp_path: Path) -> None:
    _converted(training(), tmp_path / "new.pth")
    manifest = json.loads((tmp_path / "new.pth.manifest.json").read_text())
    origins = {part["path"]: part["source"] for part in manifest["parts"]}
    number = LEGACY.parameters.index("query_map.weight")
    slot = [name for name in NEW.parameters if name not in NEW.frozen].index("query_map.weight")
    assert number in _optimizer()["state"]
    assert origins[f"/optimizer/state/{slot}/exp_avg"] == f"/optimizer/state/{number}/exp_avg"
    assert origins["/optimizer/base_param_settings/params"] is None
    assert {line["part"]: line["action"] for line in manifest["carried"]} == {
        "message_hub": "kept",
        "optimizer": "rebuilt",
        "param_schedulers": "rebuilt",
    }
    done = CliRunner().invoke(cli, ["verify", str(tmp_path / "new.pth"), "--source", str(tmp_path / "legacy.pth")])
    assert done.exit_code == 0, done.stderr


def test_long_manifest_is_read_back(
    training: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of Swin-L with an optimizer has more characters than `plain` copies of anything else."""
    monkeypatch.setattr(plain, "_MOST", 20_000)
    source, new, back = training(), tmp_path / "new.pth", tmp_path / "back.pth"
    _converted(source, new)
    assert len(_loaded(new)["meta"]["ddq_manifest"]) > 100_000
    _converted(new, back, "--to", "legacy")
    for converted, origin in ((new, source), (back, new)):
        result = CliRunner().invoke(cli, ["verify", str(converted), "--source", str(origin)])
        assert result.exit_code == 0, result.stderr


def test_what_metadata_lose_is_told(training: Callable[..., Path], tmp_path: Path) -> None:
    meta = {
        "epoch": 3,
        "tool": "mine",
        "old": {"t": torch.ones(3), 1: 2},
        "e": b"x",
        "s": {1},
        "cfg": "a",
        "legacy_cfg": "",
    }
    result = _convert(training(meta=meta), tmp_path / "new.pth", "-v")
    said = {line.split(":")[0] for line in result.stderr.splitlines() if line.startswith("left out meta")}
    assert said == {f"left out meta.{key}" for key in ("tool", "old.t", "old", "e", "s", "legacy_cfg")}
    result = _convert(training("list.pth", meta=[1]), tmp_path / "list_new.pth", "-v")
    assert "left out meta: an object of list" in result.stderr


@pytest.mark.parametrize("ema", [{}, {"steps": 3}, [1], {"backbone.conv1.weight": torch.ones(1)}])
def test_averages_of_an_unknown_form(training: Callable[..., Path], tmp_path: Path, ema: Any) -> None:
    source = training(ema_state_dict=ema)
    result = _convert(source, tmp_path / "new.pth")
    assert result.exit_code == 1 and "`ema_state_dict` of the source holds no weights" in result.stderr
    assert "--keep model" in result.stderr
    _converted(source, tmp_path / "new.pth", "--keep", "model")


def test_parts_that_are_none_count_as_absent(training: Callable[..., Path], tmp_path: Path) -> None:
    source = training()
    content = torch.load(source, weights_only=False)
    torch.save({**content, "optimizer": None, "param_schedulers": None}, source)
    _converted(source, tmp_path / "new.pth")
    assert _loaded(tmp_path / "new.pth").keys() == {"meta", "state_dict", "message_hub"}
