"""Lines that a report has in some runs only: each says what it is about, and how much more there is."""

import io
from dataclasses import replace
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console
from torch import nn

import parity
from parity.comparing.derived import Finding
from parity.comparing.drift import AutocastFailure, Drift
from parity.comparing.evidence import ZERO
from parity.diagnosis.kinds import Diagnosis, DiagnosisKind
from parity.report.diagnosis import diagnosis_lines
from parity.report.junit import junit
from parity.report.markdown import markdown
from parity.report.modules import share_of_allowed
from parity.report.page.page import page
from parity.report.report import divergence_lines, print_verdict
from parity.report.rounding import rounding_lines
from parity.report.training import training_lines, zero_lines
from parity.sides.places import OF_MODEL
from parity.verdict.initial import InitialDifference
from parity.verdict.verdict import with_isolation

from .synthetic import Rec, judged
from .test_report_files import words_of
from .test_script_cases import WrongInFloat32

X = torch.linspace(-1, 1, 12).reshape(3, 4)
ONE = [Rec("module_out", "m", [1.0, 2.0])]
TWO = [Rec("module_out", "m", [1.0, 3.0])]
NONE = Finding(ZERO, ZERO, ZERO, ZERO, "")


def text_of(verdict, script=None):
    """Return what is printed on a terminal of 80 columns, its lines joined."""
    file = io.StringIO()
    print_verdict(verdict, Console(file=file, width=80), quiet=False, script=script)
    return " ".join(file.getvalue().split())


def many(number):
    """Return as many modules that give another output, and those of the legacy side."""
    return tuple([Rec("module_out", f"m{i}", value) for i in range(number)] for value in (1.0, 2.0))


@pytest.mark.parametrize(("start", "says"), [(OF_MODEL, "shown, with the whole model, by"), ("m alone", "shown alone by")])
def test_a_script_that_shows_the_error_is_named_with_what_it_runs(tmp_path, start, says):
    script = tmp_path / "reproduce.py"
    script.write_text(f'"""{start} on the inputs of the run."""\n')
    assert f"{says}: python {script}" in text_of(judged(tmp_path, ONE, TWO), script=script)


def test_a_match_has_nothing_to_say_of_a_divergence(tmp_path):
    verdict = judged(tmp_path, ONE, ONE)
    assert divergence_lines(verdict) == [] and "first divergence" not in text_of(verdict)


def test_what_is_built_differently_is_listed_and_cut(tmp_path):
    places = tuple(InitialDifference(f"m{i}", f"`m{i}` is filled with zeros.") for i in range(200))
    verdict = replace(judged(tmp_path, ONE, TWO), initial=places)
    text = text_of(verdict)
    shown = text.count("is filled with zeros.")
    assert "built or initialised differently: 200 `m0` is filled with zeros." in text
    assert 0 < shown < 200 and f"and {200 - shown} more; see --json" in text
    listed = markdown(verdict)
    assert "Built or initialised differently" in listed and listed.count("is filled with zeros.") < 200
    assert "- and " in listed


def test_modules_taken_for_one_are_named(tmp_path):
    verdict = replace(judged(tmp_path, ONE, ONE), containers=(("a.layers", "a.blocks"), ("b.x", "b.y")))
    says = "taken for one, for they hold the same parameters: a.layers and a.blocks (+1 more)"
    assert says in text_of(verdict)


def test_thresholds_of_nms_that_nothing_probed_are_told(tmp_path):
    says = "NMS never tried at its very threshold: no tap of the new side has a `probe`"
    both = judged(tmp_path / "both", ONE, ONE, on_legacy=dict(probed=["nms"]), on_new=dict(probed=["nms"]))
    assert says not in text_of(both)
    assert says in text_of(judged(tmp_path / "one", ONE, ONE, on_legacy=dict(probed=["nms"])))


def test_places_that_differ_by_themselves_are_cut(tmp_path):
    legacy, new = many(200)
    verdict = judged(tmp_path / "ordinary", legacy, new)
    alone = judged(tmp_path / "isolated", legacy, new)
    text = text_of(with_isolation(verdict, alone, [c.pair.legacy for c in verdict.comparisons]))
    assert "isolated: 200 places" in text and " more; see --json" in text


def test_what_has_no_twin_is_cut(tmp_path):
    legacy = [Rec("module_out", name) for name in "abcdefghijklmnopqrstuvwxyz"]
    assert "and 10 more things without a twin" in text_of(judged(tmp_path, legacy, [Rec("module_out", "a")]))


class ByHand(nn.Linear):
    def forward(self, x):
        return (x[..., None, :] * self.weight).flip(-1).sum(-1) + self.bias


class Scores(nn.Module):
    """A bias that changes nothing, for a softmax follows: its gradient is zero but for rounding."""

    def __init__(self, number, layer=nn.Linear):
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(layer(64, 1) for _ in range(number))

    def forward(self, x):
        return torch.cat([layer(x).softmax(0) for layer in self.layers], -1)


@pytest.mark.parametrize(("number", "says"), [(1, "1 parameter has a gradient that is"), (2, "2 parameters have gradients that are")])
def test_gradients_that_are_zero_but_for_rounding_are_named(number, says):
    x = torch.linspace(-1, 1, 8 * 64).reshape(8, 64).sin()
    verdict = parity.check(Scores(number), Scores(number, ByHand), x)
    (line,) = zero_lines(verdict)
    assert line.startswith(f"{says} zero but for rounding, as float64 shows; else up to ") and "layers.0.bias" in line
    assert zero_lines(parity.check(Scores(number), Scores(number), x)) == []


