"""Servers made from ours that are odd, as processes: some follow the protocol all the same, some break one thing.

    python -m tests.support.odd_server PORT BEHAVIOUR

`CONFORMING` holds what every case must let pass, `FAULTY` what the diagnosis must name.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import numpy as np

from ggml_rpc_ref.backends import Run, Step
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.net.stream import Endpoint, free_port, parse_endpoint
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.server.handlers import Device, Host, Session
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.server.session import Upload
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import (
    FLAG_COMPUTE,
    AllocBuffer,
    BufferClear,
    CommInit,
    CommInitReply,
    CopyTensor,
    GetAlignmentReply,
    HelloReply,
    SetTensorHash,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES


class Rounding(Oracle):
    """Results that are half a millionth too large, as another library's arithmetic may make them."""

    def compile(self, steps: Sequence[Step]) -> Run:
        return super().compile([Step(step.node, step.backend, partial(self._shift, step)) for step in steps])

    def _shift(self, step: Step) -> None:
        (step.compute or self._compute(step.node))()
        dst = step.node.dst
        if dst.dtype.name == "F32" and step.node.op.tolerance != EXACT:
            dst.store(dst.values() * (1 + 5e-7))


class Flushing(Rounding):
    """Takes what is too small for a normal float32 for 0, as graphics cards do."""

    def _shift(self, step: Step) -> None:
        (step.compute or self._compute(step.node))()
        dst = step.node.dst
        if dst.dtype.name == "F32" and step.node.op.tolerance != EXACT:
            values = dst.values()
            dst.store(np.where(np.abs(values) < np.finfo(np.float32).tiny, np.float32(0), values))


class OneDevice(Session):
    """A session to make odd ones from."""


class Slow(OneDevice):
    """Answers 10 ms late."""

    def handle(self, message: object) -> object:
        time.sleep(0.01)
        return super().handle(message)


class FewTypes(OneDevice):
    """Has no IQ and no TQ types."""

    def region(self, wire: Any, offset: int, size: int, rule: str = "data.in-tensor") -> Any:
        if self.placed_tensor(wire)[0].dtype.name[:2] in ("IQ", "TQ"):
            raise Violation("tensor.type-known", "type", wire.type)
        return super().region(wire, offset, size, rule)


class FewOps(OneDevice):
    """Computes sums and products of F32, and refuses every other op."""

    KERNELS = frozenset({"ADD", "MUL", "MUL_MAT"})

    def handle(self, message: object) -> object:
        if isinstance(message, Graph):
            for row in message.tensors[np.isin(message.tensors["id"], message.nodes)]:
                self._check(row, message)
        return super().handle(message)

    def _check(self, row: Any, graph: Graph) -> None:
        op = op_table(self.version)[row["op"]] if row["op"] < len(op_table(self.version)) else ""
        sources = graph.tensors[np.isin(graph.tensors["id"], row["src"][:2])]
        known = not op or op in ("NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE") or not row["flags"] & FLAG_COMPUTE
        if not known and (op not in self.KERNELS or sources["type"].any()):
            raise Violation("graph.op-supported", "op", op)


class OnlyProducts(FewOps):
    """Computes products of F32 and refuses every other op, sums among them."""

    KERNELS = frozenset({"MUL_MAT"})


