"""What adapters of MMDetection 3.x code bases have in common; imports mmdet and mmengine of the running process."""

from __future__ import annotations

import os
import runpy
from typing import Any, Callable, ContextManager, Dict, List, Mapping, Optional, Sequence, Tuple

import torch

from .bases import pipelines3
from .bases.detection import DetectionAdapter
from .inputs import TENSOR, UNSCALED, Batch, Preprocessing, masks_of
from .numerics.precision import as_stored
from .origin import PlainError
from .recording.methods import plain
from .training.steps import Training, kind_of


def build_model(config_path: str, overrides_path: str = "") -> torch.nn.Module:
    """Build a detector from a config file.

    Args:
        config_path: mmengine config with a ``model``.
        overrides_path: a plain Python file that is merged into the config; ``""`` for none.
    """
    return build_from(merged_config(config_path, overrides_path))


def merged_config(config_path: str, overrides_path: str = "") -> Any:
    """Read a config file and merge a plain Python file into it, whose names without ``_`` in front are keys.

    Arguments as of :func:`build_model`.
    """
    config = load_config(config_path)
    if overrides_path:
        names = runpy.run_path(overrides_path).items()
        config.merge_from_dict({name: value for name, value in names if not name.startswith("_")})
    return config


def build_from(config: Any) -> torch.nn.Module:
    """Build the ``model`` of a config with the mmdet of the running process."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance("ddq_port_worker", scope_name="mmdet")
    return MODELS.build(config.model)


def load_config(path: str) -> Any:
    """Read a config with the mmengine of the running process."""
    from mmengine.config import Config

    return Config.fromfile(path)


def data_samples(batch: Batch, with_gt: bool) -> List[Any]:
    """Return the batch as mmdet data samples."""
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData

    whole = tuple(batch.images.shape[-2:])
    samples = []
    described = zip(batch.image_sizes, batch.pad_shapes, batch.scale_factors, batch.gt_bboxes, batch.gt_labels)
    for size, padded, scale, bboxes, labels in described:
        sample = DetDataSample(
            metainfo=dict(
                img_shape=size,
                ori_shape=(round(size[0] / scale[1]), round(size[1] / scale[0])),
                scale_factor=scale,
                batch_input_shape=whole,
                pad_shape=padded,
            )
        )
        if with_gt:
            sample.gt_instances = InstanceData(bboxes=bboxes, labels=labels)
        samples.append(sample)
    return samples


def detailed_samples(batch: Batch, with_gt: bool) -> List[Any]:
    """Return the data samples with what only some detectors ask for: masks of objects, borders of images."""
    from mmdet.structures.mask import BitmapMasks

    samples = data_samples(batch, with_gt)
    for sample, masks, size in zip(samples, masks_of(batch), batch.image_sizes):
        sample.set_metainfo(dict(border=(0, size[0], 0, size[1])))
        if with_gt:
            sample.gt_instances.masks = BitmapMasks(masks.cpu().numpy(), *size)
    return samples


#: Makes data samples of a batch, with ground truth or without.
Samples = Callable[[Batch, bool], List[Any]]


def predict(model: Any, batch: Batch, samples: Samples = data_samples) -> List[Dict[str, torch.Tensor]]:
    """Run inference; return bboxes [n, 4] xyxy in pixels, scores [n] and labels [n] of each image."""
    return _detections(model.predict(batch.images, samples(batch, False)))


def variants(model: Any, samples: Samples = data_samples) -> Dict[str, Callable[[Batch], List[Any]]]:
    """Return the other forms of inference by the phase they are recorded in; boxes of resized images come first.

    A code base in which one of them does not work leaves it out, in an adapter's method of this name.
    """

    def unscaled(batch: Batch) -> List[Dict[str, torch.Tensor]]:
        return _detections(model.predict(batch.images, samples(batch, False), rescale=False))

    def tensor(batch: Batch) -> List[Any]:
        return [plain(model(batch.images, samples(batch, False), mode="tensor"))]

    return {UNSCALED: unscaled, TENSOR: tensor}


def _detections(results: Sequence[Any]) -> List[Dict[str, torch.Tensor]]:
    found = [result.pred_instances for result in results]
    more = [key for key in ("masks", "mask_scores") if all(key in instances for instances in found)]
    keys = ["bboxes", "scores", "labels", *more]
    return [{key: getattr(instances, key) for key in keys} for instances in found]


class Detector:
    """Detect objects in image files as the test loop of the running process's mmengine does, one image at a time.

    Args:
        model: in evaluation mode.
        config: with a ``test_dataloader``, whose pipeline is taken as it is, but for what loads annotations.
        scale: (w, h) that takes the place of that of every ``Resize``; None for the config's own.

    Raises:
        ValueError: if ``scale`` is given and there is no ``Resize``.
    """

    def __init__(self, model: Any, config: Any, scale: Optional[Sequence[int]] = None) -> None:
        from mmcv.transforms import Compose

        self.model, self.pipeline = model, Compose(pipelines3.test_transforms(config, scale))

    def __call__(self, path: str, image_id: int) -> Dict[str, Any]:
        """Return what :mod:`legacy_adapters.tasks.detecting` writes of an image."""
        data = self.pipeline(dict(img_path=path, img_id=image_id))
        batch = self.model.data_preprocessor(dict(inputs=[data["inputs"]], data_samples=[data["data_samples"]]), False)
        result = self.model(**batch, mode="predict")[0]
        found = {name: getattr(result.pred_instances, name) for name in ("bboxes", "scores", "labels")}
        names = ("ori_shape", "img_shape", "pad_shape", "batch_input_shape", "scale_factor")
        meta = {name: [float(x) for x in result.metainfo[name]] for name in names if name in result.metainfo}
        return dict(input=batch["inputs"], meta=meta, **found)


def losses(model: Any, batch: Batch, samples: Samples = data_samples) -> Tuple[Dict[str, Any], torch.Tensor]:
    """Return the loss terms as the model names them and their sum; ``model`` may be wrapped for several ranks."""
    from mmengine.model import is_model_wrapper

    given = samples(batch, True)
    if not is_model_wrapper(model):
        terms = model.loss(batch.images, given)
        return terms, model.parse_losses(terms)[0]
    terms = model(batch.images, given, mode="loss")  # only a call of the wrapper makes it average gradients
    return terms, model.module.parse_losses(terms)[0]


def distributed(model: torch.nn.Module, config: Any) -> torch.nn.Module:
    """Wrap a model for several ranks on the CPU as the running process's mmengine does for a config.

    Raises:
        PlainError: if the config asks for synchronised batch normalisation, which torch has for GPUs only.
    """
    import mmengine.model  # noqa: F401  (registers the wrappers)
    from mmengine.registry import MODEL_WRAPPERS

    if config.get("sync_bn") is not None:
        raise PlainError("The config has sync_bn, which needs GPUs; ranks that train on the CPU cannot have it.")
    given = config.get("model_wrapper_cfg")
    if given is None:
        given = dict(broadcast_buffers=False, find_unused_parameters=config.get("find_unused_parameters", False))
    # mmengine names the GPU of each rank; torch takes no device of a model on the CPU
    options = dict(dict(type="MMDistributedDataParallel"), **dict(given, device_ids=None))
    return MODEL_WRAPPERS.build(options, default_args=dict(module=model))


class EngineTraining(Training):
    """Train as mmengine's Runner does: with an optimizer wrapper, and schedulers that advance behind the step."""

    def __init__(self, model: Any, wrapper: Any, schedulers: List[Any]) -> None:
        self.model, self.wrapper, self.schedulers = model, wrapper, schedulers
        self.optimizer = wrapper.optimizer
        self._names = list(model.state_dict())  # before training adds some, as attributes

    def watch(self, backward_done: Callable[[], None], clip: Callable[[Callable], Callable]) -> None:
        wrapper, backward = self.wrapper, self.wrapper.backward

        def watched(*args: Any, **kwargs: Any) -> None:
            backward(*args, **kwargs)
            backward_done()

        wrapper.backward = watched
        if wrapper.clip_grad_kwargs:
            wrapper.clip_func = clip(wrapper.clip_func)

    def wrapper_options(self) -> Dict[str, Any]:
        counts = getattr(self.wrapper, "_accumulative_counts", 1)
        return {"class": kind_of(self.wrapper), "accumulative_counts": counts}

    def context(self) -> ContextManager:
        return self.wrapper.optim_context(self.model)

    def update(self, total: torch.Tensor) -> None:
        self.wrapper.update_params(total)

    def advance(self, epoch_ended: bool) -> None:
        for by_epoch in (False, True) if epoch_ended else (False,):
            for scheduler in self.schedulers:
                if scheduler.by_epoch == by_epoch:
                    scheduler.step()

    def save(self, path: str, step: int) -> None:
        """Write what ``Runner.save_checkpoint`` does, less the config's text and the time."""
        import mmengine
        from mmengine.logging import MessageHub
        from mmengine.runner import save_checkpoint

        hub = MessageHub.get_instance("ddq_port_worker")
        hub.update_info("iter", step)
        for name, rates in self.wrapper.get_lr().items():
            hub.update_scalar("train/" + name, rates[0])
        parts = dict(
            meta=dict(epoch=0, iter=step, mmengine_version=mmengine.__version__),
            state_dict=self.model.state_dict(),
            message_hub=hub.state_dict(),
            optimizer=self.wrapper.state_dict(),
            param_schedulers=[scheduler.state_dict() for scheduler in self.schedulers],
        )
        save_checkpoint(parts, path)

    def resume(self, path: str, step: int) -> None:
        """Load what ``Runner.resume`` does: weights, message hub, optimizer, schedules.

        A converted checkpoint of mmcv 1.x has neither hub nor schedules, and the rates of the step before: there they follow
        from the number of steps. Then schedules are taken to where they are after as many, in an epoch that does not end.
        """
        from mmengine.logging import MessageHub
        from mmengine.runner import CheckpointLoader

        with as_stored():
            parts = CheckpointLoader.load_checkpoint(path, map_location="cpu")
        if parts["meta"]["iter"] != step:
            raise ValueError("{} was written after step {}, expected {}".format(path, parts["meta"]["iter"], step))
        missing = [name for name in self._names if name not in parts["state_dict"]]
        if missing:
            raise ValueError("{} lacks {} of the model's keys, first {}".format(path, len(missing), missing[0]))
        self.model.load_state_dict({name: parts["state_dict"][name] for name in self._names}, strict=False)
        if "param_schedulers" not in parts:
            for _ in range(step):
                self.advance(False)
            rates = [group["lr"] for group in self.optimizer.param_groups]
            self.wrapper.load_state_dict(parts["optimizer"])
            for group, rate in zip(self.optimizer.param_groups, rates):
                group["lr"] = rate
            return
        MessageHub.get_instance("ddq_port_worker").load_state_dict(parts["message_hub"])
        self.wrapper.load_state_dict(parts["optimizer"])
        if len(parts["param_schedulers"]) != len(self.schedulers):
            raise ValueError("{} has {} schedules".format(path, len(parts["param_schedulers"])))
        for scheduler, state in zip(self.schedulers, parts["param_schedulers"]):
            scheduler.load_state_dict(state)


