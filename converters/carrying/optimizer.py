"""Carry an optimizer's state to the other layout: its groups are made anew as the target's own code makes them.

A saved optimizer knows its parameters by number. Which number is which parameter follows from the order of the model's
parameters and from how mmengine groups them (`DefaultOptimWrapperConstructor.add_params`):

- with `paramwise_cfg`, every parameter gets a group of its own, in the order of the model. mmengine 0.6.0 makes one for
  frozen parameters, too (525 of one model); 0.10.7 leaves them out (408) and keeps `base_param_settings` beside its
  groups (`BaseOptimWrapper`), the settings without any multiplier, which schedulers see as one group more;
- without it, all parameters are in one group, frozen ones included.

Any other grouping hides which parameter is which and is refused.

Where a rule changes a parameter, it changes what the optimizer holds for each of its elements, such as averages of
gradients, alike. What it holds for the parameter as a whole, such as the number of steps, and the settings of its group
are given to every part; what is joined must have the same in all its parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from converters.errors import OptimizerError, listed
from converters.formats.stored import StoredTensor
from converters.rules import engine
from converters.rules.layout import Layout
from converters.rules.mapping import Application
from converters.rules.mapping import Mapping as KeyMapping

BASE = "base_param_settings"
_GROUPS, _STATE = "param_groups", "state"
_STEP = "step"  # what torch calls the count of a parameter's updates
IDENTITY = ("params", "param_names")  # which parameters a group holds; all else in it are settings
ADVICE = "pass --keep model to convert the weights alone"


@dataclass(frozen=True)
class Slots:
    """How the groups of the target follow from those of the source; what a scheduler lists per group follows, too.

    A slot is a group or, behind the last one, the base settings.

    Attributes:
        held: Number of the source's slots.
        taken: For each slot of the target: the slot of the source whose settings it takes.
    """

    held: int
    taken: tuple[int, ...]

    def rebuilt(self, values: Sequence[Any]) -> list[Any]:
        """Return what the target lists per slot, of what the source does."""
        return [values[slot] for slot in self.taken]


@dataclass(frozen=True)
class Regrouped:
    """An optimizer's state for the target.

    Attributes:
        state_dict: As the target's optimizer wrapper loads it.
        slots: How its groups follow from the source's.
        states: Number of parameters that have a state.
        source_groups: Number of groups in the source.
        target_groups: Number of groups in `state_dict`.
    """

    state_dict: dict[str, Any]
    slots: Slots
    states: int
    source_groups: int
    target_groups: int


@dataclass(frozen=True)
class Side:
    """One side's model and the way in which its code groups parameters.

    Attributes:
        layout: Of the model.
        frozen_groups: Frozen parameters have groups, and there are no base settings (mmengine 0.6.0); False for later
            versions.
    """

    layout: Layout
    frozen_groups: bool


def regroup(saved: Mapping[str, Any], source: Layout, target: Side, rules: KeyMapping) -> Regrouped:
    """Make the groups of `target` and number the states by them.

    Each group takes all settings (`lr`, `initial_lr`, `weight_decay`, `betas` ...) of its parameter's group in the
    source. A frozen parameter that has no group there takes the base settings, as mmengine 0.6.0 gives them to it.

    Args:
        saved: `state_dict()` of an optimizer wrapper, without stand-ins.
        source: Layout of the model that it belongs to.
        target: Where it is to be loaded.
        rules: Make the target's parameters; one that they drop loses its state, too.

    Raises:
        OptimizerError: If it is no optimizer of that model, groups parameters in a way that hides which is which, or
            treats parameters otherwise that the target has as one.
    """
    groups, states = parts(saved)
    names = names_of(groups, source)
    check_states(states, names, source)
    settings = [{key: value for key, value in group.items() if key not in IDENTITY} for group in groups]
    base = saved.get(BASE)
    if isinstance(base, Mapping):
        settings.append({key: value for key, value in base.items() if key not in IDENTITY})
    slot_of = {name: slot for slot, members in enumerate(names) for name in members.values()}
    state_of = {name: states[number] for members in names for number, name in members.items() if number in states}
    trained = _trained(names, states, source)
    single = len(groups) == 1
    wanted = names[0].values() if single else source.parameters if target.frozen_groups else trained
    made = list(parameters(rules, wanted, source, settings, slot_of, state_of))
    slots = {name: slot for one, slot, _ in made for name in one.targets}
    carried = {name: state for *_, given in made for name, state in given.items()}
    order = [name for name in target.layout.parameters if name in slots]
    if single:
        members, taken = [order], [0]
    else:
        default = _default_slot(names, settings, trained)
        members = [[name] for name in order]
        held = [slots[name] for name in order]
        taken = [default if slot is None else slot for slot in held] + ([] if target.frozen_groups else [default])
    return put_together(saved, settings, Slots(len(settings), tuple(taken)), members, carried)


def parameters(
    rules: KeyMapping,
    wanted: Iterable[str],
    source: Layout,
    settings: Sequence[Mapping[str, Any]],
    slot_of: Mapping[str, int],
    state_of: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Application, int | None, dict[str, Mapping[str, Any]]]]:
    """Yield every rule that makes a wanted parameter, the slot of its group, if it has one, and its targets' states."""
    wanted = set(wanted)
    for one in rules.applications(source.parameters):
        if wanted.isdisjoint(one.sources) or not one.targets:
            continue
        if not one.rule.changes_tensors:
            (name,), (new,) = one.sources, one.targets
            yield one, slot_of.get(name), {new: state_of[name]} if name in state_of else {}
            continue
        held = [slot_of[name] for name in one.sources if name in slot_of]
        if any(settings[slot] != settings[held[0]] for slot in held):
            raise OptimizerError(
                f"The optimizer's groups of {listed(one.sources)} have other settings, expected the same, for rule "
                f"{one.index} (`{one.rule.text}`) makes one parameter of them; {ADVICE}."
            )
        yield one, held[0] if held else None, _states(one, source, state_of)


