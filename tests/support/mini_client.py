"""A small client of any version, written for tests: what it does can be changed at one place each.

It speaks by the tables and by `Connection`, and shares nothing else with the client of the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Thread
from typing import Any

import numpy as np

from ggml_rpc_ref.conformance.clients.heard import Ended
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.net.stream import Stream, open_stream, parse_endpoint
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, Data, DataEnds, Reply, Role
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    FLAG_COMPUTE,
    NO_REPLY,
    REQUESTS,
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CommAllreduce,
    CommFree,
    CommInit,
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GraphCompute,
    GraphRecompute,
    Hello,
    InitTensor,
    MemsetTensor,
    RpcTensor,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    has_field,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import Version, accepts

LARGE = 10 * 2**20 + 4
PATIENCE = 20.0
APART = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""Where servers listen without strangers: other tests' clients try ports of 127.0.0.1 again whose servers have gone."""


class Died(Exception):  # noqa: N818  (how a process ends)
    """In place of a signal that ends the process; this client runs in that of the tests."""

    def __init__(self, signal: int) -> None:
        self.signal = signal
        super().__init__(f"signal {signal}")


class WrongError(Exception):
    """What came back is not right."""


class Link:
    """One connection."""

    def __init__(self, client: Mini, endpoint: str) -> None:
        self.client, self.version = client, client.version
        self.stream: Stream = open_stream(*parse_endpoint(endpoint), timeout=client.patience)
        client.links.append(self)
        self.connection = Connection(Role.CLIENT, self.version)

    def has(self, cls: type) -> bool:
        """Whether the version has a request."""
        return REQUESTS[cls].since <= self.version

    def send(self, message: Any, data: bytes = b"") -> None:
        """Send a request."""
        head = self.connection.send_with_data(message, len(data)) if data else self.connection.send(message)
        self.stream.send(self.client.outgoing(message, head), data)

    def ask(self, message: Any, data: bytes = b"") -> Any:
        """Send a request and return its reply; None where it has none."""
        self.send(message, data)
        if REQUESTS[type(message)].reply(self.version) is NO_REPLY:
            return None
        return self.client.receive(self)