class Rounded(OneDevice):
    """Gives buffers in whole pages and some bytes more, as allocators do that have use for them."""

    def handle(self, message: object) -> object:
        if isinstance(message, AllocBuffer) and 0 < message.size < 2**40:
            message = AllocBuffer(device=message.device, size=-(-message.size // 4096) * 4096 + 320)
        return super().handle(message)


class BasicTypes(OneDevice):
    """Has no types but those without which no graph can be computed."""

    TYPES: ClassVar = [BY_NAME[name].number for name in ("F32", "F16", "I32")]

    def region(self, wire: Any, offset: int, size: int, rule: str = "data.in-tensor") -> Any:
        if self.placed_tensor(wire)[0].dtype.number not in self.TYPES:
            raise Violation("tensor.type-known", "type", wire.type)
        return super().region(wire, offset, size, rule)

    def handle(self, message: object) -> object:
        if isinstance(message, Graph) and not np.isin(message.tensors["type"], self.TYPES).all():
            raise Violation("graph.op-supported", "type", 0)
        return super().handle(message)


class WideAlignment(OneDevice):
    """Wants addresses that are multiples of 4,096."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        return GetAlignmentReply(alignment=4096) if isinstance(reply, GetAlignmentReply) else reply


class Declining(OneDevice):
    """Makes no pair with another server: it neither listens nor connects."""

    def handle(self, message: object) -> object:
        return CommInitReply(ok=0) if isinstance(message, CommInit) else super().handle(message)


class Capable(OneDevice):
    """Says in HELLO that it could do more than TCP."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        return replace(reply, conn_caps=b"\x01" * 24, padding=7) if isinstance(reply, HelloReply) else reply


class Meddling(OneDevice):
    """Does something else in place of one kind of request."""

    request: ClassVar[type]
    meddle: ClassVar[Callable[[Any], object]]

    def handle(self, message: object) -> object:
        return type(self).meddle(super()) if isinstance(message, self.request) else super().handle(message)


def _meddling(request: type, meddle: Callable[[Any], object]) -> type[Session]:
    return type("Meddling", (Meddling,), {"request": request, "meddle": staticmethod(meddle)})


def _hang(_: Any) -> object:
    time.sleep(3600)
    return None


def _refuse(_: Any) -> object:
    raise Violation("frame.command-known", "command", 0, "there is no such command here")


def _print_and_refuse(_: Any) -> object:
    print("Traceback (most recent call last):", "KeyError: 13", sep="\n", flush=True)
    return _refuse(_)


def _die(_: Any) -> object:
    print("GGML_ASSERT(false) failed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
    return None


class HangsAtData(OneDevice):
    """Stops at SET_TENSOR."""

    def destination(self, message: Upload, size: int) -> Any:
        return _hang(message)


CONFORMING: dict[str, type[Session]] = {
    "plain": OneDevice,
    "delays": Slow,
    "trickles": OneDevice,
    "small-memory": OneDevice,
    "no-memory-left": OneDevice,
    "one-client-closes": OneDevice,
    "one-client-waits": OneDevice,
    "rounds-differently": OneDevice,
    "whole-pages": Rounded,
    "few-types": FewTypes,
    "few-ops": FewOps,
    "only-products": OnlyProducts,
    "basic-types": BasicTypes,
    "flushes-to-zero": OneDevice,
    "wide-alignment": WideAlignment,
    "resets": OneDevice,
    "makes-no-pair": Declining,
    "other-transports": Capable,
}
"""Behaviour to session."""

FAULTY: dict[str, type[Session]] = {
    "clear-hangs": _meddling(BufferClear, _hang),
    "no-copy": _meddling(CopyTensor, _refuse),
    "hash-kills": _meddling(SetTensorHash, _die),
    "hash-prints": _meddling(SetTensorHash, _print_and_refuse),
    "set-hangs": HangsAtData,
}


class Relay:
    """Passes connections on to a server, in an odd way.

    Args:
        server: where the server listens.
        port: where to listen.
        piece: bytes that are passed back at a time.
        clients: "many"; "closes": a second one is turned away; "waits": it waits until the first has left.
    """

    def __init__(self, server: Endpoint, port: int, piece: int = 65536, clients: str = "many") -> None:
        self.server, self.piece, self.clients, self.busy = server, piece, clients, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", port))

    def serve(self) -> None:
        """Serve for ever."""
        while True:
            client, _ = self._listener.accept()
            if self.clients == "closes" and not self.busy.acquire(blocking=False):
                client.close()
                continue
            if self.clients == "waits":
                self.busy.acquire()
            threading.Thread(target=self._pass_on, args=(client,), daemon=True).start()

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.server) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            back = threading.Thread(target=self._pump, args=(server, client, self.piece), daemon=True)
            back.start()
            self._pump(client, server, 65536)
            back.join()
        if self.clients != "many":
            self.busy.release()

    @staticmethod
    def _pump(source: socket.socket, target: socket.socket, piece: int) -> None:
        try:
            while data := source.recv(65536):
                # large data go on as they are: a byte at a time they would take minutes
                step = piece if len(data) < 400 else 65536
                for at in range(0, len(data), step):
                    target.sendall(data[at : at + step])
            target.shutdown(socket.SHUT_WR)
        except OSError:
            for end in (source, target):
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)


class Resetting(Relay):
    """Ends what the server ends with a reset, which may overtake replies, unless the client has ended its sending."""

    def _pass_on(self, client: socket.socket) -> None:
        with client, socket.create_connection(self.server) as server, selectors.DefaultSelector() as both:
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                both.register(one, selectors.EVENT_READ)
            with contextlib.suppress(OSError):
                while True:
                    for key, _ in both.select():
                        data = key.fileobj.recv(65536)  # type: ignore[union-attr]
                        if data:
                            (server if key.fileobj is client else client).sendall(data)
                        elif key.fileobj is client:
                            both.unregister(client)
                            server.shutdown(socket.SHUT_WR)
                        else:
                            if client.fileno() in both.get_map():
                                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                            return


BACKENDS = {"rounds-differently": Rounding, "flushes-to-zero": Flushing}
NEWEST = {"makes-no-pair", "other-transports"}
"""What there is only in the newest version."""


def main() -> None:
    port, behaviour = int(sys.argv[1]), sys.argv[2]
    session = (CONFORMING | FAULTY)[behaviour]
    memory = HostMemory(2**17 if behaviour in ("small-memory", "no-memory-left") else 2**28)
    taken = memory.allocate(2**17) if behaviour == "no-memory-left" else None
    assert taken is not None or behaviour != "no-memory-left"
    backend = BACKENDS.get(behaviour, Oracle)(memory)
    own = free_port() if behaviour in ("trickles", "resets") or behaviour.startswith("one-client") else port
    version = max(PROFILES) if behaviour in NEWEST else DEFAULT
    kind = type("Odd", (Server,), {"session_type": session})
    with kind(Host([Device("odd", behaviour, backend)], version=version), "127.0.0.1", own) as server:
        if behaviour == "resets":
            Resetting(parse_endpoint(server.endpoint), port).serve()
        elif own != port:
            clients = behaviour.rpartition("-")[2] if behaviour.startswith("one-client") else "many"
            Relay(parse_endpoint(server.endpoint), port, 1 if behaviour == "trickles" else 65536, clients).serve()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    main()
