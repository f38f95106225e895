"""Stop at the first loss that is NaN or infinite."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ddq_port.registry import HOOKS

from .errors import NonFiniteLossError

_MOST_TERMS = 5  # named in the message


@HOOKS.register_module()
class StopOnNonFiniteLossHook(Hook):
    """Stop a training at its first NaN or infinite loss, and say which images were in the batch.

    The check stands between forward and backward (mmengine's ``parse_losses``), so neither weights nor optimizer nor
    averages have seen the loss; only batch norms in training mode have counted the batch. With several ranks all stop,
    with the message of the first that met one.

    Raises:
        NonFiniteLossError: at that iteration.
        TypeError: if the model has no ``parse_losses``, as models of mmengine have.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._batch: Any = None

    def before_train(self, runner: Runner) -> None:
        """Put the check behind the model's ``parse_losses``."""
        model = _unwrapped(runner.model)
        if not hasattr(model, "parse_losses"):
            raise TypeError(
                f"StopOnNonFiniteLossHook expects a model with mmengine's parse_losses, found {type(model).__name__}."
            )
        model.parse_losses = self._checked(runner, model.parse_losses)

    def after_train(self, runner: Runner) -> None:
        """Leave the model as it was."""
        _unwrapped(runner.model).__dict__.pop("parse_losses", None)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep hold of the batch, to name its images."""
        self._batch = data_batch

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let go of the batch."""
        self._batch = None

    def _checked(self, runner: Runner, parse_losses: Callable[..., tuple]) -> Callable[..., tuple]:
        def checked(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            total, terms = parse_losses(losses)
            # a sum is finite only if all its terms are
            if _on_any_rank(~torch.isfinite(total.detach())):
                self._stop(runner, terms)
            return total, terms

        return checked

    def _stop(self, runner: Runner, terms: dict[str, Tensor]) -> None:
        values = {name: float(value) for name, value in terms.items() if name != "loss" and "loss" in name}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not bad and not math.isfinite(float(terms["loss"])):
            bad = {"loss": float(terms["loss"])}  # finite terms, but their sum is not
        found = all_gather_object((bad, image_names(self._batch)))
        rank = next(number for number, (bad, _) in enumerate(found) if bad)
        bad, images = found[rank]
        iteration = runner.iter + 1
        where = f" on rank {rank}" if len(found) > 1 else ""
        raise NonFiniteLossError(
            f"Loss is not finite at iteration {iteration} (epoch {runner.epoch + 1}){where}: {_listed(bad)}.\n"
            f"Images of the batch: {', '.join(images) or 'not named in the batch'}. Weights are those after iteration "
            f"{iteration - 1}.",
            iteration,
            bad,
            images,
        )


def image_names(batch: Any) -> list[str]:
    """Return the path of each image of a batch as mmdet packs it, or its id where there is no path."""
    samples = batch.get("data_samples", []) if isinstance(batch, dict) else []
    names = []
    for sample in samples:
        meta = getattr(sample, "metainfo", {})
        names.append(str(meta.get("img_path") or f"image id {meta.get('img_id', 'unknown')}"))
    return names


def _listed(terms: dict[str, float]) -> str:
    parts = [f"{name} {value}" for name, value in terms.items()]
    more = len(parts) - _MOST_TERMS
    return ", ".join(parts[:_MOST_TERMS]) + (f" and {more} more" if more > 0 else "")


def _on_any_rank(flag: Tensor) -> bool:
    if get_world_size() > 1:
        flag = flag.to(torch.int32)
        all_reduce(flag, "max")
    return bool(flag)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
