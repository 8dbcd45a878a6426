"""Mistakes in Python: each is a Misuse that names the value, nothing is sent, and the connection with all its tensors lives on."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import numpy as np
import pytest

import ggml_rpc_ref
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.client.buffers import RemoteBuffer
from ggml_rpc_ref.client.client import Client
from ggml_rpc_ref.client.constructors import NE_GIVEN
from ggml_rpc_ref.client.devices import Device
from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.server import handlers as served
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.host import make_host
from ggml_rpc_ref.server.server import Server
from ggml_rpc_ref.spec.messages import GetAllocSize, GetAllocSizeReply
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, kinds
from ggml_rpc_ref.spec.versions import PROFILES
from tests.support.seeds import seeded

F32 = np.float32


@pytest.fixture(scope="module")
def server() -> Iterator[ggml_rpc_ref.Server]:
    with ggml_rpc_ref.Server("oracle,oracle", memory=2**28) as made:
        yield made


@pytest.fixture
def client(server: ggml_rpc_ref.Server) -> Iterator[Client]:
    with ggml_rpc_ref.connect(server.endpoint, timeout=20) as made:
        yield made


@pytest.fixture
def other(server: ggml_rpc_ref.Server) -> Iterator[Client]:
    """Another connection, to the same server even."""
    with ggml_rpc_ref.connect(server.endpoint, timeout=20) as made:
        yield made


def four(device: Device) -> Any:
    return device.tensor(np.ones(4, F32), name="x")


def freed(device: Device) -> RemoteBuffer:
    """Return a buffer that has been freed after its address was asked for."""
    buffer = device.alloc(64)
    assert buffer.base
    buffer.free()
    return buffer


# ------------------------------------------------------------------------------------------------ what belongs to others

FOREIGN: dict[str, Callable[[Device, Device], object]] = {
    "read": lambda own, other: own.read(four(other), 0, 16),
    "write": lambda own, other: own.write(four(other), np.ones(4, F32)),
    "copy from": lambda own, other: own.copy(four(other), four(own)),
    "copy into": lambda own, other: own.copy(four(own), four(other)),
    "init_tensor": lambda own, other: own.init_tensor(four(other)),
    "alloc_size": lambda own, other: own.alloc_size(four(other)),
    "tensor in a buffer": lambda own, other: own.tensor(np.ones(4, F32), buffer=other.alloc(64)),
    "empty in a buffer": lambda own, other: own.empty("F32", (4,), buffer=other.alloc(64)),
    "a source": lambda own, other: own.graph().add(four(own), four(other)),
    "an operator": lambda own, other: four(own) + four(other),
    "a view": lambda own, other: own.graph().view(four(other), 2),
    "cpy into": lambda own, other: own.graph().cpy(four(own), four(other)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_belongs_to_another_connection_is_refused(client: Client, other: Client, name: str) -> None:
    """Handles and addresses are numbers: on another server they may be those of somebody else's tensor."""
    kept, theirs = four(client.devices[0]), four(other.devices[0])
    with pytest.raises(Misuse, match=r"another connection|a buffer on"):
        FOREIGN[name](client.devices[0], other.devices[0])
    assert kept.numpy().tolist() == theirs.numpy().tolist() == [1] * 4


def test_a_buffer_of_another_device_is_refused(client: Client) -> None:
    one, two = client.devices
    with pytest.raises(Misuse, match="must be a buffer on <device 0"):
        one.empty("F32", (4,), buffer=two.alloc(64))
    with pytest.raises(Misuse, match="must share the memory of a tensor on <device 0"):
        one.graph().cpy(four(one), four(two))


