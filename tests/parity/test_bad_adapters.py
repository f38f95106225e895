"""An adapter that cannot be used is refused before anything runs: one line with file, function and what is missing."""

import pytest
import torch

from converters.rules.ports import port
from legacy_adapters import contract
from legacy_adapters.bases.detection import DetectionAdapter
from legacy_adapters.launch import RefusedError
from legacy_adapters.recording.taps import Tap
from parity.sides.adapter_check import Needs, check_adapters
from parity.sides.settings import Machine, Sources

#: A complete adapter by its functions; none of them can be called.
STUBS = {
    "build": "def build(options, device): raise NotImplementedError('build is a stub:')",
    "predict": "def predict(model, batch): raise NotImplementedError",
    "losses": "def losses(model, batch): raise NotImplementedError",
    "taps": "def taps(model): raise NotImplementedError",
    "provenance": "def provenance(options): raise NotImplementedError",
    "training": "def training(model, options, epoch_length): raise NotImplementedError",
    "image_detector": "def image_detector(model, options): raise NotImplementedError",
}
OURS = "from parity.adapters.ddq_port import *\nimport torch\nright = build\n"


def adapter_of(label="bad.py", **functions):
    """Return an adapter of a file of functions."""
    adapter = DetectionAdapter()
    adapter.label = label
    for name, function in functions.items():
        setattr(adapter, name, function)
    return adapter


def stubs(**changed):
    return "\n".join(text for text in {**STUBS, **changed}.values() if text) + "\n"


def one_line(result):
    lines = [line for line in result.stderr.splitlines() if not line.endswith(" ...")]
    assert len(lines) == 1, result.output
    assert not lines[0].endswith(":") and "Traceback" not in result.output
    return lines[0]


@pytest.fixture
def refused(parity, tmp_path):
    """Run a check with an adapter of the given code; return the one line by which it is refused."""

    def run(code, check):
        adapter = tmp_path / "bad.py"
        if code is not None:
            adapter.write_text(code)
        more = ("--steps", "1") if check == "train" else ()
        result = parity(
            "run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", "64x64", "--check", check, *more,
            "--new-adapter", adapter, "--out", tmp_path / "out",
        )  # fmt: skip
        assert result.exit_code == 2, result.output
        assert "running the legacy side" not in result.output and not (tmp_path / "out").exists()
        line = one_line(result)
        assert str(adapter) in line
        return line

    return run


@pytest.mark.parametrize(
    ("check", "function"),
    [
        ("forward", "build(options, device)"),
        ("forward", "predict(model, batch)"),
        ("forward", "taps(model)"),
        ("init", "provenance(options)"),
        ("loss", "losses(model, batch)"),
        ("grad", "losses(model, batch)"),
        ("train", "training(model, options, epoch_length)"),
    ],
)
def test_function_that_is_missing(refused, check, function):
    line = refused(stubs(**{function.partition("(")[0]: ""}), check)
    assert f"has no function {function}, which check {check} needs" in line


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (None, "--new-adapter"),
        ("def build(options, device:\n    pass\n", "bad.py, line 1: SyntaxError: "),
        ("x = 1\nimport no_such_module\n", "bad.py, line 2 cannot be imported: ModuleNotFoundError: No module named"),
        ("import sys\n\nsys.exit(0)\n", "bad.py, line 3 cannot be imported: SystemExit: 0"),
        ("raise ValueError('first line:\\nsecond line:')\n", "ValueError: first line: second line."),
        (stubs(predict="predict = None"), "predict(model, batch) must be a function, found None"),
        (stubs(predict="predict = 'x'"), "predict(model, batch) must be a function, found a str"),
        (stubs(build="def build(options): pass"),
         "line 1: build(options, device) is called with 2 arguments, but takes build(options): "),
        (stubs(taps="def taps(model, batch): pass"),
         "taps(model) is called with 1 argument, but takes taps(model, batch): "),
        (stubs(aside="def aside(): pass"), "aside(model) is called with 1 argument"),
        (stubs(), "line 1: build(options, device) raised NotImplementedError: build is a stub."),
        (stubs(build="def build(options, device): return options['repo']"),
         "line 1: build(options, device) raised KeyError: 'repo'; options has config."),
        (stubs(build="def build(options, device): return 7"),
         "line 1: build(options, device) must return a torch.nn.Module, found a int."),
        (stubs(build="import torch\ndef build(options, device): return torch.nn.Linear(2, 2)"),
         "line 2: build(options, device) makes a model that lacks backbone.bn1.bias, "),
    ],
)  # fmt: skip
def test_adapter_that_is_wrong(refused, code, says):
    assert says in refused(code, "forward")


