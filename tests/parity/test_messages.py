"""What a person sees who gives ``ddq-parity`` something wrong: one line with a next step, exit code 2, nothing made."""

import json
import signal
import subprocess
import sys
import time

import pytest

from converters.errors import ConversionError
from parity.cli import commands, output
from parity.sides.places import INDEX

from .image_set import write_image_set
from .training_logs import training, write_mmengine

WHAT = ("--family", "mmdet_ddq", "--variant", "tiny_4scale")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Make a folder of things that are wrong in one way each."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "empty").write_bytes(b"")
    (folder / "text.npz").write_text("hello")
    (folder / "text.json").write_text("hello")
    (folder / "list.json").write_text("[]")
    (folder / "half.json").write_text('{"images": [{"id": 1}]}')
    (folder / "folder").mkdir()
    for side in ("legacy", "new"):
        (folder / "RUN" / side).mkdir(parents=True)
        (folder / "RUN" / side / INDEX).write_text("{}")
    (folder / "RUN" / "run.json").write_text("{}")
    (folder / "notes").mkdir()
    (folder / "notes" / "thesis.tex").write_text("years of work")
    write_image_set(folder / "set")
    (folder / "log.txt").write_text("nothing of a training")
    write_mmengine(folder / "training", training(1))
    return folder


EVAL = ("eval", "--ann", "{set}", "--images", "{images}", *WHAT)
CASES = {
    "audit RUN": (("audit", "{RUN}"), "did you mean {RUN}/new?"),
    "audit a file of a trace": (("audit", "{RUN}/new/index.json"), "did you mean {RUN}/new?"),
    "audit nothing": (("audit", "{nowhere}"), "nowhere does not exist; expected the folder of a trace"),
    "audit some folder": (("audit", "{folder}"), "is not a trace: it has no index.json; `ddq-parity run --out RUN`"),
    "audit a file": (("audit", "{empty}"), "empty is a file; expected the folder of a trace, such as RUN/new."),
    "audit with NaN": (("audit", "{RUN}/new", "--ulps", "nan"), "'nan' is not a number from 0 on"),
    "compare RUN RUN": (("compare", "{RUN}", "{RUN}"), "did you mean {RUN}/legacy?"),
    "compare legacy RUN": (("compare", "{RUN}/legacy", "{RUN}"), "did you mean {RUN}/new?"),
    "compare damaged": (("compare", "{RUN}/legacy", "{RUN}/new"), "has format version None"),
    "compare within NaN": (("compare", "a", "b", "--tolerance", "fixed", "--rtol", "nan"), "'nan' is not a number"),
    "compare within inf": (("compare", "a", "b", "--tolerance", "fixed", "--atol", "inf"), "'inf' is not a number"),
    "bisect RUN/new": (("bisect", "{RUN}/new"), "is a trace of a run; did you mean {RUN}?"),
    "bisect nothing": (("bisect", "{nowhere}"), "does not exist; make a run with `ddq-parity run ... --out"),
    "bisect some folder": (("bisect", "{folder}"), "holds no run; make one with `ddq-parity run"),
    "check nothing": (
        ("check", "{nowhere}"),
        "does not exist; expected a golden file: `ddq-parity capture` makes one.",
    ),
    "check an empty file": (("check", "{empty}"), "is empty; expected a golden file"),
    "check a folder": (("check", "{folder}"), "is a directory"),
    "check text": (("check", "{text.npz}"), "is not a golden file or is damaged"),
    "check with an empty checkpoint": (
        ("check", "{text.npz}", "--checkpoint", "{empty}"),
        "empty is empty; expected a",
    ),
    "run with a folder for weights": (("run", *WHAT, "--checkpoint", "{folder}"), "is a folder; expected a checkpoint"),
    "run without weights": (
        ("run", *WHAT, "--checkpoint", "{nowhere}"),
        "nowhere does not exist; expected a checkpoint",
    ),
    "run into a file": (("run", *WHAT, "--out", "{empty}"), "is a file"),
    "run below a file": (("run", *WHAT, "--out", "{empty}/x"), "cannot be a folder, because {empty} is a file"),
    "run into something else": (("run", *WHAT, "--out", "{notes}", "--force"), "is not empty and holds no earlier run"),
    "run over a run": (("run", *WHAT, "--out", "{RUN}"), "holds an earlier run; choose another --out or pass --force"),
    "a variant misspelled": (("run", *WHAT[:3], "tiny_4scael"), "did you mean tiny_4scale?"),
    "a family misspelled": (("run", "--family", "mmdet-ddq", *WHAT[2:]), "did you mean mmdet_ddq?"),
    "a command misspelled": (("evl",), "No such command `evl`; did you mean `eval`?"),
    "a command made up": (("xyz",), "No such command `xyz`; there are run, capture"),
    "capture into no folder": (("capture", "{nowhere}/g.npz", *WHAT), "is not a folder; make it, or choose another"),
    "capture over a file": (("capture", "{text.npz}", *WHAT), "exists; choose another name or pass --force"),
    "capture into a folder": (("capture", "{folder}", *WHAT), "is a directory"),
    "eval without a file": ((*EVAL, "--ann", "{nowhere}"), "nowhere does not exist; expected an annotation file"),
    "eval of a folder": ((*EVAL, "--ann", "{folder}"), "is a directory"),
    "eval of an empty file": ((*EVAL, "--ann", "{empty}"), "empty is empty; expected an annotation file"),
    "eval of text": ((*EVAL, "--ann", "{text.json}"), "text.json is not JSON"),
    "eval of a list": ((*EVAL, "--ann", "{list.json}"), "has no list `images`; expected a data set in COCO's format"),
    "eval of half a set": ((*EVAL, "--ann", "{half.json}"), "images[0]"),
    "eval without images": ((*EVAL, "--images", "{folder}"), "is not there"),
    "eval without a folder": (
        (*EVAL, "--images", "{nowhere}"),
        "does not exist; expected the folder of the images, --images",
    ),
    "eval of other classes": ((*EVAL[:-1], "r50_4scale"), "3 categories"),
    "eval below a file": ((*EVAL, "--out", "{empty}/x"), "cannot be a folder, because {empty} is a file"),
    "curves without a log": (("curves", "{nowhere}", "{training}"), "does not exist; give a log or a work dir"),
    "curves of text": (("curves", "{log.txt}", "{training}"), "holds no loss of a training"),
    "curves of an empty file": (("curves", "{empty}", "{training}"), "holds no loss of a training"),
    "curves of an empty folder": (("curves", "{folder}", "{training}"), "holds no log; expected"),
    "curves below a file": (("curves", "{training}", "{training}", "--out", "{empty}/x"), "cannot be a folder"),
}


