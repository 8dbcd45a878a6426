"""What decoding yields: items with their offsets, messages made of items, and faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ggml_rpc_ref.errors import Damaged, Violation
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, Version


@dataclass(slots=True)
class Item:
    """A field or a group of fields, with its offset and bytes.

    Attributes:
        name: the field's name in the table; `tensors[3]` for an entry.
        offset: of its first byte, counted from the first byte that the sender sent.
        size: bytes.
        raw: its bytes; of data only the first ones, of data left out of a recording none.
        value: int, tuple of ints, bytes; a dict of a tensor's values where they are not walked one by one; None for a group.
        word: the value's name, e.g. of an op; "" where it has none.
        doc: the field's meaning, from the table.
        children: the fields of a record, the entries of an array.
    """

    name: str
    offset: int
    size: int
    raw: memoryview
    value: Any = None
    word: str = ""
    doc: str = ""
    children: list[Item] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault in the input, and its place.

    Attributes:
        field: path of the field; for a damaged file the part of the file.
        problem: what was found and what would be right, as the rest of a sentence that begins with the field.
        rule: id of the broken rule, in `spec.rules.RULES` or `spec.files.FILE_RULES`.
        offset: in what the sender sent, or in the file; None where `field` is the whole address, as a path in a JSON document is.
        where: connection and side; "" where the input has only one.
    """

    field: str
    problem: str
    rule: str
    offset: int | None = None
    where: str = ""

    @classmethod
    def of(cls, violation: Violation, offset: int, where: str) -> Fault:
        """Return a violation as a fault at an offset in what the sender sent."""
        problem = f"is {violation.value}" + (f": {violation.detail}" if violation.detail else "")
        return cls(violation.field, problem, violation.rule, offset, where)

    @classmethod
    def in_file(cls, damage: Damaged) -> Fault:
        """Return damage of the file as a fault."""
        return cls(damage.field, damage.problem, damage.rule, damage.offset)

    @property
    def sentence(self) -> str:
        """The rule's own sentence."""
        return (RULES.get(self.rule) or FILE_RULES[self.rule]).sentence

    def __str__(self) -> str:
        """One sentence: place, field, problem, rule and the rule's own sentence."""
        place = "" if self.offset is None else f"offset {self.offset} ({self.offset:#x})"
        start = ", ".join(part for part in (self.where, place) if part)
        said = f"{self.field} {self.problem} [{self.rule}: {self.sentence.rstrip('.')}]"
        return f"{start}: {said}" if start else said


def _nothing() -> list[Item]:
    return []


@dataclass(slots=True)
class Message:
    """A request or a reply, as much of it as the input has.

    Its fields are read from the stream each time they are asked for, not kept: a recording may hold more of them than fits in
    memory.

    Attributes:
        sender: which end sent it.
        connection: the connection's number in the input.
        offset: of its first byte, counted from the first byte that the sender sent.
        version: the version by whose layouts it is read.
        name: the command's name, with " reply" after it for a reply.
        cls: its class in the table; None where that is unknown.
        head: command and size, or size alone.
        payload_size: the size field; 0 where the bytes end before it.
        is_sized: whether the size field is there, and one that the message can have.
        read: reads the fields of the payload.
        payload: returns the payload as far as the input has it; of data only the beginning.
        order: position of its first byte among the input's pieces; sorts the messages of both sides.
        time_ns: when its first byte came, in ns; None where the input has no times.
        fault: why the decoding of this side ends here; None: it does not.
    """

    sender: Role
    connection: int
    offset: int
    version: Version = DEFAULT
    name: str = ""
    cls: type | None = None
    head: list[Item] = field(default_factory=list)
    payload_size: int = 0
    is_sized: bool = False
    read: Callable[[], list[Item]] = _nothing
    payload: Callable[[], memoryview] = lambda: memoryview(b"")
    order: int = 0
    time_ns: int | None = None
    fault: Fault | None = None

    @property
    def payload_offset(self) -> int:
        """Where its payload begins, counted from the first byte that the sender sent."""
        return self.offset + sum(item.size for item in self.head)

    def value(self, name: str) -> Any:
        """Return the value of a field of the payload; None where the payload ends before it."""
        return next((item.value for item in self.read() if item.name == name), None)

    def number(self, name: str) -> int:
        """Return the value of an integer field of a complete payload."""
        return int(self.value(name))
