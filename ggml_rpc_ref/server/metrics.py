"""What a server has done, for its log and for `status`: counts of each connection, and a picture of the whole server."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(slots=True)
class Work:
    """What one connection has done so far.

    Attributes:
        messages: requests that came whole.
        received: bytes that came.
        sent: bytes that the system took over for sending.
        graphs: graphs that were computed, again or for the first time.
        computing: seconds that they took, their checks included.
        cache_hits: uploads that the tensor cache saved.
        opened: when it was accepted, `time.monotonic`.
    """

    messages: int = 0
    received: int = 0
    sent: int = 0
    graphs: int = 0
    computing: float = 0.0
    cache_hits: int = 0
    opened: float = field(default_factory=time.monotonic)

    def plus(self, messages: int, received: int, sent: int, graphs: int, computing: float) -> Work:
        """Return this and so much more."""
        return replace(
            self,
            messages=self.messages + messages,
            received=self.received + received,
            sent=self.sent + sent,
            graphs=self.graphs + graphs,
            computing=self.computing + computing,
        )

    @property
    def seconds(self) -> float:
        """How long the connection has been open."""
        return time.monotonic() - self.opened

    def __str__(self) -> str:
        text = f"{self.messages} messages, {amount(self.received)} received, {amount(self.sent)} sent"
        if self.graphs:
            text += f", {self.graphs} graphs in {self.computing:.3g} s"
        if self.cache_hits:
            text += f", {self.cache_hits} uploads from the cache"
        return f"{text}, open for {self.seconds:.3g} s"

    def as_json(self) -> dict[str, Any]:
        """Return the counts by name; times in seconds."""
        return {
            "messages": self.messages,
            "received": self.received,
            "sent": self.sent,
            "graphs": self.graphs,
            "computing": round(self.computing, 6),
            "cache_hits": self.cache_hits,
            "seconds": round(self.seconds, 6),
        }


def amount(size: float) -> str:
    """Return a number of bytes for people: "300 B", "1.2 MiB"."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
