"""The field-by-field reader of `codec` with offsets: it keeps where each field is, and what came before the bytes ran out.

Like `codec.decode_by_field` it is a function over the table that knows no message's layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np

from ggml_rpc_ref.decode import words
from ggml_rpc_ref.decode.model import Item
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import RpcTensor, fields
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail

MOST_FULL = 100_000
"""Entries of an array that are walked one by one; each takes about a kilobyte of memory."""


class Short(Exception):  # noqa: N818  (not an error: the caller decides what it means)
    """The bytes end inside a field."""

    def __init__(self, field: str, offset: int, wanted: int, there: int) -> None:
        self.field, self.offset, self.wanted, self.there = field, offset, wanted, there
        super().__init__(f"{field} has {there} of {wanted} bytes")


@dataclass(slots=True)
class Walk:
    """A walk through one payload.

    Attributes:
        view: the payload as far as the input has it; of data the beginning is enough.
        base: offset of the payload, counted from the first byte that the sender sent.
        size: the size field.
        there: how many bytes of the payload the input has.
        version: the version by whose layouts it is read.
        full: whether tensors in arrays are walked field by field; if not, each is one item with a dict of its values.
        left_out: data that a recording left out, following the bytes it has.
    """

    view: memoryview
    base: int
    size: int
    there: int
    version: Version
    full: bool = False
    left_out: LeftOut | None = None
    at: int = 0

    def record(self, cls: type, into: list[Item], path: str = "") -> None:
        """Append the fields of a record.

        Raises:
            Short: where the bytes end; what came before is in `into`.
        """
        for row in fields(cls, self.version):
            name = path + row.name
            match row.wire:
                case Int() | Chars():
                    self._leaf(row.name, name, row.wire, row.doc, into)
                case Record():
                    self._group(row.wire.cls, row.name, name, row.doc, into)
                case Array():
                    self._many(row.wire.of, row.wire.length, row.name, name, row.doc, into)
                case Counted():
                    count = self._leaf("", f"number of {name}", Int(4), f"how many {row.name} follow", into)
                    self._many(row.wire.of, count, row.name, name, row.doc, into)
                case Tail():
                    self._tail(row.name, name, row.doc, into)
                case _:
                    assert_never(row.wire)

    def _take(self, name: str, size: int) -> memoryview:
        there = self.view[self.at : self.at + size]
        if len(there) < size:
            raise Short(name, self.base + self.at, size, len(there))
        self.at += size
        return there

    def _leaf(self, key: str, name: str, wire: Int | Chars, doc: str, into: list[Item]) -> Any:
        offset = self.base + self.at
        raw = self._take(name, wire.width if isinstance(wire, Int) else wire.length)
        value: Any = int.from_bytes(raw, "little", signed=wire.signed) if isinstance(wire, Int) else bytes(raw)
        shown = name.rpartition(".")[2]
        into.append(Item(shown, offset, len(raw), raw, value, words.word(key, value, self.version), doc))
        return value

    def _group(self, cls: type, key: str, name: str, doc: str, into: list[Item]) -> None:
        group = Item(key, self.base + self.at, 0, self.view[self.at : self.at], doc=doc)
        into.append(group)
        start = self.at
        try:
            self.record(cls, group.children, f"{name}.")
        finally:
            group.size = self.at - start
            group.raw = self.view[start : self.at]
        if cls is RpcTensor:
            values = {child.name: child.value for child in group.children}
            group.word = words.tensor_text(values, self.version)
            _explain_op(values, group.children, self.version)

    def _many(self, of: Int | Record, count: int, key: str, name: str, doc: str, into: list[Item]) -> None:
        if isinstance(of, Int):
            self._numbers(of, count, key, name, doc, into)
            return
        group = Item(key, self.base + self.at, 0, self.view[self.at : self.at], doc=doc)
        into.append(group)
        start = self.at
        try:
            if self.full and count <= MOST_FULL:
                for index in range(count):
                    self._group(of.cls, f"{key}[{index}]", f"{name}[{index}]", "", group.children)
            else:
                self._summaries(of.cls, count, key, name, group.children)
        finally:
            group.size = self.at - start
            group.raw = self.view[start : self.at]

    def _numbers(self, of: Int, count: int, key: str, name: str, doc: str, into: list[Item]) -> None:
        """An array of integers is one item, as far as it is there."""
        there = min(count, (len(self.view) - self.at) // of.width)
        offset = self.base + self.at
        raw = self._take(name, there * of.width)
        value = tuple(np.frombuffer(raw, f"<{'i' if of.signed else 'u'}{of.width}").tolist())
        into.append(Item(key, offset, len(raw), raw, value, "", doc))
        if there < count:
            self._take(f"{name}[{there}]", of.width)

    def _summaries(self, cls: type, count: int, key: str, name: str, into: list[Item]) -> None:
        """Records at once, through the numpy layout that `codec` derives from the same table."""
        layout = codec.layout(cls, self.version)
        there = min(count, (len(self.view) - self.at) // layout.itemsize)
        start = self.at
        raw = self._take(name, there * layout.itemsize)
        records = np.frombuffer(raw, layout)
        columns = [records[field].tolist() for field in layout.names or ()]
        for index, row in enumerate(zip(*columns, strict=True)):
            values = dict(zip(layout.names or (), row, strict=True))
            first = index * layout.itemsize
            piece = raw[first : first + layout.itemsize]
            text = words.tensor_text(values, self.version) if cls is RpcTensor else ""
            into.append(Item(f"{key}[{index}]", self.base + start + first, layout.itemsize, piece, values, text))
        if there < count:  # walk what there is of the next one, up to where the bytes end
            self._group(cls, f"{key}[{there}]", f"{name}[{there}]", "", into)

    def opaque(self, into: list[Item]) -> None:
        """Append the payload of a message of unknown kind as one item."""
        self._tail("payload", "payload", "the kind of this message is unknown", into)

    def _tail(self, key: str, name: str, doc: str, into: list[Item]) -> None:
        wanted, there, offset = self.size - self.at, self.there - self.at, self.base + self.at
        if self.left_out is not None and there == 0:
            kept_out = f"left out; FNV-1a 64 {self.left_out.fnv1a:#018x}"
            there = self.left_out.size
            into.append(Item(key, offset, there, self.view[:0], None, kept_out, doc))
        else:
            raw = self.view[self.at :]
            into.append(Item(key, offset, there, raw, raw, "", doc))
        if there < wanted:
            raise Short(name, offset + there, wanted, there)


def _explain_op(values: dict[str, Any], children: list[Item], version: Version) -> None:
    """Set the words of op and op_params: the op's full name, its parameters by name."""
    if not values["op"]:
        return
    for child in children:
        if child.name == "op_params":
            child.word = words.params_text(values["op"], child.value, version)
        elif child.name == "op":
            child.word = words.full_op_name(values["op"], values["op_params"], version)
