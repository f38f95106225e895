"""Where a training stood when mmcv 1.x wrote its checkpoint.

`EpochBasedRunner` writes at the end of an epoch how many epochs and steps are done. A hook that counts steps
(`by_epoch=False`), and `IterBasedRunner` always, write before the step is counted: `iter` is then one less than the
steps that the weights have seen, and `epoch` one more than the epochs that are complete.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Stop:
    """A place in a training.

    Attributes:
        by_epoch: The runner counts epochs.
        epoch: Epochs that are complete; 0 where the runner counts iterations.
        iteration: Steps that were taken.
        epoch_length: Steps of an epoch; None if that does not follow from these numbers.
        at_end: The last step was the last one of an epoch.
        notes: What the user should know, in sentences.
    """

    by_epoch: bool
    epoch: int
    iteration: int
    epoch_length: int | None = None
    at_end: bool = False
    notes: tuple[str, ...] = ()

    @property
    def last(self) -> tuple[int, int]:
        """The epoch and the iteration of the last step, both counted from 0."""
        return self.epoch - self.at_end, self.iteration - 1

    @property
    def words(self) -> str:
        """Say where it is: `step 30 (epoch 3)`, counted from 1."""
        return f"step {self.iteration}" + (f" (the end of epoch {self.epoch})" if self.at_end else "")


def counts_epochs(config: Mapping[str, Any]) -> bool:
    """Tell whether the runner of a config of 2.x counts epochs."""
    runner = config.get("runner")
    return not isinstance(runner, Mapping) or ("max_iters" not in runner and "IterBased" not in str(runner.get("type")))


def length(config: Mapping[str, Any]) -> int | None:
    """Return the length of the whole training of a config of 2.x, in epochs or iterations; None if it does not say."""
    runner = config.get("runner") or {}
    return runner.get("max_epochs", runner.get("max_iters", config.get("total_epochs")))


def is_over(stop: Stop, config: Mapping[str, Any]) -> bool:
    """Tell whether a training ended where it stopped."""
    whole = length(config)
    return whole is not None and (stop.epoch if stop.by_epoch else stop.iteration) >= whole


def stop(meta: Mapping[str, Any], config: Mapping[str, Any] | None, by_epoch: bool) -> Stop:
    """Return where a training stood.

    Args:
        meta: Of the checkpoint, with `epoch` and `iter`.
        config: That it was written with; None if it is not known.
        by_epoch: The runner counted epochs.
    """
    epoch, count = meta["epoch"], meta["iter"]
    if not by_epoch:
        note = (
            f"mmcv's IterBasedRunner writes `iter` before it counts the step, so {count} stands for {count + 1} steps, and the "
            f"training goes on with step {count + 2}. (2.x itself would take step {count + 1} a second time.)"
        )
        return Stop(False, 0, count + 1, notes=(note,))
    saving = (config or {}).get("checkpoint_config")
    if epoch and isinstance(saving, Mapping) and saving.get("by_epoch", True) is False:
        note = (
            f"The source was written within epoch {epoch}, after {count + 1} steps. Neither version's Runner goes on within an "
            "epoch: 3.x begins that epoch again, with the rates of the next step."
        )
        return Stop(True, epoch - 1, count + 1, notes=(note,))
    whole = bool(epoch) and bool(count) and count % epoch == 0  # else the number of GPUs has changed in between
    return Stop(True, epoch, count, count // epoch if whole else None, at_end=epoch > 0)
