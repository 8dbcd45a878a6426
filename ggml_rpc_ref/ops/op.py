"""What a ggml operation is made of: the row that each file in this package ends with, and the node that its functions take.

An op's file has, in this order: a docstring with the formula, the shapes and the source; `shape()`, which refuses a node that
has no meaning; `oracle()`, which computes one; and the row `OP`. Ops that differ in one function share the rest, and build the
row by one call (`shared.elementwise.unary_op`). Inputs to try an op on are in `ggml_rpc_ref.ops.cases`.

The contract of `shape`: its answer depends on nothing but geometry, that is on op_params and, for each operand, whether it is
there, its dtype, ne and nb. So one check serves all nodes of the same geometry (`Op.check_geometry`). The few ops that also need
an operand to lie at a certain place in memory say so in a rule of its own, `Op.placement`. What only the bytes can tell, an index
out of range, is refused by the oracle.

A row says what the op is in the version of SPEC.md's running text, or in the first one that has it. What it is later stands in
`Op.later`, and what it was before in `Op.earlier`, by the ids of `spec.op_changes`; `Op.at` puts them together. The functions of an
op look at `node.op` alone, so they know no versions: they ask whether its row has a parameter, or are other functions.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ggml_rpc_ref.blocks import CAN_DEQUANTISE, CAN_QUANTISE
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops.cost import Cost, by_element
from ggml_rpc_ref.ops.tolerance import FLOAT32, Tolerance
from ggml_rpc_ref.spec import op_changes
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.opcodes import kinds
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import Tensor

FLOATS = ("F32", "F16", "BF16")
"""The plain floating-point types that most of upstream's CPU kernels take."""
BLOCKS = tuple(name for name, dtype in BY_NAME.items() if dtype.is_quantised)
"""All block types."""
PLAIN = tuple(name for name, dtype in BY_NAME.items() if not dtype.is_quantised)
"""All types of one element per block."""
INTERMEDIATE = ("Q8_1", "Q8_K")
"""Block types that upstream only makes from activations, to multiply with; they have no to_float (type_traits in ggml.c)."""
WRITABLE_BLOCKS = tuple(name for name in BLOCKS if BY_NAME[name] in CAN_QUANTISE)
"""Block types that upstream's CPU backend can write: those with a from_float (type_traits_cpu in ggml-cpu.c)."""
READABLE_BLOCKS = tuple(name for name in BLOCKS if BY_NAME[name] in CAN_DEQUANTISE and name not in INTERMEDIATE)
"""Block types that upstream can turn into float32."""
ANY = tuple(BY_NAME)
"""Every type that is not removed."""

Params = Mapping[str, int | float | tuple[int | float, ...]]
"""op_params by name."""

MAX_SRC = 10
"""GGML_MAX_SRC: the number of src slots of a tensor."""
OP_PARAMS_BYTES = 64
"""GGML_MAX_OP_PARAMS: bytes of op_params."""


@dataclass(frozen=True, slots=True)
class Source:
    """One operand of an op.

    Attributes:
        name: what the formula calls it.
        types: names of the ggml types that it may have.
        doc: what it is, with its shape in ne order.
        optional: whether its src slot may be empty.
    """

    name: str
    types: tuple[str, ...]
    doc: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Param:
    """One entry of op_params.

    Attributes:
        name: ggml's name for it.
        kind: how the four bytes of a slot are read; "i64" takes two slots.
        slot: index of its first int32 in op_params (16 of them).
        doc: meaning and unit.
        count: number of consecutive entries; above 1 the value is a tuple.
    """

    name: str
    kind: Literal["i32", "f32", "i64"]
    slot: int
    doc: str
    count: int = 1

    def read(self, op_params: bytes) -> int | float | tuple[int | float, ...]:
        """Return the value, or a tuple of `count` values."""
        values = struct.unpack_from(f"<{self.count}{self._code}", op_params, 4 * self.slot)
        return values[0] if self.count == 1 else values

    def write(self, op_params: bytearray, value: int | float | Iterable[int | float]) -> None:
        """Put the value (a sequence if count is above 1) into its slots."""
        values = (value,) if isinstance(value, int | float) else tuple(value)
        struct.pack_into(f"<{self.count}{self._code}", op_params, 4 * self.slot, *values)

    @property
    def _code(self) -> str:
        return {"i32": "i", "f32": "f", "i64": "q"}[self.kind]


