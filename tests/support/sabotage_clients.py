"""For each rule that binds clients a client that breaks exactly that rule, made from `mini_client` by changing one thing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ggml_rpc_ref.net.stream import PeerClosed
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    CommAllreduce,
    CommInit,
    FreeBuffer,
    GetAlignment,
    GetDeviceMemory,
    GetTensor,
    GraphRecompute,
    Hello,
    InitTensor,
    RpcTensor,
    carries_data,
)
from ggml_rpc_ref.spec.rules import FOR_CLIENTS
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, V3_0_0, V8_0_0, Version
from tests.support.mini_client import Died, Link, Mini

M = TypeVar("M", bound=type[Mini])


@dataclass(frozen=True)
class Sabotaged:
    """A client that breaks a rule, and the version that it speaks."""

    kind: type[Mini]
    version: Version


SABOTAGED: dict[str, Sabotaged] = {}
"""Rule id to what breaks it."""


def breaks(rule: str, version: Version | None = None) -> Callable[[M], M]:
    """Enter a class as what breaks a rule, in the default version or the newest that has the rule."""

    def register(kind: M) -> M:
        assert rule not in SABOTAGED, f"{rule} is broken twice"
        has = FOR_CLIENTS[rule].present(DEFAULT)
        chosen = version or (DEFAULT if has else max(v for v in PROFILES if FOR_CLIENTS[rule].present(v)))
        SABOTAGED[rule] = Sabotaged(kind, chosen)
        return kind

    return register


# ----------------------------------------------------------------------------------------------------------------- frame


@breaks("frame.requests")
class OneByteMore(Mini):
    """GET_ALIGNMENT has a byte more than its field."""

    def outgoing(self, message: Any, head: bytes) -> bytes:
        if isinstance(message, GetAlignment):
            return head[:1] + (len(head) - 8).to_bytes(8, "little") + head[9:] + b"\0"
        return head


@breaks("frame.complete")
class LeavesWithinAMessage(Mini):
    """The last message of a connection is cut off."""

    def end(self, link: Link) -> None:
        link.stream.send(codec.request_head(GetTensor, 312, link.version))
        super().end(link)


@breaks("frame.segmentation")
class OneReceiveAReply(Mini):
    """What one call of recv returns is taken for the whole reply."""

    def receive(self, link: Link) -> Any:
        due = link.connection.order.due()
        whole = 8 + due.size
        got = link.stream.receive(whole)
        if len(got) < whole and len(got) < 64:  # of more the kernel may really have had only a part
            raise ConnectionError("a short reply")
        link.connection.receive(got)
        return super().receive(link)


@breaks("frame.reply-checked")
class TakesAnySize(Mini):
    """Replies are read by the size that they claim, and filled up or cut to what was asked for."""

    def receive(self, link: Link) -> Any:
        due = link.connection.order.due()
        size = int.from_bytes(link.stream.receive_exactly(8), "little")
        payload = link.stream.receive_exactly(size if size < 2**30 else due.size)
        link.connection.order.answer()
        payload = payload.ljust(due.size, b"\0")[: due.size]
        if carries_data(due.reply):
            return payload
        return codec.decode(due.reply, payload, link.version)


@breaks("frame.reply-missing")
class TakesTheEndForAReply(Mini):
    """A client that ends well where the server has left it."""

    def run(self) -> None:
        try:
            super().run()
        except PeerClosed:
            return


@breaks("frame.reply-late")
class Impatient(Mini):
    """Half a second is too long."""

    patience = 0.5


# --------------------------------------------------------------------------------------------------------------- session


@breaks("session.says-hello")
class SaysHelloTwice(Mini):
    """HELLO comes again, as the second request."""

    def greet(self, link: Link) -> None:
        super().greet(link)
        link.stream.send(codec.request_head(Hello, 0, link.version))


@breaks("session.version-accepted")
class TakesAnyVersion(Mini):
    """HELLO's reply is not looked at."""

    def greet(self, link: Link) -> None:
        reply = link.ask(Hello())
        if reply.major == self.version.major and reply.minor < self.version.minor:
            raise ConnectionError("an older version, which this client does not speak")  # of which another rule is


@breaks("session.speaks-older")
class KeepsItsVersion(Mini):
    """An older minor version is accepted, and the own one spoken."""

    def greet(self, link: Link) -> None:
        reply = link.ask(Hello())
        if reply.major != self.version.major or reply.minor > self.version.minor:
            raise ConnectionError("another version")


@breaks("session.client-caps")
class FollowsToRdma(Mini):
    """Where the server offers RDMA nothing more is said over TCP."""

    def greet(self, link: Link) -> None:
        reply = link.ask(Hello())
        if any(reply.conn_caps):
            raise ConnectionError("no device for RDMA")
        if reply.major != self.version.major or reply.minor > self.version.minor:
            raise ConnectionError("another version")


@breaks("session.unharmed")
class DividesByTheAlignment(Mini):
    """An alignment of 0 ends the process by SIGFPE."""

    def alignment(self, link: Link, device: int) -> int:
        alignment: int = link.ask(GetAlignment(device=device)).alignment
        if alignment == 0:
            raise Died(8)
        if alignment > 2**32 or alignment & (alignment - 1):
            raise ConnectionError("a strange alignment")
        return alignment


@breaks("session.lives")
class Aborts(Mini):
    """Whatever goes wrong ends the process by SIGABRT."""

    def run(self) -> None:
        try:
            super().run()
        except Exception:
            raise Died(6) from None


# ---------------------------------------------------------------------------------------------------- device and buffer


@breaks("device.named")
class NamesDevice7(Mini):
    """A device that is not there is asked for its memory."""

    def before_graphs(self, link: Link) -> None:
        link.ask(GetDeviceMemory(device=7))


