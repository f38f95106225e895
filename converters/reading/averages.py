"""Averaged weights in checkpoints: where they stand, in the forms in which trainings save them.

mmengine: `EMAHook.before_save_checkpoint` swaps, so that `state_dict` holds the *averaged* weights, and
`ema_state_dict` the *training* weights, with the prefix `module.`, and `steps`; `after_load_checkpoint` swaps back when
training is resumed. Only keys of the averaged model are swapped. What training sets as an attribute later, such as
a second list of branches, stays as it was in training, and differs from its averaged twin in `state_dict`.

mmcv 1.x: buffers of the model, `ema_` and the name with `_` for dots. mmdet's configs run the hook before the saving
(priority 49), which swaps as above: the plain names are averaged. Of others the config tells (`converters.mmcv1.averages`).

Others: the averages stand in a dict of their own, such as `state_dict_ema` (timm), `ema.module` (trainings with a wrapper of their own),
`ema_model`, or among the tensors of the state dict under another prefix (Lightning), and nothing is swapped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from converters.errors import PartsError, listed
from converters.formats.stand_ins import Foreign
from converters.formats.stored import StoredTensor

STATE_DICT, EMA = "state_dict", "ema_state_dict"
WEIGHTS, TRAINING, AVERAGED = "weights", "training weights", "averaged weights"
STEPS, MODULE = "steps", "module."
AVERAGED_MODEL = ("n_averaged", STEPS)  # what torch's and mmengine's averaged models have beside the weights
MMENGINE, MMCV, OTHER = "mmengine's EMAHook", "mmcv 1.x's EMAHook", "averages beside the weights"

_ENOUGH = 0.5  # share of the model's keys; below it a dict of tensors is something else
_DEEPEST = 3  # dicts within dicts in which an average is looked for
_CALLED_SO = re.compile(r"(?<![a-z])(ema|emas|avg|average|averaged|swa|shadow|polyak)(?![a-z])", re.IGNORECASE)
_WRAPPERS = re.compile(r"^(?:(?:module|model|_orig_mod|ema|ema_model|model_ema)\.)+")
_AMONG = re.compile(r"^(?:(?:module|_orig_mod)\.)*(?:ema_model\.|model_ema\.|averaged_model\.|ema\.|ema_)")
_COUNTERS = (STEPS, "updates", "num_updates", "n_averaged", "ema_updates", "ema_steps")
_ITERATIONS = ("iter", "global_step", "iteration")
_OF_TRAINING = ("optim", "message_hub", "param_sched", "lr_sched", "scheduler", "scaler")  # begin of names
_BUFFERS = re.compile(r"\.(running_mean|running_var|num_batches_tracked|relative_position_index)$")
_SWAPPED = (
    "The averages are those of mmcv 1.x, which swaps: the plain names of the source hold the averaged weights and "
    "`ema_...` those of training, if the hook ran before the saving, as in mmdet's configs (priority 49). If it ran "
    "afterwards, it is the other way round, and --keep model takes the averaged ones."
)
_TOLD = (
    "The averages are those of mmcv 1.x. By the config of the training the plain names of the source hold the {own} weights, "
    "and `ema_...` the {other} ones."
)

Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class Weights:
    """The weights of a checkpoint, each set complete.

    Attributes:
        training: What the optimizer works on; with what training sets as an attribute. If there is one set only, that.
        averaged: What an average made of them; None if there is one set only.
        own: Where the weights stand that a tool takes from the file.
        single: What these are where there is one set only.
        late: What `training` has from the place of the averaged set, for the average lacks it: tensors that training
            set as attributes, with the values of training.
        places: Where the training and the averaged set stand in the file.
        form: Who saved them so.
        steps: How often the average was updated; None if that is not known.
        rest: What else stands with mmengine's averages.
        held_by: Top-level keys of the file that hold one of the sets.
        left_out: What stands with a foreign average and is not taken.
        notes: What the user should know, in sentences.
    """

    training: Tensors
    averaged: Tensors | None = None
    own: str = STATE_DICT
    single: str = WEIGHTS
    late: Tensors = field(default_factory=dict)
    places: tuple[str, str] = (STATE_DICT, EMA)
    form: str = ""
    steps: int | None = None
    rest: Mapping[str, Any] = field(default_factory=dict)
    held_by: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class UnusableError(PartsError):
    """What is called an average cannot be used; the weights in the state dict are those of training all the same."""


def called_averaged(name: str) -> bool:
    """Tell whether a name is one that trainings give to averaged weights."""
    return _CALLED_SO.search(name) is not None


def split(state_dict: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a state dict from the averages that stand among its keys; the second is empty where there are none.

    A training's name is the average's with another prefix, and with `_` or nothing for dots in some forms.
    """
    among = {key: value for key, value in state_dict.items() if isinstance(key, str) and _AMONG.match(key)}
    if not among:
        return dict(state_dict), {}
    own = {key: value for key, value in state_dict.items() if key not in among}
    names = _spelled(own)
    hits = sum(_name(key, names) is not None for key in among)
    if hits < max(1, len(among) * _ENOUGH):
        return dict(state_dict), {}
    return own, among


