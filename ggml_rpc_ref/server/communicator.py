"""The sum of a tensor with that of another server: COMM_INIT, COMM_ALLREDUCE and COMM_FREE, which came with 8.0.0.

A client that splits a model's rows over two servers has half a sum on each. Rather than fetch both it makes the servers exchange
them: rank 0 listens on a port of the client's choice, rank 1 connects to it, and each sends 24 bytes of transport capabilities, of
which we offer none. An all-reduce then is: both send their elements, rank 0 first, and each adds what comes to its own.

From 32,768 elements of F32 on, what is sent is BF16, while what is added to is not rounded: rank 0 has a + bf16(b) and rank 1 has
bf16(a) + b. The two results differ, in genuine servers as here, by up to (|a| + |b|) / 256.

This is the one place where a request makes a server listen, and connect to an address that it names. So a server that only its own
machine can reach meets only peers of this machine, and one that takes clients of certain networks only peers of those.

Source: comm_init, comm_allreduce and comm_free in ggml-rpc.cpp of llama.cpp b11549.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from ggml_rpc_ref.backends import Cancelled, Stopped
from ggml_rpc_ref.backends.memory import Allocation, DeviceMemory
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.channel import Channel, Waited
from ggml_rpc_ref.net.meeting import Met, await_peer, seek_peer
from ggml_rpc_ref.server.pace import Pace
from ggml_rpc_ref.spec.dtypes import BY_NAME, DType
from ggml_rpc_ref.spec.messages import CAPS_SIZE, CommInit
from ggml_rpc_ref.tensor import Bytes, PlainStorage, Tensor, contiguous_nb

log = logging.getLogger(__name__)

WORLD: Final = 2
"""Servers of a sum."""
BF16_FROM: Final = 32768
"""Elements of F32 from which on they are sent as BF16."""
ADDED: Final = ("F32", "F16", "BF16")
"""Types that are added; stock clients send F32 alone."""
LISTENS: Final = 30.0
"""Seconds that rank 0 waits for rank 1, which genuine servers let try for 5 s; they themselves wait for ever."""
TRIES: Final = 5.0
"""Seconds that rank 1 tries to connect."""
STALL: Final = 60.0
"""Seconds of silence that end an all-reduce."""
TICK: Final = 0.25
"""Seconds after which a wait looks whether it is to stop."""
CHUNK: Final = 2**18
"""Elements converted, or added, at one time."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where a server meets others, and which.

    Attributes:
        address: where it listens: the address that its clients use.
        allow: networks that peers may be in; empty: any.
        loopback: whether they must be of this machine.
    """

    address: str = "127.0.0.1"
    allow: tuple[Network, ...] = ()
    loopback: bool = True

    def expects(self, address: str) -> bool:
        """Whether a peer may have this address."""
        ip = ipaddress.ip_address(address)
        ip = getattr(ip, "ipv4_mapped", None) or ip
        if self.loopback:
            return ip.is_loopback
        return not self.allow or any(ip in network for network in self.allow)

    def find(self, request: CommInit, cancelled: Cancelled) -> Met | None:
        """Wait for the server that a request names, or connect to it; None where it does not come."""
        if not 0 < request.port < 2**16:
            return None
        if request.rank == 0:
            return await_peer(self.address, request.port, CAPS_SIZE, LISTENS, self.expects, cancelled)
        host = request.host.split(b"\0")[0].decode("ascii", "replace")
        return seek_peer(host, request.port, TRIES, self.expects, cancelled)


def meet(request: CommInit, meeting: Meeting, cancelled: Cancelled) -> Communicator | None:
    """Connect with the other server; None where that can't be done.

    Raises:
        Stopped: where the client left, or the server ends, meanwhile.
    """
    met = meeting.find(request, cancelled)
    if cancelled():
        if met is not None:
            met.channel.close()
        raise Stopped
    return None if met is None else _greeted(met, int(request.rank), cancelled)


def _greeted(met: Met, rank: int, cancelled: Cancelled) -> Communicator | None:
    """Exchange capabilities: rank 0 has had the other's already, and answers; None where the other leaves or says nothing."""
    met.channel.set_up(TICK, TICK)
    peer = Communicator(met.channel, rank, TRIES)
    try:
        peer.send([memoryview(bytes(CAPS_SIZE))], cancelled)
        if rank != 0:
            peer.receive(memoryview(bytearray(CAPS_SIZE)), cancelled)
    except Violation as lost:
        log.info("no communicator: %s", lost)
        peer.close()
        return None
    peer.stall = STALL
    log.info("met %s of a communicator as rank %d", "rank 1" if rank == 0 else "rank 0", rank)
    return peer


