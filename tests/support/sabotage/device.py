"""Servers that break a rule of the section "device"."""

from __future__ import annotations

from ggml_rpc_ref.spec.messages import (
    DeviceCount,
    DeviceCountReply,
    GetAlignment,
    GetAlignmentReply,
    GetDeviceMemory,
    GetDeviceMemoryReply,
    GetMaxSize,
    GetMaxSizeReply,
)
from tests.support.sabotage.table import Answering, answering, lenient

lenient("device.index")


def one_more(session: Answering, message: object, right: DeviceCountReply) -> DeviceCountReply:
    """From the fourth time on there is one more device."""
    return DeviceCountReply(device_count=right.device_count + (session.asked > 3))


answering("device.count", DeviceCount, one_more)
answering("device.memory", GetDeviceMemory, lambda s, m, r: GetDeviceMemoryReply(free_mem=r.total_mem + 1, total_mem=r.total_mem))
answering("device.alignment", GetAlignment, lambda s, m, r: GetAlignmentReply(alignment=48))
answering("device.max-size", GetMaxSize, lambda s, m, r: GetMaxSizeReply(max_size=0))
