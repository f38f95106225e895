"""Carry an optimizer to a model whose own optimizer is known: its groups are those that the new config makes.

mmcv 1.x makes one group of all parameters, frozen ones included, or with `paramwise_cfg` one for each. Which number is
which parameter follows from the order of the model's parameters; some constructors write names into the groups
(`param_names`), which then tell. Whatever else would have to be guessed is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.carrying import optimizer
from converters.carrying.optimizer import ADVICE, IDENTITY, Regrouped, Slots
from converters.carrying.optimizer import BASE as BASE
from converters.errors import OptimizerError, listed
from converters.formats.stored import StoredTensor
from converters.rules.layout import Layout
from converters.rules.mapping import Mapping as KeyMapping

_INITIAL = "initial_"
#: Settings by which optimizers differ.
_OF_KINDS = (
    "betas", "momentum", "dampening", "nesterov", "alpha", "centered", "rho", "lr_decay", "lambd", "t0", "etas", "step_sizes",
    "momentum_decay", "amsgrad",
)  # fmt: skip
#: Settings of a group that choose how, not what, an optimizer computes, or that only say something about the group.
_SWITCHES = {"foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay", "group_name", "lr_scale"}


@dataclass(frozen=True)
class Wanted:
    """The optimizer that the new config makes.

    Attributes:
        kind: Name of its class.
        groups: Names of the parameters of each group.
        settings: Of each group, as far as they are plain.
        base: Settings without any multiplier; None if there is one group only.
    """

    kind: str
    groups: tuple[tuple[str, ...], ...]
    settings: tuple[Mapping[str, Any], ...]
    base: Mapping[str, Any] | None

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Wanted:
        """Read what `legacy_adapters.tasks.describing.groups` told."""
        groups = described["groups"]
        names = tuple(tuple(group["names"]) for group in groups)
        return cls(described["kind"], names, tuple(group["settings"] for group in groups), described["base"])


@dataclass(frozen=True)
class Fitted:
    """An optimizer's state for the new config's, and what the user should know of it, in sentences."""

    regrouped: Regrouped
    notes: tuple[str, ...]


def fit(
    saved: Mapping[str, Any], source: Layout, target: Layout, wanted: Wanted, rules: KeyMapping, kind: str | None
) -> Fitted:
    """Give the states and settings of an optimizer to the groups that the new config makes.

    Args:
        saved: `state_dict()` of the old optimizer, without stand-ins.
        source: Layout of the old model, in the order in which it makes its parameters.
        target: Layout of the new model.
        wanted: The new optimizer.
        rules: Make the new parameters of the old ones.
        kind: Class of the old optimizer; None if it is not known.

    Raises:
        OptimizerError: If the two do not fit.
    """
    groups, states = optimizer.parts(saved)
    _check_kind(groups, states, wanted, kind)
    names = _names(groups, source)
    optimizer.check_states(states, names, source)
    settings = [{key: value for key, value in group.items() if key not in IDENTITY} for group in groups]
    slot_of = {name: slot for slot, members in enumerate(names) for name in members.values()}
    state_of = {name: states[number] for members in names for number, name in members.items() if number in states}
    made = list(optimizer.parameters(rules, source.parameters, source, settings, slot_of, state_of))
    held = {name: slot for one, slot, _ in made for name in one.targets if slot is not None}
    carried = {name: state for *_, given in made for name, state in given.items()}
    grouped = [name for members in wanted.groups for name in members]
    trained = [name for name in grouped if name not in target.frozen]  # one group of all holds what is frozen, too
    _check_parameters(grouped, trained, held, carried)
    taken = [_slot(members, held, settings, number, wanted) for number, members in enumerate(wanted.groups)]
    _check_split(taken, wanted)
    if wanted.base is not None:
        taken.append(_base_slot(taken, settings, wanted, names))
    slots = Slots(len(settings), tuple(taken))
    regrouped = optimizer.put_together(saved, settings, slots, wanted.groups, carried)
    return Fitted(regrouped, (*_without_state(trained, carried), *_other_settings(regrouped, wanted)))


def _names(groups: Sequence[Mapping[str, Any]], source: Layout) -> list[dict[int, str]]:
    """Name the parameters of each group: by what the groups say, or by the order of the model."""
    told = [group.get("param_names") for group in groups]
    if all(isinstance(names, list) and len(names) == len(group["params"]) for names, group in zip(told, groups)):
        strange = [name for names in told for name in names if name not in source.parameters]
        if strange:
            raise OptimizerError(
                f"`param_names` of the optimizer's groups tell {len(strange)} name(s) that the model does not have: "
                f"{listed(strange)}; {ADVICE}."
            )
        return [dict(zip(group["params"], names)) for names, group in zip(told, groups)]
    return optimizer.names_of(groups, source)


def _check_kind(
    groups: Sequence[Mapping[str, Any]], states: Mapping[int, Any], wanted: Wanted, kind: str | None
) -> None:
    """Refuse an optimizer of another class, by its name or by settings that the new one does not have."""
    if kind is not None and kind != wanted.kind:
        raise OptimizerError(
            f"The source was trained with {kind}, and the new config makes {wanted.kind}, which cannot take up its state; set "
            f"`optim_wrapper.optimizer.type`, or {ADVICE}."
        )
    one, two = groups[0], wanted.settings[0]
    strange = [name for name in _OF_KINDS if (name in one) != (name in two)]
    strange += [name for name in ("decoupled_weight_decay",) if name in one and one[name] != two.get(name, one[name])]
    if strange:
        raise OptimizerError(
            f"The groups of the source's optimizer are of another one than {wanted.kind}, which the new config makes: "
            f"{listed(strange)} differ; set `optim_wrapper.optimizer.type`, or {ADVICE}."
        )


def _check_parameters(
    grouped: Iterable[str], trained: Sequence[str], held: Mapping[str, int], carried: Mapping[str, Any]
) -> None:
    absent = [name for name in grouped if name not in held]
    if absent:
        raise OptimizerError(
            f"The optimizer of the new config holds {len(absent)} parameter(s) that the source's does not: {listed(absent)}; "
            f"freeze them in the config as 2.x did, or {ADVICE}."
        )
    known = set(trained)
    frozen = [name for name, state in carried.items() if name not in known and _was_updated(state)]
    if frozen:
        raise OptimizerError(
            f"The source's optimizer has a state of {len(frozen)} parameter(s) that the new config does not train: "
            f"{listed(frozen)}; set `frozen_stages` and the like as in 2.x, or {ADVICE}."
        )


def _was_updated(state: Mapping[str, Any]) -> bool:
    """Tell whether an optimizer has ever changed a parameter; some have a state from the beginning."""
    step = state.get("step", 1)
    return bool(step.tolist() if isinstance(step, StoredTensor) else step)


def _slot(
    members: Sequence[str], held: Mapping[str, int], settings: Sequence[Mapping[str, Any]], number: int, wanted: Wanted
) -> int:
    """Return the source's group whose settings a group takes: one, or several with the same."""
    slots = list(dict.fromkeys(held[name] for name in members))
    other = [slot for slot in slots if settings[slot] != settings[slots[0]]]
    if other:
        first = next(name for name in members if held[name] == slots[0])
        second = next(name for name in members if held[name] == other[0])
        differ = [key for key in settings[slots[0]] if settings[slots[0]].get(key) != settings[other[0]].get(key)]
        what = "one group" if len(wanted.groups) == 1 else f"group {number}"
        raise OptimizerError(
            f"The new config puts `{first}` and `{second}` into {what}, and the source's optimizer has other {listed(differ)} for "
            f"each; give the new config the `paramwise_cfg` of 2.x, or {ADVICE}."
        )
    return slots[0]


