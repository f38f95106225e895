"""What a user of the template gets wrong is told in a line; what the port gets wrong is named as the port's."""

import re

import pytest
from click.testing import CliRunner

import parity
from parity.cli.main import cli
from parity.cli.params import NamePair, SizeList


def command(*arguments):
    return CliRunner(env={"COLUMNS": "80", "NO_COLOR": "1"}).invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def family(tmp_path):
    """Return a function that writes the template with a file changed, and returns its folder."""

    def write(file, **changes):
        folder = tmp_path / "mine"
        assert command("new-family", folder, "-q").exit_code == 0
        text = (folder / file).read_text()
        for old, new in changes["to"].items():
            assert old in text
            text = text.replace(old, new)
        (folder / file).write_text(text)
        return folder

    return write


@pytest.mark.parametrize(
    ("file", "to", "says"),
    [
        ("legacy.py", {'batch["images"]).softmax': 'batch["image"]).softmax'},
         r"line \d+: predict\(model, batch\) asks for the input `image`, but phase predict has `images`, `labels`; "),
        ("new.py", {'model(batch["images"]).softmax': "model(**batch).softmax"},
         r"line \d+: predict\(model, batch\) calls NewNet, whose forward takes `images`, but phase predict has "),
    ],
    ids=["key", "keyword"],
)  # fmt: skip
def test_inputs_of_another_name_are_one_line_with_the_names_of_both(family, file, to, says):
    folder = family(file, to=to)
    result = command("run", "--family", folder, "--check", "forward", "--threads", 1)
    assert result.exit_code == 2, result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith(f"error: {folder / file}, line ") and re.search(says, last)
    assert last.endswith("; correct the names in `inputs` of family.py or here.") and "Traceback" not in result.stderr


def test_the_api_names_each_error_by_itself_and_calls_the_model_a_model(family):
    wrong = {"BatchNorm2d(channels)": "BatchNorm2d(channels, eps=1e-3)", "+ block(features)": "+ block(features * 1.01)"}
    folder = family("new.py", to=wrong)
    verdict = parity.run(folder, check="forward,loss,grad", isolate=True, threads=1)
    assert verdict.outcome == parity.MISMATCH and verdict.divergence.where == "stem.norm"
    assert [culprit.where for culprit in verdict.isolation.culprits] == ["stem.norm", "the model"]
    assert "The code of the model calls `blocks.0`" in verdict.isolation.culprits[1].message
    assert len(repr(verdict)) < 5000


def test_a_family_that_is_no_detector_is_told_so_before_images_are_asked_for(family):
    folder = family("family.py", to={})
    for more in ((), ("--ann", "none.json", "--images", "none")):
        result = command("eval", "--family", folder, *more)
        assert result.exit_code == 2 and f"Family {folder} has no detector" in result.stderr


def test_a_kind_that_no_record_has_cannot_be_excluded(family):
    folder = family("family.py", to={})
    result = command("run", "--family", folder, "--exclude", "old:stem", "--reason", "mine")
    assert result.exit_code == 2 and "'old' is no side and no kind of records; expected legacy, new, or" in result.stderr


def test_a_legacy_side_that_fails_with_and_without_autocast_has_crashed(family):
    folder = family("legacy.py", to={'batch["images"]).softmax': 'batch["images"]).no_such_thing'})
    result = command("run", "--family", folder, "--check", "forward", "--threads", 1, "--amp", "bf16")
    assert result.exit_code == 4 and "MATCH" not in result.stdout, result.output
    assert "error: The legacy side crashed" in result.stderr and "no_such_thing" in result.stderr


def test_a_side_collects_garbage_of_what_it_computes_and_none_of_what_it_loaded(family):
    looks = "import gc; assert gc.isenabled() and gc.get_freeze_count() > 100_000; return"
    folder = family("new.py", to={'return {"scores": model(batch': looks + ' {"scores": model(batch'})
    result = command("run", "--family", folder, "--check", "forward", "--threads", 1, "-q")
    assert result.exit_code in (0, 3) and "Error" not in result.stderr, result.output


@pytest.mark.parametrize("gives", ["[images]", "{}", '{"images": 1}'])
def test_inputs_that_are_no_named_tensors_are_one_line(family, gives):
    folder = family("family.py", to={'return {"images": images, "labels": labels}': f"return {gives}"})
    result = command("run", "--family", folder, "--check", "forward")
    assert result.exit_code == 2 and "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1].endswith(
        "inputs(phase, seed) of family mine must return named tensors, a dict of at least one."
    )


def test_values_of_python_are_taken_as_they_are():
    assert SizeList().convert(((64, 96),), None, None) == ((64, 96),) == SizeList().convert("64x96", None, None)
    assert NamePair().convert(("a", "b"), None, None) == ("a", "b") == NamePair().convert("a=b", None, None)
