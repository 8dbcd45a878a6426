"""What the command `serve` does: options to a `Host`, a log for people or for programs, and a server until a signal ends it.

host = make_host("oracle,oracle", memory=parse_size("4G"))
run(Server(host, "127.0.0.1", 50052))
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from ggml_rpc_ref.backends import registry
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.server.handlers import Device, Host
from ggml_rpc_ref.server.server import Network, Server
from ggml_rpc_ref.server.tensor_cache import DEFAULT_LIMIT, TensorCache, default_directory

log = logging.getLogger(__name__)

DEFAULT_VALUES = 2 * 2**30
"""Bytes of float32 copies of quantised weights that are kept unless said otherwise."""
LEVELS = ("debug", "info", "warning", "error")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGT]?)(?:iB|B)?", re.IGNORECASE)
_UNITS = {"K": 2**10, "": 2**20, "M": 2**20, "G": 2**30, "T": 2**40}


# ----------------------------------------------------------------------------------------------------------------- options


def parse_size(text: str) -> int:
    """Return the bytes that a size names: a number of MiB, as rpc-server's -m had it, or one with the suffix K, M, G or T.

    Raises:
        Misuse: for anything else.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise Misuse(f"{text!r} is no size: write a number of MiB, or one with a suffix, for example 512, 512M or 8G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def parse_network(text: str) -> Network:
    """Return the network that a text like 192.168.0.0/16, 10.0.0.7 or fd00::/8 names.

    Raises:
        Misuse: for anything else.
    """
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Misuse(f"{text!r} is no network: write an address or a CIDR block, for example 192.168.0.0/16") from None


def make_host(
    devices: str = "oracle",
    *,
    memory: int | None = None,
    cache_dir: Path | None = None,
    cache_limit: int = DEFAULT_LIMIT,
    values: int = DEFAULT_VALUES,
) -> Host:
    """Return what a server with these options serves.

    Args:
        devices: names of backends, separated by commas (or slashes, as rpc-server has it); one may stand there more than once.
        memory: bytes that the buffers of each device may have together; None: the devices share the machine's memory out evenly.
        cache_dir: where large uploads are kept; None: nowhere.
        cache_limit: bytes that may be kept there.
        values: bytes of float32 copies of quantised weights to keep, shared out evenly among the devices.

    Raises:
        Misuse: for a device that is unknown or can't be used here, or memory of no bytes.
    """
    names = [name.strip() for name in re.split("[,/]", devices)]
    share = machine_memory() // len(names) if memory is None else memory
    if share < 1:
        raise Misuse("a device without memory can't serve: give -m at least 1")
    tensors = None if cache_dir is None else TensorCache(cache_dir, cache_limit)
    backends = [registry.find(name).make(share, values // len(names)) for name in names]
    return Host([Device(backend.name, f"numpy {np.__version__}", backend) for backend in backends], tensors)


def cache_directory(wanted: bool, directory: Path | None) -> Path | None:
    """Return where the tensor cache lies: in the directory given, else, if wanted, where rpc-server has it; None: no cache."""
    if directory is not None or not wanted:
        return directory
    try:
        return default_directory()
    except RuntimeError as error:  # nobody knows the user's home
        log.warning("no tensor cache: %s", error)
        return None


def machine_memory() -> int:
    """Return the bytes of memory that this machine has, or that its container may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # another system, or "max": no limit
            continue
    return min(limits)


# ----------------------------------------------------------------------------------------------------------------- the log


def start_log(level: str, *, as_json: bool) -> None:
    """Send the log of the package to stderr as words, or to stdout as JSON, one object a line.

    Raises:
        Misuse: for an unknown level.
    """
    if level not in LEVELS:
        raise Misuse(f"there is no log level {level!r}: choose from {', '.join(LEVELS)}")
    handler = logging.StreamHandler(sys.stdout if as_json else sys.stderr)
    handler.setFormatter(Json() if as_json else Words())
    logger = logging.getLogger("ggml_rpc_ref")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())
    logging.raiseExceptions = False  # whoever closes our stdout must not get tracebacks for it


class Words(logging.Formatter):
    """One line for people: time, level, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; what isn't printable is escaped, since a peer may have chosen it."""
        message = record.getMessage()
        if not message.isprintable():
            message = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in message)
        line = f"{time.strftime('%H:%M:%S', time.localtime(record.created))} {record.levelname.lower()}: {message}"
        return line if record.exc_info is None else f"{line}\n{self.formatException(record.exc_info)}"


class Json(logging.Formatter):
    """One JSON object for programs: time (UTC), level, event, message; for a refusal also peer, rule, field and value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        entry = {
            "time": _utc(record.created),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        entry |= {key: getattr(record, key) for key in ("peer", "rule", "field", "value") if hasattr(record, key)}
        if record.exc_info is not None:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _utc(seconds: float) -> str:
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{int(seconds % 1 * 1000):03d}Z"


# ----------------------------------------------------------------------------------------------------------------- running


def run(server: Server, *, as_json: bool = False) -> None:
    """Say what is served, and serve it until SIGINT or SIGTERM; a second signal ends the process at once."""
    ended_by: list[signal.Signals] = []

    def end(number: int, _: object) -> None:
        ended_by.append(signal.Signals(number))
        signal.signal(number, signal.SIG_DFL)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    if as_json:
        print(json.dumps(introduction(server)), flush=True)
    else:
        print("\n".join(_lines(introduction(server))), file=sys.stderr, flush=True)
    if not server.is_loopback:
        log.warning("the protocol has no authentication: whoever reaches %s can use this server", server.endpoint)
    server.serve_forever()
    log.info("ended by %s", ended_by[0].name if ended_by else "itself")
    if server.connections:
        os._exit(0)  # a thread is still computing: it is not waited for


def introduction(server: Server) -> dict[str, Any]:
    """Return what a server says of itself when it starts."""
    host = server.host
    return {
        "time": _utc(time.time()),
        "level": "info",
        "event": "ready",
        "version": own_version(),
        "protocol": str(host.version),
        "endpoint": server.endpoint,
        "allow": [str(network) for network in server.allow],
        "cache": None if host.tensors is None else {"directory": str(host.tensors.directory), "limit": host.tensors.limit},
        "devices": [
            {"name": d.name, "description": d.description, "total": d.memory.total, "free": d.memory.free} for d in host.devices
        ],
    }


def own_version() -> str:
    """Return this package's version; a checkout that isn't installed has none."""
    try:
        return version("ggml-rpc-ref")
    except PackageNotFoundError:
        return "(not installed)"


def _lines(ready: dict[str, Any]) -> Sequence[str]:
    cache = ready["cache"]
    lines = [
        f"ggml-rpc-ref {ready['version']} speaks RPC protocol {ready['protocol']}",
        f"  endpoint: {ready['endpoint']}" + (f", for {', '.join(ready['allow'])} only" if ready["allow"] else ""),
        "  cache:    " + ("none" if cache is None else f"{cache['directory']}, up to {_mib(cache['limit'])}"),
    ]
    for index, device in enumerate(ready["devices"]):
        memory = f"{_mib(device['total'])}, {_mib(device['free'])} free"
        lines.append(f"  device {index}: {device['name']} ({device['description']}; {memory})")
    return lines


def _mib(size: int) -> str:
    return f"{size // 2**20} MiB"