TRAINED = dict(steps=2, epoch_length=1, clip_order="twin", optimizer="AdamW", optimizer_groups=1, frozen_in_groups=0)


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (1, "1 parameter has a gradient that is only rounding, so its step is not compared: m0"),
        (2, "2 parameters have gradients that are only rounding, so their steps are not compared: m0 (+1 more)"),
    ],
)
def test_steps_of_gradients_that_are_only_rounding_are_named(tmp_path, number, says):
    records = [[Rec("state", f"m{i}", value) for i in range(number)] for value in (1.0, 2.0)]
    verdict = judged(tmp_path, *records, on_legacy=TRAINED, on_new=TRAINED)
    finding = replace(NONE, only_rounding=True)
    verdict = replace(verdict, comparisons=tuple(replace(c, finding=finding) for c in verdict.comparisons))
    assert training_lines(verdict)[-1].strip() == says
    assert zero_lines(verdict) == []


def test_a_backward_that_is_wrong_in_float32_only_is_told_as_a_possible_kink():
    class Net(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.wrong = nn.Linear(4, 4), wrong

        def forward(self, x):
            y = self.layer(x)
            return WrongInFloat32.apply(y) if self.wrong else y

    (line,) = rounding_lines(parity.check(Net(False), Net(True), X))
    assert "further off in the precision of the run than rounding explains, though not in float64" in line
    assert "a kink (ReLU, clamp, bilinear sampling)" in line


def test_half_precision_with_more_rounding_than_size_is_counted(tmp_path):
    verdict = judged(tmp_path, ONE, TWO, on_legacy=dict(amp="bf16"), on_new=dict(amp="bf16"))
    finding = replace(NONE, explained=10.0, size=1.0)
    verdict = replace(verdict, comparisons=tuple(replace(c, finding=finding) for c in verdict.comparisons))
    (line,) = rounding_lines(verdict)
    assert line.startswith("of 1 record with other bits 1 has more rounding in bf16 than ")
    assert line.endswith("of their size: what they compute is judged in float64")


def test_under_exact_tolerance_a_match_says_how_many_differ_without_effect():
    class Net(nn.Module):
        def __init__(self, on_logits):
            super().__init__()
            torch.manual_seed(0)
            self.layer, self.on_logits = nn.Linear(4, 20), on_logits

        def forward(self, x):
            logits = self.layer(x)
            scores = logits.sigmoid()
            return scores.gather(-1, (logits if self.on_logits else scores).topk(5).indices)

    verdict = parity.check(Net(False), Net(True), X, tolerance="exact", gradients=False)
    assert verdict.outcome == parity.MATCH, verdict.reasons
    line = parity.summary(verdict).splitlines()[-1]
    assert line.endswith("differ without effect") and "within exact tolerance" not in line


def test_what_autocast_changes_by_itself_is_on_the_page(tmp_path):
    verdict = judged(tmp_path, ONE, ONE)
    record = verdict.comparisons[0].pair.new
    failure = AutocastFailure("The legacy side cannot run under autocast.", (), (Drift(record, 0.0123),))
    words = words_of(page(replace(verdict, autocast_failure=failure)))
    assert "The legacy side cannot run under autocast." in words and "1 1.23 1.23 m" in words
    assert "1.23" not in words_of(page(verdict))


def test_nothing_compared_has_no_table_in_markdown(tmp_path):
    text = markdown(replace(judged(tmp_path, ONE, ONE), comparisons=()))
    assert "| stage |" not in text and "| stage |" in markdown(judged(tmp_path / "again", ONE, ONE))


def test_a_lone_backtick_stands_for_itself_in_markdown(tmp_path):
    verdict = replace(judged(tmp_path, ONE, TWO), reasons=("It's `so|so` here.", "A lone ` and a |."))
    text = markdown(verdict)
    assert "- It's `so\\|so` here." in text and "- A lone \\` and a \\|." in text


def test_junit_of_what_cannot_be_compared_names_no_divergence(tmp_path):
    verdict = judged(tmp_path, [Rec("module_out", "a.b", 1.0)], [Rec("module_out", "a.b", 2.0)], on_new=dict(threads=8))
    verdict = replace(verdict, divergence=None)
    failed = [one.text for one in ElementTree.fromstring(junit(verdict)).iter("failure")]
    assert failed and not any("first divergence" in text for text in failed)


@pytest.mark.parametrize(
    ("residual", "gap", "says"),
    [
        (0.0, 0.5, " (explains every bit)"),
        (0.001, float("inf"), " (leaves 0.001 of its size)"),
        (0.001, 0.5, " (leaves 0.001 of its size, the difference is 0.5)"),
    ],
)
def test_a_diagnosis_says_what_it_leaves_unexplained(residual, gap, says):
    one = Diagnosis(DiagnosisKind.FACTOR, "times 2", residual, gap, 1)
    assert diagnosis_lines([one]) == [f"diagnosis: times 2{says}"]


def test_an_error_where_none_is_allowed_is_beyond_all_bounds():
    assert share_of_allowed(NONE) == 0.0
    assert share_of_allowed(replace(NONE, error=replace(ZERO, max=1e-9))) == float("inf")
