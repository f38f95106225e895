"""What stands in a checkpoint beside the weights, and how it is carried: averaged weights, optimizer, schedule, log.

The forms are those of mmengine's Runner (`Runner.save_checkpoint` and `Runner.resume`, 0.6.0 and 0.10.7 alike). What is
written can be resumed there under any torch: it holds nothing that `torch.load` refuses with `weights_only`. Averages
of other tools (see `averages`) are written in mmengine's form, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.carrying.optimizer import Regrouped, Slots
from converters.errors import CheckpointError, ConversionError, MalformedError, OptimizerError, PartsError
from converters.formats.plain import copied
from converters.formats.stand_ins import Foreign, NumpyArray
from converters.formats.stored import StoredTensor
from converters.mmcv1 import saved
from converters.mmcv1.averages import are_swapped
from converters.reading import averages
from converters.reading.averages import AVERAGED, TRAINING, Weights
from converters.reading.checkpoint import MANIFEST_KEY, Checkpoint
from legacy_adapters.ground.names import NEW

if TYPE_CHECKING:
    from converters.rules.engine import Conversion

MODEL, EMA, ALL = "model", "ema", "all"
KEPT, REBUILT, LEFT_OUT = "kept", "rebuilt", "left out"

_EMA, _MODULE, _STEPS = averages.EMA, averages.MODULE, averages.STEPS
_OPTIMIZER, _SCHEDULES, _HUB, _META = "optimizer", "param_schedulers", "message_hub", "meta"
_HISTORY = "mmengine.logging.history_buffer.HistoryBuffer"
OWN = ("family", "variant", "layout", "tool", "tool_version")  # what a conversion writes into `meta`
_OF_CODE = ("cfg", "config", "mmcv_version", "mmdet_version", "mmengine_version")  # what `meta` says of its side's code
_PER_GROUP = ("base_values", "_last_value", "min_values")
_ADVICE = "pass --keep model to convert the weights alone"

Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Line:
    """What became of one part: its name at the top level of the file, what was done to it, and how, in words."""

    part: str
    action: str
    detail: str


@dataclass(frozen=True)
class Choice:
    """Which weights are written.

    Attributes:
        keep: `model` for the training weights alone, `ema` for the averaged ones, `all` for everything.
        held: Both sets of the source.
    """

    keep: str
    held: Weights

    @property
    def averaged_first(self) -> bool:
        """Tell whether the output's state dict is made of the averaged weights."""
        return self.keep != MODEL and self.held.averaged is not None

    @property
    def state_dict(self) -> Tensors:
        """The weights that the output's state dict is made of, and what training left at their place."""
        if not self.averaged_first:
            return self.held.training
        return {**(self.held.averaged or {}), **self.held.late}

    @property
    def originals(self) -> Tensors:
        """The weights of which those are copies that training saves twice."""
        return self.held.training if self.held.late or not self.averaged_first else self.held.averaged or {}

    @property
    def other(self) -> Tensors | None:
        """The other set, less what is in the first already; None if there is one set only."""
        if self.held.averaged is None:
            return None
        if not self.averaged_first:
            return self.held.averaged
        return {key: tensor for key, tensor in self.held.training.items() if key not in self.held.late}

    @property
    def names(self) -> tuple[str, str]:
        """What the first and the other set are."""
        return (AVERAGED, TRAINING) if self.averaged_first else (TRAINING, AVERAGED)

    @property
    def places(self) -> tuple[str, str]:
        """Where the first and the other set stand in the source."""
        training, averaged = self.held.places
        return (averaged, training) if self.averaged_first else (training, averaged)

    def told(self, error: ConversionError) -> ConversionError:
        """Say of which weights an error tells, if they are not those that a tool takes from the source."""
        if self.held.averaged is None or self.places[0] == self.held.own:
            return error
        name, place = self.names[0], self.places[0]
        advice = f" Pass --keep {MODEL if self.averaged_first else EMA} to convert the others."
        return type(error)(f"The {name}, which stand in `{place}`, do not fit: {error}{advice}")


@dataclass(frozen=True)
class Carried:
    """What is written beside the state dict, by its name at the top level, and a line for every part of the source.

    `beside` is the conversion of the training weights, where they are written beside the averaged ones.
    """

    parts: Mapping[str, Any]
    lines: tuple[Line, ...]
    beside: Conversion | None = None


