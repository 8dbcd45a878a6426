"""Play op vectors against a live server: each case is uploaded, computed as a graph of one node, read back and compared.

Only the vectors are used, in the way that vectors/README.md describes under "Playing an op". A server that ends the connection at
the graph refuses the op. A server may lack an op, so a refusal is UNSUPPORTED; a wrong result is a failure.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.conformance import marks
from ggml_rpc_ref.conformance.arena import MARGIN
from ggml_rpc_ref.conformance.case import Case
from ggml_rpc_ref.conformance.events import Result
from ggml_rpc_ref.conformance.peer import Buffer, Peer, Subject
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict
from ggml_rpc_ref.golden import operands
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes, outlier
from ggml_rpc_ref.ops.op import FLOATS
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, MAX_OP_PARAMS, MAX_SRC, GetAlignment, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import kinds
from ggml_rpc_ref.spec.versions import NEWEST, Version
from ggml_rpc_ref.tensor import Array, PlainStorage, Tensor

GUARD, GUARD_BYTE = 64, 0xA5
"""How many bytes lie before and after each memory, and their value."""
UNWRITTEN: Final = 0xFF
"""The value of the bytes of a dst whose contents don't matter: NaN in floats, so that an element that was not computed shows."""
OTHERWISE: Final = 0x3C
"""Their value where the genuine server left NaN, or bytes of that value: about 0.01 in F32 and BF16, and 1 in F16."""
COMPUTES: Final = "graph.computes"
PATIENCE: Final = 4.0
"""The factor on the usual deadline for an answer: a reference server computes in Python."""

inputs = lru_cache(maxsize=2)(operands.payloads)
"""Path of an op's JSON to the bytes beside it; kept, since the cases of an op are played one after another."""


def cases(path: Path, content: Any) -> Iterator[Case]:
    """Yield a case for each vector in an op's file."""
    op = content["op"]
    for row in content["cases"]:
        vector = Vector(path, op, row, Tolerance(**row.get("tolerance", content["tolerance"])))
        doc = f"{vector}, {row['id']}: the result is that of the genuine server, and nothing else changes."
        play, marks_ = partial(_play, vector), {"since": vector.since, "until": vector.until}
        yield Case(f"ops/{op}/{row['id']}", doc, play, may_crash=True, patience=PATIENCE, judges=COMPUTES, **marks_)


@dataclass(frozen=True, slots=True)
class Vector:
    """One case of an op.

    Attributes:
        path: of the op's file.
        op: its name.
        row: the case's JSON object.
        tolerance: how far the result may be off.
    """

    path: Path
    op: str
    row: Any
    tolerance: Tolerance

    def __str__(self) -> str:
        """Name the op and its types."""
        sources = ", ".join(operand["type"] for operand in self.row["src"] if operand is not None)
        return f"{self.op}{' of ' * bool(sources)}{sources} to {self.row['dst']['type']}"

    @property
    def named(self) -> dict[str, Any]:
        """The operands that are not null, by name."""
        named = {"dst": self.row["dst"]} | {f"src{slot}": operand for slot, operand in enumerate(self.row["src"])}
        return {name: operand for name, operand in named.items() if operand is not None}

    @property
    def params(self) -> tuple[int, ...]:
        """op_params."""
        return struct.unpack(f"<{MAX_OP_PARAMS}i", bytes.fromhex(self.row["op_params"]))

    @property
    def since(self) -> Version:
        """The first version that has its op, its kind of UNARY or GLU, and its types, and computes this."""
        names, number = kinds(self.op, NEWEST), self.params[0]
        said = [Version.parse(self.row["since"])] if "since" in self.row else []
        op = marks.kind_since(self.op, names[number]) if 0 <= number < len(names) else marks.op_since(self.op)
        return max(op, *said, *(BY_NAME[operand["type"]].since for operand in self.named.values()))

    @property
    def until(self) -> Version | None:
        """The first version that computes something else; None where there is none yet."""
        return Version.parse(self.row["until"]) if "until" in self.row else None

    def judged(self, memory: str) -> Any:
        """Return the operand whose elements may change in a memory that changes: dst in its own or its alias's, else the owner."""
        dst = self.row["dst"]
        return dst if memory == dst.get("alias", "dst") else self.named[memory]


