"""What the tools say that a file is good for, and which command mends it, is tried: by loading it, by running it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from torch import Tensor, nn

pytest.importorskip("ddq_port")
pytest.importorskip("mmdet")

from converters.cli.main import cli
from ddq_port import configs
from ddq_port.training.loading import weights
from ddq_port.training.loading.weights import WeightsError
from legacy_adapters import mmdet3
from tests.models import layout_of as stored_layout

from . import mmdet_models

StateDict = dict[str, Tensor]
VARIANT = "tiny_r18"
READY = "it can be loaded as it is by"


class Stranger:
    """An object that nobody knows."""


@pytest.fixture(autouse=True)
def mmdet_scope() -> Iterator[None]:
    """Look names up where a Runner of mmdet does, whatever scope other tests' Runners have left."""
    with DefaultScope.overwrite_default_scope("mmdet"):
        yield


@pytest.fixture(scope="module")
def models() -> dict[str, nn.Module]:
    import ddq_port.models  # noqa: F401  (registers the detectors)

    new = mmdet3.build_model(str(configs.path(configs.VARIANTS[VARIANT])))
    return {"new": new, "legacy": mmdet_models.build(VARIANT)}


def _run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def _prefixed(prefix: str, state: StateDict) -> StateDict:
    return {prefix + key: tensor for key, tensor in state.items()}


def _mmengine(state: StateDict) -> dict[str, Any]:
    ema = {"steps": torch.tensor(3), **{f"module.{key}": tensor * 2 for key, tensor in state.items()}}
    return {"state_dict": state, "ema_state_dict": ema}


def _hub() -> dict[str, Any]:
    return {"log_scalars": {"train/loss": HistoryBuffer([1.0], [1])}, "runtime_info": {}, "resumed_keys": {}}


# how a file holds the weights of a model, and whether the model can load it as it is
FORMS: dict[str, tuple[Callable[[StateDict], Any], bool]] = {
    "state_dict": (lambda s: {"meta": {"epoch": 3}, "state_dict": s}, True),
    "top_level": (lambda s: s, True),
    "module": (lambda s: {"state_dict": _prefixed("module.", s)}, False),
    "mmengine_average": (_mmengine, True),
    "model_key": (lambda s: {"model": s, "epoch": 3}, False),
    "nested_key": (lambda s: {"checkpoint": {"net": s}}, False),
    "compiled": (lambda s: {"state_dict": _prefixed("_orig_mod.", s)}, False),
    "lightning": (lambda s: {"state_dict": _prefixed("model.", s)}, False),
    "twice_module": (lambda s: {"state_dict": _prefixed("module.module.", s)}, False),
    "timm_average": (lambda s: {"state_dict": s, "state_dict_ema": {k: v * 2 for k, v in s.items()}}, False),
    "histories": (lambda s: {"state_dict": s, "message_hub": _hub()}, False),
    "numpy": (lambda s: {"state_dict": s, "best": np.float64(0.5)}, False),
    "stranger": (lambda s: {"state_dict": s, "args": Stranger()}, False),
}


@pytest.mark.parametrize("side", ["new", "legacy"])
@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_is_called_ready_loads_and_any_other_is_converted(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict], form: str, side: str
) -> None:
    make, ready = FORMS[form]
    path, out = tmp_path / "a.pth", tmp_path / "out.pth"
    torch.save(make(make_state(side, VARIANT)), path)
    result = _run("convert", path, out, "--to", side)
    assert result.exit_code == (2 if ready else 0), result.output
    assert (READY in result.stderr) == ready and out.exists() != ready
    loadable = path if ready else out
    torch.load(loadable, weights_only=True)
    load_checkpoint(models[side], str(loadable), map_location="cpu", strict=True)


@pytest.mark.parametrize("averaged", [False, True])
def test_legacy_files_with_duplicates_are_never_called_ready(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict], averaged: bool
) -> None:
    state = make_state("legacy", VARIANT, duplicates=True)
    content: dict[str, Any] = {"state_dict": state}
    if averaged:
        once = make_state("legacy", VARIANT)
        content = {
            **_mmengine(once),
            "state_dict": state | {k: v / 2 for k, v in once.items() if v.is_floating_point()},
        }
        content["ema_state_dict"] |= _prefixed("module.", once)
    torch.save(content, tmp_path / "a.pth")
    result = _run("convert", tmp_path / "a.pth", tmp_path / "out.pth", "--to", "legacy")
    assert result.exit_code == 0 and "18 duplicates dropped" in result.stdout, result.output
    load_checkpoint(models["legacy"], str(tmp_path / "out.pth"), map_location="cpu", strict=True)


