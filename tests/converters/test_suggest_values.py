"""What a run of both models decides, what it cannot decide, and that a run that fails is no proof."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from converters.cli.main import cli
from converters.rules import rule_file
from converters.rules.mapping import Concat, Keep, Permute, Rename, Split
from converters.suggesting import models, trial, worker
from converters.suggesting.process import Run

_HEAD = """
import dataclasses
import torch
from torch import nn
from torch.nn import functional as F
L = nn.Linear
P = lambda *shape: nn.Parameter(torch.ones(shape))
class Conv1D(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(n, n)), nn.Parameter(torch.randn(n))
    def forward(self, x):
        return x @ self.weight + self.bias
class Flagged(Conv1D):
    def __init__(self, n, is_turned):
        super().__init__(n)
        self.is_turned = is_turned
    def forward(self, x):
        return x @ (self.weight if self.is_turned else self.weight.t()) + self.bias
@dataclasses.dataclass
class Out:
    scores: torch.Tensor
class M(nn.Module):
    def __init__(self, call, **parts):
        super().__init__()
        self.call = call
        for name, part in parts.items():
            setattr(self, name, part)
    def forward(self, x):
        return self.call(self, x)
"""
NET = "M(lambda s, x: s.head(x + s.proj(s.fc(x).relu())), fc={}, proj={}, head=L(8, 3))"
LINEAR = NET.format("L(8, 8)", "L(8, 8)")
FUSED = "M(lambda s, x: s.a(x, x, x, need_weights=False)[0], a=nn.MultiheadAttention(8, 2, batch_first=True))"
PARTS = (
    "M(lambda s, x: s.o(F.scaled_dot_product_attention(*[p(x).unflatten(-1, (2, 4)).transpose(1, 2) for p in "
    "(s.x1, s.x2, s.x3)]).transpose(1, 2).flatten(2)), x1=L(8, 8), x2=L(8, 8{}), x3=L(8, 8), o=L(8, 8))"
)
SOME = "torch.randn(3, 5, 8)"


class InThisProcess:
    """A model as `ModelProcess` has it, without the seconds that a process takes to begin."""

    def __init__(self, file: str, seed: int) -> None:
        self._model = worker.Model(Path(file), seed)

    def __enter__(self) -> InThisProcess:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        def ask(*arguments: Any) -> Any:
            try:
                return pickle.loads(pickle.dumps(getattr(self._model, name)(*arguments)))
            except worker.Unusable as error:
                raise models.RunError(str(error)) from error

        return ask

    def run(self, weights: dict, inputs: Any, precise: bool, with_gradients: bool = False) -> Run:
        found = self.__getattr__("run")(dict(weights), inputs, precise, with_gradients)
        return Run(tuple(found["outputs"]), tuple(found["calls"]), tuple(found["idle"]))


@pytest.fixture
def suggested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Write two models and return what the command says of them, and the rules that it writes."""
    monkeypatch.setattr(models, "ModelProcess", InThisProcess)

    def run(a: str, b: str, inputs: str = SOME, inputs_of_b: str = "") -> tuple[Result, set]:
        for name, build, called in (("a", a, inputs), ("b", b, inputs_of_b)):
            made = f"def inputs():\n    return {called}\n" if called else ""
            (tmp_path / f"{name}.py").write_text(f"{_HEAD}def build():\n    return {build}\n{made}")
        out = tmp_path / "rules.json"
        done = CliRunner().invoke(
            cli, ["suggest", "--models", str(tmp_path / "a.py"), str(tmp_path / "b.py"), "--out", str(out), "--force"]
        )
        return done, set(rule_file.load(out)) if out.exists() else set()

    return run


FC, PROJ = (Permute(f"{name}.weight", f"{name}.weight", axes=(1, 0)) for name in ("fc", "proj"))


@pytest.mark.parametrize("inputs", [SOME, "torch.zeros(3, 5, 8)"])
@pytest.mark.parametrize(
    ("fc", "proj", "turned"),
    [
        ("Conv1D(8)", "Conv1D(8)", {FC, PROJ}),
        ("L(8, 8)", "Conv1D(8)", {PROJ}),
        ("Flagged(8, False)", "Flagged(8, True)", {PROJ}),
    ],
    ids=["all", "one of two", "one of two of a class"],
)
def test_values_tell_whether_a_square_matrix_is_turned(suggested, fc: str, proj: str, turned: set, inputs: str) -> None:
    """A straight matrix elsewhere says nothing of it, and inputs of zeros prove nothing."""
    done, rules = suggested(LINEAR, NET.format(fc, proj), inputs)
    assert done.exit_code == 0 and {rule for rule in rules if isinstance(rule, Permute)} == turned, done.output


