"""ggml's C interface to servers, by name, and this machine's backends, held to what the genuine library says."""

from __future__ import annotations

import gc
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref import upstream
from ggml_rpc_ref.client import registry
from ggml_rpc_ref.client.devices import NoSuchDevice
from ggml_rpc_ref.errors import Misuse


@pytest.fixture
def server() -> Iterator[ggml_rpc_ref.Server]:
    """A server with two devices, and an empty registry before and after."""
    with ggml_rpc_ref.Server("oracle,oracle", memory=2**24) as started:
        yield started
    for endpoint in list(registry._entries):
        ggml_rpc_ref.rpc_remove_server(endpoint)


def test_a_backend_computes(server: ggml_rpc_ref.Server) -> None:
    backend = ggml_rpc_ref.rpc_init(server.endpoint, 1)
    assert ggml_rpc_ref.is_rpc(backend)
    assert not ggml_rpc_ref.is_rpc(ggml_rpc_ref.local("oracle", memory=2**20))
    assert not ggml_rpc_ref.is_rpc("127.0.0.1")
    x = backend.tensor(np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal((x + x).numpy(), [[0, 2, 4], [6, 8, 10]])


def test_one_connection_for_all_that_ends_with_its_last_buffer(server: ggml_rpc_ref.Server) -> None:
    first, second = (ggml_rpc_ref.rpc_init(server.endpoint, index) for index in (0, 1))
    assert ggml_rpc_ref.rpc_init(server.endpoint, 0) is first
    wait_for_connections(server, 0)
    buffers = [first.alloc(64), second.alloc(64)]
    assert buffers[0].client is buffers[1].client is first.client
    wait_for_connections(server, 1)
    buffers.pop()
    assert first.memory().total == 2**24
    wait_for_connections(server, 1)
    buffers.clear()
    wait_for_connections(server, 0)
    assert first.memory() == (2**24, 2**24)  # asked on a connection of its own


def wait_for_connections(server: ggml_rpc_ref.Server, count: int) -> None:
    settled = threading.Event()
    for _ in range(500):
        if server.connections == count:
            return
        settled.wait(0.01)
    assert server.connections == count


def test_a_tensor_of_a_connection_that_ended_is_not_taken_for_another(server: ggml_rpc_ref.Server) -> None:
    backend = ggml_rpc_ref.rpc_init(server.endpoint)
    x = backend.tensor(np.ones(4, np.float32), name="x")
    backend.client.close()
    y = backend.tensor(np.zeros(4, np.float32))  # its buffer may have the handle that x's had
    with pytest.raises(ConnectionError, match=r"x is lost: the connection to .* has been closed"):
        x.numpy()
    np.testing.assert_array_equal(y.numpy(), np.zeros(4))


def test_buffer_type_and_memory(server: ggml_rpc_ref.Server) -> None:
    buft = ggml_rpc_ref.rpc_buffer_type(server.endpoint, 1)
    assert (buft.name, buft.alignment) == (f"RPC1[{server.endpoint}]", buft.backend.alignment)
    buffer = buft.allocate(1000)
    assert buffer.size >= 1000 <= buft.max_size
    tensor = buft.backend.empty("Q4_0", (64, 3), buffer=buffer)
    assert buft.alloc_size(tensor) == 3 * 2 * 18
    free, total = ggml_rpc_ref.rpc_get_device_memory(server.endpoint, 1)
    assert (free, total) == (total - buffer.size, 2**24)


def test_the_registry_numbers_devices_over_all_servers(server: ggml_rpc_ref.Server) -> None:
    with ggml_rpc_ref.Server(memory=2**24) as other:
        first, second = ggml_rpc_ref.rpc_add_server(server.endpoint), ggml_rpc_ref.rpc_add_server(other.endpoint)
        assert ggml_rpc_ref.rpc_add_server(server.endpoint) is first
        assert (first.name, second.name) == (f"RPC[{server.endpoint}]", f"RPC[{other.endpoint}]")
        begin = int(first.devices[0].name.removeprefix("RPC"))
        assert [d.name for d in ggml_rpc_ref.rpc_reg().devices] == [f"RPC{begin + i}" for i in range(3)]
        listed = ggml_rpc_ref.devices()
        assert [d.description for d in listed[:-1]] == [server.endpoint] * 2 + [other.endpoint]
        assert listed[-1].type == "CPU"
        assert listed[0].memory() == (2**24, 2**24)
        ggml_rpc_ref.rpc_remove_server(other.endpoint)
        assert len(ggml_rpc_ref.rpc_reg().devices) == 2


def test_a_seventeenth_server_is_refused(server: ggml_rpc_ref.Server) -> None:
    with ExitStack() as stack:
        others = [stack.enter_context(ggml_rpc_ref.Server(memory=2**20)) for _ in range(17)]
        gc.collect()
        held = [ggml_rpc_ref.rpc_init(other.endpoint) for other in others[:16]]
        with pytest.raises(Misuse, match=rf"{others[16].endpoint} would be server 17: one process uses at most 16"):
            ggml_rpc_ref.rpc_init(others[16].endpoint)
        held.pop()
        assert ggml_rpc_ref.rpc_init(others[16].endpoint).memory().total == 2**20


def test_mistakes_are_sentences(server: ggml_rpc_ref.Server) -> None:
    with pytest.raises(NoSuchDevice, match=r"device 2 of .*: it has 2, numbered from 0"):
        ggml_rpc_ref.rpc_init(server.endpoint, 2)
    with pytest.raises(Misuse, match="is not an endpoint"):
        ggml_rpc_ref.rpc_init("http://127.0.0.1")
    with pytest.raises(ConnectionError, match=r"can't connect to 127.0.0.1:1: Connection refused"):
        ggml_rpc_ref.rpc_add_server("127.0.0.1:1")
    with pytest.raises(Misuse, match="there is no device 'gpu'"):
        ggml_rpc_ref.local("gpu")


def test_a_local_device_is_a_device() -> None:
    """Its buffers, rows, copies and refusals, without a socket; what it refuses leaves it usable."""
    device = ggml_rpc_ref.local("oracle", memory=2**20)
    x = device.tensor(np.arange(12, dtype=np.float32).reshape(3, 4), name="x")
    y = device.empty("F32", (4, 3))
    assert device.copy(x, y)
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    x.memset(0, 0, 16)
    x.write_rows(np.full(2, 7, np.float32).tobytes(), 2, 16, offset=16)
    np.testing.assert_array_equal(x.numpy(), [[0, 0, 0, 0], [7, 5, 6, 7], [7, 9, 10, 11]])
    np.testing.assert_array_equal(x.read_rows(4, 2, 16, offset=16).view(np.float32)[:, 0], [7, 7])
    with pytest.raises(Misuse, match="no buffers of 1048577 bytes: the largest has 1048576"):
        device.alloc(2**20 + 1)
    graph = device.graph()
    index = device.tensor(np.array([9], np.int32))
    graph.get_rows(x, index)
    with pytest.raises(Misuse, match=r"the device oracle refuses: .*graph.index"):
        graph.compute()
    assert device.memory().total == 2**20
    np.testing.assert_array_equal((y + y).numpy(), 2 * y.numpy())


def test_an_array_is_a_buffer_of_this_machine_as_it_is(server: ggml_rpc_ref.Server) -> None:
    device = ggml_rpc_ref.local("oracle", memory=2**10)
    data = np.zeros(2**12 + 64, np.uint8)
    data = data[-data.ctypes.data % 32 :][: 2**12]
    buffer = device.buffer_from_host_ptr(data)
    assert buffer is not None
    x = device.empty("F32", (2**10,), buffer=buffer)
    data.view(np.float32)[:] = 3
    np.testing.assert_array_equal(x.numpy(), np.full(2**10, 3))
    x.write(np.ones(2**10, np.float32))
    assert data.view(np.float32)[-1] == 1
    buffer.free()
    assert device.memory() == (2**10, 2**10)
    assert device.buffer_from_host_ptr(data[1:]) is None  # not aligned
    for wrong in (data[::2], data.view(np.float32), [1, 2]):
        with pytest.raises(Misuse, match="data must be a contiguous array of uint8"):
            device.buffer_from_host_ptr(wrong)  # type: ignore[arg-type]
    assert ggml_rpc_ref.rpc_init(server.endpoint).buffer_from_host_ptr(data) is None


def test_a_server_is_started_as_in_c() -> None:
    stop, port = threading.Event(), free_port()
    running = threading.Thread(
        target=ggml_rpc_ref.rpc_start_server, args=(f"127.0.0.1:{port}",), kwargs={"stop": stop, "devices": "oracle"}
    )
    running.start()
    try:
        assert answering(f"127.0.0.1:{port}").memory().total > 0
    finally:
        stop.set()
        running.join(30)
    assert not running.is_alive()
    with pytest.raises(Misuse, match="n_threads = -1"):
        ggml_rpc_ref.rpc_start_server("127.0.0.1:1", n_threads=-1)


FORKED = """
import os, sys
import numpy as np
import ggml_rpc_ref

backend = ggml_rpc_ref.rpc_init(sys.argv[1])
kept = backend.tensor(np.full(4, 7, np.float32))
reader, writer = os.pipe()
child = os.fork()
if not child:
    try:
        said = str((ggml_rpc_ref.rpc_init(sys.argv[1]).tensor(np.ones(2, np.float32)) + 1).numpy().tolist())
    except Exception as error:
        said = repr(error)
    for action in (kept.numpy, (kept + 1).numpy, kept.buffer.free):
        try:
            action()
        except Exception as error:
            said += "; " + type(error).__name__
    os.write(writer, said.encode())
    os._exit(0)
os.waitpid(child, 0)
print(os.read(reader, 2**16).decode(), kept.numpy().tolist())
"""


def test_a_forked_process_has_connections_of_its_own(server: ggml_rpc_ref.Server) -> None:
    """A pool of workers, for instance; what lies on the parent's connection is not theirs."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, server.endpoint], capture_output=True, text=True, check=True, timeout=120
    )
    assert ran.stdout == "[2.0, 2.0]; Misuse; Misuse; Misuse [7.0, 7.0, 7.0, 7.0]\n"


def test_a_source_that_was_lost_does_not_take_the_next_connection_along(server: ggml_rpc_ref.Server) -> None:
    """Its handle is sent to nobody: on another connection it names nothing, or something else."""
    backend = ggml_rpc_ref.rpc_init(server.endpoint)
    lost = backend.tensor(np.ones(4, np.float32), name="lost")
    backend.client.close()
    new = backend.tensor(np.full(4, 2, np.float32))
    graph = backend.graph()
    graph.add(lost, new)
    for action in (lost.numpy, (lost + 1).numpy, graph.compute, (new + lost).numpy):
        with pytest.raises(ConnectionError, match=r"lost: the connection to .* has been closed"):
            action()
    assert new.numpy().tolist() == [2] * 4


def free_port() -> int:
    with ggml_rpc_ref.Server(memory=2**20) as server:
        return int(server.endpoint.rpartition(":")[2])


README = Path(__file__).parent.parent / "README.md"
ROW = re.compile(r"^\| `ggml_\w+\(.*\)` \| `(.+?)` \|", re.M)


def test_each_line_of_the_readme_runs(server: ggml_rpc_ref.Server) -> None:
    lines = ROW.findall(README.read_text())
    assert len(lines) == 10
    names = {name: getattr(ggml_rpc_ref, name) for name in ggml_rpc_ref.__all__} | {"endpoint": server.endpoint}
    for line in lines:
        if not line.startswith("rpc_start_server"):
            exec(line, names)
    assert {"rpc_init", "is_rpc", "rpc_buffer_type", "rpc_get_device_memory", "rpc_reg", "rpc_add_server"} <= {
        name for name in names if any(f"{name}(" in line for line in lines)
    }
    (serving,) = (line for line in lines if line.startswith("rpc_start_server"))
    source = f"from ggml_rpc_ref import rpc_start_server\naddress = '127.0.0.1:{free_port()}'\n{serving}"
    with subprocess.Popen([sys.executable, "-c", source], stderr=subprocess.PIPE, text=True) as process:
        backend = answering(re.findall(r"127.0.0.1:\d+", source)[0])
        assert backend.memory().total > 0
        process.send_signal(signal.SIGINT)
        assert "KeyboardInterrupt" in process.communicate(timeout=60)[1]


def test_each_name_of_the_table_says_its_counterpart() -> None:
    """In its docstring, where `help` shows it to whoever knows the C header."""
    rows = re.findall(r"^\| `(ggml_\w+)\(.*\)` \| `(.+?)` \|", README.read_text(), re.M)
    assert len(rows) == 10
    for counterpart, line in rows:
        (name,) = (
            name
            for name in ggml_rpc_ref.__all__
            if re.search(rf"\b{name}\(", line) and (name != "local" or "Scheduler" not in line)
        )
        assert re.search(rf"\b{counterpart}\b", getattr(ggml_rpc_ref, name).__doc__), name


def answering(endpoint: str) -> registry.RpcBackend:
    """Return the backend of a server that is just starting."""
    for _ in range(1000):
        try:
            return ggml_rpc_ref.rpc_init(endpoint)
        except ConnectionError:
            threading.Event().wait(0.02)
    return ggml_rpc_ref.rpc_init(endpoint)


SCRIPT = """
import ctypes, json, sys
from ctypes import c_void_p, c_char_p, c_size_t, c_int, c_bool, c_uint32
from pathlib import Path
libraries, endpoint = sys.argv[1:]
loaded = [ctypes.CDLL(str(Path(libraries) / f"libggml{p}.so"), mode=ctypes.RTLD_GLOBAL) for p in ("-base", "-cpu", "-rpc", "")]
def call(name, result, *arguments):
    found = next(getattr(one, name) for one in loaded if hasattr(one, name))
    found.restype = result
    return found(*arguments)
class Caps(ctypes.Structure):
    _fields_ = [(n, c_bool) for n in ("asynchronous", "host_buffer", "buffer_from_host_ptr", "events")]
class Props(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("description", c_char_p), ("free", c_size_t), ("total", c_size_t), ("type", c_int),
                ("device_id", c_char_p), ("caps", Caps)]
registry = c_void_p(call("ggml_backend_rpc_add_server", c_void_p, endpoint.encode()))
said = {"registry": call("ggml_backend_reg_name", c_char_p, registry).decode(), "devices": []}
for index in range(call("ggml_backend_reg_dev_count", c_size_t, registry)):
    device, props = c_void_p(call("ggml_backend_reg_dev_get", c_void_p, registry, c_size_t(index))), Props()
    call("ggml_backend_dev_get_props", None, device, ctypes.byref(props))
    said["devices"].append({"name": props.name.decode(), "description": props.description.decode(), "free": props.free,
        "total": props.total, "type": props.type, "caps": [getattr(props.caps, n) for n, _ in Caps._fields_]})
backend = c_void_p(call("ggml_backend_rpc_init", c_void_p, endpoint.encode(), c_uint32(1)))
said["backend"] = call("ggml_backend_name", c_char_p, backend).decode()
buft = c_void_p(call("ggml_backend_rpc_buffer_type", c_void_p, endpoint.encode(), c_uint32(1)))
said["buft"] = [call("ggml_backend_buft_name", c_char_p, buft).decode(), call("ggml_backend_buft_get_alignment", c_size_t, buft),
                call("ggml_backend_buft_get_max_size", c_size_t, buft)]
said["is_rpc"] = [call("ggml_backend_is_rpc", c_bool, backend),
    call("ggml_backend_is_rpc", c_bool, c_void_p(call("ggml_backend_cpu_init", c_void_p)))]
free, total = c_size_t(), c_size_t()
call("ggml_backend_rpc_get_device_memory", None, endpoint.encode(), c_uint32(1), ctypes.byref(free), ctypes.byref(total))
said["memory"] = [free.value, total.value]
print("said", json.dumps(said), flush=True)
import os
os._exit(0)
"""
GPU = 1
"""GGML_BACKEND_DEVICE_TYPE_GPU of ggml-backend.h."""


def genuine_says(build: upstream.Build, endpoint: str) -> Any:
    command = [str(build.python), "-I", "-c", SCRIPT, str(build.libraries), endpoint]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = next(line for line in done.stdout.splitlines() if line.startswith("said "))
    return json.loads(said.removeprefix("said "))


@pytest.mark.parametrize("build", ["upstream_build", "newest_build"])
def test_the_genuine_library_says_the_same(build: str, request: pytest.FixtureRequest) -> None:
    """Of the same server: names, descriptions, types, capabilities, memory, buffer type."""
    found = request.getfixturevalue(build)
    with ggml_rpc_ref.Server("oracle,oracle", memory=2**24, proto=found.protocol) as server:
        compare(server, genuine_says(found, server.endpoint))
        ggml_rpc_ref.rpc_remove_server(server.endpoint)


def compare(server: ggml_rpc_ref.Server, said: Any) -> None:
    entry = ggml_rpc_ref.rpc_add_server(server.endpoint)
    first = int(entry.devices[0].name.removeprefix("RPC"))
    assert said["registry"] == entry.name
    for number, (theirs, ours) in enumerate(zip(said["devices"], entry.devices, strict=True)):
        assert (theirs["name"], f"RPC{first + number}") == (
            f"RPC{number}",
            ours.name,
        )  # they count from 0 in a process of their own
        caps = ours.capabilities
        assert theirs["caps"] == [caps.asynchronous, caps.host_buffer, caps.buffer_from_host_ptr, caps.events]
        assert (theirs["description"], theirs["type"], ours.type) == (ours.description, GPU, "GPU")
        assert (theirs["free"], theirs["total"]) == ours.memory()
    buft = ggml_rpc_ref.rpc_buffer_type(server.endpoint, 1)
    assert said["backend"] == buft.backend.name
    assert said["buft"] == [buft.name, buft.alignment, buft.max_size]
    assert said["is_rpc"] == [True, False]
    assert said["memory"] == list(ggml_rpc_ref.rpc_get_device_memory(server.endpoint, 1))
