"""Run with pytest: the port computes what the old code computes, bit by bit."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def test_port_matches(tmp_path):
    command = [sys.executable, "-m", "parity", "run", "--family", str(FOLDER), "--check", "forward,loss,grad,init,train"]
    done = subprocess.run([*command, "--out", str(tmp_path / "run")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