def training(model: Any, config: Any, epoch_length: Optional[int]) -> EngineTraining:
    """Build optimizer, gradient clipping and schedulers as the running process's mmengine makes them of a config.

    Args:
        model: before its first run.
        config: an mmengine config with ``optim_wrapper``, ``train_cfg`` and ``param_scheduler``.
        epoch_length: steps of an epoch; None if no epoch ends.
    """
    from mmengine.optim import build_optim_wrapper
    from mmengine.registry import PARAM_SCHEDULERS

    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    epochs, steps = _training_length(config, epoch_length)
    if steps is not None:
        wrapper.initialize_count_status(model, 0, steps)
    default_args = dict(optimizer=wrapper)
    if epoch_length is not None:
        default_args["epoch_length"] = epoch_length
    given = config.get("param_scheduler") or []
    schedulers = []
    for scheduler in given if isinstance(given, (list, tuple)) else [given]:
        end = epochs if scheduler.get("by_epoch", True) else steps
        cfg = dict(scheduler) if end is None else dict(dict(end=end), **scheduler)
        schedulers.append(PARAM_SCHEDULERS.build(cfg, default_args=default_args))
    return EngineTraining(model, wrapper, schedulers)


def optimizer_wrapper(model: Any, config: Any) -> Any:
    """Build the optimizer of a config in a plain wrapper, whatever precision it asks for; None if it has none.

    Half precision needs a GPU, and makes no other groups.
    """
    given = config.get("optim_wrapper")
    if given is None:
        return None
    import mmdet.engine  # noqa: F401  (registers its constructors)
    from mmengine.optim import build_optim_wrapper

    return build_optim_wrapper(
        model, {name: given[name] for name in ("optimizer", "paramwise_cfg", "constructor") if name in given}
    )


