"""The command line `ddq-convert`."""

from __future__ import annotations

import functools
import json
import signal
from collections.abc import Callable
from typing import Any, NoReturn

import click

from converters import __version__
from converters.cli.config_command import config
from converters.cli.console import UNFIT, ByteSize, OneLineGroup, exit_codes
from converters.cli.suggest import suggest
from converters.options import Options
from legacy_adapters import registry
from legacy_adapters.family import FamilyError, variant_of_configs
from legacy_adapters.ground.console import DONE, message

_EXIT_CODES = """\b
Exit codes:
  0  done
  1  the checkpoint does not fit or does not verify
  2  usage or bad input (missing file, not a checkpoint, truncated,
     output exists, nothing to do)
"""


@click.group(
    cls=OneLineGroup,
    epilog=_EXIT_CODES,
    context_settings={"auto_envvar_prefix": "DDQ_CONVERT", "help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="ddq-convert")
def cli() -> None:
    """Carry a detector's weights from a legacy layout to the new one, and back.

    Data goes to stdout, messages to stderr. Every option has an environment variable, for example
    DDQ_CONVERT_CONVERT_TO=legacy. Pickles are read, never executed.
    """


def _wrapping(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what the state dict of SRC is wrapped in."""
    key = click.option(
        "--key",
        metavar="K",
        help="Key of the state dict in SRC, such as model.state_dict; '' is the top. [default: found]",
    )
    prefix = click.option(
        "--prefix", metavar="P", help="Prefix of its keys, such as module.; '' is none. [default: found]"
    )
    return key(prefix(command))


def _of_model(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return what adds the options that say which model a file, or both of two, is of."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        family = click.option(
            "--family",
            metavar="NAME|FOLDER",
            help=f"Family of {what}: a name, or the folder of one. [default: detected]",
        )
        variant = click.option("--variant", metavar="NAME", help=f"Variant of {what}. [default: detected]")
        config = click.option(
            "--new-config",
            metavar="FILE|NAME",
            help=f"Config of the new model of {what}, in place of a variant, for a family whose models are made of configs "
            "(mmdet2); a file or a name in the code base.",
        )

        legacy = click.option(
            "--legacy-config",
            metavar="FILE",
            help=f"Config of the old version that {what} was trained with, with --new-config: a training goes on with its "
            "schedules. [default: the one in the file]",
        )

        @functools.wraps(command)
        def of_model(*args: Any, new_config: str | None, legacy_config: str | None, **options: Any) -> Any:
            with exit_codes():
                options["variant"] = _variant(options["family"], options["variant"], new_config, legacy_config)
            return command(*args, **options)

        return family(variant(config(legacy(of_model))))

    return add


def _variant(
    family: str | None, variant: str | None, new_config: str | None, legacy_config: str | None
) -> str | None:
    """Return the name of the variant that is asked for, be it by a config.

    Raises:
        FamilyError: If the family has no models of configs, or both a variant and a config are given.
    """
    if new_config is None and legacy_config is not None:
        raise FamilyError("--legacy-config goes with --new-config, which says what the model is; pass both.")
    if new_config is None:
        return variant
    if family is None:
        raise FamilyError("--new-config says which model of a family it is; pass --family, too.")
    return variant_of_configs(registry.get(family), variant, legacy_config or "", new_config)


@cli.command(epilog=_EXIT_CODES)
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option("--to", type=click.Choice(["new", "legacy"]), default="new", show_default=True, help="Layout of DST.")
@_wrapping
@_of_model("SRC")
@click.option(
    "--rules",
    metavar="FILE",
    type=click.Path(),
    help="Convert by the rules in FILE, such as `suggest` writes, in place of a family.",
)
@click.option(
    "--like",
    metavar="CHECKPOINT",
    type=click.Path(),
    help="With --rules: DST must have the keys, shapes and dtypes of CHECKPOINT. [default: whatever the rules make]",
)
@click.option("--allow-unmapped", is_flag=True, help="Leave out keys that no rule matches, instead of refusing SRC.")
@click.option(
    "--keep",
    type=click.Choice(["model", "ema", "all"]),
    help="What to keep: the training weights, the averaged weights (ema), or everything that resuming a training needs "
    "(.pth only). [default: all for a .pth; for a .safetensors the averaged weights, or else the training weights]",
)
@click.option(
    "--num-classes",
    type=click.IntRange(min=1),
    help="Number of classes of DST, for fine-tuning. [default: that of SRC]",
)
@click.option(
    "--class-map",
    metavar="FILE",
    type=click.Path(),
    help='JSON file that gives each class of DST the class of SRC it starts from, by name or index: {"cat": "cat", '
    '"new": null}. null makes a new class. [default: all classes are kept if SRC has as many; otherwise all are new]',
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of new classes.")
@click.option(
    "--dtype",
    type=click.Choice(["fp16", "bf16", "fp32"]),
    help="Type of all floating-point tensors in DST. [default: as in SRC]",
)
@click.option("--strip", is_flag=True, help="Write only weights and class names, for inference.")
@click.option(
    "--shard-size", type=ByteSize(), help="Split DST (.safetensors) into files of at most this size, such as 5GB."
)
@click.option("--dry-run", is_flag=True, help="Print what would happen to each tensor, and write nothing.")
@click.option("--force", is_flag=True, help="Replace DST if it exists.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    envvar="DDQ_CONVERT_CONVERT_JSON",
    help="Print the result as JSON, with every key.",
)
@click.option("-q", "--quiet", is_flag=True, help="Print only errors (and JSON with --json).")
@click.option(
    "-v",
    "--verbose",
    count=True,
    help="List renamed and dropped keys, changed values and other parts; -vv lists all keys.",
)
def convert(
    src: str, dst: str, dry_run: bool, force: bool, as_json: bool, quiet: bool, verbose: int, **options: Any
) -> None:
    """Convert checkpoint SRC and write it to DST (.pth or .safetensors).

    With --to legacy, a SRC of the legacy layout is cleaned: tensors that the training saved twice are checked and
    dropped. A key above the state dict or a prefix of its keys is found and removed.
    """
    with exit_codes():
        from converters import api
        from converters.carrying import classes
        from converters.cli import render

        if options["class_map"] is not None:
            options["class_map"] = classes.read_map(options["class_map"])
        step = api.plan_file if dry_run else api.convert_file
        done = step(src, dst, Options(**options), force)
    if not quiet:
        details = render.details(done.plan, verbose) if verbose and not dry_run else []
        for line in [*details, *render.note_lines(done.plan.notes)]:
            message(line)
    if as_json:
        click.echo(json.dumps({**done.as_dict(), "dry_run": dry_run}, indent=2, sort_keys=True))
    elif dry_run and not quiet:
        click.echo("\n".join(render.plan_lines(done)))
    elif not quiet:
        click.echo(render.verdict(done))


@cli.command(epilog=_EXIT_CODES)
@click.argument("dst", type=click.Path())
@click.option(
    "--source",
    metavar="SRC",
    type=click.Path(),
    help="Also check that SRC is the file that was converted, and that converting it gives the same.",
)
@click.option("--json", "as_json", is_flag=True, envvar="DDQ_CONVERT_VERIFY_JSON", help="Print the result as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors (and JSON with --json).")
def verify(dst: str, source: str | None, as_json: bool, quiet: bool) -> None:
    """Check the converted file DST against its manifest.

    This checks the digest of every tensor, the layout, the rules and the bytes of the whole file, and that the manifest
    in DST agrees with DST.manifest.json.
    """
    with exit_codes():
        from converters.cli import render
        from converters.examining import verification

        checked = verification.verify_file(dst, source)
    if as_json:
        click.echo(json.dumps(checked.as_dict(), indent=2, sort_keys=True))
    elif not quiet:
        click.echo(render.verified(checked))


@cli.command(epilog=_EXIT_CODES)
@click.argument("src", type=click.Path())
@_wrapping
@_of_model("SRC")
@click.option(
    "--json", "as_json", is_flag=True, envvar="DDQ_CONVERT_INSPECT_JSON", help="Print the description as JSON."
)
def inspect(src: str, as_json: bool, **asked: str | None) -> None:
    """Describe checkpoint SRC: tensors, layout, classes, duplicates."""
    with exit_codes():
        from converters.cli import render
        from converters.examining import inspection

        seen = inspection.inspect_file(src, **asked)
    if as_json:
        click.echo(json.dumps(seen.as_dict(), indent=2, sort_keys=True))
    else:
        click.echo("\n".join(render.inspection_lines(seen)))


@cli.command(
    epilog="""\b
Exit codes:
  0  equal
  1  different
  2  usage or bad input (missing file, not a checkpoint, damaged)
"""
)
@click.argument("a", type=click.Path())
@click.argument("b", type=click.Path())
@click.option("--key", "keys", metavar="K", multiple=True, help="Key of the state dict in A; give it again for B.")
@click.option("--prefix", "prefixes", metavar="P", multiple=True, help="Prefix of its keys in A; give it again for B.")
@_of_model("A and B")
@click.option("--json", "as_json", is_flag=True, envvar="DDQ_CONVERT_DIFF_JSON", help="Print all differences as JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Print only errors (and JSON with --json).")
@click.option("-v", "--verbose", is_flag=True, help="List every key that differs.")
@click.pass_context
def diff(
    context: click.Context,
    a: str,
    b: str,
    keys: tuple[str, ...],
    prefixes: tuple[str, ...],
    family: str | None,
    variant: str | None,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> None:
    """Compare the state dicts of checkpoints A and B: keys, shapes, dtypes, values.

    If the layouts differ, the keys of A are translated to the layout of B. Tensors that a training saved twice count
    once.
    """
    with exit_codes():
        from converters.cli import render
        from converters.examining import diff as differ

        found = differ.diff_files(a, b, keys, prefixes, family, variant)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, sort_keys=True))
    elif not quiet:
        click.echo("\n".join(render.diff_lines(found, verbose)))
    context.exit(DONE if found.is_empty else UNFIT)


cli.add_command(suggest)
cli.add_command(config)


def main() -> None:
    """Run the command line; the entry point of `ddq-convert`."""
    signal.signal(signal.SIGTERM, _unwind)
    cli(prog_name="ddq-convert")


def _unwind(number: int, frame: object) -> NoReturn:
    """End like an interruption does, so that temporary files are removed."""
    raise click.Abort
