"""The C kernel of every op against the oracle: meanings of later versions, and shapes, layouts and values that nobody wrote down.

test_native.py has the recorded cases of 3.6.1, the run time and the build.
"""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from ggml_rpc_ref.backends import disturbed
from ggml_rpc_ref.backends.changes import CHANGES
from ggml_rpc_ref.backends.native import Native, unavailable
from ggml_rpc_ref.backends.native.library import kernel_ops
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS, ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.compare import compare_tensors, element_bytes
from ggml_rpc_ref.ops.op import Node, Op
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, GLU_OPS, UNARY_OPS, VIEW_OPS, kinds, op_table
from ggml_rpc_ref.spec.versions import NEWEST, PROFILES
from ggml_rpc_ref.tensor import PlainStorage, Tensor
from tests.support.seeds import SEED
from tests.test_native import HERE, compiled, compute, memory, native

pytestmark = pytest.mark.skipif(bool(unavailable()), reason=f"native: {unavailable()}")

ROOT = Path(__file__).parents[1]
COMPUTED_OPS = sorted(set(op_table(NEWEST)) - VIEW_OPS - CUSTOM_OPS)


def test_every_op_that_computes_something_has_a_kernel() -> None:
    assert list(kernel_ops()) == COMPUTED_OPS


def test_the_changes_that_kernels_know_exist() -> None:
    assert set(OP_CHANGES) >= CHANGES


# ----------------------------------------------------------------------------------------------------- against the oracle


def both(backend: Native, op: Op, dst: Tensor, src: tuple[Tensor | None, ...], op_params: bytes) -> str:
    """Compute a node with its kernel and with the oracle, in the same memory one after the other; return how they differ."""
    node = op.check(dst, src, op_params)
    tensors = {id(t.storage): t for t in (dst, *src) if t is not None}
    before = {key: memory(tensor).copy() for key, tensor in tensors.items()}
    found = _outcome(backend, node)
    after = {key: memory(tensor).copy() for key, tensor in tensors.items()}
    for key, tensor in tensors.items():
        memory(tensor)[:] = before[key]
    with np.errstate(all="ignore"):
        wanted = _refusal(lambda: op.oracle(node))
    if found or wanted:
        return "" if found == wanted else f"{found or 'accepted'} instead of {wanted or 'accepted'}"
    written = [dst, *(src[slot] for slot in op.writes)]
    return next(filter(None, (_difference(op, t, after[id(t.storage)], before[id(t.storage)]) for t in written if t)), "")


def _outcome(backend: Native, node: Node) -> str:
    return _refusal(lambda: compute(backend, node))


def _refusal(compute: Any) -> str:
    try:
        compute()
    except Violation as violation:
        return str(violation)
    return ""


def _difference(op: Op, tensor: Tensor, found: Any, before: Any) -> str:
    outside = ~element_bytes(tensor)
    outside &= memory(tensor) == before  # not what other results in the same memory have changed
    if not np.array_equal(found[outside], before[outside]):
        return "bytes between or around the elements were changed"
    result = replace(tensor, storage=PlainStorage(found))
    return str(compare_tensors(tensor, result, op.tolerance) or "")


def later_cases() -> Iterator[tuple[Op, Case]]:
    """Yield the cases of meanings that an op has in some versions only, each in the first version that has it."""
    seen = set[tuple[str, str]]()
    for version in PROFILES:
        for op in ops_of(version).values():
            for case in cases_of(op.name, version):
                special = case.since or case.until or op.name not in OPS
                if special and 0 not in case.dst.quad and (op.name, case.id) not in seen:
                    seen.add((op.name, case.id))
                    yield op, case


@pytest.mark.parametrize("variant", HERE)
def test_meanings_of_some_versions_are_the_oracles(variant: str) -> None:
    taken = 0
    for op, case in later_cases():
        dst, src = recipes.build(op.name, case)
        if not native(variant).supports(op.check(dst, src, op.pack(case.params))):
            assert op.name in LEFT, f"{op.name} {case.id}"
            continue
        assert not (wrong := both(native(variant), op, dst, src, op.pack(case.params))), f"{op.name} {case.id}: {wrong}"
        taken += 1
    assert taken > 200


