"""What the command `probe` does: ask a server what it has, changing nothing on it.

    report = probe("127.0.0.1:50052", timeout=10)
    print(report.text())

Only HELLO, DEVICE_COUNT, GET_DEVICE_MEMORY, GET_ALIGNMENT and GET_MAX_SIZE are sent. The server may be hostile: every answer has a
known size before its bytes are read, all of it together takes no longer than the time-out, and of many devices the first are asked.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from ggml_rpc_ref.client.client import Client
from ggml_rpc_ref.errors import Unsupported, Violation
from ggml_rpc_ref.net.stream import Endpoint, open_stream, parse_endpoint
from ggml_rpc_ref.spec.versions import DEFAULT

MOST_DEVICES: Final = 16
"""Devices that are asked; llama.cpp uses up to 16 (llama_max_devices)."""
NO_LIMIT: Final = 2**64 - 1
OK, UNREACHABLE = 0, 3
"""Exit codes, as in `cli`."""


@dataclass(frozen=True, slots=True)
class DeviceReport:
    """One device: index, and bytes of free and total memory, of alignment and of the largest buffer."""

    index: int
    free: int
    total: int
    alignment: int
    max_size: int


@dataclass(slots=True)
class Report:
    """What is known of a server.

    Attributes:
        endpoint: as it was reached.
        protocol: what HELLO answered; None: no answer.
        device_count: what DEVICE_COUNT answered; None: no answer.
        devices: those that were asked.
        error: what went wrong, as one sentence; None: nothing.
    """

    endpoint: str
    protocol: str | None = None
    device_count: int | None = None
    devices: list[DeviceReport] = field(default_factory=list)
    error: str | None = None

    def to_json(self) -> str:
        """Return one JSON object with these fields and `schema_version` 1."""
        return json.dumps({"schema_version": 1, **asdict(self)})

    @property
    def headline(self) -> str:
        """Endpoint, version and number of devices, as half a sentence."""
        said = f"protocol {self.protocol}" if self.protocol else "no answer to HELLO"
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
    """Return bytes with a binary unit; exact below 1 KiB."""
    if size == NO_LIMIT:
        return "no limit"
    for unit, power in (("EiB", 60), ("PiB", 50), ("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 2**power:
            return f"{size / 2**power:.2f} {unit}"
    return f"{size} B"


def probe(endpoint: str, timeout: float = 10.0) -> Report:
    """Ask a server everything that can be asked without changing it; never longer than `timeout` seconds.

    Raises:
        Misuse: for an endpoint that is none. Whatever the server does wrong is the report's `error`.
    """
    where = parse_endpoint(endpoint)
    report = Report(str(where))
    try:
        _ask(where, report, time.monotonic() + timeout)
    except (Unsupported, Violation, ConnectionError, TimeoutError) as error:
        broke = f"{report.endpoint} broke the protocol: " if isinstance(error, Violation) else ""
        report.error = f"{broke}{error}"
    return report


def _ask(where: Endpoint, report: Report, end: float) -> None:
    def left() -> float:
        return max(0.001, end - time.monotonic())

    with Client(open_stream(where.host, where.port, left()), DEFAULT) as client:
        try:
            client.greet(left())
        except Unsupported:
            report.protocol = str(client.server_version)
            raise
        report.protocol = str(client.server_version)
        client.timeout = left()
        report.device_count = len(client.devices)
        for device in client.devices[:MOST_DEVICES]:
            answers: list[Any] = []
            for question in (device.memory, lambda: device.alignment, lambda: device.max_size):  # noqa: B023 (called at once)
                client.timeout = left()
                answers.append(question())
            report.devices.append(DeviceReport(device.index, *answers[0], *answers[1:]))


def run(endpoint: str, timeout: float, *, as_json: bool) -> int:
    """Probe, print the report to standard output and what went wrong to standard error; return the exit code."""
    report = probe(endpoint, timeout)
    if as_json:
        print(report.to_json())
    elif report.protocol is not None:
        _show(report)
    if report.error is not None:
        print(f"ggml-rpc-ref: {report.error}", file=sys.stderr)
    return OK if report.error is None else UNREACHABLE


def _show(report: Report) -> None:
    """Print for people: a table on a terminal, plain lines elsewhere."""
    if not sys.stdout.isatty():
        print(report.text())
        return
    from rich.console import Console
    from rich.table import Table

    headings, *rows = report.rows()
    table = Table(title=report.headline, title_justify="left")
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table if rows else report.headline)