@pytest.mark.parametrize("side", ["new", "legacy"])
def test_safetensors_are_called_ready_where_they_load(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict], side: str
) -> None:
    path = tmp_path / "a.safetensors"
    save_file(make_state(side, VARIANT), path)
    result = _run("convert", path, tmp_path / "b.safetensors", "--to", side)
    assert result.exit_code == 2 and (READY in result.stderr) == (side == "new")
    if side == "legacy":  # the official code's mmengine knows no such format
        assert "for the official code and for mmdet 3.3.0, which read .pth only, convert it into one" in result.stderr
        path = tmp_path / "b.pth"
        assert _run("convert", tmp_path / "a.safetensors", path, "--to", side).exit_code == 0
    load_checkpoint(models[side], str(path), map_location="cpu", strict=True)


@pytest.mark.parametrize("name", ["a.pth", "a", "a.safetensors"])
def test_a_file_by_the_name_of_the_other_format_is_not_called_ready(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict], name: str
) -> None:
    path, out = tmp_path / name, tmp_path / "out.pth"
    if path.suffix == ".safetensors":
        torch.save({"state_dict": make_state("new", VARIANT)}, path)
    else:
        save_file(make_state("new", VARIANT), path)
    result = _run("convert", path, out)
    assert result.exit_code == 0, result.output
    load_checkpoint(models["new"], str(out), map_location="cpu", strict=True)


@pytest.mark.parametrize("side", ["new", "legacy"])
def test_the_other_format_of_a_ready_file_is_named(
    tmp_path: Path, make_state: Callable[..., StateDict], side: str
) -> None:
    path, out = tmp_path / "a.pth", tmp_path / "out.safetensors"
    torch.save({"state_dict": make_state(side, VARIANT)}, path)
    result = _run("convert", path, out, "--to", side)
    assert result.exit_code == 2 and "pass --keep model to write its weights as .safetensors" in result.stderr
    assert _run("convert", path, out, "--to", side, "--keep", "model").exit_code == 0


def _do(message: str, folder: Path) -> Path:
    """Run the command that a message names, and return the file that it writes."""
    command = re.search(r"`(ddq-convert convert [^`]+)`", message)
    assert command is not None, message
    out = folder / "mended.pth"
    _, *args = shlex.split(command[1].replace("NEW.pth", str(out)).replace(" N", " 3"))
    result = _run(*args)
    assert result.exit_code == 0, result.output
    return out


@pytest.mark.parametrize("side", ["new", "legacy"])
def test_no_circle_for_a_training_of_mmengine_that_torch_does_not_load(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict], side: str
) -> None:
    file = tmp_path / "epoch_1.pth"
    optimizer = {"state": {}, "param_groups": [{"lr": 1e-4, "params": []}]}
    if side == "legacy":

        count = len(stored_layout(VARIANT, side="legacy").parameters)
        optimizer["param_groups"] = [{"lr": 1e-4, "params": [number]} for number in range(count)]
    content = {"meta": {"epoch": 1, "iter": 2}, "state_dict": make_state(side, VARIANT), "message_hub": _hub()}
    torch.save({**content, "optimizer": optimizer}, file)
    with pytest.raises(WeightsError, match=r"HistoryBuffer\); `ddq-convert convert") as refused:
        weights.check_resumable(file)
    mended = _do(str(refused.value), tmp_path)
    weights.check_resumable(mended)
    load_checkpoint(models["new"], str(mended), map_location="cpu", strict=True)


def _fitted(model: nn.Module, file: Path) -> None:
    log = SimpleNamespace(info=lambda text: None, warning=lambda text: None)
    runner: Any = SimpleNamespace(model=model, logger=log)
    weights.FittingWeightsHook(str(file)).after_load_checkpoint(runner, weights.read(file))


