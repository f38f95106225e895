"""Every test that is left to the longer run is there, and so are the cases of it that are not."""

from pathlib import Path

from .thorough import THOROUGH, is_thorough

FOLDER = Path(__file__).parent


def test_what_takes_long_is_a_test():
    missing = []
    for entry in THOROUGH:
        file, _, function = entry.partition("::")
        if f"\ndef {function}(" not in (FOLDER / file).read_text():
            missing.append(entry)
    assert missing == []


def test_cases_that_are_named_are_quick_and_the_others_are_not():
    entry, (case, *_) = next((entry, cases) for entry, cases in THOROUGH.items() if cases)
    assert is_thorough(f"{entry}[another]") and not is_thorough(f"{entry}[{case}]")
    assert not is_thorough("parity/test_blame.py::test_something") and is_thorough(entry)
