"""An optimizer's state is numbered anew by the order and the grouping of the other side."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch

from converters.carrying.optimizer import BASE, Regrouped, Side, regroup
from converters.errors import OptimizerError
from converters.formats.stored import StoredTensor
from converters.options import Options
from converters.planning import plan
from converters.rules.layout import Layout, TensorSpec
from converters.rules.mapping import Rename
from converters.rules.ports import Port
from legacy_adapters.family import Family, Variant
from legacy_adapters.family import Side as FamilySide
from tests.models import layout_of as stored_layout
from tests.models import mapping as mapping_of
from tests.models import variants as variants_of

VARIANTS = variants_of("ddq_detr")
ALL, TRAINED, ONE = "a group for every parameter", "a group for every trained parameter", "one group"


def _tensor(shape: tuple[int, ...], name: str) -> StoredTensor:
    """Make a tensor that tells whose it is, by the text of its storage."""
    tensor = StoredTensor.of("bool", (1,), b"\0")
    tensor.shape, tensor.storage.name = shape, name
    return tensor


def _saved(of: Layout, grouping: str, stateful: Iterable[str] | None = None) -> dict[str, Any]:
    """Make an optimizer's state whose settings (`of`) and tensors tell the parameter they are of."""
    names = [name for name in of.parameters if grouping != TRAINED or name not in of.frozen]
    stateful = set(name for name in names if name not in of.frozen) if stateful is None else set(stateful)
    states = {
        number: {"step": 3.0, "exp_avg": _tensor(of.tensors[name].shape, name)}
        for number, name in enumerate(names)
        if name in stateful
    }
    if grouping == ONE:
        return {"state": states, "param_groups": [{"lr": 0.1, "params": list(range(len(names)))}]}
    groups = [
        {"of": "frozen" if name in of.frozen else name, "lr": 0.1, "params": [number]}
        for number, name in enumerate(names)
    ]
    base = {BASE: {"of": "base", "lr": 0.1, "params": _tensor((1,), "base")}} if grouping == TRAINED else {}
    return {"state": states, "param_groups": groups, **base}


def _regrouped(saved: dict[str, Any], variant: str, to: str, frozen_groups: bool = False) -> Regrouped:
    mapping = mapping_of("ddq_detr", variant)
    source = stored_layout(variant, side="new" if to == "legacy" else "legacy")
    rules = mapping if to == "new" else mapping.inverse()
    return regroup(saved, source, Side(stored_layout(variant, side=to), frozen_groups), rules)


def _owners(saved: dict[str, Any], of: Layout, grouping: str) -> dict[str, str]:
    """Name for each parameter with a state the one that the state's tensor is of."""
    names = [name for name in of.parameters if grouping != TRAINED or name not in of.frozen]
    return {names[number]: state["exp_avg"].storage.name for number, state in saved["state"].items()}


@pytest.mark.parametrize("variant", VARIANTS)
def test_groups_and_states_of_every_parameter_reach_its_twin(variant: str) -> None:
    legacy, new = stored_layout(variant, side="legacy"), stored_layout(variant)
    mapping = mapping_of("ddq_detr", variant)
    trained = [name for name in new.parameters if name not in new.frozen]
    origin = {mapping.target_of(name): name for name in legacy.parameters}
    made = _regrouped(_saved(legacy, ALL), variant, "new")
    assert [group["of"] for group in made.state_dict["param_groups"]] == [origin[name] for name in trained]
    assert [group["params"] for group in made.state_dict["param_groups"]] == [[n] for n in range(len(trained))]
    assert _owners(made.state_dict, new, TRAINED) == {name: origin[name] for name in trained}
    assert made.state_dict[BASE]["of"] == ("frozen" if new.frozen else legacy.parameters[0])
    assert made.state_dict[BASE]["params"].tolist() == [0.0]
    assert (made.source_groups, made.target_groups) == (len(legacy.parameters), len(trained))


@pytest.mark.parametrize("variant", VARIANTS)
def test_frozen_parameters_get_groups_with_the_base_settings_where_the_target_has_them(variant: str) -> None:
    legacy, new = stored_layout(variant, side="legacy"), stored_layout(variant)
    mapping = mapping_of("ddq_detr", variant)
    made = _regrouped(_saved(new, TRAINED), variant, "legacy", frozen_groups=True)
    expected = ["base" if name in legacy.frozen else mapping.target_of(name) for name in legacy.parameters]
    assert [group["of"] for group in made.state_dict["param_groups"]] == expected
    assert BASE not in made.state_dict
    assert made.states == len(new.parameters) - len(new.frozen)
    assert all(mapping.target_of(name) == owner for name, owner in _owners(made.state_dict, legacy, ALL).items())


@pytest.mark.parametrize("grouping", [ALL, TRAINED, ONE])
def test_there_and_back_is_the_same(grouping: str) -> None:
    legacy = stored_layout("tiny_r18", side="legacy")
    saved = _saved(legacy, grouping)
    there = _regrouped(saved, "tiny_r18", "new").state_dict
    back = _regrouped(there, "tiny_r18", "legacy", frozen_groups=grouping == ALL).state_dict
    assert back["param_groups"] == saved["param_groups"]
    assert back["state"] == saved["state"]
    assert (BASE in back) == (BASE in saved)