def _states(
    one: Application, source: Layout, state_of: Mapping[str, Mapping[str, Any]]
) -> dict[str, Mapping[str, Any]]:
    """Make the states of a rule's targets of those of its sources; none if these have none."""
    states = [state_of.get(name) for name in one.sources]
    if all(state is None for state in states):
        return {}
    found: dict[str, dict[str, Any]] = {name: {} for name in one.targets}
    for key in dict.fromkeys(key for state in states for key in state or ()):
        values = {name: (state or {}).get(key) for name, state in zip(one.sources, states)}
        whole = key == _STEP or any(
            getattr(value, "shape", ()) != source.tensors[name].shape for name, value in values.items()
        )
        if not whole:
            for name, value in engine.made(one, values, rest=0.0):
                found[name][key] = value
        elif all(_is_same(value, values[one.sources[0]]) for value in values.values()):
            for name in one.targets:
                found[name][key] = values[one.sources[0]]
        else:
            raise OptimizerError(
                f"The optimizer's `{key}` of {listed(one.sources)} is not the same, expected so, for rule {one.index} "
                f"(`{one.rule.text}`) makes one parameter of them; {ADVICE}."
            )
    return found


def _is_same(one: Any, two: Any) -> bool:
    if isinstance(one, StoredTensor) and isinstance(two, StoredTensor):
        return engine.same_bits(one, two)
    return type(one) is type(two) and one == two


def put_together(
    saved: Mapping[str, Any],
    settings: Sequence[dict[str, Any]],
    slots: Slots,
    members: Sequence[Sequence[str]],
    states: Mapping[str, Any],
) -> Regrouped:
    """Put the optimizer together: `members` are the target's names of each group, `states` theirs."""
    rebuilt = slots.rebuilt(settings)
    numbers = {name: number for number, name in enumerate(name for names in members for name in names)}
    made: dict[str, Any] = {key: value for key, value in saved.items() if key not in (_STATE, _GROUPS, BASE)}
    kept = {numbers[name]: states[name] for name in numbers if name in states}
    made[_STATE] = kept
    made[_GROUPS] = [
        {**own, "params": [numbers[name] for name in names]} for names, own in zip(members, rebuilt[: len(members)])
    ]
    if len(rebuilt) > len(members):
        made[BASE] = {**rebuilt[-1], "params": StoredTensor.of("float32", (1,), bytes(4))}
    return Regrouped(made, slots, len(kept), len(saved[_GROUPS]), len(members))


