"""Carry a training that mmcv 1.x's Runner stopped, so that mmengine's goes on with the next step.

The runner of 2.x saves weights, optimizer and counters, and nothing of its schedules: its hooks compute each rate anew from
the config. mmengine's Runner loads the state of every schedule, so these are made here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from converters.carrying import groups, parts
from converters.carrying.optimizer import Regrouped
from converters.errors import OptimizerError, PartsError
from converters.mmcv1 import averages as exchanged
from converters.mmcv1 import saved, stops
from converters.mmcv1.taken_up import Resumption, TakenUp
from converters.reading.averages import MMCV
from converters.reading.checkpoint import Checkpoint
from converters.rules import built, engine
from converters.rules.detect import Detection
from converters.rules.layout import Layout
from legacy_adapters import registry
from legacy_adapters.ground.names import LEGACY, NEW

_OPTIMIZER, _SCHEDULES = "optimizer", "param_schedulers"


class Training:
    """A training of mmcv 1.x that is to go on in the new code.

    Args:
        loaded: The checkpoint.
        found: What model it is of.

    Attributes:
        loaded: The checkpoint, with the counters that mmengine expects.
        old: The config of 2.x that it was trained with; None if nobody tells.
        notes: What the user should know, in sentences.

    Raises:
        FamilyError: If a config cannot be read.
    """

    def __init__(self, loaded: Checkpoint, found: Detection) -> None:
        self._found, port = found, found.port
        self._resumption: Resumption = registry.called(port.family, "resumption")
        self.old = self._old(loaded)
        self._goal = self._resumption.goal(port.variant.new["config"])
        by_epoch = self._goal.by_epoch if self.old is None else stops.counts_epochs(self.old)
        self._stop = stops.stop(loaded.meta, self.old, by_epoch)
        counters = dict(epoch=self._stop.epoch, iter=self._stop.iteration)
        self.loaded = replace(loaded, meta={**loaded.meta, **counters})
        self.notes: tuple[str, ...] = (*self._stop.notes, *_waiting(self.old, self._stop))
        self._taken_up: TakenUp | None = None

    def _old(self, loaded: Checkpoint) -> dict[str, Any] | None:
        named = self._found.port.variant.legacy.get("config")
        held = saved.config(loaded.meta)
        is_told = bool(named) and self._found.port.variant.title != ""  # by the user; a variant's own is only the last resort
        if named and (is_told or held is None):
            return self._resumption.old(named)
        return held

    def check(self, chosen: parts.Choice) -> None:
        """Refuse what 3.x cannot go on with.

        Raises:
            PartsError: Saying what.
        """
        saved.check_whole(self.loaded.content, self.loaded.meta, self.old)
        if self._goal.by_epoch != self._stop.by_epoch:
            counts = ("iterations", "epochs")
            raise PartsError(
                f"The runner of the source's training counts {counts[self._stop.by_epoch]}, and the loop of the new config "
                f"{counts[self._goal.by_epoch]}; set `train_cfg`, or {saved.ADVICE}."
            )
        if chosen.held.form == MMCV and exchanged.are_swapped(self.old, self.loaded.path.name) is None:
            raise PartsError(
                "The source holds averages of mmcv's EMAHook and not the config that says when that hook ran, so nobody knows "
                "which of the two sets is which; pass --legacy-config OLD.py, or --keep model or --keep ema to take one set "
                "as mmdet's configs have them."
            )

    def regroup(self, held: Mapping[str, Any], source: Layout) -> Regrouped:
        """Carry the optimizer's state, with the rates of the next step.

        Args:
            held: The optimizer.
            source: Layout of the old model, in the order in which it makes its parameters.

        Raises:
            OptimizerError: If the optimizer does not fit that of the new config.
            PartsError: If 3.x has no schedule that goes on as 2.x would.
        """
        described = built.optimizer_of_new_model(self._found.port)
        if described is None:
            raise OptimizerError(
                f"The new config has no `optim_wrapper`, so no training goes on with it; add one, or {saved.ADVICE}."
            )
        wanted = groups.Wanted.of(described)
        rules = engine.rules_between(self._found.port.mapping, LEGACY, NEW)
        kind = ((self.old or {}).get(_OPTIMIZER) or {}).get("type")
        fitted = groups.fit(held, source, self._found.port.layout(NEW), wanted, rules, kind)
        made = fitted.regrouped
        targets = [*made.state_dict["param_groups"], *([made.state_dict[groups.BASE]] if groups.BASE in made.state_dict else [])]
        self._taken_up = self._schedules(targets)
        for group, settings in zip(targets, self._taken_up.settings):
            group.update(settings)
        self.notes = (*self.notes, *fitted.notes, *self._taken_up.notes)
        return made

    def _schedules(self, targets: Sequence[Mapping[str, Any]]) -> TakenUp:
        """Make the schedules; of a training that is over nothing depends on them."""
        try:
            return self._resumption.take_up(self.old, self._goal, self._stop, targets)
        except PartsError:
            if self.old is None or not stops.is_over(self._stop, self.old):
                raise
            note = (
                f"The training is over, after {self._stop.words}, and its schedules are none that 3.x has, so that they are left out; "
                "a longer training cannot go on from here."
            )
            return TakenUp([], [{} for _ in targets], (note,))

    def completed(self, carried: parts.Carried) -> parts.Carried:
        """Add the schedules to what stands beside the weights."""
        if self._taken_up is None or not self._taken_up.states:
            return carried
        count, origin = len(self._taken_up.states), "the source's config" if self.old is not None else "the new config"
        line = parts.Line(_SCHEDULES, "made", f"{count} schedules of {origin}, after {self._stop.words}")
        return replace(
            carried,
            parts=dict(sorted({**carried.parts, _SCHEDULES: self._taken_up.states}.items())),
            lines=(*carried.lines, line),
        )


def told_side(loaded: Checkpoint, found: Detection) -> str | None:
    """Return the side that a checkpoint's metadata tell; None if they do not."""
    if "layout" in loaded.meta:
        return loaded.meta["layout"]
    if found.port.family.resumption is None:
        return None
    if saved.is_of_mmcv(loaded.content, loaded.meta):
        return LEGACY
    return NEW if saved.is_of_mmengine(loaded.content, loaded.meta) else None