def test_moved_branch_takes_its_averages_along() -> None:
    made = _regrouped(_saved(stored_layout("tiny_r18", side="legacy"), ALL), "tiny_r18", "new")
    owners = _owners(made.state_dict, stored_layout("tiny_r18"), TRAINED)
    assert owners["bbox_head.aux_cls_branches.3.weight"] == "bbox_head.cls_branches.4.weight"
    assert owners["bbox_head.aux_reg_branches.3.4.bias"] == "bbox_head.reg_branches.4.4.bias"
    assert owners["bbox_head.cls_branches.3.weight"] == "bbox_head.cls_branches.3.weight"


def test_one_group_stays_one_with_frozen_parameters_in_it() -> None:
    legacy, new = stored_layout("tiny_r18", side="legacy"), stored_layout("tiny_r18")
    made = _regrouped(_saved(legacy, ONE), "tiny_r18", "new")
    assert made.state_dict["param_groups"] == [{"lr": 0.1, "params": list(range(len(new.parameters)))}]
    mapping = mapping_of("ddq_detr", "tiny_r18")
    owners = _owners(made.state_dict, new, ONE)
    assert owners == {mapping.target_of(name): name for name in legacy.parameters if name not in legacy.frozen}


def test_one_group_of_trained_parameters_alone() -> None:
    legacy, new = stored_layout("tiny_r18", side="legacy"), stored_layout("tiny_r18")
    saved = _saved(legacy, TRAINED)
    one = {"state": saved["state"], "param_groups": [{"lr": 0.1, "params": list(saved["state"])}]}
    made = _regrouped(one, "tiny_r18", "new")
    assert len(made.state_dict["param_groups"][0]["params"]) == 203
    mapping = mapping_of("ddq_detr", "tiny_r18")
    assert all(mapping.target_of(owner) == name for name, owner in _owners(made.state_dict, new, TRAINED).items())


def test_parameter_with_a_state_counts_as_trained_though_the_config_freezes_it() -> None:
    legacy = stored_layout("tiny_r18", side="legacy")
    frozen = "backbone.conv1.weight"
    trained = [name for name in legacy.parameters if name not in legacy.frozen]
    made = _regrouped(_saved(legacy, ALL, [frozen, *trained]), "tiny_r18", "new")
    assert (made.target_groups, made.states) == (204, 204)
    assert made.state_dict["state"][1]["exp_avg"].storage.name == frozen


def test_trained_parameter_without_a_state_keeps_its_group() -> None:
    made = _regrouped(_saved(stored_layout("tiny_r18", side="legacy"), ALL, []), "tiny_r18", "new")
    assert (made.target_groups, made.states, made.state_dict["state"]) == (203, 0, {})


def test_settings_without_multiplier_are_taken_from_the_plainest_group_where_nothing_else_has_them() -> None:
    new = stored_layout("tiny_r18")
    saved = _saved(new, TRAINED)
    del saved[BASE]
    for group in saved["param_groups"][:4]:
        group["lr_mult"] = 0.1
    made = _regrouped(saved, "tiny_r18", "legacy", frozen_groups=True)
    plain = saved["param_groups"][4]["of"]
    frozen = stored_layout("tiny_r18", side="legacy").frozen
    names = stored_layout("tiny_r18", side="legacy").parameters
    assert {group["of"] for name, group in zip(names, made.state_dict["param_groups"]) if name in frozen} == {plain}


@pytest.mark.parametrize(
    "state",
    [
        {"momentum_buffer": None},
        {"step": 7},
        {"exp_avg": "like", "exp_avg_sq": "like", "max_exp_avg_sq": "like", "step": "scalar"},
    ],
    ids=["SGD without momentum", "step as a number", "AMSGrad"],
)
def test_states_of_other_optimizers(state: dict[str, Any]) -> None:
    legacy = stored_layout("tiny_r18", side="legacy")
    saved = _saved(legacy, ALL, [])
    number = legacy.parameters.index("level_embed")
    shapes = {"like": legacy.tensors["level_embed"].shape, "scalar": ()}
    state = {key: _tensor(shapes[value], key) if value in ("like", "scalar") else value for key, value in state.items()}
    saved["state"][number] = state
    made = _regrouped(saved, "tiny_r18", "new")
    assert made.state_dict["state"] == {0: state}


def test_loss_scaler_and_whatever_else_goes_along() -> None:
    saved = _saved(stored_layout("tiny_r18", side="legacy"), ALL, [])
    saved["loss_scaler"] = {"scale": 1024.0, "_growth_tracker": 3}
    assert _regrouped(saved, "tiny_r18", "new").state_dict["loss_scaler"] == saved["loss_scaler"]


