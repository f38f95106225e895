"""What stands in a checkpoint beside the weights, and how it is carried: averaged weights, optimizer, schedule, log.

The forms are those of mmengine's Runner (`Runner.save_checkpoint` and `Runner.resume`, 0.6.0 and 0.10.7 alike). What is
written can be resumed there under any torch: it holds nothing that `torch.load` refuses with `weights_only`.

EMA. `EMAHook.before_save_checkpoint` swaps: `state_dict` then holds the *averaged* weights, `ema_state_dict` the
*training* weights, with the prefix `module.`, and `steps`; `after_load_checkpoint` swaps back when training is resumed.
Only keys of the averaged model are swapped. What training sets as an attribute later, such as DDQ's second list of
branches, stays as it was in training, and differs from its averaged twin in `state_dict`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from converters.checkpoint import Checkpoint
from converters.errors import ConversionError, OptimizerError, PartsError, listed
from converters.inert_pickle import Foreign, NumpyArray
from converters.optimizer import Regrouped, Slots
from converters.plain import copied
from converters.stored import StoredTensor

MODEL, EMA, ALL = "model", "ema", "all"
KEEPS = (MODEL, EMA, ALL)
SAFETENSORS = ".safetensors"

_STATE_DICT, _EMA, _MODULE = "state_dict", "ema_state_dict", "module."
_OPTIMIZER, _SCHEDULES, _HUB, _META = "optimizer", "param_schedulers", "message_hub", "meta"
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
_PER_GROUP = ("base_values", "_last_value", "min_values")

Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Line:
    """What became of one part: its name at the top level of the file, what was done to it, and how, in words."""

    part: str
    action: str
    detail: str


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint, each set complete.

    Attributes:
        training: What the optimizer works on; with what training sets as an attribute.
        averaged: What an EMAHook made of them; None if there was none.
        ema_rest: What else belongs to the average, such as `steps`.
    """

    training: Tensors
    averaged: Tensors | None
    ema_rest: Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """Which parts are written.

    Attributes:
        keep: `model` for the training weights alone, `ema` for the averaged ones, `all` for everything.
        state_dict: The weights that the output's state dict is made of.
        beside: The training weights, where the output has both; else None.
    """

    keep: str
    state_dict: Tensors
    beside: Tensors | None


@dataclass(frozen=True)
class Carried:
    """What is written beside the state dict, by its name at the top level, and a line for every part of the source."""

    parts: Mapping[str, Any]
    lines: tuple[Line, ...]


def weights(loaded: Checkpoint) -> Weights:
    """Tell training weights from averaged ones.

    Raises:
        PartsError: If the averaged model is not that of the state dict.
    """
    ema = loaded.content.get(_EMA)
    if ema is None:
        return Weights(loaded.state_dict, None, {})
    if not isinstance(ema, dict):
        raise PartsError(f"`{_EMA}` of the source is no dict of tensors; pass --keep model.")
    swapped = {key.removeprefix(_MODULE): value for key, value in ema.items() if str(key).startswith(_MODULE)}
    strange = [
        key for key, value in swapped.items() if key not in loaded.state_dict or not isinstance(value, StoredTensor)
    ]
    if strange:
        raise PartsError(
            f"{len(strange)} key(s) of `{_EMA}` have no twin in `{_STATE_DICT}`: {listed(strange)}; expected the "
            f"weights that mmengine's EMAHook swaps on saving."
        )
    averaged = {key: loaded.state_dict[key] for key in swapped}
    rest = {key: value for key, value in ema.items() if not str(key).startswith(_MODULE)}
    return Weights({**loaded.state_dict, **swapped}, averaged, rest)


def choose(loaded: Checkpoint, keep: str | None, suffix: str) -> Choice:
    """Choose what is written to a file of that suffix.

    By default a .pth gets everything, and a .safetensors the weights that the source's state dict holds, which are the
    averaged ones where there are any.

    Raises:
        PartsError: If there are no averaged weights, or everything is to go into a .safetensors.
    """
    found = weights(loaded)
    if keep is None:
        keep = ALL if suffix != SAFETENSORS else MODEL if found.averaged is None else EMA
    if keep == ALL and suffix == SAFETENSORS:
        raise PartsError(
            "A .safetensors file holds weights only; for --keep all name an output that ends in .pth, or pass --keep "
            "model or --keep ema."
        )
    if keep == EMA and found.averaged is None:
        raise PartsError(
            f"The source holds no `{_EMA}`, so its weights are one set only; pass --keep model to convert that."
        )
    if keep == MODEL or found.averaged is None:
        return Choice(keep, found.training, None)
    return Choice(keep, found.averaged, found.training if keep == ALL else None)