FORKED = """
import json, os, sys
import numpy as np
import ggml_rpc_ref

client = ggml_rpc_ref.connect(sys.argv[1], timeout=20)
device = client.devices[0]
tensor, dropped = device.tensor(np.full(100, 7, np.float32)), [device.tensor(np.zeros(4, np.float32))]
graph = device.graph()
graph.scale(tensor, 2.0)
actions = {
    "read": tensor.numpy, "write": lambda: tensor.write(np.zeros(100, np.float32)), "alloc": lambda: device.alloc(1),
    "compute": graph.compute, "operator": lambda: (tensor + 1).numpy(), "memory": device.memory,
}
reader, writer = os.pipe()
child = os.fork()
if not child:
    said = {}
    for name, action in actions.items():
        try:
            action()
        except Exception as error:
            said[name] = f"{type(error).__name__}: {error}"
    dropped.clear()  # freed in the parent's good time, not here
    client.close()
    os.write(writer, json.dumps(said).encode())
    os._exit(0)
os.waitpid(child, 0)
assert tensor.numpy().tolist() == [7] * 100
graph.compute()
assert graph.nodes[0].numpy().tolist() == [14] * 100
assert dropped[0].numpy().tolist() == [0] * 4
print(os.read(reader, 2**16).decode())
"""


def test_a_client_is_of_one_process(server: ggml_rpc_ref.Server) -> None:
    """A fork has the same socket, and reads the answers to the parent's requests."""
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, server.endpoint], capture_output=True, text=True, check=True, timeout=120
    )
    said = json.loads(ran.stdout)
    assert set(said) == {"read", "write", "alloc", "compute", "operator", "memory"}
    assert all(
        sentence.startswith("Misuse: this connection to 127.0.0.1:") and "connect again" in sentence for sentence in said.values()
    )


# ------------------------------------------------------------------------------------------------ ranges, places, sizes

