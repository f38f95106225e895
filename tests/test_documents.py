"""The pages are true: every command, option, file, link and heading that they name is there."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from converters.cli.main import cli as convert
from ddq_port.export.cli import cli as export
from ddq_port.training.cli import cli as train
from ddq_port.training.eval_cli import cli as evaluate
from legacy_adapters import registry
from legacy_adapters.family import FamilyError
from parity.cli.main import cli as parity

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES += sorted((ROOT / "docs").glob("*.md"))
COMMANDS = {
    "ddq-convert": convert, "ddq-parity": parity, "ddq-train": train, "ddq-eval": evaluate, "ddq-export": export,
}  # fmt: skip
MODULES = {"parity": parity, "converters": convert, "ddq_port.training": train, "ddq_port.training.eval_cli": evaluate}
FOLDERS = {path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
#: Programs of others; what they are given is theirs.
FOREIGN = {"cd", "eval", "export", "git"}
#: Options of other programs that the pages name alone.
FOREIGN_OPTIONS = {"--nnodes", "--node-rank", "--master-addr"}

_BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"``(.+?)``|`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\[]*\]\(([^)\s]+)\)")
_PATH = re.compile(r"[\w.-]+(/[\w.-]+)+\.(py|md|npz|json|sh|toml|txt)")


@pytest.fixture(params=PAGES, ids=lambda path: path.stem)
def page(request: pytest.FixtureRequest) -> Path:
    return request.param


def lines_of(page: Path) -> Iterator[str]:
    """Yield each command line that a page shows, continued lines as one."""
    for language, block in _BLOCK.findall(page.read_text()):
        text = re.sub(r" *\\\n\s*", " ", block)
        for line in map(str.strip, text.splitlines()):
            if language == "sh" and line and not line.startswith("#"):
                yield line
            elif language == "console" and line.startswith("$ "):
                yield line[2:]


def spans_of(page: Path) -> Iterator[str]:
    """Yield what stands between backticks, outside of blocks."""
    for double, single in _SPAN.findall(_BLOCK.sub("", page.read_text())):
        yield double or single


def faults_of(line: str) -> Iterator[str]:
    """Say what a command line names that is not there."""
    for words in segments(line):
        yield from (f"{word} is not there" for word in words if missing(word))
        program, *arguments = words
        name = Path(program).name
        if name in ("torchrun", "srun"):
            start = next(i for i, word in enumerate(words) if word in COMMANDS or word == "-m")
            program, *arguments = words[start:] if words[start] != "-m" else words[start - 1 :]
            program, arguments = ("python", words[start:]) if words[start] == "-m" else (program, arguments)
            name = Path(program).name
        if name in COMMANDS:
            yield from refused(COMMANDS[name], arguments)
        elif name.startswith("python") and arguments[0] == "-m":
            yield from refused_module(arguments[1], arguments[2:])
        elif name == "pip" or name.startswith("python"):
            yield from (f"no extra {extra}" for word in words for extra in extras(word) if extra not in known_extras())
        elif name == "make":
            targets = [word for word in arguments if "=" not in word]
            known = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
            yield from (f"no target {target}" for target in targets if target not in known)
        elif name not in FOREIGN | {"pytest"} and not (ROOT / program).is_file():
            yield f"unknown program {program}"


def segments(line: str) -> Iterator[list[str]]:
    """Split a line into the commands it consists of, without redirections and variables."""
    words: list[str] = []
    for word in [*shlex.split(line, comments=True), "&&"]:
        if word in ("&&", "|", ";"):
            while words and re.fullmatch(r"\w+=.*", words[0]):
                del words[0]
            if ">" in words:
                del words[words.index(">") :]
            if words:
                yield words
            words = []
        else:
            words.append(word)


def missing(word: str) -> bool:
    """Tell whether a word is a path below a folder of the project, and is not there."""
    path = Path(word.partition("::")[0])
    return len(path.parts) > 1 and path.parts[0] in FOLDERS and not (ROOT / path).exists()


def extras(word: str) -> list[str]:
    found = re.fullmatch(r"(?:\.|ddq-port)\[([\w,]+)\]", word)
    return found[1].split(",") if found else []


def known_extras() -> set[str]:
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def refused_module(module: str, arguments: list[str]) -> Iterator[str]:
    """Say what is wrong with ``python -m MODULE ARGUMENTS``."""
    if module in MODULES:
        yield from refused(MODULES[module], arguments)
    elif module.partition(".")[0] in FOLDERS:
        path = ROOT / module.replace(".", "/")
        files = [path.with_suffix(".py"), *(path.glob("*.py") if path.is_dir() else ())]
        text = "".join(file.read_text() for file in files if file.is_file())
        if not text:
            yield f"no module {module}"
        yield from (f"{module} has no {word}" for word in arguments if word.startswith("--") and word not in text)


def command_of(command: click.Command, arguments: list[str]) -> tuple[click.Command, list[str]]:
    """Go down to the subcommand that is called."""
    if not isinstance(command, click.Group) or not arguments:
        return command, arguments
    first, *rest = arguments
    if first in command.commands:
        return command.commands[first], rest
    default = getattr(command, "default", None)
    return (command.commands[default], arguments) if default and not first.startswith("-") else (command, arguments)


def refused(command: click.Command, arguments: list[str]) -> Iterator[str]:
    """Say what click's own parser and the types of options refuse; whether files of a user exist is not asked."""
    command, arguments = command_of(command, arguments)
    if isinstance(command, click.Group):
        yield f"no subcommand in {arguments}"
        return
    context = click.Context(command, info_name=command.name)
    if "..." in arguments:
        known = {text for param in command.params for text in (*param.opts, *param.secondary_opts)}
        yield from (f"no option {word}" for word in arguments if word.startswith("-") and word not in known)
        return
    try:
        values, left, _ = command.make_parser(context).parse_args(list(arguments))
        if left:
            yield f"too many arguments: {left}"
        for param in command.get_params(context):
            value = values.get(param.name)
            is_given = isinstance(value, str | bool | int | tuple | list) and value != ()
            if param.required and not is_given:
                yield f"{param.human_readable_name} is missing"
            if is_given and not isinstance(param.type, click.Path) and param.nargs == 1 and not param.is_eager:
                param.type_cast_value(context, value)
        yield from unknown_model(values.get("family"), values.get("variant"))
    except click.UsageError as error:
        yield error.format_message()


