"""Whether the packages that the models need are installed, told before one of them fails to import.

A core install has none of them: they come with an extra. mmcv comes in two forms, of which an installation has one.
"""

import importlib.util
import re
from collections.abc import Iterable
from pathlib import Path

from legacy_adapters.ground.names import TOOLKIT
from legacy_adapters.ground.packages import EXTRAS, MMDET, OF_EXTRAS

#: What mmdet 3.3.0 accepts, from and below; it asserts this when it is imported.
_VERSIONS = {"mmcv": ("2.0.0", "2.2.0"), "mmengine": ("0.7.1", "1.0.0"), "mmdet": ("3.3.0", "3.4.0")}
_VERSION = re.compile(r"""^(?:__version__|version)\s*=\s*['"]([0-9][^'"]*)['"]""", re.MULTILINE)
_BOTH = "mmcv mmcv-lite"  # one folder is of both


class RequirementError(ImportError):
    """A package is missing, or of a version that does not fit; the message is one line."""


def check(names: Iterable[str] = MMDET) -> None:
    """Refuse an installation that lacks packages; without names, one in which mmdet cannot be imported.

    Nothing of the packages is executed: they are looked for, and the versions of mmdet and what it needs are read from
    their files.

    Args:
        names: of the packages, as they are imported.

    Raises:
        RequirementError: saying what to install.
    """
    for name in names:
        origin = _origin(name)
        if origin is None:
            install = f"install it with {EXTRAS}" if name in OF_EXTRAS else "install it here"
            raise RequirementError(f"{name} is not installed; {install}.", name=name)
        found = _version(Path(origin).parent) if name in _VERSIONS else None
        if found is None:
            continue
        least, below = _VERSIONS[name]
        if not _numbers(least) <= _numbers(found) < _numbers(below):
            raise RequirementError(
                f"{name} {found} is installed; ddq-port needs {name} from {least} on and below {below}: run "
                f"`pip uninstall {_BOTH if name == 'mmcv' else name}`, then {EXTRAS}.",
                name=name,
            )


def _origin(name: str) -> str | None:
    """Return where a package lies; None if it is not installed."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # of a finder, or of a module that was put in its place
        return None
    return None if spec is None else spec.origin


def told(error: ImportError) -> str | None:
    """Say in a line that an installed package is missing or broken; None if the fault is in ddq-port."""
    if isinstance(error, RequirementError):
        return str(error)
    if (error.name or "").partition(".")[0] in TOOLKIT:
        return None
    return (
        f"Cannot import: {error}; is it installed here? What ddq-port needs is installed by {EXTRAS}."
    )


def _version(folder: Path) -> str | None:
    """Return the version that a package's files state; None if they do not."""
    for file in ("version.py", "__init__.py"):
        try:
            stated = _VERSION.search((folder / file).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
        if stated is not None:
            return stated[1]
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