def carry(
    loaded: Checkpoint,
    choice: Choice,
    convert_weights: Callable[[Tensors], Tensors],
    regroup: Callable[[Mapping[str, Any]], Regrouped] | None,
) -> Carried:
    """Carry what stands beside the state dict and `meta`.

    Args:
        loaded: The source.
        choice: What to write of it.
        convert_weights: Carries a state dict to the target's layout.
        regroup: Carries an optimizer's state to the target; None where the target is the source's own code.

    Raises:
        ConversionError: If a part does not fit the model.
    """
    rest = {str(key): value for key, value in loaded.content.items() if key not in (_META, _EMA)}
    if choice.keep != ALL:
        gone = [*([_EMA] if _EMA in loaded.content and choice.keep == MODEL else []), *rest]
        return Carried({}, tuple(Line(name, "left out", f"--keep {choice.keep}") for name in gone))
    carrying = _Carrying()
    if choice.beside is not None:
        carrying.ema(choice.beside, weights(loaded).ema_rest, convert_weights)
    slots = carrying.optimizer(rest.pop(_OPTIMIZER), regroup) if _OPTIMIZER in rest else None
    if _SCHEDULES in rest:
        carrying.schedules(rest.pop(_SCHEDULES), slots, rebuild=regroup is not None)
    if _HUB in rest or _OPTIMIZER in carrying.parts:
        carrying.hub(rest.pop(_HUB, None))
    for name, value in rest.items():
        carrying.plain(name, value)
    return Carried(carrying.parts, tuple(carrying.lines))


def meta(loaded: Checkpoint, side: str, to: str) -> tuple[dict[str, Any], tuple[Line, ...]]:
    """Return the plain part of the source's `meta` for the layout `to`, and a line if something was left out.

    The text of the config, `cfg`, describes the code of its own side: tools build a model of it. It is kept as
    `legacy_cfg` or `new_cfg` when the layout changes, and put back on the way back.
    """
    found = copied(loaded.content.get(_META, loaded.meta))
    values = found.value if isinstance(found.value, dict) else {}
    lines = (Line(_META, "left out", listed(found.left_out)),) if found.left_out else ()
    return _turned(values, side, to), lines


def _turned(values: Mapping[str, Any], side: str, to: str) -> dict[str, Any]:
    if side == to:
        return dict(values)
    own, other = f"{to}_cfg", f"{side}_cfg"
    turned = {key: value for key, value in values.items() if key not in ("cfg", own)}
    if "cfg" in values:
        turned[other] = values["cfg"]
    if own in values:
        turned["cfg"] = values[own]
    return turned


