"""Connections: HELLO, what a connection leaves behind, and what belongs to another one."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.tools.malformed.case import Case, Seen, accepted, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    DEVICE_COUNT,
    HELLO,
    Piece,
    Request,
    Step,
    alive,
    alloc_buffer,
    buffer,
    copy_tensor,
    end,
    f32,
    get_tensor,
    graph,
    handle,
    hello,
    on_buffer,
    opened,
    raw,
    read,
    recompute,
    refusal,
    say,
    set_tensor,
    set_tensor_hash,
    tensor,
    u32,
    write,
    zeros,
)

WAITS = Seen(("UNSUPPORTED",), "serves one connection at a time: a second one gets no answer while the first is open")


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from hello_first()
    yield from hello_once()
    yield from survives()
    yield from cut_off()
    yield from frees()
    yield from isolated()
    yield from concurrent()


def hello_first() -> Iterator[Case]:
    """Connections that begin with something else."""
    first: dict[str, tuple[Step, str]] = {
        "alloc-buffer": (say(alloc_buffer(64)), "ALLOC_BUFFER, the first message of clients before 1.0.0"),
        "set-tensor": (say(Request("SET_TENSOR", [zeros(304)])), "SET_TENSOR, which has no reply"),
        "get-device-memory": (say(Request("GET_DEVICE_MEMORY", [u32(0)])), "GET_DEVICE_MEMORY"),
        "device-count": (say(DEVICE_COUNT), "DEVICE_COUNT"),
        "graph-recompute": (say(recompute()), "GRAPH_RECOMPUTE, which has no reply"),
        "unknown-99": (raw([b"\x63" + bytes(8)]), "an unknown command"),
        "zero-bytes": (raw([bytes(64)]), "64 zero bytes"),
        "http": (raw([b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"]), "an HTTP request"),
        "tls": (raw([bytes.fromhex("1603010200010001fc0303") + bytes(53)]), "the beginning of a TLS handshake"),
    }
    for words, (step, what) in first.items():
        yield refused(
            f"session.hello-first/{words}",
            f"The first bytes of the connection are {what}, and not HELLO: without HELLO nothing says which version's layout"
            " they have.",
            "FUN-13",
            "silent-desync",
            [step],
        )


def hello_once() -> Iterator[Case]:
    """A second HELLO."""
    for words, before in {"at-once": hello(), "later": opened()}.items():
        yield refused(
            f"session.hello-once/{words}",
            "A second HELLO: the negotiated version would change in the middle of a conversation.",
            "OBS-14",
            "silent-desync",
            [*before, say(HELLO)],
        )


def survives() -> Iterator[Case]:
    """Connections that end at once, and a bad one beside a good one."""
    for how in ("end", "reset"):
        yield accepted(
            f"session.survives/five-that-{how}-at-once",
            "Five connections that close without sending a byte, like those of port scanners and health checks. A server whose"
            " accept loop ends with the first of them no longer serves.",
            "SEC-36",
            "resource-held",
            [*(end(number, how) for number in range(1, 6)), *hello(6)],
        )
    kept, data = tensor(1024, [4]), f32(1, 2, 3, 4)
    steps = [*opened(), write(kept, data), *hello(2), say(on_buffer("FREE_BUFFER", handle("buf0")), on=2), refusal(2)]
    yield Case(
        "session.survives/neighbour-unharmed",
        "A second connection frees the first one's buffer and is refused. That must close the second connection and nothing"
        " else: the data of the first one do not change.",
        "refused",
        ("SEC-34",),
        ("stale-handle", "concurrent-connections"),
        WAITS,
        [*steps, *read(kept, data), *alive()],
    )


def cut_off() -> Iterator[Case]:
    """Messages that the end of the connection cuts off, replies that nobody reads."""
    whole = set_tensor(tensor(1024), bytes(64))
    sums = graph([2], [tensor(1024, id=1), tensor(2048, id=2, op=2, src=(1, 1), flags=COMPUTE)])
    serves_on = Seen(("PASS",), "closes the connection and serves on")
    cut: dict[str, tuple[list[Step], list[Piece], str]] = {
        "hello-1-byte": ([], [b"\x0e"], "HELLO"),
        "hello-8-bytes": ([], [b"\x0e" + bytes(7)], "HELLO"),
        "set-tensor-half-of-the-data": (opened(), [*whole.pieces[:-1], bytes(32)], "SET_TENSOR"),
        "get-tensor-head-only": (opened(), get_tensor(tensor(), 64).pieces[:1], "GET_TENSOR"),
        "graph-compute-half": (opened(), sums.pieces[:8], "GRAPH_COMPUTE"),
    }
    for words, (before, pieces, command) in cut.items():
        for how in ("end", "reset"):
            yield accepted(
                f"session.survives/{words}-then-{how}",
                f"{command} cut off in the middle, after which the connection {'is closed' if how == 'end' else 'is reset'}:"
                " there is nothing to do and nobody to answer. A server that goes on waiting, tries to answer, or ends with its"
                " client no longer serves others.",
                "SEC-36 SEC-38",
                "resource-held",
                [*before, raw(pieces), end(how=how), *hello(2)],
                serves_on,
            )
    yield accepted(
        "session.survives/replies-unread-then-reset",
        "Four GET_TENSOR of 1 MiB whose replies are never read, then a reset: writing to a client that has gone must close its"
        " connection, not end the process (SIGPIPE).",
        "SEC-38",
        "resource-held",
        [
            *opened(2**20),
            say(*[get_tensor(tensor(0, [2**18]), 2**20)] * 4),
            end(how="reset"),
            *hello(2),
        ],
        serves_on,
    )


def frees() -> Iterator[Case]:
    """What a connection that has ended had."""
    target = tensor(1024)
    requests = {
        "buffer-get-base": on_buffer("BUFFER_GET_BASE", handle("buf0")),
        "free-buffer": on_buffer("FREE_BUFFER", handle("buf0")),
        "set-tensor": set_tensor(target, bytes(64)),
        "get-tensor": get_tensor(target, 64),
    }
    for words, request in requests.items():
        yield refused(
            f"session.frees/{words}",
            f"{request.command} with a handle from a connection that has ended: the memory has been freed, or belongs to"
            " another connection by now.",
            "SEC-34",
            "stale-handle",
            [*opened(), end(), *hello(2), say(request, on=2)],
        )


def isolated() -> Iterator[Case]:
    """What another live connection has."""
    theirs, own = tensor(1024, id=1), tensor(1024, in_="buf1", id=2)
    node = tensor(2048, in_="buf1", id=3, op=2, src=(1, 1), flags=COMPUTE)
    requests = {
        "buffer-get-base": on_buffer("BUFFER_GET_BASE", handle("buf0")),
        "free-buffer": on_buffer("FREE_BUFFER", handle("buf0")),
        "buffer-clear": on_buffer("BUFFER_CLEAR", handle("buf0"), b"\0"),
        "set-tensor": set_tensor(theirs, bytes(64)),
        "set-tensor-hash": set_tensor_hash(theirs),
        "get-tensor": get_tensor(theirs, 64),
        "copy-tensor-src": copy_tensor(theirs, own),
        "copy-tensor-dst": copy_tensor(own, theirs),
        "graph-compute": graph([3], [theirs, node]),
    }
    for words, request in requests.items():
        yield refused(
            f"session.isolated/{words}",
            f"{request.command} with the handle of another connection's live buffer: one client would read, change or free the"
            " data of another.",
            "SEC-34",
            "stale-handle memory-disclosure concurrent-connections",
            [*opened(), *hello(2), *buffer("buf1", on=2), say(request, on=2)],
            WAITS,
        )


def concurrent() -> Iterator[Case]:
    """Two clients at once."""
    yield accepted(
        "session.concurrent/second-while-first-is-silent",
        "Nothing is wrong: a second client connects while the first one is connected and idle. A server that serves one client"
        " at a time can be blocked by anyone who sends nothing.",
        "SEC-37",
        "should resource-held concurrent-connections",
        [*hello(), *hello(2)],
        WAITS,
    )
