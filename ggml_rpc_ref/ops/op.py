"""What a ggml operation is made of: the row each file in this package ends with, and the words its functions use.

An op file has, in this order: a docstring with the formula, sources and shapes; `shape()`, which refuses what the op cannot
mean; `oracle()`, which computes; `cases()`, which lists inputs worth trying; and the row `OP`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from ggml_rpc_ref.blocks import CAN_DEQUANTISE, CAN_QUANTISE
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import Quad, Tensor

FLOATS = ("F32", "F16", "BF16")
"""The plain floating types that most CPU kernels of upstream take."""
BLOCKS = tuple(name for name, dtype in BY_NAME.items() if dtype.is_quantised)
"""All block types."""
PLAIN = tuple(name for name, dtype in BY_NAME.items() if not dtype.is_quantised)
"""All types of one element per block."""
WRITABLE_BLOCKS = tuple(name for name in BLOCKS if BY_NAME[name] in CAN_QUANTISE)
"""Block types that upstream's CPU backend can write: those with a from_float (type_traits_cpu in ggml-cpu.c)."""
READABLE_BLOCKS = tuple(name for name in BLOCKS if BY_NAME[name] in CAN_DEQUANTISE and name not in ("Q8_1", "Q8_K"))
"""Block types that upstream can turn into float32; Q8_1 and Q8_K are intermediate forms without a to_float (ggml.c)."""
ANY = tuple(BY_NAME)
"""Every live type."""

Params = Mapping[str, int | float | tuple[int | float, ...]]
"""op_params by name."""

MAX_SRC = 10
OP_PARAMS_BYTES = 64


@dataclass(frozen=True, slots=True)
class Source:
    """One operand of an op.

    Attributes:
        name: what the formula calls it.
        types: names of the ggml types that it may have.
        doc: what it is, with its shape in ne order.
        optional: whether its src slot may be 0.
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
        """Put the value (a sequence where count is above 1) into its slots."""
        values = (value,) if isinstance(value, int | float) else tuple(value)
        struct.pack_into(f"<{self.count}{self._code}", op_params, 4 * self.slot, *values)

    @property
    def _code(self) -> str:
        return {"i32": "i", "f32": "f", "i64": "q"}[self.kind]


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a right answer may lie from the oracle's, and why.

    A result is right when it has NaN and infinities where the oracle has them and, over the finite rest, either every
    element is within ``atol + rtol * |oracle|`` or the normalised mean squared error is at most `nmse`. All three zero
    means: the same bytes.
    """

    rtol: float = 0.0
    atol: float = 0.0
    nmse: float = 0.0
    reason: str = "the same bytes: nothing is rounded"


EXACT = Tolerance()
FLOAT32 = Tolerance(1e-5, 1e-6, 1e-10, "float32 arithmetic in another order, or another library's exp/tanh/sin")


