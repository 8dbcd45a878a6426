"""What a case is made of: inputs worth trying on an op, described so that they are the same bytes everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ggml_rpc_ref.ops.op import Params
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Quad


@dataclass(frozen=True, slots=True)
class Operand:
    """A tensor of a test case: geometry, and how its elements are made.

    Attributes:
        dtype: name of the ggml type.
        ne: dimensions in ne order.
        nb: strides in ne order; None: contiguous.
        fill: recipe for the elements, read by `ggml_rpc_ref.ops.cases.recipes`:
            "normal" (mean 0, deviation 1), "normal:S" (deviation S),
            "uniform:LO:HI", "index:N" (random integers in [0, N)), "arange" (0, 1, 2, …), "zeros",
            "special" (NaN, ±inf, ±0, tiny, huge among normals),
            "hadamard" (rows of the Hadamard matrix over the root of its length),
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
        since: id in `spec.op_changes` of the change that brought this meaning; "": the op always had it.
        until: id of the change that ended it; "": none did.
    """

    id: str
    dst: Operand
    src: tuple[Operand | None, ...]
    params: Params = field(default_factory=dict)
    tolerance: Tolerance | None = None
    since: str = ""
    until: str = ""


def since(change: str, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield cases of a meaning that a change brought."""
    return (replace(case, since=change) for case in cases)


def until(change: str, cases: Iterable[Case]) -> Iterator[Case]:
    """Yield cases of a meaning that a change ended."""
    return (replace(case, until=change) for case in cases)
