"""A program in a fork ends, prints and reads its surroundings as in a process of its own."""

import os
import signal
import subprocess
import sys

import pytest

from .execute import python

PROGRAMS = [
    ("-c", "import sys; print(sys.argv, __name__); print('no', file=sys.stderr); sys.exit(3)", "a", "b c"),
    ("-c", "raise SystemExit('one line')"),
    ("-c", "1 / 0"),
    ("-c", f"import os; os.kill(os.getpid(), {int(signal.SIGKILL)})"),
    ("-c", "import os; print(os.getcwd(), os.environ['TOLD']); os._exit(7)"),
    ("-m", "toy", "x"),
    ("toy.py", "x"),
]


def told(ran):
    errors = [line for line in ran.stderr.splitlines() if not line.startswith(("  File ", "    "))]
    return ran.returncode, ran.stdout, errors


@pytest.mark.parametrize("arguments", PROGRAMS, ids=str)
def test_program_in_a_fork(tmp_path, arguments):
    (tmp_path / "toy.py").write_text("import sys\nprint(__name__, sys.argv[1:], sys.path[0])\nsys.exit(4)\n")
    environment = {**os.environ, "TOLD": "something"}
    ran = python(*arguments, kind="plain", cwd=tmp_path, env=environment)
    whole = [sys.executable, *arguments]
    same = subprocess.run(whole, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert told(ran) == told(same)


def test_environment_that_only_a_start_heeds_gets_a_process_of_its_own():
    ran = python("-c", "import sys; print(sys.flags.hash_randomization, 'torch' in sys.modules)", kind="plain",
                 env={**os.environ, "PYTHONHASHSEED": "0"})  # fmt: skip
    assert ran.stdout == "0 False\n"


def test_what_torchs_compiler_sets_for_itself_keeps_no_warm_process_from_serving():
    ran = python("-c", "import sys; print('torch' in sys.modules)", kind="plain",
                 env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": "/nowhere"})  # fmt: skip
    assert ran.stdout == "True\n"
