"""Connections: HELLO, what one client leaves behind, and what others notice of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import Arena, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Buffer, Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, require
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    BufferClear,
    BufferGetBase,
    CopyTensor,
    FreeBuffer,
    GetDeviceMemory,
    GetTensor,
    GraphRecompute,
    Hello,
    Message,
    SetTensor,
    SetTensorHash,
)

# --------------------------------------------------------------------------------------------------------- hello-first

FIRST: dict[str, bytes] = {
    "alloc-buffer": bytes.fromhex("00 0c00000000000000") + bytes(12),
    "get-alignment": bytes.fromhex("01 0400000000000000 00000000"),
    "free-buffer": bytes.fromhex("04 0800000000000000") + bytes(8),
    "set-tensor": bytes.fromhex("06 3001000000000000") + bytes(304),
    "get-device-memory": bytes.fromhex("0b 0400000000000000 00000000"),
    "device-count": bytes.fromhex("0f 0000000000000000"),
    "graph-recompute": bytes.fromhex("10 0400000000000000 00000000"),
    "unknown-99": bytes.fromhex("63 0000000000000000"),
    "zero-bytes": bytes(64),
    "http": b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    "tls": bytes.fromhex("16 0301 0200 01 0001fc 0303") + bytes(503),
}
"""What a first command is not to be, as literal bytes."""


@case("session.hello-first/{}", each=FIRST)
def another_command_first(subject: Subject, first: bytes) -> None:
    """A connection that begins with {} instead of HELLO: refused."""
    peer = subject.open()
    peer.send(first)
    if first[0] in (6, 16):
        peer.send(subject.sentinel)  # these two have no reply: only the next one's tells
    peer.refused()


# ---------------------------------------------------------------------------------------------------------- hello-once


@case("session.hello-once/at-once")
def hello_twice(subject: Subject) -> None:
    """HELLO, and after its reply HELLO again: the second is refused."""
    peer = subject.connect()
    peer.send(Hello())
    peer.refused()


@case("session.hello-once/later")
def hello_later(subject: Subject) -> None:
    """HELLO between other requests of a conversation: refused."""
    peer = subject.connect()
    peer.alloc(64)
    peer.send(Hello())
    peer.refused()


@case("session.hello-once/one-piece")
def hello_twice_in_one_piece(subject: Subject) -> None:
    """Two HELLO in one piece: the first is answered, the second refused."""
    peer = subject.open()
    peer.send(Hello(), Hello())
    peer.reply(Hello())
    peer.refused()


# ------------------------------------------------------------------------------------------------------- hello-version


@case("session.hello-version/each-time")
def same_version_each_time(subject: Subject) -> None:
    """Five connections one after another: HELLO is answered with the same version on each."""
    for _ in range(5):
        subject.connect().close()


# ---------------------------------------------------------------------------------------------------------------- caps


def _greeted(subject: Subject, caps: bytes) -> Peer:
    """Say HELLO with these capabilities; not judged where the server offers another transport itself."""
    peer = subject.open()
    reply = peer.ask(Hello(conn_caps=caps))
    if any(caps) and any(reply.conn_caps):
        raise NotJudged("it offers another transport than TCP")
    return peer


CAPS: dict[str, bytes] = {
    "nothing-offered": bytes(24),
    # qpn, psn and a GID of an IPv4 address, as Linux builds offer it
    "rdma-of-linux": bytes.fromhex("a1020000 a1020000 00000000000000000000ffffc0a80102"),
    # qpn, lid, reserved, GID, as Apple's builds offer it
    "rdma-of-apple": bytes.fromhex("a1020000 0500 0000 fe80000000000000aabbccfffeddeeff"),
    "every-bit": b"\xff" * 24,
}
"""What a client may offer in HELLO."""


@case("session.caps/{}", each=CAPS)
def stays_on_tcp(subject: Subject, caps: bytes) -> None:
    """HELLO with capabilities, {}, and a server that offers none: the conversation goes on over TCP."""
    peer = _greeted(subject, caps)
    arena = Arena(peer)
    left = arena.leaf([2], [1.0, 2.0])
    total = arena.node("ADD", [left, left], [2])
    arena.compute(total)
    arena.expect(total, [2.0, 4.0])


# ------------------------------------------------------------------------------------------------------------ survives


PAUSE = 0.005
"""Seconds between connections: a server with a backlog of 1 drops one that comes too fast, and TCP tries again a second later."""


@case("session.survives/nothing-said-20", may_crash=True)
def connect_and_leave(subject: Subject) -> None:
    """Twenty connections that end without a byte: the server serves on."""
    for _ in range(20):
        subject.open().close()
        time.sleep(PAUSE)
    subject.check_alive()


@case("session.survives/reset-20", may_crash=True)
def connect_and_reset(subject: Subject) -> None:
    """Twenty connections that are reset at once: the server serves on."""
    for _ in range(20):
        subject.open().reset()
        time.sleep(PAUSE)
    subject.check_alive()


@case("session.survives/hello-cut-at-{}", each={str(at): at for at in (1, 5, 8)})
def half_a_hello(subject: Subject, at: int) -> None:
    """The first {} bytes of HELLO, then the connection ends: the server serves on."""
    peer = subject.open()
    peer.send(codec.encode_request(Hello(), peer.version)[:at])
    peer.close()
    subject.check_alive()


# the cuts lie in SET_TENSOR's data and within the other two's first tensor record
@case("session.survives/{}-cut-off", each={"set-tensor": 404, "get-tensor": 100, "graph-compute": 200})
def half_a_request(subject: Subject, at: int) -> None:
    """The beginning of a valid {} request, then the connection ends: the server serves on."""
    peer = subject.connect()
    arena = Arena(peer)
    left = arena.leaf([64], [1.0] * 64)
    total = arena.node("ADD", [left, left], [64])
    requests: dict[int, Message] = {
        404: SetTensor(tensor=left, offset=0, data=bytes(256)),
        100: GetTensor(tensor=left, offset=0, size=256),
        200: arena.graph(total),
    }
    peer.send(codec.encode_request(requests[at], peer.version)[:at])
    peer.close()
    subject.check_alive()


@case("session.survives/data-cut-by-reset")
def half_the_data(subject: Subject) -> None:
    """SET_TENSOR of 1 MiB of which half is sent, then a reset: the server serves on."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(2**20), [2**20], "I8")
    peer.send(codec.encode_request(SetTensor(tensor=tensor, offset=0, data=bytes(2**20)), peer.version)[: 2**19])
    peer.reset()
    subject.check_alive()