def weights(loaded: Checkpoint, keep: str | None = None, old: Mapping[str, Any] | None = None) -> Weights:
    """Tell training weights from averaged ones; for the other arguments see `choose`.

    Raises:
        PartsError: If the averaged model is not that of the state dict.
    """
    swapped = are_swapped(saved.config(loaded.meta) if old is None else old, loaded.path.name) if loaded.averages else None
    try:
        return averages.find(loaded.state_dict, place(loaded), loaded.averages, loaded.content, loaded.meta, swapped)
    except averages.UnusableError:
        if keep != MODEL:
            raise
        return Weights(loaded.state_dict, own=place(loaded))


def place(loaded: Checkpoint) -> str:
    """Say where the state dict of a checkpoint stands."""
    return loaded.wrapping.key or "its top level"


def given(loaded: Checkpoint) -> Choice:
    """Choose the weights that a tool takes from a checkpoint: those of its state dict, be they averaged or not.

    Raises:
        PartsError: As `weights` does.
    """
    held = weights(loaded)
    return Choice(EMA if held.averaged is not None and held.places[1] == held.own else MODEL, held)


def choose(
    loaded: Checkpoint, keep: str | None, weights_only: str | None, old: Mapping[str, Any] | None = None
) -> Choice:
    """Choose what is written.

    Args:
        loaded: The source.
        keep: `model`, `ema` or `all`. None means everything; of weights alone the averaged ones where there are any.
        weights_only: Why nothing but weights can be written, such as "A .safetensors file"; None if all can.
        old: Config of mmcv 1.x that the training had; None for the one in the source, if it has one.

    Raises:
        PartsError: If there are no averaged weights, or everything is asked for where it cannot be written.
    """
    found = weights(loaded, keep, old)
    if keep == ALL and weights_only:
        raise PartsError(
            f"{weights_only} holds weights only, so --keep all is impossible; write a whole .pth, or pass --keep model "
            "or --keep ema."
        )
    if keep is None:
        keep = ALL if not weights_only else EMA if found.averaged is not None or found.single == AVERAGED else MODEL
    if keep == MODEL and found.single == AVERAGED:
        raise PartsError(
            f"The source holds averaged weights alone, in `{found.own}`; pass --keep ema to convert these."
        )
    if keep == EMA and found.averaged is None and found.single != AVERAGED:
        raise PartsError(
            f"The source holds no averaged weights (looked for `{_EMA}` and names like `ema`, `model_ema`)"
            f"{''.join(f'; {note[:-1]}' for note in found.notes)}; pass --keep model to convert its one set."
        )
    if keep == ALL and found.averaged is not None and found.steps is None and "optimizer" in loaded.content:
        raise PartsError(
            f"The source does not say how often its average in `{found.places[1]}` was updated, which resuming needs; "
            "pass --keep ema or --keep model to convert one set of weights."
        )
    return Choice(keep, found)


