"""Which of a connection's requests are answered again in C, and for how long (`net.again`).

The first two times a request is answered as its handler says. Where it comes again byte by byte, and its answer follows from
nothing but these bytes and what `Session.changes` counts, what the handler has found is put down: the same reply, which bytes of
a buffer to send or to write, or the plan to run. So a client that computes the same graph for each token, or asks the same question
for each tensor, waits for the interpreter twice.

All of it is forgotten as soon as a buffer comes or goes, and plans as soon as a stored graph does, before the next request is
read. Nothing here knows a rule of the protocol: a request that would be refused is never put down, and one that differs in a single
bit goes to its handler. Of GET_ALLOC_SIZE, whose answer follows from few of its bytes, the others may differ (`_masks`).
"""

from __future__ import annotations

import logging
import os
from functools import cache
from typing import Any, Final, Self

import numpy as np

from ggml_rpc_ref.net import again
from ggml_rpc_ref.net.again import Again, Answers, Call, Ending
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.memory import Region
from ggml_rpc_ref.server.plan import Plan
from ggml_rpc_ref.server.session import Area, Session
from ggml_rpc_ref.spec.messages import (
    BufferGetBase,
    DeviceCount,
    GetAlignment,
    GetAllocSize,
    GetMaxSize,
    GetTensor,
    GraphRecompute,
    InitTensor,
    Message,
    RpcTensor,
    SetTensor,
    by_number,
    carries_data,
)
from ggml_rpc_ref.spec.versions import Version

LASTING: Final = (GetAlignment, GetMaxSize, DeviceCount, BufferGetBase, InitTensor, GetAllocSize)
"""Requests that change nothing and whose replies depend on no more than which buffers there are."""
SEEN: Final = 1024
"""Requests that have come once, of which that is remembered."""


class Known:
    """What C answers on one connection.

    Args:
        session: whose requests.
        room: where bytes are received.
    """

    def __init__(self, session: Session, room: bytearray) -> None:
        self.answers = Answers(room, _fixed(session.version), _masks(session.version))
        self._session, self._changes = session, session.changes
        self._seen: set[int] = set()

    @classmethod
    def of(cls, session: Session, room: bytearray, log: logging.Logger) -> Self | None:
        """Return this for a session; None where everything is Python's: C was not compiled, or each request is logged.

        A session of another class may answer as it likes, and is asked each time.
        """
        if again.compiled is None or type(session) is not Session or log.isEnabledFor(logging.DEBUG):
            return None
        return cls(session, room)

    def refresh(self) -> None:
        """Forget all answers where what they follow from has changed; after each message that Python has answered.

        At once, and not before C waits again: the next message may ask for the memory of a buffer that is kept here.
        """
        before, self._changes = self._changes, self._session.changes
        if before.buffers != self._changes.buffers:
            self.answers.clear()
        elif before.graphs != self._changes.graphs:
            self.answers.clear_calls()

    def wait(self, descriptor: int) -> Ending:
        """Answer what is known; see `Answers.wait`.

        Raises:
            OSError: the socket's.
        """
        ending = self.answers.wait(descriptor)
        if ending is Ending.FAILED:
            raise OSError(self.answers.error, os.strerror(self.answers.error))
        return ending

    def unsent(self) -> tuple[memoryview, memoryview | None]:
        """Return what of the last reply has not gone: its own bytes, and its data."""
        last, gone = self.answers.last, self.answers.gone
        data = last.owner.read() if last.source[1] else None
        return memoryview(last.reply)[gone:], data and data[max(0, gone - len(last.reply)) :]

    def learn(self, request: bytes, message: Message, reply: bytes, area: Area | None = None) -> None:
        """Put down how a request has been answered, from its second time on.

        Args:
            request: its bytes, those of its data apart.
            message: what it says.
            reply: what was sent, its data apart.
            area: where its data have gone to, or its reply's have come from.
        """
        number = hash(self.answers.what_matters(request))
        if number not in self._seen:  # what comes once does not repay it
            if len(self._seen) >= SEEN:
                self._seen.clear()
            self._seen.add(number)
            return
        found = self._again(message, reply, area)
        if found is not None:
            self.answers.put(request, found)

    def _again(self, message: Message, reply: bytes, area: Area | None) -> Again | None:
        if isinstance(message, GetAllocSize) and not all(map(_is_checked_or_empty, message.srcs)):
            return None
        if isinstance(message, LASTING):
            return Again(reply)
        if isinstance(message, Graph | GraphRecompute):
            return self._call(message, reply)
        if not isinstance(area, Region) or area.allocation.data is None:
            return None
        place = (area.allocation.data.ctypes.data + area.start, area.size)
        if isinstance(message, GetTensor):
            return Again(reply, source=place, owner=area)
        if isinstance(message, SetTensor) and not getattr(area.allocation, "watched", True) and not self._session.keeps(message):
            return Again(reply, destination=place, owner=area)
        return None

    def _call(self, message: Graph | GraphRecompute, reply: bytes) -> Again | None:
        stored, uid = self._session.stored, message.uid
        plan: Any = stored.plan(message.device, uid)
        if not isinstance(plan, Plan) or (isinstance(message, Graph) and stored.is_full(message.device)):
            return None
        call = plan.in_c()
        return None if call is None else Again(reply, call=Call(*call), owner=(message, plan))


def _is_checked_or_empty(source: RpcTensor) -> bool:
    """Whether a source of GET_ALLOC_SIZE would be accepted with any id: an absent one, whose id is 0, is not looked at."""
    return source.id != 0 or not any((source.type, source.buffer, source.data, *source.ne, *source.nb))


@cache
def _masks(version: Version) -> dict[int, bytes]:
    """Return which bytes of GET_ALLOC_SIZE its answer follows from (`handlers.get_alloc_size`).

    A stock client asks for each tensor of a graph, 597 times for one model: these differ in ids and names, which do not matter.
    """
    record = np.zeros((), codec.layout(RpcTensor, version))
    places = {name: np.arange(dtype.itemsize) + offset for name, (dtype, offset, *_) in (record.dtype.fields or {}).items()}
    matters = np.zeros(record.nbytes, np.uint8)
    for name in ("type", "buffer", "ne", "nb", "data"):
        matters[places[name]] = 255
    found = {}
    for number, row in by_number(version).items():
        if row.cls is GetAllocSize:
            size = codec.REQUEST_HEAD.size + codec.minimum_size(GetAllocSize, version)
            count = size // record.nbytes  # the tensor, and its sources where the version has them
            found[number] = bytes([255] * (size - count * record.nbytes)) + matters.tobytes() * count
    return found


@cache
def _fixed(version: Version) -> dict[int, int]:
    """Return by command, for the requests that carry data, the bytes that come before them."""
    head = codec.REQUEST_HEAD.size
    rows = by_number(version).items()
    return {number: head + codec.minimum_size(row.cls, version) for number, row in rows if carries_data(row.cls)}