def parts(saved: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], Mapping[int, Mapping[str, Any]]]:
    groups, states = saved.get(_GROUPS), saved.get(_STATE)
    if groups == []:
        raise OptimizerError(f"The optimizer has no group of parameters; {ADVICE}.")
    if not isinstance(groups, list) or not isinstance(states, Mapping):
        raise OptimizerError(
            f"The optimizer holds {listed(map(str, saved)) or 'nothing'}, expected `state` and `param_groups` of one "
            f"optimizer; {ADVICE}."
        )
    if not all(isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups):
        raise OptimizerError(f"A group of the optimizer has no list `params`; {ADVICE}.")
    numbers = [number for group in groups for number in group["params"]]
    known = {number for number in numbers if type(number) is int}
    if len(known) != len(numbers):
        raise OptimizerError(f"The optimizer's groups do not number their parameters, each by its own; {ADVICE}.")
    strange = [number for number in states if number not in known]
    if strange:
        raise OptimizerError(
            f"The optimizer has a state of parameter {strange[0]!r}, which is in none of its {len(groups)} groups; "
            f"{ADVICE}."
        )
    return groups, states


def names_of(groups: Sequence[Mapping[str, Any]], source: Layout) -> list[dict[int, str]]:
    """Name the parameters of each group: number to name."""
    everything = source.parameters
    trained = tuple(name for name in everything if name not in source.frozen)
    numbers = [number for group in groups for number in group["params"]]
    single = len(groups) == 1
    if not single and any(len(group["params"]) != 1 for group in groups):
        raise OptimizerError(
            f"The optimizer has {len(groups)} groups for {len(numbers)} parameters, which hides which is which; "
            f"expected a group for each, as mmengine makes with paramwise_cfg, or one group for all; {ADVICE}."
        )
    for names in (everything, trained):
        if len(names) == len(numbers):
            named = dict(zip(numbers, names))
            return [{number: named[number] for number in group["params"]} for group in groups]
    found = f"one group of {len(numbers)} parameters" if single else f"{len(groups)} groups"
    raise OptimizerError(
        f"The optimizer has {found}, expected {len(everything)} (all parameters of `{source.variant}`) or "
        f"{len(trained)} (those that it trains); {ADVICE}."
    )


def check_states(states: Mapping[int, Mapping[str, Any]], names: Sequence[Mapping[int, str]], source: Layout) -> None:
    """Refuse states that are not of the parameter that their number stands for."""
    named = {number: name for members in names for number, name in members.items()}
    for number, state in states.items():
        if not isinstance(state, Mapping):
            raise OptimizerError(f"The optimizer's state of `{named[number]}` is not a dict; {ADVICE}.")
        shape = source.tensors[named[number]].shape
        for key, value in state.items():
            found = getattr(value, "shape", ())
            if tuple(found) not in (shape, ()):
                raise OptimizerError(
                    f"The optimizer's `{key}` of parameter {number} has shape {list(found)}, expected {list(shape)} of "
                    f"`{named[number]}`; check the variant, or {ADVICE}."
                )


def _trained(names: Sequence[Mapping[int, str]], states: Mapping[int, Any], source: Layout) -> frozenset[str]:
    """Name what was trained: what the config trains, and what has a state all the same."""
    grouped = {number: name for members in names for number, name in members.items()}
    return frozenset(name for number, name in grouped.items() if name not in source.frozen or number in states)


def _default_slot(
    names: Sequence[Mapping[int, str]], settings: Sequence[Mapping[str, Any]], trained: frozenset[str]
) -> int:
    """Find the slot without multipliers: the base settings, else those of a frozen parameter, else the plainest group.

    The settings of frozen parameters and the base settings move no weight; schedulers and logs read them.
    """
    if len(settings) > len(names):
        return len(names)
    frozen = [slot for slot, members in enumerate(names) if trained.isdisjoint(members.values())]
    return frozen[0] if frozen else min(range(len(settings)), key=lambda slot: (len(settings[slot]), slot))
