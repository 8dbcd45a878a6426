"""The signals that end a command, and what they do."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

POLITE = (signal.SIGTERM, signal.SIGHUP)
"""`kill`, and a terminal that is closed."""
STREAMS = range(3)
"""The numbers of the standard streams."""


def ending(act: Callable[[int, Any], object], *numbers: signal.Signals) -> None:
    """Have a handler called for these signals, but not for a SIGHUP that `nohup` has ignored."""
    for number in numbers:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, act)


def as_ctrl_c() -> None:
    """Treat SIGTERM and SIGHUP as Ctrl-C.

    By default they end us at once, and leave behind the servers that we started, which are in sessions of their own, and our
    temporary files.
    """
    terminals = [stream for stream in STREAMS if os.isatty(stream)]

    def interrupt(number: int, frame: FrameType | None) -> None:
        # what is said to a terminal that is closed fails, and with it the reports that are written after it
        gone = [stream for stream in terminals if not os.isatty(stream)]
        if gone:
            nothing = os.open(os.devnull, os.O_RDWR)
            for stream in gone:
                os.dup2(nothing, stream)
            os.close(nothing)
        signal.default_int_handler(number, frame)

    ending(interrupt, *POLITE)