def _check_split(taken: Sequence[int], wanted: Wanted) -> None:
    """Refuse groups that were one in the source and have multipliers of their own in the new config."""
    first: dict[int, int] = {}
    for number, slot in enumerate(taken):
        one, two = wanted.settings[first.setdefault(slot, number)], wanted.settings[number]
        differ = [key for key in one if key in two and one[key] != two[key]]
        if differ:
            raise OptimizerError(
                f"The source's optimizer has one group where the new config has {len(wanted.groups)} with settings of their own, "
                f"such as `{differ[0]}` of `{wanted.groups[number][0]}`; give it the `paramwise_cfg` of 2.x, or {ADVICE}."
            )


def _base_slot(
    taken: Sequence[int], settings: Sequence[Mapping[str, Any]], wanted: Wanted, names: Sequence[Mapping[int, str]]
) -> int:
    """Return the group whose settings stand for those without multipliers, which move no weight and are shown in logs."""
    same = [number for number, own in enumerate(wanted.settings) if all(own.get(key) == value for key, value in (wanted.base or {}).items() if key in own)]
    if same:
        return taken[same[0]]
    used = set(taken)
    left = [slot for slot in range(len(settings)) if slot not in used]
    return left[0] if left else taken[0]


def _without_state(trained: Sequence[str], carried: Mapping[str, Any]) -> tuple[str, ...]:
    none = [name for name in trained if name not in carried]
    if not none or not carried:
        return ()
    return (
        f"{len(none)} parameter(s) that the new config trains have no state in the source's optimizer: {listed(none)}. They had "
        "no gradient in 2.x, or were frozen there; they go on without a state.",
    )


def _other_settings(made: Regrouped, wanted: Wanted) -> tuple[str, ...]:
    """Say which settings of the new config are not those that the training goes on with."""
    differ: dict[str, tuple[Any, Any]] = {}
    for group, own in zip(made.state_dict["param_groups"], wanted.settings):
        for key, value in own.items():
            now = group.get(_INITIAL + key, group.get(key, value))
            now = list(now) if isinstance(now, tuple) else now
            if key not in _SWITCHES and now != value and not key.startswith(_INITIAL):
                differ.setdefault(key, (now, value))
    if not differ:
        return ()
    text = ", ".join(f"`{key}` {own} (new config: {new})" for key, (own, new) in differ.items())
    return (f"The training goes on with the settings of the source's optimizer: {text}.",)