MISTAKES: dict[str, tuple[Callable[[Device], object], str]] = {
    "read past the tensor": (lambda d: d.read(four(d), 0, 17), r"17 bytes at offset 0 .* inside x: of shape \(4,\), it has 16"),
    "read from behind its end": (lambda d: d.read(four(d), 20, 4), "4 bytes at offset 20"),
    "read of size -1": (lambda d: d.read(four(d), 0, -1), "size = -1"),
    "read of half a byte": (lambda d: d.read(four(d), 0, 0.5), "size = 0.5"),  # type: ignore[arg-type]
    "read of what is no tensor": (lambda d: d.read(np.ones(4), 0, 4), "is not a tensor on a server"),  # type: ignore[arg-type]
    "write past the tensor": (lambda d: d.write(four(d), np.ones(5, F32)), "20 bytes at offset 0"),
    "write at an offset past it": (lambda d: d.write(four(d), np.ones(1, F32), 16), "4 bytes at offset 16"),
    "write of a number": (lambda d: d.write(four(d), 5), "data must be an array or bytes, not int"),  # type: ignore[arg-type]
    "write of every second byte": (lambda d: d.write(four(d), memoryview(bytes(8))[::2]), "data must be contiguous"),
    "a view of nothing": (lambda d: d.graph().reshape(None, 4), "RESHAPE needs a tensor, not None"),
    "half an axis": (lambda d: d.graph().permute(four(d), 0, 1, 2, "3"), "is not a permutation"),  # type: ignore[arg-type]
    "write before it": (lambda d: d.write(four(d), b"1", -1), "offset = -1"),
    "copy into a smaller tensor": (lambda d: d.copy(four(d), d.tensor(np.ones(3, F32))), r"shape \(4,\), do not fit into .*\(3,\)"),
    "rows that are not whole blocks": (lambda d: d.tensor(np.zeros((2, 100), F32), "Q4_K"), r"\(2, 100\): rows of 100 .* 256"),
    "the same, empty": (lambda d: d.empty("Q8_0", (33, 2)), r"\(33, 2\): rows of 33 elements are not whole blocks of Q8_0"),
    "a result of such rows": (lambda d: d.graph().op("CPY", [four(d), four(d)], dtype="Q8_0", ne=(4,)), "not whole blocks of Q8_0"),
    "place beyond the end of a buffer": (lambda d: d.tensor(np.ones(2, F32), buffer=d.alloc(64), offset=60), "of 64 bytes"),
    "place before its beginning": (lambda d: d.tensor(np.ones(2, F32), buffer=d.alloc(64), offset=-8), "offset = -8"),
    "an offset in no buffer": (lambda d: d.empty("F32", (2,), offset=8), "offset = 8: it needs a buffer"),
    "padded rows beyond the end": (lambda d: d.empty("Q8_0", (96,), buffer=d.alloc(100)), "102 bytes at offset 0"),
    "alloc(1.5)": (lambda d: d.alloc(1.5), "size = 1.5: it must be a whole number"),  # type: ignore[arg-type]
    "alloc(-1)": (lambda d: d.alloc(-1), "size = -1"),
    "alloc(2**64)": (lambda d: d.alloc(2**64), f"size = {2**64}"),
    'alloc("1")': (lambda d: d.alloc("1"), "size = '1'"),  # type: ignore[arg-type]
    "empty of ne (4.5,)": (lambda d: d.empty("F32", (4.5,)), r"ne\[0\] of \(4.5,\) = 4.5"),  # type: ignore[arg-type]
    "empty of ne (-1,)": (lambda d: d.empty("F32", (-1,)), r"ne\[0\] of \(-1,\) = -1"),
    "empty of ne 4": (lambda d: d.empty("F32", 4), "ne = 4: it must be a sequence"),  # type: ignore[arg-type]
    "empty of five dimensions": (lambda d: d.empty("F32", (1, 2, 3, 4, 5)), r"ne = \(1, 2, 3, 4, 5\)"),
    "empty of 2^32 elements": (lambda d: d.empty("I8", (2**32,)), "must be from 0 to 4294967295"),
    "a stride beyond 32 bits": (lambda d: d.empty("F32", (2**15, 2**15, 2)), r"\(32768, 32768, 2\) in F32: a stride of 4294967296"),
    "an array of five axes": (lambda d: d.tensor(np.zeros((1, 2, 3, 4, 5), F32)), r"of shape \(1, 2, 3, 4, 5\): a tensor has up"),
    "clear(256)": (lambda d: d.alloc(8).clear(256), "value = 256"),
    "a view past its tensor": (lambda d: d.graph().view(four(d), 4, offset=4), "shows bytes 4 to 20 of x, which has 16"),
    "a view at a negative offset": (lambda d: d.graph().view(four(d), 1, offset=-4), "offset = -4"),
    "three strides": (lambda d: d.graph().view(four(d), 1, nb=(4, 4, 4)), r"nb = \(4, 4, 4\): a tensor has four strides"),
    "eleven sources": (lambda d: d.graph().op("ADD", [four(d)] * 11), "11 sources; a tensor has 10"),
    "a source that is none": (lambda d: d.graph().op("SQR", four(d)), "src must be a list"),
    "I8 of 300": (lambda d: d.tensor([1, 300], "I8"), "I8 does not hold values from 1 to 300"),
    "I32 of NaN": (lambda d: d.tensor([1.0, math.nan], "I32"), "I32 does not hold NaN"),
    "write of objects": (lambda d: d.write(four(d), np.array([None, 1])), "not an array of objects"),
    "the address of a freed buffer": (lambda d: freed(d).base, "has been freed"),
    "whether it can compute a text": (lambda d: d.supports_op("ADD"), "'ADD' is not a node"),  # type: ignore[arg-type]
    "I64 of 2**64 - 1": (lambda d: d.tensor(np.array([2**64 - 1], np.uint64), "I64"), "I64 does not hold"),
    "ragged rows": (lambda d: d.tensor([[1.0], [2.0, 3.0]]), "the array can't be made an array"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_does_not_cost_the_connection(client: Client, name: str) -> None:
    act, sentence = MISTAKES[name]
    device = client.devices[0]
    kept = four(device)
    with pytest.raises(Misuse, match=sentence):
        act(device)
    assert kept.numpy().tolist() == [1] * 4


@pytest.mark.parametrize("ne", [(2**15, 2**15), (2**30,), (2**14, 2**14, 4)], ids=str)
def test_a_tensor_of_4_gib(ne: tuple[int, ...]) -> None:
    """Strides of dimensions of length 1 leave 32 bits here; a stock client cuts them off, and nobody takes one."""
    # pages that nobody has touched take no memory, whatever the machine has
    promised = HostMemory(2**33, make=lambda size: np.zeros(size, np.uint8), spare=lambda: 2**33)
    host = Host([served.Device("oracle", "promises only", Oracle(promised))])
    with Server(host) as server, ggml_rpc_ref.connect(server.endpoint, timeout=20) as client:
        device = client.devices[0]
        tensor = device.empty("F32", ne)
        device.write(tensor, np.arange(4, dtype=F32), 2**32 - 16)
        assert device.read(tensor, 2**32 - 16, 16).view(F32).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("answer", [0, 101, 2**63, 2**64 - 1])
def test_a_size_that_can_not_be_is_the_servers_fault(answer: int) -> None:
    """102 bytes are asked about. Of 2^64 - 1 the next multiple of 32 is 0: a buffer of nothing would hold all nodes."""

    def lie(_: Session, __: GetAllocSize) -> GetAllocSizeReply:
        return GetAllocSizeReply(alloc_size=answer)

    session = type("Lying", (Session,), {"handlers": {**Session.handlers, GetAllocSize: lie}})
    with type("Liar", (Server,), {"session_type": session})(make_host()) as server, ggml_rpc_ref.connect(server.endpoint) as client:
        device = client.devices[0]
        with pytest.raises(Violation, match=f"tensor.alloc-size: alloc_size is {answer}; .* of 102 bytes"):
            device.empty("Q8_0", (96,))
        graph = device.graph()
        graph.mul_mat_id(np.ones((2, 40, 4), F32), np.ones((5, 1, 4), F32), np.zeros((5, 1), np.int32))
        with pytest.raises(Violation, match=r"tensor\.alloc-size: alloc_size is"):
            graph.compute()
        assert device.memory().free > 0


# ---------------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("dtype", "found"),
    [
        ("f16", "F16"),
        ("F16", "F16"),
        ("bf16", "BF16"),
        ("q4_0", "Q4_0"),
        ("Q4_k", "Q4_K"),
        ("i8", "I8"),  # ggml's, not numpy's int64
        (np.float16, "F16"),
        (np.dtype("f8"), "F64"),
        ("float32", "F32"),
        (float, "F64"),
        (np.int32, "I32"),
    ],
    ids=str,
)
def test_types_by_any_of_their_names(client: Client, dtype: Any, found: str) -> None:
    device, array = client.devices[0], np.ones(256, F32)
    assert device.tensor(array, dtype).dtype.name == found
    assert device.empty(dtype, (256,)).dtype.name == found
    node = device.graph().op("REPEAT", [array], ne=(256,)) if found == "F32" else None
    assert node is None or node.dtype.name == found


@pytest.mark.parametrize("dtype", ["FOO", "q4", "F32 ", "f4, (", np.complex64, 5, [1], Ellipsis, "U3"], ids=repr)
def test_types_that_are_none(client: Client, dtype: Any) -> None:
    device = client.devices[0]
    for act in (
        lambda: device.tensor(np.ones(4), dtype),
        lambda: device.empty(dtype, (4,)),
        lambda: device.graph().op("ARANGE", []),
    ):
        with pytest.raises(Misuse, match=r"no ggml type is called|ARANGE needs the parameters start, stop, step"):
            act()
    with pytest.raises(Misuse, match=r"'q4', did you mean Q4_.\?"):
        device.empty("q4", (32,))


def test_a_type_that_the_server_does_not_have() -> None:
    version = next(version for version in PROFILES if str(version) == "3.5.0")
    host = Host(make_host().devices, version=version)
    with Server(host) as server, ggml_rpc_ref.connect(server.endpoint) as client:
        with pytest.raises(Unsupported, match=r"protocol 3\.5\.0 does not have the type NVFP4"):
            client.devices[0].empty("NVFP4", (64,))
        assert client.devices[0].memory()


WORDS: dict[str, tuple[Callable[[Device], object], str]] = {
    "an unknown op": (lambda d: d.graph().op("FOO", [four(d)]), "no op is called 'FOO'"),
    "nearly an op": (lambda d: d.graph().op("RMSNORM", [four(d)]), "did you mean RMS_NORM"),
    "an op that is no text": (lambda d: d.graph().op(3, [four(d)]), "no op is called 3"),  # type: ignore[arg-type]
    "scale '2'": (lambda d: d.graph().op("SCALE", [four(d)], params={"scale": "2"}), "scale = '2': it must be a number"),
    "scale None": (lambda d: d.graph().scale(four(d), None), "scale = None"),  # type: ignore[arg-type]
    "plus 10^400": (lambda d: four(d) + 10**400, "bias = 1000*: it must be a number"),
    "times 10^400": (lambda d: 10**400 * four(d), "scale = 1000*: it must be a number"),
    "scale 1e300": (lambda d: d.graph().scale(four(d), 1e300), r"scale = 1e\+300: it must be a number of F32's range"),
    "a misspelt parameter": (lambda d: d.graph().op("SCALE", [four(d)], params={"scal": 2}), "'scal', did you mean scale"),
    "a missing parameter": (lambda d: d.graph().op("SCALE", [four(d)], params={}), "SCALE needs the parameter scale"),
    "no parameters at all": (
        lambda d: d.graph().op("ROPE", [np.ones((1, 1, 4), F32), [0]]),
        "ROPE needs the parameters n_dims, mode",
    ),
    "an integer too large": (lambda d: d.graph().op("VIEW", [four(d)], params={"offset": 2**70}, ne=(2,)), "fit into 64 bits"),
    "an integer of 2^31": (lambda d: d.graph().op("CONCAT", [four(d)] * 2, params={"dim": 2**31}), f"dim = {2**31}"),
    "half a dimension": (lambda d: d.graph().op("CONCAT", [four(d)] * 2, params={"dim": 0.5}), "dim = 0.5: .* a whole number"),
    "three sections": (
        lambda d: d.graph().rope(np.ones((1, 1, 8), F32), [0] * 4, n_dims=8, mode="mrope", sections=(1, 1, 1)),
        r"sections = \(1, 1, 1\): it must be 4 numbers",
    ),
    "65 bytes of op_params": (lambda d: d.graph().op("SCALE", [four(d)], params=b"x" * 65), "op_params of 65 bytes"),
    "a kind that is none": (
        lambda d: d.graph().op("GLU", [four(d)], params={"kind": "SWIGLOO"}),
        "'SWIGLOO': .* did you mean swiglu",
    ),
    "a kind of another op": (
        lambda d: d.graph().op("UNARY", [four(d)], params={"kind": "SWIGLU"}),
        "kind = 'SWIGLU': it must be one",
    ),
    "kind 99": (lambda d: d.graph().op("UNARY", [four(d)], params={"kind": 99}), "UNARY is not possible: .* 99"),
    "a mode that is none": (lambda d: d.graph().upscale(np.ones((1, 1, 4), F32), ne=(8, 1, 1), mode="best"), "one of nearest, bil"),
    "XIELU without its numbers": (
        lambda d: d.graph().op("UNARY", [four(d)], params={"kind": "xielu"}),
        "alpha_n, alpha_p, beta, eps",
    ),
    "a name that has no UTF-8": (lambda d: d.tensor(np.ones(4, F32), name="\udc80"), "name = .*it has no UTF-8 form"),
    "a name that is no text": (lambda d: d.empty("F32", (4,), name=b"x"), "name = b'x'"),  # type: ignore[arg-type]
    "a node's name": (lambda d: d.graph().sqr(four(d), name="\udc80"), "name = "),
    "complex operands": (lambda d: d.graph().add(four(d), 1j), "no ggml type holds complex128"),
    "text as an operand": (lambda d: d.graph().add(four(d), "text"), "no ggml type holds <U4"),
    "fractions as indices": (
        lambda d: d.graph().get_rows(np.ones((2, 4), F32), [0.5]),
        r"src\[1\] takes I32: float64 of shape \(1,\)",
    ),
    "indices beyond I32": (lambda d: d.graph().get_rows(np.ones((2, 4), F32), [2**31]), r"src\[1\] takes I32: int64"),
    "shapes that do not fit": (
        lambda d: d.graph().mul_mat(np.ones((5, 64), F32), np.ones((3, 4), F32)),
        r"MUL_MAT is not possible: .* the sources' shapes are F32 \(5, 64\), F32 \(3, 4\)$",
    ),
    "devices[5]": (lambda d: d.client.devices[5], r"devices\[5\]: 127\S+ has 0 to 1"),  # type: ignore[attr-defined]
    "devices[-3]": (lambda d: d.client.devices[-3], r"devices\[-3\]"),  # type: ignore[attr-defined]
    "devices['0']": (lambda d: d.client.devices["0"], r"devices\['0'\]"),  # type: ignore[attr-defined]
}


@pytest.mark.parametrize("name", WORDS)
def test_words_that_are_wrong(client: Client, name: str) -> None:
    act, sentence = WORDS[name]
    device = client.devices[0]
    kept = four(device)
    with pytest.raises(Misuse, match=sentence):
        act(device)
    assert kept.numpy().tolist() == [1] * 4


ARGUMENTS: dict[str, tuple[Callable[[Any], object], str]] = {
    "connect(None)": (lambda at: ggml_rpc_ref.connect(None), "endpoint = None: it must be a text"),  # type: ignore[arg-type]
    "rpc_init(None)": (lambda at: ggml_rpc_ref.rpc_init(None), "endpoint = None"),  # type: ignore[arg-type]
    "rpc_init(b'')": (lambda at: ggml_rpc_ref.rpc_init(at.encode()), "endpoint = b'127"),
    "rpc_add_server(5)": (lambda at: ggml_rpc_ref.rpc_add_server(5), "endpoint = 5"),  # type: ignore[arg-type]
    "rpc_remove_server([])": (lambda at: ggml_rpc_ref.rpc_remove_server([at]), r"endpoint = \['127"),  # type: ignore[list-item]
    "rpc_start_server(None)": (lambda at: ggml_rpc_ref.rpc_start_server(None), "endpoint = None"),  # type: ignore[arg-type]
    "n_threads '2'": (lambda at: ggml_rpc_ref.rpc_start_server(at, n_threads="2"), "n_threads = '2'"),  # type: ignore[arg-type]
    "device -1": (lambda at: ggml_rpc_ref.rpc_init(at, -1), "device = -1"),
    "device '0'": (lambda at: ggml_rpc_ref.rpc_init(at, "0"), "device = '0': it must be a whole"),  # type: ignore[arg-type]
    "device 0.5": (lambda at: ggml_rpc_ref.rpc_init(at, 0.5), "device = 0.5"),  # type: ignore[arg-type]
    "device None": (lambda at: ggml_rpc_ref.rpc_buffer_type(at, None), "device = None"),  # type: ignore[arg-type]
    "device [0]": (lambda at: ggml_rpc_ref.rpc_get_device_memory(at, [0]), r"device = \[0\]"),  # type: ignore[arg-type]
    "local(None)": (lambda at: ggml_rpc_ref.local(None), "device = None: it must be a name"),  # type: ignore[arg-type]
    "memory 1.5": (lambda at: ggml_rpc_ref.local("oracle", memory=1.5), "memory = 1.5"),  # type: ignore[arg-type]
    "threads None": (lambda at: ggml_rpc_ref.local("oracle", threads=None), "threads = None"),  # type: ignore[arg-type]
    "memory '1G'": (lambda at: ggml_rpc_ref.Server(memory="1G"), "memory = '1G': it must be a whole"),  # type: ignore[arg-type]
    "memory -1": (lambda at: ggml_rpc_ref.Server(memory=-1), "memory = -1"),
    "a list of devices": (lambda at: ggml_rpc_ref.Server(["oracle"]), r"devices = \['oracle'\]"),  # type: ignore[arg-type]
    "proto None": (lambda at: ggml_rpc_ref.Server(proto=None), "proto = None: it must be a text"),  # type: ignore[arg-type]
    "port 70000": (lambda at: ggml_rpc_ref.Server(port=70000), "port = 70000: it must be a whole number from 0 to 65535"),
    "port -1": (lambda at: ggml_rpc_ref.Server(port=-1), "port = -1"),
    "port '50052'": (lambda at: ggml_rpc_ref.Server(port="50052"), "port = '50052'"),  # type: ignore[arg-type]
    "address None": (lambda at: ggml_rpc_ref.Server(address=None), "address = None: it must be a text"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments_that_are_wrong(server: ggml_rpc_ref.Server, name: str) -> None:
    act, sentence = ARGUMENTS[name]
    with pytest.raises(Misuse, match=sentence):
        act(server.endpoint)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_a_connection_has_is_not_copied(client: Client, way: Callable[[object], object]) -> None:
    """Of two connections with one socket each would read the other's answers; of two buffers with one handle each would free it."""
    device = client.devices[0]
    tensor, buffer, graph = four(device), device.alloc(64), device.graph()
    with pytest.raises(Misuse, match="can't be copied or pickled: it is freed once"):
        way(buffer)
    with pytest.raises(Misuse, match="can't be copied or pickled: connect again"):
        way(client)
    if way is not copy.copy:
        for what in (device, tensor, graph):
            with pytest.raises(Misuse, match="can't be copied or pickled"):
                way(what)
    buffer.free()
    assert tensor.numpy().tolist() == [1] * 4


@pytest.mark.parametrize("dtype", ["F16", "F32", "BF16", "Q4_0", "Q4_K"])
def test_values_beyond_float32_become_infinite_without_a_warning(client: Client, dtype: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read = client.devices[0].tensor(np.full(256, 1e300), dtype).numpy()
    assert not np.isfinite(read).any()


def test_an_expression_that_found_no_room_is_computed_later(server: ggml_rpc_ref.Server) -> None:
    with ggml_rpc_ref.Server(memory=2**20) as small, ggml_rpc_ref.connect(small.endpoint, timeout=20) as client:
        device = client.devices[0]
        x = device.tensor(np.ones(2**14, F32))
        total = (x + 1) * 3
        taken = device.alloc(device.memory().free)
        for _ in range(2):
            with pytest.raises(Misuse, match="has no room for"):
                total.numpy()
        taken.free()
        assert total.numpy()[0] == 6


def test_what_is_printed_says_what_it_is(client: Client) -> None:
    """In a notebook, and in the sentences of errors."""
    device, at = client.devices[0], client.endpoint
    x, q = device.tensor(np.ones((2, 4), F32), name="x"), device.tensor(np.ones(32, F32), "q4_0")
    graph = device.graph()
    y = graph.sqr(x)
    assert repr(client) == f"<connection to {at}, protocol {client.version}>"
    assert repr(x) == f"<tensor 'x': F32 (2, 4) on <device 0 of {at}>>"
    assert repr(q) == f"<tensor: Q4_0 (32,) on <device 0 of {at}>>"
    assert repr(y) == f"<tensor 'sqr' of SQR: F32 (2, 4) on <device 0 of {at}>>"
    assert (repr(graph), repr(device.graph())) == (
        f"<graph of 1 node on <device 0 of {at}>>",
        f"<graph of 0 nodes on <device 0 of {at}>>",
    )
    client.close()
    assert repr(client) == f"<connection to {at}, ended>"


def test_a_device_that_is_none_is_an_index_error_as_well(client: Client) -> None:
    with pytest.raises(IndexError, match=r"devices\[2\]"):
        _ = client.devices[2]


def test_ops_and_enums_by_name(client: Client) -> None:
    device, x = client.devices[0], np.linspace(-2, 2, 16, dtype=F32).reshape(2, 8)
    graph = device.graph()
    gated = [graph.op("GLU", [x], params={"kind": kind}) for kind in ("SWIGLU", "swiglu", kinds("GLU").index("SWIGLU"))]
    falling = [graph.op("argsort", [x], params={"order": order}) for order in ("desc", 1)]
    graph.compute()
    silu = x[:, :4] / (1 + np.exp(-x[:, :4])) * x[:, 4:]
    for node in gated:
        np.testing.assert_allclose(node.numpy(), silu, rtol=1e-5, atol=1e-6)
    for node in falling:
        assert node.numpy().tolist() == [[7, 6, 5, 4, 3, 2, 1, 0]] * 2


def test_rope_rotates_unless_it_is_told_not_to(client: Client) -> None:
    """With a freq_base, a freq_scale and an attn_factor of 0 it returned its input, or nothing."""
    graph = client.devices[0].graph()
    x = np.ones((1, 1, 4), F32)
    rotated = [
        graph.rope(x, [1], n_dims=4, mode="neox"),
        graph.op("ROPE", [x, [1]], params={"n_dims": 4, "mode": 2}),
        graph.op("ROPE", [x, [1], None], params={"n_dims": 4, "mode": "NEOX", "freq_base": 10000}),
    ]
    graph.compute()
    angles = np.array([1, 1 / 100])
    want = np.concatenate([np.cos(angles) - np.sin(angles), np.sin(angles) + np.cos(angles)])
    for node in rotated:
        np.testing.assert_allclose(node.numpy()[0, 0], want, rtol=1e-5)


# ------------------------------------------------------------------------------------------------------------- time-outs

FOREVER = [math.inf, None, 1e12, 1e308, 10**400]


@pytest.mark.parametrize("option", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("seconds", FOREVER, ids=lambda value: repr(value)[:8])
def test_time_outs_that_never_end(server: ggml_rpc_ref.Server, option: str, seconds: Any) -> None:
    with ggml_rpc_ref.connect(server.endpoint, **{option: seconds}) as client:
        assert client.devices[0].memory().free > 0
    with ggml_rpc_ref.connect(f"localhost:{server.endpoint.rpartition(':')[2]}", **{option: seconds}) as client:
        assert client.devices[0].memory().free > 0


@pytest.mark.parametrize("option", ["timeout", "connect_timeout"])
@pytest.mark.parametrize("seconds", [math.nan, -1, 0, -math.inf, "60", "x", b"1", True, [1], 1j], ids=repr)
def test_time_outs_that_are_none(server: ggml_rpc_ref.Server, option: str, seconds: Any) -> None:
    with pytest.raises(Misuse, match=rf"^{option} = .*: give seconds above 0, or None to wait for ever"):
        ggml_rpc_ref.connect(server.endpoint, **{option: seconds})


def test_a_time_out_that_is_set_later(client: Client) -> None:
    client.timeout = None
    assert client.timeout == math.inf
    assert client.devices[0].memory()
    with pytest.raises(Misuse, match="timeout = nan"):
        client.timeout = math.nan


@pytest.mark.parametrize("endpoint", [None, 50052, b"127.0.0.1"], ids=repr)
def test_endpoints_that_are_none(endpoint: Any) -> None:
    with pytest.raises(Misuse, match=r"endpoint = .*: it must be a text"):
        ggml_rpc_ref.connect(endpoint)


# ------------------------------------------------------------------------------------------- what is accepted is accepted

MADE = [op for op in OPS if op not in (*CUSTOM_OPS, "NONE")]


def changed(random: Random, ne: tuple[int, ...]) -> tuple[int, ...]:
    """Dimensions, in one case of six with another length of one."""
    if not ne or random.random() > 1 / 6:
        return ne
    place = random.randrange(len(ne))
    return tuple(random.choice([0, 1, n + 1, 2 * n]) if at == place else n for at, n in enumerate(ne))


@pytest.mark.parametrize("seed", range(4))
def test_a_server_takes_what_the_builder_takes(client: Client, seed: int) -> None:
    """Cases of each op with other lengths and parameters: refused here, or computed there with the connection alive."""
    random, device, taken = Random(seeded(seed)), client.devices[0], 0
    for _ in range(150):
        op = random.choice(MADE)
        case = random.choice(cases_of(op))
        zeros = {param.name: 0 if param.count == 1 else (0,) * param.count for param in OPS[op].params}
        params: dict[str, Any] = zeros | dict(case.params)
        for name in params:
            if random.random() < 0.1 and not isinstance(params[name], tuple):
                params[name] = random.choice([0, 1, -1, 2, 2**31 - 1, -(2**31)])
        graph = device.graph()
        with contextlib.suppress(Misuse):
            src = [None if given is None else device.empty(given.dtype, changed(random, given.ne)) for given in case.src]
            # index 0 is there in whatever has rows
            if any(source is not None and source.nbytes == 0 for source in src):
                continue
            node = graph.op(op, src, params=params, **({"ne": case.dst.ne} if op in NE_GIVEN else {}))
            if node.nbytes < 2**24:
                graph.compute()
                taken += 1
        assert device.memory().free > 0, (op, case.id, params)
    assert taken > 50
