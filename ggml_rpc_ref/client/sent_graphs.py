"""Which graphs a server has for GRAPH_RECOMPUTE, as far as its client can know.

A device has the last graph that was sent, and where graphs have a uid, one for each of them. A stock client gives every graph a new
uid, and both ends drop all graphs of a device once they have counted to 1,024; but whether a graph that was dropped with a buffer
still counts differs between servers. Here the uids are few and are used again, so that no server ever counts that far.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from typing import Final

MOST: Final = 64
"""Graphs that are remembered for a device where graphs have uids; far below the 1,024 at which a server drops all of them."""


class SentGraphs:
    """The graphs of one connection that can be computed again.

    Args:
        by_uid: whether graphs have uids; if not, the last one counts.
    """

    def __init__(self, by_uid: bool) -> None:
        self._by_uid = by_uid
        self._sent: dict[int, OrderedDict[bytes, int]] = {}

    def find(self, device: int, payload: bytes) -> int | None:
        """Return the uid under which a device has a graph (0 where graphs have none); None where it does not have it.

        Args:
            device: index.
            payload: that of GRAPH_COMPUTE, with uid 0. All its bytes count: another graph must not be replayed (FUN-03).
        """
        sent, key = self._sent.get(device, OrderedDict()), self._key(payload)
        if key not in sent:
            return None
        sent.move_to_end(key)
        return sent[key]

    def replace(self, device: int) -> int:
        """Return the uid under which to send a graph, and forget the one that the server had under it."""
        sent = self._sent.setdefault(device, OrderedDict())
        if not self._by_uid:
            sent.clear()
            return 0
        if len(sent) < MOST:
            taken = set(sent.values())
            return next(uid for uid in range(1, MOST + 1) if uid not in taken)
        return sent.popitem(last=False)[1]

    def add(self, device: int, payload: bytes, uid: int) -> None:
        """Note that a graph has been sent."""
        self._sent.setdefault(device, OrderedDict())[self._key(payload)] = uid

    def forget(self, device: int | None = None) -> None:
        """Forget what a device has, or all devices."""
        if device is None:
            self._sent.clear()
        else:
            self._sent.pop(device, None)

    def _key(self, payload: bytes) -> bytes:
        # of one graph the bytes themselves are kept: comparing them is quicker than a hash of them
        return blake2b(payload, digest_size=32).digest() if self._by_uid else payload