@pytest.mark.parametrize(
    ("side", "make", "advice"),
    [
        ("legacy", lambda s: {"state_dict": s}, "These look like weights of the legacy code"),
        ("new", lambda s: {"model": s}, "It holds no weights where mmengine looks"),
        ("new", lambda s: {"ema": {"module": s}}, "It holds no weights where mmengine looks"),
        ("new", lambda s: {"state_dict": _prefixed("_orig_mod.", s)}, "Its keys begin with `_orig_mod.`"),
        ("new", lambda s: {"state_dict": _prefixed("model.", s)}, "Its keys begin with `model.`"),
    ],
)
def test_advice_for_weights_that_do_not_fit_makes_them_fit(
    models: dict[str, nn.Module],
    tmp_path: Path,
    make_state: Callable[..., StateDict],
    side: str,
    make: Callable[[StateDict], Any],
    advice: str,
) -> None:
    file = tmp_path / "a.pth"
    torch.save(make(make_state(side, VARIANT)), file)
    with pytest.raises(WeightsError) as refused:
        _fitted(models["new"], file)
    assert advice in str(refused.value) and "\n" not in str(refused.value)
    _fitted(models["new"], _do(str(refused.value), tmp_path))


def test_advice_for_another_number_of_classes(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    state = make_state("new", VARIANT)
    grown = {k: torch.cat([v, v[:1]]) if "cls_branches" in k or "label_embedding" in k else v for k, v in state.items()}
    torch.save({"state_dict": grown}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="--num-classes N` writes weights for another number") as refused:
        _fitted(models["new"], tmp_path / "a.pth")
    _fitted(models["new"], _do(str(refused.value), tmp_path))


def test_what_cannot_be_resumed_can_be_begun_with(
    models: dict[str, nn.Module], tmp_path: Path, make_state: Callable[..., StateDict]
) -> None:
    file = tmp_path / "a.pth"
    torch.save({"state_dict": make_state("new", VARIANT), "optimizer": {}}, file)
    with pytest.raises(WeightsError, match="lacks message_hub; pass it as --load-from"):
        weights.check_resumable(file)
    _fitted(models["new"], file)
    torch.save({"model": make_state("new", VARIANT), "optimizer": {}}, file)
    with pytest.raises(WeightsError, match="holds no weights where mmengine looks") as refused:
        weights.check_resumable(file)
    _fitted(models["new"], _do(str(refused.value), tmp_path))


@pytest.mark.parametrize("key", ["state_dict", "model"])
def test_backbone_with_objects_is_mended_by_the_line_that_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    backbone = configs.load(configs.VARIANTS[VARIANT]).model.backbone
    from ddq_port.registry import MODELS

    state = MODELS.build({**backbone, "init_cfg": None}).state_dict()
    torch.save({key: dict(state), "hub": _hub()}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="if you trust it, save its tensors alone") as refused:
        weights.backbone_init(backbone, tmp_path / "a.pth")
    line = re.search(r'`python -c "([^`]+)"`', str(refused.value))
    monkeypatch.chdir(tmp_path)
    exec(line[1], {})
    weights.backbone_init(backbone, tmp_path / "NEW.pth")


@pytest.mark.parametrize("form", ["plain", "mmengine"])
def test_parity_takes_the_weights_that_a_checkpoint_gives(
    tmp_path: Path, make_state: Callable[..., StateDict], form: str
) -> None:
    from converters.rules.ports import port
    from parity.sides.sides import both_layouts

    trained, once = make_state("legacy", VARIANT, duplicates=True), make_state("legacy", VARIANT)
    average = {key: tensor / 2 if tensor.is_floating_point() else tensor for key, tensor in once.items()}
    ema = {"steps": torch.tensor(3), **_prefixed("module.", once)}
    content = {"state_dict": {**trained, **average}, "ema_state_dict": ema} if form == "mmengine" else trained
    torch.save(content, tmp_path / "a.pth")
    both = both_layouts(port("mmdet_ddq", VARIANT), 0, tmp_path / "a.pth")
    assert all(torch.equal(both["legacy"][key], (average if form == "mmengine" else once)[key]) for key in once)
    assert len(both["new"]) == len(once)
