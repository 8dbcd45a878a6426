"""Sums over two servers. The case is the client and the other server as well: it listens where rank 1 is to connect, and connects
where rank 0 is to listen.
"""

from __future__ import annotations

import contextlib
import ipaddress
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from ggml_rpc_ref.conformance.arena import Arena, nbytes, pack, tensor_in
from ggml_rpc_ref.conformance.case import case
from ggml_rpc_ref.conformance.peer import Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict, require
from ggml_rpc_ref.net.door import Door
from ggml_rpc_ref.net.stream import DeadlineMissed, PeerClosed, Stream, free_port, open_stream
from ggml_rpc_ref.spec.messages import CommAllreduce, CommFree, CommInit, RpcTensor

CAPS = bytes(24)
"""What each side says first: no transport but TCP."""
BF16_FROM = 32768
"""Elements of F32 from which on both send theirs as BF16."""
TICK = 0.05
"""Seconds after which a wait for the other rank looks whether it has been declined."""
RANKS = {"rank-0": 0, "rank-1": 1}
INIT, SUM = "comm.init", "comm.sum"
"""The rules that a case about another one may come upon on its way."""


def _init(rank: int, port: int, host: str = "", world: int = 2, device: int = 0) -> CommInit:
    return CommInit(device=device, rank=rank, world=world, port=port, host=host.encode())


@contextlib.contextmanager
def _joined(peer: Peer, rank: int) -> Iterator[Stream]:
    """Yield the connection to the server as the other rank, after both have said their capabilities."""
    with _met(peer, rank) as other:
        with _lost_is_broken("24 bytes of capabilities", INIT):
            other.send(CAPS)
            other.receive_exactly(len(CAPS))
        reply = peer.reply(_init(rank, 0))
        if reply.ok != 1:
            raise Broken("COMM_INIT to be answered with 1", f"got {reply.ok}", INIT)
        yield other


@contextlib.contextmanager
def _met(peer: Peer, rank: int) -> Iterator[Stream]:
    """Send COMM_INIT and yield the connection, on which nothing has been said.

    Raises:
        NotJudged: where it is answered with 0 before the other rank is met: a server need not make pairs.
    """
    if rank == 0:
        port = free_port()
        peer.send(_init(0, port))
        with _reached(peer, port) as other:
            yield other
        return
    with Door(peer.local_host) as door:
        peer.send(_init(1, door.port, peer.local_host))
        other = _come(peer, door)
        with other:
            yield other


def _come(peer: Peer, door: Door) -> Stream:
    """Wait for the server to connect as rank 1."""
    timeout = peer.subject.timeout
    end = time.monotonic() + timeout
    while True:
        try:
            other = door.accept(TICK)
        except DeadlineMissed:
            _must_not_decline(peer, 1)
            if time.monotonic() > end:
                nobody = f"nobody connected to port {door.port} within {timeout:g} s"
                with _near(peer, "it may have no way to this machine"):
                    raise Broken("rank 1 to connect to rank 0's port", nobody, INIT, Verdict.HANG) from None
        else:
            other.timeout = timeout
            return other


def _must_not_decline(peer: Peer, rank: int) -> None:
    """Judge no further where COMM_INIT has been answered with 0."""
    if peer.has_answer() and peer.reply(_init(rank, 0)).ok == 0:
        raise NotJudged("it makes no pair with another server: COMM_INIT is answered with 0")


def _reached(peer: Peer, port: int) -> Stream:
    """Connect to the port on which the server listens as rank 0; it may not listen yet."""
    end = time.monotonic() + peer.subject.timeout
    while True:
        try:
            return open_stream(peer.subject.endpoint.host, port, peer.subject.timeout)
        except (ConnectionError, TimeoutError) as error:
            _must_not_decline(peer, 0)
            if time.monotonic() > end:
                with _near(peer, f"port {port} may be taken on its machine, or out of reach from here"):
                    raise Broken("rank 0 to listen on the port", str(error), INIT) from None
            time.sleep(0.01)


@contextlib.contextmanager
def _near(peer: Peer, otherwise: str) -> Iterator[None]:
    """Judge that two can't meet only where the server is on this machine; on another one, nobody here knows which ports it has."""
    try:
        yield
    except (Broken, ConnectionError, TimeoutError):
        if ipaddress.ip_address(peer.local_host).is_loopback:
            raise
        raise NotJudged(otherwise) from None


@contextlib.contextmanager
def _lost_is_broken(expected: str, rule: str) -> Iterator[None]:
    try:
        yield
    except PeerClosed as closed:
        raise Broken(expected, str(closed), rule) from None
    except DeadlineMissed as missed:
        raise Broken(expected, str(missed), rule, Verdict.HANG) from None


# ---------------------------------------------------------------------------------------------------------------- init


