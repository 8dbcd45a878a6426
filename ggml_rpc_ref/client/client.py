"""A client: connect to a server, ask for memory, send tensors, compute.

    with connect("127.0.0.1:50052") as client:
        device = client.devices[0]
        print(device.memory(), device.tensor(numpy_array).numpy())

Errors are those of `channel`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.device_info import count_devices
from ggml_rpc_ref.client.devices import Device, Devices
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import open_stream, parse_endpoint, parse_timeout
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version


def connect(
    endpoint: str,
    *,
    timeout: float | None = 60.0,
    connect_timeout: float | None = 10.0,
    proto: Version | str = DEFAULT,
    hashing: bool = True,
) -> Client:
    """Connect to a server and say HELLO.

    Args:
        endpoint: "host:port", "[::1]:port", or either without port.
        timeout: seconds that one answer may take; the reply to GET_TENSOR may wait for a whole graph. None: no limit.
        connect_timeout: seconds for looking up the name and connecting, and again for the answer to HELLO. None: no limit.
        proto: the version that this client speaks; the server's may be older within its major version.
        hashing: whether uploads over 10 MiB first ask whether the server has the data.

    Raises:
        Misuse: for an invalid endpoint, an unknown version, a time-out that is not above 0.
        ConnectionError, TimeoutError: where nobody answers.
        Unsupported: where the server's version does not fit; the sentence names both.
        Violation: where what answers does not speak this protocol.
    """
    answer, patience = parse_timeout(timeout), parse_timeout(connect_timeout, "connect_timeout")
    if not isinstance(endpoint, str):
        raise Misuse(f"endpoint = {endpoint!r}: it must be a text, HOST:PORT")
    try:
        own = proto if isinstance(proto, Version) else Version.parse(str(proto))
    except ValueError as error:
        raise Misuse(str(error)) from None
    if own not in PROFILES:
        raise Misuse(f"protocol {own} is not known here; known are {', '.join(map(str, PROFILES))}")
    where = parse_endpoint(endpoint)
    client = Client(open_stream(where.host, where.port, patience), own, hashing=hashing)
    try:
        client.greet(patience)
    except BaseException:
        client.close()
        raise
    client.timeout = answer
    return client


class Client(Channel):
    """A connection to a server and the server's devices, made by `connect`."""

    _devices: Sequence[Device] | None = None

    @property
    def devices(self) -> Sequence[Device]:
        """The server's devices; their number is asked for once.

        Raises:
            Violation: where the server has none.
        """
        with self.exclusively():
            if self._devices is None:
                self._devices = Devices(self, count_devices(self))
            return self._devices
