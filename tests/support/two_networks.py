"""A server in another network namespace, at the end of a cable that delays packets, loses some, and can be cut.

    unshare --user --map-root-user --net python -m tests.support.two_networks

The cable is a thread that reads packets from one TUN device and writes them to the other: netem, which does the same in the kernel,
is often not built. Prints what happened as JSON; `tests.test_scheduler_network` has what must.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from typing import Any

NEAR, FAR = "10.77.0.1", "10.77.0.2"
TUNSETIFF, IFF_TUN, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0001, 0x1000, 0x40000000
SERVER = f"""
import sys
import ggml_rpc_ref
with ggml_rpc_ref.Server("oracle", memory=2**22, address="{FAR}") as server:
    print(server.endpoint, flush=True)
    sys.stdin.read()
"""
DELAY, LOST_EACH, PATIENCE = 0.002, 25, 2.0
"""Seconds on the way; of so many packets one is lost, by count, so that none is lost again and again; seconds for an answer."""


def tun(name: str, address: str) -> int:
    """Make a TUN device in this thread's network namespace; return its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    for words in (["addr", "add", f"{address}/24", "dev", name], ["link", "set", name, "up"], ["link", "set", "lo", "up"]):
        subprocess.run(["ip", *words], check=True)
    return device


class Cable(threading.Thread):
    """Carries packets between two devices.

    Attributes:
        carried, lost: packets.
        cut: whether all are lost.
    """

    def __init__(self, one: int, other: int) -> None:
        super().__init__(daemon=True)
        self.to = {one: other, other: one}
        self.carried = self.lost = 0
        self.cut = False

    def run(self) -> None:
        under_way: list[tuple[float, int, int, bytes]] = []
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
            for device in select.select(list(self.to), [], [], wait)[0]:
                packet = os.read(device, 2**16)
                if packet[0] >> 4 != 4:
                    continue  # IPv6 looking for neighbours
                if self.cut or (self.carried + self.lost) % LOST_EACH == LOST_EACH - 1:
                    self.lost += 1
                else:
                    self.carried += 1
                    heapq.heappush(under_way, (time.monotonic() + DELAY, self.carried, self.to[device], packet))
            while under_way and under_way[0][0] <= time.monotonic():
                os.write(under_way[0][2], heapq.heappop(under_way)[3])


def connected() -> tuple[Cable, subprocess.Popen[str]]:
    """Make the other namespace, with a server in it, and return to this one."""
    near, home = tun("near", NEAR), os.open("/proc/self/ns/net", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no other network namespace")
    far = tun("far", FAR)
    # a child has the namespace of the thread that starts it
    server = subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if libc.setns(home, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no way back")
    cable = Cable(near, far)
    cable.start()
    return cable, server


def happened(cable: Cable, far: str) -> dict[str, Any]:
    """Compute over the cable, cut it in the middle of a run, go on without, mend it, and go on with it again."""
    import numpy as np
    import pytest

    import ggml_rpc_ref
    from tests.test_scheduler_failures import Network, after, alone, here

    said: dict[str, Any] = {"endpoint": far}

    def is_right(network: Network) -> bool:
        return bool(np.array_equal(network.run(), alone()))

    def cut() -> None:
        cable.cut = True

    with ggml_rpc_ref.Server(memory=2**22) as near:
        backends = [ggml_rpc_ref.rpc_init(far), ggml_rpc_ref.rpc_init(near.endpoint), here()]
        with ggml_rpc_ref.Scheduler(backends, timeout=PATIENCE) as scheduler:
            network = Network(scheduler, [far, near.endpoint])
            said["over the cable"] = [is_right(network) for _ in range(6)]
            said["lost"], begun = cable.lost, time.monotonic()
            with pytest.MonkeyPatch.context() as patch, after(4, cut, patch):
                try:
                    network.run()
                except ggml_rpc_ref.ServerLost as lost:
                    said |= {"named": lost.endpoint, "tensors": lost.tensors, "sentence": str(lost)}
            said["seconds"] = time.monotonic() - begun
            scheduler.without(far)
            said["without"] = is_right(network)
            cable.cut = False
            scheduler.add(ggml_rpc_ref.rpc_init(far))
            said["again"] = is_right(network)
    return said


if __name__ == "__main__":
    try:
        made, process = connected()
    except (OSError, subprocess.CalledProcessError) as error:
        print(json.dumps({"lacking": f"no network namespaces with TUN devices here: {error}"}))
        sys.exit()
    assert process.stdout is not None
    try:
        print(json.dumps(happened(made, process.stdout.readline().strip())))
    finally:
        process.kill()