@dataclass(frozen=True, slots=True)
class Node:
    """One operation to perform: its destination, its sources and its parameters.

    `shape` may look at geometry only (dtype, ne, nb, params, whether a source is there); `oracle` may read and write bytes.
    """

    dst: Tensor
    src: tuple[Tensor | None, ...]
    op_params: bytes
    op: Op

    def source(self, index: int) -> Tensor:
        """Return a source that must be there.

        Raises:
            Violation: graph.arity where the slot is empty.
        """
        found = self.src[index] if index < len(self.src) else None
        if found is None:
            raise Violation("graph.arity", f"{self.op.name}.src[{index}]", 0, f"{self.op.name} needs this source")
        return found

    def optional(self, index: int) -> Tensor | None:
        """Return a source that may be absent."""
        return self.src[index] if index < len(self.src) else None

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

    def require(self, condition: bool, what: str, value: object = "") -> None:
        """Refuse this node unless a condition of its shape rule holds.

        Raises:
            Violation: graph.shape, naming the op and the condition that was to hold.
        """
        if not condition:
            raise Violation("graph.shape", f"{self.op.name} {self.dst.name!r}", value, f"need {what}")


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of a test case: geometry, and how its elements are made.

    Attributes:
        dtype: name of the ggml type.
        ne: dimensions in ne order.
        nb: strides in ne order; None: contiguous.
        fill: recipe for the elements, read by `ggml_rpc_ref.ops.shared.recipes`:
            "normal" (mean 0, deviation 1), "normal:S" (deviation S),
            "uniform:LO:HI", "index:N" (random integers in [0, N)), "arange" (0, 1, 2, …), "zeros",
            "special" (NaN, ±inf, ±0, tiny, huge among normals),
            "permutation" (each row a shuffle of 0..ne0-1), "mask" (0 or -inf), "values:a,b,c…" (repeated),
            "blocks" (random bytes of a block type, its scales small), "bits" (random bytes).
        alias: "" for memory of its own, "src0".. for the memory of that source (views, in-place results).
        offset: byte offset within that memory.
    """

    dtype: str
    ne: tuple[int, ...]
    nb: Quad | None = None
    fill: str = "normal"
    alias: str = ""
    offset: int = 0

    @property
    def quad(self) -> Quad:
        """The dimensions, padded with 1 to four."""
        a, b, c, d = (*self.ne, 1, 1, 1)[:4]
        return (a, b, c, d)


@dataclass(frozen=True, slots=True)
class Case:
    """Inputs worth trying on an op.

    Attributes:
        id: words that name it within its op, permanent.
        dst: the destination's geometry. Its own fill matters only where the op leaves elements as they were.
        src: operands by slot; None leaves a slot empty.
        params: op_params by name.
        tolerance: the rule for this case where its types are less exact than the op's own `Op.tolerance`; None: the op's.
    """

    id: str
    dst: Operand
    src: tuple[Operand | None, ...]
    params: Params = field(default_factory=dict)
    tolerance: Tolerance | None = None


@dataclass(frozen=True, slots=True)
class Op:
    """The facts of one operation.

    Attributes:
        name: ggml's name without the prefix GGML_OP_.
        sources: operands by src slot.
        params: op_params entries; slots that no entry names are not read.
        types: names of the types that the destination may have.
        shape: refuses (Violation) a node whose types, dimensions, strides or parameters the op cannot mean.
        oracle: computes a node whose shape was accepted; refuses (Violation, graph.index) indices out of range among the contents.
        cases: inputs worth trying, always the same ones.
        tolerance: how near to the oracle another implementation's result must lie.
        view: whether the op computes nothing (RESHAPE, VIEW, PERMUTE, TRANSPOSE, NONE): its destination shows bytes that are there.
        in_place: whether the destination may be the memory of a source.
        writes: slots of sources that the op updates besides its destination.
    """

    name: str
    sources: tuple[Source, ...]
    types: tuple[str, ...]
    shape: Callable[[Node], None]
    oracle: Callable[[Node], None]
    cases: Callable[[], Iterator[Case]]
    tolerance: Tolerance = FLOAT32
    params: tuple[Param, ...] = ()
    view: bool = False
    in_place: bool = False
    writes: tuple[int, ...] = ()

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
        """Return the node if this op can mean it.

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
        node.require(self.view or elements_lie_apart(dst), "a result whose elements share no bytes", dst.nb)
        self.shape(node)
        return node


def elements_lie_apart(tensor: Tensor) -> bool:
    """Whether no two elements share a byte, as far as sorted strides tell: each is at least the extent of the smaller ones.

    Refuses a few interleaved layouts that would do; what clients make, boxes in a contiguous tensor and their permutations, passes.
    """
    if 0 in tensor.ne:
        return True
    lengths, end = (tensor.ne[0] // tensor.dtype.block, *tensor.ne[1:]), tensor.dtype.size
    for stride, length in sorted(zip(tensor.nb, lengths, strict=True)):
        if length > 1 and stride < end:
            return False
        end += (length - 1) * stride
    return True


def can_repeat(small: Tensor, large: Tensor) -> bool:
    """Whether small broadcasts to large: each of its dimensions divides large's (ggml_can_repeat in ggml.c)."""
    if small.nelements == 0 or large.nelements == 0:
        return small.nelements == large.nelements
    return all(n % m == 0 for m, n in zip(small.ne, large.ne, strict=True))
