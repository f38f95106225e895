"""What the GPU check runs of the other families, and of a rehearsal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .gpu_run import FOLDER, Part, Phase

#: Detectors of the family ``mmdet2``, in chains that run side by side.
DETECTORS = (
    ("tiny_retinanet", "tiny_atss", "tiny_mask_rcnn"),
    ("tiny_faster_rcnn", "tiny_yolox", "tiny_sparse_rcnn"),
    ("tiny_detr", "tiny_fcos"),
    ("tiny_deformable", "tiny_cascade_rcnn"),
)
_AS_2X = "legacy_adapters/families/mmdet2/as_2x.py"
_GOLDENS = (
    "legacy_adapters/families/ddq_fcn/goldens/tiny.npz",
    "legacy_adapters/families/ddq_rcnn/goldens/tiny.npz",
    *(f"tests/golden/mmdet2/{name}.npz" for name in ("retinanet", "detr", "faster_rcnn", "deformable")),
    "legacy_adapters/families/ddq_detr/goldens/tiny_4scale.npz",
)


@dataclass(frozen=True)
class Repos:
    """Checkouts of legacy code, None for one that is not there; parts that need it are left out.

    Attributes:
        ddq_detr: jshilong/DDQ, branch ``ddq_detr``.
        ddq_main: the same, branch ``main``.
        mmdet2: folder with mmdet 2.x and mmcv 1.x.
    """

    ddq_detr: Path | None = None
    ddq_main: Path | None = None
    mmdet2: Path | None = None


def families(device: str, small: bool, repos: Repos) -> tuple[Phase, ...]:
    """Return the comparisons of DDQ FCN, DDQ R-CNN and detectors of MMDetection 2.x; ``small`` is tiny width."""
    chains: list[tuple[Part, ...]] = []
    if repos.ddq_main is not None:
        chains += [tuple(_ddq_main(family, device, small, repos.ddq_main)) for family in ("ddq_fcn", "ddq_rcnn")]
    if repos.mmdet2 is not None:
        chains += [tuple(_detector(name, device, repos.mmdet2) for name in names) for names in DETECTORS]
    chains.append(tuple(_golden(Path(file), device) for file in _GOLDENS))
    return (Phase(tuple(chains), float("inf")),)


def _ddq_main(family: str, device: str, small: bool, repo: Path) -> Iterator[Part]:
    """Yield a comparison bit by bit, which two runs suffice for, and one with gradients by rounding on this device."""
    for name, variant, size, options in (
        ("exact", "r50_12e", "480x640,384x512", ("--tolerance", "exact", "--check", "forward,loss")),
        ("derived-tiny", "tiny", "96x128,128x96", ("--tolerance", "derived")),
        ("derived", "r50_12e", "128x192,160x128", ("--tolerance", "derived")),
    ):
        chosen = ("tiny", "96x128,64x96") if small else (variant, size)
        model = ("--family", family, "--variant", chosen[0], "--size", chosen[1])
        yield _run(f"official-{name}-{family}", device, repo, *model, *options)


def _detector(variant: str, device: str, repo: Path) -> Part:
    own = ("--new-adapter", _AS_2X) if variant == "tiny_mask_rcnn" else ()
    model = ("--family", "mmdet2", "--variant", variant)
    checks = ("--check", "forward,loss,grad")  # 3.x draws other initial values of some
    return _run(f"mmdet2-{variant}", device, repo, *model, *own, *checks, "--tolerance", "derived")


def _run(name: str, device: str, repo: Path, *options: str) -> Part:
    command = ("-m", "parity", "run", "--legacy-repo", str(repo), "--device", device, *options)
    return Part(name, (*command, "--out", f"{FOLDER}/run"), 290, 4, threads=2)


def _golden(file: Path, device: str) -> Part:
    family = file.parts[2]
    name = family if file.stem == "tiny" else f"{family}-{file.stem}"
    command = ("-m", "parity", "check", str(file), "--device", device, "--out", f"{FOLDER}/run")
    return Part(f"golden-{name}", command, 120, threads=2)


def rehearsal(device: str, small: bool, repos: Repos) -> tuple[Phase, ...]:
    """Return a rehearsal of the whole reproduction of DDQ-DETR, with real trainings of both sides on the GPU."""
    if repos.ddq_detr is None:
        return ()
    steps, seeds = ("4", "1") if small else ("300", "2")
    command = ("-m", "parity", "rehearse", "--family", "ddq_detr", "--legacy-repo", str(repos.ddq_detr), "--device",
               device, "--steps", steps, "--seeds", seeds, "--jobs", "5", "--out", f"{FOLDER}/run")  # fmt: skip
    return (Phase(((Part("rehearsal", command, 530, 10),),), float("inf")),)
