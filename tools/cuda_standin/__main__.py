"""Run variants of one side on a GPU that is not there: ``python -m tools.cuda_standin SIDE --variant NAME ...``.

Writes a line of JSON for each variant, number of images and stage: how often the host waits for the GPU, by kind and by
place; or, in place of what is left of a variant, what CUDA would have refused. Exit code 1 tells of the latter.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import sys
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch

from . import device, subject
from .refusals import RefusedError
from .subject import Code, Stage

#: Of inference and of training: padded, transposed, small; few objects, none, many.
SIZES, OBJECTS = "96x128,128x96,64x64", "3,0,12"


def main() -> int:
    """Run the variants one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("side", help=f"{subject.OURS}, or a legacy family")
    parser.add_argument("--variant", required=True, nargs="+", help="of the model")
    parser.add_argument("--legacy-repo", type=Path, help="checkout of the legacy code, where the family needs one")
    parser.add_argument("--new-adapter", type=Path, help=f"takes the place of that of {subject.OURS}")
    parser.add_argument("--size", default=SIZES, help=f"HxW[,HxW...] of the images, in turns; {SIZES} by default")
    parser.add_argument("--objects", default=OBJECTS, help=f"N[,N...] of the images, in turns; {OBJECTS} by default")
    parser.add_argument("--images", type=int, nargs="+", default=[3], help="numbers of images of a batch; 3 by default")
    parser.add_argument("--no-gradients", action="store_true", help="plain inference and losses only, in less memory")
    given = parser.parse_args()
    device.install()
    refused, out = False, sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # mmengine's messages
        for variant in given.variant:
            code = subject.code_of(given.side, variant, given.legacy_repo, given.new_adapter)
            for line in _run(given, variant, code):
                print(json.dumps(dict(side=given.side, variant=variant, **line)), file=out, flush=True)
                refused = refused or "refused" in line
    return int(refused)


def _run(given: argparse.Namespace, variant: str, code: Code) -> Iterator[dict[str, Any]]:
    """Yield what is to be told of a variant."""
    try:
        built = subject.build(given.side, variant, code, "cuda")
        for images in given.images:
            sizes = tuple(tuple(map(int, size.split("x"))) for size in _first(images, given.size))
            objects = tuple(map(int, _first(images, given.objects)))
            for stage in subject.infer(built, sizes, all_ways=not given.no_gradients):
                yield _told(stage, images)
            if given.no_gradients:
                with torch.no_grad():
                    yield _told(subject.lose(built, sizes, objects), images)
            else:
                for stage in subject.train(built, sizes, objects):
                    yield _told(stage, images)
    except RefusedError as error:
        yield dict(refused=str(error))


def _first(count: int, listed: str) -> list[str]:
    return list(islice(cycle(listed.split(",")), count))


def _told(stage: Stage, images: int) -> dict[str, Any]:
    waits = stage.waits
    places = {f"{kind}, {place}": count for (kind, place), count in waits.counts.most_common()}
    return dict(images=images, stage=stage.name, waits=waits.total(), kinds=waits.by_kind(), places=places)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    sys.exit(main())
