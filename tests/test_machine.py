"""How much memory there is, and that what is handed out is really there."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ggml_rpc_ref.backends import machine
from ggml_rpc_ref.backends.machine import MIB, Claims, available, headroom, total
from ggml_rpc_ref.backends.memory import HostMemory

GIB = 2**30
PHYSICAL = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def written(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(root: Path, folder: str, names: tuple[str, str, str], limit: str, used: int, cached: int) -> None:
    written(root, f"{folder}/{names[0]}", f"{limit}\n")
    written(root, f"{folder}/{names[1]}", f"{used}\n")
    written(root, f"{folder}/memory.stat", f"active_file 5\n{names[2]} {cached}\n")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine that has a lot to spare, and no control groups."""
    written(tmp_path, "proc/meminfo", f"MemTotal: 1 kB\nMemAvailable: {2**40 // 1024} kB\n")
    return tmp_path


def test_a_machine_without_groups(root: Path) -> None:
    assert total(root) == PHYSICAL
    assert available(root) == 2**40


def test_a_system_that_does_not_say_is_half_available(tmp_path: Path) -> None:
    assert available(tmp_path) == PHYSICAL // 2


HERE = [
    ("4:memory:/a/b\n0::/\n", "sys/fs/cgroup/memory/a/b", V1),
    ("4:cpu,memory:/a/b\n", "sys/fs/cgroup/memory/a", V1),  # a limit of a group around ours
    ("4:memory:/docker/abc\n", "sys/fs/cgroup/memory", V1),  # the path is the host's, only the mount is seen
    ("0::/a/b\n", "sys/fs/cgroup/a/b", V2),
    ("0::/a/b\n", "sys/fs/cgroup/a", V2),
    ("0::/\n", "sys/fs/cgroup", V2),
    ("1:name=systemd:/\n0::/a\n", "sys/fs/cgroup/unified/a", V2),
]


@pytest.mark.parametrize(("lines", "folder", "names"), HERE)
def test_a_groups_limit_counts(root: Path, lines: str, folder: str, names: tuple[str, str, str]) -> None:
    written(root, "proc/self/cgroup", lines)
    group(root, folder, names, str(100 * MIB), 70 * MIB, 20 * MIB)
    assert total(root) == 100 * MIB
    assert available(root) == 50 * MIB  # page cache that nobody uses can be had
    assert headroom(root) == 64 * MIB


@pytest.mark.parametrize("limit", ["max", "9223372036854771712"])
def test_a_group_without_limit(root: Path, limit: str) -> None:
    written(root, "proc/self/cgroup", "0::/a\n")
    group(root, "sys/fs/cgroup/a", V2, limit, 10 * MIB, 0)
    assert (total(root), available(root)) == (PHYSICAL, 2**40)


def test_a_group_that_is_full(root: Path) -> None:
    written(root, "proc/self/cgroup", "0::/a\n")
    group(root, "sys/fs/cgroup/a", V2, str(MIB), 2 * MIB, 0)
    assert available(root) == 0


# ---------------------------------------------------------------------------------------------------- memory that is there


def resident_bytes(data: npt.NDArray[np.uint8]) -> int:
    """Return how many bytes of an array are in memory: what the whole process holds also falls, with what others free meanwhile."""
    page = os.sysconf("SC_PAGE_SIZE")
    first, last = data.ctypes.data // page, (data.ctypes.data + len(data) - 1) // page
    with Path("/proc/self/pagemap").open("rb") as pagemap:
        pagemap.seek(8 * first)
        entries = np.frombuffer(pagemap.read(8 * (last - first + 1)), "<u8")
    # bit 63: the page is in memory (Linux's Documentation/admin-guide/mm/pagemap.rst)
    return int(np.count_nonzero(entries >> np.uint64(63))) * page


@pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="this system has no /proc/PID/pagemap")
@pytest.mark.parametrize("size", [64 * MIB, 300 * MIB + 1])
def test_every_page_is_there_before_it_is_handed_out(size: int) -> None:
    assert resident_bytes(np.zeros(1024 * MIB, np.uint8)) < 64 * MIB  # promised, not there
    data = machine.resident(size)
    assert resident_bytes(data) > 0.95 * size
    assert len(data) == size
    assert not data.any()


@pytest.mark.parametrize("size", [0, 1, 100, 3 * MIB, 33 * MIB + 1])
def test_memory_begins_at_a_cache_line(size: int) -> None:
    data = machine.resident(size)
    assert data.__array_interface__["data"][0] % 64 == 0
    assert data.shape == (size,)


def test_what_the_machine_has_not_is_refused() -> None:
    memory = HostMemory(2**50)
    assert memory.allocate(machine.available()) is None
    assert memory.allocate(2**50) is None
    assert memory.free <= machine.available()


def test_many_small_ones_are_looked_at_as_well() -> None:
    """No one of them is worth a look; together they would be more than there is. What is not seen is less than the headroom."""
    left, count = 40 * MIB, 0
    claims = Claims(lambda: left)

    def take(at_most: int) -> None:
        nonlocal left, count
        for count in range(at_most):  # noqa: B007
            claims.resident(MIB)
            left -= MIB

    with pytest.raises(MemoryError):
        take(1000)
    assert 24 <= count <= 56


def test_two_do_not_get_what_is_there_once() -> None:
    """The second one asks while the pages of the first are being touched, and still count as spare."""
    refused = []

    def spare() -> int:
        if claims._lock.locked():
            return 600 * MIB
        if not refused:
            refused.append(True)
            with pytest.raises(MemoryError):
                claims.resident(300 * MIB)
        return 600 * MIB

    claims = Claims(spare)
    claims.resident(400 * MIB)
    assert refused
    claims.resident(300 * MIB)  # what is done is not counted twice


def test_memory_lost_to_others_on_the_way_is_a_refusal() -> None:
    answers: Iterator[int] = iter([GIB, 0])
    with pytest.raises(MemoryError):
        Claims(lambda: next(answers)).resident(300 * MIB)


LIMIT = 3 * GIB
SCRIPT = """
import resource, struct, sys
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.spec.messages import AllocBuffer, BufferClear, GetMaxSize
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2)
with Session(make_host()) as session:
    most = session.handle(GetMaxSize(device=0)).max_size
    reply = session.handle(AllocBuffer(device=0, size=most))
    if reply.remote_ptr:
        session.handle(BufferClear(remote_ptr=reply.remote_ptr, value=7))
    print(most, reply.remote_size)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux only")
def test_the_largest_buffer_of_a_default_server_can_be_used() -> None:
    """Under a limit of address space, as `ulimit -v` sets one: the cap stays below it, and the buffer is there to be written."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(LIMIT)], capture_output=True, text=True, check=True, timeout=120)
    most, given = map(int, done.stdout.split())
    assert 0 < most < LIMIT // 2
    assert given in (0, most)


def test_a_size_beyond_every_array_is_refused() -> None:
    for size in (2**63, 2**64 - 1):
        assert HostMemory(2**64).allocate(size) is None
