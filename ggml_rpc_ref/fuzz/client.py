"""One connection of a well-formed session in the making: the usual things that a good client says. The rarer ones are in `acts`."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.packet import handle
from ggml_rpc_ref.fuzz.parts import ALIGNMENT, SALTS, Part, catalogue, usable
from ggml_rpc_ref.fuzz.session import PER_CONNECTION, Buffer, Peer, Step
from ggml_rpc_ref.fuzz.tensors import ZEROS, block, row_of, tensor_of
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.graph import Graph
from ggml_rpc_ref.spec.dtypes import BY_NAME, types
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    InitTensor,
    MemsetTensor,
    Message,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    by_number,
    has_field,
)
from ggml_rpc_ref.spec.versions import Version

MARGIN: Final = 4096
"""Bytes of a buffer after the last thing in it: a few bytes beside it still belong to the session."""
BEST_EFFORT: Final = 20
"""How many cases are tried before a part is given up."""


class Material:
    """What sessions are made of.

    Args:
        version: the protocol version.
        devices: how many devices the server has.
        ops: names of the ops to use; empty: all.
        sums: the ranks that the server may have in sums with another server, which we play.

    Attributes:
        commands: the version's requests.
        by_op: op to the indices of its cases.
        names: of the ops.

    Raises:
        Misuse: where the version has none of the ops.
    """

    def __init__(self, version: Version, devices: int, ops: Sequence[str], sums: Sequence[int]) -> None:
        self.version, self.devices, self.sums = version, devices, tuple(sums)
        self.commands = {row.cls for row in by_number(version).values()}
        by_op: dict[str, list[int]] = {}
        for name, index in catalogue(version):
            if not ops or name in ops:
                by_op.setdefault(name, []).append(index)
        if not by_op:
            raise Misuse(f"protocol {version} has none of the ops {', '.join(ops) or '(its builds number them differently)'}")
        self.by_op, self.names = by_op, sorted(by_op)

    def choice(self, rng: Random, op: str = "") -> tuple[str, int]:
        """Return an op, by default any, and the index of one of its cases."""
        name = op or rng.choice(self.names)
        return name, rng.choice(self.by_op[name])

    def part(self, rng: Random, op: str = "") -> Part:
        """Return a part of an op, by default of any."""
        for _ in range(BEST_EFFORT):
            found = usable(*self.choice(rng, op), rng.randrange(SALTS), self.version)
            if found is not None:
                return found
        raise Misuse(f"the cases of {', '.join(self.names[:3])} can't be made")


class Client:
    """One connection of a session in the making.

    Args:
        material: what it is made of.
        rng: of all choices.
        connection: its index.

    Attributes:
        steps: what it says, so far.
        ends: for each buffer of its start, where its free bytes begin.
        device_of: for each of them the device.
        next_id: id of the next tensor.
        late: how many buffers it has allocated on the way.
        peers: the other servers of its sums.
        joined: devices that still have one.
    """

    def __init__(self, material: Material, rng: Random, connection: int) -> None:
        self.material, self.rng, self.connection = material, rng, connection
        self.version = material.version
        self.steps: list[Step] = []
        self.ends = [0] * (rng.choice((1, 1, 1, 2, 3)) if rng.random() < 0.97 else 12)
        self.device_of = [rng.randrange(material.devices) for _ in self.ends]
        self.late, self.peers, self.joined = 0, list[Peer](), set[int]()
        self.next_id = rng.choice((1, 0x1000, 0x7F0000001000, 2**63 + 64))

    def buffers(self) -> list[Buffer]:
        """Return the buffers of its start."""
        # of few different sizes, so that an allocator gives what was freed before
        sizes = [-(-end // MARGIN) * MARGIN + MARGIN for end in self.ends]
        return [Buffer(self.number(i), size, self.device_of[i]) for i, size in enumerate(sizes)]

    def number(self, index: int) -> int:
        """Return the number of one of them."""
        return self.connection * PER_CONNECTION + index

    def opening(self) -> list[Step]:
        """Return what makes the contents of the buffers known; now and then what they hold before is read."""
        steps = []
        for index in range(len(self.ends)):
            if self.rng.random() < 0.08:
                fresh = GetTensor(tensor=block(self.number(index), 0, 1024), offset=0, size=1024)
                steps.append(Step(self.connection, fresh, bytes(1024)))
            steps.append(Step(self.connection, BufferClear(remote_ptr=handle(self.number(index)), value=0)))
        return steps

    def say(self, message: Message, expected: Part | bytes | None = None) -> None:
        """Say something, and what its reply must hold."""
        self.steps.append(Step(self.connection, message, expected))

    def room(self, size: int) -> tuple[int, int]:
        """Return (index of a buffer, offset) of fresh bytes."""
        index = self.rng.randrange(len(self.ends))
        offset = self.ends[index]
        self.ends[index] += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT * self.rng.choice((0, 0, 1))
        return index, offset

    def claim(self, index: int, size: int) -> int:
        """Return the offset of fresh bytes in one of the buffers."""
        offset = self.ends[index]
        self.ends[index] += -(-size // ALIGNMENT) * ALIGNMENT + ALIGNMENT
        return offset

    # ------------------------------------------------------------------------------------------------------------ acts

    def compute(self, op: str = "") -> None:
        """Upload operands, compute a graph of one or more ops, read the results, perhaps compute it again."""
        parts = [self.material.part(self.rng, op) for _ in range(1 if op else self.rng.choice((1, 1, 2, 4)))]
        index = self.rng.randrange(len(self.ends))
        placed, nodes = [], []
        for part in parts:
            offset = self.claim(index, len(part.image))
            placed.append((part, offset, part.placed(self.number(index), offset, self.next_id)))
            self.next_id += len(part.records)
            nodes.append(placed[-1][2]["id"][-1])
        device = self.device_of[index] if has_field(GraphCompute, "device", self.version) else 0
        tensors = np.concatenate([records for _, _, records in placed])
        graph = Graph(device, np.array(nodes, "<u8"), tensors, self.uid())
        self.upload(index, placed)
        self.say(graph)
        again = self.rng.random() < 0.2 and GraphRecompute in self.material.commands
        if again:
            if self.rng.random() < 0.5:
                self.download(index, placed)
            self.upload(index, placed)
            self.say(self.make(GraphRecompute, device=graph.device, uid=graph.uid))
        self.download(index, placed)

    def uid(self) -> int:
        """Return a number for a graph; 0 in versions without."""
        return self.rng.randrange(1, 2**32) if has_field(GraphRecompute, "uid", self.version) else 0

    def make(self, cls: type, **values: Any) -> Message:
        """Return a request with those of the values that the version has a field for."""
        made: Message = cls(**{name: value for name, value in values.items() if has_field(cls, name, self.version)})
        return made

    def upload(self, index: int, placed: Sequence[tuple[Part, int, Any]]) -> None:
        """Upload the operands of parts."""
        for part, offset, records in placed:
            before, after = self.rng.random() < 0.1, self.rng.random() < 0.05
            if before:
                self.prepare(records)
            tensor, data = block(self.number(index), offset, len(part.image)), part.image.tobytes()
            cut = self.rng.randrange(len(data)) if data and self.rng.random() < 0.2 else 0
            if cut:
                self.say(SetTensor(tensor=tensor, offset=0, data=data[:cut]))
            self.say(SetTensor(tensor=tensor, offset=cut, data=data[cut:]))
            if after:  # it leaves the data as they are
                self.prepare(records)

    def prepare(self, records: Any) -> None:
        """Say what a stock client says of the tensors of a graph before it uploads them."""
        wire = [tensor_of(record) for record in records]
        if self.rng.random() < 0.5:
            self.say(InitTensor(tensor=wire[0]))
        by_id = {tensor.id: tensor for tensor in wire}
        dst = wire[-1]
        srcs = tuple(by_id.get(id_, ZEROS) for id_ in dst.src)
        self.say(self.make(GetAllocSize, device=0, tensor=dst, srcs=srcs))

    def download(self, index: int, placed: Sequence[tuple[Part, int, Any]]) -> None:
        """Read what parts must leave: all bytes, and perhaps a source by itself, as a tensor of its own type."""
        for part, offset, records in placed:
            size = len(part.image)
            self.say(GetTensor(tensor=block(self.number(index), offset, size), offset=0, size=size), part)
            if part.kept and self.rng.random() < 0.3:
                at = self.rng.choice(part.kept)
                source = part.tensors[at]
                data = part.image[source.offset : source.offset + source.nbytes].tobytes()
                self.say(GetTensor(tensor=tensor_of(records[at]), offset=0, size=source.nbytes), data)

    def ask(self) -> None:
        """Ask what changes nothing."""
        device = self.rng.randrange(self.material.devices)
        asked: list[Message] = [
            self.make(GetAlignment, device=device),
            self.make(GetMaxSize, device=device),
            self.make(GetDeviceMemory, device=device),
            self.make(AllocBuffer, device=device, size=self.rng.choice((0, 1, 64, 4096, 65536, self.rng.randrange(10_000)))),
            BufferGetBase(remote_ptr=handle(self.number(0))),
        ]
        if DeviceCount in self.material.commands:
            asked.append(DeviceCount())
        for message in self.rng.sample(asked, self.rng.randint(1, 4)):
            self.say(message)

    def copy(self) -> None:
        """Write, copy, set, clear and read plain bytes."""
        dtype = BY_NAME[self.rng.choice(("I8", "F32", self.rng.choice([dtype.name for dtype in types(self.version).values()])))]
        blocks = self.rng.choice((1, 7, 64, 100, 1000))
        size = blocks * dtype.size
        (one, first), (two, second) = self.room(size + ALIGNMENT), self.room(size + ALIGNMENT)
        if self.rng.random() < 0.3:  # bytes may lie anywhere, whatever they are of
            first, second = first + self.rng.randrange(4), second + self.rng.randrange(4)
        source, target = (row_of(dtype, blocks, self.number(i), at) for i, at in ((one, first), (two, second)))
        data = self.rng.randbytes(size)
        self.say(SetTensor(tensor=source, offset=0, data=data))
        self.say(CopyTensor(src=source, dst=target))
        if MemsetTensor in self.material.commands and self.rng.random() < 0.5:
            start = self.rng.randrange(size)
            self.say(MemsetTensor(tensor=source, offset=start, size=size - start, value=0x5A))
            data = data[:start] + b"\x5a" * (size - start)
        start = self.rng.randrange(size)
        self.say(GetTensor(tensor=source, offset=start, size=size - start), data[start:])
        self.say(GetTensor(tensor=target, offset=0, size=size))

    def rows(self) -> None:
        """Write and read rows, in versions that can."""
        if SetTensor2d not in self.material.commands:
            self.clear()
            return
        size, count = self.rng.choice((1, 4, 64)), self.rng.choice((1, 3, 16))
        stride = self.rng.choice((size, size + 1, size + 64, 0, size // 2))
        span = stride * (count - 1) + size
        index, offset = self.room(span)
        tensor, data = block(self.number(index), offset, span), self.rng.randbytes(size * count)
        shape = {"tensor": tensor, "offset": 0, "size": size, "n_copies": count, "stride": stride}
        self.say(SetTensor2d(**shape, data=data))  # type: ignore[arg-type]
        # rows that overlap are written in order and read as they lie
        there = bytearray(span)
        for row in range(count):
            there[row * stride : row * stride + size] = data[row * size : row * size + size]
        wanted = b"".join(there[row * stride : row * stride + size] for row in range(count))
        self.say(GetTensor2d(**shape), wanted)  # type: ignore[arg-type]

    def clear(self) -> None:
        """Set every byte of a buffer, and read some of them, from its last ones on backwards."""
        index, _ = self.room(64)
        value, end = self.rng.randrange(256), self.ends[index] + MARGIN
        size = min(end, self.rng.choice((1, 64, 16384)))
        self.say(BufferClear(remote_ptr=handle(self.number(index)), value=value))
        self.say(GetTensor(tensor=block(self.number(index), end - size, size), offset=0, size=size), bytes([value]) * size)

    def hash(self) -> None:
        """Ask for data by a hash that nobody has uploaded."""
        size = 256
        index, offset = self.room(size)
        tensor = block(self.number(index), offset, size)
        data = self.rng.randbytes(size)
        self.say(SetTensorHash(tensor=tensor, offset=0, hash=fnv1a(data)))
        self.say(SetTensor(tensor=tensor, offset=0, data=data))
        self.say(GetTensor(tensor=tensor, offset=0, size=size), data)

    def free(self) -> None:
        """Free its last buffer."""
        self.say(FreeBuffer(remote_ptr=handle(self.number(len(self.ends) - 1))))
