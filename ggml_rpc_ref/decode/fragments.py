"""IP packets from their fragments, as RFC 791 and RFC 8200 have them. Packets are scapy's; `pcap` hands them in."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

MORE_FRAGMENTS: Final = 0x1
IPV6_HEAD: Final = 40
"""Bytes of an IPv6 header, which its payload length does not count."""
IPV6_NEXT: Final = 6
"""Where in an IPv6 header the number of the next header stands; an extension header begins with it."""
FRAGMENT_HEAD: Final = 8
"""Bytes of IPv6's fragment header."""


class Fragment(NamedTuple):
    """A part of an IP packet.

    Attributes:
        version: of IP.
        key: what is the same in all parts of a packet, and differs between packets.
        at: where its body belongs, in units of eight bytes.
        more: whether others follow.
        body: its part of what was divided.
        head: the packet's header as it would stand before all of it, but for the length.
    """

    version: int
    key: tuple[Any, ...]
    at: int
    more: bool
    body: bytes
    head: bytes

    def before(self, body: bytes) -> bytes:
        """Return the packet that has this header and a whole body."""
        # IPv4's length counts its header, IPv6's what follows the first 40 bytes
        at, counted = (2, len(self.head)) if self.version == 4 else (4, len(self.head) - IPV6_HEAD)
        length = min(counted + len(body), 0xFFFF).to_bytes(2, "big")
        return self.head[:at] + length + self.head[at + 2 :] + body


def of_ipv4(ip: Any) -> Fragment | None:
    """Return what an IPv4 packet is a part of; None for a whole one."""
    more = bool(int(ip.flags) & MORE_FRAGMENTS)
    if not (ip.frag or more):
        return None
    size = max(20, 4 * ip.ihl)
    head = ip.original[:6] + bytes(2) + ip.original[8:size]  # without the flag and the place
    return Fragment(4, (4, ip.src, ip.dst, ip.proto, ip.id), ip.frag, more, ip.original[size : ip.len], head)


def of_ipv6(ip: Any, fragment: Any) -> Fragment | None:
    """Return what an IPv6 packet with a fragment header is a part of; None for one that is all there is."""
    if not (fragment.offset or fragment.m):
        return None
    packet, before = ip.original[: IPV6_HEAD + ip.plen], fragment.underlayer
    start = len(packet) - len(fragment.original)
    # the header before this one names what comes after it, since this one is left out (RFC 8200, section 4.5)
    next_at = IPV6_NEXT if before is ip else len(packet) - len(before.original)
    head = packet[:next_at] + bytes([fragment.nh]) + packet[next_at + 1 : start]
    return Fragment(6, (6, ip.src, ip.dst, fragment.id), fragment.offset, bool(fragment.m), packet[start + FRAGMENT_HEAD :], head)


class Fragments:
    """The fragments of packets that are not complete yet."""

    def __init__(self) -> None:
        self._parts: dict[tuple[Any, ...], dict[int, Fragment]] = {}
        self._dropped = 0

    def add(self, fragment: Fragment) -> bytes:
        """Keep a fragment; return the whole packet once all of it is there."""
        parts = self._parts.setdefault(fragment.key, {})
        if fragment.at in parts:  # the number is used again, 65,536 packets later
            self._dropped += 1
            parts.clear()
        parts[fragment.at] = fragment
        body = b""
        while (part := parts.get(len(body) // 8)) is not None:
            body += part.body
            if part.more and (not part.body or len(part.body) % 8):  # no fragment but the last may be so: the next has no place
                return b""
            if not part.more:
                del self._parts[fragment.key]
                return parts[0].before(body)
        return b""

    @property
    def incomplete(self) -> int:
        """How many packets lack fragments."""
        return self._dropped + len(self._parts)
