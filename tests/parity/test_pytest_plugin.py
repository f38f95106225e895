"""The pytest plugin in a sample project: record, match, mismatch, a missing file, and what it may import."""

from __future__ import annotations

import os
import shutil
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import parity.api
import parity.scripts.goldens
import parity.testing.fixture  # noqa: F401  (pytester forgets what its runs import first, and torch cannot be imported twice)

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]
#: A golden file that `ddq-parity capture` made.
OF_FAMILY = next((ROOT / "tests" / "golden" / "mmdet2").glob("*.npz"))
HIDING = ROOT / "tests" / "core_install"
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, eps=1e-5):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(6, 32), nn.LayerNorm(32, eps), nn.Linear(32, 3)

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        return self.last(nn.functional.dropout(x, 0.5, self.training)).topk(2).values

def made(**options):
    torch.manual_seed(0)
    return Net(**options), torch.randn(40, 6)
"""
TEST = """
from net import made

def test_net(parity):
    net, x = made()
    assert parity.check(net, x).outcome == "MATCH"
"""
FILE = "goldens/test_net/test_net.npz"


@pytest.fixture
def project(pytester, monkeypatch):
    """Return a sample project with one module and one test."""
    pytester.makepyfile(net=NET, test_net=TEST)
    pytester.syspathinsert()
    for variable in ("PYTEST_ADDOPTS", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    return pytester


def plugin():
    """Return options that load the plugin where it is not installed with its entry point."""
    return [] if "parity" in entry_points(group="pytest11").names else ["-p", "parity.testing.plugin"]


def run(project, *options):
    return project.runpytest_inprocess(*plugin(), "-p", "no:cacheprovider", *options)


def test_golden_files_are_recorded_and_compared_and_never_replaced_by_chance(project):
    file = project.path / FILE
    missing = run(project)
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines([f"There is no golden file {FILE}, so nothing was compared.*",
                                  '    pytest --parity-record "test_net.py::test_net"'])  # fmt: skip
    recorded = run(project, "--parity-record")
    recorded.assert_outcomes(passed=1)
    recorded.stdout.fnmatch_lines([FILE, "Nothing was compared for these.*"])
    content = file.read_bytes()
    assert len(content) < 20_000
    run(project).assert_outcomes(passed=1)

    project.makepyfile(test_net=TEST.replace("made()", "made(eps=1e-4)"))
    for options in ([], ["--parity-record"]):
        differing = run(project, *options)
        differing.assert_outcomes(failed=1)
        differing.stdout.fnmatch_lines(["`norm` (call 0) gives another output for equal inputs.", "max error *, allowed *",
                                        'MISMATCH * records differ. First at norm.', "*--parity-replace*"])  # fmt: skip
        assert file.read_bytes() == content
    run(project, "--parity-replace").assert_outcomes(passed=1)
    assert file.read_bytes() != content
    run(project).assert_outcomes(passed=1)


#: What a test does -> what the plugin says.
OTHERS = {
    "net.last.weight.data += 1e-4; parity.check(net, x, name='a')": "*weights are not those*`last.weight` differs by*",
    "parity.check(net, x + 1e-3, name='a')": "*The inputs are not those that were recorded. Give the module the same,*",
    "net.last.forward = lambda x: 1 / 0; parity.check(net, x, name='a')": "The module crashed in `last`: ZeroDivisionError: division by zero",
    "parity.check(net, x, sed=1)": "parity.check has no setting `sed`; there are call, exclude, *",
    "parity.check(net, x, name='a'); parity.check(net, x, name='a')": "The test checks under the name 'a' twice;*",
    "parity.check(3, x, name='a')": "*Expected a torch.nn.Module, found int (3).",
    "parity.compare(net, made(eps=1e-4)[0], x)": "`norm` (call 0) gives another output for equal inputs.",
    "parity.check(net, x, name='a', exclude='last')": "*found 1 pattern and 0 reasons; give a --reason with each --exclude.",
    "parity.compare(net, 3, x)": "*The modules cannot be compared: Expected a torch.nn.Module, found int (3).",
    "new, _ = made(); new.last.forward = lambda x: 1 / 0; parity.compare(net, new, x)":
        "The modules cannot be compared: The new side crashed in `last`: ZeroDivisionError: division by zero",
    # what is the same: other last bits as of another machine, another way to compute it
    "net.last.weight.data *= 1 + 1.2e-7; parity.check(net, x * (1 + 1.2e-7), name='a')": "",
    "net.last.forward = MethodType(lambda self, x: x @ self.weight.t() + self.bias, net.last); parity.check(net, x, name='a')": "",
    "w = net.last.weight; net.last.forward = lambda x: x @ w.t() + net.last.bias; parity.check(net, x, name='a')":
        "INCOMPARABLE Bits differ, and how much rounding explains is not known: in float64 the module stops with RuntimeError*",
    "net.train(); parity.check(net, x, name='b')": "",
    "assert parity.compare(net, made()[0], x).outcome == 'MATCH'": "",
}  # fmt: skip


def test_each_failure_says_what_it_is(project):
    begin = "from types import MethodType\n\nfrom net import made\n"
    recorded = f"{begin}\ndef test_it(parity):\n    net, x = made()\n    parity.check(net, x, name='a')\n"
    project.makepyfile(test_it=f"{recorded}    net.train()\n    parity.check(net, x, name='b')\n", test_net="")
    run(project, "--parity-record").assert_outcomes(passed=1)
    stored, tests = project.path / "goldens" / "test_it", [begin]
    for number, code in enumerate(OTHERS):
        tests.append(f"def test_{number}(parity):\n    net, x = made()\n    {code}\n")
        for name in "ab":
            shutil.copy(stored / f"test_it.{name}.npz", stored / f"test_{number}.{name}.npz")
    files = {path.name: path.read_bytes() for path in stored.iterdir()}
    project.makepyfile(test_it="\n".join(tests))
    done = run(project)
    same = [number for number, says in enumerate(OTHERS.values()) if not says]
    done.assert_outcomes(passed=len(same), failed=len(OTHERS) - len(same))
    for says in filter(None, OTHERS.values()):
        done.stdout.fnmatch_lines([says])
    done.stdout.no_fnmatch_line("*During handling*")
    assert files == {path.name: path.read_bytes() for path in stored.iterdir()}


def test_the_marker_gives_settings_and_every_parameter_has_a_file(project):
    project.makepyfile(
        test_net="import pytest\nfrom net import made\n\n@pytest.mark.parity(gradients=False, folder='kept')\n"
        "@pytest.mark.parametrize('eps', ['1e-5', 'a/b'])\ndef test_net(parity, eps):\n"
        "    verdict = parity.check(*made())\n"
        "    assert {one.pair.new.kind for one in verdict.comparisons}.isdisjoint({'grad', 'grad_in', 'grad_out'})\n"
    )  # fmt: skip
    run(project, "--parity-record", "--strict-markers").assert_outcomes(passed=2)
    names = [path.name for path in sorted((project.path / "kept" / "test_net").iterdir())]
    assert names[0] == "test_net-1e-5.npz" and names[1].startswith("test_net-a-b-") and len(names) == 2


#: What a test does while its file is recorded -> what the plugin says.
NOT_WRITTEN = {
    "parity.check(net, x, rules='rules.json')":
        "goldens/test_it/test_*.npz is not written: it would have the new names, to which `rules` do not fit; leave them out.",
    "net.calls = CALLS; net.register_forward_hook(counted); parity.check(net, x)":
        "goldens/test_it/test_*.npz is not written, for two runs of the module differ",
    "net.last.forward = lambda x: 1 / 0; parity.check(net, x)":
        "goldens/test_it/test_*.npz is not written: Nothing is recorded: the module stops with ZeroDivisionError: division by zero.",
}  # fmt: skip
COUNTED = """
class Shared(list):
    def __deepcopy__(self, memo):
        return self