class _Carrying:
    """The parts that were carried so far, and a line for each."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}
        self.lines: list[Line] = []

    def ema(self, training: Tensors, rest: Mapping[str, Any], convert_weights: Callable[[Tensors], Tensors]) -> None:
        try:
            converted = convert_weights(training)
        except ConversionError as error:
            raise type(error)(f"In the training weights, which `{_EMA}` holds: {error}") from error
        others = self._copied(_EMA, rest)
        self._add(
            _EMA,
            {**{f"{_MODULE}{key}": tensor for key, tensor in converted.items()}, **others},
            "converted",
            f"{len(converted)} training weights; `{_STATE_DICT}` holds the averaged ones",
        )

    def optimizer(self, saved: Any, regroup: Callable[[Mapping[str, Any]], Regrouped] | None) -> Slots | None:
        plain = self._copied(_OPTIMIZER, saved, all_of="state")
        if regroup is None:
            self._add(_OPTIMIZER, plain, "kept", "its own code's groups")
            return None
        made = regroup(plain)
        self._add(
            _OPTIMIZER,
            made.state_dict,
            "rebuilt",
            f"{made.source_groups} groups -> {made.target_groups}, state of {made.states} parameters",
        )
        return made.slots

    def schedules(self, saved: Any, slots: Slots | None, rebuild: bool) -> None:
        plain = self._copied(_SCHEDULES, saved)
        if not rebuild:
            self._add(_SCHEDULES, plain, "kept", "its own code's groups")
        elif slots is None:
            self.lines.append(Line(_SCHEDULES, "left out", "no optimizer tells which groups they are for"))
        elif not isinstance(plain, list) or not all(isinstance(schedule, dict) for schedule in plain):
            raise OptimizerError(
                f"`{_SCHEDULES}` of the source is no list of schedules, as one optimizer has; pass --keep model to "
                "convert the weights alone."
            )
        else:
            rebuilt = [_per_group(schedule, slots) for schedule in plain]
            detail = f"{len(rebuilt)}, for {slots.held} -> {len(slots.taken)} groups (base settings counted)"
            self._add(_SCHEDULES, rebuilt, "rebuilt", detail)

    def hub(self, saved: Any) -> None:
        """Carry mmengine's message hub, which `Runner.resume` expects to find.

        Histories of logged numbers are objects, which `torch.load` refuses; their numbers go where a hub looks not.
        """
        hub = saved if isinstance(saved, dict) else {}
        scalars = hub.get("log_scalars", {})
        histories = {name: _history(value) for name, value in scalars.items()} if isinstance(scalars, dict) else {}
        known = {name: value for name, value in histories.items() if value is not None}
        rest = {key: value for key, value in hub.items() if key != "log_scalars"}
        made = {"runtime_info": {}, "resumed_keys": {}, **self._copied(_HUB, rest), "log_scalars": {}}
        made["resumed_keys"] = {
            key: made["resumed_keys"][key] for key in made["resumed_keys"] if key in made["runtime_info"]
        }
        made["log_history"] = {**made.get("log_history", {}), **known}
        self.lines += [
            Line(f"{_HUB}.log_scalars.{name}", "left out", "no history of numbers") for name in histories.keys() - known
        ]
        detail = f"{len(made['runtime_info'])} values; {len(known)} histories are in its `log_history`"
        self._add(_HUB, made, "kept" if hub else "added", detail if hub else "empty; a Runner resumes with one only")

    def plain(self, name: str, value: Any) -> None:
        self._add(name, self._copied(name, value), "kept", "as it was")

    def _copied(self, part: str, value: Any, all_of: str = "") -> Any:
        """Copy the plain part and tell what was left out; what stands under `all_of` must be plain altogether."""
        found = copied(value)
        for place in found.left_out:
            if all_of and place.startswith(f"{all_of}."):
                raise OptimizerError(f"`{part}.{place}` of the source is no number and no tensor; pass --keep model.")
            self.lines.append(Line(f"{part}.{place}".rstrip("."), "left out", "neither number nor text nor tensor"))
        return {} if found.value is None else found.value

    def _add(self, name: str, value: Any, action: str, detail: str) -> None:
        self.parts[name] = value
        self.lines.append(Line(name, action, detail))


def _per_group(schedule: Any, slots: Slots) -> Any:
    """Copy a schedule's state; lists with one value per group follow the groups, however deep they stand."""
    if isinstance(schedule, dict):
        for name in _PER_GROUP:
            listed_values = schedule.get(name)
            if isinstance(listed_values, list) and len(listed_values) != slots.held:
                raise OptimizerError(
                    f"`{name}` of a schedule has {len(listed_values)} values, expected {slots.held}, one per group of "
                    "the optimizer; pass --keep model to convert the weights alone."
                )
        return type(schedule)({key: _per_group(value, slots) for key, value in schedule.items()})
    if isinstance(schedule, list) and len(schedule) == slots.held and slots.held > 1:
        return slots.rebuilt(schedule)
    return [_per_group(value, slots) for value in schedule] if isinstance(schedule, list) else schedule


def _history(value: Any) -> dict[str, StoredTensor] | None:
    """Read the numbers of mmengine's HistoryBuffer: what was logged, and by how many samples each counts."""
    state = value.state if isinstance(value, Foreign) and value.name == _HISTORY else None
    arrays = [state.get(name) for name in ("_log_history", "_count_history")] if isinstance(state, dict) else []
    found = [array.values for array in arrays if isinstance(array, NumpyArray) and array.values is not None]
    return dict(zip(("values", "counts"), found)) if len(found) == 2 else None