def _waiting(old: Mapping[str, Any] | None, stop: stops.Stop) -> tuple[str, ...]:
    """Say that gradients waited for a step that adds several up; neither version saves them."""
    count = ((old or {}).get("optimizer_config") or {}).get("cumulative_iters", 1)
    if not isinstance(count, int) or count < 2 or stop.iteration % count == 0:
        return ()
    waiting = stop.iteration % count
    return (f"Gradients of {waiting} of {count} steps (`cumulative_iters`) waited to be added up; mmcv does not save them.",)


def training(loaded: Checkpoint, found: Detection, to: str) -> Training | None:
    """Return the training that a checkpoint is of; None if it is no such one, or does not go to the new code.

    Raises:
        FamilyError: If a config cannot be read.
    """
    able = found.port.family.resumption is not None and "config" in found.port.variant.new
    if not able or (found.side, to) != (LEGACY, NEW):
        return None
    if _OPTIMIZER not in loaded.content or saved.is_of_mmengine(loaded.content, loaded.meta):
        return None
    return Training(loaded, found) if saved.has_counters(loaded.meta) else None


def check_asked(loaded: Checkpoint, found: Detection, to: str, keep: str | None, chosen: parts.Choice) -> None:
    """Refuse to write everything that resuming needs where the source lacks some of it.

    Args:
        loaded: The source.
        found: What model it is of.
        to: Layout to write.
        keep: What was asked for.
        chosen: What is written.

    Raises:
        PartsError: If there is no optimizer and all is asked for, or no counters beside an optimizer.
    """
    if found.port.family.resumption is None or (found.side, to) != (LEGACY, NEW):
        return
    if saved.is_of_mmengine(loaded.content, loaded.meta):
        return
    if keep == parts.ALL and _OPTIMIZER not in loaded.content:
        raise PartsError(
            "The source holds no optimizer, which resuming a training needs (2.x leaves it out with `save_optimizer=False`, and "
            "published files have none); pass --keep model to convert the weights, and begin a training with them."
        )
    if chosen.keep == parts.ALL and _OPTIMIZER in loaded.content and not saved.has_counters(loaded.meta):
        raise PartsError(
            "The source holds an optimizer and does not say after how many epochs and steps (`meta.epoch`, `meta.iter`), without "
            f"which no training goes on; {saved.ADVICE}."
        )


def notes(loaded: Checkpoint, found: Detection, chosen: parts.Choice) -> tuple[str, ...]:
    """Say of a checkpoint of mmcv 1.x without an optimizer that no training goes on with it."""
    is_whole = chosen.keep == parts.ALL and found.side == LEGACY and found.port.family.resumption is not None
    if not is_whole or _OPTIMIZER in loaded.content or not saved.is_of_mmcv(loaded.content, loaded.meta):
        return ()
    return ("The source holds no optimizer, so a training can begin with the output (`load_from`), and not go on.",)


def in_model_order(source: Layout, keys: Mapping[str, Any]) -> Layout:
    """Return a layout in the order of a state dict's keys, which is that of the model.

    Raises:
        OptimizerError: If somebody has put them into the alphabet's order.
    """
    held = [key for key in keys if key in source.tensors]
    if len(held) > 2 and held == sorted(held) and held != [key for key in source.tensors if key in keys]:
        raise OptimizerError(
            "The keys of the source's state dict are in alphabetical order, not in the model's, by which the optimizer numbers "
            f"its parameters; convert the file that the training wrote, or {saved.ADVICE}."
        )
    return source.ordered(keys)
