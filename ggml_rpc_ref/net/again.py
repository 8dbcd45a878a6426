"""Requests that are answered again without the interpreter, where the package was installed with a C compiler (again.c).

What is put down here says how one request is answered, known by its bytes or by those of them that matter: with the same bytes,
with bytes of memory, by writing its data to memory, or by calling a function in C. C waits for bytes, answers what it knows, and
hands on the first bytes that it does not. What a request means, and for how long an answer holds, is not known here: see
`server.known`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from enum import IntEnum
from importlib import import_module
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import module_from_spec
from typing import Any, Final, NamedTuple

import numpy as np

VARIABLE: Final = "GGML_RPC_REF_AGAIN"
"""Environment variable with the path of a module that was compiled apart (`backends/native/build.py`), to use in its place."""


def _compiled() -> Any:
    try:
        if VARIABLE not in os.environ:
            return import_module("ggml_rpc_ref.net._again")
        loader = ExtensionFileLoader("_again", os.environ[VARIABLE])
        module = module_from_spec(ModuleSpec("_again", loader, origin=loader.path))
        loader.exec_module(module)
    except ImportError:
        return None
    return module


compiled: Any = _compiled()
"""again.c as a module; None where it was not built."""

MOST: Final = 128
"""Requests that are known at the same time; a client has some dozen that come again, and each message is compared with all."""

MOST_BYTES: Final = 2**18
"""Bytes of all of these requests together."""


class Ending(IntEnum):
    """Why C has come back."""

    OTHER_BYTES = 1
    """There are bytes that it does not answer."""
    ENDED = 2
    """The peer has ended its sending."""
    WAITED = 3
    """Nothing came within the socket's timeout."""
    FAILED = 4
    """The socket's error is `Answers.error`."""
    UNSENT = 5
    """Part of a reply has not gone: `Answers.unsent`."""
    RUNNING = 6
    """A function has not done all; `Answers.error` is what it returned."""
    TAKING = 7
    """Of a request's data only the first bytes have come, and gone to their destination."""


class Call(NamedTuple):
    """A function in C and its argument, as addresses.

    `int function(void *)` returns 0 when all has been done, a negative number when nothing has been, and a positive one where the
    rest is for Python to do.
    """

    function: int
    argument: int


class Again(NamedTuple):
    """How a request is answered.

    Attributes:
        reply: what is sent, or sent first.
        source: address and length of the bytes that are sent after it.
        destination: address and length of where the data of the request belong.
        call: what is called before the reply.
        owner: what is kept alive as long as this is known, and found by who goes on after `RUNNING`.
    """

    reply: bytes = b""
    source: tuple[int, int] = (0, 0)
    destination: tuple[int, int] = (0, 0)
    call: Call | None = None
    owner: Any = None


class Answers:
    """What one connection has answered.

    Args:
        room: where bytes are received.
        fixed: by command number of the requests that carry data: bytes of the head and of the fields before the data.
        masks: by command number of the requests that are known again by some of their bytes: 255 for those, 0 for the others.
    """

    def __init__(self, room: bytearray, fixed: Mapping[int, int], masks: Mapping[int, bytes] | None = None) -> None:
        ffi, self._lib = compiled.ffi, compiled.lib
        self._ffi, self._room = ffi, memoryview(room)
        self._table, self._marks = ffi.new("struct answer[]", MOST), ffi.new("uint64_t[]", MOST)
        self._kept = ffi.from_buffer("uint8_t[]", room)
        self._all = ffi.new("struct answers *")
        self._all.room, self._all.capacity = self._kept, len(room)
        self._all.answer, self._all.mark = self._table, self._marks
        for command, size in fixed.items():
            self._all.fixed[command] = size
        self._masks = dict(masks or {})
        self._all.key = self._key = ffi.new("uint8_t[]", max(map(len, self._masks.values()), default=1))
        self._held = [ffi.from_buffer("uint8_t[]", mask) for mask in self._masks.values()]
        for command, held in zip(self._masks, self._held, strict=True):
            self._all.mask[command], self._all.masked[command] = held, len(held)
        self._known: dict[bytes, int] = {}
        self._each: list[Again] = []
        self._views: list[list[Any]] = []
        self._calls: list[int] = []
        self._size = 0

    def __len__(self) -> int:
        return len(self._each)

    def wait(self, descriptor: int) -> Ending:
        """Answer what comes on a socket, until something has to be done here."""
        return Ending(self._lib.answer_all(self._all, descriptor))

    def take(self) -> memoryview:
        """Return the bytes that C has not answered; they are good until the next `wait`, and gone for it."""
        all_, start = self._all, self._all.at
        all_.at = all_.end
        return self._room[start : all_.end]

    # ---------------------------------------------------------------------------------------------------- what has been done

    @property
    def last(self) -> Again:
        """What was answered last."""
        return self._each[int(self._all.which)]

    @property
    def error(self) -> int:
        """After FAILED errno, after RUNNING what the function returned."""
        return int(self._all.error)

    @property
    def gone(self) -> int:
        """Bytes that have gone: after UNSENT of the reply and its data, after TAKING of the data that came."""
        return int(self._all.gone)

    @property
    def idle_since(self) -> float:
        """When it began to wait for a request (`time.monotonic`); 0: it does not wait."""
        return float(self._all.idle_since)

    @property
    def counts(self) -> tuple[int, int, int, int, float]:
        """Messages, bytes received, bytes sent, functions called, and seconds that these took; another thread may ask."""
        a = self._all
        return a.messages, a.received, a.sent, a.graphs, a.computing

    # ---------------------------------------------------------------------------------------------------------- what is known

    def what_matters(self, request: bytes) -> bytes:
        """Return a request with zeros for the bytes that do not matter."""
        mask = self._masks.get(request[0], b"")
        if len(mask) != len(request):
            return request
        return (np.frombuffer(request, np.uint8) & np.frombuffer(mask, np.uint8)).tobytes()

    def put(self, request: bytes, answer: Again) -> None:
        """Put down how a request is answered; what was known of it before is replaced. Where there is no room all else goes.

        Args:
            request: all of its bytes; of one that carries data those before them.
            answer: how.
        """
        request = self.what_matters(request)
        if request not in self._known:
            if len(self._each) == MOST or self._size + len(request) > MOST_BYTES:
                self.clear()
            self._size += len(request)
        at = self._known.setdefault(request, len(self._each))
        ffi, one, call = self._ffi, self._table[at], answer.call or Call(0, 0)
        one.request, one.reply = views = [ffi.from_buffer("uint8_t[]", part) for part in (request, answer.reply)]
        one.length, one.reply_size = len(request), len(answer.reply)
        one.destination, one.destination_size = ffi.cast("uint8_t *", answer.destination[0]), answer.destination[1]
        one.source, one.source_size = ffi.cast("uint8_t *", answer.source[0]), answer.source[1]
        one.run, one.of = ffi.cast("int (*)(void *)", call.function), ffi.cast("void *", call.argument)
        self._marks[at] = self._lib.mark_of(one.request, one.length)
        self._each[at : at + 1], self._views[at : at + 1] = [answer], [views]
        self._all.count = len(self._each)
        if answer.call is not None:
            self._calls.append(at)

    def clear_calls(self) -> None:
        """Call nothing any more; the requests keep their places, since they will mostly be put down again."""
        for at in self._calls:
            self._table[at].length, self._each[at] = 0, Again()  # no request has so few bytes
        self._calls.clear()

    def clear(self) -> None:
        """Know nothing."""
        self._all.count = self._size = 0
        self._known.clear()
        self._each.clear()
        self._views.clear()
        self._calls.clear()