def find(
    state_dict: Tensors,
    own: str,
    among: Tensors,
    content: Mapping[Any, Any],
    meta: Mapping[str, Any],
    swapped: bool | None = None,
) -> Weights:
    """Tell training weights from averaged ones.

    Args:
        state_dict: The weights that a tool takes from the file, by the model's names.
        own: Where they stand.
        among: Averages that stood among them, by their own keys.
        content: What stands beside the state dict.
        meta: The file's plain metadata.
        swapped: Whether the model's own names hold the averages, of mmcv's form; None if that is not known.

    Raises:
        UnusableError: If there is an average that is not one of these weights.
        PartsError: If mmengine's average is not one of the state dict.
    """
    held = content.get(EMA)
    if isinstance(held, dict) and STEPS in held:
        return _of_mmengine(state_dict, own, held)
    if among:
        return _of_those_among(state_dict, own, among, content, meta, swapped)
    notes, fitting = [], []
    for name, value in content.items():
        if not isinstance(name, str) or value is None:
            continue
        if not called_averaged(name):
            sets = [] if name.lower().startswith(_OF_TRAINING) else dicts(value, name)
            notes += [_another(place, own) for place, tensors in sets if _fits(tensors, state_dict)]
            continue
        fits = [(name, place, tensors) for place, tensors in dicts(value, name) if _fits(tensors, state_dict)]
        fitting += fits
        notes += [] if fits else [_not_taken(name, value)]
    if fitting:
        (top, place, tensors), *others = fitting
        notes += [
            f"`{other}` holds averaged weights, too; those in `{place}` are taken, and `{other}` is not converted."
            for _, other, _ in others
        ]
        found = _beside(state_dict, own, (top, place), tensors, content, meta)
        return replace(found, notes=(*found.notes, *notes))
    if held is not None:
        raise UnusableError(
            f"`{EMA}` of the source holds no weights as mmengine's EMAHook saves them (keys `{MODULE}...` and "
            f"`{STEPS}`), nor others of the model; pass --keep model to take `{STATE_DICT}` alone."
        )
    averaged_only = any(map(called_averaged, own.split("."))) or any(name in content for name in AVERAGED_MODEL)
    return Weights(state_dict, own=own, single=AVERAGED if averaged_only else WEIGHTS, notes=tuple(notes))


