"""The signals that end a command, and what they do."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import Any

POLITE = (signal.SIGTERM, signal.SIGHUP)
"""`kill`, and a terminal that is closed."""


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
    ending(signal.default_int_handler, *POLITE)