def test_names_of_a_group_are_not_settings() -> None:
    saved = _saved(stored_layout("tiny_r18", side="legacy"), ALL, [])
    saved["param_groups"][0]["param_names"] = ["level_embed"]
    assert "param_names" not in _regrouped(saved, "tiny_r18", "new").state_dict["param_groups"][0]


def test_slots_rebuild_what_a_schedule_lists_per_group() -> None:
    legacy, new = stored_layout("tiny_r18", side="legacy"), stored_layout("tiny_r18")
    slots = _regrouped(_saved(legacy, ALL), "tiny_r18", "new").slots
    mapping = mapping_of("ddq_detr", "tiny_r18")
    trained = [name for name in new.parameters if name not in new.frozen]
    rebuilt = slots.rebuilt(legacy.parameters)
    assert [mapping.target_of(name) for name in rebuilt[:-1]] == trained
    assert rebuilt[-1] in legacy.frozen
    assert slots.held == 248 and len(slots.taken) == 204


def _without_last_group(saved: dict[str, Any]) -> None:
    del saved["param_groups"][-1]
    saved["state"].pop(len(saved["param_groups"]), None)


def _shifted(saved: dict[str, Any]) -> None:
    saved["state"] = {number + 1: state for number, state in saved["state"].items() if number + 1 < 248}


def _two_groups(saved: dict[str, Any]) -> None:
    saved["param_groups"] = [{"params": list(range(120))}, {"params": list(range(120, 248))}]


def _several_optimizers(saved: dict[str, Any]) -> None:
    inner = dict(saved)
    saved.clear()
    saved.update(backbone=inner, head=inner)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_last_group, r"has 247 groups, expected 248 \(all parameters of `tiny_r18`\) or 203"),
        (_shifted, r"`exp_avg` of parameter \d+ has shape \[.*\], expected \[.*\] of `"),
        (_two_groups, r"has 2 groups for 248 parameters, which hides which is which"),
        (_several_optimizers, r"holds `backbone`, `head`, expected `state` and `param_groups` of one optimizer"),
        (lambda saved: saved["state"].update({999: {}}), r"state of parameter 999, which is in none of its 248 groups"),
        (lambda saved: saved["param_groups"][1].update(params=[0]), r"do not number their parameters"),
        (lambda saved: saved["param_groups"][1].update(params=["a"]), r"do not number their parameters"),
        (lambda saved: saved["param_groups"][1].pop("params"), r"has no list `params`"),
        (lambda saved: saved["state"].update({0: 5}), r"state of `level_embed` is not a dict"),
        (lambda saved: saved.update(param_groups=[]), r"has no group of parameters; pass --keep model"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(damage: Any, message: str) -> None:
    saved = _saved(stored_layout("tiny_r18", side="legacy"), ALL)
    damage(saved)
    with pytest.raises(OptimizerError, match=message) as refused:
        _regrouped(saved, "tiny_r18", "new")
    assert "\n" not in str(refused.value) and str(refused.value).endswith("--keep model to convert the weights alone.")


def _port_in_another_order() -> Port:
    """Make a port whose new model makes the two layers in the other order."""
    family = Family(
        "two", (Variant("small"),), FamilySide("old", Path("o.py")), FamilySide("new", Path("n.py")),
        (Rename("a", "first"), Rename("b", "second")),
    )  # fmt: skip
    port = Port(family, family.variants[0])
    new = Layout("small", {name: TensorSpec("float32", (2,)) for name in ("second", "first")})
    return port.with_layouts({"new": new, "legacy": new.mapped(port.mapping.inverse())})


def _trained_file(path: Path, names: Iterable[str]) -> Path:
    """Save a checkpoint of an optimizer that has seen the gradient 1 of the first parameter and 2 of the second."""
    parameters = {name: torch.nn.Parameter(torch.zeros(2)) for name in names}
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)
    for gradient, parameter in enumerate(parameters.values(), 1):
        parameter.grad = torch.full((2,), float(gradient))
    optimizer.step()
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    torch.save({"state_dict": weights, "optimizer": optimizer.state_dict()}, path)
    return path


def test_states_of_parameters_of_one_shape_are_not_swapped_where_the_models_make_them_in_another_order(tmp_path):
    source = _trained_file(tmp_path / "old.pth", ("a", "b"))
    states = plan(source, Options(), port=_port_in_another_order()).parts["optimizer"]["state"]
    held = {name: states[number]["momentum_buffer"] for number, name in enumerate(("second", "first"))}
    assert torch.equal(held["first"].to_torch(), torch.full((2,), 1.0))
    assert torch.equal(held["second"].to_torch(), torch.full((2,), 2.0))


def test_an_optimizer_is_not_carried_to_a_legacy_model_whose_order_is_not_known(tmp_path):
    source = _trained_file(tmp_path / "new.pth", ("second", "first"))
    with pytest.raises(OptimizerError, match="order in which the legacy model makes its parameters is not known"):
        plan(source, Options(to="legacy"), port=_port_in_another_order())
    assert plan(source, Options(to="legacy", keep="model"), port=_port_in_another_order()).state_dict.keys() == {"a", "b"}
