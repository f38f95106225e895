"""What the GPU check runs of DDQ-DETR, at full width and in small."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .gpu_run import FOLDER, Part, Phase

GOLDENS = ("tiny_5scale", "tiny_swinl")
#: What is timed: this package, the same with fast numerics, MMDetection's DDQ-DETR.
_CODES = ("ours", "fast", "mmdet")


@dataclass(frozen=True)
class Scale:
    """How large the parts are.

    Attributes:
        device: of torch.
        variants: 4 scales, 5 scales, Swin-L.
        derived: size of the batch that is recorded nine times, with gradients.
        exact: size of the batch that is recorded twice.
        image: size of one full image.
        repeat: size of the batch that is run twice in one process.
        disk: whether traces are so large that free space counts.
        measured: options of the measurements of speed.
        workers: processes for the tests.
        ends: seconds after which checks, and then what is timed, are ended.
    """

    device: str
    variants: tuple[str, str, str]
    derived: str
    exact: str
    image: str
    repeat: str
    disk: bool
    measured: tuple[str, ...]
    workers: int
    ends: tuple[float, float]


FULL = Scale(
    device="cuda",
    variants=("r50_4scale", "r50_5scale", "swinl_4scale"),
    derived="224x320,192x256",
    exact="480x640,384x512",
    image="800x1333",
    repeat="480x640,384x512",
    disk=True,
    measured=("--size", "800x1333", "--seconds", "16"),
    workers=5,
    ends=(300, 520),
)
DRY = Scale(
    device="cpu",
    variants=("tiny_4scale", "tiny_5scale", "tiny_swinl"),
    derived="64x96,64x64",
    exact="96x128,64x96",
    image="128x160",
    repeat="96x128,64x96",
    disk=False,
    measured=("--size", "64x96", "--seconds", "1", "--iterations", "5", "--rounds", "2", "--batches", "1,2"),
    workers=0,
    ends=(1200, 2000),
)


def plan(scale: Scale, legacy_repo: Path | None) -> tuple[Phase, ...]:
    """Return what to run, the most valuable first."""
    four, five, swin = scale.variants
    first, second = scale.ends
    timed = tuple(_measured("speed", scale, code, *scale.measured, limit=second / 5) for code in _CODES)
    checks = [
        (_tests(scale),),
        (
            _measured("environment", scale, "ours", limit=60),
            *_goldens(scale),
            _measured("repeat", scale, "ours", "--size", scale.repeat, limit=90),
            *(_measured("syncs", scale, code, "--size", scale.image, limit=90) for code in _CODES),
        ),
    ]
    spare = [_official_twice(scale, five, scale.exact), _official_twice(scale, swin, scale.exact)]
    late = [_official_derived(scale, five), _official_derived(scale, swin)]
    if legacy_repo is None:
        return (Phase(tuple(checks), first + 30), Phase((timed,), second))
    checks = [
        (_official_derived(scale, four),),
        (_official_twice(scale, four, scale.exact), _official_image(scale, four), *spare),
        *checks,
    ]
    return (
        Phase(tuple(_with_repo(chain, legacy_repo) for chain in checks), first),
        Phase((timed,), second),
        Phase(tuple(_with_repo((part,), legacy_repo) for part in late), float("inf")),
    )


def _tests(scale: Scale) -> Part:
    arguments = ("-m", "pytest", "-q", "-n", str(scale.workers), "-p", "no:cacheprovider", "-k", "not full_width")
    return Part("tests", (*arguments, "tests/parity/test_cuda.py"), 290, threads=2)


def _goldens(scale: Scale) -> tuple[Part, ...]:
    """Compare with what the official code computed on a CPU."""
    options = ("--device", scale.device, "--out", f"{FOLDER}/run")
    files = [(name, f"legacy_adapters/families/ddq_detr/goldens/{name}.npz") for name in GOLDENS]
    return (
        Part("demo", ("-m", "parity", "demo", *options), 120, threads=2),
        *(Part(f"golden-{name}", ("-m", "parity", "check", file, *options), 120, threads=2) for name, file in files),
    )


def _measured(name: str, scale: Scale, code: str, *options: str, limit: float) -> Part:
    arguments = ("-m", "tools.gpu_parts", name, "--code", code, "--variant", scale.variants[0])
    return Part(f"{name}-{code}", (*arguments, "--device", scale.device, *options), limit)


def _official_derived(scale: Scale, variant: str) -> Part:
    """Compare forward, losses and gradients with the official code, by its own rounding on this device."""
    return _official(scale, variant, "derived", scale.derived, ("--tolerance", "derived"), 290, 40)


def _official_twice(scale: Scale, variant: str, size: str) -> Part:
    """Compare forward and losses bit by bit, which two runs suffice for."""
    return _official(scale, variant, "exact", size, ("--tolerance", "exact", "--check", "forward,loss"), 150, 25)


def _official_image(scale: Scale, variant: str) -> Part:
    """Compare inference of a full image bit by bit: a trace with gradients in float64 would be too large."""
    return _official(scale, variant, "image", scale.image, ("--tolerance", "exact", "--check", "forward"), 150, 20)


def _official(scale: Scale, variant: str, name: str, size: str, options: tuple[str, ...], limit: float,
              disk: float) -> Part:  # fmt: skip
    arguments = ("-m", "parity", "run", "--family", "ddq_detr", "--variant", variant, "--device", scale.device,
                 "--size", size, *options, "--out", f"{FOLDER}/run")  # fmt: skip
    return Part(f"official-{name}-{variant}", arguments, limit, disk if scale.disk else 0.0, threads=3)


def _with_repo(chain: tuple[Part, ...], repo: Path) -> tuple[Part, ...]:
    """Add the checkout to the parts that run the official code."""
    return tuple(
        Part(part.name, (*part.arguments, "--legacy-repo", str(repo)), part.limit, part.disk, part.threads)
        if part.name.startswith("official")
        else part
        for part in chain
    )