def filled(text, place):
    named = {"set": "set/set.json", "images": "set/images"}
    for name in ("set", "images", "nowhere", *(path.name for path in place.iterdir())):
        text = text.replace(f"{{{name}}}", str(place / named.get(name, name)))
    return text


def tree(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_and_makes_nothing(parity, place, case, tmp_path):
    arguments, says = CASES[case]
    arguments = [filled(argument, place) for argument in arguments]
    if arguments[0] in ("run", "check", "eval", "curves") and "--out" not in arguments:
        arguments += ["--out", tmp_path / "out"]
    before = tree(place)
    result = parity(*arguments)
    lines = result.stderr.splitlines()
    assert result.exit_code == 2 and not result.stdout, result.output
    assert lines[-1].startswith("error: ") and filled(says, place) in lines[-1]
    # the adapter of the new side is tried before the classes are compared, and told
    assert all(line.endswith(" ...") for line in lines[:-1]) and (len(lines) == 1 or case == "eval of other classes")
    assert tree(place) == before and not list(tmp_path.iterdir())


@pytest.fixture
def no_sides(monkeypatch):
    """Let a run take no time: its sides are not run, ``act`` is done instead."""
    monkeypatch.setattr(commands, "check_adapters", lambda *arguments: None)

    def use(act):
        monkeypatch.setattr(commands, "run_parity", lambda options, prepared, folder, progress: act(folder))

    return use


def failing(error):
    def act(folder):
        (folder / "run.json").write_text("{}")
        (folder / "legacy").mkdir()
        raise error

    return act


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (OSError(28, "No space left on device", "x.safetensors"), 2, "`x.safetensors`: No space left on device. Make"),
        (PermissionError(13, "Permission denied", "legacy.log"), 2, "error: Cannot read or write `legacy.log`: Perm"),
        (ConversionError("no such key"), 2, "error: no such key"),
    ],
    ids=["Ctrl-C", "full disk", "no right", "bad weights"],
)
@pytest.mark.parametrize("earlier", [True, False], ids=["over an earlier run", "into a new folder"])
def test_a_run_that_ends_early_leaves_what_was_there(parity, no_sides, tmp_path, error, code, says, earlier):
    no_sides(failing(error))
    if earlier:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "run.json").write_text("the old one")
    before = tree(tmp_path)
    result = parity("run", *WHAT, "--size", "64x64", "--out", tmp_path / "out", *["--force"] * earlier)
    assert result.exit_code == code and says in result.stderr.splitlines()[-1]
    assert tree(tmp_path) == before


