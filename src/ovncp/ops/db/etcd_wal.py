"""The write-ahead log of an etcd member: having etcd take all of it.

Whether the last entries of a member's log are committed, the member learns later, with the next
message of its leader. So an entry that a client was told to be durable may be one that the member
only has, and `etcd --force-new-cluster` drops these. Here the log gets one more record, a "hard
state" of Raft that says that all of it is committed. What clients were told nothing of may come in
that way; nothing that they were told of, and that the member has, gets lost.

The format: a record is a length of 8 bytes, little-endian, with the number of padding bytes in the
highest byte; then a protobuf message of a type, a checksum and data. The checksum is a CRC-32C
that goes on from record to record and from file to file. Zeros follow the last record.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ovncp.ops.refusal import Refusal

_ENTRY, _STATE = 2, 3
_LENGTH = struct.Struct("<Q")
_PADDED = 0x80
_LENGTH_BITS = 56
# The remains of a write that a crash tore are at the end; checking all would take long.
_CHECKED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Position:
    """The last entry in Raft's log, and how many the member did not know to be committed."""

    term: int
    index: int
    n_uncommitted: int


@dataclass(frozen=True, slots=True)
class _Record:
    type: int
    crc: int
    data: bytes
    end: int


def commit_all(member: str) -> Position:
    """Say in the data folder `member` that all entries are committed. Raises Refusal, OSError."""
    folder = os.path.join(member, "member", "wal")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".wal"))
    if not names:
        raise Refusal(f"{folder}: there is no write-ahead log")
    records: list[_Record] = []
    entry: dict[int, int] = {}
    state: dict[int, int] = {}
    for name in names:
        with open(os.path.join(folder, name), "rb") as file:
            records = _without_torn(list(_records(file.read())))
        for record in records:
            if record.type == _ENTRY:
                entry = _numbers(record.data)
            elif record.type == _STATE:
                state = _numbers(record.data)
    if not records or not entry or not state:
        raise Refusal(f"{folder}: the write-ahead log makes no sense")
    position = Position(entry[2], entry[3], max(0, entry[3] - state[3]))
    if position.n_uncommitted:
        _append_state(os.path.join(folder, names[-1]), records[-1], {**state, 3: entry[3]})
    return position


def _records(text: bytes) -> Iterator[_Record]:
    """The whole records in a file's `text`."""
    place = 0
    while place + _LENGTH.size <= len(text):
        (length,) = _LENGTH.unpack_from(text, place)
        marks, length = length >> _LENGTH_BITS, length & ((1 << _LENGTH_BITS) - 1)
        start = place + _LENGTH.size
        place = start + length + (marks & ~_PADDED)
        if not length or place > len(text):
            return
        try:
            fields = dict(_fields(text[start : start + length]))
        except IndexError:
            return
        data = fields.get(3, b"")
        yield _Record(
            _number(fields, 1), _number(fields, 2), data if type(data) is bytes else b"", place
        )


def _without_torn(records: list[_Record]) -> list[_Record]:
    """The records up to the first of the last ones whose checksum is not right."""
    n_bytes, first = 0, len(records)
    while first > 1 and n_bytes < _CHECKED_BYTES:
        first -= 1
        n_bytes += len(records[first].data)
    for place in range(max(first, 1), len(records)):
        if _crc32c(records[place - 1].crc, records[place].data) != records[place].crc:
            return records[:place]
    return records


def _append_state(path: str, last: _Record, state: dict[int, int]) -> None:
    """Write a record of `state` after the `last` one of the file `path`, which ends with it."""
    data = _message({number: state[number] for number in sorted(state)})
    text = _message({1: _STATE, 2: _crc32c(last.crc, data)})
    text += b"\x1a" + _varint(len(data)) + data
    n_padding = -len(text) % 8
    length = len(text) | ((_PADDED | n_padding) << _LENGTH_BITS if n_padding else 0)
    with open(path, "r+b") as file:
        file.seek(last.end)
        file.write(_LENGTH.pack(length) + text + bytes(n_padding))
        file.truncate()


# Protobuf, as much of it as there is: numbers (wire type 0) and bytes (wire type 2).


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of `message` by their numbers. Raises IndexError where it makes no sense."""
    place = 0
    while place < len(message):
        key, place = _read_varint(message, place)
        value, place = _read_varint(message, place)
        if key & 7 == 0:
            yield key >> 3, value
        elif key & 7 == 2:
            yield key >> 3, message[place : place + value]
            place += value
        else:
            raise IndexError


def _numbers(message: bytes) -> dict[int, int]:
    return {number: value for number, value in _fields(message) if type(value) is int}


def _number(fields: dict[int, int | bytes], number: int) -> int:
    value = fields.get(number, 0)
    return value if type(value) is int else 0


def _read_varint(message: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[place]
        value, shift, place = value | (byte & 0x7F) << shift, shift + 7, place + 1
        if byte < 0x80:
            return value, place


def _varint(value: int) -> bytes:
    parts = []
    while value >= 0x80:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _message(numbers: dict[int, int]) -> bytes:
    return b"".join(_varint(number << 3) + _varint(value) for number, value in numbers.items())


def _table() -> list[int]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        table.append(value)
    return table


_TABLE = _table()


def _crc32c(crc: int, data: bytes) -> int:
    """The CRC-32C of what `crc` is that of, and `data` after it."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF
