"""Captured packets to streams. Only this file imports scapy (extra `pcap`).

IP packets are joined from their fragments, and TCP streams from their segments by sequence number: retransmissions are dropped,
segments that come early wait, and what the capture lacks is a gap of known size.
"""

from __future__ import annotations

import importlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from ggml_rpc_ref.decode.fragments import IPV6_HEAD, Fragments, of_ipv4, of_ipv6
from ggml_rpc_ref.decode.inputs import Source, mapped
from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation, Lost, Missing, Stream
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.messages import Hello
from ggml_rpc_ref.spec.transport import DEFAULT_PORT
from ggml_rpc_ref.spec.versions import PROFILES

PCAP_MAGICS: Final = (b"\xa1\xb2\xc3\xd4", b"\xd4\xc3\xb2\xa1", b"\xa1\xb2\x3c\x4d", b"\x4d\x3c\xb2\xa1")
"""How pcap files begin: microseconds or nanoseconds, in either byte order."""
PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
PCAPNG_ORDER: Final = (b"\x1a\x2b\x3c\x4d", b"\x4d\x3c\x2b\x1a")
"""Bytes 8 to 12 of a pcapng file; its first four alone could begin a GRAPH_COMPUTE."""
HELLO_STARTS: Final = frozenset(codec.request_head(Hello, codec.minimum_size(Hello, version), version) for version in PROFILES)
"""How a client's bytes begin: command and size of HELLO, in each version."""
SYN, ACK = 0x02, 0x10
MOST_AHEAD: Final = 2**30
"""Bytes that segments may be ahead of one that is missing; at 2^31, half of the sequence numbers, they would count as behind it."""
LAYERS: Final = ("scapy.contrib.geneve", "scapy.contrib.mpls", "scapy.layers.ppp")
"""Modules of scapy that it takes packets apart with once they have been imported, and not before."""
LINUX_VXLAN_PORT: Final = 8472
"""Linux's default since before IANA assigned 4789; flannel, for instance, uses it."""

End = tuple[str, int]
"""Address and port."""


class Segment(NamedTuple):
    """The data of a TCP segment, how many bytes of their end the capture lacks, and when they came."""

    data: bytes
    cut_off: int
    order: int
    time_ns: int


@dataclass(slots=True)
class Half:
    """One direction of a TCP connection, during reassembly.

    Attributes:
        stream: what has been put in order.
        begun: whether `origin` is known.
        origin: sequence number of the first byte.
        waiting: segments after a gap, by the offset of their first byte.
        offsets: those offsets, as a heap: a gap that is never filled may have all of a capture waiting behind it.
    """

    stream: Stream = field(default_factory=Stream)
    begun: bool = False
    origin: int = 0
    waiting: dict[int, Segment] = field(default_factory=dict)
    offsets: list[int] = field(default_factory=list)

    def begin(self, seq: int) -> None:
        """Set the sequence number of the first byte."""
        self.begun, self.origin = True, seq

    def add(self, seq: int, segment: Segment) -> None:
        """Add a segment; of bytes sent twice the first copy counts."""
        if not self.begun:
            self.begin(seq)
        ahead = (seq - self.origin - self.stream.end + 2**31) % 2**32 - 2**31  # sequence numbers wrap
        self._place(self.stream.end + ahead, segment)
        while self.offsets and ahead > MOST_AHEAD:
            self._skip_gap()
            ahead = (seq - self.origin - self.stream.end + 2**31) % 2**32 - 2**31
        self._place_waiting()

    def _place_waiting(self) -> None:
        while self.offsets and self.offsets[0] <= self.stream.end:
            at = heappop(self.offsets)
            self._place(at, self.waiting.pop(at))

    def _place(self, at: int, segment: Segment) -> None:
        if at > self.stream.end:
            if at not in self.waiting:
                heappush(self.offsets, at)
            if at not in self.waiting or len(segment.data) > len(self.waiting[at].data):
                self.waiting[at] = segment
            return
        if fresh := segment.data[self.stream.end - at :]:
            self.stream.append(fresh, segment.order, segment.time_ns)
        missing = at + len(segment.data) + segment.cut_off - self.stream.end
        if missing > 0:
            self.stream.append(Missing(missing), segment.order, segment.time_ns)

    def _skip_gap(self) -> None:
        """Give up waiting for the bytes before the first segment that waits."""
        at = self.offsets[0]
        segment = self.waiting[at]
        self.stream.append(Missing(at - self.stream.end), segment.order, segment.time_ns)
        self._place_waiting()

    def finish(self) -> Stream:
        """Return the stream, with a gap for everything that never came."""
        while self.offsets:
            self._skip_gap()
        return self.stream