class Mini:
    """The client.

    Attributes:
        version: what it speaks.
        hashes: whether it uploads more than 10 MiB once.
    """

    hashes = False
    patience = PATIENCE

    def __init__(self, endpoints: Sequence[str], version: Version) -> None:
        self.endpoints, self.version = endpoints, version
        self.links: list[Link] = []

    # ----------------------------------------------------------------------------------------------- what may be changed

    def outgoing(self, message: Any, head: bytes) -> bytes:
        """Return the bytes of a request, data left out."""
        return head

    def receive(self, link: Link) -> Any:
        """Return the next reply, or the data of one."""
        data = bytearray()
        while True:
            event = link.connection.next_event()
            match event:
                case Reply(message):
                    return message
                case Data(chunk):
                    data += chunk
                case DataEnds():
                    return bytes(data)
                case _ if event is NEED_DATA:
                    link.connection.receive(link.stream.receive(2**18))

    def greet(self, link: Link) -> None:
        """Say HELLO, and stop where the version does not fit."""
        reply = link.ask(Hello())
        announced = Version(reply.major, reply.minor, reply.patch)
        if not accepts(self.version, announced) or announced[:2] != self.version[:2]:
            raise Unsupported(f"the server speaks {announced}")

    def alignment(self, link: Link, device: int) -> int:
        """Ask for the alignment."""
        alignment: int = link.ask(_on(link, GetAlignment, device)).alignment
        if not 0 < alignment < 2**32 or alignment & (alignment - 1):
            raise Violation("device.alignment", "alignment", alignment)
        return alignment

    def alloc(self, link: Link, size: int, most: int) -> tuple[int, int]:
        """Return handle and address of a buffer."""
        if size > most:
            raise Misuse("no buffer is so large")
        reply = link.ask(_on(link, AllocBuffer, 0, size=size))
        if not reply.remote_ptr or reply.remote_size < size:
            raise Misuse("no room")
        return reply.remote_ptr, link.ask(BufferGetBase(remote_ptr=reply.remote_ptr)).base_ptr

    def free(self, link: Link, handle: int) -> None:
        """Free a buffer."""
        link.ask(FreeBuffer(remote_ptr=handle))

    def record(self, link: Link, **values: Any) -> RpcTensor:
        """Return a record as it is sent."""
        return RpcTensor(**values)

    def room(self, answered: int, nbytes: int) -> int:
        """Return the bytes that a tensor gets for which the server was asked."""
        if not nbytes <= answered < 2**40:
            raise Violation("tensor.alloc-size", "alloc_size", answered)
        return answered

    def step(self, nbytes: int, alignment: int) -> int:
        """Return how far the next tensor is."""
        return -(-nbytes // alignment) * alignment

    def copied(self, link: Link, src: RpcTensor, dst: RpcTensor) -> None:
        """Copy a tensor."""
        if not link.ask(CopyTensor(src=src, dst=dst)).result:
            link.ask(SetTensor(tensor=dst, offset=0), link.ask(GetTensor(tensor=src, offset=0, size=24)))

    def nodes(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        """Return the order of a graph's nodes."""
        return ids

    flags = FLAG_COMPUTE
    use_count = 2

    def status(self, status: int) -> None:
        """Take a graph's status."""
        if status:
            raise WrongError(f"status {status}")

    def devices(self, link: Link) -> int:
        """Ask how many devices there are."""
        count: int = link.ask(DeviceCount()).device_count if link.has(DeviceCount) else 1
        if not 0 < count < 1000:
            raise Violation("device.count", "device_count", count)
        return count

    def before_graphs(self, link: Link) -> None:
        """Do something before the first graph."""

    def hash(self, data: bytes) -> int:
        """Return the hash of data."""
        return fnv1a(data)

    hashed_size = LARGE
    host = b""
    """What rank 1 is told of rank 0's server; empty: where that is."""

    def end(self, link: Link) -> None:
        """End a connection."""
        link.stream.close()

    # ------------------------------------------------------------------------------------------------------------ steps

    def open(self, endpoint: str) -> Link:
        """Open a connection."""
        link = Link(self, endpoint)
        self.greet(link)
        return link

    def run(self) -> None:
        """Do everything."""
        link = self.open(self.endpoints[0])
        for device in range(self.devices(link)):
            alignment, most = self.alignment(link, device), link.ask(_on(link, GetMaxSize, device)).max_size
            link.ask(_on(link, GetDeviceMemory, device))
        if most < 1:
            raise Violation("device.max-size", "max_size", most)
        handle = self.work(link, alignment, most)
        self.free(link, handle)
        if self.hashes:
            self.upload(link, most)
        if link.has(CommInit) and len(self.endpoints) > 1:
            self.add_up(link)
        self.end(link)

    def work(self, link: Link, alignment: int, most: int) -> int:
        """Place, write, copy, compute and read tensors; return the handle of their buffer."""
        step = self.step(24, alignment)
        padded = self.record(link, id=9, type=BY_NAME["Q8_0"].number, ne=(96, 2, 1, 1), nb=(34, 102, 204, 204), name=b"q")
        srcs = (codec.zero_record(RpcTensor, link.version),) * 10 if has_field(GetAllocSize, "srcs", link.version) else ()
        extra = {"srcs": srcs} if srcs else {}
        answered = link.ask(_on(link, GetAllocSize, 0, tensor=padded, **extra)).alloc_size
        handle, base = self.alloc(link, 4 * step + self.room(answered, 204), most)
        a, b, twice, minus = (self.vector(link, number, handle, base + number * step) for number in range(4))
        link.ask(InitTensor(tensor=replace(padded, buffer=handle, data=base + 4 * step)))
        link.ask(BufferClear(remote_ptr=handle, value=0))
        values = np.arange(6, dtype="<f4")
        link.ask(SetTensor(tensor=a, offset=0), values.tobytes())
        self.copied(link, a, b)
        self.expect(link, b, values)
        self.before_graphs(link)
        self.compute(link, a, twice, minus, values)
        self.later(link, a, values)
        return handle

    def vector(self, link: Link, number: int, handle: int, address: int, **values: Any) -> RpcTensor:
        """Return a record of six F32."""
        name = b"t%d" % number
        plain = {"id": number + 1, "ne": (6, 1, 1, 1), "nb": (4, 24, 24, 24), "buffer": handle, "data": address, "name": name}
        return self.record(link, **plain, **values)

    def compute(self, link: Link, a: RpcTensor, twice: RpcTensor, minus: RpcTensor, values: Any) -> None:
        """Compute a graph of two nodes, and again."""
        ops, flags = op_table(link.version), self.flags
        leaf = self.used(link, a, self.use_count)
        first = self.used(link, replace(twice, op=ops.index("ADD"), flags=flags, src=(a.id, a.id, *[0] * 8)), 1)
        second = replace(minus, op=ops.index("UNARY"), op_params=(2, *[0] * 15), flags=flags, src=(twice.id, *[0] * 9))
        uid = {"uid": 7} if has_field(GraphCompute, "uid", link.version) else {}
        graph = _on(link, GraphCompute, 0, nodes=self.nodes((first.id, second.id)), tensors=(leaf, first, second), **uid)
        for turn in range(2):
            again = turn and link.has(GraphRecompute)
            reply = link.ask(GraphRecompute(device=0, **uid) if again else graph)
            if reply is not None:
                self.status(reply.result)
            self.expect(link, twice, 2 * values)
            self.expect(link, minus, -2 * values)

    def used(self, link: Link, tensor: RpcTensor, times: int) -> RpcTensor:
        """Return the record with its number of uses, where the version has that."""
        return replace(tensor, use_count=times) if has_field(RpcTensor, "use_count", link.version) else tensor

    def later(self, link: Link, tensor: RpcTensor, values: Any) -> None:
        """Send what came with later versions."""
        if link.has(MemsetTensor):
            link.ask(MemsetTensor(tensor=tensor, offset=0, size=4, value=0))
        if link.has(SetTensor2d):
            rows = SetTensor2d(tensor=tensor, offset=4, size=4, n_copies=2, stride=8)
            link.ask(rows, values[[1, 3]].tobytes())
        self.expect(link, tensor, values)

    def upload(self, link: Link, most: int) -> None:
        """Write more than 10 MiB, after their hash."""
        data = bytes(range(251)) * (self.hashed_size // 251 + 1)
        data = data[: self.hashed_size]
        handle, base = self.alloc(link, len(data), most)
        count = len(data) // 4
        tensor = self.record(link, id=1, ne=(count, 1, 1, 1), nb=(4, *[4 * count] * 3), buffer=handle, data=base, name=b"large")
        if link.ask(SetTensorHash(tensor=tensor, offset=0, hash=self.hash(data))).result != 1:
            flag = int(has_field(SetTensor, "cache_flag", link.version))
            link.ask(SetTensor(tensor=tensor, offset=0, cache_flag=flag), data)
        if link.ask(GetTensor(tensor=tensor, offset=0, size=len(data))) != data:
            raise WrongError("the upload")
        self.free(link, handle)

    def add_up(self, first: Link) -> None:
        """Have two servers add up halves of a sum."""
        links = [first, self.open(self.endpoints[1])]
        halves = []
        for link in links:
            handle, base = self.alloc(link, 24, 2**30)
            halves.append(self.vector(link, 0, handle, base))
            link.ask(SetTensor(tensor=halves[-1], offset=0), np.ones(6, "<f4").tobytes())
        # of no other test's servers or connections, which have ports that the system gives out: on Linux from 32768 on
        port = 20000 + parse_endpoint(self.endpoints[0]).port % 12000
        host = self.host or parse_endpoint(self.endpoints[0]).host.encode()
        inits = [CommInit(device=0, rank=n, world=2, port=port, host=host if n else b"") for n in range(2)]
        if self.is_pair(links, inits):
            for link, half in zip(links, halves, strict=True):
                link.ask(CommAllreduce(device=0, tensor=half))
            for link, half in zip(links, halves, strict=True):
                self.expect(link, half, np.full(6, 2, "<f4"))
                link.ask(CommFree(device=0))
        links[1].stream.close()

    def is_pair(self, links: list[Link], inits: list[CommInit]) -> bool:
        """Send both requests, then read both replies."""
        for link, init in zip(links, inits, strict=True):
            link.send(init)
        replies = [self.receive(link).ok for link in links]
        return all(replies)

    def expect(self, link: Link, tensor: RpcTensor, values: Any) -> None:
        """Compare what a tensor holds."""
        got = link.ask(GetTensor(tensor=tensor, offset=0, size=24))
        if got != np.asarray(values, "<f4").tobytes():
            raise WrongError(tensor.name.decode())


def _on(link: Link, cls: Callable[..., Any], device: int, **values: Any) -> Any:
    """Return a request for a device, where the version numbers them."""
    return cls(device=device, **values) if has_field(cls, "device", link.version) else cls(**values)  # type: ignore[arg-type]


class Here:
    """A client of this process as a program under test."""

    endpoints = 2

    def __init__(self, kind: type[Mini], version: Version) -> None:
        self.kind, self.version, self.name = kind, version, kind.__name__

    def run(self, endpoints: Sequence[str], timeout: float, connections: object) -> Ended:
        """Run it in a thread of its own, which is left behind where it does not end."""
        ended = [Ended(hung=True)]
        thread = Thread(target=lambda: ended.append(self._once(endpoints)), daemon=True)
        thread.start()
        thread.join(timeout)
        return ended[-1]

    def _once(self, endpoints: Sequence[str]) -> Ended:
        client = self.kind(endpoints, self.version)
        try:
            client.run()
        except Died as died:
            return Ended(-died.signal)
        except (WrongError, Violation, Misuse, Unsupported, ConnectionError, TimeoutError) as error:
            return Ended(1, lines=(f"{type(error).__name__}: {error}",))
        finally:
            for link in client.links:  # as the end of a process does
                link.stream.close()
        return Ended(0)
