"""Rarer things that a good client may do: buffers used again, graphs computed again in another order, operands changed in every way
that there is, large and empty ranges, long chains, sums with another server.

Each act adds steps to a client of a session in the making (`client.Client`), and says what must be read back.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, cast

import numpy as np

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.fuzz.client import Client
from ggml_rpc_ref.fuzz.packet import address, handle
from ggml_rpc_ref.fuzz.parts import Part, after, usable
from ggml_rpc_ref.fuzz.session import PER_CONNECTION, Buffer, Peer, Step
from ggml_rpc_ref.fuzz.tensors import F32, I8, block, tensor_of
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.messages import (
    CAPS_SIZE,
    FLAG_COMPUTE,
    MAX_OP_PARAMS,
    MAX_SRC,
    MAX_STORED_GRAPHS,
    AllocBuffer,
    BufferClear,
    CommAllreduce,
    CommFree,
    CommInit,
    CopyTensor,
    FreeBuffer,
    GetAllocSize,
    GetTensor,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    has_field,
)
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.rules import RULES

LATE: Final = 32
"""Buffers that are allocated on the way are numbered from here on, up to PER_CONNECTION."""
KEPT_FROM: Final = 10 * 2**20 + 1
"""Bytes from which on a server may keep an upload for SET_TENSOR_HASH."""
BF16_FROM: Final = 32768
"""Elements of F32 from which on a sum is sent as BF16."""
PORTS: Final = (10_000, 32_000)
"""Where sums are met: below what kernels give to connections of their own."""


def late(client: Client, size: int) -> int | None:
    """Allocate a buffer now; return its number, None where the connection has had too many."""
    number = client.connection * PER_CONNECTION + LATE + client.late
    if client.late >= PER_CONNECTION - LATE:
        return None
    client.late += 1
    client.steps.append(Step(client.connection, Buffer(number, size, client.rng.randrange(client.material.devices))))
    return number


# ------------------------------------------------------------------------------------------------------------- buffers


def reuse(client: Client) -> None:
    """Fill a buffer, free it, allocate one of its size, which must show nothing of it."""
    size = client.rng.choice((64, 1000, 1024, 4096, 8192, 2**20))
    for _ in range(client.rng.choice((1, 1, 3))):
        old = late(client, size)
        if old is None:
            return
        client.say(BufferClear(remote_ptr=handle(old), value=client.rng.randrange(1, 256)))
        client.say(FreeBuffer(remote_ptr=handle(old)))
    new = late(client, size)
    if new is not None:
        client.say(GetTensor(tensor=block(new, 0, size), offset=0, size=size), bytes(size))


def large(client: Client) -> None:
    """Clear, copy over itself and read more bytes than fit into any usual block."""
    rng = client.rng
    size = rng.choice((2**20, 3 * 2**20 + 5, 3 * 2**20 + 5, 17 * 2**20 + 3))
    number, value = late(client, size), rng.randrange(1, 256)
    if number is None:
        return
    whole = block(number, 0, size)
    client.say(BufferClear(remote_ptr=handle(number), value=value))
    if rng.random() < 0.5:
        client.say(GetTensor(tensor=whole, offset=0, size=size), bytes([value]) * size)
        return
    shift = rng.choice((1, 4096, 2**16, 2**19))
    data = random_bytes(size, value % 4)
    client.say(SetTensor(tensor=whole, offset=0, data=data))
    lower, upper = block(number, 0, size - shift), block(number, shift, size - shift)
    source, target = rng.choice(((lower, upper), (upper, lower)))
    client.say(CopyTensor(src=source, dst=target))
    client.say(GetTensor(tensor=whole, offset=0, size=size))  # where it could not copy, these are the old bytes


@lru_cache(maxsize=16)
def random_bytes(size: int, seed: int) -> bytes:
    """Return random bytes; the same each time, as megabytes of them take long to make."""
    return np.random.default_rng(seed).bytes(size)


def pieces(client: Client) -> None:
    """Write the beginning, the end and the middle of a tensor, nothing at its end, and read each."""
    rng, size = client.rng, client.rng.choice((3, 64, 100, 1000))
    index, offset = client.room(size)
    tensor, data = block(client.number(index), offset, size), bytearray(rng.randbytes(size))
    client.say(SetTensor(tensor=tensor, offset=0, data=bytes(data)))
    for _ in range(rng.choice((1, 2, 4))):
        start = rng.randrange(size)
        stop = rng.randrange(start, size + 1)
        data[start:stop] = new = rng.randbytes(stop - start)
        client.say(SetTensor(tensor=tensor, offset=start, data=new))
    start = rng.choice((0, 0, rng.randrange(size)))
    client.say(GetTensor(tensor=tensor, offset=start, size=size - start), bytes(data[start:]))


def nothing(client: Client) -> None:
    """Write and read no bytes, in the middle of a tensor, at its end, and in tensors without elements."""
    rng = client.rng
    index, offset = client.room(64)
    tensor = block(client.number(index), offset, 64)
    if rng.random() < 0.5:
        rows = rng.choice(((0, 4, 1, 1), (4, 0, 1, 1), (4, 1, 0, 1)))
        tensor = replace(tensor, type=F32, ne=rows, nb=(4, 16, 64, 64))
        if RULES["tensor.empty-anywhere"].present(client.version) and rng.random() < 0.5:
            tensor = replace(tensor, data=tensor.data + 2**30)
    at = rng.choice((0, 32, 64)) if 0 not in tensor.ne else 0
    client.say(SetTensor(tensor=tensor, offset=at))
    client.say(GetTensor(tensor=tensor, offset=at, size=0), b"")


def all_sources(client: Client) -> None:
    """Ask what a tensor with ten sources needs."""
    if not has_field(GetAllocSize, "srcs", client.version):
        return
    index, offset = client.room(64)
    sources = tuple(replace(block(client.number(index), offset, 32), id=2 + slot) for slot in range(10))
    tensor = replace(block(client.number(index), offset, 64), id=1)
    client.say(client.make(GetAllocSize, device=0, tensor=tensor, srcs=sources))


def hashed(client: Client) -> None:
    """Upload more than servers keep, and ask for it by its hash at another place, where the reply says whether it is there."""
    rng = client.rng
    size = KEPT_FROM + rng.choice((0, 0, 4096))
    number = late(client, 2 * KEPT_FROM + 3 * 4096)
    if number is None:
        return
    data, digest = kept_data(size, rng.getrandbits(64))
    flags: dict[str, Any] = {"cache_flag": rng.choice((0, 0, 1, 255))} if has_field(SetTensor, "cache_flag", client.version) else {}
    whole = block(number, 0, 2 * KEPT_FROM + 3 * 4096)
    client.say(BufferClear(remote_ptr=handle(number), value=0))
    client.say(SetTensor(tensor=whole, offset=0, data=data, **flags))
    at = rng.choice((0, 4096))
    place = KEPT_FROM + 4096
    client.say(SetTensorHash(tensor=block(number, place, KEPT_FROM + 2 * 4096), offset=at, hash=digest))
    client.say(GetTensor(tensor=block(number, place - 64, 4096 + 128 + at), offset=0, size=4096 + 128 + at))


@lru_cache(maxsize=2)
def kept_data(size: int, seed: int) -> tuple[bytes, int]:
    """Return bytes of a size, no others like them, and their hash."""
    data = np.random.default_rng(seed).bytes(size)
    return data, fnv1a(data)


# --------------------------------------------------------------------------------------------------------------- graphs


def graph_of(client: Client, index: int, found: Part, offset: int) -> tuple[Graph, Any]:
    """Return a graph of one part in a buffer that the session begins with, and its records."""
    return graph_in(client, client.number(index), client.device_of[index], found, offset)


def graph_in(client: Client, number: int, of: int, found: Part, offset: int) -> tuple[Graph, Any]:
    """Return a graph of one part in a buffer, by its number and device, and its records."""
    records = found.placed(number, offset, client.next_id)
    client.next_id += len(records)
    device = of if has_field(GraphCompute, "device", client.version) else 0
    return Graph(device, np.array([records["id"][-1]], "<u8"), records, client.uid()), records


def image_upload(client: Client, index: int, found: Part, offset: int) -> None:
    """Upload all of a part's bytes."""
    data = found.image.tobytes()
    client.say(SetTensor(tensor=block(client.number(index), offset, len(data)), offset=0, data=data))


