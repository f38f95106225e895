"""A machine that reads pickles and cannot run anything: every opcode builds data, none imports or calls.

Python's own unpickler is not used: its memo can be told to be huge, one of its opcodes allocates what the pickle says,
and some keys of a dict take it hours to hash. What a global, a call of it and a state mean is decided by `Meaning`.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import Any

from converters.errors import MalformedError
from converters.formats.pickle_meaning import Meaning

_MOST_STEPS = 2_000_000
_MOST_CONTAINERS = 500_000  # and marks; the R50 model with its optimizer has 20 000
_LONGEST_NUMBER, _LONGEST_LINE = 1024, 1 << 20  # bytes
_WRONG = (IndexError, KeyError, TypeError, ValueError, OverflowError, struct.error)


def read(data: Any, begin: int, meaning: Meaning) -> tuple[Any, int]:
    """Read the pickle that begins at byte `begin` of `data` and return its content and the byte after it.

    Args:
        data: bytes, or what is sliced and searched like them, such as a memory map.
        begin: Where the pickle begins.
        meaning: Decides what names stand for.

    Raises:
        MalformedError: If it is no whole pickle, or one made to take much time or memory.
    """
    machine = _Machine(data, begin, meaning)
    try:
        return machine.run(), machine.position
    except _WRONG as error:
        detail = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise MalformedError(f"its pickle is malformed at byte {machine.position} ({detail})") from error


def _text(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _old_text(data: bytes) -> str | bytes:
    """Decode a string of Python 2: text, if it can be."""
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError:
        return data


def _whole(data: bytes) -> int:
    if len(data) > _LONGEST_NUMBER:
        raise ValueError(f"a whole number of {len(data)} bytes, expected at most {_LONGEST_NUMBER}")
    return int.from_bytes(data, "little", signed=True)


def _read(code: str, then: Callable[[_Machine, Any], object]) -> Callable[[_Machine], None]:
    """Return the step that reads a number and does something with it."""
    layout = struct.Struct(code)
    unpack, size = layout.unpack_from, layout.size

    def step(self: _Machine) -> None:
        (number,) = unpack(self.data, self.position)
        self.position += size
        then(self, number)

    return step


def _sized(code: str, decode: Callable[[bytes], Any]) -> Callable[[_Machine], None]:
    """Return the step that pushes what follows its own length."""
    return _read(code, lambda self, size: self.stack.append(decode(self.take(size))))


def _constant(value: Any) -> Callable[[_Machine], None]:
    return lambda self: self.stack.append(value)


class _Machine:
    def __init__(self, data: Any, begin: int, meaning: Meaning) -> None:
        self.data, self.position, self.meaning = data, begin, meaning
        self.end = len(data)
        self.stack: list[Any] = []
        self.outer: list[list[Any]] = []  # the stacks below each mark
        self.memo: dict[int, Any] = {}
        self.containers = 0

    def run(self) -> Any:
        data, table = self.data, _TABLE
        for _ in range(_MOST_STEPS):
            if self.position >= self.end:
                raise ValueError("it ends before its last opcode")
            opcode = data[self.position]
            self.position += 1
            if opcode == _STOP:
                if self.outer or len(self.stack) != 1:
                    raise ValueError("it leaves something over")
                return self.stack.pop()
            step = table[opcode]
            if step is None:
                raise ValueError(f"unknown opcode {opcode:#04x}")
            step(self)
        raise MalformedError(f"its pickle has more than {_MOST_STEPS} opcodes")

    def take(self, count: int) -> bytes:
        """Return the next bytes, once it is sure that there are as many as the pickle says."""
        begin, end = self.position, self.position + count
        if end > self.end:
            raise ValueError(f"it declares {count} bytes, {self.end - begin} are left")
        self.position = end
        return self.data[begin:end]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.position, self.position + _LONGEST_LINE)
        if end < 0:
            raise ValueError(f"a line without an end, or of more than {_LONGEST_LINE} bytes")
        return self.take(end + 1 - self.position)[:-1]

    def contain(self, container: Any) -> None:
        """Push a new container."""
        self.count()
        self.stack.append(container)

    def count(self) -> None:
        self.containers += 1
        if self.containers > _MOST_CONTAINERS:
            raise MalformedError(f"its pickle has more than {_MOST_CONTAINERS} containers")

    def marked(self) -> list[Any]:
        """Return what was pushed since the last mark."""
        found, self.stack = self.stack, self.outer.pop()
        return found

    def mark(self) -> None:
        self.count()
        self.outer.append(self.stack)
        self.stack = []

    def pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.marked()

    def duplicate(self) -> None:
        self.stack.append(self.stack[-1])

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def extension(self, number: int) -> None:
        self.stack.append(self.meaning.find("copyreg", f"extension_{number}"))

    def frame(self, size: int) -> None:
        if size > self.end - self.position:
            raise ValueError(f"it declares a frame of {size} bytes, {self.end - self.position} are left")

    def text_number(self) -> None:
        line = self.line()
        plain = {b"00": False, b"01": True}
        self.stack.append(plain[line] if line in plain else int(line))

    def long_text_number(self) -> None:
        self.stack.append(int(self.line().removesuffix(b"L")))

    def float_text(self) -> None:
        self.stack.append(float(self.line()))

    def old_string(self) -> None:
        quoted = self.line().strip()
        if len(quoted) < 2 or quoted[:1] != quoted[-1:] or quoted[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self.stack.append(_old_text(codecs.escape_decode(quoted[1:-1])[0]))

    def raw_text(self) -> None:
        self.stack.append(str(self.line(), "raw-unicode-escape"))

    def to_tuple(self) -> None:
        self.count()
        items = self.marked()
        self.stack.append(tuple(items))

    def to_tuple1(self) -> None:
        self.count()
        self.stack[-1:] = [(self.stack[-1],)]

    def to_tuple2(self) -> None:
        self.count()
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def to_tuple3(self) -> None:
        self.count()
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def to_list(self) -> None:
        items = self.marked()
        self.contain(items)

    def to_dict(self) -> None:
        items = self.marked()
        self.contain({})
        self._set(items)

    def to_frozenset(self) -> None:
        items = self.marked()
        self.meaning.keys.check(items)
        self.contain(frozenset(items))

    def append(self) -> None:
        item = self.stack.pop()
        self._extend([item])

    def appends(self) -> None:
        self._extend(self.marked())

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        else:
            self.meaning.extend(target, items)

    def add_items(self) -> None:
        items = self.marked()
        target = self.stack[-1]
        if type(target) is set:
            self.meaning.keys.check(items)
            target.update(items)
        else:
            self.meaning.extend(target, items)

    def set_item(self) -> None:
        value = self.stack.pop()
        key = self.stack.pop()
        self._set([key, value])

    def set_items(self) -> None:
        self._set(self.marked())

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise ValueError("a key without a value")
        if type(target) is dict:
            self.meaning.keys.check(items[::2])
            target.update(zip(items[::2], items[1::2]))
        else:
            self.meaning.update(target, items)

    def memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def find(self) -> None:
        module, name = _text(self.line()), _text(self.line())
        self.stack.append(self.meaning.find(module, name))

    def stack_find(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if type(name) is not str or type(module) is not str:
            raise ValueError("a global whose name is not text")
        self.stack.append(self.meaning.find(module, name))

    def call(self) -> None:
        args = self.stack.pop()
        self._call(self.stack.pop(), args, {})

    def call_by_name(self) -> None:
        kwargs, args = self.stack.pop(), self.stack.pop()
        if type(kwargs) is not dict:
            raise ValueError("named arguments that are no dict")
        self._call(self.stack.pop(), args, kwargs)

    def old_instance(self) -> None:
        module, name = _text(self.line()), _text(self.line())
        args = tuple(self.marked())
        self._call(self.meaning.find(module, name), args, {})

    def old_object(self) -> None:
        function, *args = self.marked()
        self._call(function, tuple(args), {})

    def _call(self, function: Any, args: Any, kwargs: dict[str, Any]) -> None:
        if type(args) is not tuple:
            raise ValueError("arguments that are not a tuple")
        self.contain(self.meaning.call(function, args, kwargs))

    def build(self) -> None:
        state = self.stack.pop()
        self.meaning.build(self.stack[-1], state)

    def persistent(self) -> None:
        self.stack.append(self.meaning.persistent(self.stack.pop()))

    def persistent_text(self) -> None:
        self.stack.append(self.meaning.persistent(_text(self.line())))


_STOP = ord(".")
_M = _Machine
_OPCODES: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _M.mark,
    b"0": _M.pop,
    b"1": _M.marked,
    b"2": _M.duplicate,
    b"\x80": lambda self: self.take(1),  # the protocol; every one of them is understood
    b"\x95": _read("<Q", _M.frame),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"I": _M.text_number,
    b"L": _M.long_text_number,
    b"F": _M.float_text,
    b"J": _read("<i", _M.push),
    b"K": _read("<B", _M.push),
    b"M": _read("<H", _M.push),
    b"G": _read(">d", _M.push),
    b"\x8a": _sized("<B", _whole),
    b"\x8b": _sized("<I", _whole),
    b"S": _M.old_string,
    b"T": _sized("<I", _old_text),
    b"U": _sized("<B", _old_text),
    b"V": _M.raw_text,
    b"X": _sized("<I", _text),
    b"\x8c": _sized("<B", _text),
    b"\x8d": _sized("<Q", _text),
    b"B": _sized("<I", bytes),
    b"C": _sized("<B", bytes),
    b"\x8e": _sized("<Q", bytes),
    b"\x96": _sized("<Q", bytes),
    b")": _constant(()),
    b"t": _M.to_tuple,
    b"\x85": _M.to_tuple1,
    b"\x86": _M.to_tuple2,
    b"\x87": _M.to_tuple3,
    b"]": lambda self: self.contain([]),
    b"l": _M.to_list,
    b"a": _M.append,
    b"e": _M.appends,
    b"}": lambda self: self.contain({}),
    b"d": _M.to_dict,
    b"s": _M.set_item,
    b"u": _M.set_items,
    b"\x8f": lambda self: self.contain(set()),
    b"\x90": _M.add_items,
    b"\x91": _M.to_frozenset,
    b"g": lambda self: self.get(int(self.line())),
    b"h": _read("<B", _M.get),
    b"j": _read("<I", _M.get),
    b"p": lambda self: self.put(int(self.line())),
    b"q": _read("<B", _M.put),
    b"r": _read("<I", _M.put),
    b"\x94": _M.memoize,
    b"c": _M.find,
    b"\x93": _M.stack_find,
    b"R": _M.call,
    b"\x81": _M.call,
    b"\x92": _M.call_by_name,
    b"i": _M.old_instance,
    b"o": _M.old_object,
    b"b": _M.build,
    b"Q": _M.persistent,
    b"P": _M.persistent_text,
    b"\x82": _read("<B", _M.extension),
    b"\x83": _read("<H", _M.extension),
    b"\x84": _read("<i", _M.extension),
}
_TABLE = [_OPCODES.get(bytes([code])) for code in range(256)]
