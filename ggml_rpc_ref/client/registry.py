"""ggml's C interface to RPC servers, ggml-rpc.h, name for name: servers, their devices, their buffer types.

    backend = rpc_init("127.0.0.1:50052")
    weights = backend.tensor(array)

A backend has no connection of its own. One connection per server serves all that is asked of it; buffers hold it, and it ends
with the last of them, as upstream's does (get_socket in ggml-rpc.cpp keeps a weak pointer). What needs no buffer, asked while there
is none, connects for that one request.
"""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.client import Client, connect
from ggml_rpc_ref.client.device_info import DeviceMemory, count_devices
from ggml_rpc_ref.client.devices import Device, NoSuchDevice
from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.client.words import U32, whole
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.net.stream import parse_endpoint
from ggml_rpc_ref.spec.transport import MAX_SERVERS, QUEUE_SINCE

_lock = threading.RLock()
_connections: weakref.WeakValueDictionary[str, Client] = weakref.WeakValueDictionary()
_backends: weakref.WeakValueDictionary[tuple[str, int], RpcBackend] = weakref.WeakValueDictionary()
_entries: dict[str, RegistryEntry] = {}


@dataclass(frozen=True, slots=True)
class Waits:
    """How long a server may take: seconds to connect, and for one answer; None: for ever."""

    connect: float | None = 10.0
    answer: float | None = 60.0


class RpcBackend(Device):
    """A device of a server, by endpoint and index (ggml_backend_rpc_init); the same object for as long as one is held.

    Attributes:
        endpoint: the server, "HOST:PORT".
        index: the device's number there.
        waits: how long its server may take.
    """

    def __init__(self, endpoint: str, index: int) -> None:
        self.endpoint, self.index, self.waits = endpoint, index, Waits()
        self._alignment = self._max_size = 0

    @property
    def client(self) -> Client:  # type: ignore[override]  # settable in Device, which holds its connection
        """The connection that all buffers of this server share; a new one where there is none."""
        return _shared(self.endpoint, self.waits)

    @property
    def name(self) -> str:
        """What ggml calls it."""
        return f"RPC{self.index}[{self.endpoint}]"

    def __repr__(self) -> str:
        return f"<device {self.index} of {self.endpoint}>"

    def alloc(self, size: int) -> RemoteBuffer:
        """Allocate a buffer."""
        held = self.client  # until the buffer holds it: the server frees what a connection had when that ends
        buffer = super().alloc(size)
        assert buffer.client is held
        return buffer

    def _require_own(self, tensor: RemoteTensor) -> None:
        super()._require_own(tensor)
        # its handle may mean another buffer on the connection that has taken the place of its own
        buffer = tensor.owner.buffer
        if isinstance(buffer, RemoteBuffer) and buffer.client.ended:
            raise ConnectionError(f"{tensor.name or 'the tensor'} is lost: {buffer.client.ended}")


def _shared(endpoint: str, waits: Waits) -> Client:
    with _lock:
        client = _connections.get(endpoint)
        if client is None or client.ended or client.is_inherited:
            client = connect(endpoint, timeout=waits.answer, connect_timeout=waits.connect)
            weakref.finalize(client, client._stream.close)
            _connections[endpoint] = client
        return client


def rpc_init(endpoint: str, device: int = 0, *, timeout: float | None = 60.0, connect_timeout: float | None = 10.0) -> RpcBackend:
    """Return the backend of a server's device; counterpart of ggml_backend_rpc_init(endpoint, device), ggml-rpc.h.

    Args:
        endpoint: "HOST:PORT".
        device: index.
        timeout: seconds that one answer may take; None: no limit.
        connect_timeout: seconds to connect.

    Raises:
        Misuse: where the endpoint can't be read, the server has no such device, or it would be a server too many.
        ConnectionError, TimeoutError: where nobody answers.
        Unsupported, Violation: where the version does not fit, or something else answers.
    """
    text, device = str(parse_endpoint(endpoint)), whole(device, "device", U32)
    with _lock:
        backend = _backends.get((text, device)) or RpcBackend(text, device)
        _require_room(text)
        backend.waits = Waits(connect_timeout, timeout)
        # refuses what is not there before anything is built on it
        if device >= (count := count_devices(backend.client)):
            raise NoSuchDevice(f"device {device} of {text}: it has {count}, numbered from 0")
        _backends[text, device] = backend
        return backend


def _require_room(endpoint: str) -> None:
    """Refuse one server more than upstream's limit."""
    known = _known()
    if endpoint not in known and len(known) >= MAX_SERVERS:
        gc.collect()  # a backend that nobody can reach may still be part of a circle of objects
        known = _known()
    if endpoint not in known and len(known) >= MAX_SERVERS:
        raise Misuse(f"{endpoint} would be server {len(known) + 1}: one process uses at most {MAX_SERVERS} (GGML_RPC_MAX_SERVERS)")


def _known() -> set[str]:
    return {endpoint for endpoint, _ in list(_backends.keys())} | set(_entries)


def is_rpc(backend: object) -> bool:
    """Return whether a backend is a device of a server; counterpart of ggml_backend_is_rpc(backend), ggml-rpc.h."""
    return isinstance(backend, Device) and not backend.is_local