def image_download(client: Client, index: int, found: Part, offset: int) -> None:
    """Read all of a part's bytes, which must be right."""
    size = len(found.image)
    client.say(GetTensor(tensor=block(client.number(index), offset, size), offset=0, size=size), found)


def several(client: Client) -> None:
    """Compute graphs on several devices, and then each of them again, in another order."""
    rng = client.rng
    made = []
    for _ in range(rng.choice((2, 2, 3))):
        index, found = rng.randrange(len(client.ends)), client.material.part(rng)
        offset = client.claim(index, len(found.image))
        graph, _ = graph_of(client, index, found, offset)
        image_upload(client, index, found, offset)
        client.say(graph)
        made.append((graph, index, found, offset))
    if GraphRecompute not in client.material.commands:
        return
    # without uids a device has its last graph alone
    last = {(one[0].device, one[0].uid): one for one in made}
    for graph, index, found, offset in rng.sample(list(last.values()), len(last)):
        image_upload(client, index, found, offset)
        client.say(client.make(GraphRecompute, device=graph.device, uid=graph.uid))
        image_download(client, index, found, offset)


def changed(client: Client) -> None:
    """Compute a graph, change what it reads in one of the ways that there are, and compute it again."""
    rng = client.rng
    for _ in range(8):
        name, found = client.material.choice(rng)
        other = usable(name, found, 1, client.version)
        first = usable(name, found, 0, client.version)
        if first is not None and other is not None:
            break
    else:
        return
    index = rng.randrange(len(client.ends))
    offset = client.claim(index, len(first.image))
    graph, records = graph_of(client, index, first, offset)
    image_upload(client, index, first, offset)
    client.say(graph)
    way = rng.choice(WAYS)
    result = way(client, index, offset, other, records)
    if result is None:
        return
    # without uids, a graph that copied the operands is the last one
    compute_again(client, graph, is_stored=way is not by_graph or bool(graph.uid))
    image_download(client, index, result, offset)