@dataclass(frozen=True, slots=True)
class Image:
    """The bytes of a buffer that holds a vector's memories, and where each begins."""

    data: bytes
    starts: dict[str, int]

    @classmethod
    def of(cls, vector: Vector, alignment: int) -> Image:
        """Lay the memories out one after the other, with guard bytes around each.

        Raises:
            NotJudged: if the vector can't be read.
        """
        data, starts = bytearray([GUARD_BYTE]) * MARGIN, {}
        for name, operand in operands.owners(vector.row):
            try:
                content = operands.before(operand, inputs(vector.path))
            except ValueError as error:
                raise NotJudged(f"the vector is damaged: {name} {error}; see `ggml-rpc-ref vectors verify`", Verdict.SKIP) from None
            data += bytes([GUARD_BYTE]) * (GUARD + -(len(data) + GUARD) % alignment)
            starts[name] = len(data)
            data += _unwritten(vector, name, operand) if content is None else content
        data += bytes([GUARD_BYTE]) * MARGIN
        return cls(bytes(data), starts)

    def offset(self, vector: Vector, name: str) -> int:
        """Return the offset of an operand's first element in the buffer."""
        operand = vector.named[name]
        return int(self.starts[operand.get("alias", name)] + operand["offset"])


def _unwritten(vector: Vector, name: str, operand: Any) -> bytes:
    """Return what a memory holds that the node overwrites: no element is what it must become."""
    found, recorded = np.full(operands.size(operand), UNWRITTEN, np.uint8), operands.after(vector.row, name)
    if recorded is None:
        return found.tobytes()
    expected, room = (_tensor(operand, memory, operand["offset"]) for memory in (np.frombuffer(recorded, np.uint8), found))
    if operand["type"] in FLOATS:
        bits = np.dtype(f"u{room.array.itemsize}")
        room.array.view(bits)[np.isnan(expected.values())] = int.from_bytes(bytes([OTHERWISE]) * bits.itemsize)
    else:
        found[np.frombuffer(recorded, np.uint8) == UNWRITTEN] = OTHERWISE
    return found.tobytes()


# --------------------------------------------------------------------------------------------------------- on the server


def _play(vector: Vector, subject: Subject) -> None:
    peer = subject.connect()
    image = Image.of(vector, max(GUARD, peer.ask(GetAlignment()).alignment))
    size = len(image.data)
    buffer = peer.alloc(size)
    everything = RpcTensor(
        id=1, type=BY_NAME["I8"].number, buffer=buffer.remote_ptr, ne=(size, 1, 1, 1), nb=(1, size, size, size), data=buffer.base
    )
    peer.write(everything, image.data)
    params = (subject.kind(vector.op, vector.params[0]), *vector.params[1:])
    _compute(peer, vector, graph(vector, image, buffer, subject.op(vector.op), params))
    judge(vector, image, peer.read(everything, size))


def _compute(peer: Peer, vector: Vector, request: GraphCompute) -> None:
    try:
        peer.tell(request)
    except Broken as broken:
        if broken.verdict is not Verdict.FAIL or broken.rule:
            raise
        raise NotJudged(f"it refuses {vector}") from None  # the runner checks after every case that the server lives