def _of_mmengine(state_dict: Tensors, own: str, held: Mapping[Any, Any]) -> Weights:
    swapped = {
        _bare(key.removeprefix(MODULE), state_dict): value for key, value in held.items() if str(key).startswith(MODULE)
    }
    if not swapped:
        raise UnusableError(
            f"`{EMA}` of the source holds no weights as mmengine's EMAHook saves them (keys `{MODULE}...`); pass "
            f"--keep model to take `{STATE_DICT}` alone."
        )
    strange = [key for key, value in swapped.items() if key not in state_dict or not isinstance(value, StoredTensor)]
    if strange:
        raise PartsError(
            f"{len(strange)} key(s) of `{EMA}` have no twin in `{STATE_DICT}`: {listed(strange)}; expected the "
            "weights that mmengine's EMAHook swaps on saving."
        )
    return Weights(
        training={**state_dict, **swapped},
        averaged={key: state_dict[key] for key in swapped},
        late={key: tensor for key, tensor in state_dict.items() if key not in swapped},
        own=own,
        places=(EMA, own),
        form=MMENGINE,
        steps=_number(held[STEPS]),
        rest={key: value for key, value in held.items() if not str(key).startswith(MODULE)},
        held_by=(EMA,),
    )


def _of_those_among(
    state_dict: Tensors,
    own: str,
    among: Tensors,
    content: Mapping[Any, Any],
    meta: Mapping[str, Any],
    swapped: bool | None,
) -> Weights:
    names = _spelled(state_dict)
    named = {key: _name(key, names) for key in among}
    other = {name: among[key] for key, name in named.items() if name is not None}
    unused = [f"{own}.{key}" for key, name in named.items() if name is None]
    steps = _steps({key.rpartition(".")[2]: value for key, value in among.items() if named[key] is None}, content, meta)
    prefixes = sorted({match.group() for match in map(_AMONG.match, among) if match})
    place = f"{own}.{prefixes[0]}*"
    complete, notes = _with_buffers(other, state_dict, place, own)
    is_mmcv = prefixes[0].endswith("ema_")
    if not is_mmcv or swapped is False:
        return Weights(
            training=state_dict,
            averaged=complete,
            own=own,
            places=(own, place),
            form=MMCV if is_mmcv else OTHER,
            steps=steps,
            left_out=tuple(unused),
            notes=(*notes, *([_TOLD.format(own="training", other="averaged")] if is_mmcv else [])),
        )
    return Weights(
        training=complete,
        averaged=state_dict,
        own=own,
        places=(place, own),
        form=MMCV,
        steps=steps,
        left_out=tuple(unused),
        notes=(*notes, _SWAPPED if swapped is None else _TOLD.format(own="averaged", other="training")),
    )


def _beside(
    state_dict: Tensors,
    own: str,
    at: tuple[str, str],
    tensors: Mapping[Any, Any],
    content: Mapping[Any, Any],
    meta: Mapping[str, Any],
) -> Weights:
    (top, place), taken = at, _by_name(tensors, state_dict)
    used = {id(tensor) for tensor in taken.values()}
    numbers = {**_numbers_in(content[top]), **tensors}
    unused = [
        f"{place}.{key}" for key, value in tensors.items() if id(value) not in used and _short(key) not in _COUNTERS
    ]
    strange = [key for key in unused if isinstance(tensors[key.removeprefix(f"{place}.")], StoredTensor)]
    if strange:
        raise UnusableError(
            f"{len(strange)} key(s) of the averaged weights in `{place}` have no twin in the weights of training: "
            f"{listed(strange)}; pass --keep model to leave the average out."
        )
    unused += [f"{top}.{key}" for key in _numbers_in(content[top]) if key not in _COUNTERS] if top != place else []
    averaged, notes = _with_buffers(taken, state_dict, place, own)
    return Weights(
        training=state_dict,
        averaged=averaged,
        own=own,
        places=(own, place),
        form=OTHER,
        steps=_steps(numbers, content, meta),
        held_by=(top,),
        left_out=tuple(unused),
        notes=notes,
    )