@dataclass(slots=True)
class Flow:
    """A TCP connection; `halves` by sender, `client` once it is known."""

    ends: tuple[End, End]
    client: End | None = None
    whole: bool = False
    halves: dict[End, Half] = field(default_factory=dict)

    def roles(self, port: int | None) -> tuple[End, End]:
        """Return client and server.

        The client is who sent SYN or says HELLO. Without either, the server is who has its port, else who has the lower one.
        """
        first, second = self.ends
        client = self.client or next((end for end, half in self.halves.items() if _says_hello(half.stream)), None)
        if client is not None:
            return (first, second) if client == first else (second, first)
        servers = [end for end in self.ends if end[1] == (port or DEFAULT_PORT)] or [min(self.ends, key=lambda end: end[1])]
        return (second, first) if servers[0] == first else (first, second)


def _joined(packet: Any, fragments: Fragments) -> Iterator[Any]:
    """Yield a packet as it is, or the IP packet that it completes; nothing for a fragment that completes none."""
    from scapy.layers import inet, inet6, l2

    if isinstance(packet, l2.Loopback):
        # the address family before the packet is in the byte order of the machine that captured, and IPv6's differs from system
        # to system (tcpdump.org, LINKTYPE_NULL); the packet itself begins with its version
        packet = (inet.IP if packet.original[4:5] < b"\x60" else inet6.IPv6)(packet.original[4:])
    layer, outer, part = packet, None, None
    while layer and part is None:
        if isinstance(layer, inet.IP):
            part = of_ipv4(layer)
        elif isinstance(layer, inet6.IPv6):
            outer = layer
        elif isinstance(layer, inet6.IPv6ExtHdrFragment) and outer is not None:
            part = of_ipv6(outer, layer)
        layer = layer.payload
    if part is None:
        yield packet
    elif whole := fragments.add(part):
        # which may be a fragment of a tunnel's
        yield from _joined((inet6.IPv6 if part.version == 6 else inet.IP)(whole), fragments)


def is_capture(start: bytes) -> bool:
    """Whether a file that begins with these bytes is a capture."""
    return start[:4] in PCAP_MAGICS or (start[:4] == PCAPNG_MAGIC and start[8:12] in PCAPNG_ORDER)


def read(path: Path, port: int | None = None) -> Source:
    """Read the ggml RPC conversations of a capture.

    Args:
        path: a pcap or pcapng file.
        port: the server's port; None: connections whose client begins with HELLO.

    Raises:
        Misuse: without scapy. Damage is the source's `fault`; what came before it is kept.
    """
    source = Source("pcap", fault=_breaks_off(path))
    flows: list[Flow] = []
    fragments = Fragments()
    damage = _packets(path, flows, fragments)
    if fragments.incomplete:
        source.notes.append(f"{fragments.incomplete} IP packets are in fragments of which the capture lacks some")
    source.fault = source.fault or damage
    used = [flow for flow in flows if any(half.stream.end for half in flow.halves.values())]
    found = [_conversation(flow, port) for flow in used]
    source.conversations = [conversation for conversation in found if _is_ours(conversation, port)]
    for number, conversation in enumerate(source.conversations, 1):
        conversation.number = number
        conversation.label = f"connection {number} ({conversation.label})"
        if source.fault is not None:
            for stream in conversation.sides.values():
                stream.lost = stream.lost or Lost.because(source.fault)
    skipped = len(found) - len(source.conversations)
    if skipped:
        chosen = f"on port {port}" if port else "beginning with HELLO (--port chooses by the server's port)"
        source.notes.append(f"{skipped} of {len(found)} TCP connections are not {chosen} and are left out")
    if not source.conversations and source.fault is None:
        wanted = f"has port {port}" if port else "begins with HELLO; --port names the server's port"
        source.fault = Fault("capture", f"holds no TCP connection that {wanted}", "capture.conversation", 0)
    return source


def _is_ours(conversation: Conversation, port: int | None) -> bool:
    if port is not None:
        return conversation.label.endswith(f":{port}")
    return _says_hello(conversation.sides[Role.CLIENT])


def _says_hello(stream: Stream) -> bool:
    """Whether a stream begins as a client's does, as far as it is there."""
    start = bytes(stream.view(0, 9))
    return bool(start) and any(hello.startswith(start) for hello in HELLO_STARTS)


def _conversation(flow: Flow, port: int | None) -> Conversation:
    client, server = flow.roles(port)
    halves = {Role.CLIENT: flow.halves.get(client, Half()), Role.SERVER: flow.halves.get(server, Half())}
    label = f"{client[0]}:{client[1]} to {server[0]}:{server[1]}"
    return Conversation(0, {role: half.finish() for role, half in halves.items()}, flow.whole, label)


