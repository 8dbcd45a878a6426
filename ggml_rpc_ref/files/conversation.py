"""Scripts: conversations written down so that they can be played again. Each step sends or expects bytes, with names for pointers.

The bytes of a message are a list of pieces, joined without gaps:

    "0e0000000000000000"              these bytes, in hexadecimal
    "${buf0.base}+64"                 a u64: the value bound to this name, plus 64 (modulo 2^64)
    {"repeat": "a5", "times": 4096}   these bytes, `times` times
    {"omitted": 18874368, "fnv1a": "0123456789abcdef"}     data that is not in the vector: its size and its FNV-1a 64 hash
    {"at_least": 1024, "width": 8}    received only: an unsigned number of `width` bytes, not below this; "recorded" is what was
                                      recorded, if that was more
    {"any": "00f0e1d2c3b4a596"}       received only: as many bytes, of any value; these were recorded
    {"values": "0000803f", "type": "F32", "nmse": 1e-06}   received only: numbers near these, by normalised mean squared error

A name is bound by the first piece that receives it; or the client chooses its value, and then the vector has it. The JSON
Schema of this form is in vectors/schema/.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.spec.dtypes import BY_NAME

U64: Final = 2**64
_NAME: Final = re.compile(r"\$\{([a-z]+[0-9]+(?:\.[a-z_]+)?)\}(?:([+-])([0-9]+))?")
_CHUNK: Final = 2**20
WIDTHS: Final = {name: BY_NAME[name].size for name in ("F32", "F16")}
"""The types that the numbers of a `Near` piece may have, to the bytes of a number."""


@dataclass(frozen=True, slots=True)
class Exactly:
    """These bytes."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Named:
    """A little-endian u64: what is bound to `name`, plus `offset`, modulo 2^64."""

    name: str
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Repeated:
    """Some bytes, repeated."""

    data: bytes
    times: int


@dataclass(frozen=True, slots=True)
class Omitted:
    """Data that the vector does not have: its size and FNV-1a 64 hash."""

    size: int
    fnv1a: int


@dataclass(frozen=True, slots=True)
class AtLeast:
    """A little-endian unsigned number of `width` bytes that is not below `least`. Received only.

    Attributes:
        recorded: what was recorded; None: `least`.
    """

    least: int
    width: int
    recorded: int | None = None


@dataclass(frozen=True, slots=True)
class Anything:
    """As many bytes as were recorded, of any value. Received only."""

    recorded: bytes


@dataclass(frozen=True, slots=True)
class Near:
    """Numbers whose normalised mean squared error against the recorded ones is at most `nmse`. Received only.

    NaN and infinities must be where they were recorded.

    Attributes:
        recorded: their bytes.
        type: "F32" or "F16".
        nmse: limit.
    """

    recorded: bytes
    type: str
    nmse: float


Piece = Exactly | Named | Repeated | Omitted | AtLeast | Anything | Near
Act = Literal["send", "receive", "refused", "close"]


@dataclass(frozen=True, slots=True)
class Step:
    """One action of the client: bytes to send, or what it waits for.

    Attributes:
        connection: its number, from 1; a number not used before opens a connection.
        act: "send"; "receive" one reply, with its size field; "refused": the server ends the connection without another byte;
            "close": the client ends it.
        pieces: of send and receive.
        command: name of the command that is sent or answered, for people; "" where it has none.
        how: of close: "end" or "reset".
    """

    connection: int
    act: Act
    pieces: tuple[Piece, ...] = ()
    command: str = ""
    how: str = ""


@dataclass(frozen=True, slots=True)
class Binding:
    """A name that pieces use.

    Attributes:
        by: which side chooses its value, "client" or "server".
        value: the client's; of a server's name the recorded value, or None.
    """

    by: str
    value: int | None


@dataclass(frozen=True, slots=True)
class Script:
    """A conversation to play.

    Attributes:
        id: permanent.
        about: a sentence on what it shows.
        steps: in order.
        bindings: name to its binding.
        flags: what it needs or tests; vectors/flags.json describes each.
    """

    id: str
    about: str
    steps: tuple[Step, ...]
    bindings: Mapping[str, Binding]
    flags: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ JSON


def from_json(content: Any, about: str = "about") -> Script:
    """Return the script in a JSON object that follows its schema; `about` is the name of the field for `Script.about`."""
    bindings = bindings_from_json(content.get("bindings", {}))
    steps = tuple(step_from_json(step) for step in content["steps"])
    return Script(content["id"], content[about], steps, bindings, tuple(content.get("flags", ())))


def bindings_from_json(rows: Mapping[str, Any]) -> dict[str, Binding]:
    """Return the bindings in a JSON object, by name."""
    return {name: Binding(row["by"], _number(row.get("value"))) for name, row in rows.items()}


def step_from_json(row: Any) -> Step:
    """Return the step in a JSON object."""
    for act in ("send", "receive"):
        if act in row:
            pieces = tuple(piece_from_json(piece) for piece in row[act])
            return Step(row["connection"], act, pieces, row.get("command", ""))
    if "refused" in row:
        return Step(row["connection"], "refused")
    return Step(row["connection"], "close", how=row["close"])