def test_a_square_matrix_is_open_where_nothing_is_run(suggested) -> None:
    done, rules = suggested(LINEAR, NET.format("Conv1D(8)", "Conv1D(8)"), "")
    assert done.exit_code == 1 and rules == {Keep("fc.bias"), Keep("proj.bias"), Keep("head.*")}


def test_a_failed_proof_is_never_complete(suggested) -> None:
    """The rules of the module that differs are open, and its name is told."""
    net = "M(lambda s, x: s.b(s.n(s.a(x))), a=L(8, 8), n=nn.LayerNorm(8, eps={}), b=L(8, 3))"
    done, rules = suggested(net.format(1e-5), net.format(1e-3))
    assert done.exit_code == 1 and rules == {Keep("a.*"), Keep("b.*")}
    assert "first module whose output differs is `n`" in " ".join(done.output.split())
    last = done.output.splitlines()[-1]
    assert "no proof: the outputs of both models differ" in last and "complete" not in last


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ("M(lambda s, x: s.o(x), o=L(8, 3), u=L(8, 2))", None, "no effect on the outputs"),
        ("M(lambda s, x: s.o(x), o=L(8, 3))", "M(lambda s, x: s.o(x).view(-1, 7), o=L(8, 3))", "were not both run"),
        ("M(lambda s, x: s.o(x) * 0, o=L(8, 3))", None, "all outputs of A are 0"),
        ("M(lambda s, x: None, o=L(8, 3))", None, "no tensors were found in what A returns"),
        ("M(lambda s, x: s.o(x), o=L(8, 3))", "M(lambda s, x: s.o(x).flatten(), o=L(8, 3))", "other numbers or shapes"),
    ],
    ids=["weights without effect", "B fails", "zeros", "no tensors", "other shapes"],
)
def test_what_is_not_proven_is_said(suggested, a: str, b: str | None, said: str) -> None:
    done, _ = suggested(a, b or a)
    assert done.exit_code == 1 and said in " ".join(done.output.split()), done.output
    assert "complete" not in done.output


def test_a_kernel_that_the_inputs_do_not_tell_is_open(suggested) -> None:
    net = "M(lambda s, x: s.h(s.c(x).mean((2, 3))), c=nn.Conv2d(4, 8, 3), h=L(8, 3))"
    done, rules = suggested(net, net, "torch.ones(2, 4, 7, 7)")
    assert done.exit_code == 1 and rules == {Keep("c.bias"), Keep("h.*")}


def test_a_small_output_beside_a_large_one_counts(suggested) -> None:
    net = "M(lambda s, x: (1e12 * s.a(x), 1e-3 * s.fc(x)), a=L(8, 3), fc={})"
    assert FC in suggested(net.format("L(8, 8)"), net.format("Conv1D(8)"))[1]


def test_q_k_and_v_are_found_among_four(suggested) -> None:
    done, rules = suggested(FUSED, PARTS.format(""))
    kinds = {
        Split(f"a.in_proj_{kind}", tuple(f"x{number}.{kind}" for number in (1, 2, 3))) for kind in ("weight", "bias")
    }
    assert done.exit_code == 0 and rules == {*kinds, Rename("a.out_proj.*", "o.*")}, done.output
    done, rules = suggested(PARTS.format(""), FUSED)
    assert done.exit_code == 0 and Concat(("x1.weight", "x2.weight", "x3.weight"), "a.in_proj_weight") in rules


def test_biases_are_parts_as_their_weights_are(suggested) -> None:
    """One layer of the three has none; so no three of the others are the parts."""
    done, rules = suggested(FUSED, PARTS.format(", bias=False"))
    assert done.exit_code == 1 and not rules and "split a.in_proj_bias" not in done.output


