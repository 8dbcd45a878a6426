"""A `Host` from names and sizes: the devices of a server, their memory, and its caches.

host = make_host("oracle,oracle", memory=4 * 2**30)
"""

from __future__ import annotations

import logging
import operator
import re
from pathlib import Path

import numpy as np

from ggml_rpc_ref.backends import Backend, machine, registry
from ggml_rpc_ref.errors import Misuse, Unsupported
from ggml_rpc_ref.server import budget
from ggml_rpc_ref.server.budget import Budget
from ggml_rpc_ref.server.handlers import Device, Host
from ggml_rpc_ref.server.patterns import Planner
from ggml_rpc_ref.server.tensor_cache import DEFAULT_LIMIT, TensorCache, default_directory
from ggml_rpc_ref.server.validate import MAX_STEPS
from ggml_rpc_ref.spec.versions import AUTO, DEFAULT, Version

log = logging.getLogger(__name__)

DEFAULT_VALUES = 2 * 2**30
"""Bytes of copies of quantised weights, float32 or packed, that are kept by default, where the machine has much more than that."""
AUTO_WORD = "auto"
"""Stands for versions of which a client's HELLO chooses one."""
MOST_FOR_GRAPHS = 4 * 2**30
"""Bytes for graphs that arrive or are kept, where the machine has much more than that."""


def make_host(
    devices: str = "oracle",
    *,
    memory: int | None = None,
    cache_dir: Path | None = None,
    cache_limit: int = DEFAULT_LIMIT,
    cache_per_client: bool = False,
    values: int | None = None,
    max_steps: int = MAX_STEPS,
    proto: str = str(DEFAULT),
    threads: int = 0,
) -> Host:
    """Return the host that these options describe.

    Args:
        devices: names of backends, separated by commas (or slashes, as in rpc-server); a name may be repeated.
        memory: bytes that the buffers of each device may have together; None: a GPU has what its driver says, and the other
            devices share half of what is available now equally. The other half is for what is not counted, such as operands
            widened to float32 while a node is computed.
        cache_dir: where large uploads are kept; None: nowhere.
        cache_limit: bytes that may be kept there.
        cache_per_client: whether a client finds only what came from its own address.
        values: bytes of copies of quantised weights to keep, float32 for numpy and packed for C, shared equally by the devices;
            None: DEFAULT_VALUES, but at most an eighth of what is available now.
        max_steps: elementary steps, of about a nanosecond, that a graph may take.
        proto: the protocol versions that are spoken, as `spoken` reads them.
        threads: threads that compute one node together on a device that has threads of its own; 0: half the cores.

    Raises:
        Misuse: for protocol versions that can't be read, a device that is unknown or can't be used here, devices without memory,
            and numbers that are none.
    """
    if not isinstance(devices, str):
        raise Misuse(f'devices = {devices!r}: it must be names with commas between, for instance "oracle,oracle"')
    memory, threads = None if memory is None else _whole(memory, "memory"), _whole(threads, "threads")
    version, *others = spoken(proto)
    names = [name.strip() for name in re.split("[,/]", devices)]
    available = machine.available()
    share = available // 2 // len(names) if memory is None else memory
    copies = min(DEFAULT_VALUES, available // 8) if values is None else values
    if share < 1:
        raise Misuse("a device without memory can't serve: give -m at least 1")
    tensors = None if cache_dir is None else TensorCache(cache_dir, cache_limit, per_client=cache_per_client)
    backends = [registry.find(name).make(share, copies // len(names), threads, memory) for name in names]
    served = [Device(backend.name, description(backend), backend) for backend in backends]
    graph_memory = Budget(min(MOST_FOR_GRAPHS, max(budget.DEFAULT, available // 4)))
    try:
        planner = Planner(max_steps, graph_memory)
        return Host(served, tensors, version, tuple(others), planner, graph_memory, forget=planner.forget)
    except Unsupported as error:
        raise Misuse(f"--proto {proto}: {error}") from None


def _whole(value: object, what: str) -> int:
    try:
        number = int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if number < 0:
        raise Misuse(f"{what} = {value!r}: it must be a whole number, 0 or more")
    return number


def spoken(proto: str) -> tuple[Version, ...]:
    """Return the protocol versions that a text names: one like "3.6.1", or several that a client's HELLO decides between.

    Args:
        proto: a version; or "auto" for 3.6.1 and 8.0.0; or "auto:2.0.0,7.0.0" for others.

    Raises:
        Misuse: for another form.
    """
    if not isinstance(proto, str):
        raise Misuse(f"proto = {proto!r}: it must be a text, a version like 3.6.1 or {AUTO_WORD}")
    word, _, listed = proto.partition(":")
    if word != AUTO_WORD:
        listed = proto
    elif not listed:
        return AUTO
    try:
        return tuple(Version.parse(text.strip()) for text in (listed.split(",") if word == AUTO_WORD else [listed]))
    except ValueError as error:
        raise Misuse(f"--proto {proto}: {error}; auto, and auto: with versions and commas between, are possible too") from None


def description(backend: Backend) -> str:
    """Return what computes on a device, for people."""
    return str(getattr(backend, "description", f"numpy {np.__version__}"))


def cache_directory(wanted: bool, directory: Path | None) -> Path | None:
    """Return the tensor cache's directory: the one given, or if a cache is wanted rpc-server's; None: no cache."""
    if directory is not None or not wanted:
        return directory
    try:
        return default_directory()
    except RuntimeError as error:  # Path.home() found no home directory
        log.warning("no tensor cache: %s", error)
        return None
