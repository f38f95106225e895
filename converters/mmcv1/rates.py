"""What mmcv 1.x's hooks set learning rates and momenta to, in closed form: `lr_updater.py` and `momentum_updater.py`.

A hook sets the rate of a policy (`regular`), which follows from epochs or from iterations, and in a warm-up a part of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from converters.errors import PartsError
from converters.mmcv1.saved import ADVICE

RATE, MOMENTUM = "lr_config", "momentum_config"
#: Policies by the name that the runner looks their hooks up by.
KNOWN = {
    RATE: (
        "Fixed", "Step", "Exp", "Poly", "Inv", "CosineAnnealing", "FlatCosineAnnealing", "CosineRestart",
        "LinearAnnealing", "YOLOX",
    ),
    MOMENTUM: ("Step", "CosineAnnealing", "LinearAnnealing"),
}  # fmt: skip


def policy(options: Mapping[str, Any]) -> str:
    """Return a policy's name as the runner spells it: `step` is `Step`."""
    name = str(options.get("policy", "fixed"))
    return name.title() if name == name.lower() else name


@dataclass(frozen=True)
class Course:
    """A schedule of mmcv 1.x over a training.

    Attributes:
        section: `lr_config` or `momentum_config`.
        options: What the config says there.
        epochs: Of the whole training; None where the runner counts iterations, or it is not known.
        iterations: Of the whole training; None if not known.
        epoch_length: Steps of an epoch; None if not known.
    """

    section: str
    options: Mapping[str, Any]
    epochs: int | None
    iterations: int | None
    epoch_length: int | None

    @property
    def by_epoch(self) -> bool:
        """Tell whether the policy follows from epochs."""
        return bool(self.options.get("by_epoch", True))

    @property
    def warm_up(self) -> int:
        """How many iterations are warmed up."""
        if self.options.get("warmup") is None:
            return 0
        count = self.options.get("warmup_iters", 0)
        return count * self._needed(self.epoch_length, "warmup_by_epoch") if self.options.get("warmup_by_epoch") else count

    def check(self) -> None:
        """Refuse a policy that is not known here.

        Raises:
            PartsError: Naming it.
        """
        if policy(self.options) not in KNOWN[self.section]:
            raise PartsError(
                f"`{self.section}.policy` of the source's training is {self.options.get('policy')!r}, for which no schedule of 3.x "
                f"is known, so no step can be the one that 2.x would take; {ADVICE}."
            )
        if self.by_epoch and self.epochs is None:
            raise PartsError(
                f"`{self.section}.by_epoch` of the source's training is True, and its runner counts iterations, where mmcv sets "
                f"no such rate; {ADVICE}."
            )

    def at(self, base: float, epoch: int, iteration: int) -> float:
        """Return the value of one step.

        Args:
            base: Initial value of a group.
            epoch: Of the step, from 0.
            iteration: Of the step, from 0.

        Raises:
            PartsError: If the length of an epoch or of the training is needed and not known.
        """
        regular = self._regular(base, epoch if self.by_epoch else iteration)
        if iteration >= self.warm_up:
            return regular
        ratio, done = self.options.get("warmup_ratio", 0.1 if self.section == RATE else 0.9), iteration / self.warm_up
        if policy(self.options) == "YOLOX":
            return base * (ratio * math.pow((iteration + 1) / float(self.warm_up), 2))
        kind = self.options["warmup"]
        factor = 1 - (1 - done) * (1 - ratio) if kind == "linear" else ratio if kind == "constant" else ratio ** (1 - done)
        return regular * factor if self.section == RATE else regular / factor

    def _regular(self, base: float, progress: int) -> float:
        options, kind = self.options, policy(self.options)
        if kind == "Fixed":
            return base
        if kind == "Step":
            steps, gamma = options["step"], options.get("gamma", 0.1 if self.section == RATE else 0.5)
            passed = progress // steps if isinstance(steps, int) else _passed(steps, progress)
            return max(base * gamma**passed, _floor(options))
        if kind == "Exp":
            return base * options["gamma"] ** progress
        if kind == "Inv":
            return base * (1 + options["gamma"] * progress) ** (-options.get("power", 1.0))
        if kind == "Poly":
            low = options.get("min_lr", 0.0)
            return (base - low) * (1 - progress / self._length) ** options.get("power", 1.0) + low
        low = self._low(base)
        if kind == "LinearAnnealing":
            return base + (low - base) * (progress / self._length)
        if kind == "CosineAnnealing":
            return _cosine(base, low, progress / self._length)
        if kind == "FlatCosineAnnealing":
            start = round(self._length * options.get("start_percent", 0.75))
            return base if progress < start else _cosine(base, low, (progress - start) / (self._length - start))
        if kind == "CosineRestart":
            return self._restarted(base, low, progress)
        last = self._needed(self.epoch_length, "num_last_epochs") * options.get("num_last_epochs", 0)
        if progress + 1 >= self._length - last:
            return low
        return _cosine(base, low, (progress + 1 - self.warm_up) / (self._length - self.warm_up - last))

    def _restarted(self, base: float, low: float, progress: int) -> float:
        start = 0
        weights = self.options.get("restart_weights") or [1]
        for period, weight in zip(self.options["periods"], weights):
            if progress < start + period:
                return _cosine(base, low, (progress - start) / period, weight)
            start += period
        raise PartsError(f"`{self.section}.periods` of the source's training end before it does; {ADVICE}.")

    def _low(self, base: float) -> float:
        for name in ("min_lr_ratio", "min_momentum_ratio"):
            if self.options.get(name) is not None:
                return base * self.options[name]
        return max(_floor(self.options), 0.0)

    @property
    def _length(self) -> int:
        return self._needed(self.epochs if self.by_epoch else self.iterations, "policy")

    def _needed(self, value: int | None, setting: str) -> int:
        if value is None:
            raise PartsError(
                f"`{self.section}.{setting}` of the source's training needs its length in iterations, which the source does not "
                f"tell (`iter` is no multiple of `epoch`, or the config has no `runner`); {ADVICE}."
            )
        return value


def _passed(steps: list[int], progress: int) -> int:
    return next((number for number, step in enumerate(steps) if progress < step), len(steps))


def _floor(options: Mapping[str, Any]) -> float:
    found = [options[name] for name in ("min_lr", "min_momentum") if options.get(name) is not None]
    return found[0] if found else float("-inf")


def _cosine(start: float, end: float, factor: float, weight: float = 1.0) -> float:
    return end + 0.5 * weight * (start - end) * (math.cos(math.pi * factor) + 1)