def test_an_error_of_safetensors_on_a_full_disk_is_no_bug(parity, no_sides, tmp_path):
    text = "Error while serializing: I/O error: No space left on device (os error 28)"
    no_sides(failing(output_error(text)))
    result = parity("run", *WHAT, "--size", "64x64", "--out", tmp_path / "out")
    assert result.exit_code == 2 and "No space left on device. Make room there" in result.stderr
    assert not list(tmp_path.iterdir())


def output_error(text):
    from safetensors import SafetensorError

    return SafetensorError(text)


def test_corrected_command_of_an_evaluation_is_accepted(parity, place, tmp_path):
    """An error in what was given must not leave a folder that makes the corrected command fail."""
    arguments = [filled(argument, place) for argument in EVAL]
    wrong = parity(*arguments[:-1], "r50_4scale", "--out", tmp_path / "out", "-q")
    assert wrong.exit_code == 2 and not (tmp_path / "out").exists()
    output.check_run_folder(tmp_path / "out", False, "eval.json")


def test_plot_that_cannot_be_drawn_leaves_nothing(parity, place, tmp_path, monkeypatch):
    write_mmengine(tmp_path / "b", training(2))
    monkeypatch.setattr("parity.curves.plot.draw", lambda verdict, file: 1 / 0)
    result = parity("curves", place / "training", tmp_path / "b", "--out", tmp_path / "new" / "out")
    assert isinstance(result.exception, ZeroDivisionError) and [path.name for path in tmp_path.iterdir()] == ["b"]


def test_log_that_begins_at_a_resume_is_not_comparable(parity, tmp_path):
    for number in range(4):
        write_mmengine(tmp_path / f"a{number}", training(number))
    write_mmengine(tmp_path / "b", training(9), start=3)
    band = [word for number in range(1, 4) for word in ("--band", tmp_path / f"a{number}")]
    result = parity("curves", tmp_path / "a0", tmp_path / "b", *band, "--out", tmp_path / "out")
    assert result.exit_code == 3 and json.loads((tmp_path / "out" / "curves.json").read_text())["exit_code"] == 3
    assert (
        "begins at 2.217 epochs, as the log of a resumed training does; give a work dir that holds the earlier"
        in (result.stdout.splitlines()[-1])
    )
    write_mmengine(tmp_path / "b", training(8), time="20250101_000000")  # the first part, earlier
    assert "resumed" not in parity("curves", tmp_path / "a0", tmp_path / "b", *band).stdout


def test_termination_in_the_middle_keeps_the_earlier_run(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text("the old one")
    code = (
        "import time, parity.cli.commands as c; from parity.cli.main import main; import sys\n"
        "c.check_adapters = lambda *a: None\n"
        "def act(options, prepared, folder, progress):\n"
        "    (folder / 'run.json').write_text('{}'); print('begun', flush=True); time.sleep(60)\n"
        "c.run_parity = act\n"
        f"sys.argv = ['ddq-parity', 'run', *{WHAT!r}, '--size', '64x64', '--force', '--out', {str(tmp_path)!r} + '/out']\n"
        "main()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"begun\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert (tmp_path / "out" / "run.json").read_text() == "the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