def graph(vector: Vector, image: Image, buffer: Buffer, number: int, params: tuple[int, ...]) -> GraphCompute:
    """Return the request that computes a vector whose memories were uploaded; op and op_params as the server numbers them."""
    ids = {name: 100 + index for index, name in enumerate(vector.named)}
    tensors = {
        name: RpcTensor(
            id=ids[name],
            type=BY_NAME[operand["type"]].number,
            buffer=buffer.remote_ptr,
            ne=tuple(operand["ne"]),
            nb=tuple(operand["nb"]),
            data=buffer.base + image.offset(vector, name),
        )
        for name, operand in vector.named.items()
    }
    alias = vector.row["dst"].get("alias")
    tensors["dst"] = replace(
        tensors["dst"],
        op=number,
        op_params=params,
        flags=FLAG_COMPUTE,
        src=tuple(ids.get(f"src{slot}", 0) for slot in range(MAX_SRC)),
        view_src=ids[alias] if alias else 0,
        view_offs=vector.row["dst"]["offset"],
    )
    return GraphCompute(nodes=(ids["dst"],), tensors=tuple(tensors.values()))


# --------------------------------------------------------------------------------------------------------------- judging


def judge(vector: Vector, image: Image, data: bytes) -> None:
    """Compare a buffer after the computation with its expected contents.

    Raises:
        Broken: graph.computes for a wrong result, data.round-trip if bytes outside the result changed.
    """
    found, may_change = np.frombuffer(data, np.uint8), np.zeros(len(data), bool)
    for name in vector.row["expected"]:
        recorded = operands.after(vector.row, name)
        assert recorded is not None
        operand = vector.judged(name)
        expected = _tensor(operand, np.frombuffer(recorded, np.uint8), operand["offset"])
        actual = _tensor(operand, found, image.starts[name] + operand["offset"])
        may_change |= element_bytes(actual)
        if mismatch := compare_tensors(expected, actual, vector.tolerance):
            raise Broken(f"{name} of {vector} to be as recorded within {_words(vector.tolerance)}", str(mismatch), COMPUTES)
        if (bound := vector.row.get("element")) and (mismatch := outlier(expected, actual, bound)):
            raise Broken(f"each element of {name} of {vector} to be within {bound:g} of the recorded one", str(mismatch), COMPUTES)
    changed = np.flatnonzero((found != np.frombuffer(image.data, np.uint8)) & ~may_change)
    if changed.size:
        where = f"{changed.size} changed, the first {_place(image, int(changed[0]))}"
        raise Broken(f"{vector} to change no byte outside of its result's elements", where, "data.round-trip")


def _tensor(operand: Any, memory: Array, offset: int) -> Tensor:
    ne, nb = tuple(operand["ne"]), tuple(operand["nb"])
    return Tensor(BY_NAME[operand["type"]], ne, nb, PlainStorage(memory), offset)


def _words(tolerance: Tolerance) -> str:
    return f"rtol {tolerance.rtol:g}, atol {tolerance.atol:g} or nmse {tolerance.nmse:g}"


def _place(image: Image, at: int) -> str:
    """Return the place of a byte in words, relative to the nearest memory's start."""
    name, start = min(image.starts.items(), key=lambda item: abs(at - item[1]))
    return f"{at - start:+d} bytes from the start of {name}"


def summary(results: Sequence[Result]) -> Iterator[str]:
    """Yield a line for each op that does not pass all its vectors, with the counts.

    Refusals of types with which other vectors pass are listed apart: there the server may check too strictly.
    """
    mine = (result for result in results if result.case.id.startswith("ops/"))
    for op, alike in groupby(mine, key=lambda result: result.case.id.split("/")[1]):
        group = list(alike)
        found = Counter(result.verdict for result in group)
        others = [f"{found[verdict]} {verdict}" for verdict in Verdict if found[verdict] and verdict is not Verdict.PASS]
        able = {_types(result) for result in group if result.verdict is Verdict.PASS}
        odd = [result.case.id for result in group if result.verdict is Verdict.UNSUPPORTED and _types(result) in able]
        if odd:
            others.append(f"of these {len(odd)} with types that pass elsewhere (too strict a check?): {', '.join(odd[:3])}")
        if others:
            yield f"{op}: {found[Verdict.PASS]} of {found.total()} pass, {', '.join(others)}"


def _types(result: Result) -> str:
    """Return the op and types that the case's sentence begins with."""
    return result.case.doc.partition(f", {result.case.id.split('/')[2]}: ")[0]