def changed_by_hash(client: Client) -> None:
    """Compute with weights in blocks, let a hash that the server has change them, and compute again."""
    rng = client.rng
    for _ in range(32):
        name, case = client.material.choice(rng)
        first, other = (usable(name, case, salt, client.version) for salt in (0, 1))
        if first is not None and other is not None and any(tensor.dtype.block > 1 for tensor in first.tensors):
            break
    else:
        return
    beyond = -(-KEPT_FROM // 4096) * 4096
    number = late(client, 2 * beyond)
    if number is None:
        return
    allocated = cast(Buffer, client.steps[-1].message)
    image = other.image.tobytes()
    data = image + kept_data(KEPT_FROM, rng.getrandbits(64))[0][len(image) :]
    flags: dict[str, Any] = {"cache_flag": 1} if has_field(SetTensor, "cache_flag", client.version) else {}
    client.say(BufferClear(remote_ptr=handle(number), value=0))
    client.say(SetTensor(tensor=block(number, beyond, KEPT_FROM), offset=0, data=data, **flags))
    client.say(SetTensor(tensor=block(number, 0, len(image)), offset=0, data=first.image.tobytes()))
    graph, _ = graph_in(client, number, allocated.device, first, 0)
    client.say(graph)
    # no server must have it; the right results are the model's to know
    client.say(SetTensorHash(tensor=block(number, 0, KEPT_FROM), offset=0, hash=fnv1a(data)))
    compute_again(client, graph)
    client.say(GetTensor(tensor=block(number, 0, len(image)), offset=0, size=len(image)))


def compute_again(client: Client, graph: Graph, *, is_stored: bool = True) -> None:
    """Compute a graph once more, by its uid or as the last one where it is stored so, or by sending it."""
    if is_stored and GraphRecompute in client.material.commands and client.rng.random() < 0.5:
        client.say(client.make(GraphRecompute, device=graph.device, uid=graph.uid))
    else:
        client.say(replace(graph, uid=client.uid()))


BARE: Final[dict[str, Any]] = {
    "op": 0, "src": (0,) * MAX_SRC, "op_params": (0,) * MAX_OP_PARAMS, "flags": 0, "view_src": 0, "view_offs": 0,
}  # fmt: skip
"""What a tensor that is not computed has."""
Way = Any
"""Writes a part's operands over those that are there; returns the part whose result is right then, None where it can't be done."""


def by_set_tensor(client: Client, index: int, offset: int, found: Part, records: Any) -> Part:
    """Upload each operand by its own tensor."""
    for record, tensor in zip(records, found.tensors, strict=True):
        data = found.image[tensor.offset : tensor.offset + tensor.nbytes].tobytes()
        wire = replace(tensor_of(record), **BARE)
        if data:
            client.say(SetTensor(tensor=wire, offset=0, data=data))
    return found


def by_another_tensor(client: Client, index: int, offset: int, found: Part, records: Any) -> Part:
    """Upload all operands as plain bytes."""
    image_upload(client, index, found, offset)
    return found


def by_copy(client: Client, index: int, offset: int, found: Part, records: Any) -> Part:
    """Upload the bytes elsewhere and copy them."""
    at = client.claim(index, len(found.image))
    image_upload(client, index, found, at)
    size = len(found.image)
    client.say(CopyTensor(src=block(client.number(index), at, size), dst=block(client.number(index), offset, size)))
    return found


def by_clear(client: Client, index: int, offset: int, found: Part, records: Any) -> Part | None:
    """Set every byte of the buffer to zero."""
    result = cleared(found)
    if result is not None:
        client.say(BufferClear(remote_ptr=handle(client.number(index)), value=0))
    return result


def by_graph(client: Client, index: int, offset: int, found: Part, records: Any) -> Part:
    """Upload the bytes elsewhere and let a graph copy them."""
    at, size = client.claim(index, len(found.image)), len(found.image)
    image_upload(client, index, found, at)
    rows = np.zeros(3, codec.layout(RpcTensor, client.version))
    rows["type"], rows["ne"], rows["nb"] = I8, (size, 1, 1, 1), (1, size, size, size)
    rows["id"] = client.next_id + np.arange(3, dtype=np.uint64)
    rows["buffer"] = handle(client.number(index))
    rows["data"] = [address(client.number(index), place) for place in (at, offset, offset)]
    client.next_id += 3
    copy = rows[2]
    copy["op"], copy["flags"], copy["view_src"] = op_table(client.version).index("CPY"), FLAG_COMPUTE, rows["id"][1]
    copy["src"][:2] = rows["id"][:2]
    device = client.device_of[index] if has_field(GraphCompute, "device", client.version) else 0
    client.say(Graph(device, rows["id"][2:].copy(), rows, client.uid()))
    return found


WAYS: Final[tuple[Way, ...]] = (by_set_tensor, by_another_tensor, by_copy, by_clear, by_graph)


def cleared(found: Part) -> Part | None:
    """Return a part all of whose bytes are zero; None where the oracle refuses it."""
    zero = replace(found, image=np.zeros_like(found.image), expected=None)
    try:
        zero.expected = after(zero)
    except (Misuse, Violation, Unsupported):
        return None
    return zero


def chain(client: Client) -> None:
    """Compute a graph of a long chain of views, at whose end a sum is computed."""
    rng = client.rng
    # the long ones take a tenth of a second
    length = rng.choice((3000, 12_000, 12_000)) if rng.random() < 0.1 else rng.choice((3, 40))
    index, offset = client.room(128)
    rows = np.zeros(length + 2, codec.layout(RpcTensor, client.version))
    ids = client.next_id + np.arange(length + 2, dtype=np.uint64)
    client.next_id += length + 2
    rows["id"], rows["type"], rows["ne"], rows["nb"] = ids, F32, (4, 1, 1, 1), (4, 16, 16, 16)
    rows["buffer"], rows["data"] = handle(client.number(index)), address(client.number(index), offset)
    table = op_table(client.version)
    rows["op"][1:-1], rows["view_src"][1:-1], rows["flags"][1:] = table.index("VIEW"), ids[0], FLAG_COMPUTE
    rows["src"][1:, 0] = ids[:-1]
    last = rows[-1]
    last["op"], last["data"] = table.index("ADD"), address(client.number(index), offset + 64)
    last["src"][1] = ids[0]
    numbers = [rng.randrange(1000) for _ in range(4)]
    client.say(SetTensor(tensor=block(client.number(index), offset, 128), offset=0, data=struct.pack("<4f", *numbers)))
    device = client.device_of[index] if has_field(GraphCompute, "device", client.version) else 0
    nodes = ids[1:] if rng.random() < 0.5 else ids[-1:]
    client.say(Graph(device, nodes.astype("<u8"), rows, client.uid()))
    result = struct.pack("<4f", *(2 * number for number in numbers))
    client.say(GetTensor(tensor=block(client.number(index), offset + 64, 16), offset=0, size=16), result)


def empty_graph(client: Client) -> None:
    """Compute nothing, and that again."""
    graph = Graph(0, np.zeros(0, "<u8"), np.zeros(0, codec.layout(RpcTensor, client.version)), client.uid())
    client.say(graph)
    if GraphRecompute in client.material.commands:
        client.say(client.make(GraphRecompute, device=0, uid=graph.uid))


def many_uids(client: Client) -> None:
    """Store more graphs than a device keeps; the last one can be computed again."""
    if not has_field(GraphRecompute, "uid", client.version):
        return
    rows = np.zeros(0, codec.layout(RpcTensor, client.version))
    first, count = client.rng.randrange(1, 2**32), client.rng.choice((2, MAX_STORED_GRAPHS, MAX_STORED_GRAPHS + 1))
    for uid in range(first, first + count):
        client.say(Graph(0, np.zeros(0, "<u8"), rows, uid))
    client.say(GraphRecompute(device=0, uid=first + count - 1))


# ----------------------------------------------------------------------------------------------------------------- sums


def allreduce(client: Client) -> None:
    """Meet another server, add its tensors to ours once or more often, and part."""
    rng, material = client.rng, client.material
    if CommInit not in material.commands or not material.sums:
        return
    rank, device = rng.choice(material.sums), rng.randrange(material.devices)
    if device in client.joined:
        return  # to join again is answered with 1 and changes nothing
    index, port = rng.randrange(len(client.ends)), rng.randrange(*PORTS)
    says = [bytes(CAPS_SIZE)]
    wanted: list[tuple[RpcTensor, bytes]] = []
    host = b"" if rank == 0 else b"127.0.0.1"
    join = CommInit(device=device, rank=rank, world=2, port=port, host=host)
    client.say(join, b"\1")
    if rng.random() < 0.1:
        client.say(join, b"\1")  # a device that has a communicator answers so again
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind, count = rng.choice(("F32", "F32", "F16")), rng.choice((1, 4, 100, 1000))
        if kind == "F32" and rng.random() < 0.1:
            count = rng.choice((BF16_FROM - 1, BF16_FROM))
        dtype = np.dtype({"F32": "<f4", "F16": "<f2"}[kind])
        size = count * dtype.itemsize
        offset = client.claim(index, size)
        tensor = RpcTensor(
            id=1, type={"F32": F32, "F16": 1}[kind], buffer=handle(client.number(index)), ne=(count, 1, 1, 1),
            nb=(dtype.itemsize, size, size, size), data=address(client.number(index), offset),
        )  # fmt: skip
        # few bits, so that BF16 and F16 hold them and their sums exactly
        mine, theirs = (np.resize(np.array([rng.randrange(-60, 60) for _ in range(16)], dtype), count) for _ in range(2))
        halves = kind == "F32" and count >= BF16_FROM
        says.append((theirs.view("<u4") >> 16).astype("<u2").tobytes() if halves else theirs.tobytes())
        client.say(SetTensor(tensor=tensor, offset=0, data=mine.tobytes()))
        client.say(CommAllreduce(device=device, tensor=tensor))
        wanted.append((tensor, (mine + theirs).tobytes()))
    for tensor, data in wanted:
        client.say(GetTensor(tensor=tensor, offset=0, size=len(data)), data)
    if rng.random() < 0.7:
        client.say(CommFree(device=device))
        if rng.random() < 0.3:
            client.say(CommFree(device=device))  # where there is none it does nothing
    else:
        client.joined.add(device)
    client.peers.append(Peer(port, rank, b"".join(says)))


def alone(client: Client) -> None:
    """Ask for a meeting that can't be, which is answered with 0 at once."""
    if CommInit not in client.material.commands:
        return
    rng = client.rng
    right: dict[str, Any] = {"device": 0, "rank": 0, "world": 2, "port": rng.randrange(*PORTS), "host": b""}
    wrong: dict[str, Any] = rng.choice(({"world": 1}, {"world": 3}, {"rank": 2}, {"device": 2**32 - 1}, {"world": 0}))
    client.say(CommInit(**right | wrong), b"\0")


def sizes(client: Client) -> None:
    """Allocate buffers of round and odd sizes."""
    size = client.rng.choice((1, 10, 31, 33, 100, 1000, 1024, 4097, 10_000, 65_535, 100_000))
    client.say(client.make(AllocBuffer, device=0, size=size))


ACTS: Final[dict[Callable[[Client], None], float]] = {
    reuse: 1.0,
    large: 0.04,
    pieces: 1.0,
    nothing: 0.5,
    all_sources: 0.3,
    hashed: 0.03,
    several: 1.0,
    changed: 1.5,
    changed_by_hash: 0.1,
    chain: 0.3,
    empty_graph: 0.2,
    many_uids: 0.02,
    allreduce: 1.5,
    alone: 0.3,
    sizes: 0.5,
}
"""Act to how often it is chosen, beside 1 for each of the usual ones."""
