"""A genuine llama.cpp RPC server as a subprocess.

It runs `genuine.py` in the build's own Python, so that llama.cpp never shares a process with us: a failed assertion in it ends its
process and becomes one sentence here.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NoReturn

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.transport import DEFAULT_PORT
from ggml_rpc_ref.upstream import instruments
from ggml_rpc_ref.upstream.builds import Build, find
from ggml_rpc_ref.upstream.instruments import Instrument
from ggml_rpc_ref.upstream.process import SCRIPT, Failed, ending_of, environment, last_output, thread_count
from ggml_rpc_ref.upstream.releases import DEFAULT

_READY = re.compile(r"^ready (\S+) protocol (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Server:
    """A running genuine server.

    The process ends with the `with` block of `server`, or with the process that started it, however that ends.

    Attributes:
        endpoint: where it listens, "HOST:PORT".
        protocol: the version that it answers to HELLO.
        process: the process.
        log_file: where its output goes.
    """

    endpoint: str
    protocol: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def log(self) -> str:
        """Return what the server has printed so far; inside the `with` block only."""
        return self.log_file.read_text(errors="replace")


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """How to run a server: the arguments of `server`."""

    host: str = "127.0.0.1"
    port: int = 0
    threads: int | None = None
    devices: int = 1
    cache_dir: Path | None = None


def server(
    version: str = DEFAULT,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    threads: int | None = None,
    devices: int = 1,
    cache_dir: Path | None = None,
    timeout: float = 60.0,
) -> AbstractContextManager[Server]:
    """Run the genuine server of a protocol version for the duration of a `with` block.

    Args:
        version: protocol version.
        host: IPv4 address to bind.
        port: TCP port; 0 picks a free one.
        threads: threads of the CPU backend. (default: half the cores, as upstream's rpc-server)
        devices: how many times the CPU is served.
        cache_dir: where tensors over 10 MiB are kept. (default: nowhere)
        timeout: seconds until it must answer HELLO.

    Raises:
        Misuse: where the version is not installed.
        Failed: where the server ends, or does not answer in time.
    """
    return run_server(find(version), ServerOptions(host, port, threads, devices, cache_dir), timeout)


@contextmanager
def run_server(build: Build, options: ServerOptions, timeout: float = 60.0) -> Iterator[Server]:
    """Run a given build's server for the duration of a `with` block; see `server`."""
    command = _serve_command(build, options, owned=True)
    with tempfile.TemporaryDirectory(prefix="ggml-rpc-ref-") as directory:
        log = Path(directory) / "server.log"
        # Nothing is written to the pipe: when it closes, genuine.py knows that its owner is gone, however that ended.
        with (
            log.open("wb") as out,
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out, stderr=out, env=_environment_of(build)) as process,
        ):
            try:
                yield _wait_until_ready(build, process, log, timeout)
            finally:
                _end(process)


def serve(
    version: str = DEFAULT,
    *,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    threads: int | None = None,
    devices: int = 1,
    cache_dir: Path | None = None,
    instrument: Instrument | None = None,
) -> NoReturn:
    """Replace this process by the genuine server, in the foreground, until a signal ends it.

    Signals, exit status and the memory that the system shows are then the server's own.
    """
    build = find(version, instrument)
    command = _serve_command(build, ServerOptions(host, port, threads, devices, cache_dir), owned=False)
    instruments.allow_shadow(instrument)
    os.execve(command[0], command, _environment_of(build))


def _environment_of(build: Build) -> dict[str, str]:
    return instruments.environment(build.instrument, build.root, environment())


def spawn_command(build: Build, *, devices: int = 2, cached: bool = True) -> list[str]:
    """Return the command that runs a build's server, for one who starts it anew for each port and cache directory.

    It has one thread, several of which would spin while they wait, and ends by a signal only. "{port}" and "{tmp}" stand in its
    last word where the port and the cache directory go.
    """
    options = ServerOptions(threads=1, devices=devices, cache_dir=Path("{tmp}") if cached else None)
    *words, request = _serve_command(build, options, owned=False)
    return [*words, request.replace('"port": 0', '"port": {port}')]


def _serve_command(build: Build, options: ServerOptions, *, owned: bool) -> list[str]:
    """Return the command that runs the server; an owned server ends when its standard input closes."""
    if not 0 <= options.port <= 65535:
        raise Misuse(f"{options.port} is not a port: give one from 1 to 65535, or 0 for a free one")
    if options.devices < 1:
        raise Misuse(f"a server can't have {options.devices} devices: give at least 1")
    request = asdict(options) | {
        "libraries": str(build.libraries),
        "start": build.package.start,
        "hello": build.package.hello_size,
        "threads": thread_count(options.threads),
        "cache_dir": None if options.cache_dir is None else str(options.cache_dir),
        "owned": owned,
    }
    # -I: neither PYTHONPATH nor the script's directory is searched, so that nothing of ours can be imported there
    return [str(build.python), "-I", str(SCRIPT), "serve", json.dumps(request)]


def _wait_until_ready(build: Build, process: subprocess.Popen[bytes], log: Path, timeout: float) -> Server:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        # before the log is read, which then holds all that a process that has ended has printed
        status = process.poll()
        printed = log.read_text(errors="replace")
        if status is not None:
            raise Failed(ending_of(f"the genuine {build.protocol} server", status, printed))
        if ready := _READY.search(printed):
            return Server(ready[1], ready[2], process, log)
        time.sleep(0.01)
    raise Failed(f"the genuine {build.protocol} server did not answer HELLO within {timeout:g} s{last_output(printed)}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
