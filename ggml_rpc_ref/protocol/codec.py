"""Bytes to messages and back: functions over the table in `spec.messages`. Total, pure, no I/O.

Three readers of the same table, each held to the first by property tests (tests/test_codec.py):

- `decode_by_field` reads field by field. With `encode_by_field` it is the definition of the format.
- `decode` unpacks a whole record with one `struct` and gives the values to the fields, `encode` does the reverse: so a server reads
  its small requests, and answers them (bench/bench_codec.py).
- `layout` derives a packed numpy dtype, with which `graph.Graph` reads a GRAPH_COMPUTE a thousand times as fast as field by field.

A payload is what follows the size field. Framing: a request is command (u8), size (u64), payload; a reply is size (u64), payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from functools import cache
from operator import itemgetter
from typing import Any, NoReturn, TypeVar, assert_never

import numpy as np

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.spec.messages import REQUESTS, Field, Message, absent_fields, command_name, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail, Wire

M = TypeVar("M", bound=Message)
Readable = bytes | bytearray | memoryview

REQUEST_HEAD = struct.Struct("<BQ")
"""Command and size of the payload."""
REPLY_HEAD = struct.Struct("<Q")
"""Size of the payload."""


# ------------------------------------------------------------------------------------------------------------- sizes


@cache
def minimum_size(cls: type, version: Version = DEFAULT) -> int:
    """Return the bytes that every message of a class has: all but counted parts and data."""
    return sum(wire_size(field.wire, version) for field in fields(cls, version))


def wire_size(wire: Wire, version: Version = DEFAULT) -> int:
    """Return the bytes that every value of a wire type has; of a counted one the count."""
    match wire:
        case Int():
            return wire.width
        case Chars():
            return wire.length
        case Record():
            return minimum_size(wire.cls, version)
        case Array():
            return wire.length * wire_size(wire.of, version)
        case Counted():
            return 4
        case Tail():
            return 0
        case _:
            assert_never(wire)


@cache
def is_fixed(cls: type, version: Version = DEFAULT) -> bool:
    """Whether every message of this class has the same size."""
    return not any(isinstance(field.wire, Counted | Tail) for field in fields(cls, version))


@cache
def has_counts(cls: type, version: Version = DEFAULT) -> bool:
    """Whether messages of this class hold counted parts."""
    return any(isinstance(field.wire, Counted) for field in fields(cls, version))


def check_size(cls: type, size: int, version: Version = DEFAULT) -> None:
    """Refuse a size field that no message of the class can have, before any byte of the payload has come.

    Raises:
        Violation: frame.size-fixed or frame.size-minimum.
    """
    least = minimum_size(cls, version)
    if is_fixed(cls, version) and size != least:
        raise Violation("frame.size-fixed", f"{cls.__name__} size", size, f"this record has {least} bytes")
    if size < least:
        raise Violation("frame.size-minimum", f"{cls.__name__} size", size, f"its fixed part has {least} bytes")


# ------------------------------------------------------------------------------------------------------ field by field


def encode(message: Message, version: Version = DEFAULT) -> bytes:
    """Return a message's payload: what `encode_by_field` returns, several times as fast where nothing is counted.

    Raises:
        Misuse: for a value that does not fit its field, or a field set that the version does not have.
    """
    try:
        return _writer(type(message), version)(message)
    except (struct.error, TypeError, _Unfit):
        # what does not fit is put into words there, and what struct alone does not take is written
        return encode_by_field(message, version)


def encode_by_field(message: Message, version: Version = DEFAULT) -> bytes:
    """Return a message's payload, written field by field: the definition of the format.

    Raises:
        Misuse: as `encode`.
    """
    present, absent = _rows(type(message), version)
    for name, default in absent:
        # a dataclass can't tell a field that was set to its default from one left alone, and need not: neither loses anything
        if getattr(message, name) != default:
            raise Misuse(f"{type(message).__name__}.{name} is set, but protocol {version} has no such field")
    return b"".join(put(row.wire, getattr(message, row.name), row.name, version) for row in present)


@cache
def _rows(cls: type, version: Version) -> tuple[tuple[Field, ...], tuple[tuple[str, object], ...]]:
    """Return the fields that a version has, and name and default of those that it lacks."""
    return fields(cls, version), tuple((row.name, row.default) for row in absent_fields(cls, version))


def put(wire: Wire, value: Any, name: str, version: Version = DEFAULT) -> bytes:
    """Return the bytes of one value; `name` is the field's, for the error.

    Raises:
        Misuse: as `encode`.
    """
    match wire:
        case Int():
            try:
                # int(): numpy's integers have no to_bytes
                return int(value).to_bytes(wire.width, "little", signed=wire.signed)
            except OverflowError:
                raise Misuse(f"{name} = {value} does not fit into {wire.width} bytes") from None
        case Chars():
            if len(value) > wire.length:
                raise Misuse(f"{name} has {len(value)} bytes; at most {wire.length} fit")
            # zeros up to the end: bytes of a name past its end once carried a client's memory (SEC-35)
            return bytes(value).ljust(wire.length, b"\0")
        case Record():
            return encode_by_field(value, version)
        case Array():
            if len(value) > wire.length:
                raise Misuse(f"{name} has {len(value)} entries; at most {wire.length} fit")
            # entries left out at the end are all zero: an absent source is a record of zero bytes, not a record of default values
            # (serialize_tensor of a null pointer in ggml-rpc.cpp)
            return b"".join(put(wire.of, entry, name, version) for entry in value).ljust(wire_size(wire, version), b"\0")
        case Counted():
            head = put(Int(4), len(value), f"number of {name}", version)
            return head + b"".join(put(wire.of, entry, name, version) for entry in value)
        case Tail():
            return bytes(value)
        case _:
            assert_never(wire)


def decode(cls: type[M], payload: Readable, version: Version = DEFAULT) -> M:
    """Return the message in a payload: what `decode_by_field` returns, several times as fast where nothing is counted.

    Raises:
        Violation: frame.size-fixed, frame.size-minimum or graph.size-exact, with the offset where the payload ends too early.
    """
    if has_counts(cls, version):
        return decode_by_field(cls, payload, version)
    check_size(cls, len(payload), version)
    message: M = _reader(cls, version)(payload)
    return message


def reader(cls: type[M], version: Version = DEFAULT) -> Callable[[Readable], M]:
    """Return what `decode` does with payloads of the right size, for who reads many of one class.

    Raises:
        Misuse: for a class with counts.
    """
    read: Callable[[Readable], M] = _reader(cls, version)
    return read


def decode_by_field(cls: type[M], payload: Readable, version: Version = DEFAULT) -> M:
    """Return the message in a payload, read field by field: the definition of the format.

    Raises:
        Violation: as `decode`.
    """
    check_size(cls, len(payload), version)
    message, end = _get_record(cls, memoryview(payload), 0, version)
    if end != len(payload):
        raise Violation("graph.size-exact", f"{cls.__name__} size", len(payload), f"the counts fill {end} bytes", end)
    return message


def _get_record(cls: type[M], view: memoryview, at: int, version: Version) -> tuple[M, int]:
    values: dict[str, Any] = {}
    for row in fields(cls, version):
        values[row.name], at = get(row.wire, row.name, view, at, version)
    return cls(**values), at


def get(wire: Wire, name: str, view: memoryview, at: int, version: Version = DEFAULT) -> tuple[Any, int]:
    """Return one value, and the offset after it; `name` is the field's, for the error.

    Raises:
        Violation: graph.size-exact, where the bytes end before the value does.
    """
    match wire:
        case Int():
            end = _end(name, view, at, wire.width)
            return int.from_bytes(view[at:end], "little", signed=wire.signed), end
        case Chars():
            end = _end(name, view, at, wire.length)
            return bytes(view[at:end]), end
        case Record():
            return _get_record(wire.cls, view, at, version)
        case Array():
            return _get_many(wire.of, wire.length, name, view, at, version)
        case Counted():
            count, at = get(Int(4), f"number of {name}", view, at, version)
            # a count must be covered by bytes that have come: a claimed number alone must not make us allocate (llama.cpp #25287)
            _end(f"number of {name}", view, at, count * wire_size(wire.of, version))
            return _get_many(wire.of, count, name, view, at, version)
        case Tail():
            return bytes(view[at:]), len(view)
        case _:
            assert_never(wire)


def _get_many(of: Wire, count: int, name: str, view: memoryview, at: int, version: Version) -> tuple[tuple[Any, ...], int]:
    entries = []
    for index in range(count):
        entry, at = get(of, f"{name}[{index}]", view, at, version)
        entries.append(entry)
    return tuple(entries), at


def _end(name: str, view: memoryview, at: int, size: int) -> int:
    # check_size has compared the rest, so only a count can lead past the end
    if at + size > len(view):
        raise Violation("graph.size-exact", name, f"{size} bytes wanted, {len(view) - at} there", "message too short", at)
    return at + size


@cache
def zero_record(cls: type[M], version: Version = DEFAULT) -> M:
    """Return the record of zero bytes only: what stands for an absent entry of an array."""
    return decode_by_field(cls, bytes(minimum_size(cls, version)), version)


# ------------------------------------------------------------------------------------------------------ records at once


@cache
def _reader(cls: type, version: Version) -> Callable[[Readable], Any]:
    """Return what reads a record without counts: all of it with one struct, then each record in it with that one's."""
    form, places, records = _form(cls, version), _places(cls, version), _records(cls, version)
    pick, tail = _picker([place for _, place in places]), _tail(cls, version)
    names = [name for name, _ in places]

    def read(payload: Readable) -> Any:
        found = dict(zip(names, pick(form.unpack_from(payload)), strict=False))
        for name, part in records:
            found[name] = part(found[name])
        if tail:
            # a copy, as the payload may be a view of a buffer that is used again
            found[tail] = bytes(payload[form.size :])
        return cls(**found)

    return read