@case("session.survives/second-client-gone", may_crash=True)
def second_client_gone(subject: Subject) -> None:
    """A second client sends HELLO and leaves before a server that serves one at a time gets to it: it serves on (no SIGPIPE)."""
    first, second = subject.connect(), subject.open()
    second.send(Hello())
    second.close()
    first.close()
    time.sleep(PAUSE)
    subject.check_alive()


@case("session.survives/reply-unread", may_crash=True)
def reply_unread(subject: Subject) -> None:
    """Sixteen GET_TENSOR of 1 MiB whose replies are not read, then a reset: the server serves on (no SIGPIPE)."""
    peer = subject.connect()
    tensor = tensor_in(peer.alloc(2**20), [2**20], "I8")
    peer.send(*[GetTensor(tensor=tensor, offset=0, size=2**20)] * 16)
    time.sleep(0.05)  # the server is to be in the middle of a reply
    peer.reset()
    subject.check_alive()


@case("session.survives/neighbour-unharmed")
def neighbour_unharmed(subject: Subject) -> None:
    """One client sends what must be refused while another one is connected: the other's buffer, graph and data are unchanged."""
    arena = Arena(subject.connect())
    left = arena.leaf([2], [1.0, 2.0])
    total = arena.node("ADD", [left, left], [2])
    arena.compute(total)
    second = subject.connect_second()
    second.send(FreeBuffer(remote_ptr=1))
    second.finish_sending()
    # whether this is refused is for other cases to ask
    second.wait_end()
    arena.peer.tell(arena.again() if subject.facts.has(GraphRecompute) else arena.graph(total))
    arena.expect(total, [2.0, 4.0])


# --------------------------------------------------------------------------------------------------------------- frees


@case("session.frees/handle")
def handle_gone(subject: Subject) -> None:
    """BUFFER_GET_BASE of a buffer whose connection has ended: refused."""
    first = subject.connect()
    remote_ptr = first.alloc(4096).remote_ptr
    first.close()
    subject.connect().refuses(BufferGetBase(remote_ptr=remote_ptr))


@case("session.frees/data")
def data_gone(subject: Subject) -> None:
    """GET_TENSOR from a buffer whose connection has ended: refused."""
    first = subject.connect()
    tensor = tensor_in(first.alloc(4096))
    first.close()
    subject.connect().refuses(GetTensor(tensor=tensor, offset=0, size=64))


