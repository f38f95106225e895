"""``ddq-parity preprocess``: its options, and what it does."""

from __future__ import annotations

import json as json_format
import sys
from pathlib import Path
from typing import Any

import click

from ..sides import places
from .early import needs_detector, refusals, refuse_early, resolved
from .options import LEGACY, MACHINE, NEW, OUTPUT, having, of_family
from .params import SizeList

REPORT = "report.json"
EXIT_CODES = """\b
Exit codes:
  0  match: every transform leaves the same
  1  mismatch
  2  usage or bad input
  3  not comparable: no image went through both sides
  4  a side crashed or ran out of time
  70 a bug in ddq-parity itself"""

#: Ends of the names of files that are taken for images in a folder.
_ENDS = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")

_IMAGES = (
    click.option(
        "--image",
        type=click.Path(path_type=Path, dir_okay=False),
        multiple=True,
        help="An image file. May be repeated.",
    ),
    click.option(
        "--images",
        type=click.Path(path_type=Path, file_okay=False),
        help="A folder whose images are taken as well, in the order of their names.",
    ),
    click.option("--limit", type=click.IntRange(1), help="How many images to take, from the first on. [default: all]"),
    click.option(
        "--repeats",
        type=click.IntRange(0, 1000),
        default=4,
        show_default=True,
        help="How often each image goes through the pipelines of training, with other random numbers; 0 leaves them out.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        help="Seed of random numbers and made-up objects.",
    ),
    click.option(
        "--scale",
        type=SizeList(),
        help="Resize images to fit into this size (shorter x longer side) in place of that of the test pipelines.",
    ),
)
_KEPT = (
    click.option(
        "--out",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder in which to keep both recordings, logs and report.json. [default: nothing is kept]",
    ),
    click.option("--force", is_flag=True, help="Replace an earlier comparison in --out."),
)


@click.command("preprocess", epilog=EXIT_CODES)
@having(*of_family(is_eager=True, callback=needs_detector), *LEGACY, *NEW, *_IMAGES, *MACHINE[1:], *_KEPT, *OUTPUT)
def command(
    json: bool, quiet: bool, image: tuple[Path, ...], images: Path | None, limit: int | None, out: Path | None,
    scale: tuple[tuple[int, int], ...] | None, **arguments: Any,
) -> None:  # fmt: skip
    """Run image files through both sides' pipelines and compare what every transform makes of them.

    Each image goes through the test pipeline and, seeded, through that of training with made-up objects, then through the
    preprocessor. The first transform that leaves something else is named.
    """
    if scale is not None and len(scale) != 1:
        raise click.BadParameter(f"--scale gives {len(scale)} sizes; give one, such as 480x640.")
    names = ("family", "variant", "legacy_config", "new_config")
    arguments["port"] = resolved(*(arguments.pop(name) for name in names))
    with refusals():
        files = files_of(image, images)[:limit]
    if not files:
        raise click.BadParameter("no image was given; pass --image FILE, or --images FOLDER.")
    refuse_early(out=out, marker=places.EVALUATION, **arguments)
    del arguments["force"]
    size = (scale[0][1], scale[0][0]) if scale else None
    sys.exit(run(as_json=json, quiet=quiet, files=files, out=out, scale=size, **arguments))


def files_of(image: tuple[Path, ...], folder: Path | None) -> tuple[Path, ...]:
    """Return the image files that were named, then those of a folder.

    Raises:
        OSError: if one does not exist, or the folder has none.
    """
    for file in image:
        places.check_file(file, "an image", "a file such as a .jpg or .png")
    found: list[Path] = []
    if folder is not None:
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} does not exist; expected a folder of images, --images.")
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _ENDS)
        if not found:
            raise FileNotFoundError(f"{folder} has no image ({', '.join(_ENDS)}); give another folder with --images.")
    return (*image, *found)


def run(
    *, port: Any, files: tuple[Path, ...], seed: int, repeats: int, scale: tuple[int, int] | None, out: Path | None,
    legacy_repo: Path | None, legacy_python: str | None, require_known_commit: bool, new_adapter: Path | None,
    as_json: bool, quiet: bool, **machine: Any,
) -> int:  # fmt: skip
    """Run both sides, print the verdict, and return the exit code."""
    from ..evaluation import preprocessing_report
    from ..evaluation.preprocessing import PreprocessingVerdict
    from ..evaluation.preprocessing_run import PreprocessingTask, options_dict, preprocess
    from ..runs.run import check_legacy
    from ..sides.settings import Sources
    from .commands import machine_of
    from .console import OpenConsole, done, progress, written
    from .output import whole_folder
    from .trace_commands import INPUT_ERRORS

    sources = Sources(legacy_repo, legacy_python, None, new_adapter, require_known_commit)
    where = machine_of(dict(machine, device="cpu"))
    task = PreprocessingTask(port, files, seed, repeats, scale)
    names = [file.name for file in files]

    def work() -> PreprocessingVerdict:
        check_legacy(port.family, sources)
        with whole_folder(out) as folder:
            told = json_format.dumps(options_dict(task, sources, where), indent=1, sort_keys=True, default=str)
            (folder / places.EVALUATION).write_text(told)
            verdict = preprocess(task, sources, where, folder, progress(quiet))
            report = json_format.dumps(preprocessing_report.as_dict(verdict, names), indent=1, sort_keys=True)
            (folder / REPORT).write_text(report)
        return verdict

    verdict, code = done(work, INPUT_ERRORS)
    if verdict is None:
        return code

    def render() -> None:
        if as_json:
            sys.stdout.write(json_format.dumps(preprocessing_report.as_dict(verdict, names), indent=1) + "\n")
        else:
            preprocessing_report.print_verdict(verdict, names, OpenConsole(), quiet)

    written(render)
    return verdict.exit_code