@dataclass(frozen=True, slots=True)
class Node:
    """One operation to perform: its destination, its sources and its parameters."""

    dst: Tensor
    src: tuple[Tensor | None, ...]
    op_params: bytes
    op: Op

    def source(self, index: int) -> Tensor:
        """Return a source that must be there.

        Raises:
            Violation: graph.arity if the slot is empty.
        """
        found = self.src[index] if index < len(self.src) else None
        if found is None:
            raise Violation("graph.arity", f"{self.op.name}.src[{index}]", 0, f"{self.op.name} needs this source")
        return found

    def optional(self, index: int) -> Tensor | None:
        """Return a source that may be absent."""
        return self.src[index] if index < len(self.src) else None

    @property
    def kind(self) -> str:
        """The name of the kind that a node of UNARY or GLU has, which `shape` knows to be one."""
        return self.op.kinds[self.i32("kind")]

    def i32(self, name: str) -> int:
        """Return the integer parameter of that name."""
        value = self.op.param(name).read(self.op_params)
        assert isinstance(value, int)
        return value

    def f32(self, name: str) -> float:
        """Return the float parameter of that name."""
        value = self.op.param(name).read(self.op_params)
        assert isinstance(value, float)
        return value

    def i32s(self, name: str) -> tuple[int, ...]:
        """Return the integer parameter of that name that has several entries."""
        value = self.op.param(name).read(self.op_params)
        assert isinstance(value, tuple)
        return tuple(int(entry) for entry in value)

    def operand(self, tensor: Tensor) -> str:
        """Return the name of an operand in the docstrings of ops: "dst", or "src0" to "src9"."""
        return "dst" if tensor is self.dst else next(f"src{slot}" for slot, source in enumerate(self.src) if source is tensor)

    def require(self, condition: bool, what: str, value: object = "", *, at: Tensor | None = None) -> None:
        """Refuse this node unless a condition of its shape rule holds.

        Args:
            condition: whether it holds.
            what: what is needed, as the end of a sentence that begins with "need".
            value: what was found instead.
            at: the operand that is wrong; None: the result, a parameter, or how several go together.

        Raises:
            Violation: graph.shape, with the op's name, the operand's slot, the condition and the value.
        """
        if not condition:
            slot = f".src[{self.operand(at).removeprefix('src')}]" if at is not None and at is not self.dst else ""
            raise Violation("graph.shape", f"{self.op.name} {self.dst.name!r}{slot}", value, f"need {what}")


@dataclass(frozen=True, slots=True)
class Later:
    """What an op is in the versions that have a change, or in those that do not have it yet.

    Attributes:
        change: id in `spec.op_changes`.
        changed: the row of the running text, to the row on the other side of the change.
        computes: whether a node that both sides take has another result there.
    """

    change: str
    changed: Callable[[Op], Op]
    computes: bool = True


def before(change: str, *, without: Mapping[int, tuple[str, ...]] | None = None, **fields: Any) -> Later:
    """Return what a row was before a change.

    Args:
        change: its id in `spec.op_changes`.
        without: source slot to the types that it did not take.
        fields: other fields of the row, to what they were.
    """
    fewer = without or {}

    def changed(row: Op) -> Op:
        sources = tuple(
            replace(source, types=tuple(name for name in source.types if name not in fewer.get(slot, ())))
            for slot, source in enumerate(row.sources)
        )
        return replace(row, **{"sources": sources, **fields})

    return Later(change, changed, computes="oracle" in fields)


def later(change: str, *, takes: Mapping[int, tuple[str, ...]] | None = None, gives: tuple[str, ...] = (),
          reads: tuple[Param, ...] = (), **fields: Any) -> Later:  # fmt: skip
    """Return a change of a row.

    Args:
        change: its id in `spec.op_changes`.
        takes: source slot to the types that it takes besides.
        gives: types that the destination may have besides.
        reads: parameters that it has besides.
        fields: other fields of the row, to what they are from then on.
    """
    more = takes or {}

    def changed(row: Op) -> Op:
        sources = tuple(
            replace(source, types=tuple(dict.fromkeys((*source.types, *more.get(slot, ())))))
            for slot, source in enumerate(row.sources)
        )
        types = tuple(dict.fromkeys((*row.types, *gives)))
        return replace(row, **{"sources": sources, "types": types, "params": (*row.params, *reads), **fields})

    return Later(change, changed)


