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
from converters.suggesting import models, worker
from converters.suggesting.process import Run

_HEAD = """
import torch
from torch import nn
from torch.nn import functional as F
L = nn.Linear
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

    def run(a: str, b: str, inputs: str = SOME) -> tuple[Result, set]:
        for name, build in (("a", a), ("b", b)):
            made = f"def inputs():\n    return {inputs}\n" if inputs and name == "a" else ""
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
        ("M(lambda s, x: s.o(x), o=L(8, 3))", "M(lambda s, x: s.o(x).flatten(), o=L(8, 3))", "other numbers or shapes"),
    ],
    ids=["weights without effect", "B fails", "zeros", "other shapes"],
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
