"""Well-formed material for sessions: one op with its operands in memory, from the cases of the ops' rows.

A part is an image (the bytes of all its operands, guard bytes around each), the records of its tensors with addresses relative to
the image, and what the oracle says the image holds afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Misuse, Unsupported, Violation
from ggml_rpc_ref.fuzz.packet import address, handle
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.recipes import build
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import MAX_SRC, Op
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor

ALIGNMENT: Final = 64
LARGEST: Final = 2**16
"""Bytes of the largest image: sessions are to be many, not long."""
SALTS: Final = 4
"""How many different contents each case gets."""


@dataclass(slots=True)
class Part:
    """One op, ready to be placed in a buffer.

    Attributes:
        op: its name.
        case: id of its case.
        image: the bytes of its operands' memory.
        records: of its tensors, `codec.layout(RpcTensor, version)`: ids from 1 on, `data` an offset into the image, dst last.
        tensors: the same tensors in the image, dst last.
        tolerance: how far another implementation's result may be off.
        version: which decides what the op means.
        index: of its case.
        expected: the image after the node, by the oracle; None: not asked yet, or the oracle gave none.
    """

    op: str
    case: str
    image: npt.NDArray[np.uint8]
    records: npt.NDArray[Any]
    tensors: tuple[Tensor, ...]
    tolerance: Tolerance
    version: Version = DEFAULT
    index: int = 0
    expected: npt.NDArray[np.uint8] | None = None
    _right: set[bytes] = field(default_factory=set)

    @property
    def kept(self) -> list[int]:
        """Indices of the sources that the node leaves as they are."""
        if ops_of(self.version)[self.op].writes:
            return []
        *sources, dst = self.tensors
        first, last = dst.offset, dst.offset + dst.nbytes
        return [at for at, t in enumerate(sources) if t.nbytes and not (t.offset < last and first < t.offset + t.nbytes)]

    def placed(self, buffer: int, offset: int, first_id: int) -> npt.NDArray[Any]:
        """Return its records in a buffer, with made-up addresses.

        Args:
            buffer: the buffer's number.
            offset: where the image begins in it.
            first_id: the id of the first tensor; the others follow.
        """
        records = self.records.copy()
        shift = np.uint64(first_id - 1)
        records["id"] += shift
        for links in ("src", "view_src"):
            records[links] += np.where(records[links] != 0, shift, np.uint64(0))
        records["buffer"] = handle(buffer)
        records["data"] += np.uint64(address(buffer, offset))
        return records

    def wrong(self, found: bytes) -> str:
        """Return how an image differs from what the node must leave, as a sentence; "" where it is right."""
        if found in self._right:
            return ""
        if self.expected is None:
            self.expected = after(self)
        actual = np.frombuffer(found, np.uint8)
        wanted, got = (moved(self.tensors[-1], PlainStorage(image)) for image in (self.expected, actual))
        if mismatch := compare_tensors(wanted, got, self.tolerance):
            return f"{self.op} ({self.case}): {mismatch}"
        # what the oracle itself changed beside dst (an op that updates a source) is judged by the op's own tolerance: not as bytes
        changes = (actual != self.expected) & (self.expected == self.image) & ~element_bytes(got)
        if changes.any():
            return f"{self.op} ({self.case}): {int(changes.sum())} bytes beside the result changed"
        if len(self._right) < 4:
            self._right.add(found)
        return ""


def moved(tensor: Tensor, storage: PlainStorage) -> Tensor:
    """Return the same tensor in other bytes."""
    return Tensor(tensor.dtype, tensor.ne, tensor.nb, storage, tensor.offset, tensor.name)


def after(part: Part) -> npt.NDArray[np.uint8]:
    """Return the image of a part after its node, by the oracle."""
    image = part.image.copy()
    # one storage for all: some ops ask whether dst lies in the memory of a source
    storage = PlainStorage(image)
    op = ops_of(part.version)[part.op]
    dst = part.records[-1]
    src = [moved(part.tensors[int(id_) - 1], storage) if id_ else None for id_ in dst["src"]]
    while src and src[-1] is None:
        src.pop()
    if not op.view and 0 not in part.tensors[-1].ne:
        node = op.check(moved(part.tensors[-1], storage), tuple(src), part.records[-1]["op_params"].tobytes())
        with np.errstate(all="ignore"):
            op.oracle(node)
    return image


@cache
def catalogue(version: Version = DEFAULT) -> tuple[tuple[str, int], ...]:
    """Return (op, index of its case) of every case that a version's ops and types allow and whose image is small."""
    return tuple(
        (name, index)
        for name in op_table(version)
        if name in ops_of(version)
        for index, case in enumerate(cases_of(name, version))
        if _is_small(case)
    )


