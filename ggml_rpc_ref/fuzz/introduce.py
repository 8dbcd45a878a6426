"""Who is there: the version that a server speaks, its devices, and whether it serves more than one client at a time."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.converse import NoRoom, opened
from ggml_rpc_ref.fuzz.session import Buffer
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.negotiation import not_spoken
from ggml_rpc_ref.spec.messages import (
    DeviceCount,
    DeviceCountReply,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    Hello,
    by_number,
    layouts,
)
from ggml_rpc_ref.spec.versions import PROFILES, Version

SECOND_CLIENT: Final = 0.5
"""Seconds without an answer to a second client after which a server is taken to serve one at a time."""
LARGEST_HELLO: Final = 64


@dataclass(frozen=True, slots=True)
class Introduction:
    """What is known of a server.

    Attributes:
        version: the protocol version that it speaks.
        devices: how many it has.
        one_client: whether it leaves a second client waiting.
    """

    version: Version
    devices: int = 1
    one_client: bool = True


def introduce(endpoint: Endpoint, timeout: float) -> Introduction:
    """Ask a server for its version and devices.

    Raises:
        ConnectionError: where it can't be reached, does not speak the protocol, or speaks a version that is not known.
        TimeoutError: where it does not answer.
    """
    version = version_of(endpoint, timeout)
    if version not in PROFILES:
        raise ConnectionError(f"{endpoint} {not_spoken(version)}")
    try:
        with open_stream(*endpoint, timeout=timeout) as stream:
            opened(stream, (), version)
            devices = 1
            if DeviceCount in {row.cls for row in by_number(version).values()}:
                stream.send(codec.encode_request(DeviceCount(), version))
                devices = codec.decode(DeviceCountReply, stream.receive_exactly(12)[8:], version).device_count
            second = _second_client(endpoint, version)
        # the first client has gone: one that waited is served now. Left before its answer, a genuine server would die of SIGPIPE
        return Introduction(version, max(1, min(devices, 16)), second is not None and _waits(second))
    except (Violation, PeerClosed) as error:
        raise ConnectionError(f"{endpoint} answers HELLO and then not as protocol {version} has it: {error}") from None


def version_of(endpoint: Endpoint, timeout: float) -> Version:
    """Return the version in the reply to HELLO, which is said in each form that it has had, oldest first.

    Raises:
        ConnectionError, TimeoutError: as `introduce`.
    """
    problem = ""
    for form in layouts(Hello):
        with open_stream(*endpoint, timeout=timeout) as stream:
            try:
                stream.send(codec.encode_request(Hello(), form))
                (size,) = codec.REPLY_HEAD.unpack(stream.receive_exactly(codec.REPLY_HEAD.size))
                if not 3 <= size <= LARGEST_HELLO:
                    raise ConnectionError(f"{endpoint} answers HELLO with {_words(size)}: it does not speak ggml RPC")
                return Version(*stream.receive_exactly(size)[:3])
            except PeerClosed as closed:
                problem = f"{closed}{f' after the bytes {closed.seen.hex()}' if closed.seen else ''}"
            except DeadlineMissed as missed:
                raise TimeoutError(f"{endpoint} does not answer HELLO within {timeout:g} s: {missed}") from None
    raise ConnectionError(f"{endpoint} names no version: {problem}")


def _words(size: int) -> str:
    """Return the size in an answer as what it is: bytes of another protocol are often text."""
    text = size.to_bytes(8, "little")
    return repr(text.decode()) if text.isascii() and text.decode().isprintable() else f"a size of {size}"


def _second_client(endpoint: Endpoint, version: Version) -> Stream | None:
    """Return a second connection whose HELLO was not answered; None where it was."""
    stream = open_stream(*endpoint, timeout=SECOND_CLIENT)
    try:
        opened(stream, (), version)
    except DeadlineMissed:
        return stream
    except (PeerClosed, Violation):
        pass  # it was answered, if only with an end
    stream.close()
    return None


def _waits(stream: Stream) -> bool:
    """Wait for the answer to a HELLO that was said; True."""
    with stream, contextlib.suppress(DeadlineMissed, PeerClosed):
        stream.receive(LARGEST_HELLO, timeout=4 * SECOND_CLIENT)
    return True


def free_memory(endpoint: Endpoint, version: Version, timeout: float) -> int | None:
    """Return the bytes that device 0 has free; None where it does not say."""
    try:
        with open_stream(*endpoint, timeout=timeout) as stream:
            opened(stream, (), version)
            stream.send(codec.encode_request(GetDeviceMemory(), version))
            return codec.decode(GetDeviceMemoryReply, stream.receive_exactly(24)[8:], version).free_mem
    except (Violation, ConnectionError, TimeoutError):
        return None


def shown_address(endpoint: Endpoint, version: Version, timeout: float, pid: int | None) -> int:
    """Return a handle or base of a buffer that is an address of the server's process; 0 where none is, or we can't see."""
    maps = Path(f"/proc/{pid}/maps")
    try:
        with open_stream(*endpoint, timeout=timeout) as stream:
            numbers = opened(stream, [Buffer(n, size) for n, size in enumerate((64, 2**20, 2**22))], version)
            # read while the buffers are there: large ones are mapped only then
            mapped = [[int(end, 16) for end in line.split(" ", 1)[0].split("-")] for line in maps.read_text().splitlines()]
    except (NoRoom, Violation, OSError):
        return 0
    shown = [number for pair in numbers.values() for number in pair]
    return next((number for number in shown if any(start <= number < end for start, end in mapped)), 0)
