"""Check and complete the options of ``ddq-parity`` together, before anything heavy is loaded or anything is made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from converters.cli.console import of_system
from ddq_port import requirements
from legacy_adapters import families as legacy_families
from legacy_adapters.ground.console import BAD_INPUT, Failure
from legacy_adapters.ground.words import counted

from ..sides.places import RUN, check_file
from ..sides.settings import SettingsError, check_options
from .options import DEFAULT_BOUNDS
from .output import check_run_folder

#: No image is the largest, the first neither the highest nor the widest; no side is a multiple of what tokens cover.
TINY_SIZES = ((93, 115), (131, 121), (77, 157))
FULL_SIZES = ((331, 397), (401, 467), (289, 499))
#: Of models that need more memory for a pixel; no default batch takes 16 GB.
LARGE_MODEL_SIZES = {
    "r50_5scale": ((199, 261), (267, 243), (179, 283)),
    "swinl_4scale": ((287, 343), (347, 405), (251, 433)),
}


def task_options(
    size: tuple[tuple[int, int], ...] | None, check: tuple[str, ...] | None, ranks: int = 1, **settings: Any
) -> dict[str, Any]:
    """Fill in the default sizes and checks and rename what has another name on the command line."""
    check = check or (("train",) if ranks > 1 else ("forward", "loss", "grad", "init"))
    variant = settings["variant"]
    sizes = size or (TINY_SIZES if variant.startswith("tiny") else LARGE_MODEL_SIZES.get(variant, FULL_SIZES))
    objects = settings["objects"]
    if objects is not None and len(objects) != len(sizes):
        told = f"{counted(len(objects), 'number')} for {counted(len(sizes), 'image')}"
        raise click.BadParameter(f"--objects gives {told}; give one per image.")
    settings.setdefault("amp", None)  # no option of `capture`
    given = {name: settings.pop(name, None) for name in _TRAINING_OPTIONS}
    training = _training("train" in check, 4 if ranks > 1 else 5, **given)
    return dict(sizes=sizes, checks=check, ranks=ranks, **training, **settings)


def refuse_early(
    *, out: Path | None = None, force: bool = False, marker: str = RUN, golden: Path | None = None,
    checkpoint: Path | None = None, family: str | None = None, legacy_repo: Path | None = None, **settings: Any,
) -> None:  # fmt: skip
    """Refuse what can be seen to be wrong before anything heavy is loaded, and before anything is made.

    Args:
        out: folder that keeps everything; None for none.
        force: replace what it holds.
        marker: file that an earlier result of the same kind has.
        golden: a golden file.
        checkpoint: of the weights.
        family: of the legacy side, where there is one.
        legacy_repo: its checkout.
        **settings: the others; the fields of :class:`Task` may be among them.
    """
    needs_out(out, force)
    with refusals():
        if "sizes" in settings:
            check_options(dict(settings, family=family))
        requirements.check()
        if golden is not None:
            check_file(golden, "a golden file", "`ddq-parity capture` makes one")
        if checkpoint is not None:
            check_file(checkpoint, "a checkpoint", "a .pth or .safetensors file")
        if family is not None:
            legacy_families.get(family).check_repo(legacy_repo)
        check_run_folder(out, force, marker)


@contextmanager
def refusals() -> Iterator[None]:
    """End with one line and exit code 2 on an input that cannot be used."""
    try:
        yield
    except OSError as error:
        raise Failure(of_system(error), BAD_INPUT) from error
    except (SettingsError, legacy_families.RepoError) as error:
        raise Failure(str(error), BAD_INPUT) from error


_TRAINING_OPTIONS = ("steps", "epoch_length", "clip_order", "resume_at")


def _training(asked: bool, default_steps: int, **given: Any) -> dict[str, Any]:
    """Fill in the defaults of check train; refuse its options without it, for they would do nothing."""
    idle = [name for name, value in given.items() if value is not None and not asked]
    if idle:
        raise click.BadParameter(f"--{idle[0].replace('_', '-')} needs check train; add it to --check.")
    defaults = dict(steps=default_steps if asked else 0, epoch_length=None, clip_order="twin", resume_at=0)
    return {name: defaults[name] if value is None else value for name, value in given.items()}


def bounds_options(**settings: Any) -> dict[str, Any]:
    """Fill in the default bounds; refuse bounds for a tolerance that has others or none, for they would do nothing."""
    for name, default in DEFAULT_BOUNDS.items():
        if settings[name] is None:
            settings[name] = default
        elif settings["tolerance"] != "fixed":
            tolerance = settings["tolerance"]
            raise click.BadParameter(f"--{name} is of --tolerance fixed, not {tolerance}; pass --tolerance fixed.")
    return settings


def needs_out(out: Path | None, force: bool, **_: Any) -> None:
    """Refuse ``--force`` where there is nothing to replace."""
    if force and out is None:
        raise click.BadParameter("--force needs --out, the folder whose files it replaces; pass --out or leave it out.")
