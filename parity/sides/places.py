"""Tell what a path that a user gave is, before anything heavy is loaded. Imports the standard library only."""

from __future__ import annotations

from pathlib import Path

from legacy_adapters.ground.names import LEGACY, NEW

#: As in :mod:`legacy_adapters.recording.trace_writer`, which loads torch.
INDEX = "index.json"
#: What a run and an evaluation leave in their folder, and what a bisection does.
RUN, EVALUATION, SCRIPT = "run.json", "eval.json", "reproduce.py"
#: How a script begins that shows an error with the whole model, not with one module.
OF_MODEL = "The whole model"


def check_trace(folder: Path, usual: str = NEW) -> None:
    """Refuse a path that is not a folder of a trace.

    Args:
        folder: to be looked at.
        usual: the trace that is probably meant where the folder of a run is given.

    Raises:
        OSError: saying what it is instead.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; expected the folder of a trace, such as RUN/{usual}.")
    if not folder.is_dir():
        meant = f"; did you mean {folder.parent}?" if folder.name == INDEX else ", such as RUN/{usual}."
        raise NotADirectoryError(f"{folder} is a file; expected the folder of a trace{meant.format(usual=usual)}")
    if (folder / INDEX).is_file():
        return
    known = [name for name in (usual, NEW, LEGACY) if (folder / name / INDEX).is_file()]
    if known:
        raise FileNotFoundError(
            f"{folder} is not a trace: it has no {INDEX}, but holds traces; did you mean {folder / known[0]}?"
        )
    raise FileNotFoundError(
        f"{folder} is not a trace: it has no {INDEX}; `ddq-parity run --out RUN` makes the traces RUN/{LEGACY} and "
        f"RUN/{NEW}."
    )


def is_of_model(script: Path) -> bool:
    """Tell whether a script of a bisection runs the whole model."""
    return script.is_file() and script.read_text(encoding="utf-8").startswith(f'"""{OF_MODEL}')


def check_run(folder: Path) -> None:
    """Refuse a path that is not a folder of a run.

    Raises:
        OSError: saying what it is instead.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; make a run with `ddq-parity run ... --out {folder}`.")
    if (folder / RUN).is_file() or not folder.is_dir():
        return
    if (folder / INDEX).is_file() and (folder.absolute().parent / RUN).is_file():
        raise FileNotFoundError(f"{folder} is a trace of a run; did you mean {folder.absolute().parent}?")


def check_file(path: Path, what: str, advice: str) -> None:
    """Refuse a path that is no file, or an empty one.

    Args:
        path: to be looked at.
        what: the file is expected to be, such as `a golden file`.
        advice: how to come by one, a part of a sentence.

    Raises:
        OSError: saying what it is instead.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; expected {what}: {advice}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; expected {what}: {advice}.")
    if path.is_file() and not path.stat().st_size:
        raise FileNotFoundError(f"{path} is empty; expected {what}: {advice}.")
