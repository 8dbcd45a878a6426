"""What decoding finds: items with their places, messages made of them, and what is wrong where."""

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
    """A field, or a group of them, where it lies.

    Attributes:
        name: the field's name in the table; `tensors[3]` for an entry.
        offset: of its first byte, in what its side sent.
        size: bytes.
        raw: these bytes, of data only the first; none for data left out of a recording.
        value: int, tuple of ints, bytes; a dict of a tensor's values where they are not walked one by one; None for a group.
        word: what the value is called, e.g. the name of an op; "" where it has no name.
        doc: meaning of the field, from the table.
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
    """What is wrong, and where.

    Attributes:
        field: the field's path; a part of the file where that is damaged.
        problem: half a sentence that says what is there and what would be right.
        rule: id of the rule that it breaks: one of the protocol's, or one of the files'.
        offset: in what the side sent, or in the file; None where `field` says the place, as a path in a JSON document does.
        where: which connection and side; "" where there is one only.
    """

    field: str
    problem: str
    rule: str
    offset: int | None = None
    where: str = ""

    @classmethod
    def of(cls, violation: Violation, offset: int, where: str) -> Fault:
        """Return what a violation says, at an offset in what the side sent."""
        problem = f"is {violation.value}" + (f": {violation.detail}" if violation.detail else "")
        return cls(violation.field, problem, violation.rule, offset, where)

    @classmethod
    def in_file(cls, damage: Damaged) -> Fault:
        """Return what is wrong with the file."""
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
    """A request or a reply, as far as it is there.

    Its fields are read from the stream whenever they are asked for: there may be more of them than memory.

    Attributes:
        sender: which end sent it.
        connection: the connection's number in the input.
        offset: of its first byte, in what the sender sent.
        version: whose layouts are meant.
        name: the command's name, with " reply" after it for a reply.
        cls: its class in the table; None where it could not be told.
        head: command and size, or size alone.
        payload_size: the size field; 0 where it is not there.
        read: reads the fields of the payload.
        payload: gives the payload as far as it is there; of data only the beginning.
        order: when its first byte came, among all messages of the input.
        time_ns: the same as a time; None where the input has none.
        fault: what ends the decoding of this side here; None: nothing.
    """

    sender: Role
    connection: int
    offset: int
    version: Version = DEFAULT
    name: str = ""
    cls: type | None = None
    head: list[Item] = field(default_factory=list)
    payload_size: int = 0
    read: Callable[[], list[Item]] = _nothing
    payload: Callable[[], memoryview] = lambda: memoryview(b"")
    order: int = 0
    time_ns: int | None = None
    fault: Fault | None = None

    @property
    def payload_offset(self) -> int:
        """Where its payload begins, in what the sender sent."""
        return self.offset + sum(item.size for item in self.head)

    def value(self, name: str) -> Any:
        """Return the value of a field of the payload; None where it is not there."""
        return next((item.value for item in self.read() if item.name == name), None)

    def number(self, name: str) -> int:
        """Return the value of a number of the payload, which is there."""
        return int(self.value(name))
