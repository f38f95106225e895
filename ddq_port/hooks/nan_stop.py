"""Stop at the first number that is NaN or infinite, whatever would have raised, and say where it came from."""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ddq_port.registry import HOOKS

from . import not_finite, random_state
from .errors import NonFiniteLossError, TrainingStopped
from .not_finite import Cause, image_names

_MOST_TERMS = 5  # named in the message
_MOST_SKIPPED = 100  # steps in a row that a gradient scaler may leave out; each halves a dynamic scale
_SAYS_SO = re.compile(r"nan\b|\binf|infinit|not finite|non-finite|invalid numeric", re.IGNORECASE)
_NEXT_STEP = {
    "image": "Mend this image or leave it out.",
    "boxes": "Mend the annotations of this image.",
}
_ELSE = "If the training has learnt so far, go on from an earlier checkpoint with a lower learning rate."
_STORE_KEY = "ddq_port/not_finite"


@HOOKS.register_module()
class StopOnNonFiniteLossHook(Hook):
    """Stop a training at its first NaN or infinite number, and say which images were in the batch and what made it.

    The loss is looked at between forward and backward (mmengine's ``parse_losses``), the norm of the gradients, where
    they are clipped, between backward and the optimizer: neither weights nor optimizer nor averages have seen what is
    not finite; only batch norms in training mode have counted the batch. Weights are looked at before the first step,
    and before they are evaluated or saved. An error of the step, such as one of matching or NMS, ends in the same stop
    if anything is not finite, and is left as it is otherwise. What was not finite first is found by repeating the step.

    With several ranks all stop, with the message of the first that met it. Steps that a gradient scaler leaves out are
    no reason to stop, unless they are 100 in a row.

    Raises:
        NonFiniteLossError: at that iteration.
        TypeError: if the model has no ``parse_losses``, as models of mmengine have.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self._batch: Any = None
        self._images: list[str] = []  # of all batches whose gradients the optimizer has not taken yet
        self._drawn_from: dict[str, Any] = {}
        self._done = self._skipped = 0
        self._handle: Any = None

    def before_train(self, runner: Runner) -> None:
        """Look at the weights, and put the checks around the model's steps, the optimizer's and the saving."""
        model = _unwrapped(runner.model)
        if not hasattr(model, "parse_losses"):
            raise TypeError(
                f"StopOnNonFiniteLossHook expects a model with mmengine's parse_losses, found {type(model).__name__}."
            )
        self._done = runner.iter
        self._check_weights(runner, "before the first step", "Begin with other weights.")
        runner.model.train_step = self._explained_step(runner, runner.model.train_step)
        runner.model.val_step = self._explained_inference(runner, runner.model.val_step)
        model.parse_losses = self._checked(runner, model.parse_losses)
        runner.save_checkpoint = self._checked_saving(runner, runner.save_checkpoint)
        if isinstance(runner.optim_wrapper, OptimWrapper):
            self._handle = runner.optim_wrapper.optimizer.register_step_pre_hook(
                lambda optimizer, args, kwargs: self._check_gradient(runner)
            )

    def after_train(self, runner: Runner) -> None:
        """Leave runner, model and optimizer as they were."""
        for name in ("train_step", "val_step", "parse_losses"):
            runner.model.__dict__.pop(name, None)
            _unwrapped(runner.model).__dict__.pop(name, None)
        runner.__dict__.pop("save_checkpoint", None)
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Keep hold of the batch, to name its images, and of the random states, to repeat the step."""
        self._batch = data_batch
        self._drawn_from = random_state.capture()
        wrapper = runner.optim_wrapper
        if not isinstance(wrapper, OptimWrapper) or wrapper.should_update():
            self._images = []
        self._images += image_names(data_batch)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let go of the batch, and count steps that were left out."""
        self._batch = None
        self._done = runner.iter + 1
        norm = _gradient_norm(runner)
        self._skipped = self._skipped + 1 if _scaled(runner) and norm is not None and not math.isfinite(norm) else 0
        if self._skipped >= _MOST_SKIPPED:
            text = f"Gradients were not finite in the last {self._skipped} iterations, all of which were left out"
            self._stop(runner, f"{text}, up to {_place(runner)}.", None, self._images)

    def before_val(self, runner: Runner) -> None:
        """Look at what is to be evaluated."""
        self._check_weights(runner, f"after iteration {runner.iter}", "They are not evaluated.")

    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the predictions."""
        self._check_predictions(runner, data_batch, outputs)

    def before_test(self, runner: Runner) -> None:
        """Look at the weights, and put the check around the model's test step."""
        self._check_weights(runner, "in the checkpoint", "They are not evaluated.")
        runner.model.test_step = self._explained_inference(runner, runner.model.test_step)

    def after_test_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Look at the predictions."""
        self._check_predictions(runner, data_batch, outputs)

    def after_test(self, runner: Runner) -> None:
        """Leave the model as it was."""
        runner.model.__dict__.pop("test_step", None)

    def _checked(self, runner: Runner, parse_losses: Callable[..., tuple]) -> Callable[..., tuple]:
        def checked(losses: dict[str, Any]) -> tuple[Tensor, dict[str, Tensor]]:
            total, terms = parse_losses(losses)
            # a sum is finite only if all its terms are
            if _on_any_rank(~torch.isfinite(total.detach())):
                bad = _not_finite_terms(terms)
                self._stop_all(runner, lambda: f"Loss is not finite at {_place(runner)}: {_listed(bad)}.", bad)
            return total, terms

        return checked

    def _explained_step(self, runner: Runner, train_step: Callable[..., Any]) -> Callable[..., Any]:
        def explained(data: Any, optim_wrapper: Any) -> Any:
            try:
                return train_step(data, optim_wrapper=optim_wrapper)
            except (TrainingStopped, torch.OutOfMemoryError):
                raise
            except Exception as error:
                cause = self._cause_of_step(runner, bool(_SAYS_SO.search(str(error))))
                if cause is None:
                    _raise_what_another_rank_told()
                    raise
                text = f"Loss is not finite at {_place(runner)}{_of_rank()}: it cannot be computed ({_told(error)})."
                self._stop(runner, text, cause, image_names(data), error)

        return explained

    def _cause_of_step(self, runner: Runner, surely: bool = True) -> Cause | None:
        """Find what was not finite first; look at single operations only where surely something was not."""
        model = _unwrapped(runner.model)
        step = (model, self._batch, runner.optim_wrapper, self._drawn_from)
        cause = not_finite.in_state(model, written=False) or not_finite.in_batch(self._batch)
        cause = cause or not_finite.in_step(*step)
        return cause or (not_finite.in_operations(*step) if surely else None)

    def _check_gradient(self, runner: Runner) -> None:
        """Look at the norm that mmengine has taken for clipping and has waited for already."""
        norm = _gradient_norm(runner)
        if norm is None or math.isfinite(norm) or _scaled(runner):
            return
        model, wrapper = _unwrapped(runner.model), runner.optim_wrapper
        cause = not_finite.in_backward(model, self._batch, wrapper, self._drawn_from)
        # the gradients, and so their norm, are the same on all ranks
        found = all_gather_object((cause, self._images))
        cause, images = next((pair for pair in found if pair[0] is not None), found[0])
        self._stop(runner, f"Gradients are not finite at {_place(runner)}: their norm is {norm}.", cause, images)

    def _stop_all(self, runner: Runner, head: Callable[[], str], bad: dict[str, float]) -> None:
        """Stop on all ranks, of which at least one has loss terms in ``bad``."""
        found = all_gather_object(
            (bad, image_names(self._batch), self._cause_of_step(runner) if bad else None, head() if bad else "")
        )
        rank = next(number for number, (bad, *_) in enumerate(found) if bad)
        bad, images, cause, text = found[rank]
        if len(found) > 1:
            text = text.replace(": ", f" on rank {rank}: ", 1)
        self._stop(runner, text, cause, images, terms=bad, share=False)

    def _stop(
        self,
        runner: Runner,
        head: str,
        cause: Cause | None,
        images: Sequence[str],
        error: Exception | None = None,
        terms: dict[str, float] | None = None,
        share: bool = True,
    ) -> None:
        first = f" First not finite: {cause.text}." if cause else ""
        last = f"Weights are those after iteration {runner.iter}. {_NEXT_STEP.get(cause.what if cause else '', _ELSE)}"
        stop = NonFiniteLossError(
            f"{head}{first}\nImages of the batch: {', '.join(images) or 'not named in the batch'}. {last}",
            runner.iter + 1,
            terms or {},
            images,
            cause,
        )
        if share:
            _tell_other_ranks(stop)
        raise stop from error

    def _checked_saving(self, runner: Runner, save: Callable[..., None]) -> Callable[..., None]:
        def save_checkpoint(*args: Any, **kwargs: Any) -> None:
            self._check_weights(runner, f"after iteration {self._done}", "They are not saved.")
            save(*args, **kwargs)

        return save_checkpoint

    def _check_weights(self, runner: Runner, when: str, end: str) -> None:
        for what, model in _models(runner):
            cause = not_finite.in_state(model)
            if cause is not None:
                images = f"\nImages of the last batch: {', '.join(self._images)}." if self._images else ""
                raise NonFiniteLossError(
                    f"{what} are not finite {when}: {cause.text}. {end}{images}", self._done, {}, self._images, cause
                )

    def _explained_inference(self, runner: Runner, step: Callable[..., Any]) -> Callable[..., Any]:
        def explained(data: Any) -> Any:
            try:
                return step(data)
            except (TrainingStopped, torch.OutOfMemoryError):
                raise
            except Exception as error:
                cause = self._cause_of_inference(runner, data)
                if cause is None:
                    raise
                raise self._inference_stop(data, cause, f"cannot be computed ({_told(error)})") from error

        return explained

    def _cause_of_inference(self, runner: Runner, batch: Any) -> Cause | None:
        model = _unwrapped(runner.model)
        return not_finite.in_state(model) or not_finite.in_batch(batch) or not_finite.in_inference(model, batch)

    def _check_predictions(self, runner: Runner, batch: Any, outputs: Any) -> None:
        for sample in outputs or []:
            found = getattr(sample, "pred_instances", None)
            parts = [getattr(found, name, None) for name in ("bboxes", "scores")]
            if any(isinstance(part, Tensor) and not_finite.amount(part) for part in parts):
                cause = self._cause_of_inference(runner, batch)
                raise self._inference_stop(dict(data_samples=[sample]), cause, "are not finite")

    def _inference_stop(self, batch: Any, cause: Cause | None, how: str) -> NonFiniteLossError:
        images = image_names(batch)
        first = f" First not finite: {cause.text}." if cause else ""
        return NonFiniteLossError(
            f"Predictions {how} for {', '.join(images) or 'a batch'}.{first}", self._done, {}, images, cause
        )


def _models(runner: Runner) -> Iterator[tuple[str, nn.Module]]:
    """Yield the model and its running averages, each with what messages call its weights.

    mmengine makes the averages before it initialises the model, and the first step writes them: until then they hold
    whatever the memory held.
    """
    yield "Weights", _unwrapped(runner.model)
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and hasattr(hook, "ema_model") and hook.ema_model.steps:
            yield "Averaged weights", hook.ema_model.module


def _place(runner: Runner) -> str:
    return f"iteration {runner.iter + 1} (epoch {runner.epoch + 1})"


def _of_rank() -> str:
    return f" on rank {get_rank()}" if get_world_size() > 1 else ""


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__


def _scaled(runner: Runner) -> bool:
    """Tell whether a gradient scaler leaves out steps that are not finite."""
    scaler = getattr(runner.optim_wrapper, "loss_scaler", None)
    return scaler is not None and scaler.is_enabled()


def _gradient_norm(runner: Runner) -> float | None:
    """Return the norm of the gradients of the last step, which mmengine takes where it clips them by norm."""
    wrapper = runner.optim_wrapper
    name = f"train/{getattr(wrapper, 'grad_name', '')}"
    if not getattr(wrapper, "clip_grad_kwargs", None) or name not in runner.message_hub.log_scalars:
        return None
    return float(runner.message_hub.log_scalars[name].current())


def _not_finite_terms(terms: dict[str, Tensor]) -> dict[str, float]:
    values = {name: float(value) for name, value in terms.items() if name != "loss" and "loss" in name}
    bad = {name: value for name, value in values.items() if not math.isfinite(value)}
    if not bad and not math.isfinite(float(terms["loss"])):
        bad = {"loss": float(terms["loss"])}  # finite terms, but their sum is not
    return bad


def _listed(terms: dict[str, float]) -> str:
    parts = [f"{name} {value}" for name, value in terms.items()]
    more = len(parts) - _MOST_TERMS
    return ", ".join(parts[:_MOST_TERMS]) + (f" and {more} more" if more > 0 else "")


def _tell_other_ranks(stop: NonFiniteLossError) -> None:
    """Leave the reason where ranks look that wait for this one in vain and end with an error of their connection."""
    if get_world_size() > 1:
        torch.distributed.distributed_c10d._get_default_store().set(_STORE_KEY, pickle.dumps(stop))


def _raise_what_another_rank_told() -> None:
    if get_world_size() == 1:
        return
    try:
        store = torch.distributed.distributed_c10d._get_default_store()
        stop = pickle.loads(store.get(_STORE_KEY)) if store.check([_STORE_KEY]) else None
    except (RuntimeError, ConnectionError):
        return  # the store lives in a process that has ended
    if stop is not None:
        raise stop


def _on_any_rank(flag: Tensor) -> bool:
    if get_world_size() > 1:
        flag = flag.to(torch.int32)
        all_reduce(flag, "max")
    return bool(flag)


def _unwrapped(model: nn.Module) -> nn.Module:
    return model.module if is_model_wrapper(model) else model
