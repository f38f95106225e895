"""`ddq-convert --new-config`: checkpoints of MMDetection 2.x, of models that no variant stands for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file

from converters.cli.main import cli
from converters.reading import checkpoint
from legacy_adapters import mmdet3, registry
from tests.models import layout_of, weights_of
from tests.warm.execute import in_forks

FOLDER = registry.get("mmdet2").folder / "configs"
RETINANET, DETR = "tiny_retinanet", "tiny_detr"
#: What is not a parameter of a model in a checkpoint of it.
_COUNTER = "num_batches_tracked"


@pytest.fixture(scope="module", autouse=True)
def forks() -> Iterator[None]:
    """Build models in forks of warm processes."""
    with in_forks():
        yield


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def of(name: str) -> tuple[str, ...]:
    return "--family", "mmdet2", "--new-config", str(FOLDER / "new" / f"{name}.py")


def legacy_state(name: str) -> dict[str, torch.Tensor]:
    """Return weights of the legacy side, counters included, in the order in which the model makes them."""
    layout = layout_of(name, "mmdet2", "legacy")
    seeded = weights_of(name, 0, "mmdet2", "legacy")
    return {key: seeded[key] if key in seeded else torch.tensor(7) for key in layout.tensors}


def legacy_file(folder: Path, name: str, **changes: Any) -> Path:
    """Write what mmcv 1.x's runner does: one optimizer group of all parameters, frozen ones included."""
    state, layout = legacy_state(name), layout_of(name, "mmdet2", "legacy")
    trained = [number for number, key in enumerate(layout.parameters) if key not in layout.frozen]
    optimizer = dict(
        state={number: dict(momentum_buffer=state[layout.parameters[number]] + 1) for number in trained},
        param_groups=[dict(lr=0.01, momentum=0.9, dampening=0, weight_decay=1e-4, nesterov=False,
                           params=list(range(len(layout.parameters))))],
    )  # fmt: skip
    meta = dict(CLASSES=tuple("abcdefg"), PALETTE=None, config="model = dict()", epoch=3, iter=300, mmcv_version="1.7.2",
                mmdet_version="2.28.2")  # fmt: skip
    torch.save(dict(dict(meta=meta, state_dict=state, optimizer=optimizer), **changes), folder / "old.pth")
    return folder / "old.pth"


def bits(state: dict[str, torch.Tensor]) -> dict[str, bytes]:
    return {key: tensor.contiguous().numpy().tobytes() for key, tensor in state.items()}


def test_equal_names_keep_every_byte_and_load_strictly(tmp_path):
    old, new, back = legacy_file(tmp_path, RETINANET), tmp_path / "new.safetensors", tmp_path / "back.pth"
    result = run("convert", old, new, *of(RETINANET))
    assert result.exit_code == 0 and "CONVERTED 148 tensors: 148 kept, 0 renamed" in result.stdout, result.output
    assert "it is taken for one of the legacy side, as its metadata says" in " ".join(result.stderr.split())
    assert bits(load_file(new)) == bits(legacy_state(RETINANET))
    mmdet3.build_model(str(FOLDER / "new" / f"{RETINANET}.py")).load_state_dict(load_file(new), strict=True)
    assert run("verify", new, "--source", old).exit_code == 0
    assert run("convert", new, back, "--to", "legacy", *of(RETINANET)).exit_code == 0
    assert bits(checkpoint.read(back).to_torch()) == bits(legacy_state(RETINANET))
    assert run("diff", old, back, *of(RETINANET)).exit_code == 0


def test_renamed_transformers_go_there_and_back(tmp_path):
    old, new, back = legacy_file(tmp_path, DETR), tmp_path / "new.safetensors", tmp_path / "back.pth"
    assert run("convert", old, new, *of(DETR)).exit_code == 0
    converted = load_file(new)
    mmdet3.build_model(str(FOLDER / "new" / f"{DETR}.py")).load_state_dict(converted, strict=True)
    assert converted.keys() != legacy_state(DETR).keys()
    assert sorted(bits(converted).values()) == sorted(bits(legacy_state(DETR)).values())
    assert run("convert", new, back, "--to", "legacy", *of(DETR)).exit_code == 0
    assert bits(checkpoint.read(back).to_torch()) == bits(legacy_state(DETR))
    assert run("diff", old, new, *of(DETR)).exit_code == 0


