"""A buffer on a device of a server."""

from __future__ import annotations

import weakref
from typing import NoReturn, Self

from ggml_rpc_ref.client.channel import Channel
from ggml_rpc_ref.client.device_info import DeviceInfo
from ggml_rpc_ref.client.words import whole
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.messages import BufferClear, BufferGetBase, FreeBuffer


class RemoteBuffer:
    """A buffer on a device, freed at the end of its `with`, or when nothing refers to it any more.

    Attributes:
        client: the connection.
        device: the device it is on.
        size: bytes.
    """

    def __init__(self, device: DeviceInfo, remote_ptr: int, size: int) -> None:
        self.client, self.device, self.size = device.client, device, size
        # -1 for not asked yet: 0 is the base of a buffer of no bytes
        self._remote_ptr, self._base, self._freed = remote_ptr, -1, False
        # by a weak reference, so that the finalizer does not keep the connection alive
        self._drop = weakref.finalize(self, _drop, weakref.ref(device.client), remote_ptr)
        self._drop.atexit = False  # the connection ends then, and with it the buffer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if not self._freed and not self.client.ended:
            self.free()

    def __repr__(self) -> str:
        return f"<buffer of {self.size} bytes on {self.device!r}{', freed' if self._freed else ''}>"

    def __reduce__(self) -> NoReturn:
        """Refuse to be copied or pickled: each copy would free it."""
        raise Misuse(f"{self!r} can't be copied or pickled: it is freed once, where it was allocated")

    @property
    def remote_ptr(self) -> int:
        """Its handle.

        Raises:
            Misuse: after `free`, and in another process than the one whose connection it is on.
            ConnectionError: after the connection has ended, and the buffer with it.
        """
        if self._freed:
            raise Misuse("this buffer has been freed")
        self.client.require_own_process()
        if self.client.ended:  # on the connection that a backend has made since, the same number may be another buffer
            raise ConnectionError(f"this buffer of {self.size} bytes is lost: {self.client.ended}")
        return self._remote_ptr

    @property
    def base(self) -> int:
        """Address of its first byte; asked for once.

        Raises:
            What `remote_ptr` raises.
        """
        handle = self.remote_ptr
        if self._base < 0:
            self._base = int(self.client.request(BufferGetBase(remote_ptr=handle)).base_ptr)
        return self._base

    def clear(self, value: int = 0) -> None:
        """Set every byte to a value from 0 to 255."""
        self.client.request(BufferClear(remote_ptr=self.remote_ptr, value=whole(value, "value", 255)))

    def free(self) -> None:
        """Free it; its handle is invalid from then on."""
        self.client.request(FreeBuffer(remote_ptr=self.remote_ptr))
        self._drop.detach()
        self._freed = True


def _drop(client: weakref.ref[Channel], remote_ptr: int) -> None:
    channel = client()
    if channel is not None:  # else the connection is gone, and its buffers with it
        channel.drop_buffer(remote_ptr)