def step_as_json(step: Step) -> dict[str, Any]:
    """Return a step as JSON values."""
    row: dict[str, Any] = {"connection": step.connection}
    if step.command:
        row["command"] = step.command
    match step.act:
        case "refused":
            return row | {"refused": True}
        case "close":
            return row | {"close": step.how}
    return row | {step.act: [piece_as_json(piece) for piece in step.pieces]}


def piece_from_json(value: Any) -> Piece:
    """Return the piece in a JSON value.

    Raises:
        ValueError: for a value that is not a piece.
    """
    match value:
        # names before hexadecimal: no text is both, but fromhex would raise for a name
        case str() if found := _NAME.fullmatch(value):
            offset = int(found[3] or 0)
            return Named(found[1], -offset if found[2] == "-" else offset)
        case str():
            return Exactly(bytes.fromhex(value))
        case {"repeat": data, "times": times} if data:
            return Repeated(bytes.fromhex(data), times)
        case {"omitted": size, "fnv1a": fnv1a}:
            return Omitted(size, int(fnv1a, 16))
        case {"at_least": least, "width": width}:
            return AtLeast(least, width, value.get("recorded"))
        case {"any": recorded}:
            return Anything(bytes.fromhex(recorded))
        case {"values": recorded, "type": kind, "nmse": nmse}:
            if kind not in WIDTHS or len(numbers := bytes.fromhex(recorded)) % WIDTHS[kind]:
                raise ValueError(f"{str(value)[:60]!r} are not whole numbers of their type")
            return Near(numbers, kind, float(nmse))
    raise ValueError(f"{str(value)[:60]!r} is not a piece of a message")


def piece_as_json(piece: Piece) -> Any:
    """Return a piece as JSON values."""
    match piece:
        case Exactly(data):
            return data.hex()
        case Named(name, offset):
            return f"${{{name}}}" + (f"{offset:+d}" if offset else "")
        case Repeated(data, times):
            return {"repeat": data.hex(), "times": times}
        case Omitted(size, fnv1a):
            return {"omitted": size, "fnv1a": f"{fnv1a:016x}"}
        case AtLeast(least, width, recorded):
            return {"at_least": least, "width": width} | ({} if recorded is None else {"recorded": recorded})
        case Anything(recorded):
            return {"any": recorded.hex()}
        case Near(recorded, kind, nmse):
            return {"values": recorded.hex(), "type": kind, "nmse": nmse}


def _number(text: str | None) -> int | None:
    return None if text is None else int(text, 16)


# ------------------------------------------------------------------------------------------------------------ bytes


def size_of(pieces: Iterable[Piece]) -> int:
    """Return how many bytes the pieces have on the wire."""
    return sum(map(_size, pieces))


def _size(piece: Piece) -> int:
    match piece:
        case Exactly(data) | Anything(data) | Near(data):
            return len(data)
        case Named():
            return 8
        case Repeated(data, times):
            return len(data) * times
        case Omitted(size):
            return size
        case AtLeast(_, width):
            return width


def expand(pieces: Iterable[Piece], values: Mapping[str, int], data: Mapping[Omitted, memoryview]) -> Iterator[bytes | memoryview]:
    """Yield the bytes of pieces to send; those of a repeated piece in parts of at most 1 MiB.

    Args:
        pieces: of the kinds that can be sent.
        values: name to value.
        data: omitted piece to its data.

    Raises:
        KeyError: for a name that is not bound, or data that are missing.
    """
    for piece in pieces:
        match piece:
            case Exactly(literal):
                yield literal
            case Named(name, offset):
                yield ((values[name] + offset) % U64).to_bytes(8, "little")
            case Repeated(literal, times):
                most = max(1, _CHUNK // max(1, len(literal)))
                for done in range(0, times, most):
                    yield literal * min(most, times - done)
            case Omitted():
                yield data[piece]
            case _:
                raise TypeError(f"{piece!r} can't be sent")


def recorded(piece: Piece, values: Mapping[str, int]) -> bytes | LeftOut:
    """Return the bytes that were recorded for a piece; for data that the vector omits, their size and hash.

    Args:
        piece: of any kind.
        values: name to value.

    Raises:
        KeyError: for a name that is not bound.
        OverflowError: for a number that does not fit its width.
        ValueError: for a size that no message can have.
    """
    match piece:
        case Exactly(data) | Anything(data) | Near(data):
            return data
        case Named(name, offset):
            return ((values[name] + offset) % U64).to_bytes(8, "little")
        case Repeated(data, times):
            return data * times
        case Omitted(size, fnv1a):
            if not 0 <= size < U64:
                raise ValueError(f"{size} bytes")
            return LeftOut(size, fnv1a)
        case AtLeast(least, width, was):
            return (least if was is None else was).to_bytes(width, "little")
