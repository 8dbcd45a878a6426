"""What a server says of its devices: their number, memory, alignment, largest buffer.

Apart from `devices`, so that a probe does not wait for the ops of the graph builder to be imported.
"""

from __future__ import annotations

from typing import NamedTuple

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.spec.messages import REQUESTS, DeviceCount, GetAlignment, GetDeviceMemory, GetMaxSize
from ggml_rpc_ref.spec.versions import Version


def count_devices(client: Channel) -> int:
    """Ask for the number of devices; a server older than DEVICE_COUNT has one.

    Raises:
        Violation: where the server has none.
    """
    if client.version < REQUESTS[DeviceCount].since:
        return 1
    count: int = client.request(DeviceCount()).device_count
    if count == 0:
        raise Violation("device.count", "device_count", 0, f"{client.endpoint} has no device")
    return count


class DeviceMemory(NamedTuple):
    """Free and total memory of a device, in bytes."""

    free: int
    total: int


class DeviceInfo:
    """What a device says of itself; each answer is one request.

    Attributes:
        client: the connection.
        index: its number.
    """

    def __init__(self, client: Channel, index: int) -> None:
        self.client, self.index = client, index
        self._alignment = self._max_size = 0

    def __repr__(self) -> str:
        return f"<device {self.index} of {self.client.endpoint}>"

    @property
    def version(self) -> Version:
        """The protocol version of the connection."""
        return self.client.version

    @property
    def alignment(self) -> int:
        """The alignment of tensors, in bytes; asked for once."""
        if not self._alignment:
            alignment: int = self.client.request(GetAlignment(device=self.index)).alignment
            if alignment.bit_count() != 1:
                raise Violation("device.alignment", "alignment", alignment, f"{self} must report a power of two")
            self._alignment = alignment
        return self._alignment

    @property
    def max_size(self) -> int:
        """Size of the largest possible buffer, in bytes; asked for once."""
        if not self._max_size:
            self._max_size = int(self.client.request(GetMaxSize(device=self.index)).max_size)
        return self._max_size

    def memory(self) -> DeviceMemory:
        """Ask how much memory it has now."""
        reply = self.client.request(GetDeviceMemory(device=self.index))
        return DeviceMemory(reply.free_mem, reply.total_mem)