# ------------------------------------------------------------------------------------------- what nobody wrote down


def spread(rng: random.Random, operand: Operand) -> Operand:
    """Return the operand in another layout: its dimensions in another order in memory, or gaps, or neither."""
    dtype = BY_NAME[operand.dtype]
    order = [0, 1, 2, 3]
    if dtype.block == 1 and rng.random() < 0.2:
        rng.shuffle(order)
    elif rng.random() < 0.3:
        order[1:] = rng.sample(order[1:], 3)
    nb, stride = [0, 0, 0, 0], dtype.size
    for place, dim in enumerate(order):
        nb[dim] = stride
        length = operand.quad[dim] // (dtype.block if dim == 0 else 1)
        stride *= max(1, length)
        # a gap behind each row, matrix or stack
        stride += rng.choice([0, 0, 4, 12, 64]) if place < 3 and dtype.size in (1, 2, 4, 8) else 0
    return replace(operand, nb=(nb[0], nb[1], nb[2], nb[3]))


def resized(rng: random.Random, case: Case) -> Case:
    """Return the case with one length replaced by another wherever it occurs."""
    operands = [case.dst, *(operand for operand in case.src if operand is not None)]
    old = rng.choice([n for operand in operands for n in operand.ne] or [1])
    new = rng.choice([1, 2, 3, 5, 16, 17, 33, 64, 100, old + 1, 2 * old, 256])

    def other(operand: Operand) -> Operand:
        return replace(operand, ne=tuple(new if n == old else n for n in operand.ne), nb=None)

    return replace(case, dst=other(case.dst), src=tuple(operand and other(operand) for operand in case.src))


ODD = "special", "normal:1e-30", "normal:1e-41"
MILD = "values:1.5,-0.25,-0.0,1e-41,0.75,2,-3,0.0,-1e-20,0.5,-1,2.5,nan,0.125,4,1,-2,0.25,inf,-0.5,3,-inf,1,1,2", "normal:1e-20"
"""Odd values without the largest ones: where those meet, the order of a sum decides whether it overflows."""
SUMS_OF_PRODUCTS = {
    "CONV_2D", "CONV_2D_DW", "CONV_3D", "CONV_TRANSPOSE_1D", "CONV_TRANSPOSE_2D", "FLASH_ATTN_BACK", "FLASH_ATTN_EXT",
    "GATED_DELTA_NET", "GATED_LINEAR_ATTN", "LIGHTNING_INDEXER", "MUL_MAT", "MUL_MAT_ID", "OUT_PROD", "RWKV_WKV6", "RWKV_WKV7",
    "SOLVE_TRI", "SSM_CONV", "SSM_SCAN",
}  # fmt: skip
RECURRENT = {"GATED_DELTA_NET", "GATED_LINEAR_ATTN", "RWKV_WKV6", "RWKV_WKV7", "SSM_SCAN"}
"""Their states are float32, as upstream's: a product of tiny numbers is 0 there and makes NaN of an infinite decay, where the
oracle's float64 makes it infinite. The genuine 3.6.1 on GATED_LINEAR_ATTN with k 1e-41, 1; v 1e-20, 1; q 1, 1; g 1, inf: 0, NaN."""
TINY_OR_INFINITE = (
    ("values:1.5,-0.25,-0.0,1e-41,0.75,2,-3,0.0,-1e-20,0.5,-1,2.5,nan,0.125,4,1,-2,0.25,-0.5,3,1,1,2", "normal:1e-20"),
    ("values:1.5,-0.25,-0.0,0.75,2,-3,0.0,0.5,-1,2.5,nan,0.125,4,1,-2,0.25,inf,-0.5,3,-inf,1,1,2",),
)
"""What of the mild ones may meet in a recurrence."""


