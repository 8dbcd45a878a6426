"""A server in this process, for programs and tests that want one without a command line.

with ggml_rpc_ref.Server() as server, ggml_rpc_ref.connect(server.endpoint) as client:
    print(client.devices[0].memory())
"""

from __future__ import annotations

from ggml_rpc_ref.server import server
from ggml_rpc_ref.server.host import AUTO_WORD, make_host


class Server(server.Server):
    """A server that answers from its construction on, until the end of its `with` or `close`; a thread for each connection.

    Args:
        devices: names of backends, separated by commas; a name may be repeated.
        memory: bytes that the buffers of each device may have together. (default: as `serve` without -m)
        address: IPv4 or IPv6 address or host name to bind.
        port: TCP port; 0: one that the kernel chooses, which `endpoint` names.
        proto: the protocol version that is spoken, e.g. "7.0.0"; or "auto": 3.6.1 or 8.0.0, by a client's HELLO; or
            "auto:2.0.0,7.0.0" for a choice of others.

    Raises:
        Misuse: for a device that is unknown or can't be used here, for an unknown protocol version, and where the address can't be
            bound, or an argument is of another type.
    """

    def __init__(
        self,
        devices: str = "oracle",
        *,
        memory: int | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        proto: str = AUTO_WORD,
    ) -> None:
        super().__init__(make_host(devices, memory=memory, proto=proto), address, port)
        # a client would wait for an answer that never comes, if a program, or a notebook, has no place for a `with`
        self.begin()

    def close(self) -> None:
        """Stop listening and end every connection; a second time does nothing."""
        self.shutdown()