@dataclass(frozen=True, slots=True)
class Op:
    """The facts of one operation.

    Attributes:
        name: ggml's name without the prefix GGML_OP_.
        sources: operands by src slot.
        types: names of the types that the destination may have.
        shape: refuses (Violation) a node whose types, dimensions, strides or parameters have no meaning for this op; looks at
            geometry only.
        oracle: computes a node that was accepted; refuses (Violation, graph.index) indices out of range among the contents.
        tolerance: how near to the oracle's another implementation's result must be.
        params: op_params entries; slots that no entry names are not read.
        placement: refuses (Violation) a node whose destination is not at the place in memory that the op needs; None: any will do.
        view: whether the op computes nothing (RESHAPE, VIEW, PERMUTE, TRANSPOSE, NONE): its destination shows bytes of the source.
        in_place: slots of sources whose memory the destination may be, element for element: each part is read before it is written.
        unread: slots of sources whose elements are not read, or only as the destination's own.
        cost: what computing an accepted node costs beyond its operands.
        writes: slots of sources that the op updates besides its destination.
        kinds: names of UNARY's or GLU's kinds by number.
        later: what the op is in later versions, in the order of `spec.op_changes`.
        earlier: what the op was before a change, the latest change first.
        changes: ids of those that this row has in addition, or lacks and computes otherwise for it: kernels know the running text.
    """

    name: str
    sources: tuple[Source, ...]
    types: tuple[str, ...]
    shape: Callable[[Node], None]
    oracle: Callable[[Node], None]
    tolerance: Tolerance = FLOAT32
    params: tuple[Param, ...] = ()
    placement: Callable[[Node], None] | None = None
    view: bool = False
    in_place: tuple[int, ...] = ()
    unread: tuple[int, ...] = ()
    cost: Callable[[Node], Cost] = by_element
    writes: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    later: tuple[Later, ...] = ()
    earlier: tuple[Later, ...] = ()
    changes: tuple[str, ...] = ()

    def at(self, version: Version) -> Op:
        """Return the row as it is in a version."""
        row = replace(self, kinds=kinds(self.name, version))
        apart = [later for later in self.later if op_changes.has(version, later.change)]
        apart += [earlier for earlier in self.earlier if not op_changes.has(version, earlier.change)]
        for other in apart:
            row = other.changed(row)
            row = replace(row, changes=(*row.changes, *([other.change] if other.computes else [])))
        return row

    def reads(self, name: str) -> bool:
        """Whether the op has a parameter of that name."""
        return any(param.name == name for param in self.params)

    def param(self, name: str) -> Param:
        """Return the row of a parameter."""
        return next(param for param in self.params if param.name == name)

    def pack(self, params: Params) -> bytes:
        """Return the 64 bytes of op_params that hold these values, other slots 0."""
        op_params = bytearray(OP_PARAMS_BYTES)
        for name, value in params.items():
            self.param(name).write(op_params, value)
        return bytes(op_params)

    def check(self, dst: Tensor, src: tuple[Tensor | None, ...], op_params: bytes) -> Node:
        """Return the node if it has a meaning for this op.

        Raises:
            Violation: graph.arity, graph.type or graph.shape.
        """
        node = self.check_geometry(dst, src, op_params)
        self.check_placement(node)
        return node

    def check_geometry(self, dst: Tensor, src: tuple[Tensor | None, ...], op_params: bytes) -> Node:
        """Return the node if its operands' types, dimensions and strides and its parameters fit this op.

        The answer is the same for every node with the same op_params and, operand by operand, the same dtype, ne and nb, so a
        caller may remember it.

        Raises:
            Violation: graph.arity, graph.type or graph.shape.
        """
        node = Node(dst, src, op_params, self)
        for index, source in enumerate(self.sources):
            tensor = node.optional(index) if source.optional else node.source(index)
            if tensor is not None and tensor.dtype.name not in source.types:
                detail = f"{source.name} takes {', '.join(source.types)}"
                raise Violation("graph.type", f"{self.name}.src[{index}].type", tensor.dtype.name, detail)
        if dst.dtype.name not in self.types:
            raise Violation("graph.type", f"{self.name}.type", dst.dtype.name, f"the result is {', '.join(self.types)}")
        # a view writes nothing, so its elements may share bytes: a stride of 0 repeats a row
        node.require(self.view or elements_are_disjoint(dst), "a result whose elements share no bytes", dst.nb)
        self.shape(node)
        return node

    def check_placement(self, node: Node) -> None:
        """Refuse a node, of an accepted geometry, whose destination lies elsewhere in memory than the op needs.

        Raises:
            Violation: graph.shape.
        """
        if self.placement is not None:
            self.placement(node)


def elements_are_disjoint(tensor: Tensor) -> bool:
    """Whether no two elements share a byte, as far as sorted strides tell: each is at least the extent of the smaller ones.

    Refuses a few interleaved layouts that would do; what clients make, boxes in a contiguous tensor and their permutations, passes.
    """
    if 0 in tensor.ne:
        return True
    # in blocks along ne[0], as nb[0] counts them
    lengths, end = (tensor.ne[0] // tensor.dtype.block, *tensor.ne[1:]), tensor.dtype.size
    for stride, length in sorted(zip(tensor.nb, lengths, strict=True)):
        # along a dimension of length 1 no stride is taken: it may be anything, and adds nothing to the extent
        if length > 1 and stride < end:
            return False
        end += (length - 1) * stride
    return True
