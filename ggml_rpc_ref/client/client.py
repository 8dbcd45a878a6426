"""A client: connect to a server of any version, ask for memory, send tensors, compute.

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
from ggml_rpc_ref.client.negotiate import greet
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import open_stream, parse_endpoint, parse_timeout
from ggml_rpc_ref.spec.versions import PROFILES, Version


def connect(
    endpoint: str,
    *,
    timeout: float | None = 60.0,
    connect_timeout: float | None = 10.0,
    proto: Version | str | None = None,
    hashing: bool = True,
) -> Client:
    """Connect to a server, say HELLO and go on in its version.

    Args:
        endpoint: "host:port", "[::1]:port", or either without port.
        timeout: seconds that one answer may take; the reply to GET_TENSOR may wait for a whole graph. None: no limit.
        connect_timeout: seconds for looking up the name and connecting, and again for the answer to HELLO; for each form of HELLO
            that is tried. None: no limit.
        proto: behave as a client of this version: say its HELLO, go on only if it accepts the server's version, and then in its
            own. (default: any HELLO that is answered, and the server's version)
        hashing: whether uploads over 10 MiB first ask whether the server has the data.

    Raises:
        Misuse: for an invalid endpoint, an unknown version, a time-out that is not above 0.
        ConnectionError, TimeoutError: where nobody answers.
        Unsupported: where the server's version does not fit; the sentence names both.
        Violation: where what answers does not speak this protocol.
    """
    answer, patience = parse_timeout(timeout), parse_timeout(connect_timeout, "connect_timeout")
    own = None if proto is None else _known(proto)
    where = parse_endpoint(endpoint)

    def opened(version: Version) -> Client:
        stream = open_stream(where.host, where.port, patience)
        return Client(stream, version, keeps=own is not None, hashing=hashing)

    client = greet(opened, own, lambda: patience)
    client.timeout = answer
    return client


def _known(proto: Version | str) -> Version:
    try:
        version = proto if isinstance(proto, Version) else Version.parse(str(proto))
    except ValueError as error:
        raise Misuse(str(error)) from None
    if version not in PROFILES:
        raise Misuse(f"protocol {version} is not known here; known are {', '.join(map(str, PROFILES))}")
    return version


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