@pytest.mark.parametrize(
    ("code", "check", "says"),
    [
        ("def training(model, options, epoch_length): return torch.optim.SGD(model.parameters(), lr=1)\n", "train",
         "line 4: training(model, options, epoch_length) must return a legacy_adapters.training.steps.Training, found a SGD"),
        ("def build(options, device):\n    model = right(options, device)\n    del model.level_embed\n"
         "    return model\n", "forward", "line 4: build(options, device) makes a model that lacks level_embed;"),
        ("from mmcv.ops import RoIAlignRotated\ndef build(options, device):\n    model = right(options, device)\n"
         "    model.pooling = RoIAlignRotated(2, 1.0)\n    return model\n", "forward",
         "RoIAlignRotated calls what is lacking: mmcv operator `roi_align_rotated_forward` is not in ddq_port's stand-in"),
    ],
)  # fmt: skip
def test_what_it_makes_is_wrong(refused, code, check, says):
    assert says in refused(OURS + code, check)


def test_result_of_another_form_ends_the_run_in_one_line(parity, tmp_path):
    adapter = tmp_path / "bad.py"
    adapter.write_text("from parity.adapters.ddq_port import *\nright = losses\n\n"
                       "def losses(model, batch): return right(model, batch)[1]\n")  # fmt: skip
    result = parity(
        "run", "--family", "mmdet_ddq", "--variant", "tiny_4scale", "--size", "64x64", "--check", "loss",
        "--new-adapter", adapter,
    )  # fmt: skip
    assert result.exit_code == 4, result.output
    line = one_line(result)
    assert f"{adapter}, line 4: losses(model, batch) must return a dict of loss terms and their sum" in line
    assert line.endswith("found a Tensor.")


IMAGE = dict(bboxes=torch.zeros(2, 4), scores=torch.zeros(2), labels=torch.zeros(2))


@pytest.mark.parametrize(
    ("function", "value", "found"),
    [
        ("predict", 7, "a int"),
        ("predict", IMAGE, "a dict"),
        ("predict", [IMAGE, None], "None for image 1"),
        ("predict", [dict(boxes=1)], "the keys boxes for image 0"),
        ("predict", [dict(IMAGE, scores=[1.0])], "a list of 1 under scores for image 0"),
        ("losses", {}, "a dict"),
        ("losses", ([], torch.zeros(())), "a list of 0 in place of the dict"),
        ("losses", ({}, 1.0), "a float in place of the sum"),
        ("losses", ({}, torch.zeros(3)), "a Tensor of shape [3] in place of the sum"),
        ("taps", None, "None"),
        ("taps", [1], "a int at 0"),
        ("taps", [Tap(torch, "no_such_function", str, str)], "one of torch.no_such_function, which is not a function"),
        ("provenance", "mine", "a str"),
        ("image_detector", None, "None"),
    ],
)
def test_form_of_a_result(function, value, found):
    adapter = adapter_of(**{function: lambda *args: value})
    with pytest.raises(contract.WrongResultError) as caught:
        contract.result(adapter, function)
    assert str(caught.value).startswith(f"bad.py: {function}(") and str(caught.value).endswith(f", found {found}.")


def test_result_of_the_right_form_is_given_on():
    for function, value in dict(predict=[IMAGE, IMAGE], losses=({"a": 1}, torch.zeros(()))).items():
        assert contract.result(adapter_of(**{function: lambda value=value: value}), function) is value


def test_evaluation_needs_an_image_detector(tmp_path):
    adapter = tmp_path / "bad.py"
    adapter.write_text(stubs(image_detector=""))
    machine = Machine("cpu", threads=1, cpu_capability=None, time_limit=60)
    needs = Needs(port("mmdet_ddq", "tiny_4scale"), checks=())
    with pytest.raises(RefusedError, match=r"bad.py has no function image_detector\(.*\), which eval needs"):
        check_adapters(needs, Sources(new_adapter=adapter), machine, lambda step: None)


def test_own_adapter_is_not_looked_at():
    machine = Machine("cpu", threads=1, cpu_capability=None, time_limit=0)
    check_adapters(Needs(port("mmdet_ddq", "tiny_4scale"), ("forward",)), Sources(), machine, lambda step: 1 / 0)
