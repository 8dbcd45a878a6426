"""Devices of this machine."""

from __future__ import annotations

import numpy as np

from ggml_rpc_ref.backends import registry
from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.client.registry import RegistryDevice, rpc_reg
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.spec.versions import NEWEST
from ggml_rpc_ref.tensor import Array
from ggml_rpc_ref.this_machine.channel import LocalChannel


class LocalDevice(Device):
    """A backend of this machine; a graph does not notice that no server is behind it."""

    is_local = True
    client: LocalChannel

    @property
    def name(self) -> str:
        """Its kind's name in the registry of backends, "oracle" for instance."""
        return self.client.endpoint

    def __repr__(self) -> str:
        return f"<device {self.name} of this machine>"

    def buffer_from_host_ptr(self, data: Array) -> RemoteBuffer | None:
        """Return a buffer that is the array itself, without a copy; None where the device can't reach it, or not write into it.

        Counterpart of ggml_backend_dev_buffer_from_host_ptr, ggml-backend.h.

        Args:
            data: uint8, contiguous; aligned and writeable, else the answer is None. It lives as long as the buffer.

        Raises:
            Misuse: for anything else than such an array.
        """
        if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or not data.flags.c_contiguous:
            raise Misuse("data must be a contiguous array of uint8: pass array.reshape(-1).view(numpy.uint8)")
        if data.ctypes.data % self.alignment or not data.flags.writeable:
            return None
        handle = self.client.adopt(self.index, data)
        return None if handle is None else RemoteBuffer(self, handle, data.nbytes)


def local(kind: str = registry.AUTO, *, memory: int | None = None, threads: int = 0) -> LocalDevice:
    """Return a device of this machine: memory of its own, and what computes there.

    Counterpart of ggml_backend_init_by_name, ggml-backend.h.

    Args:
        kind: as `serve -d` calls it: "oracle", "upstream-cpu", "native", or "cuda" where it is built; "auto" for the fastest.
        memory: bytes that its buffers may have together. (default: half of what is available now)
        threads: threads that compute one node together, for a kind that has some; 0: half the cores.

    Raises:
        Misuse: for a kind that is unknown or can't be used here.
    """
    name = registry.find(kind).name
    return LocalDevice(LocalChannel(make_host(name, memory=memory, proto=str(NEWEST), threads=threads), name), 0)


def devices() -> list[RegistryDevice]:
    """Return every device that there is: those of the servers that were added, then this machine's fastest.

    Counterpart of ggml_backend_dev_count and ggml_backend_dev_get, ggml-backend.h.
    """
    here = local()
    return [*rpc_reg().devices, RegistryDevice("CPU", f"this machine, {here.name}", "CPU", here)]
