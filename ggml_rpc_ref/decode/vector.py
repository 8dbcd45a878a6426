"""Vectors to streams: the messages of frames.json, and the conversations of sessions and malformed cases.

Names are replaced by the values that were recorded; data that a vector omits stay left out. The schemas in vectors/schema/ describe
the files; here a file is read up to where it stops following its schema.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ggml_rpc_ref.decode import words
from ggml_rpc_ref.decode.inputs import Source, mapped
from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Stream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files import conversation as script
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role

MAX_BYTES: Final = 2**28
"""Bytes that a file may expand to, not counting omitted data: a short file must not fill our memory."""
RECIPE: Final = "byte i is i % 251"
"""How frames.json describes data that it leaves out."""
MALFORMED = (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError)
"""What reading a document that does not follow its schema raises."""


def read(path: Path) -> Source:
    """Read a vector file. Damage is the source's `fault`; what came before it is kept.

    Raises:
        Misuse: for vectors without messages.
    """
    source = Source("vector")
    content, source.fault = _parse(bytes(mapped(path)))
    if source.fault is not None:
        return source
    scripts = _scripts(content)
    if not scripts and "connections" not in content:
        raise Misuse(f"{path} holds no messages; `ggml-rpc-ref vectors verify` checks vectors of every kind")
    builder = _Builder(source)
    if not scripts:
        builder.frames(content)
    for where, name, written in scripts:
        builder.conversation(where, name, written)
    return source


def _parse(data: bytes) -> tuple[Any, Fault | None]:
    try:
        content = json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as error:
        return None, Fault("JSON", f"breaks off or is not JSON: {error.msg}", "vector.json", len(error.doc[: error.pos].encode()))
    except UnicodeDecodeError as error:
        return None, Fault("JSON", f"is not UTF-8: {error.reason}", "vector.json", error.start)
    except (ValueError, RecursionError) as error:
        return None, Fault("JSON", f"can't be read: {type(error).__name__}", "vector.json", 0)
    if not isinstance(content, dict):
        return None, Fault("JSON", "is not an object", "vector.schema", 0)
    return content, None


def _scripts(content: Any) -> list[tuple[str, str, Any]]:
    """Return the conversations of a file: path in the document, name, the conversation."""
    if "steps" in content:
        return [("", "", content)]
    cases = content.get("cases")
    rows = list(enumerate(cases)) if isinstance(cases, list) else []
    return [
        (f"cases[{at}].", f"case {_printable(row.get('id'))}, ", row)
        for at, row in rows
        if isinstance(row, dict) and "steps" in row
    ]


class _Builder:
    """Collects the streams of one file."""

    def __init__(self, source: Source) -> None:
        self._source, self._order, self._room = source, 0, MAX_BYTES

    def frames(self, content: Any) -> None:
        """Add the conversations of frames.json."""
        for at, connection in enumerate(self._rows("", content, "connections")):
            added = self._add(f"connection {at + 1}")
            for number, frame in enumerate(self._rows(f"connections[{at}].", connection, "frames")):
                try:
                    pieces = [codec.REQUEST_HEAD.pack(frame["number"], _size(frame)), *_payload(frame)]
                    reply = None if frame["reply"] is None else bytes.fromhex(frame["reply"]["payload"])
                except (*MALFORMED, struct.error) as error:
                    self._fail(f"connections[{at}].frames[{number}]", error)
                    return
                self._append(added, Role.CLIENT, pieces)
                if reply is not None:
                    self._append(added, Role.SERVER, [codec.REPLY_HEAD.pack(len(reply)) + reply])

    def conversation(self, where: str, name: str, written: Any) -> None:
        """Add the conversations of a session or a case."""
        added: dict[int, Conversation] = {}
        try:
            bindings = script.bindings_from_json(written["bindings"])
            values = {key: binding.value or 0 for key, binding in bindings.items()}
        except MALFORMED as error:
            self._fail(f"{where}bindings", error)
            return
        for at, row in enumerate(self._rows(where, written, "steps")):
            try:
                step = script.step_from_json(row)
                number, pieces = int(step.connection), self._pieces(step, values)
            except MALFORMED as error:
                self._fail(f"{where}steps[{at}]", error)
                return
            if number not in added:
                added[number] = self._add(f"{name}connection {number}")
            self._append(added[number], Role.SERVER if step.act == "receive" else Role.CLIENT, pieces)

    def _pieces(self, step: script.Step, values: Mapping[str, int]) -> list[bytes | LeftOut]:
        """Return the bytes that were recorded, after checking that they are not too many."""
        self._room -= script.size_of(piece for piece in step.pieces if not isinstance(piece, script.Omitted))
        if self._room < 0:
            raise ValueError(f"more than {MAX_BYTES} bytes in all")
        return [script.recorded(piece, values) for piece in step.pieces]

    def _add(self, label: str) -> Conversation:
        conversation = Conversation(len(self._source.conversations) + 1, {Role.CLIENT: Stream()}, whole=True, label=label)
        self._source.conversations.append(conversation)
        return conversation

    def _append(self, conversation: Conversation, sender: Role, pieces: list[bytes | LeftOut]) -> None:
        stream = conversation.sides.setdefault(sender, Stream())
        for piece in pieces:
            if not isinstance(piece, bytes) or piece:
                stream.append(piece, self._order)
        self._order += 1

    def _rows(self, where: str, holder: Any, name: str) -> list[Any]:
        try:
            rows = holder[name]
            if isinstance(rows, list):
                return rows
            raise TypeError(f"{str(rows)[:40]!r} is not an array")
        except MALFORMED as error:
            self._fail(f"{where}{name}", error)
            return []

    def _fail(self, where: str, error: Exception) -> None:
        problem = f"does not follow the schema: {type(error).__name__}: {_printable(error)}"
        self._source.fault = self._source.fault or Fault(where, problem[:200], "vector.schema")


def _printable(value: object) -> str:
    """Return text from a file with every character escaped that a terminal could act on."""
    return words.text_of(str(value).encode("utf-8", "replace"))


def _size(frame: Any) -> int:
    there = len(frame.get("payload", frame.get("payload_start", ""))) // 2
    return there + int(frame.get("then", {}).get("size", 0))


def _payload(frame: Any) -> list[bytes | LeftOut]:
    if "payload" in frame:
        return [bytes.fromhex(frame["payload"])]
    size, recipe = frame["then"]["size"], frame["then"]["recipe"]
    if recipe != RECIPE or not 0 <= size <= MAX_BYTES >> 4:
        raise ValueError(f"recipe {recipe!r} for {size} bytes")
    return [bytes.fromhex(frame["payload_start"]), (bytes(range(251)) * (size // 251 + 1))[:size]]
