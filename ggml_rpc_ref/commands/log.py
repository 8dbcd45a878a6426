"""The log of the package as `serve` and `proxy` show it: lines for people on standard error, or JSON lines on standard output."""

from __future__ import annotations

import json
import logging
import sys
import time

from ggml_rpc_ref.errors import Misuse

LEVELS = ("debug", "info", "warning", "error")


def start_log(level: str, *, as_json: bool) -> None:
    """Send the package's log to standard error as text, or to standard output as JSON, one object a line.

    Raises:
        Misuse: for an unknown level.
    """
    if level not in LEVELS:
        raise Misuse(f"there is no log level {level!r}: choose from {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stdout if as_json else sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    logger = logging.getLogger("ggml_rpc_ref")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())
    logging.raiseExceptions = False  # a reader that closes our standard output must not fill standard error with tracebacks


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
    """One JSON object for programs: time (UTC), level, event, message; for a refusal also peer, rule, field and value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        entry = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        entry |= {key: getattr(record, key) for key in ("peer", "rule", "field", "value") if hasattr(record, key)}
        if record.exc_info is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def utc(seconds: float) -> str:
    """Return a time since the epoch as ISO 8601 in UTC, with milliseconds."""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"