@case("comm.init/{}", each=RANKS)
def two_join(subject: Subject, rank: int) -> None:
    """COMM_INIT as {}, the other rank played: 24 bytes each way, and then it is answered with 1."""
    peer = subject.connect()
    with _joined(peer, rank):
        peer.sync()


FAILING: dict[str, Callable[[int], CommInit]] = {
    "world-0": lambda port: _init(0, port, world=0),
    "world-1": lambda port: _init(0, port, world=1),
    "world-3": lambda port: _init(0, port, world=3),
    "rank-2": lambda port: _init(2, port, "127.0.0.1"),
    "device-too-large": lambda port: _init(0, port, device=2**32 - 1),
}


# no rule says how soon: a server may look for the other rank first
@case("comm.init-fails/{}", each=FAILING, patience=4.0)
def can_not_be_met(subject: Subject, request: Callable[[int], CommInit]) -> None:
    """COMM_INIT that no server can meet, {}: answered with 0, and the connection goes on."""
    peer = subject.connect()
    got = peer.ask(request(free_port())).ok
    require(got == 0, "0", got)
    peer.sync()


@case("comm.init-fails/nobody-listens", patience=4.0)
def nobody_listens(subject: Subject) -> None:
    """COMM_INIT as rank 1 with a port on which nobody listens: answered with 0 after some seconds, and the connection goes on."""
    peer = subject.connect()
    got = peer.ask(_init(1, free_port(), "127.0.0.1")).ok
    require(got == 0, "0", got)
    peer.sync()


@case("comm.init-again/{}", each=RANKS)
def joined_already(subject: Subject, rank: int) -> None:
    """COMM_INIT a second time on a device that has a communicator, {}: answered with 1, and the first one still works."""
    peer = subject.connect()
    with _joined(peer, rank) as other:
        got = peer.ask(_init(rank, free_port(), "127.0.0.1")).ok
        require(got == 1, "1", got)
        _check_sum(peer, other, rank)


# ----------------------------------------------------------------------------------------------------------------- sum


def _check_sum(peer: Peer, other: Stream, rank: int, type: str = "F32") -> None:
    arena = Arena(peer)
    tensor = arena.leaf([4], [1, 2, 3, 4], type)
    theirs = pack(type, [10, 20, 30, 40])
    peer.send(CommAllreduce(device=0, tensor=tensor))
    sent = _exchanged(other, rank, theirs)
    if sent != pack(type, [1, 2, 3, 4]):
        raise Broken("the server's own elements", f"got {sent.hex()}", SUM)
    arena.expect(tensor, [11, 22, 33, 44], rule=SUM)


def _exchanged(other: Stream, rank: int, theirs: bytes) -> bytes:
    """Exchange as many bytes as the other rank: rank 0 sends first."""
    with _lost_is_broken("the server's elements", SUM):
        if rank == 1:
            other.send(theirs)
        mine = other.receive_exactly(len(theirs))
        if rank == 0:
            other.send(theirs)
    return mine


@case("comm.sum/{}-f32", each=RANKS)
def small_sum(subject: Subject, rank: int) -> None:
    """COMM_ALLREDUCE of four F32 as {}: what it sends are its own elements, and then the tensor holds the sums."""
    peer = subject.connect()
    with _joined(peer, rank) as other:
        _check_sum(peer, other, rank)
        _check_sum(peer, other, rank)


@case("comm.sum/{}-one-below-bf16", each=RANKS)
def largest_exact_sum(subject: Subject, rank: int) -> None:
    """COMM_ALLREDUCE of 32,767 F32 that BF16 can't hold, as {}: sent and added as they are."""
    _large(subject, rank, BF16_FROM - 1)


@case("comm.sum-large/{}", each=RANKS)
def large_sum(subject: Subject, rank: int) -> None:
    """COMM_ALLREDUCE of 32,768 F32 that BF16 can't hold, as {}: sent as BF16, and the rounded ones added to its own, exact ones."""
    _large(subject, rank, BF16_FROM)