def _packets(path: Path, flows: list[Flow], fragments: Fragments) -> Fault | None:
    """Add every TCP segment of a capture to its flow; return what scapy could not read.

    Raises:
        Misuse: without scapy.
    """
    logging.getLogger("scapy").setLevel(logging.ERROR)  # else it warns about this machine's interfaces and routes
    try:
        from scapy.utils import PcapReader

        _know_links_and_tunnels()
    except ImportError:
        raise Misuse("captures are read with scapy, which is not installed: pip install 'ggml-rpc-ref[pcap]'") from None
    current: dict[frozenset[End], Flow] = {}
    reader: Any = PcapReader  # takes an open file, though annotated str; one that it opened it might not close
    with path.open("rb") as file:
        at = 0
        try:
            with reader(file) as packets:
                at = file.tell()
                for order, packet in enumerate(packets):
                    when = order, int(packet.time * 10**9)
                    for joined in _joined(packet, fragments):
                        _take(joined, when, current, flows)
                    at = file.tell()
        except Exception as error:  # scapy lets out any exception that a damaged file leads to
            said = " ".join(str(error).split()) or type(error).__name__
            return Fault("packet" if at else "capture", f"can't be read: {said}", "capture.format", at)
    return None


def _know_links_and_tunnels() -> None:
    """Tell scapy of the layers that it has in modules of their own, and of numbers that it does not know."""
    for name in LAYERS:
        importlib.import_module(name)
    from scapy.layers import inet, vxlan
    from scapy.packet import bind_bottom_up

    bind_bottom_up(inet.UDP, vxlan.VXLAN, dport=LINUX_VXLAN_PORT)


def _take(packet: Any, when: tuple[int, int], current: dict[frozenset[End], Flow], flows: list[Flow]) -> None:
    from scapy.layers import inet, inet6
    from scapy.packet import Padding

    ip = tcp = packet.getlayer(inet.TCP)
    # the nearest one: that of a tunnel has the same two addresses for all that goes through it
    while ip is not None and not isinstance(ip, inet.IP | inet6.IPv6):
        ip = ip.underlayer
    if ip is None:
        return
    data = bytes(tcp.payload)
    if Padding in tcp:
        data = data[: len(data) - len(tcp[Padding].load)]
    wire_size = ip.len if isinstance(ip, inet.IP) else ip.plen + IPV6_HEAD
    cut_off = max(0, wire_size - len(ip.original))  # by the snap length; a size of 0 is one that the network card was to fill in
    _segment(tcp, ((ip.src, tcp.sport), (ip.dst, tcp.dport)), Segment(data, cut_off, *when), current, flows)


def _segment(
    tcp: Any,
    ends: tuple[End, End],
    segment: Segment,
    current: dict[frozenset[End], Flow],
    flows: list[Flow],
) -> None:
    """Add a segment to its flow; a client's SYN after data begins a new flow between the same ends."""
    sender, key = ends[0], frozenset(ends)
    syn, ack = bool(int(tcp.flags) & SYN), bool(int(tcp.flags) & ACK)
    flow = current.get(key)
    used = flow is not None and any(half.stream.end for half in flow.halves.values())
    if flow is None or (syn and not ack and used):
        flow = current[key] = Flow(ends)
        flows.append(flow)
    half = flow.halves.setdefault(sender, Half())
    if syn:
        if not half.begun:
            half.begin((tcp.seq + 1) % 2**32)
        flow.client = ends[1] if ack else sender
        flow.whole = flow.whole or not ack
    if segment.data or segment.cut_off:
        half.add((tcp.seq + syn) % 2**32, segment)


def _breaks_off(path: Path) -> Fault | None:
    """Check a capture's own framing: where a file breaks off, scapy stops without an error."""
    data = mapped(path)
    blocks = bytes(data[:4]) == PCAPNG_MAGIC
    at, length_at, extra, least = (0, 4, 0, 12) if blocks else (24, 8, 16, 0)
    order: Literal["little", "big"] = "little" if bytes(data[:1]) in (b"\xd4", b"\x4d") else "big"
    while at < len(data):
        if blocks and bytes(data[at : at + 4]) == PCAPNG_MAGIC:  # each section has a byte order of its own
            order = "little" if bytes(data[at + 8 : at + 9]) == b"\x4d" else "big"
        field_end = at + length_at + 4
        length = int.from_bytes(data[at + length_at : field_end], order) + extra
        if field_end > len(data) or (length >= least and at + length > len(data)):
            return Fault("packet", "breaks off in its middle", "capture.packet-whole", at)
        if length < least:
            return Fault("block length", f"is {length}; {least} is the least", "capture.block", at + length_at)
        at += length
    return None
