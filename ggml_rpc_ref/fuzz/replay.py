"""Play a find again: its conversation, step by step, and what the server does otherwise than a right one.

A find is written as what a right server does. So a server that no longer has the fault plays it to the end without a difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.errors import NOT_OF_ITS_FORM, Damaged
from ggml_rpc_ref.files import conversation
from ggml_rpc_ref.files.conversation import U64, Anything, AtLeast, Exactly, Named, Near, Piece, Script, Step
from ggml_rpc_ref.fuzz.other import Other
from ggml_rpc_ref.fuzz.session import Peer
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.ops.compare import normalised_error

FLOATS: Final = {"F32": "<f4", "F16": "<f2"}
MOST: Final = 2**28
"""Bytes of a find's file, and of one of its steps."""


@dataclass(frozen=True, slots=True)
class Written:
    """A find as it lies on disk.

    Attributes:
        script: its conversation.
        find: what was found, as it was written.
        peers: the other servers of its sums.
    """

    script: Script
    find: dict[str, Any]
    peers: tuple[Peer, ...] = ()


def load(path: Path) -> Written:
    """Read a find.

    Raises:
        Damaged: for a file that is none.
        OSError: where it can't be read.
    """
    try:
        if path.stat().st_size > MOST:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        script, find = conversation.from_json(content), content["provenance"]
        if not isinstance(find["kind"], str) or any(conversation.size_of(step.pieces) > MOST for step in script.steps):
            raise ValueError("a step is too large, or it does not say what was found")
        return Written(script, find, tuple(Peer.from_json(row) for row in content.get("peers", ())))
    except NOT_OF_ITS_FORM as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise Damaged(path, None, "find", f"is none that can be played ({what})", "file.form") from None


@dataclass(slots=True)
class Player:
    """Plays conversations with one server.

    Attributes:
        endpoint: where it listens.
        timeout: seconds that an answer may take.
    """

    endpoint: Endpoint
    timeout: float = 5.0
    _open: dict[int, Stream] = field(default_factory=dict)
    _values: dict[str, int] = field(default_factory=dict)

    def play(self, script: Script, peers: Sequence[Peer] = ()) -> list[str]:
        """Have a conversation; return what the server does otherwise, a sentence each, up to where no more can be said."""
        others = [Other(peer, self.endpoint.host, self.timeout) for peer in peers]
        self._values = {name: row.value for name, row in script.bindings.items() if row.by == "client" and row.value is not None}
        found: list[str] = []
        try:
            for number, step in enumerate(script.steps, 1):
                try:
                    wrong = list(self._take(step))
                except (PeerClosed, DeadlineMissed) as error:
                    return [*found, f"step {number}{f' ({step.command})' if step.command else ''}: {error}"]
                found += [f"step {number}: {sentence}" for sentence in wrong]
                if step.act == "refused" and wrong:
                    return found
        finally:
            for stream in self._open.values():
                stream.close()
            for other in others:
                other.close()
            self._open.clear()
        return found

    def _take(self, step: Step) -> Iterator[str]:
        stream = self._stream(step.connection)
        match step.act:
            case "send":
                self._send(stream, step)
            case "receive":
                for piece in step.pieces:
                    if wrong := self._wrong(piece, stream.receive_exactly(conversation.size_of([piece]))):
                        yield wrong
            case "refused":
                if data := _until_end(stream):
                    yield f"it was to be refused, but was answered ({data[:16].hex()})"
            case "close":
                self._open.pop(step.connection).close()

    def _stream(self, number: int) -> Stream:
        if number not in self._open:
            self._open[number] = open_stream(*self.endpoint, timeout=self.timeout)
        return self._open[number]

    def _send(self, stream: Stream, step: Step) -> None:
        try:
            stream.send(b"".join(conversation.expand(step.pieces, self._values, {})))
        except PeerClosed:
            pass  # refused before everything was sent: the next step shows whether that was right
        except KeyError as error:
            raise PeerClosed(f"{error} has no value: the server did not give it") from None

    def _wrong(self, piece: Piece, data: bytes) -> str:
        """Return how received bytes differ from a piece; "" where they don't."""
        match piece:
            case Exactly(wanted):
                return "" if data == wanted else _first_difference(wanted, data)
            case Named(name, offset):
                self._values.setdefault(name, (int.from_bytes(data, "little") - offset) % U64)
                return ""
            case AtLeast(least):
                value = int.from_bytes(data, "little")
                return "" if value >= least else f"{value} came, at least {least} is right"
            case Near(wanted, kind, nmse):
                return _far(wanted, data, kind, nmse)
            case Anything():
                return ""
        return ""


def _first_difference(wanted: bytes, found: bytes) -> str:
    at = next(index for index, (a, b) in enumerate(zip(wanted, found, strict=True)) if a != b)
    return f"from byte {at} on {found[at : at + 8].hex()} came, {wanted[at : at + 8].hex()} is right"


def _until_end(stream: Stream) -> bytes:
    """Return what comes before the peer's end: nothing where it refuses."""
    try:
        return stream.receive(64)
    except PeerClosed:
        return b""


def _far(wanted: bytes, found: bytes, kind: str, nmse: float) -> str:
    right, got = (np.frombuffer(data, FLOATS[kind]).astype(np.float64) for data in (wanted, found))
    finite = np.isfinite(right) & np.isfinite(got)
    if not (finite | (right == got) | (np.isnan(right) & np.isnan(got))).all():
        return "there are NaN or infinities in other places"
    error = normalised_error(np.where(finite, right, 0), np.where(finite, got, 0))
    return "" if error <= nmse else f"the numbers are off by a normalised mean squared error of {error:.3g}"
