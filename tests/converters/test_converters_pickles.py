"""Pickles are read without being executed: plain values come out as Python reads them, all else inert, damage refused."""

from __future__ import annotations

import pickle
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from converters.errors import MalformedError
from converters.formats import pickle_machine
from converters.formats.inert_pickle import unpickle
from converters.formats.stand_ins import Foreign, NumpyArray

SHARED = [1, 2]
VALUES = [
    None, True, False, 0, -1, 255, 65536, -(2**40), 2**80, -(2**80), 1.5, float("inf"), "", "text", "ünï\ncode\\x", b"", b"\x00\xff",
    bytearray(b"ab"), (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], [1, "a", None], {}, {"a": 1, 2: [3]}, {1, 2}, frozenset("ab"),
    2 + 3j, OrderedDict(b=1, a=2), Counter("abca"), defaultdict(list, a=[1]), [SHARED, SHARED, (SHARED,)], list(range(300)),
    {str(number): number for number in range(300)}, "x" * 300, b"y" * 300,
]  # fmt: skip


def read(data: bytes):
    def storage(*given):
        raise AssertionError("there is no storage")

    return unpickle(data, storage, 2**20, 0)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", VALUES, ids=[f"{number}-{type(value).__name__}" for number, value in enumerate(VALUES)])
def test_plain_values_are_what_python_reads(value, protocol):
    data = pickle.dumps(value, protocol)
    found = read(data)
    assert found.content == value and found.end == len(data)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"S'text'\n.", "text"), (b'S"a\\x41"\n.', "aA"), (b"S'caf\\xe9'\n.", b"caf\xe9"), (b"U\x02\xff\xfe.", b"\xff\xfe"),
        (b"V\\u00e9\n.", "é"), (b"I01\n.", True), (b"I00\n.", False), (b"I12\n.", 12), (b"L12L\n.", 12), (b"F1.5\n.", 1.5),
        (b"K\x01K\x020.", 1), (b"K\x012\x86.", (1, 1)), (b"(K\x01K\x02K\x03K\x04t.", (1, 2, 3, 4)), (b"(K\x01K\x02l.", [1, 2]),
        (b"(K\x01K\x02d.", {1: 2}), (b"]K\x01a.", [1]), (b"}K\x01K\x02s.", {1: 2}), (b"K\x05(1.", 5), (b"K\x01q\x000h\x00.", 1),
        (b"K\x01p0\n0g0\n.", 1), (b"K\x01r\x01\x00\x00\x000j\x01\x00\x00\x00.", 1),
    ],
)  # fmt: skip
def test_opcodes_of_old_protocols_are_known(data, value):
    assert read(data).content == value == pickle.loads(data, encoding="bytes" if isinstance(value, bytes) else "utf-8")


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'ls'\ntR.", b"(S'ls'\nios\nsystem\n.", b"(cos\nsystem\nS'ls'\no.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
    ],
)
def test_functions_are_named_and_never_called(data):
    found = read(data)
    assert isinstance(found.content, Foreign) and (found.content.name, found.content.args) == ("os.system", ("ls",))
    assert found.foreign == ("os.system",)


class Thing:
    """An object of a class that only a training has."""

    def __init__(self, a):
        self.a = a


class Named(Thing):
    """One that is made with a named argument."""

    def __new__(cls, *, a):
        return super().__new__(cls)

    def __init__(self, *, a):
        super().__init__(a)

    def __getnewargs_ex__(self):
        return (), dict(a=self.a)


@pytest.mark.parametrize(
    ("data", "name", "args", "kwargs"),
    [
        (pickle.dumps(Thing(1), 0), f"{__name__}.Thing", (None,), None),
        (pickle.dumps(Thing(1), 2), f"{__name__}.Thing", (), {}),
        (pickle.dumps(Named(a=1), 4), f"{__name__}.Named", (), dict(a=1)),
        (b"ctorch\nTensor\n(K\x01K\x02tR}S'a'\nK\x01sb.", "torch.Tensor", (1, 2), None),
    ],
    ids=["protocol 0", "protocol 2", "a named argument", "a tensor's class"],
)
def test_objects_remember_what_they_are_made_of(data, name, args, kwargs):
    found = read(data).content
    assert isinstance(found, Foreign) and (found.name, found.args, found.kwargs) == (name, args, kwargs)
    assert found.state == dict(a=1)


def test_what_numpy_says_in_unknown_words_has_no_numbers():
    date = read(pickle.dumps(np.datetime64("2020-01-01"), 2)).content
    assert isinstance(date, Foreign) and date.name == "numpy.generic"
    array = read(b"cnumpy.core.multiarray\n_reconstruct\n(tRK\x01b.").content
    assert isinstance(array, NumpyArray) and array.values is None and array.state == 1


