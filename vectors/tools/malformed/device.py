"""Devices: indices out of range."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vectors.tools.malformed.case import Case, refused
from vectors.tools.malformed.protocol import (
    COMPUTE,
    DEVICE_COUNT,
    Request,
    alloc_buffer,
    f32,
    get_alloc_size,
    graph,
    hear,
    opened,
    recompute,
    say,
    tensor,
    u32,
    write,
)

LEFT = tensor(1024, [4], id=1)
TOTAL = tensor(2048, [4], id=2, op=2, src=(1, 1), flags=COMPUTE)

ON_DEVICE: dict[str, Callable[[int], Request]] = {
    "alloc-buffer": lambda device: alloc_buffer(64, device),
    "get-alignment": lambda device: Request("GET_ALIGNMENT", [u32(device)]),
    "get-max-size": lambda device: Request("GET_MAX_SIZE", [u32(device)]),
    "graph-compute": lambda device: graph([2], [LEFT, TOTAL], device),
    "get-device-memory": lambda device: Request("GET_DEVICE_MEMORY", [u32(device)]),
    "get-alloc-size": lambda device: get_alloc_size(LEFT, device=device),
    "graph-recompute": recompute,
}
"""The seven requests that name a device."""


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    before = [*opened(), write(LEFT, f32(1, 2, 3, 4)), say(graph([2], [LEFT, TOTAL]))]
    one = [say(DEVICE_COUNT), hear("DEVICE_COUNT", u32(1))]
    for words, request in ON_DEVICE.items():
        command = request(0).command
        yield refused(
            f"device.index/{words}-2-32-less-1",
            f"{command} for device 2^32-1, which no server has; -1 where the index is signed. It would index the list of devices.",
            "FUN-15",
            "out-of-bounds-read",
            [*before, say(request(2**32 - 1))],
        )
        yield refused(
            f"device.index/{words}-first-too-large",
            f"{command} for device 1 of a server that has one device: the first index past the last device.",
            "FUN-15",
            "out-of-bounds-read one-device",
            [*before, *one, say(request(1))],
        )
