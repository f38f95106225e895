"""Check and complete the options of ``ddq-parity`` together, before anything heavy is loaded or anything is made."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import click

from converters.cli.console import of_system
from converters.rules.ports import Port, port
from legacy_adapters import registry
from legacy_adapters.family import LEGACY, NEW, Exclusion, Family, FamilyError, RepoError, variant_of_configs
from legacy_adapters.ground.console import BAD_INPUT, Failure
from legacy_adapters.ground.words import counted
from legacy_adapters.job import CHECKS

from ..sides.packages import check_packages
from ..sides.places import RUN, check_file
from ..sides.settings import SettingsError, Sources, check_options
from ..traces.kinds import Kind
from .options import DEFAULT_BOUNDS
from .output import check_run_folder
from .report_files import ReportFiles

#: What is compared if nothing else is asked for: everything but a training.
_DEFAULT_CHECKS = tuple(check for check in CHECKS if check != "train")
#: Of a variant that names none. No image is the largest, the first neither the highest nor the widest.
DEFAULT_SIZES = ((93, 115), (131, 121), (77, 157))


def resolved(
    family: str, variant: str | None, legacy_config: str | None = None, new_config: str | None = None
) -> Port:
    """Return the model that a family, by name or folder, and a variant name, or two configs in place of a variant.

    Raises:
        converters.cli.console.Failure: if there is no such one, or no variant was named of several.
    """
    with refusals():
        found = registry.get(family)
        names = [known.name for known in found.variants]
        if legacy_config is not None or new_config is not None:
            return port(family, _of_configs(found, variant, legacy_config, new_config))
        if variant is None and len(names) > 1:
            configs = "--legacy-config and --new-config, or " if found.configured is not None else ""
            raise FamilyError(
                f"Family {found.name} has several variants; pass {configs}--variant, one of {', '.join(names)}."
            )
        if variant is not None and variant not in (known.name for known in found.named):
            near = difflib.get_close_matches(variant, names, n=1)
            meant = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}."
            raise FamilyError(f"--variant {variant} is none of family {found.name}; {meant}")
        return port(family, variant)


def _of_configs(family: Family, variant: str | None, legacy: str | None, new: str | None) -> str:
    """Return the name of the model of two configs."""
    if family.configured is not None and (legacy is None or new is None):
        missing = "--legacy-config" if legacy is None else "--new-config"
        raise FamilyError(f"A model of family {family.name} is made of two configs, one of each side; pass {missing}, too.")
    return variant_of_configs(family, variant, legacy or "", new or "")


def needs_detector(context: click.Context, option: click.Parameter, family: str | None) -> str | None:
    """Refuse a family that is no detector, before images are asked for.

    Raises:
        converters.cli.console.Failure: if the family makes inputs of its own, or there is none of that name.
    """
    if family is not None:
        with refusals():
            if registry.get(family).inputs is not None:
                raise FamilyError(
                    f"Family {family} has no detector: its family.py makes `inputs` of its own, so there are no images to "
                    "detect objects in; use `ddq-parity run`."
                )
    return family


def excluded(exclude: tuple[str, ...], reason: tuple[str, ...]) -> tuple[Exclusion, ...]:
    """Make exclusions of patterns ``[SIDE:][KIND:]NAME[#SLOT]`` and as many reasons.

    Raises:
        click.BadParameter: if a pattern cannot be read, or has no reason of its own.
    """
    if len(exclude) != len(reason):
        counts = f"{counted(len(exclude), 'pattern')} and {counted(len(reason), 'reason')}"
        raise click.BadParameter(f"found {counts}; give a --reason with each --exclude.")
    made: list[Exclusion] = []
    for pattern, why in zip(exclude, reason, strict=True):
        *before, rest = pattern.split(":")
        sides = [before.pop(0)] if before[:1] in ([LEGACY], [NEW]) else [LEGACY, NEW]
        name, _, slot = rest.partition("#")
        if len(before) > 1 or not name or not why.strip():
            raise click.BadParameter(
                f"--exclude {pattern!r} with --reason {why!r}; expected [legacy:|new:][KIND:]NAME[#SLOT] and a reason."
            )
        if before and not any(fnmatchcase(kind, before[0]) for kind in Kind):
            raise click.BadParameter(
                f"--exclude {pattern!r}: {before[0]!r} is no side and no kind of records; expected legacy, new, or one of "
                f"{', '.join(Kind)}."
            )
        made += [Exclusion(side, *(before or ["*"]), name, slot or "*", why) for side in sides]
    return tuple(made)


def task_options(
    size: tuple[tuple[int, int], ...] | None, check: tuple[str, ...] | None, family: str, variant: str | None,
    ranks: int = 1, legacy_config: str | None = None, new_config: str | None = None, **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Find the model, fill in the default sizes and checks, and rename what has another name on the command line."""
    of = settings["port"] = resolved(family, variant, legacy_config, new_config)
    check = check or (("train",) if ranks > 1 else _DEFAULT_CHECKS)
    sizes = size or (() if of.family.inputs is not None else of.variant.sizes or DEFAULT_SIZES)
    objects = settings["objects"]
    if objects is not None and sizes and len(objects) != len(sizes):
        told = f"{counted(len(objects), 'number')} for {counted(len(sizes), 'image')}"
        raise click.BadParameter(f"--objects gives {told}; give one per image.")
    settings.setdefault("amp", None)  # no option of `capture`
    given = {name: settings.pop(name, None) for name in _TRAINING_OPTIONS}
    training = _training("train" in check, 4 if ranks > 1 else 5, **given)
    return dict(sizes=sizes, checks=check, ranks=ranks, **training, **settings)


def input_options(*, inputs: Path | None, image: tuple[Path, ...], **settings: Any) -> dict[str, Any]:
    """Put the options of inputs that a user brings into the fields of their sources; refuse those that contradict them."""
    if inputs is not None and image:
        raise click.BadParameter("--inputs and --image are two ways to give inputs; pass one of them.")
    if (inputs is not None or image) and settings["objects"] is not None:
        raise click.BadParameter("--objects is of made-up inputs; leave it out with --inputs and --image.")
    if inputs is not None and settings["size"] is not None:
        raise click.BadParameter("--size is of made-up inputs and of --image; leave it out with --inputs.")
    with refusals():
        if inputs is not None:
            check_file(inputs, "named tensors", "a .safetensors file")
        for file in image:
            check_file(file, "an image", "a file such as a .jpg or .png")
        if image and registry.get(settings["family"]).inputs is not None:
            raise FamilyError(
                f"Family {settings['family']} has inputs of its own, which are no images; pass a file of them with --inputs."
            )
    sizes = settings["size"] if image else None
    if sizes is not None and len(sizes) != len(image):
        raise click.BadParameter(f"--size gives {counted(len(sizes), 'size')} for {counted(len(image), 'image')}; give one each.")
    return dict(settings, inputs=inputs, images=image, image_sizes=sizes)


def refuse_early(
    *, out: Path | None = None, force: bool = False, marker: str = RUN, golden: Path | None = None,
    checkpoint: Path | None = None, port: Port | None = None, legacy_repo: Path | None = None,
    legacy_python: str | None = None, new_adapter: Path | None = None, files: ReportFiles = ReportFiles(),
    **settings: Any,
) -> None:  # fmt: skip
    """Refuse what can be seen to be wrong before anything heavy is loaded, and before anything is made.

    Args:
        out: folder that keeps everything; None for none.
        force: replace what it holds.
        marker: file that an earlier result of the same kind has.
        golden: a golden file.
        checkpoint: of the weights.
        port: the model, where a legacy side is run.
        legacy_repo: its checkout.
        legacy_python: interpreter of the legacy side.
        new_adapter: adapter of one's own; None for the family's.
        files: that tell the verdict.
        **settings: the others; the fields of :class:`Task` may be among them.
    """
    needs_out(out, force, files)
    with refusals():
        files.check(force)
        if "sizes" in settings:
            check_options(dict(settings, port=port))
        if port is not None:
            check_packages(port.family, Sources(legacy_python=legacy_python, new_adapter=new_adapter))
        if golden is not None:
            check_file(golden, "a golden file", "`ddq-parity capture` makes one")
        if checkpoint is not None:
            check_file(checkpoint, "a checkpoint", "a .pth or .safetensors file")
        if port is not None:
            port.family.check_repo(legacy_repo, legacy_python)
        check_run_folder(out, force, marker)


@contextmanager
def refusals() -> Iterator[None]:
    """End with one line and exit code 2 on an input that cannot be used."""
    try:
        yield
    except OSError as error:
        raise Failure(of_system(error), BAD_INPUT) from error
    except (SettingsError, FamilyError, RepoError) as error:
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
            raise click.BadParameter(f"--{name} goes with --tolerance fixed, not {tolerance}; pass --tolerance fixed.")
    return settings


def needs_out(out: Path | None, force: bool, files: ReportFiles = ReportFiles(), **_: Any) -> None:
    """Refuse ``--force`` where there is nothing to replace."""
    if force and out is None and not any(files.given()):
        raise click.BadParameter("--force needs --out, the folder whose files it replaces; pass --out or leave it out.")


def refuse_files(files: ReportFiles, force: bool) -> None:
    """Refuse files that may not be replaced, or not be written, and ``--force`` without any."""
    if force and not any(files.given()):
        raise click.BadParameter("--force replaces files of --html, --junit and --markdown; pass one of them or leave it out.")
    with refusals():
        files.check(force)


def with_files(settings: dict[str, Any]) -> dict[str, Any]:
    """Put the options of files that tell a verdict into one, ``files``."""
    files = ReportFiles(*(settings.pop(name) for name in ("html", "junit", "markdown")))
    return dict(settings, files=files)