def _bf16(value: float) -> float:
    """Return a number rounded to BF16, to even."""
    (bits,) = struct.unpack("<I", struct.pack("<f", value))
    return float(struct.unpack("<f", struct.pack("<I", (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000))[0])


def _large(subject: Subject, rank: int, count: int) -> None:
    """Sum 1 + 2^-10 and 2 + 2^-9, whose exact sum and whose sum with one or the other rounded are all different."""
    mine, theirs = 1 + 2**-10, 2 + 2**-9
    halves = count >= BF16_FROM
    peer = subject.connect()
    with _joined(peer, rank) as other:
        buffer = peer.alloc(4 * count)
        tensor = tensor_in(buffer, [count])
        peer.write(tensor, pack("F32", [mine]) * count)
        peer.send(CommAllreduce(device=0, tensor=tensor))
        sent = _exchanged(other, rank, _on_the_wire(theirs, halves) * count)
        require(sent == _on_the_wire(mine, halves) * count, "its elements, as BF16" if halves else "its elements", sent[:8].hex())
        want = pack("F32", [mine + (_bf16(theirs) if halves else theirs)])
        got = peer.read(tensor, 4 * count)
        require(got == want * count, want.hex(), got[:4].hex())


def _on_the_wire(value: float, halves: bool) -> bytes:
    return struct.pack("<f", _bf16(value))[2:] if halves else pack("F32", [value])


# ------------------------------------------------------------------------------------------------- needed, tensor, free


@case("comm.needed/never-joined")
def sum_alone(subject: Subject) -> None:
    """COMM_ALLREDUCE on a device without a communicator: refused."""
    peer = subject.connect()
    peer.refuses(CommAllreduce(device=0, tensor=tensor_in(peer.alloc(4096))))


@case("comm.needed/freed")
def sum_after_free(subject: Subject) -> None:
    """COMM_ALLREDUCE after COMM_FREE: refused."""
    peer = subject.connect()
    with _joined(peer, 1):
        peer.tell(CommFree(device=0))
        peer.refuses(CommAllreduce(device=0, tensor=tensor_in(peer.alloc(4096))))


@case("comm.needed/other-connection")
def sum_of_another_connection(subject: Subject) -> None:
    """A communicator made on one connection, which ends, then COMM_ALLREDUCE on a new one: refused."""
    peer = subject.connect()
    with _joined(peer, 1):
        pass
    peer.close()
    peer = subject.connect()
    peer.refuses(CommAllreduce(device=0, tensor=tensor_in(peer.alloc(4096))))


UNADDABLE: dict[str, Callable[[RpcTensor], RpcTensor]] = {
    "in-no-buffer": lambda tensor: replace(tensor, buffer=0, data=0),
    "with-gaps": lambda tensor: replace(tensor, ne=(4, 2, 1, 1), nb=(4, 32, 64, 64)),
}


@case("comm.tensor/{}", each=UNADDABLE, may_crash=True)
def odd_tensor(subject: Subject, change: Callable[[RpcTensor], RpcTensor]) -> None:
    """COMM_ALLREDUCE of a tensor that can't be added, {}: refused."""
    peer = subject.connect()
    with _joined(peer, 0) as other:
        tensor = change(tensor_in(peer.alloc(4096), offset=1024))
        # what a server would wait for that takes it; as rank 0 it sends first, so nothing is in its way
        other.send(bytes(4096))
        peer.refuses(CommAllreduce(device=0, tensor=tensor))


@case("comm.tensor/{}", each={"of-a-block-type": "Q8_0", "of-i8": "I8"}, may_crash=True)
def type_that_need_not_be_added(subject: Subject, type: str) -> None:
    """COMM_ALLREDUCE of a type that a server need not add, {}, the other rank having zeros: refused, or left as it was."""
    peer = subject.connect()
    with _joined(peer, 0) as other:
        tensor = tensor_in(peer.alloc(4096), [32], type, offset=1024)
        before = bytes(range(34))[: nbytes(tensor)]
        peer.write(tensor, before)
        other.send(bytes(4096))
        try:
            peer.tell(CommAllreduce(device=0, tensor=tensor))
        except Broken as broken:
            if not broken.refused:
                raise
            return
        got = peer.read(tensor, len(before))
        require(got == before, before.hex(), got.hex())


@case("comm.peer-lost/{}", each={**RANKS, "rank-0-before": 2}, may_crash=True)
def other_server_gone(subject: Subject, row: int) -> None:
    """COMM_ALLREDUCE while the other server leaves, {}: the connection is ended, and the server serves on."""
    peer, rank = subject.connect(), row % 2
    with _joined(peer, rank) as other:
        tensor = tensor_in(peer.alloc(2**20), [2**18])
        if row == 2:
            other.close()
        peer.send(CommAllreduce(device=0, tensor=tensor), subject.sentinel)
        other.close()
        peer.refused()


@case("comm.free/ends-it")
def free_ends_it(subject: Subject) -> None:
    """COMM_FREE: the connection to the other server is ended, and COMM_INIT can make a new one."""
    peer = subject.connect()
    with _joined(peer, 1) as other:
        peer.tell(CommFree(device=0))
        require(other.wait_closed().closed, "the connection between the servers to be ended", "an open one")
    with _joined(peer, 0) as other:
        _check_sum(peer, other, 0)


@case("comm.free/none-there")
def free_nothing(subject: Subject) -> None:
    """COMM_FREE on a device without a communicator: accepted."""
    subject.connect().tell(CommFree(device=0))
