"""Refuse configs of MMDetection that the wrong side is given, in one line that says what is wrong with them."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any, Callable, Iterator, List, Mapping, Optional

from legacy_adapters.origin import UnusableInputError

#: Sections that only configs of one version have.
_SECTIONS = {
    "2.x": ("data", "optimizer", "optimizer_config", "lr_config", "checkpoint_config"),
    "3.x": ("default_scope", "optim_wrapper", "param_scheduler", "train_dataloader", "test_dataloader"),
}


def fault(config: Any, expected: str) -> Optional[str]:
    """Say what is wrong with a config; None if nothing is.

    Args:
        config: that was read.
        expected: the version of MMDetection that it is for, 2.x or 3.x.
    """
    if config.get("model") is None:
        return "has no `model`; name a config of MMDetection {}".format(expected)
    for version, sections in _SECTIONS.items():
        strange = [name for name in sections if name in config]
        if version != expected and strange and not any(name in config for name in _SECTIONS[expected]):
            return "is one of MMDetection {}, for it has `{}`; name a config of MMDetection {}".format(
                version, strange[0], expected
            )
    return None


def check_form(config: Any, path: str, expected: str) -> None:
    """Refuse a config that is not for this version of MMDetection; arguments as of :func:`fault`, and its path.

    Raises:
        UnusableInputError: saying why.
    """
    wrong = fault(config, expected)
    if wrong is not None:
        raise UnusableInputError("Config {} {}.".format(path, wrong))


def class_names(dataset: Any, own: Callable[[str], Any]) -> Optional[List[str]]:
    """Return what the classes of a config's dataset are called, in the order of their labels; None if it is not told.

    Args:
        dataset: section of the config, or what is in its place; one that wraps others is looked into.
        own: returns the names that a class of datasets has itself, by its name; None if it has none.
    """
    while isinstance(dataset, Mapping):
        within = dataset.get("dataset") or next(iter(dataset.get("datasets") or ()), None)
        names = dataset.get("classes") or (dataset.get("metainfo") or {}).get("classes")
        names = names or (own(str(dataset.get("type"))) if within is None else None)
        if names:
            return [names] if isinstance(names, str) else [str(name) for name in names]
        dataset = within
    return None


@contextmanager
def refused_types(path: str) -> Iterator[None]:
    """Say in one line that the config at ``path`` names a class that the code base does not have.

    Raises:
        UnusableInputError: naming it.
    """
    try:
        yield
    except KeyError as error:
        text = " ".join(str(error.args[0] if error.args else "").split())
        if "registry" not in text:
            raise
        raise UnusableInputError("Config {} cannot be built: {}.".format(path, text.partition(". ")[0].rstrip("."))) from error