def odd_values(rng: random.Random, op: Op) -> tuple[str, ...]:
    """Return the odd fills of an op's operands."""
    if op.name in RECURRENT:
        return rng.choice(TINY_OR_INFINITE)
    return MILD if op.name in SUMS_OF_PRODUCTS else ODD


def filled(rng: random.Random, odd: tuple[str, ...], operand: Operand) -> Operand:
    """Return the operand with other numbers, odd ones among them, unless it says which ones it needs."""
    if operand.fill.partition(":")[0] not in ("normal", "uniform", "zeros") or operand.dtype not in ("F32", "F16", "BF16"):
        return operand
    return replace(operand, fill=rng.choice((operand.fill, operand.fill, *odd)))


def placed(rng: random.Random, op: Op, case: Case) -> Case:
    """Return the case with its result in the memory of a source that it may lie in, now and then."""
    slots = [slot for slot in op.in_place if slot < len(case.src) and case.src[slot] is not None and not case.dst.alias]
    if not slots or rng.random() < 0.6:
        return case
    slot = rng.choice(slots)
    source = case.src[slot]
    assert source is not None
    return replace(case, dst=replace(case.dst, alias=f"src{slot}", nb=source.nb, offset=0))


def changed(number: int, op: Op, cases: tuple[Case, ...]) -> Case:
    """Return one of an op's cases with other dimensions, layouts, numbers or places, by a seed."""
    rng = random.Random(number)
    case = rng.choice(cases)
    if rng.random() < 0.6:
        case = resized(rng, case)
    odd = odd_values(rng, op)
    sources = tuple(operand and filled(rng, odd, operand) for operand in case.src)
    case = replace(case, id=f"changed {number}", src=sources)
    if rng.random() < 0.6:
        case = replace(case, src=tuple(o and spread(rng, o) if o and not o.alias else o for o in case.src))
    if rng.random() < 0.4 and not case.dst.alias:
        case = replace(case, dst=spread(rng, case.dst))
    return placed(rng, op, case)


MOST_ELEMENTS = 20_000


def checked(op: Op, case: Case) -> tuple[Tensor, tuple[Tensor | None, ...]] | None:
    """Return a case's operands if they have a meaning for the op."""
    operands = [case.dst, *(operand for operand in case.src if operand is not None)]
    if 0 in case.dst.quad or any(np.prod(operand.quad) > MOST_ELEMENTS for operand in operands):
        return None
    if any(o.quad[0] % BY_NAME[o.dtype].block for o in operands):
        return None
    if case.dst.alias:
        home = case.src[int(case.dst.alias[3:])]
        if home is None or (home.quad, home.dtype) != (case.dst.quad, case.dst.dtype):
            return None
    dst, src = recipes.build(op.name, case)
    try:
        op.check(dst, src, op.pack(case.params))
    except Violation:
        return None
    return dst, src


@cache
def newest_cases(name: str) -> tuple[Case, ...]:
    return tuple(case for case in cases_of(name, NEWEST) if not (case.dst.alias and case.dst.offset))


LEFT = {"ADD", "FLASH_ATTN_EXT", "MUL_MAT", "SET_ROWS"}
"""Ops whose kernels leave some types or strides to the oracle."""
EXAMPLES = 12
TRIES = 40


def draw(op: Op, number: int) -> tuple[Node, Case] | None:
    """Return a node that nobody wrote down, made from a number; None where none of some tries has a meaning."""
    for attempt in range(TRIES):
        case = changed(number + attempt, op, newest_cases(op.name))
        if (built := checked(op, case)) is not None:
            return op.check(*built, op.pack(case.params)), case
    return None


def surprise(backend: Native, op: Op, number: int) -> str:
    """Return what is wrong with a kernel's result for a drawn node; nothing where it is right, or the oracle's affair."""
    if (drawn := draw(op, number)) is None or disturbed(drawn[0]):
        return ""
    node, case = drawn
    if not backend.supports(node):
        return "" if op.name in LEFT else f"left to the oracle: {case}"
    wrong = both(backend, op, node.dst, node.src, node.op_params)
    return wrong and f"{wrong}\n{case}"


