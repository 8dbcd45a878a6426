"""What is wrong with what a server said: against the framing alone, against what a good session must get, against the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.fuzz.converse import End, Heard
from ggml_rpc_ref.fuzz.inside import Handled
from ggml_rpc_ref.fuzz.numbers import differs
from ggml_rpc_ref.fuzz.packet import Packet, meaning
from ggml_rpc_ref.fuzz.parts import Part
from ggml_rpc_ref.fuzz.plan import LARGEST_REPLY
from ggml_rpc_ref.fuzz.session import PER_CONNECTION, Session, Step
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CommAllreduce,
    CommInit,
    CopyTensor,
    DeviceCount,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    Hello,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    by_number,
    command_name,
)
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import Version

HEAD: Final = codec.REPLY_HEAD.size
OWN_LIMITS: Final = frozenset({"graph.cost", "graph.op-supported", "frame.size-bounded"})
"""Rules by which our server refuses what another one may well be able to do."""
MEANT: Final[dict[type, str]] = {
    GetTensor: "data.round-trip",
    GetTensor2d: "data.rows",
    CopyTensor: "data.copy",
    GetAllocSize: "tensor.alloc-size",
    DeviceCount: "device.count",
    AllocBuffer: "buffer.alloc-size",
    GetAlignment: "device.alignment",
    GetMaxSize: "device.max-size",
    GetDeviceMemory: "device.memory",
    SetTensorHash: "data.hash-miss",
    BufferGetBase: "buffer.known",
    CommInit: "comm.init",
}
"""Request to the rule that a reply of the right size with the wrong contents breaks."""


class Kind(StrEnum):
    """What a find is."""

    CRASH = "crash"
    HANG = "hang"
    DESYNC = "desync"
    """A reply of the wrong size, or one that is missing before a later one."""
    UNASKED = "unasked"
    """A reply where none may be."""
    ACCEPTED = "accepted"
    """What a MUST refuses was accepted."""
    REFUSED = "refused"
    """What breaks no rule was refused."""
    WAITS = "waits"
    """It waited for the rest of a message that must be refused by its beginning."""
    WRONG = "wrong"
    """A reply, or a result, with the wrong contents."""
    MEMORY = "memory"
    SLOW = "slow"
    LEAK = "leak"
    DEFECT = "defect"
    """An exception that is not a Violation, in our own server."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something wrong with one session.

    Attributes:
        kind: what.
        rule: id of the rule that is broken; "" where none has a name.
        words: what was seen, as a sentence without a full stop.
        connection: on which connection.
        message: index of the message on it, the first after the opening being 0; None: not known.
        subject: the command, or the op, that it is about.
        unless_new: whether it is only wrong of a server that takes the same nodes in the session before it was changed: no
            server must have every op.
    """

    kind: Kind
    rule: str
    words: str
    connection: int = 0
    message: int | None = None
    subject: str = ""
    unless_new: bool = False


def replies_of(heard: Heard) -> tuple[list[bytes], Suspicion | None]:
    """Return the replies to the messages that get one, in order, as far as they have come, and what is wrong with their framing."""
    found: list[bytes] = []
    at = 0
    for number, due in enumerate(heard.plan.dues):
        if not due.reply:
            continue
        if len(heard.replies) < at + HEAD:
            return found, None
        (size,) = codec.REPLY_HEAD.unpack_from(heard.replies, at)
        if size != due.reply - HEAD and due.reply < LARGEST_REPLY:
            words = f"the reply to {command_name(due.cls)} has {size} bytes, {due.reply - HEAD} are right"
            return found, Suspicion(Kind.DESYNC, "frame.reply-presence", words, message=number, subject=command_name(due.cls))
        if len(heard.replies) < at + due.reply:
            return found, None
        found.append(heard.replies[at + HEAD : at + due.reply])
        at += due.reply
    if len(heard.replies) > at:
        last = len(heard.plan.dues)
        rule = heard.plan.rule or ("frame.complete" if heard.plan.is_cut else "frame.reply-presence")
        words = f"{len(heard.replies) - at} bytes came where no reply may be ({heard.replies[at : at + 16].hex()})"
        kind = Kind.ACCEPTED if heard.plan.rule else Kind.UNASKED
        return found, Suspicion(kind, rule, words, message=last)
    return found, None


def is_complete(heard: Heard) -> bool:
    """Whether all replies that the framing allows have come."""
    return len(heard.replies) >= heard.plan.size


def suspicions(session: Session, heard: Sequence[Heard]) -> Iterator[Suspicion]:
    """Yield what is wrong without asking a model: framing, silence, and what a well-formed session got.

    Nothing of a session that lacked a buffer: what it says is not what it was meant to be.
    """
    if any(one.end is End.NO_ROOM for one in heard):
        return
    for connection, one in enumerate(heard):
        for found in _one(session, connection, one):
            yield replace(found, connection=connection)


def _one(session: Session, connection: int, heard: Heard) -> Iterator[Suspicion]:
    if heard.end is End.LOST and heard.rule:
        yield Suspicion(Kind.WRONG, heard.rule, heard.detail, subject="the opening")
        return
    if heard.end is End.LOST:
        yield Suspicion(Kind.HANG, "session.survives", f"a new connection was not served: {heard.detail}")
        return
    if heard.end is End.LEFT:
        return
    if heard.waits:
        words = "it waited for the rest of a message that must be refused by its beginning"
        yield Suspicion(Kind.WAITS, "frame.size-bounded", words, subject=_cut_command(heard, session.version))
    replies, broken = replies_of(heard)
    if broken:
        yield broken
    elif heard.end is End.SILENT:
        subject = _after(heard, len(replies))
        yield Suspicion(Kind.HANG, "session.survives", heard.detail, message=None, subject=subject)
    elif not session.notes and not is_complete(heard):
        yield Suspicion(Kind.REFUSED, "", f"a well-formed session was refused after {len(replies)} replies", message=len(replies))
    if not session.notes:
        yield from _contents(session.spoken(connection), heard, replies)


def _cut_command(heard: Heard, version: Version) -> str:
    """Return the command of the message that is cut off."""
    at = 0
    if heard.plan.dues:
        last = heard.plan.dues[-1].start
        _, size = codec.REQUEST_HEAD.unpack_from(heard.sent, last)
        at = last + codec.REQUEST_HEAD.size + size
    row = by_number(version).get(heard.sent[at]) if at < len(heard.sent) else None
    return row.name if row else ""


def _after(heard: Heard, count: int) -> str:
    """Return the command of the message whose reply is the first that did not come."""
    asked = [due.cls for due in heard.plan.dues if due.reply]
    return command_name(asked[count]) if count < len(asked) else ""


def _contents(steps: list[Step], heard: Heard, replies: list[bytes]) -> Iterator[Suspicion]:
    """Yield replies of a well-formed session with other contents than they must have."""
    answered = iter(replies)
    for number, (step, due) in enumerate(zip(steps, heard.plan.dues, strict=False)):
        if not due.reply:
            continue
        reply = next(answered, None)
        if reply is None:
            return
        if isinstance(step.expected, bytes) and reply != step.expected:
            words = _difference(step.expected, reply)
            rule, subject = _blamed(steps, number, words, step.message)
            yield Suspicion(Kind.WRONG, rule, words, message=number, subject=subject)
        elif isinstance(step.expected, Part) and (words := step.expected.wrong(reply)):
            yield Suspicion(Kind.WRONG, "graph.computes", words, message=number, subject=step.expected.op)


def _difference(wanted: bytes, found: bytes) -> str:
    at = int(np.flatnonzero(np.frombuffer(wanted, "u1") != np.frombuffer(found, "u1"))[0])
    return f"byte {at} of {len(found)} is {found[at]:#04x} in place of {wanted[at]:#04x}"


def _is_written(steps: Sequence[Step], number: int) -> bool:
    """Whether an earlier step writes to the buffer that a GET_TENSOR reads."""
    read = steps[number].message if number < len(steps) else None
    if not isinstance(read, GetTensor):
        return True
    home = meaning(read.tensor.buffer)
    for step in steps[:number]:
        match step.message:
            case BufferClear(remote_ptr=handle) | SetTensor(tensor=RpcTensor(buffer=handle)) if meaning(handle) == home:
                return True
    return False


# ----------------------------------------------------------------------------------------------------- against the model


def against(session: Session, heard: Sequence[Heard], said: Sequence[Handled]) -> Iterator[Suspicion]:
    """Yield where a server did otherwise than the model with the same session; nothing where the model lacked memory for it."""
    if any(one.lacked for one in said):
        return
    for connection, (one, right) in enumerate(zip(heard, said, strict=False)):
        for found in _compared(session, connection, one, right):
            yield replace(found, connection=connection)


def _compared(session: Session, connection: int, heard: Heard, said: Handled) -> Iterator[Suspicion]:
    if said.crash is not None or heard.end in (End.LOST, End.LEFT):
        return
    replies, broken = replies_of(heard)
    accepted = len(said.answers)
    asked = [number for number, due in enumerate(heard.plan.dues) if due.reply]
    reached = asked[len(replies) - 1] if replies else -1
    if said.violation and not broken and reached >= accepted and said.violation.rule not in OWN_LIMITS:
        rule = _broken(session, connection, accepted, said.violation.rule)
        yield Suspicion(
            Kind.ACCEPTED if RULES[rule].level == "MUST" else Kind.WRONG, rule, f"it was accepted, though {said.violation}",
            message=accepted, subject=_subject(session, connection, accepted),
        )  # fmt: skip
    elif not said.violation and not broken and not is_complete(heard) and heard.end is End.CLOSED and not said.left:
        missing = asked[len(replies)]
        graphs = any(isinstance(answer.request, Graph) for answer in said.answers[reached + 1 : missing + 1])
        command = GraphCompute if graphs else heard.plan.dues[missing].cls
        if any(peer.leaves for peer in session.peers):
            return  # one that leaves with bytes of the server unread may take its own, unread by the server, with it
        rule = "buffer.alloc-fails" if command is AllocBuffer else ""
        words = "a session was refused that breaks no rule"
        yield Suspicion(Kind.REFUSED, rule, words, subject=command_name(command), unless_new=graphs)
    yield from _replies_compared(session, connection, said, asked, replies)


def _broken(session: Session, connection: int, number: int, rule: str) -> str:
    """Return the rule that an accepted message breaks: another connection's buffer is more than an unknown one."""
    steps = session.spoken(connection)
    places = steps[number].packet(session.version).places if number < len(steps) else ()
    there = {buffer.number for buffer in session.all_buffers}
    if any(place.buffer in there and place.buffer // PER_CONNECTION != connection for place in places):
        return "session.frees" if session.apart else "session.isolated"
    return rule


def _replies_compared(
    session: Session, connection: int, said: Handled, asked: Sequence[int], replies: Sequence[bytes]
) -> Iterator[Suspicion]:
    steps = session.spoken(connection)
    aligned = not any(isinstance(step.message, Packet) for step in steps)
    trusted = True
    for number, reply in zip(asked, replies, strict=False):
        if number >= len(said.answers):
            return
        answer = said.answers[number]
        wanted = answer.reply[HEAD:]
        if (isinstance(answer.request, CopyTensor) and reply != wanted) or (
            isinstance(answer.request, SetTensorHash | CommInit) and not any(reply) and any(wanted)
        ):
            # it could not copy, has kept nothing, or has met nobody: what lies there is for the client to write now
            trusted = False
        if reply == wanted or not trusted:
            continue
        step = steps[number] if aligned and number < len(steps) else None
        words = _differs(session, step, answer.request, wanted, reply)
        if words:
            rule, subject = _blamed(steps, number, words, answer.request)
            yield Suspicion(Kind.WRONG, rule, words, message=number, subject=subject)
            return


def _blamed(steps: Sequence[Step], number: int, words: str, request: object) -> tuple[str, str]:
    """Return the rule that wrong contents break, and the op or command that they are about."""
    if words.startswith("node ") and "shares bytes" in words:
        return "graph.overlap", "a result that shares bytes with a source"
    if words.startswith("node "):
        return "graph.computes", words.split()[1].rstrip(":")
    if isinstance(request, GetTensor) and not _is_written(steps, number):
        return "buffer.clean", command_name(GetTensor)
    if isinstance(request, GetTensor):
        read = request.tensor.data
        if any(isinstance(step.message, CommAllreduce) and step.message.tensor.data == read for step in steps[:number]):
            return "comm.sum", command_name(CommAllreduce)
    rule = "buffer.empty" if isinstance(request, AllocBuffer) and not request.size else MEANT.get(type(request))
    return rule or "frame.reply-presence", command_name(type(request))


def _differs(session: Session, step: Step | None, request: Any, wanted: bytes, reply: bytes) -> str:
    """Return in words how a reply differs from the model's where it may not; "" where it may."""
    match request:
        case GetTensor() | GetTensor2d():
            return differs(session, step, wanted, reply)
        case AllocBuffer():
            handle, size = (int.from_bytes(part, "little") for part in (reply[:8], reply[8:]))
            if not handle and not request.size:
                return "a buffer of no bytes got no handle"
            return f"{size} bytes were given in place of {request.size}" if handle and size < request.size else ""
        case GetAlignment():
            alignment = int.from_bytes(reply, "little")
            return "" if alignment and not alignment & alignment - 1 else f"an alignment of {alignment} is not a power of two"
        case GetMaxSize():
            return "" if any(reply) else "a largest size of 0"
        case GetDeviceMemory():
            free, total = (int.from_bytes(part, "little") for part in (reply[:8], reply[8:]))
            return f"{free} bytes free of {total}" if free > total else ""
        case DeviceCount():
            return f"{int.from_bytes(reply, 'little')} devices, before there were {int.from_bytes(wanted, 'little')}"
        case SetTensorHash():
            return "data that nobody has uploaded were found" if reply[0] and not any(wanted) else ""
        case GetAllocSize():
            least, found = (int.from_bytes(data, "little") for data in (wanted, reply))
            return f"{found} bytes are too few for a tensor of {least}" if found < least else ""
        case CommInit():
            # 0 where the other server came: a port may be in use
            return f"answered with {reply[0]}" if reply[0] > wanted[0] else ""
        case Hello():
            return f"version {reply[:3].hex()} in place of {wanted[:3].hex()}" if reply[:3] != wanted[:3] else ""
    return ""


def _subject(session: Session, connection: int, number: int) -> str:
    steps = session.spoken(connection)
    return steps[number].label(session.version).partition(",")[0] if number < len(steps) else ""
