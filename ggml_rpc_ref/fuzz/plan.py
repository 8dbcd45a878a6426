"""What a right server answers to bytes, as far as their framing tells: computed from the bytes themselves, mutated or not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.order import awaited
from ggml_rpc_ref.spec.messages import REQUESTS, DeviceCount, GetAlignment, Hello, HelloReply, Message, by_number, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version

HEAD: Final = codec.REQUEST_HEAD.size
LARGEST_REPLY: Final = 2**62
"""Bytes: a GET_TENSOR of more is not waited for."""


@dataclass(frozen=True, slots=True)
class Due:
    """A message that a server reads.

    Attributes:
        start: where it begins in the bytes.
        cls: its class.
        reply: bytes of its reply, size field included; 0 where it gets none.
    """

    start: int
    cls: type
    reply: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How a right server reads bytes.

    Attributes:
        dues: the messages that are whole and framed well, in order.
        rule: the rule by which it refuses what comes after them; "" where nothing does.
        is_cut: whether the bytes end in the middle of a message.
    """

    dues: tuple[Due, ...]
    rule: str = ""
    is_cut: bool = False

    @property
    def size(self) -> int:
        """Bytes of all replies together."""
        return sum(due.reply for due in self.dues)


@cache
def sentinel(version: Version = DEFAULT) -> Message:
    """Return the request whose reply shows that all before it was accepted."""
    return DeviceCount() if DeviceCount in {row.cls for row in by_number(version).values()} else GetAlignment()


def plan_of(data: bytes, version: Version = DEFAULT) -> Plan:
    """Return how bytes are read that follow a HELLO."""
    dues: list[Due] = []
    at, end, known = 0, len(data), by_number(version)
    while at < end:
        row = known.get(data[at])
        if row is None:
            return Plan(tuple(dues), "frame.command-known")
        if row.cls is Hello:
            return Plan(tuple(dues), "session.hello-once")
        if at + HEAD > end:
            return Plan(tuple(dues), is_cut=True)
        size = int.from_bytes(data[at + 1 : at + HEAD], "little")
        try:
            codec.check_size(row.cls, size, version)
        except Violation as violation:
            return Plan(tuple(dues), violation.rule)
        if at + HEAD + size > end:
            return Plan(tuple(dues), is_cut=True)
        dues.append(Due(at, row.cls, _reply_size(row.cls, data, at + HEAD, version)))
        at += HEAD + size
    return Plan(tuple(dues))


def plan_from_start(data: bytes, version: Version = DEFAULT) -> Plan:
    """Return how bytes are read with which a connection begins: by HELLO, or not at all."""
    size = codec.minimum_size(Hello, version)
    head = codec.request_head(Hello, size, version)
    if data[:1] != head[:1]:
        return Plan((), "session.hello-first")
    if len(data) >= HEAD and not data.startswith(head):
        return Plan((), "frame.size-fixed")
    if len(data) < HEAD + size:
        return Plan((), is_cut=True)
    rest = plan_of(data[HEAD + size :], version)
    dues = (Due(due.start + HEAD + size, due.cls, due.reply) for due in rest.dues)
    reply = codec.REPLY_HEAD.size + codec.minimum_size(HelloReply, version)
    return Plan((Due(0, Hello, reply), *dues), rest.rule, rest.is_cut)


def _reply_size(cls: type, data: bytes, payload: int, version: Version) -> int:
    def value(name: str) -> int:
        start, width = _field(cls, name, version)
        return int.from_bytes(data[payload + start : payload + start + width], "little")

    due = awaited(cls, None, version, value)
    return 0 if due is None else codec.REPLY_HEAD.size + min(due.size, LARGEST_REPLY)


@cache
def _field(cls: type, name: str, version: Version) -> tuple[int, int]:
    """Return offset and width of a field in the fixed part of a request."""
    at = 0
    for row in fields(cls, version):
        width = codec.wire_size(row.wire, version)
        if row.name == name:
            return at, width
        at += width
    raise KeyError(f"{REQUESTS[cls].name} has no {name}")