def carry(
    loaded: Checkpoint,
    choice: Choice,
    convert_weights: Callable[[Tensors], Conversion],
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
        CheckpointError: If a part is made to take much time or memory.
    """
    apart = (_META, *choice.held.held_by)
    rest = {str(key): value for key, value in loaded.content.items() if key not in apart and value is not None}
    if choice.keep != ALL:
        return Carried({}, tuple(_left_out(choice, rest)))
    carrying = _Carrying(loaded)
    if choice.other is not None:
        carrying.ema(choice, convert_weights)
    slots = carrying.optimizer(rest.pop(_OPTIMIZER), regroup) if _OPTIMIZER in rest else None
    if _SCHEDULES in rest:
        carrying.schedules(rest.pop(_SCHEDULES), slots, rebuild=regroup is not None)
    if _HUB in rest or _OPTIMIZER in carrying.parts:
        carrying.hub(rest.pop(_HUB, None), own_config=regroup is None)
    for name, value in rest.items():
        carrying.other(name, value)
    return Carried(dict(sorted(carrying.parts.items())), tuple(carrying.lines), carrying.beside)


def _left_out(choice: Choice, rest: Mapping[str, Any]) -> Iterator[Line]:
    """Yield a line for everything that weights alone leave out."""
    why = f"--keep {choice.keep}"
    if choice.other is not None:
        yield Line(choice.names[1], LEFT_OUT, f"{len(choice.other)} of `{choice.places[1]}`, for {why}")
        yield from (Line(place, LEFT_OUT, f"{why}: weights alone") for place in choice.held.left_out)
        if choice.held.rest:
            yield Line(f"{_EMA}.{_STEPS}", LEFT_OUT, f"{why}: weights alone")
    yield from (Line(name, LEFT_OUT, f"{why}: weights alone") for name in rest)


def meta(source: Mapping[str, Any], side: str, to: str) -> dict[str, Any]:
    """Return a checkpoint's `meta` for the layout `to`.

    The text of the config, `cfg`, describes the code of its own side, and tools build a model of it; versions of
    packages are of that code, too. So these are kept as `legacy_cfg`, `legacy_mmdet_version` or `new_cfg` ... when the
    layout changes, and put back on the way back. Names of classes, which mmcv 1.x has as `CLASSES`, get the place that
    mmengine expects, too.
    """
    if side == to:
        return dict(source)
    source = {**source, **_dataset(source)} if to == NEW else source
    of_code = {f"{side}_{key}": source[key] for key in _OF_CODE if key in source}
    back = {f"{to}_{key}": key for key in _OF_CODE}
    return {**{back.get(key, key): value for key, value in source.items() if key not in _OF_CODE}, **of_code}


def _dataset(source: Mapping[str, Any]) -> dict[str, Any]:
    names, colours = source.get("CLASSES"), source.get("PALETTE")
    if not isinstance(names, (list, tuple)) or "dataset_meta" in source:
        return {}
    return dict(dataset_meta=dict(classes=tuple(names), **({} if colours is None else dict(palette=colours))))


def meta_lines(loaded: Checkpoint, side: str, to: str) -> tuple[Line, ...]:
    """Return a line for everything in a checkpoint's `meta` that its conversion to the layout `to` leaves out."""
    lines = [
        Line(f"{_META}.{place}" if place else _META, LEFT_OUT, f"an object of {kind}")
        for place, kind in loaded.meta_left_out
    ]
    if MANIFEST_KEY not in loaded.meta:
        lines += [Line(f"{_META}.{key}", LEFT_OUT, "a name of ddq-convert's own") for key in OWN if key in loaded.meta]
    lines += [
        Line(f"{_META}.{side}_{key}", LEFT_OUT, f"`{key}` takes its place")
        for key in _OF_CODE
        if side != to and key in loaded.meta and f"{side}_{key}" in loaded.meta
    ]
    return tuple(lines)


class _Carrying:
    """The parts of a checkpoint that were carried so far, and a line for each."""

    def __init__(self, loaded: Checkpoint) -> None:
        self._path = loaded.path
        self.parts: dict[str, Any] = {}
        self.lines: list[Line] = []
        self.beside: Conversion | None = None

    def ema(self, choice: Choice, convert_weights: Callable[[Tensors], Conversion]) -> None:
        """Put the training weights where mmengine has them, beside an average: see `averages`."""
        held = choice.held
        try:
            self.beside = convert_weights(choice.other or {})
        except ConversionError as error:
            raise type(error)(
                f"The training weights, which stand in `{choice.places[1]}`, do not fit: {error}"
            ) from error
        training, rest = self.beside.state_dict, self._plain(_EMA, held.rest) or {}
        if _STEPS not in rest:
            rest[_STEPS] = StoredTensor.of("int64", (), (held.steps or 1).to_bytes(8, "little"))
        origin = "" if choice.places[1] == _EMA else f" from `{choice.places[1]}` of the source"
        self.lines += [Line(place, LEFT_OUT, "mmengine's averages have no place for it") for place in held.left_out]
        self._add(
            _EMA,
            {**{f"{_MODULE}{key}": tensor for key, tensor in training.items()}, **rest},
            "converted",
            f"{len(training)} training weights{origin}; the averaged ones stand in `state_dict`",
        )

    def optimizer(self, saved: Any, regroup: Callable[[Mapping[str, Any]], Regrouped] | None) -> Slots | None:
        plain = self._plain(_OPTIMIZER, saved, needed=("state", "param_groups"))
        if regroup is None:
            self._add(_OPTIMIZER, plain, KEPT, "for the same code")
            return None
        made = regroup(plain if isinstance(plain, dict) else {})
        detail = f"{made.source_groups} groups -> {made.target_groups}; state of {made.states} parameters"
        self._add(_OPTIMIZER, made.state_dict, REBUILT, detail)
        return made.slots

    def schedules(self, saved: Any, slots: Slots | None, rebuild: bool) -> None:
        plain = self._plain(_SCHEDULES, saved)
        if not rebuild:
            self._add(_SCHEDULES, plain, KEPT, "for the same code")
        elif slots is None:
            self.lines.append(Line(_SCHEDULES, LEFT_OUT, "without an optimizer their groups are not known"))
        elif not isinstance(plain, list) or not all(isinstance(schedule, dict) for schedule in plain):
            raise OptimizerError(f"`{_SCHEDULES}` is not a list of schedules, as one optimizer has them; {_ADVICE}.")
        else:
            rebuilt = [_per_group(schedule, slots) for schedule in plain]
            detail = f"{len(rebuilt)} schedules, {slots.held} values each -> {len(slots.taken)}"
            self._add(_SCHEDULES, rebuilt, REBUILT, detail)

    def hub(self, saved: Any, own_config: bool) -> None:
        """Carry mmengine's message hub, which `Runner.resume` expects to find.

        Histories of logged numbers are objects of mmengine, which `torch.load` refuses. Their numbers go to
        `log_history`, where a hub does not look: it goes on with new histories.
        """
        hub = saved if isinstance(saved, dict) else {}
        scalars = hub.get("log_scalars")
        found = {name: _history(value) for name, value in scalars.items()} if isinstance(scalars, dict) else {}
        histories = {name: history for name, history in found.items() if history is not None}
        made = self._plain(_HUB, {key: value for key, value in hub.items() if key != "log_scalars"}) or {}
        info, resumed, earlier = (
            made[key] if isinstance(made.get(key), dict) else {}
            for key in ("runtime_info", "resumed_keys", "log_history")
        )
        if not own_config:
            info.pop("cfg", None)  # of the other code; a Runner has its own
        resumed = {key: value for key, value in resumed.items() if key in info}
        made |= dict(log_scalars={}, runtime_info=info, resumed_keys=resumed, log_history={**earlier, **histories})
        lost = f", {len(found) - len(histories)} are not numbers" if len(found) > len(histories) else ""
        detail = f"{len(info)} values, {len(histories)} histories{lost}"
        self._add(_HUB, made, KEPT if hub else "added", detail if hub else "empty, because a Runner expects one")

    def other(self, name: str, value: Any) -> None:
        """Keep a part under its name, or under another where what was converted stands under that."""
        plain, place = self._plain(name, value), name
        while place in (averages.STATE_DICT, *self.parts):
            place = f"source {place}"
        if plain is not None:
            self.parts[place] = plain
            self.lines.append(Line(name, KEPT, "as it was" if place == name else f"as it was, now `{place}`"))

    def _plain(self, part: str, value: Any, needed: tuple[str, ...] = ()) -> Any:
        """Copy the plain part and tell what was left out; refuse that below `needed`."""
        try:
            found = copied(value)
        except MalformedError as error:
            raise CheckpointError(f"Cannot read `{part}` of the checkpoint `{self._path}`: {error}.") from error
        for place, kind in found.left_out:
            where = f"{part}.{place}" if place else part
            if place.startswith(needed):
                raise OptimizerError(f"`{where}` is an object of {kind}, expected numbers and tensors; {_ADVICE}.")
            self.lines.append(Line(where, LEFT_OUT, f"an object of {kind}"))
        return found.value

    def _add(self, name: str, value: Any, action: str, detail: str) -> None:
        self.parts[name] = value
        self.lines.append(Line(name, action, detail))


def _per_group(schedule: Any, slots: Slots) -> Any:
    """Copy a schedule's state; lists with one value per group follow the groups, however deep they stand."""
    if isinstance(schedule, dict):
        for name in _PER_GROUP:
            values = schedule.get(name)
            if isinstance(values, list) and len(values) != slots.held:
                raise OptimizerError(
                    f"`{name}` of a schedule has {len(values)} values, expected {slots.held}, one for each of the "
                    f"optimizer's groups; {_ADVICE}."
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
