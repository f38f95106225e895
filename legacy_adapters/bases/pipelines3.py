"""Pipelines and preprocessors of code bases in the form of MMDetection 3.x; imports those of the running process."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping, Optional, Sequence

from legacy_adapters.inputs import TEST, TRAINING, Preprocessing

#: Attributes of a preprocessor that say what it does, and its buffers among them.
_SETTINGS = ("mean", "std", "pad_size_divisor", "pad_value", "_channel_conversion")


def test_transforms(config: Any, scale: Optional[Sequence[int]] = None) -> List[Any]:
    """Return the transforms of a config's test pipeline, but for what loads annotations.

    Args:
        config: with a ``test_dataloader``.
        scale: (w, h) that takes the place of that of every ``Resize``; None for the config's own.

    Raises:
        ValueError: if ``scale`` is given and there is no ``Resize``.
    """
    steps = [dict(step) for step in config.test_dataloader.dataset.pipeline if "Annotations" not in step["type"]]
    resizes = [step for step in steps if step["type"].split(".")[-1] == "Resize"]
    if scale is not None and not resizes:
        raise ValueError("the test pipeline has no Resize to give another scale")
    for step in resizes if scale is not None else []:
        step["scale"] = tuple(scale)
    return _built(steps)


def preprocessing(model: Any, config: Any, scale: Optional[Sequence[int]] = None) -> Preprocessing:
    """Return both pipelines of a config and the preprocessor of its model; ``scale`` as of :func:`test_transforms`."""
    preprocessor = model.data_preprocessor
    settings: Dict[str, Any] = {name: getattr(preprocessor, name, None) for name in _SETTINGS}

    def batch(items: List[Mapping[str, Any]], training: bool) -> Any:
        given = dict(inputs=[item["inputs"] for item in items], data_samples=[item["data_samples"] for item in items])
        return preprocessor(given, training)

    pipelines = {TEST: test_transforms(config, scale)}
    loader = config.get("train_dataloader")
    if loader is not None:
        pipelines[TRAINING] = _built(_training_steps(loader.dataset))
    return Preprocessing(pipelines, batch, settings)


def _training_steps(dataset: Any) -> List[Any]:
    """Return the pipeline of a data set, or of the one that it wraps."""
    while "pipeline" not in dataset and "dataset" in dataset:
        dataset = dataset["dataset"]
    return list(dataset.get("pipeline", ()))


def _built(steps: Sequence[Any]) -> List[Any]:
    from mmdet.registry import TRANSFORMS

    return [TRANSFORMS.build(step) for step in steps]
