"""The 24 bytes of transport capabilities in HELLO: two layouts are known, both of RDMA, and nothing marks which one it is.

All zeros offer TCP alone; then no end ever leaves TCP. We offer zeros and never take up what the other end offers.

Source: transport.h and the RDMA transports of ggml-rpc through their history (facts; no machine with RDMA has been seen).
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Layout:
    """What the bytes mean to one kind of build.

    Attributes:
        name: of the kind.
        fields: name and `struct` code of each number before the GID, which has the last 16 bytes.
    """

    name: str
    fields: tuple[tuple[str, str], ...]

    def numbers(self, raw: bytes) -> dict[str, int]:
        """Return the numbers in 24 bytes, by name."""
        values = struct.unpack_from("<" + "".join(code for _, code in self.fields), raw)
        return {name: value for (name, _), value in zip(self.fields, values, strict=True)}


LINUX = Layout("Linux (RoCE or InfiniBand)", (("qpn", "I"), ("psn", "I")))
APPLE = Layout("Apple", (("qpn", "I"), ("lid", "H"), ("reserved", "H")))
PSN_MASK = 0xFFFFFF
"""Linux builds choose as psn the low 24 bits of qpn."""


def layout(raw: bytes) -> Layout | None:
    """Return the layout that 24 bytes fit, as far as that can be told; None for zeros and for what fits neither."""
    if not any(raw):
        return None
    linux = LINUX.numbers(raw)
    if linux["psn"] == linux["qpn"] & PSN_MASK:
        return LINUX
    return APPLE if APPLE.numbers(raw)["reserved"] == 0 else None


def describe(raw: bytes) -> str:
    """Return what capabilities offer, in words."""
    if not any(raw):
        return "TCP only"
    found = layout(raw)
    if found is None:
        return "unknown transport"
    numbers = ", ".join(f"{name} {value}" for name, value in found.numbers(raw).items() if name != "reserved")
    return f"RDMA of {found.name}: {numbers}, gid {ipaddress.IPv6Address(raw[8:24])}"