@pytest.mark.parametrize("name", COMPUTED_OPS)
@seed(SEED)
@settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(variant=st.sampled_from(HERE), number=st.integers(0, 2**32))
def test_any_shape_layout_place_and_value(name: str, variant: str, number: int) -> None:
    op = ops_of(NEWEST)[name]
    assert not (wrong := surprise(native(variant, 2), op, number)), wrong


@pytest.mark.parametrize("name", COMPUTED_OPS)
def test_enough_of_what_is_drawn_is_computed(name: str) -> None:
    """Else the test before would say nothing."""
    op = ops_of(NEWEST)[name]
    drawn = [draw(op, 1000 * number) for number in range(8)]
    assert sum(found is not None and native(HERE[0], 2).supports(found[0]) for found in drawn) >= 4


EDGES = (
    0.0, 1.4e-45, 1e-40, 1.2e-38, 1e-20, 1e-4, 0.5, 1.0, 2.5, 3.0, 5.4, 5.7, 8.5, 10.0, 16.0, 20.5, 51.0, 53.0, 87.5, 88.7, 88.8,
    103.0, 105.0, 700.0, 65504.0, 1e10, 1.8e19, 1.9e19, 1e30, 1.7e38, 3.4028234e38, float("inf"), float("nan"),
)  # fmt: skip
"""Where a function of float32 begins to be 0, infinite or a straight line, where a square overflows, and the ends of the type."""
OF_EACH_ELEMENT = {
    "UNARY": ("F32", "F16", "BF16"), "GLU": ("F32", "F16", "BF16"), "SILU_BACK": ("F32", "F16"), "LEAKY_RELU": ("F32", "F16"),
}  # fmt: skip
"""Op to its types. None adds up, so that any values may meet."""
OF_ROWS = ("NORM", "RMS_NORM", "L2_NORM", "GROUP_NORM", "RMS_NORM_BACK", "SOFT_MAX", "SOFT_MAX_BACK")
ACTIVATIONS = [
    *((name, kind) for name in OF_EACH_ELEMENT for kind in kinds(name, NEWEST) or ("",)),
    *((name, "") for name in OF_ROWS),
]
"""Op and kind."""


def edges(rng: random.Random, count: int, share: float) -> str:
    """A fill of so many values, of which a share is at the edges, of either sign."""
    values = (rng.choice((1, -1)) * (rng.choice(EDGES) if rng.random() < share else rng.gauss(0, 3)) for _ in range(count))
    return "values:" + ",".join(map(repr, values))


def edge_case(name: str, kind: str, number: int) -> Case:
    """A node of that kind whose operands, and parameters, are at the edges; by a seed."""
    rng = random.Random(number)
    ne = (rng.choice((1, 7, 16, 33)), 24)
    dtype = rng.choice(OF_EACH_ELEMENT.get(name, ("F32",)))
    share = 0.9 if name in OF_EACH_ELEMENT else rng.choice((0.02, 0.1, 0.5))
    # lengths of the values that have no divisor in common, so that each meets each
    x, y = (Operand(dtype, ne, fill=edges(rng, count, share)) for count in (97, 101))
    far = rng.choice((float("inf"), 7.0, 1e38))
    params: dict[str, float] = {
        "GLU": {"alpha": rng.choice((1.702, -1.0)), "limit": far},
        "UNARY": {"alpha_n": 0.8, "alpha_p": 1.3, "beta": rng.choice((0.5, -far)), "eps": rng.choice((-1e-6, 1.0, float("nan")))},
        "LEAKY_RELU": {"negative_slope": rng.choice((0.1, far))},
        "SOFT_MAX": {"scale": rng.choice((1.0, -0.125, 0.0, far))},
        "SOFT_MAX_BACK": {"scale": 1.0},
        "GROUP_NORM": {"n_groups": 1, "eps": rng.choice((0.0, 1e-6, far))},
    }.get(name, {} if name == "SILU_BACK" else {"eps": rng.choice((0.0, 1e-6, far))})
    if name == "GROUP_NORM":
        x = replace(x, ne=(ne[0], 1, 1, ne[1]))
    return Case(
        f"{kind} at the edges", Operand(dtype, x.ne), (x, y), params | ({"kind": kinds(name, NEWEST).index(kind)} if kind else {})
    )