@case("session.frees/memory")
def memory_back(subject: Subject) -> None:
    """A connection with a buffer of 1 MiB ends without freeing it: GET_DEVICE_MEMORY then reports as much free memory as before."""
    size = 2**20
    peer = subject.connect()
    before = _settled(peer)
    peer.alloc(size)
    taken = before - peer.ask(GetDeviceMemory()).free_mem
    peer.close()
    # the genuine CPU backend does not count: all of the machine's memory is free to it (ggml_backend_cpu_device_get_memory)
    if not size <= taken < 2 * size:
        raise NotJudged("the free memory that it reports does not change with its buffers")
    peer = subject.connect()
    deadline = time.monotonic() + subject.timeout
    while (free := peer.ask(GetDeviceMemory()).free_mem) < before:
        if time.monotonic() > deadline:
            raise Broken(f"{before} bytes free again", f"{free} are")
        time.sleep(0.01)


def _settled(peer: Peer) -> int:
    """Return the free memory once that of earlier connections has been freed."""
    seen = [peer.ask(GetDeviceMemory()).free_mem]
    while len(seen) < 100 and seen[-3:] != [seen[-1]] * 3:
        time.sleep(0.01)
        seen.append(peer.ask(GetDeviceMemory()).free_mem)
    return int(seen[-1])


# ------------------------------------------------------------------------------------------------------------ isolated


NAMING: dict[str, Callable[[Buffer], Message]] = {
    "buffer-get-base": lambda buffer: BufferGetBase(remote_ptr=buffer.remote_ptr),
    "free-buffer": lambda buffer: FreeBuffer(remote_ptr=buffer.remote_ptr),
    "buffer-clear": lambda buffer: BufferClear(remote_ptr=buffer.remote_ptr, value=1),
    "set-tensor": lambda buffer: SetTensor(tensor=tensor_in(buffer), offset=0, data=bytes(64)),
    "set-tensor-hash": lambda buffer: SetTensorHash(tensor=tensor_in(buffer), offset=0, hash=1),
    "get-tensor": lambda buffer: GetTensor(tensor=tensor_in(buffer), offset=0, size=64),
    "copy-tensor": lambda buffer: CopyTensor(src=tensor_in(buffer), dst=tensor_in(buffer)),
}
"""Requests that name a buffer."""


def _buffer_of_another(subject: Subject) -> Buffer:
    """Return the second of two: a server may number the buffers of each connection from 1 on, and ours has one of its own where a
    graph needs it."""
    other = subject.connect()
    return [other.alloc(4096) for _ in range(2)][1]


@case("session.isolated/{}", each=NAMING)
def foreign_handle(subject: Subject, naming: Callable[[Buffer], Message]) -> None:
    """{} that names a live buffer of another connection: refused."""
    theirs = _buffer_of_another(subject)
    subject.connect_second().refuses(naming(theirs))


@case("session.isolated/graph-compute")
def foreign_operand(subject: Subject) -> None:
    """GRAPH_COMPUTE that names a live buffer of another connection: refused."""
    theirs = _buffer_of_another(subject)
    arena = Arena(subject.connect_second())
    stranger = arena.add(tensor_in(theirs))
    arena.refuses(arena.node("ADD", [stranger, stranger], [16]))


@case("session.isolated/graph", since=marks.request_since(GraphRecompute))
def foreign_graph(subject: Subject) -> None:
    """GRAPH_RECOMPUTE on a connection without a graph while another one has stored one: it does not compute the other's."""
    first = Arena(subject.connect())
    left = first.leaf([2], [1.0, 2.0])
    total = first.node("ADD", [left, left], [2])
    first.compute(total)
    first.peer.write(total, bytes(8))
    second = subject.connect_second()
    second.send(first.again())
    second.finish_sending()
    second.wait_end()
    first.expect(total, [0.0, 0.0])


# ---------------------------------------------------------------------------------------------------------- concurrent


@case("session.concurrent/two-clients")
def two_clients(subject: Subject) -> None:
    """HELLO of a second client while a first one is connected and silent: answered within two seconds."""
    first = subject.connect()
    require(subject.answers_second_client(), "a second client to be answered", "no answer while the first one is connected")
    first.sync()


@case("session.concurrent/four-in-turn")
def four_clients(subject: Subject) -> None:
    """Four clients at once, each with a buffer of its own, write and read in turn: each reads what it wrote."""
    peers = [subject.connect(), *(subject.connect_second() for _ in range(3))]
    tensors = [tensor_in(peer.alloc(4096)) for peer in peers]
    for number, (peer, tensor) in enumerate(zip(peers, tensors, strict=True)):
        peer.write(tensor, bytes([number] * 64))
    for number, (peer, tensor) in enumerate(zip(peers, tensors, strict=True)):
        got = peer.read(tensor, 64)
        require(got == bytes([number] * 64), f"what client {number} wrote", got[:8].hex())
