"""Ask a server for its version and devices, changing nothing on it.

    report = probe("127.0.0.1:50052", timeout=10)
    print(report.text())

Only HELLO, DEVICE_COUNT, GET_DEVICE_MEMORY, GET_ALIGNMENT and GET_MAX_SIZE are sent. The server may be hostile: the size of each
reply is known before its bytes are read, all requests together take no longer than the time-out, and of many devices only the first
are asked.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.device_info import DeviceInfo, count_devices
from ggml_rpc_ref.client.ik import record_size
from ggml_rpc_ref.client.negotiate import greet
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.net.stream import Endpoint, open_stream, parse_endpoint
from ggml_rpc_ref.spec import caps
from ggml_rpc_ref.spec.dialects import IK, recognised
from ggml_rpc_ref.spec.versions import Version, named

MOST_DEVICES: Final = 16
"""Devices that are asked; llama.cpp uses up to 16 (llama_max_devices)."""
NO_LIMIT: Final = 2**64 - 1
"""The size of the largest buffer where a device has no limit."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One device: its index, and in bytes its free and total memory, its alignment and its largest buffer."""

    index: int
    free: int
    total: int
    alignment: int
    max_size: int


@dataclass(slots=True)
class Report:
    """A server's answers.

    Attributes:
        endpoint: its address.
        protocol: version in the reply to HELLO; None: no reply.
        device_count: number in the reply to DEVICE_COUNT; None: no reply.
        devices: the devices that were asked.
        error: what went wrong, as one sentence; None: nothing.
        dialect: the fork that answers HELLO so, in words; None: upstream, or a fork that HELLO does not tell apart.
        transport: what it offers beside TCP, in words; None: nothing.
    """

    endpoint: str
    protocol: str | None = None
    device_count: int | None = None
    devices: list[DeviceReport] = field(default_factory=list)
    error: str | None = None
    dialect: str | None = None
    transport: str | None = None

    def to_json(self) -> str:
        """Return one JSON object with these fields and `schema_version` 1."""
        return json.dumps({"schema_version": 1, **asdict(self)})

    def note_version(self, version: Version | None) -> None:
        """Note what HELLO was answered with."""
        if version is not None:
            self.protocol, fork = str(version), recognised(version)
            self.dialect = fork.name if fork else None

    @property
    def headline(self) -> str:
        """Endpoint, version and number of devices, as half a sentence."""
        said = f"protocol {named(Version.parse(self.protocol))}" if self.protocol else "no answer to HELLO"
        said += f" ({self.dialect})" if self.dialect else ""
        said += f", offers {self.transport}" if self.transport else ""
        if self.device_count is None:
            return f"{self.endpoint}: {said}"
        asked = f", of which {len(self.devices)} were asked" if self.device_count > len(self.devices) else ""
        return f"{self.endpoint}: {said}, {self.device_count} device{'' if self.device_count == 1 else 's'}{asked}"

    def rows(self) -> list[tuple[str, ...]]:
        """Return the table of devices, headings first."""
        body = [
            (str(device.index), _size(device.free), _size(device.total), str(device.alignment), _size(device.max_size))
            for device in self.devices
        ]
        return [("device", "free", "total", "alignment", "largest buffer"), *body]

    def text(self) -> str:
        """Return headline and table as plain lines."""
        rows = self.rows() if self.devices else []
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join([self.headline, *lines])


def _size(size: int) -> str:
    """Return a number of bytes with a binary unit; exact below 1 KiB."""
    if size == NO_LIMIT:
        return "no limit"
    for unit, power in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.2f} {unit}"
    return f"{size} B"


def probe(endpoint: str, timeout: float = 10.0, own: Version | None = None) -> Report:
    """Ask a server everything that can be asked without changing it, in at most `timeout` seconds.

    Whatever the server does wrong is the report's `error`.

    Args:
        endpoint: "host:port", "[::1]:port", or either without port.
        timeout: seconds.
        own: behave as a client of this version; None: any HELLO that is answered, and the server's version.

    Raises:
        Misuse: for an invalid endpoint.
    """
    where = parse_endpoint(endpoint)
    report = Report(str(where))
    try:
        _ask(where, report, time.monotonic() + timeout, own)
    except (Unsupported, Violation, ConnectionError, TimeoutError) as error:
        broke = f"{report.endpoint} broke the protocol: " if isinstance(error, Violation) else ""
        report.error = f"{broke}{error}"
    return report


def _ask(where: Endpoint, report: Report, end: float, own: Version | None) -> None:
    def left() -> float:
        # a time-out of 0 or less is a Misuse (`parse_timeout`); this one ends the next call at once
        return max(0.001, end - time.monotonic())

    opened: list[Channel] = []

    def connect(version: Version) -> Channel:
        opened.append(Channel(open_stream(where.host, where.port, left()), version, keeps=own is not None))
        return opened[-1]

    try:
        client = greet(connect, own, left)
    except (Unsupported, Violation):
        report.note_version(opened[-1].server_version if opened else None)
        raise
    report.note_version(client.server_version)
    if any(client.server_caps):
        report.transport = caps.describe(client.server_caps)
    with client:
        client.timeout = left()
        report.device_count = count_devices(client)
        for index in range(min(report.device_count, MOST_DEVICES)):
            device = DeviceInfo(client, index)
            answers: list[Any] = []
            for question in (device.memory, lambda: device.alignment, lambda: device.max_size):  # noqa: B023 (called at once)
                client.timeout = left()
                answers.append(question())
            report.devices.append(DeviceReport(device.index, *answers[0], *answers[1:]))
            _check(report.devices[-1], f"{device}")
    if recognised(client.server_version or client.version) is IK:
        # after the rest: a server that serves one client at a time answers this only once the connection has ended
        size = record_size(where, left)
        report.dialect = f"{IK.name}, tensor records of {size} bytes" if size else f"{IK.name}, tensor records of unknown size"


def _check(said: DeviceReport, device: str) -> None:
    """Raise Violation for what no device can have; the figures stay in the report."""
    if said.free > said.total:
        raise Violation("device.memory", "free_mem", said.free, f"{device} has {said.total} in total")
    if not said.max_size:
        raise Violation("device.max-size", "max_size", 0, f"{device} can make no buffer")