def test_inputs_that_are_not_the_same_are_said(suggested) -> None:
    """Two functions that draw numbers, each for itself."""
    net = "M(lambda s, x: s.o(x), o=L(8, 3))"
    done, _ = suggested(net, net, "torch.ones(2, 8)", "torch.zeros(2, 8)")
    said = " ".join(done.output.split())
    assert (
        done.exit_code == 1
        and "The two functions inputs() return other numbers; give one file alone such a function." in said
    )
    done, rules = suggested(net, net, "torch.ones(2, 8)", "torch.ones(2, 8)")
    assert done.exit_code == 0 and rules == {Keep("o.*")}


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        ("s.b(s.a(x))", "dict(x=torch.randn(3, 8))"),
        ("s.b(s.a(x[0]))", "([torch.randn(3, 8)],)"),
        ("s.b(s.a(x['image']))", "({'image': torch.randn(3, 8)},)"),
        ("s.b(s.a(x[0] * x[1]))", "((torch.zeros(3, 8), 2),)"),
        ("Out(s.b(s.a(x)))", SOME),
        ("dict(scores=[s.b(s.a(x))])", SOME),
        ("s.b(s.a(x)).detach()", SOME),
        ("s.b(s.a(x)) if x.dtype == torch.float32 else 1 / 0", SOME),
    ],
    ids=[
        "by name",
        "in a list",
        "in a dict",
        "zeros beside a number",
        "a dataclass",
        "a dict of a list",
        "without gradients",
        "single precision",
    ],
)
def test_models_are_called_with_and_give_whatever_holds_tensors(suggested, call: str, inputs: str) -> None:
    """Names say nothing of which square layer is which."""
    net = f"M(lambda s, x: {call}, a=L(8, 8), b=L(8, 8))"
    one, other = net, net.replace("s.a", "s.u").replace("s.b", "s.v").replace("a=L", "u=L").replace("b=L", "v=L")
    done, rules = suggested(one, other, inputs)
    assert done.exit_code == 0 and rules == {Rename("a.*", "u.*"), Rename("b.*", "v.*")}, done.output
    precise = "float32" if "float32" in call else "float64"
    assert f"The largest of all differences, in {precise}, is" in " ".join(done.output.split())


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        ("s.o(s.e(x).sum(1))", "torch.ones(2, 3, dtype=torch.int64)"),
        ("s.o(s.e.weight[:2]) if not x.any() else 1 / 0", "torch.zeros(2, 8)"),
        ("s.o(s.e.weight[:2]) / (x == 0).all()", "torch.zeros(2, 8)"),
        ("s.o(s.e.weight[:2])", SOME),
    ],
    ids=["no floating numbers", "random ones fail", "random ones give infinities", "random ones show no more"],
)
def test_weights_without_effect_stay_unproven_where_random_inputs_show_none(suggested, call: str, inputs: str) -> None:
    net = f"M(lambda s, x: {call}, e=nn.Embedding(6, 8), o=L(8, 3), u=L(2, 5))"
    done, _ = suggested(net, net, inputs)
    said = " ".join(done.output.split())
    assert (
        done.exit_code == 1 and "2 parameters of A have no effect on them; of these the run says nothing: u." in said
    ), said
    assert "Random inputs" not in said


def test_random_inputs_show_the_effect_of_weights_that_zeros_hide(suggested) -> None:
    net = "M(lambda s, x: s.o(x['a'] * x['b'][0]), o=L(8, 3))"
    done, rules = suggested(net, net, "(dict(a=torch.zeros(3, 8), b=[torch.tensor(2)]),)")
    assert done.exit_code == 0 and rules == {Keep("o.*")}
    assert "Random inputs of the same shapes were tried, too." in " ".join(done.output.split())


def test_statistics_of_norms_tell_which_norm_is_which(suggested) -> None:
    norm = "nn.BatchNorm1d(8, affine=False)"
    net = f"M(lambda s, x: s.{{0}}(s.{{1}}(x).relu()), {{1}}={norm}, {{0}}={norm})"
    done, rules = suggested(net.format("n", "m"), net.format("v", "u"), "torch.randn(5, 8)")
    assert rules == {Rename("m.*", "u.*"), Rename("n.*", "v.*")}, done.output


#: Plain parameters of a model, so that the outputs alone tell anything: which is which, and the same by other names.
PLAIN = (
    "M(lambda s, x: (x * s.{0} + s.{1}) @ (s.{2} * s.{3}.sin()).view(8, 3) @ (s.{4} + s.{5} ** 2).view(3, 5), "
    "{0}=P(8), {1}=P(8), {2}=P(2, 12), {3}=P(2, 12), {4}=P(15), {5}=P(15))"
)


@pytest.mark.parametrize(
    ("module", "name", "limit"),
    [(None, "", 0), (models, "_MOST_ANSWERS", 3), (models, "MOST_RUNS", 0), (trial, "_MOST_ALL", 5)],
    ids=["no limit", "few answers together", "few runs", "not all answers"],
)
def test_questions_that_only_all_answers_together_decide(
    suggested, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, limit: int
) -> None:
    """Where the search for one answer after the other gives up, all are tried."""
    if module is not None:
        monkeypatch.setattr(module, name, limit)
    done, rules = suggested(PLAIN.format(*"abcdef"), PLAIN.format(*"upvqwr"))
    assert done.exit_code == 0, done.output
    assert rules == {Rename(one, other) for one, other in zip("abcdef", "upvqwr")}