@dataclass(frozen=True, slots=True)
class RpcBufferType:
    """What the buffers of a device have in common (ggml_backend_buffer_type_t).

    Attributes:
        backend: the device.
    """

    backend: Device

    @property
    def name(self) -> str:
        """ggml's name of it."""
        return self.backend.name

    @property
    def alignment(self) -> int:
        """Bytes that addresses are multiples of (ggml_backend_buft_get_alignment)."""
        return self.backend.alignment

    @property
    def max_size(self) -> int:
        """Bytes of the largest possible buffer (ggml_backend_buft_get_max_size)."""
        return self.backend.max_size

    def alloc_size(self, tensor: RemoteTensor) -> int:
        """Return the bytes that a tensor needs in such a buffer (ggml_backend_buft_get_alloc_size)."""
        return self.backend.alloc_size(tensor)

    def allocate(self, size: int) -> RemoteBuffer:
        """Allocate a buffer (ggml_backend_buft_alloc_buffer).

        Raises:
            Misuse: where the server has not enough memory.
        """
        return self.backend.alloc(size)


def rpc_buffer_type(endpoint: str, device: int = 0) -> RpcBufferType:
    """Return the buffer type of a server's device; counterpart of ggml_backend_rpc_buffer_type(endpoint, device), ggml-rpc.h.

    Raises:
        What `rpc_init` raises.
    """
    return RpcBufferType(rpc_init(endpoint, device))


def rpc_get_device_memory(endpoint: str, device: int = 0) -> DeviceMemory:
    """Return free and total bytes; counterpart of ggml_backend_rpc_get_device_memory(endpoint, device, …), ggml-rpc.h.

    Raises:
        What `rpc_init` raises.
    """
    return rpc_init(endpoint, device).memory()


# --------------------------------------------------------------------------------------------------------------- registry


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a device can do besides computing (ggml_backend_dev_caps), as upstream's client of the server's version says."""

    asynchronous: bool = False
    host_buffer: bool = False
    buffer_from_host_ptr: bool = False
    events: bool = False


@dataclass(frozen=True, slots=True)
class RegistryDevice:
    """A device as the registry shows it (ggml_backend_dev_t).

    Attributes:
        name: "RPC" and a number that counts the devices of all servers of this process, in the order in which they were added.
        description: the server's endpoint; of this machine's, what it is.
        type: ggml's: "GPU" for every device of a server, as upstream's client says without asking; "CPU" for this machine's.
        backend: what it computes with.
        capabilities: see there.
    """

    name: str
    description: str
    type: str
    backend: Device
    capabilities: Capabilities = Capabilities()

    def memory(self) -> DeviceMemory:
        """Return free and total bytes (ggml_backend_dev_memory)."""
        return self.backend.memory()


@dataclass(frozen=True, slots=True)
class RegistryEntry:
    """A server as the registry shows it (ggml_backend_reg_t).

    Attributes:
        name: "RPC[HOST:PORT]".
        devices: its devices.
    """

    name: str
    devices: Sequence[RegistryDevice] = ()


_count = 0


def rpc_add_server(endpoint: str, *, timeout: float | None = 60.0) -> RegistryEntry:
    """Add a server to the registry and return its entry; added again, the same one.

    Counterpart of ggml_backend_rpc_add_server(endpoint), ggml-rpc.h.

    Args:
        endpoint: "HOST:PORT".
        timeout: seconds that one answer may take; None: no limit.

    Raises:
        What `rpc_init` raises.
    """
    global _count
    text = str(parse_endpoint(endpoint))
    with _lock:
        if text not in _entries:
            first = rpc_init(text, 0, timeout=timeout)
            backends = [first, *(rpc_init(text, index, timeout=timeout) for index in range(1, count_devices(first.client)))]
            queued = first.version >= QUEUE_SINCE
            can = Capabilities(asynchronous=queued, events=queued)
            devices = [RegistryDevice(f"RPC{_count + at}", text, "GPU", backend, can) for at, backend in enumerate(backends)]
            _count += len(devices)
            _entries[text] = RegistryEntry(f"RPC[{text}]", tuple(devices))
        return _entries[text]


def rpc_remove_server(endpoint: str) -> None:
    """Take a server out of the registry (ggml_backend_unload); buffers on it live on."""
    with _lock:
        _entries.pop(str(parse_endpoint(endpoint)), None)


@dataclass(frozen=True, slots=True)
class RpcRegistry:
    """All servers that were added.

    Attributes:
        name: "RPC".
    """

    name: str = "RPC"

    @property
    def entries(self) -> Sequence[RegistryEntry]:
        """The servers, in the order in which they were added."""
        with _lock:
            return tuple(_entries.values())

    @property
    def devices(self) -> Sequence[RegistryDevice]:
        """The devices of all servers."""
        return tuple(device for entry in self.entries for device in entry.devices)


def rpc_reg() -> RpcRegistry:
    """Return the registry of servers; counterpart of ggml_backend_rpc_reg(), ggml-rpc.h."""
    return RpcRegistry()