def test_bytes_of_python_2_and_modules_of_old_torch_are_read():
    """Python 2.7 writes a bytearray as text; torch before 1.6 names the class of a module with its source."""
    text = b"c__builtin__\nbytearray\n(X\x04\x00\x00\x00ab\xc3\xa9X\x07\x00\x00\x00latin-1tR."
    assert read(text).content == b"ab\xe9"
    found = read(b"(S'module'\ncnet\nNet\nS'net.py'\nS'class Net: ...'\ntQ.")
    assert isinstance(found.content, Foreign) and found.content.name == "net.Net" and found.foreign == ("net.Net",)


@pytest.mark.parametrize(
    ("limit", "data", "value", "message"),
    [
        ("_MOST_STEPS", b"N0" * 4 + b"Nq\x00.", None, "its pickle has more than 10 opcodes"),
        ("_MOST_CONTAINERS", b"]" + b"]a" * 10 + b".", [[]] * 10, "its pickle has more than 10 containers"),
    ],
)
def test_a_pickle_has_as_many_parts_as_a_limit_allows(limit, data, value, message, monkeypatch):
    monkeypatch.setattr(pickle_machine, limit, 10)
    with pytest.raises(MalformedError, match=message):
        read(data)
    monkeypatch.setattr(pickle_machine, limit, 11)
    assert read(data).content == value


def test_the_same_text_is_not_encoded_again_and_again():
    text, encoded = b"X\xe8\x03\x00\x00" + b"x" * 1000 + b"q\x00", b"c_codecs\nencode\n(h\x00S'latin1'\ntR0"
    assert read(text + encoded + b".").content == "x" * 1000
    with pytest.raises(MalformedError, match="its pickle has the same things copied again and again"):
        read(text + 9 * encoded + b".")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([2**61 * number for number in range(1, 4098)], "more than 4096 keys besides text and numbers"),
        ([(number, "a") for number in range(4097)], "more than 4096 keys besides text and numbers"),
        ([tuple(range(17))], "a tuple as a key, expected text or a number"),
        ([((1,),)], "a tuple as a key, expected text or a number"),
    ],
)
def test_keys_that_take_long_to_hash_are_refused(keys, message):
    """So are too many of those that can be made to collide."""
    assert len(read(pickle.dumps(dict.fromkeys(keys[:1] if len(keys) > 1 else [(1, "a")]), 2)).content) == 1
    with pytest.raises(MalformedError, match=message):
        read(pickle.dumps(dict.fromkeys(keys), 2))


def test_numbers_of_the_extension_registry_are_names():
    assert read(b"\x82\x07.").foreign == ("copyreg.extension_7",)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"K", b"K\x01K\x02.", b"(K\x01.", b"\xff.", b".", b"0.", b"2.", b"h\x00.", b"S'abc\n.", b"Sabc\n.", b"Ix\n.", b"I1.",
        b"\x80\x04\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.", b"\x80\x04K\x01K\x02\x93.",
        b"\x80\x04cos\nsystem\n)K\x01\x92.", b"Pxyz\n.", b"K\x01Q.", b"cos\nsystem\nK\x01R.", b"K\x01)R.", b"K\x01K\x02b.",
        b"K\x01(K\x02e.", b"K\x01K\x02a.", b"}(K\x01u.", b"K\x01(K\x02K\x03u.", b"](K\x01\x90.", b"cos\nsystem\n(K\x01e.",
        b"ccollections\nOrderedDict\n(K\x01tR.", b"ccollections\nCounter\n(K\x01tR.", b"ctorch\nSize\n(K\x01tR.",
        b"cbuiltins\nset\n(K\x01tR.", b"cbuiltins\nbytearray\n(M\xe8\x03tR.", b"cbuiltins\ncomplex\n(NtR.",
        b"c_codecs\nencode\n(K\x01tR.", b"ctorch._utils\n_rebuild_parameter\n(K\x01tR.",
        b"}(]K\x01u.", b"\x8b\xd0\x07\x00\x00" + b"\x01" * 2000 + b".",
        b"\x80\x04ccollections\nOrderedDict\n)}X\x01\x00\x00\x00aK\x01s\x92.",
        b"ctorch._utils\n_rebuild_tensor_v3\n(NK\x00))NNctorch\nfloat32\ntR.", b"cos\n" + b"a" * 1100 + b"\n.",
    ],
)  # fmt: skip
def test_a_damaged_pickle_is_refused(data):
    with pytest.raises(MalformedError):
        read(data)