@breaks("device.aligned")
class PacksTensors(Mini):
    """Tensors follow one another without regard to the alignment."""

    def step(self, nbytes: int, alignment: int) -> int:
        return nbytes


@breaks("device.within-max-size")
class NeverTooLarge(Mini):
    """What GET_MAX_SIZE says is not looked at."""

    def alloc(self, link: Link, size: int, most: int) -> tuple[int, int]:
        return super().alloc(link, max(size, 2**17), 2**30)


@breaks("buffer.own-handles")
class FreesTwice(Mini):
    """A buffer is freed twice."""

    def free(self, link: Link, handle: int) -> None:
        super().free(link, handle)
        link.ask(FreeBuffer(remote_ptr=handle))


@breaks("buffer.alloc-refused")
class TakesHandle0(Mini):
    """A buffer that was not granted is asked for its address."""

    def alloc(self, link: Link, size: int, most: int) -> tuple[int, int]:
        from ggml_rpc_ref.spec.messages import AllocBuffer, BufferGetBase

        if size > most:
            raise ConnectionError("too large")
        handle = link.ask(AllocBuffer(size=size)).remote_ptr
        return handle, link.ask(BufferGetBase(remote_ptr=handle)).base_ptr


# ----------------------------------------------------------------------------------------------------- tensor and data


@breaks("tensor.valid")
class DeadType(Mini):
    """A tensor has type 4, which no version has any more."""

    def outgoing(self, message: Any, head: bytes) -> bytes:
        if isinstance(message, InitTensor):
            return head[:17] + (4).to_bytes(4, "little") + head[21:]
        return head


@breaks("tensor.zero-filled")
class LeaksBehindNames(Mini):
    """Behind the name's end stands what was in memory."""

    def record(self, link: Link, **values: Any) -> RpcTensor:
        return replace(super().record(link, **values), name=values["name"] + b"\0secret")


@breaks("tensor.room")
class GivesNoRoom(Mini):
    """What GET_ALLOC_SIZE answers is not looked at."""

    def room(self, answered: int, nbytes: int) -> int:
        return nbytes


@breaks("tensor.uses-counted")
class CountsOneUse(Mini):
    """A tensor that is used twice says once."""

    use_count = 1


@breaks("data.valid")
class ReadsTooMuch(Mini):
    """A range ends behind its tensor."""

    def before_graphs(self, link: Link) -> None:
        tensor = RpcTensor(id=1, ne=(6, 1, 1, 1), nb=(4, 24, 24, 24), buffer=self.handle, data=self.base)
        link.ask(GetTensor(tensor=tensor, offset=20, size=8))

    def alloc(self, link: Link, size: int, most: int) -> tuple[int, int]:
        self.handle, self.base = super().alloc(link, size, most)
        return self.handle, self.base


@breaks("data.hash-asked")
class WrongHash(Mini):
    """The hash is that of other data."""

    hashes = True

    def hash(self, data: bytes) -> int:
        return super().hash(data[1:])


@breaks("data.hash-large")
class HashesSmallData(Mini):
    """A KiB is asked for by its hash."""

    hashes = True
    hashed_size = 1024


@breaks("data.copy-refused")
class TakesCopyForMade(Mini):
    """The answer to COPY_TENSOR is not looked at."""

    def copied(self, link: Link, src: RpcTensor, dst: RpcTensor) -> None:
        from ggml_rpc_ref.spec.messages import CopyTensor

        link.ask(CopyTensor(src=src, dst=dst))


# ----------------------------------------------------------------------------------------------------------------- graph


@breaks("graph.valid")
class UnknownNode(Mini):
    """A node has no record."""

    def nodes(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return (*ids, 77)


@breaks("graph.nodes-in-order")
class LastNodeFirst(Mini):
    """A node comes before its source."""

    def nodes(self, ids: tuple[int, ...]) -> tuple[int, ...]:
        return ids[::-1]


@breaks("graph.flag-set")
class ForgetsTheFlag(Mini):
    """No node has flag COMPUTE."""

    flags = 0


@breaks("graph.status", V3_0_0)
class IgnoresTheStatus(Mini):
    """A graph that failed counts as computed."""

    def status(self, status: int) -> None:
        pass


@breaks("graph.recompute-sent")
class RecomputesNothing(Mini):
    """GRAPH_RECOMPUTE comes before any graph."""

    def before_graphs(self, link: Link) -> None:
        link.ask(GraphRecompute(device=0))


# ------------------------------------------------------------------------------------------------------------------ comm


@breaks("comm.pair")
class LeaksBehindTheHost(Mini):
    """Behind the host's end stands what was in memory."""

    host = b"127.0.0.1\0secret"


@breaks("comm.both-asked")
class OneAfterTheOther(Mini):
    """Rank 0's reply is awaited before rank 1 is asked."""

    def is_pair(self, links: list[Link], inits: list[CommInit]) -> bool:
        replies = [link.ask(init).ok for link, init in zip(links, inits, strict=True)]
        return all(replies)


@breaks("comm.refused")
class AddsUpAlone(Mini):
    """The replies to COMM_INIT are not looked at."""

    def is_pair(self, links: list[Link], inits: list[CommInit]) -> bool:
        super().is_pair(links, inits)
        return True


@breaks("comm.valid", V8_0_0)
class AddsUpNowhere(Mini):
    """COMM_ALLREDUCE is sent of a tensor in no buffer."""

    def is_pair(self, links: list[Link], inits: list[CommInit]) -> bool:
        is_pair = super().is_pair(links, inits)
        if is_pair:
            links[0].ask(CommAllreduce(device=0, tensor=RpcTensor(id=1, ne=(6, 1, 1, 1), nb=(4, 24, 24, 24))))
        return is_pair
