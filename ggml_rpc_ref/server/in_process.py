"""A server in this process, for programs and tests that want one without a command line.

with ggml_rpc_ref.Server() as server, ggml_rpc_ref.connect(server.endpoint) as client:
    print(client.devices[0].memory())
"""

from __future__ import annotations

from ggml_rpc_ref.server import server
from ggml_rpc_ref.server.host import make_host


class Server(server.Server):
    """A server that answers inside its `with`, each connection in a thread of its own.

    Args:
        devices: names of backends, separated by commas; a name may be repeated.
        memory: bytes that the buffers of each device may have together. (default: as `serve` without -m)
        address: IPv4 or IPv6 address or host name to bind.
        port: TCP port; 0: one that the kernel chooses, which `endpoint` names.

    Raises:
        Misuse: for a device that is unknown or can't be used here, and where the address can't be bound.
    """

    def __init__(self, devices: str = "oracle", *, memory: int | None = None, address: str = "127.0.0.1", port: int = 0) -> None:
        super().__init__(make_host(devices, memory=memory), address, port)
