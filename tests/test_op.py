"""The contract of `Op`: a shape rule looks at geometry only, a placement rule at where operands lie."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.tensor import PlainStorage, Storage, Tensor

PLACED = ["DIAG_MASK_INF", "DIAG_MASK_ZERO", "OPT_STEP_ADAMW", "OPT_STEP_SGD", "PERMUTE", "RESHAPE", "TRANSPOSE", "VIEW"]
"""Ops whose destination must lie at a certain place."""


class Geometry(Tensor):
    """A tensor of which nothing but type, dimensions, strides and name can be asked."""

    __slots__ = ()

    def __init__(self, tensor: Tensor) -> None:
        for field in ("dtype", "ne", "nb", "name"):
            object.__setattr__(self, field, getattr(tensor, field))

    @property  # type: ignore[misc]
    def storage(self) -> Storage | None:  # type: ignore[override]
        """Fail: a shape rule must not ask."""
        raise AssertionError("looked at the storage")

    @property  # type: ignore[misc]
    def offset(self) -> int:  # type: ignore[override]
        """Fail: a shape rule must not ask."""
        raise AssertionError("looked at the offset")


@pytest.mark.parametrize("op", [op for op in OPS.values() if cases_of(op.name)], ids=lambda op: op.name)
def test_shape_looks_at_geometry_only(op: Op) -> None:
    for case in cases_of(op.name):
        dst, src = recipes.build(op.name, case)
        op.check_geometry(Geometry(dst), tuple(None if t is None else Geometry(t) for t in src), op.pack(case.params))


def test_these_ops_have_a_placement_rule() -> None:
    assert sorted(name for name, op in OPS.items() if op.placement) == PLACED


@pytest.mark.parametrize("name", PLACED)
def test_a_destination_in_other_memory_is_refused_by_the_placement_rule_alone(name: str) -> None:
    op, case = OPS[name], next(c for c in cases_of(name) if c.dst.alias and (c.dst.nb or not name.startswith("DIAG_MASK")))
    dst, src = recipes.build(name, case)
    node = op.check(dst, src, op.pack(case.params))
    assert isinstance(dst.storage, PlainStorage)
    for elsewhere in (replace(dst, storage=PlainStorage(dst.storage.data.copy())), replace(dst, offset=dst.offset + 4)):
        moved = op.check_geometry(elsewhere, src, node.op_params)
        with pytest.raises(Violation) as caught:
            op.check_placement(moved)
        assert caught.value.rule == "graph.shape"
