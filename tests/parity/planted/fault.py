"""The port with the faults of the fault suite that the environment variable ``DDQ_FAULT`` names.

A file of no package, as the others here: of an adapter in a package the whole package is kept out of the legacy process,
in tests also the program that this process was forked from.
"""

import importlib
import sys
from pathlib import Path

ROOT = str(Path(__file__).parents[3])
if ROOT not in sys.path:
    sys.path.append(ROOT)
adapter = importlib.import_module("tests.faults.adapter")  # beside ``ddq_port``: no import that is looked into
globals().update({name: value for name, value in vars(adapter).items() if not name.startswith("_")})