class Communicator:
    """The connection with the other server.

    Args:
        channel: to it; from now on this object's.
        rank: 0 sends first, 1 receives first.
        stall: seconds of silence that end it.
    """

    def __init__(self, channel: Channel, rank: int, stall: float = STALL) -> None:
        self.rank, self.stall, self._channel = rank, stall, channel

    def close(self) -> None:
        """End the connection; the other server notices at its next sum."""
        self._channel.hang_up()
        self._channel.close()

    def add(self, tensor: Tensor, allocation: Allocation, memory: DeviceMemory, cancelled: Cancelled) -> None:
        """Add the other server's elements to a tensor's.

        Args:
            tensor: dense, of a type that can be added; its bytes lie in `allocation`.
            allocation: of the buffer.
            memory: of the device, from which room is taken for what comes.
            cancelled: asked several times a second whether to stop.

        Raises:
            Violation: comm.tensor for another tensor, comm.peer-lost where the other server leaves or is silent.
            Stopped: where it is cancelled.
        """
        if tensor.dtype.name not in ADDED:
            raise Violation("comm.tensor", "tensor.type", tensor.dtype.name, f"types that are added: {', '.join(ADDED)}")
        if not tensor.is_contiguous:
            raise Violation("comm.tensor", "tensor.nb", tensor.nb, "its elements do not lie one after the other")
        if not tensor.nelements:
            return  # nothing is exchanged, as in genuine servers
        own, wire = tensor.dtype, wire_type(tensor)
        room = memory.allocate(wire.size * tensor.nelements)
        if room is None:
            raise Violation("comm.tensor", "tensor.ne", tensor.ne, "the device has no memory for what the other server sends")
        try:
            theirs = room.data.data if room.data is not None else memoryview(bytearray(room.size))
            self._exchange(_sent(tensor, allocation, wire), theirs, cancelled)
            for at, count in _chunks(tensor.nelements):
                place = tensor.offset + at * own.size
                mine = allocation.download(place, place + count * own.size)
                sums = _sum(own, mine, wire, theirs[at * wire.size : (at + count) * wire.size])
                allocation.upload(place, sums)
        finally:
            room.free()

    def _exchange(self, mine: Iterator[memoryview], theirs: memoryview, cancelled: Cancelled) -> None:
        if self.rank == 0:  # one sends first, so that two large sends can't wait for each other
            self.send(mine, cancelled)
            self.receive(theirs, cancelled)
        else:
            self.receive(theirs, cancelled)
            self.send(mine, cancelled)

    def send(self, pieces: Iterable[memoryview], cancelled: Cancelled) -> None:
        """Send bytes.

        Raises:
            Violation: comm.peer-lost.
            Stopped: where it is cancelled.
        """
        for data in pieces:
            pace = Pace(self.stall)
            while data:
                data = data[self._moved(partial(self._channel.send_some, data), pace, "was taken", cancelled) :]

    def receive(self, room: memoryview, cancelled: Cancelled) -> None:
        """Receive bytes until `room` is full.

        Raises:
            Violation: comm.peer-lost.
            Stopped: where it is cancelled.
        """
        pace = Pace(self.stall)
        while room:
            room = room[self._moved(partial(self._receive, room), pace, "came", cancelled) :]

    def _receive(self, room: memoryview) -> int:
        count = self._channel.receive(room)
        if not count:
            raise ConnectionError("it closed the connection")
        return count

    def _moved(self, move: Callable[[], int], pace: Pace, verb: str, cancelled: Cancelled) -> int:
        """Return how many bytes a call moved; 0 where it waited in vain and may go on waiting."""
        count = 0
        with suppress(Waited):
            try:
                count = move()
            except OSError as error:
                raise _lost(error.strerror or str(error)) from None
        if cancelled():
            raise Stopped
        if count:
            pace.moved(count)
        if complaint := pace.complaint(verb):
            raise _lost(complaint)
        return count


def _lost(reason: str) -> Violation:
    return Violation("comm.peer-lost", "the other server", "lost", reason)


# ---------------------------------------------------------------------------------------------------------------- elements


def wire_type(tensor: Tensor) -> DType:
    """Return the type in which a tensor's elements are sent."""
    halved = tensor.dtype.name == "F32" and tensor.nelements >= BF16_FROM
    return BY_NAME["BF16"] if halved else tensor.dtype


def _chunks(elements: int) -> Iterator[tuple[int, int]]:
    for at in range(0, elements, CHUNK):
        yield at, min(CHUNK, elements - at)


def _sent(tensor: Tensor, allocation: Allocation, wire: DType) -> Iterator[memoryview]:
    """Yield a tensor's elements as they are sent."""
    own = tensor.dtype
    for at, count in _chunks(tensor.nelements):
        place = tensor.offset + at * own.size
        data = allocation.download(place, place + count * own.size)
        yield data if wire is own else _converted(own, data, wire)


def _converted(own: DType, data: memoryview, wire: DType) -> memoryview:
    room = bytearray(len(data) // own.size * wire.size)
    _flat(wire, np.frombuffer(room, np.uint8)).store(_flat(own, np.frombuffer(data, np.uint8)).values())
    return memoryview(room)


def _sum(own: DType, mine: memoryview, wire: DType, theirs: memoryview) -> memoryview:
    """Return the sums of elements: added as float32 and rounded to their type, as ADD does."""
    room = bytearray(mine)
    there = _flat(own, np.frombuffer(room, np.uint8))
    with np.errstate(over="ignore", invalid="ignore"):
        there.store(there.values() + _flat(wire, np.frombuffer(theirs, np.uint8)).values())
    return memoryview(room)


def _flat(dtype: DType, data: Bytes) -> Tensor:
    """Return bytes as a tensor of one row."""
    ne = (len(data) // dtype.size, 1, 1, 1)
    return Tensor(dtype, ne, contiguous_nb(dtype, ne), PlainStorage(data))
