"""Words of messages."""

from __future__ import annotations

_LONGEST_LINE = 2000  # characters


def counted(number: int, what: str, plural: str = "") -> str:
    """Write a number with its noun: `1 image`, `2 images`, `2 classes`.

    Args:
        number: how many.
        what: the noun for one.
        plural: the noun for several, where it does not just end in `s`, or `es` after an `s`.
    """
    several = plural or what + ("es" if what.endswith("s") else "s")
    return "{} {}".format(number, what if number == 1 else several)


def printable(text: str) -> str:
    """Return text with all that a terminal might obey, or cannot print, written as an escape."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def one_line(text: str) -> str:
    """Return text with every run of white space made one space, printable and of a length to be read."""
    line = printable(" ".join(text.split()))
    if len(line) <= _LONGEST_LINE:
        return line
    return "{} [...] {}".format(line[: _LONGEST_LINE // 2], line[-_LONGEST_LINE // 2 :])


def sentence(text: str) -> str:
    """Return text with a full stop behind it."""
    return text if text.endswith((".", "!", "?")) else text + "."


def capital(text: str) -> str:
    """Return text with a capital first letter."""
    return text[:1].upper() + text[1:]