def test_classes_progress_and_momentum_go_along(tmp_path):
    old, new, config = legacy_file(tmp_path, RETINANET), tmp_path / "new.pth", tmp_path / "one_group.py"
    told = (FOLDER / "new" / f"{RETINANET}.py").read_text("utf-8")
    config.write_text(told.replace("    paramwise_cfg=dict(norm_decay_mult=0.0),\n", "") + "param_scheduler = []\n", "utf-8")
    whole = "--family", "mmdet2", "--new-config", str(config)
    result = run("convert", old, new, *whole)
    assert result.exit_code == 0, result.output
    held = torch.load(new, weights_only=True)
    assert tuple(held["meta"]["CLASSES"]) == tuple("abcdefg")
    assert (held["meta"]["epoch"], held["meta"]["iter"]) == (3, 300)
    order = dict(mmdet3.build_model(str(FOLDER / "new" / f"{RETINANET}.py")).named_parameters())
    numbers = [number for group in held["optimizer"]["param_groups"] for number in group["params"]]
    assert len(numbers) == len(order)
    for number, key in enumerate(order):
        momentum = held["optimizer"]["state"].get(number)
        assert momentum is None or torch.equal(momentum["momentum_buffer"], held["state_dict"][key] + 1)
    assert len(held["optimizer"]["state"]) == sum(parameter.requires_grad for parameter in order.values())
    # a converted file is not taken for a source again
    again = run("convert", new, tmp_path / "again.pth", *whole)
    assert again.exit_code == 2 and "already has the new layout of mmdet2 one_group" in again.stderr


def test_averages_of_mmcv_are_converted(tmp_path):
    state = legacy_state(RETINANET)
    averaged = {f"ema_{key.replace('.', '_')}": value for key, value in state.items() if _COUNTER not in key}
    file = legacy_file(tmp_path, RETINANET, state_dict={**{k: v * 2 for k, v in state.items()}, **averaged})
    new = tmp_path / "new.safetensors"
    result = run("convert", file, new, *of(RETINANET), "--keep", "model")
    assert result.exit_code == 0, result.output
    weights = {key: value for key, value in load_file(new).items() if _COUNTER not in key}
    assert bits(weights) == bits({key: state[key] for key in weights})


def test_inspect_says_that_the_keys_tell_no_side(tmp_path):
    result = run("inspect", legacy_file(tmp_path, RETINANET), *of(RETINANET))
    assert result.exit_code == 0 and "mmdet2 tiny_retinanet, either side" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--new-config", "x.py"), "--new-config says which model of a family it is; pass --family, too."),
        (("--family", "ddq_detr", "--new-config", "x.py"), "Family ddq_detr has no models of configs"),
        (("--family", "mmdet2", "--variant", RETINANET, "--new-config", "x.py"), "leave one of them out"),
        (("--family", "mmdet2", "--new-config", "x.py"), "There is no config x.py of the new side"),
        (("--family", "mmdet2", "--new-config", str(FOLDER / "legacy" / f"{RETINANET}.py")), "is one of MMDetection 2.x"),
    ],
)
def test_configs_that_name_no_model_are_refused_in_one_line(tmp_path, arguments, message):
    result = run("convert", legacy_file(tmp_path, RETINANET), tmp_path / "new.safetensors", *arguments)
    assert result.exit_code == 2 and message in result.stderr, result.output
    assert result.stderr.count("\n") == 1 and not (tmp_path / "new.safetensors").exists()


def test_another_number_of_classes_is_refused_where_the_family_knows_no_rows_of_classes(tmp_path):
    result = run("convert", legacy_file(tmp_path, RETINANET), tmp_path / "new.pth", *of(RETINANET), "--num-classes", 5)
    assert result.exit_code in (1, 2) and not (tmp_path / "new.pth").exists()
    assert "does not say which tensors have one row per class, so --num-classes is not possible" in result.stderr
