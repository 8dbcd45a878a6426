"""The server: who may come in, what all connections together may use, and what it says of itself.

    with Server(host, "127.0.0.1", 0) as server:
        print(server.endpoint)

What happens on one connection is in `served`.
"""

from __future__ import annotations

import ipaddress
import os
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar

from ggml_rpc_ref.net.channel import Channel
from ggml_rpc_ref.net.listening import Listener
from ggml_rpc_ref.protocol.connection import Connection
from ggml_rpc_ref.server.communicator import Meeting, Network
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.served import Limits, Served, origin

__all__ = ["Limits", "Network", "Server"]


class Server(Listener[Served]):
    """A server that answers each connection in its own thread; it starts and stops as a `Listener`.

    Args:
        host: what is served.
        address: IPv4 or IPv6 address or host name to bind, every address that the name has.
        port: TCP port; 0: one that the kernel chooses.
        allow: networks that peers may come from; empty: any.
        limits: what a peer may take and use.

    Attributes:
        meeting: where it meets other servers for sums, and which.
        session_type: what answers the requests of one connection; a test may break a rule in a subclass.
        connection_type: what reads and writes the messages of one connection.

    Raises:
        Misuse: where the address can't be bound.
    """

    session_type: ClassVar[type[Session]] = Session
    connection_type: ClassVar[type[Connection]] = Connection

    def __init__(
        self, host: Host, address: str = "127.0.0.1", port: int = 0, *, allow: Sequence[Network] = (), limits: Limits | None = None
    ) -> None:
        super().__init__(address, port)
        self.host, self.allow, self.limits = host, tuple(allow), limits or Limits()
        self.meeting = Meeting(address, self.allow, self.is_loopback)
        self._started = time.monotonic()

    def _conversation(self, channel: Channel, name: str) -> Served:
        return Served(self, channel, name)

    def _objection(self, address: str) -> str:
        if not self._is_allowed(address):
            return "its address is not allowed"
        here, open_ = origin(address), self._open()
        crowd = [served for served in open_ if served.origin == here]
        full, crowded = len(open_) >= self.limits.connections, len(crowd) >= self.limits.most_of(here)
        if not full and not crowded:
            return ""
        why = "the server was full" if full else "its address had no place left"
        if self._give_way(crowd if crowded else open_, why):
            return ""
        return f"{len(open_)} connections are open" if full else f"{len(crowd)} connections of its address are open"

    def _make_room(self) -> None:
        """End a connection that has been idle for long: with `ulimit -n` below `Limits.connections` the server is full early."""
        if not any(served.ended_for and not served.over for served in self.conversations()):  # its descriptor will do
            self._give_way(self._open(), "no descriptor was left for another connection")

    def _is_allowed(self, address: str) -> bool:
        ip = ipaddress.ip_address(address)
        # a socket bound to "::" shows IPv4 peers as ::ffff:a.b.c.d; both forms count, and `in` is False for the other IP version
        mapped = getattr(ip, "ipv4_mapped", None) or ip
        return not self.allow or any(ip in network or mapped in network for network in self.allow)

    def _open(self) -> list[Served]:
        """Return the connections that take a place: one told to end may still be freeing its buffers in its own thread."""
        return [served for served in self.conversations() if not served.ended_for and not served.over]

    def _give_way(self, open_: Sequence[Served], why: str) -> bool:
        """Whether one of these connections could be ended for a new one, because it has been idle for long.

        First goes one without buffers; then one of the address that has most connections, so that a single peer can't occupy the
        server; among those, the one that has been idle longest. One that holds a model may think about its next token for hours,
        and is ended only after `Limits.spare_full` and only for this reason.
        """
        now, by_origin = time.monotonic(), Counter(served.origin for served in open_)
        spare = [served for served in open_ if served.idle(now) > self._spared(served)]
        if not spare:
            return False
        chosen = max(spare, key=lambda served: (not served.buffers, by_origin[served.origin], served.idle(now)))
        chosen.end(f"idle for {chosen.idle(now):.3g} s, and {why}")
        return True

    def _spared(self, served: Served) -> float:
        return self.limits.spare_full if served.buffers else self.limits.spare_empty

    def state(self) -> dict[str, Any]:
        """Return what the server is doing now, for `status` and SIGUSR1: sizes in bytes, times in seconds."""
        now, open_ = time.monotonic(), self.conversations()
        tensors = self.host.tensors
        return {
            "pid": os.getpid(),
            "endpoint": self.endpoint,
            "protocol": str(self.host.version),
            "protocols": [str(version) for version in self.host.versions],
            "seconds": round(now - self._started, 3),
            "devices": [
                {"name": device.name, "total": device.memory.total, "free": device.memory.free} for device in self.host.devices
            ],
            "graph_memory": {"used": self.host.graph_memory.used, "total": self.host.graph_memory.total},
            "cache": None if tensors is None else tensors.state(),
            "max_connections": self.limits.connections,
            "connections": [served.state(now) for served in open_],
        }