def unknown_model(family: object, variant: object) -> Iterator[str]:
    """Say which family or variant is not there; the folder of a family is a user's."""
    if not isinstance(family, str) or "/" in family:
        return
    try:
        registry.get(family).variant(variant if isinstance(variant, str) else None)
    except FamilyError as error:
        yield str(error)


def test_a_fault_in_a_command_line_is_seen() -> None:
    seen = {line: list(faults_of(line)) for line in (
        "ddq-parity rum x", "ddq-parity run --family mmdet_ddq --variant tiny_4scale --sise 64x64",
        "ddq-parity run --family mmdet_dqd --variant tiny_4scale", "python -m benchmarks.none", "make tests",
        "pip install '.[x]'", "ddq-convert convert a",
        "ddq-parity check tests/golden/none.npz", "ddq-parity compare a b c", "none.sh", "cd a && ddq-eval b",
        "python -m tests.faults --no-such", "torchrun -m ddq_port.training x --nothing", "pytest tests/none.py",
    )}  # fmt: skip
    assert [line for line, faults in seen.items() if len(faults) != 1] == []


def test_every_command_line_can_be_parsed(page: Path) -> None:
    assert [(line, fault) for line in lines_of(page) for fault in faults_of(line)] == []


def test_every_option_that_is_named_exists(page: Path) -> None:
    def options(command: click.Command) -> set[str]:
        below = command.commands.values() if isinstance(command, click.Group) else ()
        own = {text for param in command.params for text in (*param.opts, *param.secondary_opts)}
        return own.union(*map(options, below))

    everywhere = set.union(*map(options, COMMANDS.values())) | FOREIGN_OPTIONS | {"--help"}
    folders = (ROOT / name for name in ("tools", "benchmarks", "tests/faults", "parity/testing"))
    tools = "".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    unknown = []
    for span in spans_of(page):
        program, *words = span.split()
        known = everywhere
        if program in COMMANDS and words:
            command = command_of(COMMANDS[program], words)[0]
            known = everywhere if isinstance(command, click.Group) else options(command) | {"--help"}
        elif program in ("torchrun", "srun", "pip", "git", "python"):
            continue
        named = re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)
        unknown += [(span, name) for name in named if name not in known and f'"{name}"' not in tools]
    assert unknown == []


def test_every_link_leads_somewhere(page: Path) -> None:
    def broken(target: str) -> bool:
        if re.match(r"\w+:", target):
            return False
        name, _, anchor = target.partition("#")
        path = page.parent / name if name else page
        return not path.exists() or bool(anchor and anchor not in anchors_of(path))

    assert [target for target in _LINK.findall(_BLOCK.sub("", page.read_text())) if broken(target)] == []


def anchors_of(page: Path) -> set[str]:
    """Return the names that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", _LINK.sub("", heading).lower()).strip().replace(" ", "-") for heading in headings}


def test_every_file_that_is_named_exists(page: Path) -> None:
    named = [span for span in spans_of(page) if _PATH.fullmatch(span.partition("::")[0])]
    assert [span for span in named if missing(span)] == []


def test_python_blocks_import_what_is_there(page: Path) -> None:
    blocks = [block for language, block in _BLOCK.findall(page.read_text()) if language == "python"]
    imports = [node for block in blocks for node in ast.walk(ast.parse(block)) if isinstance(node, ast.ImportFrom)]
    modules = {node.module for node in imports if node.module.partition(".")[0] in FOLDERS}
    assert [module for module in sorted(modules) if importlib.util.find_spec(module) is None] == []


def test_every_page_can_be_reached_from_the_readme() -> None:
    linked = {(ROOT / target).resolve() for target in _LINK.findall((ROOT / "README.md").read_text())}
    assert [path.name for path in PAGES[1:] if path not in linked] == []
