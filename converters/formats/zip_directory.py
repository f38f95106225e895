"""Find the records of a zip file, and believe nothing that its directory says before it is looked up."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace

from converters.errors import MalformedError
from converters.formats.stored import SourceFile, damaged

_END = struct.Struct("<4s4H2LH")
_END64_LOCATOR = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")
_LONGEST_COMMENT = 0xFFFF
_LARGEST_DIRECTORY = 1 << 24
_STORED, _ENCRYPTED = 0, 1


@dataclass(frozen=True)
class Record:
    """A record: its bytes are those of the file from `begin` on.

    Attributes:
        header: Where the header before them begins.
        crc32: Their check sum; None if the file has none, as torch can be told.
        compressed: Whether the bytes are not the content itself.
    """

    name: str
    header: int
    begin: int
    nbytes: int
    crc32: int | None
    compressed: bool


def read(source: SourceFile) -> dict[str, Record]:
    """Return all records by name.

    The directory at the end says where they are; the header before each record has to agree with it.

    Raises:
        MalformedError: If the file is cut or damaged, a name stands in it twice, or records are encrypted, overlap or
            reach beyond the file.
        OSError: If it cannot be read.
    """
    try:
        records = sorted((_located(source, entry) for entry in _entries(source)), key=lambda record: record.header)
    except struct.error as error:
        raise MalformedError(f"its zip directory is damaged ({error})") from error
    end = 0
    for record in records:
        if record.header < end:
            raise MalformedError(f"its record {record.name} overlaps another one")
        end = record.begin + record.nbytes
    if not any(record.crc32 for record in records):
        records = [replace(record, crc32=None) for record in records]
    return {record.name: record for record in records}


def content(source: SourceFile, record: Record) -> bytes:
    """Read a record and verify its check sum.

    Raises:
        MalformedError: If it is damaged.
        OSError: If it cannot be read.
    """
    data = source.read(record.begin, record.nbytes)
    found = zlib.crc32(data)
    if record.crc32 is not None and found != record.crc32:
        raise MalformedError(damaged(record.name, found, record.crc32))
    return data


def _entries(source: SourceFile) -> list[Record]:
    """Return every record as the directory has it, with `begin` still unknown."""
    count, length, begin = _directory(source)
    if length > _LARGEST_DIRECTORY or begin + length > source.size:
        raise MalformedError(f"its zip directory declares {length} bytes at {begin}, the file has {source.size}")
    data, at = source.read(begin, length), 0
    found: dict[str, Record] = {}
    while at < length:
        signature, _, _, flags, method, _, _, crc, packed, nbytes, *rest = _ENTRY.unpack_from(data, at)
        name_length, extra_length, comment_length, _, _, _, header = rest
        if signature != b"PK\x01\x02":
            raise MalformedError("its zip directory is damaged (an entry without its signature)")
        name = str(data[at + _ENTRY.size :][:name_length], "utf-8", "replace")
        nbytes, packed, header = _wide(data[at + _ENTRY.size + name_length :][:extra_length], nbytes, packed, header)
        if flags & _ENCRYPTED:
            raise MalformedError("its records are encrypted, which torch never does")
        if name in found:
            raise MalformedError(f"its record {name} stands in it twice")
        found[name] = Record(name, header, 0, packed, crc, method != _STORED or packed != nbytes)
        at += _ENTRY.size + name_length + extra_length + comment_length
    if len(found) != count:
        raise MalformedError(f"its zip directory declares {count} records and lists {len(found)}")
    return list(found.values())


def _directory(source: SourceFile) -> tuple[int, int, int]:
    """Return number of entries, length and position of the directory."""
    begin = max(0, source.size - _END.size - _LONGEST_COMMENT)
    tail = source.read(begin, source.size - begin)
    at = tail.rfind(b"PK\x05\x06", 0, len(tail) - _END.size + 4)
    if at < 0:
        raise MalformedError("its zip directory is missing; the file is truncated or damaged")
    _, _, _, _, count, length, position, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise MalformedError("it does not end where its zip directory says; the file is truncated or damaged")
    if 0xFFFF not in (count,) and 0xFFFFFFFF not in (length, position):
        return count, length, position
    signature, _, at64, _ = _END64_LOCATOR.unpack(source.read(max(0, begin + at - _END64_LOCATOR.size), 20))
    if signature != b"PK\x06\x07" or at64 + _END64.size > source.size:
        raise MalformedError("its zip directory is damaged (a large file without the large form of it)")
    signature, *_, count, length, position = _END64.unpack(source.read(at64, _END64.size))
    if signature != b"PK\x06\x06":
        raise MalformedError("its zip directory is damaged (a large file without the large form of it)")
    return count, length, position


def _wide(extra: bytes, *numbers: int) -> list[int]:
    """Replace those of an entry's numbers that do not fit into 32 bits by those in its extra field."""
    wide: list[int] = []
    while len(extra) >= 4:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = [number for (number,) in struct.iter_unpack("<Q", extra[4 : 4 + length // 8 * 8])]
        extra = extra[4 + length :]
    large = sum(number == 0xFFFFFFFF for number in numbers)
    if large > len(wide):
        raise MalformedError("its zip directory is damaged (a large record without its length)")
    replacements = iter(wide)
    return [next(replacements) if number == 0xFFFFFFFF else number for number in numbers]


def _located(source: SourceFile, record: Record) -> Record:
    """Find where a record's bytes begin: behind its own header, which repeats its name."""
    head = source.read(record.header, min(_LOCAL.size + 1024, max(0, source.size - record.header)))
    signature, *_, name_length, extra_length = _LOCAL.unpack_from(head)
    if signature != b"PK\x03\x04" or str(head[_LOCAL.size :][:name_length], "utf-8", "replace") != record.name:
        raise MalformedError(f"its record {record.name} has another header than its zip directory says")
    begin = record.header + _LOCAL.size + name_length + extra_length
    if begin + record.nbytes > source.size:
        raise MalformedError(f"its record {record.name} ends beyond the file; the file is truncated or damaged")
    return replace(record, begin=begin)
