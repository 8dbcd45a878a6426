"""Messages as annotated hex, for people: offset, bytes, field, value, meaning; one line a field, groups indented."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ggml_rpc_ref.decode import words
from ggml_rpc_ref.decode.model import Item, Message
from ggml_rpc_ref.protocol.connection import Role

SHOWN_BYTES: Final = 8
"""Bytes of a field that are shown: enough for any integer."""
ARROWS: Final = {Role.CLIENT: "client -> server", Role.SERVER: "server -> client"}


class Line(NamedTuple):
    """One line, in cells; of a message's headline only `name` is set."""

    offset: str
    hex: str
    name: str
    value: str = ""
    doc: str = ""

    def __str__(self) -> str:
        """Return the cells side by side."""
        if not self.offset:
            return self.name
        return f"  {self.offset}  {self.hex:<{3 * SHOWN_BYTES + 1}}  {self.name:<16}  {self.value:<24}  {self.doc}".rstrip()


def lines(message: Message, *, with_connection: bool) -> Iterator[Line]:
    """Yield the lines of one message."""
    yield Line("", "", headline(message, with_connection=with_connection))
    for item in message.head:
        yield from _item(item, 0)
    for item in message.read():
        yield from _item(item, 0)
    if message.fault is not None:
        yield Line("", "", f"  !! {message.fault.field} {message.fault.problem} [{message.fault.rule}]")


def headline(message: Message, *, with_connection: bool) -> str:
    """Return sender, name, offset, size and, where the input has it, the time of a message."""
    who = f"connection {message.connection}  " if with_connection else ""
    when = "" if message.time_ns is None or not with_connection else f"  at {message.time_ns / 1e9:.6f} s"
    name = message.name or "?"
    return f"{who}{ARROWS[message.sender]}  {name}  offset {message.offset}, payload {message.payload_size} bytes{when}"


def _item(item: Item, depth: int) -> Iterator[Line]:
    name = "  " * depth + item.name
    offset = f"{item.offset:08x}"
    if item.children:
        yield Line(offset, f"{item.size} bytes", name, item.word, item.doc)
        for child in item.children:
            yield from _item(child, depth + 1)
        return
    hexed = item.raw[:SHOWN_BYTES].hex(" ") + (" …" if item.size > SHOWN_BYTES and item.raw else "")
    yield Line(offset, hexed, name, _value(item), item.doc)


def _value(item: Item) -> str:
    if isinstance(item.value, memoryview):
        return f"{item.size} bytes"
    if item.value is None and item.word:
        return f"{item.size} bytes {item.word}"
    value = words.value_text(item.name, item.value)
    return " ".join(part for part in (value, item.word) if part)