def _is_small(case: Case) -> bool:
    operands = [operand for operand in (case.dst, *case.src) if operand is not None]
    return sum(int(np.prod(operand.quad)) for operand in operands) <= LARGEST // 4


@cache
def part(name: str, index: int, salt: int = 0, version: Version = DEFAULT) -> Part:
    """Return a part; it is made once.

    Args:
        name: of the op.
        index: of its case.
        salt: which contents, below SALTS.
        version: decides the op's number and the records' layout.
    """
    op, case = ops_of(version)[name], cases_of(name, version)[index]
    dst, sources = build(name, case, f"/{salt}" if salt else "")
    return replace(_lay_out(op, case, [*sources, dst], version), index=index)


def _lay_out(op: Op, case: Case, operands: Sequence[Tensor | None], version: Version) -> Part:
    """Put the operands' memories one after the other, each one once, and make the records."""
    starts: dict[int, int] = {}
    pieces: list[npt.NDArray[np.uint8]] = []
    end = 0
    for operand in operands:
        if operand is None or id(operand.storage) in starts:
            continue
        assert operand.storage is not None
        assert operand.storage.data is not None
        gap = -end % ALIGNMENT
        pieces += [np.zeros(gap, np.uint8), operand.storage.data]
        starts[id(operand.storage)] = end + gap
        end += gap + len(operand.storage.data)
    pieces.append(np.zeros(-end % ALIGNMENT, np.uint8))
    image = np.concatenate(pieces)
    there = [operand for operand in operands if operand is not None]
    tensors = tuple(
        Tensor(t.dtype, t.ne, t.nb, PlainStorage(image), starts[id(t.storage)] + t.offset, f"t{n}") for n, t in enumerate(there)
    )
    tolerance = case.tolerance or op.tolerance
    return Part(op.name, case.id, image, _records(op, case, operands, tensors, version), tensors, tolerance, version)


def _records(
    op: Op, case: Case, operands: Sequence[Tensor | None], tensors: Sequence[Tensor], version: Version
) -> npt.NDArray[Any]:
    records = np.zeros(len(tensors), codec.layout(RpcTensor, version))
    for number, tensor in enumerate(tensors, 1):
        record = records[number - 1]
        record["id"], record["type"], record["ne"], record["nb"] = number, tensor.dtype.number, tensor.ne, tensor.nb
        record["data"] = tensor.offset
    slots = np.cumsum([operand is not None for operand in operands[:-1]])
    ids = [int(slot) if operand is not None else 0 for slot, operand in zip(slots, operands[:-1], strict=True)]
    dst = records[-1]
    dst["op"], dst["flags"] = op_table(version).index(op.name), FLAG_COMPUTE
    dst["src"] = (*ids, *[0] * MAX_SRC)[:MAX_SRC]
    params = op.pack(case.params)
    dst["op_params"] = np.frombuffer(params, "<i4")
    if case.dst.alias:
        owner = ids[int(case.dst.alias.removeprefix("src"))]
        if owner and case.dst.offset + tensors[-1].nbytes <= tensors[owner - 1].nbytes:
            dst["view_src"], dst["view_offs"] = owner, case.dst.offset
    return records


def usable(name: str, index: int, salt: int, version: Version) -> Part | None:
    """Return a part; None where its case can't be made or the oracle refuses it."""
    try:
        found = part(name, index, salt, version)
        if found.expected is None:
            found.expected = after(found)
    except (Misuse, Violation, Unsupported):
        return None
    return found if len(found.image) <= LARGEST else None