def test_answers_that_are_too_many_to_try_them_all_stay_open(suggested, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outputs are equal with one; that they are with another is not said."""
    monkeypatch.setattr(trial, "MOST_RUNS", 8)
    done, rules = suggested(PLAIN.format(*"abcdef"), PLAIN.format(*"upvqwr"))
    said = " ".join(done.output.split())
    assert done.exit_code == 1 and not rules and "B gives the outputs of A" in said
    assert "Other answers to what is open are too many to try them all." in said
    assert said.count("no name tells which is which, and the answers are too many to try them all") == 3
    assert "more than one" not in said and "So it does" not in said


def test_q_k_and_v_of_one_layer_are_told_by_what_is_computed_of_them(suggested) -> None:
    net = "M(lambda s, x: s.h(F.scaled_dot_product_attention({})), {}, h=L(8, 3))"
    one = net.format("*s.qkv(x).chunk(3, -1)", "qkv=L(8, 24, False)")
    other = net.format("s.p2(x), s.p0(x), s.p1(x)", ", ".join(f"p{number}=L(8, 8, False)" for number in range(3)))
    done, rules = suggested(one, other)
    parts = ("p2.weight", "p0.weight", "p1.weight")
    assert done.exit_code == 0 and rules == {Split("qkv.weight", parts), Keep("h.*")}, done.output


def test_lists_of_unequal_length_stay_open_though_both_models_run(suggested) -> None:
    net = "M(lambda s, x: s.o(x), o=L(8, 3), {})"
    spare = "p{}=P(5, 6)"
    one, other = (net.format(", ".join(spare.format(number) for number in numbers)) for numbers in ("12", "345"))
    done, rules = suggested(one, other)
    assert done.exit_code == 1 and rules == {Keep("o.*")}
    assert "2 keys of A, 3 of B: 2 tensors in A and 3 in B of the same sizes" in " ".join(done.output.split())


def test_a_weight_and_a_bias_that_are_called_alike_are_told_apart(suggested) -> None:
    net = "M(lambda s, x: s.o(x * s.{0} + s.{1}), {0}=P(8), {1}=P(8), o=L(8, 3))"
    done, rules = suggested(net.format("weight1", "bias1"), net.format("u", "v"))
    assert done.exit_code == 0 and rules == {Rename("weight1", "u"), Rename("bias1", "v"), Keep("o.*")}, done.output


def test_the_only_tensor_of_its_sizes_is_taken_if_the_outputs_show_it(suggested) -> None:
    """Of another name, beside tensors that one side alone has, sizes are no reason by themselves.

    Behind it are more layers of one size than orders are tried of: each is known by what the one before gives it.
    """
    net = "M(lambda s, x: (s.o(x @ s.{0}), s.r(s.{5}(s.{4}(s.{3}(s.{2}(s.{1}(x @ s.{0}).relu())))))), o=L(5, 3), "
    net += "r=L(5, 7), {0}=P(8, 5), {1}=L(5, 5), {2}=L(5, 5), {3}=L(5, 5), {4}=L(5, 5), {5}=L(5, 5){6})"
    done, rules = suggested(net.format(*"pabcde", ""), net.format(*"qvuwzy", ", more=P(2)"))
    renamed = {Rename(f"{one}.*", f"{other}.*") for one, other in zip("abcde", "vuwzy")}
    assert rules == {Keep("o.*"), Keep("r.*"), Rename("p", "q"), *renamed}, done.output
    assert "1 only in B" in done.output


def test_matrices_that_are_turned_only_together_are_found(suggested) -> None:
    """Nothing is seen of one of them alone, and a third of their class is straight by its sizes."""
    net = "M(lambda s, x: s.head({}), fc=L(8, 8, False), proj=L(8, 8, False), head=L(8, 3))"
    straight, turned = "F.linear(F.linear(x, s.fc.weight), s.proj.weight)", "x @ s.fc.weight @ s.proj.weight"
    done, rules = suggested(net.format(straight), net.format(turned))
    assert done.exit_code == 0 and rules == {FC, PROJ, Keep("head.*")}, done.output


def test_q_k_and_v_without_biases_are_found(suggested) -> None:
    fused = FUSED.replace("batch_first", "bias=False, batch_first")
    done, rules = suggested(fused, PARTS.format("").replace("L(8, 8)", "L(8, 8, False)"))
    split = Split("a.in_proj_weight", ("x1.weight", "x2.weight", "x3.weight"))
    assert done.exit_code == 0 and rules == {split, Rename("a.out_proj.weight", "o.weight")}, done.output


def test_a_process_that_ends_is_said_in_one_line(suggested, monkeypatch: pytest.MonkeyPatch) -> None:
    def ends(self: InThisProcess) -> None:
        raise models.RunError("its process ended with code -9")

    monkeypatch.setattr(InThisProcess, "state", ends, raising=False)
    net = "M(lambda s, x: s.o(x), o=L(8, 3))"
    done, _ = suggested(net, net)
    assert done.exit_code == 2 and "Traceback" not in done.output
    assert done.output.startswith("error: Cannot take the weights of ") and done.output.endswith(
        "its process ended with code -9.\n"
    )