CALLS = Shared()

def counted(net, args, output):
    CALLS.append(1)
    return output + len(CALLS)
"""


def test_no_file_is_recorded_of_what_it_could_not_be_compared_with(project):
    tests = [f"def test_{i}(parity):\n    net, x = made()\n    {code}\n" for i, code in enumerate(NOT_WRITTEN)]
    project.makepyfile(test_it="\n".join(["from net import made", COUNTED, *tests]), test_net="")
    done = run(project, "--parity-record")
    done.assert_outcomes(failed=len(NOT_WRITTEN))
    for says in NOT_WRITTEN.values():
        done.stdout.fnmatch_lines([says])
    assert not (project.path / "goldens").exists()


def test_rounding_that_could_hide_an_error_is_a_warning_of_the_recording(project):
    project.makepyfile(test_net=TEST.replace("net, x = made()", "net, x = made(); net.norm.forward = lambda x: x + 3e8 - 3e8"))
    done = run(project, "--parity-record", "-W", "default::pytest.PytestWarning")
    done.assert_outcomes(passed=1, warnings=1)
    done.stdout.fnmatch_lines(["*PytestWarning: goldens/test_net/test_net.npz: The rounding of *"])


def test_the_marker_takes_named_settings_only(project):
    project.makepyfile(test_net=f"import pytest\n{TEST.replace('def test_net', '@pytest.mark.parity(1)' + chr(10) + 'def test_net')}")
    done = run(project)
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines(["*The marker `parity` takes named settings only, such as @pytest.mark.parity(seed=1)."])


def test_a_golden_file_of_a_family_is_sent_to_its_command(project):
    file = project.path / FILE
    file.parent.mkdir(parents=True)
    shutil.copy(OF_FAMILY, file)
    done = run(project)
    done.assert_outcomes(failed=1)
    done.stdout.fnmatch_lines(["*is a golden file of `ddq-parity capture`; check it with `ddq-parity check`."])


def test_torch_is_imported_by_the_fixture_only_and_mmdet_never(project, monkeypatch):
    run(project, "--parity-record").assert_outcomes(passed=1)
    project.makepyfile(test_other="def test_other():\n    import sys\n    assert 'torch' not in sys.modules\n")
    project.makeconftest(
        "import sys\n\ndef pytest_unconfigure():\n"
        "    print('LOADED', *sorted({'torch', 'numpy', 'mmdet', 'mmengine', 'mmcv'} & set(sys.modules)))\n"
    )
    path = [str(HIDING), str(ROOT), str(project.path)]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path))
    # other kernels than those of this process, as on another machine
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    for file, loaded in (("test_other.py", "LOADED"), ("test_net.py", "LOADED numpy torch")):
        done = project.runpytest_subprocess(*plugin(), "-p", "no:hypothesispytest", file)
        done.assert_outcomes(passed=1)
        assert loaded in done.outlines