@cache
def _form(cls: type, version: Version) -> struct.Struct:
    """Return the format of a record, up to its data; records inside are bytes to it."""
    return struct_of([row.wire for row in fields(cls, version)], version)


def struct_of(wires: Iterable[Wire], version: Version = DEFAULT) -> struct.Struct:
    """Return the format of values that lie one after another; records among them are bytes to it.

    Raises:
        Misuse: for a wire type whose size a count decides.
    """
    # "<" stands for little-endian and for no alignment: the records are packed, their u64s lie at odd places
    return struct.Struct("<" + "".join(letter for wire in wires for letter in _letters(wire, version)))


def _places(cls: type, version: Version) -> list[tuple[str, int | slice]]:
    """Return where each field is among the values that the format gives: one, or several of an array."""
    found, at = list[tuple[str, int | slice]](), 0
    for row in fields(cls, version):
        end = at + len(_letters(row.wire, version))
        if not isinstance(row.wire, Tail):
            found.append((row.name, slice(at, end) if isinstance(row.wire, Array) else at))
        at = end
    return found


def _picker(places: list[int | slice]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """Return what takes a value for each index, and a tuple for each slice, out of the values of a format."""
    if all(isinstance(place, int) for place in places):
        return lambda values: values
    # two more, because itemgetter returns a single item bare
    return itemgetter(*places, slice(0), slice(0))


def _records(cls: type, version: Version) -> list[tuple[str, Callable[[Any], Any]]]:
    """Return the fields that are records, or arrays of them, each with what reads their bytes."""
    found = list[tuple[str, Callable[[Any], Any]]]()
    for row in fields(cls, version):
        match row.wire:
            case Record(of):
                found.append((row.name, _reader(of, version)))
            case Array(Record(of)):
                found.append((row.name, _several(of, version)))
    return found


def _several(of: type, version: Version) -> Callable[[tuple[bytes, ...]], tuple[Any, ...]]:
    """Return what reads records most of which may be absent: a stock client sends ten sources of a tensor that has one."""
    one, zero, absent = _reader(of, version), zero_record(of, version), bytes(minimum_size(of, version))
    return lambda each: tuple([zero if record == absent else one(record) for record in each])


class _Unfit(Exception):  # noqa: N818
    """A value that a record's format would cut off, or has no place for."""


@cache
def _writer(cls: type, version: Version) -> Callable[[Any], bytes]:
    """Return what writes a record: each record in it, then all with one struct; with counts it is written field by field."""
    if has_counts(cls, version):
        return lambda message: encode_by_field(message, version)
    form, tail = _form(cls, version), _tail(cls, version)
    rows = [(row.name, _values(row.wire, version)) for row in fields(cls, version) if row.name != tail]
    _, absent = _rows(cls, version)
    if not tail and not absent and all(values_of is None for _, values_of in rows):
        pack, names = form.pack, [name for name, _ in rows]
        return lambda message: pack(*[getattr(message, name) for name in names])

    def write(message: Any) -> bytes:
        values = list[Any]()
        for name, default in absent:
            if getattr(message, name) != default:
                raise _Unfit
        for name, values_of in rows:
            value = getattr(message, name)
            if values_of is None:
                values.append(value)
            else:
                values += values_of(value)
        written = form.pack(*values)
        return written + bytes(getattr(message, tail)) if tail else written

    return write


def _values(wire: Wire, version: Version) -> Callable[[Any], Iterable[Any]] | None:
    """Return what makes a field's value into those that the format takes; None where it is one of them."""
    match wire:
        case Record():
            return lambda value: (encode(value, version),)
        case Chars(length):
            return lambda value: (value,) if len(value) <= length else _raise_unfit()
        case Array(Record(), length):
            return lambda value: _filled([encode(entry, version) for entry in value], length, b"")
        case Array(Int(), length):
            return lambda value: value if len(value) == length else _filled(list(value), length, 0)
        case _:
            return None


def _filled(values: list[Any], length: int, absent: Any) -> list[Any]:
    """Return so many values; those left out at the end are zero."""
    return [*values, *[absent] * (length - len(values))] if len(values) <= length else _raise_unfit()


def _raise_unfit() -> NoReturn:
    raise _Unfit


def _tail(cls: type, version: Version) -> str:
    """Return the name of the field that is data; an empty string where there is none."""
    return next((row.name for row in fields(cls, version) if isinstance(row.wire, Tail)), "")


def _letters(wire: Wire, version: Version) -> list[str]:
    """Return struct's format of a wire type, one entry for each value."""
    match wire:
        case Int():
            letter = {1: "b", 4: "i", 8: "q"}[wire.width]
            return [letter if wire.signed else letter.upper()]
        case Chars():
            return [f"{wire.length}s"]
        case Record():
            return [f"{wire_size(wire, version)}s"]
        case Array():
            # a letter for each value rather than a repeat count like "4I": `_places` counts letters to find a value
            return _letters(wire.of, version) * wire.length
        case Tail():
            return []
        case Counted():
            raise Misuse("a record with counts has no struct: it is read field by field")
        case _:
            assert_never(wire)


# ------------------------------------------------------------------------------------------------------------ framing


def encode_request(message: Message, version: Version = DEFAULT) -> bytes:
    """Return a request as it goes over the wire: command, size, payload."""
    payload = encode(message, version)
    return request_head(type(message), len(payload), version) + payload


def request_head(cls: type, size: int, version: Version = DEFAULT) -> bytes:
    """Return the nine bytes before a request's payload.

    Raises:
        Misuse: where the version has no such request.
    """
    row = REQUESTS.get(cls)
    if row is None or row.since > version:
        raise Misuse(f"{command_name(cls)} is not a request of protocol {version}")
    return REQUEST_HEAD.pack(row.number, size)


def encode_reply(message: Message, version: Version = DEFAULT) -> bytes:
    """Return a reply as it goes over the wire: size, payload."""
    payload = encode(message, version)
    return REPLY_HEAD.pack(len(payload)) + payload


# ------------------------------------------------------------------------------------------------- whole arrays at once


@cache
def layout(cls: type, version: Version = DEFAULT) -> np.dtype[Any]:
    """Return the packed numpy dtype of a record of fixed size, derived from the same rows as `decode`.

    Raises:
        Misuse: for a record of variable size.
    """
    return np.dtype([(field.name, *_numpy(field.wire, version)) for field in fields(cls, version)])


def _numpy(wire: Wire, version: Version) -> tuple[Any, tuple[int, ...]]:
    match wire:
        case Int():
            return f"<{'i' if wire.signed else 'u'}{wire.width}", ()
        case Chars():
            # V rather than S: numpy strips the trailing zero bytes of an S
            return f"V{wire.length}", ()
        case Record():
            return layout(wire.cls, version), ()
        case Array():
            return _numpy(wire.of, version)[0], (wire.length,)
        case Counted() | Tail():
            raise Misuse("a record of variable size has no numpy dtype")
        case _:
            assert_never(wire)
