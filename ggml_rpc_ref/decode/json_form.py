"""Decoded messages as one JSON document, for programs; its schema is output.schema.json beside this file.

    {"schema_version": 1, "kind": "raw", "messages": [
        {"connection": 0, "sender": "client", "offset": 0, "name": "HELLO", "payload_size": 0, "fields": [
            {"name": "command", "offset": 0, "size": 1, "value": 14, "word": "HELLO"}, …], "fault": null, …}, …],
     "faults": [], "notes": []}

Offsets count from the first byte that the sender sent. Bytes are hexadecimal, at most the first 64 of a field; a group has `fields`
instead of a value; a tensor in an array that was not walked has its values by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

from ggml_rpc_ref.decode.model import Fault, Item, Message

SCHEMA_VERSION: Final = 1
SHOWN_BYTES: Final = 64
"""Bytes of raw data that are written out."""


def message_form(message: Message) -> dict[str, Any]:
    """Return a message as JSON values."""
    return {
        "connection": message.connection,
        "sender": message.sender.value,
        "time_ns": message.time_ns,
        "version": str(message.version),
        "offset": message.offset,
        "name": message.name,
        "payload_offset": message.payload_offset,
        "payload_size": message.payload_size,
        "fields": [_item(item) for item in _all(message)],
        "fault": message.fault and fault_form(message.fault),
    }


def fault_form(fault: Fault) -> dict[str, Any]:
    """Return a fault as JSON values, with the sentence of its rule."""
    return {**asdict(fault), "sentence": fault.sentence}


def _all(message: Message) -> Iterator[Item]:
    yield from message.head
    yield from message.read()


def _item(item: Item) -> dict[str, Any]:
    form: dict[str, Any] = {"name": item.name, "offset": item.offset, "size": item.size}
    if item.value is not None:
        form["value"] = _plain(item.value)
    if item.word:
        form["word"] = item.word
    if item.children:
        form["fields"] = [_item(child) for child in item.children]
    return form


def _plain(value: Any) -> Any:
    match value:
        case bytes() | memoryview():
            return value[:SHOWN_BYTES].hex()
        case dict():
            return {name: _plain(entry) for name, entry in value.items()}
    return value
