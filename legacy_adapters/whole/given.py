"""What a request gives, for the config of any code base: settings as texts, and the classes of the data."""

from __future__ import annotations

import argparse
import json
from typing import Any, Sequence


def merge_settings(config: Any, settings: Sequence[str], action: Any) -> None:
    """Merge ``key=value`` texts into a config, as ``--cfg-options`` of MMDetection's scripts does.

    Args:
        config: mmengine's or mmcv's.
        settings: the texts.
        action: ``DictAction`` of the same library.
    """
    if settings:
        parser = argparse.ArgumentParser()
        parser.add_argument("--cfg-options", nargs="+", action=action)
        config.merge_from_dict(parser.parse_args(["--cfg-options", *settings]).cfg_options)


def classes_of(ann_file: str) -> Sequence[str]:
    """Return the names of the classes of an annotation file, in its order."""
    with open(ann_file, encoding="utf-8") as file:
        return [category["name"] for category in json.load(file)["categories"]]
