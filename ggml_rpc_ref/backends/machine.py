"""How much memory this machine has, how much of it can still be had, and bytes that are really there.

Linux promises more memory than it has and ends a process that asks for what was promised. A server whose peers say how much to
allocate therefore looks first, and touches every page before it says that the memory is there (issue 9).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

import numpy as np

from ggml_rpc_ref.tensor import Bytes

MIB: Final = 2**20
STEP: Final = 256 * MIB
"""Bytes touched between two looks at what is available."""
PART: Final = 32 * MIB
"""Bytes that one thread touches at a time."""
MOST_THREADS: Final = 8
"""Threads that touch the pages of one allocation: a virtual machine's first touch of a page waits for its host, 0.3 to 6 s a GiB
seen, and two threads wait half as long as one."""
LINE: Final = 64
"""Bytes of a processor's cache line, at a multiple of which memory begins: numpy's begins 16 bytes behind one, so that each load of
64 bytes meets two lines. REPEAT_BACK of 2 MiB with AVX-512 takes 72 and 85 µs so, 52 and 65 from a line on, measured in turn."""
UNSEEN: Final = 16 * MIB
"""Bytes that may be taken between two looks: a look costs about 0.1 ms, as much as the smallest request."""


class Group(NamedTuple):
    """What one generation of Linux' control groups calls its files: where they lie, the limit, the usage, reclaimable pages."""

    folder: str
    limit: str
    usage: str
    reclaimable: str


V1 = Group("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = Group("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")
MIXED = Group("sys/fs/cgroup/unified", "memory.max", "memory.current", "inactive_file")
"""Version 2 beside version 1, where systemd mounts it."""


def total(root: Path = Path("/")) -> int:
    """Return the bytes of memory that this machine has, or that its container may use.

    Args:
        root: where /proc and /sys lie.
    """
    limits = [limit for limit, _ in _groups(root)]
    return min([os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), *limits])


def available(root: Path = Path("/")) -> int:
    """Return the bytes that can be had now without anything being ended for them: of the machine, and of every group around us.

    Where the system does not say it, as outside Linux, it is half of the total.
    """
    found = [max(0, limit - used) for limit, used in _groups(root)]
    machine = _value(root / "proc/meminfo", "MemAvailable:")
    found.append(total(root) // 2 if machine is None else machine * 1024)
    if (address_space := _address_space(root)) is not None:
        found.append(address_space)
    return min(found)


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def headroom(root: Path = Path("/")) -> int:
    """Return the bytes that buffers leave alone: for what no device's memory counts, and for the machine's other work."""
    return min(max(total(root) // 16, 64 * MIB), 2048 * MIB)


def spare() -> int:
    """Return the bytes that buffers may still take now."""
    return max(0, available() - headroom())


class Claims:
    """Bytes for allocations of this process, whose pages are touched while several threads want some."""

    def __init__(self, spare: Callable[[], int] = spare) -> None:
        self._spare, self._lock = spare, Lock()
        self._claimed = self._unseen = 0

    def resident(self, size: int) -> Bytes:
        """Return zero bytes, shape (size,), each of their pages in memory.

        Raises:
            MemoryError: where the machine has not so many to spare, or loses them to others in the meantime.
            ValueError: for a size that no array can have.
        """
        self._claim(size)
        try:
            # not np.zeros: the zero pages that calloc hands out are promised, not there, until something writes to them
            room = np.empty(size + LINE, np.uint8)
            data = room[-int(room.__array_interface__["data"][0]) % LINE :][:size]
            if size <= PART:
                data.fill(0)
            else:
                self._touch(data)
            return data
        finally:
            with self._lock:
                # also after success: what is touched is missing from what the system calls available
                self._claimed -= size

    def _touch(self, data: Bytes) -> None:
        def zero(start: int) -> None:
            data[start : start + PART] = 0  # numpy lets go of the GIL for it

        with ThreadPoolExecutor(min(MOST_THREADS, processors())) as threads:
            for step in range(0, len(data), STEP):
                # at the beginning `_claim` has looked for all of it; others may have taken some since
                if step and min(len(data) - step, STEP) > self._spare():
                    raise MemoryError
                # list: a step is done before the next look, and what a thread raises is raised here
                list(threads.map(zero, range(step, min(step + STEP, len(data)), PART)))

    def _claim(self, size: int) -> None:
        """Count bytes as taken whose pages are not touched yet: two threads must not both get what is there once."""
        with self._lock:
            self._unseen += size
            if self._unseen > UNSEEN:
                if size + self._claimed > self._spare():
                    self._unseen -= size
                    raise MemoryError
                self._unseen = 0
            self._claimed += size


resident = Claims().resident
"""`Claims.resident` of the claims that all memory of this process shares."""


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and usage of the control groups of this process and of those around them, in bytes; usage without page cache."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # version 2 is the line without controllers ("0::/…"); other hierarchies of version 1 limit no memory
        kinds = (V1,) if "memory" in controllers.split(",") else () if controllers else (V2, MIXED)
        for kind in kinds:
            base = root / kind.folder
            group = base / path.lstrip("/")
            # in a container the path may be the one outside, of which only the mount itself is seen here
            for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(base))):
                limit, usage = _number(folder / kind.limit), _number(folder / kind.usage)
                if limit is not None and usage is not None:
                    yield limit, usage - (_value(folder / "memory.stat", kind.reclaimable) or 0)


def _address_space(root: Path) -> int | None:
    """Return the bytes that `ulimit -v` still allows; None without such a limit."""
    if sys.platform == "win32":
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return None
    pages = _first(root / "proc/self/statm")
    return None if pages is None else max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))


def _number(path: Path) -> int | None:
    """Return the number that a file holds; None where it isn't there, or says "max"."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _first(path: Path) -> int | None:
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def _value(path: Path, name: str) -> int | None:
    """Return the number that follows a name at the beginning of a line."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        words = line.split()
        if words and words[0] == name:
            return int(words[1])
    return None
