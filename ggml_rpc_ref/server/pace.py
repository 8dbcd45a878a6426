"""Whether a peer does its part of a message in time: no long silence, and no dripping.

A limit on silence alone lets a peer hold a connection for ever by sending, or reading, a byte now and then. So the time is cut into
windows as long as the silence allowed, and in each of them the peer must move some bytes or finish the message. Nothing is carried
over from one window to the next: what the system's socket buffers take at once is not a credit for the minutes that follow.
"""

from __future__ import annotations

import time
from typing import Final

SLOWEST: Final = 32 * 2**10
"""Bytes a second, 256 kbit/s: slower than any network on which offloading a model makes sense."""


class Pace:
    """One message, or one reply, on its way.

    Args:
        stall: seconds without a byte that end it; also the length of a window.
        slowest: bytes a second that must be moved in each window.
    """

    def __init__(self, stall: float, slowest: float = SLOWEST) -> None:
        self.stall, self.slowest = stall, slowest
        self._last = self._window = time.monotonic()
        self._moved = 0

    def moved(self, count: int) -> None:
        """Take note of bytes that have just been moved."""
        self._last = time.monotonic()
        self._moved += count

    def complaint(self, verb: str) -> str:
        """Return what is wrong, as "nothing came for 60 s" or "only 99 bytes came in 60 s"; an empty string where nothing is."""
        now = time.monotonic()
        if now - self._last >= self.stall:
            return f"nothing {verb} for {self.stall:g} s"
        if now - self._window >= self.stall:
            if self._moved < self.slowest * self.stall:
                return f"only {self._moved} bytes {verb} in {self.stall:g} s"
            self._window, self._moved = now, 0
        return ""