def _training_length(config: Any, epoch_length: Optional[int]) -> Tuple[Optional[int], Optional[int]]:
    """Return the epochs and steps of the config's whole training, None where they are not known."""
    epochs, steps = config.train_cfg.get("max_epochs"), config.train_cfg.get("max_iters")
    if steps is None and epochs is not None and epoch_length is not None:
        steps = epochs * epoch_length
    return epochs, steps


def module_provenance(*modules: Any) -> Dict[str, Dict[str, str]]:
    """Tell which files a run really imported: ``__file__`` and version of each module."""
    return {m.__name__: dict(file=str(m.__file__), version=str(getattr(m, "__version__", ""))) for m in modules}


def packaged_config(name: str) -> str:
    """Return the path of a config that comes with the installed mmdet package."""
    import mmdet

    return os.path.join(os.path.dirname(mmdet.__file__), ".mim", "configs", name)


class MMDet3Adapter(DetectionAdapter):
    """Build and run a detector of a code base in the form of MMDetection 3.x.

    A subclass says which config its options name, builds the model and tells which code ran.

    Attributes:
        samples: what makes the data samples of a batch.
    """

    samples: Samples = staticmethod(data_samples)

    def config(self, options: Mapping[str, Any]) -> str:
        """Return the path of the config."""
        return options["config"]

    def whole_config(self, options: Mapping[str, Any]) -> Any:
        """Return the config, with what the variant's ``overrides`` change in it."""
        return merged_config(self.config(options), options.get("overrides", ""))

    def predict(self, model: Any, batch: Batch) -> List[Dict[str, torch.Tensor]]:
        """Run inference; return bboxes [n, 4] xyxy in pixels, scores [n] and labels [n] of each image."""
        return predict(model, batch, self.samples)

    def losses(self, model: Any, batch: Batch) -> Tuple[Dict[str, Any], torch.Tensor]:
        """Return the loss terms as the model names them and their sum."""
        return losses(model, batch, self.samples)

    def variants(self, model: Any) -> Dict[str, Callable[[Batch], List[Any]]]:
        """Return the other forms of inference by the phase they are recorded in."""
        return variants(model, self.samples)

    def training(self, model: torch.nn.Module, options: Mapping[str, Any], epoch_length: Optional[int]) -> EngineTraining:
        """Make optimizer and schedulers of the config, with the mmengine of the running process."""
        return training(model, self.whole_config(options), epoch_length)

    def optimizer_wrapper(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Any:
        """Make the optimizer of the config, without what it is wrapped in for half precision; None if it has none."""
        return optimizer_wrapper(model, self.whole_config(options))

    def distributed(self, model: torch.nn.Module, options: Mapping[str, Any]) -> torch.nn.Module:
        """Wrap the model as mmengine does for the config."""
        return distributed(model, self.whole_config(options))

    def preprocessing(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Preprocessing:
        """Take pipelines and preprocessor of the config; ``options["scale"]`` takes the place of its test scale."""
        return pipelines3.preprocessing(model, self.whole_config(options), options.get("scale"))

    def image_detector(self, model: torch.nn.Module, options: Mapping[str, Any]) -> Detector:
        """Take the test pipeline of the config; ``options["scale"]`` takes the place of its image scale."""
        return Detector(model, self.whole_config(options), options.get("scale"))