def edge_node(name: str, kind: str, number: int) -> Node:
    """The node of an `edge_case`, of the first seed whose types go together."""
    op = ops_of(NEWEST)[name]
    for attempt in range(TRIES):
        case = edge_case(name, kind, number + attempt)
        sources = case.src if len(op.sources) > 1 else case.src[:1]
        if (built := checked(op, replace(case, src=sources))) is not None:
            return op.check(*built, op.pack(case.params))
    raise AssertionError(f"{name} {kind}: no case of {TRIES} has a meaning")


@pytest.mark.parametrize("variant", HERE)
@pytest.mark.parametrize(("name", "kind"), ACTIVATIONS)
@seed(SEED)
@settings(max_examples=20, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(number=st.integers(0, 2**32))
def test_activations_and_norms_at_the_edges_of_float32(name: str, kind: str, variant: str, number: int) -> None:
    """NaN and infinities where the oracle has them: f(x) is 0 or infinite for the same x, whatever it is multiplied with then."""
    node = edge_node(name, kind, number)
    assert native(variant, 1).supports(node)
    wrong = both(native(variant, 1), node.op, node.dst, node.src, node.op_params)
    assert not wrong, f"{node.dst.dtype.name} {node.dst.ne} {node.op_params.hex()}: {wrong}"


def f32(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F32", ne, fill=fill)


def f16(*ne: int, fill: str = "normal") -> Operand:
    return Operand("F16", ne, fill=fill)


def pooled(x: int, kernel: int, stride: int, padding: int) -> int:
    return (x + 2 * padding - kernel) // stride + 1


def long_nodes() -> Iterator[tuple[str, Case]]:
    """Yield nodes whose rows fill several registers and leave a rest, where kernels take another way than in small ones."""
    for kind, fill in ((0, "normal"), (1, "normal"), (0, "special")):
        for k, s, p in ((2, 1, 0), (3, 1, 1), (2, 2, 0), (4, 2, 1), (3, 3, 0), (5, 4, 2)):
            long, tall, values = pooled(600, k, s, p), pooled(9, k, s, p), {"op": kind, "k0": k, "s0": s, "p0": p}
            yield "POOL_1D", Case("long", f32(long, 3), (f32(600, 3, fill=fill),), values)
            both_ways = {**values, "k1": k, "s1": s, "p1": p}
            yield "POOL_2D", Case("long", f32(long, tall, 2), (f32(600, 9, 2, fill=fill),), both_ways)
    yield "SSM_CONV", Case("long", f32(37, 35, 2), (f32(38, 37, 2), f32(4, 37)), {})
    for kernel in (f32(7, 3, 5), f16(7, 3, 5)):
        yield "CONV_TRANSPOSE_1D", Case("long", f32(74 * 2 + 7, 3), (kernel, f32(75, 5)), {"s0": 2, "p0": 0, "d0": 1})
    sources = (f32(72, 68, 2), f32(72, 68, 2), f32(68, 72, 2), f32(72, 68, 2))
    yield "FLASH_ATTN_BACK", Case("long", f32(3 * 72 * 68 * 2), sources, {"masked": 0})
    for size in (64, 72):
        stream, state = f32(size, 2, 3), f32(size * size * 2, 1)
        decay, small = f32(size, 2, 3, fill="uniform:0:1"), f32(size, 2, 3, fill="normal:0.1")
        yield "RWKV_WKV7", Case("long", f32(2 * size, 3 + size), (stream, decay, stream, stream, small, small, state), {})
        gates = (f32(1, 2, 3, fill="uniform:-2:0"), f32(1, 2, 3, fill="uniform:0:1"))
        yield "GATED_DELTA_NET", Case("long", f32(2 * size, 3 + size), (small, small, stream, *gates, state), {})
    for fill in ("normal", "values:1,3,2,3,1", "values:1", "special"):
        yield "ARGMAX", Case("long", Operand("I32", (300,)), (f32(35, 300, fill=fill),), {})
    for dtype, length in (("Q4_0", 96), ("Q4_1", 96), ("Q8_0", 96), ("Q4_K", 512), ("BF16", 75), ("F16", 75)):
        indices = Operand("I32", (7,), fill="index:5")
        fill = "normal" if dtype in ("BF16", "F16") else "blocks"
        yield "GET_ROWS", Case("long", f32(length, 7), (Operand(dtype, (length, 5), fill=fill), indices), {})
    for dtype in ("F32", "F16", "BF16"):
        yield "MUL_MAT", Case("long", f32(37, 11), (Operand(dtype, (75, 37)), f32(75, 11)), {})
    for queries, heads, shared in ((1, 8, 2), (1, 6, 2), (2, 7, 1), (9, 4, 2)):
        for of in (f32, f16):
            keys, values = of(72, 150, shared), of(90, 150, shared)
            operands = (f32(72, queries, heads), keys, values, f16(150, queries, fill="mask"))
            yield "FLASH_ATTN_EXT", Case("long", f32(90, heads, queries), operands, {"scale": 0.1})
    for kind in range(len(UNARY_OPS)):
        for fill in ("normal:5", "uniform:-1:1", "special"):
            yield "UNARY", Case("long", f32(101, 2), (f32(101, 2, fill=fill),), {"kind": kind})
    for kind in range(GLU_OPS.index("GEGLU_QUICK") + 1):
        yield "GLU", Case("long", f32(101, 2), (f32(101, 2, fill="normal:3"), f32(101, 2)), {"kind": kind})
    for fill in ("uniform:0:50", "special"):
        yield "LOG", Case("long", f32(101, 2), (f32(101, 2, fill=fill),), {})
    yield "SUM", Case("long", f32(1), (f32(101, 70),), {})
    yield "GET_ROWS_BACK", Case("long", f32(300, 9), (f32(300, 20), Operand("I32", (20,), fill="index:9")), {})


@pytest.mark.parametrize("variant", HERE)
def test_long_rows(variant: str) -> None:
    wrong = []
    for name, case in long_nodes():
        op = OPS[name]
        dst, src = recipes.build(name, case)
        assert native(variant).supports(op.check(dst, src, op.pack(case.params))), case
        if found := both(native(variant), op, dst, src, op.pack(case.params)):
            wrong.append(f"{name} {case.dst.ne} {case.params}: {found}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", ["ADD_ID", "GET_ROWS_BACK", "SSM_SCAN"])
def test_an_index_out_of_range_is_refused_in_the_oracles_words(name: str) -> None:
    case = next(case for case in newest_cases(name) if 0 not in case.dst.quad)
    dst, src = recipes.build(name, case)
    slot = {"ADD_ID": 2, "GET_ROWS_BACK": 1, "SSM_SCAN": 6}[name]
    for index in (-1, 2**31 - 1):
        indices = src[slot]
        assert indices is not None
        indices.array.flat[-1] = index
        op = ops_of(NEWEST)[name]
        with pytest.raises(Violation, match=rf"graph.index.*src\[{slot}\].*{index}.*need 0 <= index <"):
            compute(native(HERE[0]), op.check(dst, src, op.pack(case.params)))


@pytest.mark.parametrize("variant", HERE)
def test_nothing_is_computed_of_a_node_with_a_bad_index(variant: str) -> None:
    """Small nodes too: what its other phases read, the one that met the index has not made."""
    op = ops_of(NEWEST)["MUL_MAT_ID"]
    case = next(case for case in newest_cases("MUL_MAT_ID") if 0 not in case.dst.quad and case.src[0].dtype == "F32")
    dst, src = recipes.build("MUL_MAT_ID", case)
    compute(native(variant), op.check(dst, src, op.pack(case.params)))  # its tables lie in the same memory as the next node's
    assert src[2] is not None
    src[2].array.flat[-1] = 2**31 - 1
    dst.array[...] = 77.0
    with pytest.raises(Violation, match=r"graph\.index"):
        compute(native(variant), op.check(dst, src, op.pack(case.params)))
    assert (dst.array == 77.0).all()


# ------------------------------------------------------------------------------------------------------ bytes outside


@pytest.mark.parametrize("variant", HERE)
def test_nothing_outside_the_operands_is_touched(variant: str) -> None:
    """Untouchable pages around each operand, sources that can't be written; a fault ends the process, which says where it was."""
    command = [sys.executable, "-m", "tests.support.guarded", variant]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    *_, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{last}: {done.stderr[-500:]}"
    assert int(last.removesuffix(" cases")) > 2000


# ------------------------------------------------------------------------------------------------- kernels that are wrong


SABOTAGES = {
    "one row less": ("CUMSUM", "cumsum.c", "row < last; row++", "row < last - 1; row++"),
    "the wrong row": ("CONCAT", "concat.c", "at[dim] -= second ? a->ne[dim] : 0;", ""),
    "the wrong stride": ("PAD", "pad.c", "src + (begin - before(g, 0)) * from->nb[0], from->nb[0]", "src, 4"),
    "no mask": ("DIAG_MASK_INF", "diag_mask_inf.c", "n_past(g) + 1", "n_past(g) + 2"),
    "no repetition": ("ROLL", "roll.c", "modulo(p.i2 - roll_shift(g, 2), from->ne[2])", "p.i2"),
    "the first of equals": ("ARGMAX", "argmax.c", "if (largest == x[i])", "if (largest == x[i] && largest != x[place])"),
    "an order that is not kept": ("ARGSORT", "shared/ranking.h", "&& r[j - 1] > moved", "&& r[j - 1] >> 32 >= moved >> 32"),
    "a sum of every other vector": ("MEAN", "shared/sums.h", "sum_doubles(sums + others)", "sum_doubles(sums)"),
    "neighbours in the wrong place": ("CONV_2D", "shared/convolution.h", ".place = i % POSITIONS", ".place = 0"),
    "eps left out": ("GROUP_NORM", "group_norm.c", "+ group_norm_eps(g)", ""),
    "a tap too few": ("SSM_CONV", "ssm_conv.c", "k < taps; k++) {", "k < taps - 1; k++) {"),
    "padding that counts": ("IM2COL", "shared/window.h", "input >= 0 && input < a->size", "input >= 0 && input <= a->size"),
    "a state in the wrong place": ("GATED_DELTA_NET", "gated_delta_net.c", "- 1 - age : age", "- 1 - age : 0"),
    "heads in runs": ("FLASH_ATTN_BACK", "flash_attn_back.c", "head = shared.i2; head < q->ne[2]; head += k->ne[2]",
                      "head = shared.i2 * (q->ne[2] / k->ne[2]); head < (shared.i2 + 1) * (q->ne[2] / k->ne[2]); head++"),
    "NaN that stays": ("POOL_2D", "shared/pooling.h", "? result : x;", "|| result != result ? result : x;"),
    "an unchecked index": ("ADD_ID", "add_id.c", "if (!in_range(index, g->src[1].ne[1], work))\n            return;", "index = 0;"),
    "a byte too many": ("REPEAT", "repeat.c", "from->ne[0], size);", "from->ne[0] + 1, size);"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sabotaged(tmp_path_factory: pytest.TempPathFactory) -> Native:
    """A backend whose kernels for some ops are wrong, each in its own way; compiled here."""
    return compiled(tmp_path_factory.mktemp("native"), [(op, file, right, wrong) for op, file, right, wrong in SABOTAGES.values()])


@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_a_wrong_kernel_is_caught(sabotage: str, sabotaged: Native) -> None:
    """By one of the nodes that the property draws, most often the first few."""
    op = ops_of(NEWEST)[SABOTAGES[sabotage][0]]
    assert any(surprise(sabotaged, op, 1000 * number) for number in range(100))
