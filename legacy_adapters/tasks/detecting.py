"""Run a detector over image files with the test pipeline of its own code base; write what it finds, image by image.

The output has one JSON object per line: first ``{"provenance": ...}``, then one per image, at last ``{"images": n}``,
so that a file that is not whole can be told. Numbers keep all their bits: a float32 survives the way through JSON.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Dict

import torch

from .. import contract
from ..numerics.seeding import seed_all
from ..provenance import executed


def run(job: Any, adapter: Any, model: torch.nn.Module, provenance: Dict[str, Any]) -> None:
    """Detect objects in the images that ``job.images`` lists and write ``job.detections``.

    Args:
        job: a :class:`legacy_adapters.job.Job` with both.
        adapter: must have ``image_detector(model, options)``, which returns a function. That is given path and id of
            an image, and returns ``input``: the network's input [1, 3, H, W], ``meta``: a dict of plain numbers that
            tell how it was made, and ``bboxes`` [n, 4] xyxy in pixels of the file's image, ``scores`` [n], ``labels``
            [n].
        model: with its weights.
        provenance: which code runs, and where.

    Raises:
        RuntimeError: if an image cannot be processed, naming it.
    """
    with open(job.images, encoding="utf-8") as file:
        images = json.load(file)
    model.eval()
    detect = contract.result(adapter, "image_detector", model, job.options)
    seed_all(job.seed, "detect")
    provenance.update(files=executed.files(), packages=executed.packages())
    with open(job.detections, "w", encoding="utf-8") as out, torch.no_grad():
        _write(out, dict(provenance=provenance))
        for image in images:
            try:
                found = detect(image["file"], image["id"])
            except Exception as error:
                raise RuntimeError("image {} ({}): {}".format(image["id"], image["file"], error)) from error
            _write(out, dict(id=image["id"], **_plain(found)))
        _write(out, dict(images=len(images)))


def _plain(found: Dict[str, Any]) -> Dict[str, Any]:
    tensor = found["input"].detach().cpu().contiguous()
    return dict(
        input=dict(
            shape=list(tensor.shape),
            dtype=str(tensor.dtype),
            digest=hashlib.sha256(tensor.numpy().tobytes()).hexdigest(),
            mean=tensor.double().mean().item(),
        ),
        meta=found["meta"],
        **{name: found[name].detach().cpu().tolist() for name in ("bboxes", "scores", "labels")},
    )


def _write(out: Any, value: Dict[str, Any]) -> None:
    out.write(json.dumps(value, separators=(",", ":")) + "\n")
    out.flush()
