"""The log of the package as `serve` and `proxy` show it: lines for people on standard error, or JSON lines on standard output.

Nothing that a peer does may depend on who reads the log: a pipe that nobody drains takes 64 KiB, and with a handler that writes in
the thread that logs, every connection that has something to say then waits for ever (issue 9: after 575 refusals). Lines are
queued, a thread writes them, and what finds no room is counted.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Lock, Thread
from typing import Final, TextIO

from ggml_rpc_ref.errors import Misuse

LEVELS = ("debug", "info", "warning", "error")
QUEUED: Final = 10_000
"""Lines that wait for their reader."""
BURST: Final = 200
"""Lines about one address that are written at once."""
RATE: Final = 20.0
"""Lines about it a second afterwards."""
PEERS: Final = 1024
"""Addresses whose lines are counted; the one that was heard of longest ago makes room."""
FIELDS: Final = ("peer", "rule", "field", "value", "count", "work", "state")
"""What a record may have beside its message: of a refusal the rule, field and value; of a connection that ended, its work; of a
server that was asked (SIGUSR1), its state."""
PATIENCE: Final = 1.0
"""Seconds that the end of the process waits for the log to be written."""


def start_log(level: str, *, as_json: bool) -> LogWriter:
    """Send the package's log to standard error as text, or to standard output as JSON, one object a line.

    Raises:
        Misuse: for an unknown level.
    """
    if level not in LEVELS:
        raise Misuse(f"there is no log level {level!r}: choose from {', '.join(LEVELS)}")
    writer = LogWriter(sys.stdout if as_json else sys.stderr)
    writer.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger("ggml_rpc_ref")
    logger.handlers, logger.propagate = [writer], False
    logger.setLevel(level.upper())
    logging.raiseExceptions = False  # a reader that closes our standard output must not fill standard error with tracebacks
    return writer


@contextmanager
def servers_unlogged() -> Iterator[None]:
    """Keep the servers of this process from logging what they refuse, where that is what is looked for."""
    servers = logging.getLogger("ggml_rpc_ref.server")
    before = servers.level
    servers.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        servers.setLevel(before)  # a process may do more than one thing: tests do


class LogWriter(logging.Handler):
    """Queues formatted lines and writes them in a thread of its own: logging never waits for a reader.

    Args:
        stream: where the lines go.
        queued: lines that may wait.

    Attributes:
        dropped: lines that found no room; the log says so once it can.
    """

    def __init__(self, stream: TextIO, queued: int = QUEUED) -> None:
        super().__init__()
        self.dropped = 0
        self._stream, self._queued, self._allowance = stream, queued, Allowance()
        self._lines: deque[str] = deque()
        self._writing, self._told = False, time.monotonic()
        self._changed = Condition()
        Thread(target=self._write_all, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, unless too many about the same peer came just before; debug lines are bounded by the queue alone."""
        peer = getattr(record, "peer", "").rpartition(":")[0]
        if peer and record.levelno > logging.DEBUG and not self._allowance.take(peer, time.monotonic()):
            return
        self.write(self.format(record))

    def write(self, line: str) -> None:
        """Queue a line as it is."""
        with self._changed:
            if len(self._lines) < self._queued:
                self._lines.append(line)
                self._changed.notify_all()
            else:
                self.dropped += 1

    def flush(self) -> None:
        """Wait for the queue to be written, as long as PATIENCE."""
        self.drain()

    def drain(self, patience: float = PATIENCE) -> bool:
        """Wait for the queue to be written; return whether it is. Where it isn't, a thread may hold the stream's lock for ever."""
        self._say_what_was_left_out(float("inf"))
        with self._changed:
            return self._changed.wait_for(lambda: not self._lines and not self._writing, patience)

    def _write_all(self) -> None:
        while True:
            line = self._next()
            if line is not None:
                try:
                    self._stream.write(f"{line}\n")
                    self._stream.flush()
                except (OSError, ValueError):  # the reader has gone
                    pass
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                dropped, self.dropped = (self.dropped, 0) if not self._lines else (0, self.dropped)
            if dropped:
                self.write(self.format(_counted(dropped, "the log", "nobody read it")))

    def _next(self) -> str | None:
        """Return the next line; None after a second without one."""
        now = time.monotonic()
        if now - self._told >= 1.0:
            self._told = now
            self._say_what_was_left_out(now)
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._lines), 1.0):
                return None
            self._writing = True
            return self._lines.popleft()

    def _say_what_was_left_out(self, now: float) -> None:
        for record in self._allowance.left_out(now):
            self.write(self.format(record))


@dataclass(slots=True)
class _Account:
    """How many lines a peer may have written since when, and how many were left out."""

    lines: float
    since: float
    left_out: int = 0

    def refill(self, now: float) -> float:
        """Return how many lines may be written now."""
        self.lines, self.since = min(BURST, self.lines + (now - self.since) * RATE), now
        return self.lines


class Allowance:
    """How many lines about each peer may be written: BURST at once, RATE a second, for the PEERS heard of last."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lock = Lock()

    def take(self, peer: str, now: float) -> bool:
        """Return whether a line about this address may be written now; count it where it may not."""
        with self._lock:
            account = self._accounts.setdefault(peer, _Account(BURST, now))
            self._accounts.move_to_end(peer)
            if len(self._accounts) > PEERS:
                self._accounts.popitem(last=False)
            if account.refill(now) < 1:
                account.left_out += 1
                return False
            account.lines -= 1
            return True

    def left_out(self, now: float) -> list[logging.LogRecord]:
        """Return a record for each address about which lines were left out and one may be written again; they count as told."""
        records = []
        with self._lock:
            for peer, account in self._accounts.items():
                if account.left_out and account.refill(now) >= 1:
                    records.append(_counted(account.left_out, peer, "too many at once"))
                    account.left_out = 0
        return records


def _counted(count: int, whose: str, reason: str) -> logging.LogRecord:
    message = f"left out {count} lines of {whose}: {reason}"
    fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING", "event": "left out", "count": count}
    return logging.makeLogRecord({**fields, "msg": message})


class TextFormatter(logging.Formatter):
    """One line for people: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; characters that are not printable are escaped, since a peer may have chosen them."""
        message = record.getMessage()
        if not message.isprintable():
            message = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in message)
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower()}: {message}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class JsonFormatter(logging.Formatter):
    """One JSON object for programs: time (UTC), level, event, message, and those of FIELDS that the record has."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        entry = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        entry |= {key: getattr(record, key) for key in FIELDS if hasattr(record, key)}
        if record.exc_info is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def utc(seconds: float) -> str:
    """Return a time since the epoch as ISO 8601 in UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