def _with_buffers(other: Tensors, weights: Tensors, place: str, own: str) -> tuple[Tensors, tuple[str, ...]]:
    """Give a set of parameters alone the buffers of the weights that it belongs to, and say so."""
    buffers = {key: tensor for key, tensor in weights.items() if key not in other and _BUFFERS.search(key)}
    if not buffers:
        return other, ()
    note = f"`{place}` lacks {len(buffers)} buffers ({listed(buffers, 1)}); they are taken from `{own}`."
    return {**other, **buffers}, (note,)


def dicts(value: Any, place: str) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield every dict that holds tensors, the outer ones first, with its place; each once, and not too deep."""
    level, seen = {place: value} if isinstance(value, dict) else {}, set()
    for _ in range(_DEEPEST):
        below = {}
        for where, held in level.items():
            if any(isinstance(item, StoredTensor) for item in held.values()):
                yield where, held
            for key, item in held.items():
                if isinstance(item, dict) and id(item) not in seen:
                    seen.add(id(item))
                    below[f"{where}.{key}"] = item
        level = below


def _by_name(tensors: Mapping[Any, Any], state_dict: Tensors) -> dict[str, StoredTensor]:
    """Return the tensors that are called like some of the model's, by these names."""
    named = ((_bare(str(key), state_dict), value) for key, value in tensors.items() if isinstance(value, StoredTensor))
    return {name: value for name, value in named if name in state_dict}


def _fits(tensors: Mapping[Any, Any], state_dict: Tensors) -> bool:
    return len(_by_name(tensors, state_dict)) >= _ENOUGH * len(state_dict)


def _bare(key: str, names: Mapping[str, Any]) -> str:
    """Return a key without what wrappers put before it, unless it is a name as it is."""
    return key if key in names else _WRAPPERS.sub("", key)


def _spelled(state_dict: Mapping[str, Any]) -> dict[str, str]:
    """Return the state dict's keys by every spelling in which an average may have them."""
    names: dict[str, str] = {}
    for key in state_dict:
        bare = _WRAPPERS.sub("", str(key))
        for spelling in (key, bare):
            names |= {spelling.replace(".", ""): key, spelling.replace(".", "_"): key, spelling: key}
    return names


def _name(key: str, names: Mapping[str, str]) -> str | None:
    rest = _AMONG.sub("", key)
    return names.get(rest, names.get(_WRAPPERS.sub("", rest)))


def _steps(numbers: Mapping[Any, Any], content: Mapping[Any, Any], meta: Mapping[str, Any]) -> int | None:
    """Return how often an average was updated: by its own count, else by the steps of the training."""
    for held, names in ((numbers, _COUNTERS), (content, _COUNTERS[1:]), (meta, _ITERATIONS), (content, _ITERATIONS)):
        for key, value in held.items():
            found = _number(value) if _short(key) in names else None
            if found is not None and found > 0:
                return found
    return None


def _number(value: Any) -> int | None:
    if isinstance(value, StoredTensor):
        if value.shape not in ((), (1,)) or value.dtype not in ("int64", "int32", "float32"):
            return None
        value = value.tolist()[0] if value.shape else value.tolist()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return int(value) if is_number else None


def _numbers_in(value: Any) -> dict[str, Any]:
    """Return what stands in a dict beside further dicts."""
    held = value if isinstance(value, dict) else {}
    return {str(key): item for key, item in held.items() if not isinstance(item, dict)}


def _short(key: Any) -> str:
    return str(key).rpartition(".")[2]


def _another(place: str, own: str) -> str:
    return f"`{place}` holds another set of such weights, which is not converted; --key {place} takes it for `{own}`."


def _not_taken(name: str, value: Any) -> str:
    what = f"an object of {value.name}" if isinstance(value, Foreign) else f"of type {type(value).__name__}"
    if isinstance(value, dict):
        count = sum(isinstance(item, StoredTensor) for _, held in dicts(value, name) for item in held.values())
        what = f"a dict with {count} tensors, of which too few are called like the model's"
    return f"`{name}` is called like averaged weights, but is {what}; no weights are taken from it."
