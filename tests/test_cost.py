"""What a node may cost: temporaries within its operands as float32 plus the grant, few rounds of Python, and a stop in between.

The limits are scaled down by 2048 here, so that the worst accepted shapes fit a test: 512 KiB beyond the operands stand for 1 GiB.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ggml_rpc_ref import blocks
from ggml_rpc_ref.backends import Backend, Step, Stopped, apart
from ggml_rpc_ref.backends.half import Half, Native, ThroughFloat32
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle, by_oracle
from ggml_rpc_ref.backends.upstream_cpu import UpstreamCpu
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS, cost, dsv4_hc_comb, ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Params
from ggml_rpc_ref.ops.shared import slabs, sliding_window
from ggml_rpc_ref.server import validate
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST, Version
from ggml_rpc_ref.stopping import stoppable
from ggml_rpc_ref.tensor import PlainStorage, Quad, Tensor, contiguous_nb, extent
from tests.support.seeds import seeded

Lengths = tuple[int, ...]
SCALE = 2048
GRANT = 2**30 // SCALE
LARGE = 2**17
"""Elements that the largest operand of a scaled shape has at most."""


@pytest.fixture(autouse=True)
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slabs, "SLAB_BYTES", slabs.SLAB_BYTES // SCALE)
    monkeypatch.setattr(blocks, "SLAB_ELEMENTS", max(1024, blocks.SLAB_ELEMENTS // SCALE))
    monkeypatch.setattr(sliding_window, "BLOCK_BYTES", sliding_window.BLOCK_BYTES // SCALE)
    monkeypatch.setattr(dsv4_hc_comb, "TOKENS", max(1, dsv4_hc_comb.TOKENS // SCALE))
    monkeypatch.setattr(cost, "GRANT", GRANT)


def tensor(dtype: str, ne: tuple[int, ...], nb: Quad | None = None) -> Tensor:
    a, b, c, d = (*ne, 1, 1, 1)[:4]
    row = BY_NAME[dtype]
    nb = nb or contiguous_nb(row, (a, b, c, d))
    return Tensor(row, (a, b, c, d), nb, PlainStorage(np.zeros(max(1, extent(row, (a, b, c, d), nb)), np.uint8)))


def stretched(case: Case) -> Iterator[tuple[Operand, tuple[Operand | None, ...]]]:
    """The case with each of its lengths made so long, wherever it occurs, that the largest operand has LARGE elements."""
    operands = [case.dst, *case.src]
    for length in sorted({n for operand in operands if operand for n in operand.quad} - {0}):
        found = [operand and replace(operand, ne=operand.quad, nb=None, alias="", offset=0) for operand in operands]
        longest = length
        while True:
            tried = [o and replace(o, ne=tuple(2 * longest if n == length else n for n in o.quad)) for o in found]
            if max(int(np.prod(o.quad)) for o in tried if o) > LARGE or longest > LARGE:
                break
            longest *= 2
        made = [o and replace(o, ne=tuple(longest if n == length else n for n in o.quad)) for o in found]
        assert made[0] is not None
        yield made[0], tuple(made[1:])


def peak_of(node: Node, backend: Backend | None = None) -> int:
    """Return the bytes that computing a node needs at one time."""
    run = backend.compile([Step(node, backend.name)]) if backend else Oracle(HostMemory(0)).compile([by_oracle(node)])
    tracemalloc.start()
    try:
        run(lambda: False)
        return tracemalloc.get_traced_memory()[1]
    except Violation:
        return 0  # an index out of range
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("name", "kind", "width"), [("UNARY", "GELU", 1), ("UNARY", "GELU_QUICK", 1), ("GLU", "GEGLU", 2)])
def test_looked_up_functions_need_slabs_alone(name: str, kind: str, width: int) -> None:
    """What upstream-cpu rounds on the way is a part at a time, as the oracle's arithmetic is."""
    op, ne = OPS[name], (4 * N, 4)
    src = tensor("F32", (width * ne[0], ne[1]))
    node = op.check(tensor("F32", ne), (src,), op.pack({"kind": op.kinds.index(kind)}))
    backend = UpstreamCpu(HostMemory(0))
    tracemalloc.start()
    try:
        backend.KERNELS[name](backend, node)
        assert tracemalloc.get_traced_memory()[1] < GRANT
    finally:
        tracemalloc.stop()


def granted(node: Node) -> int:
    return GRANT + sum(4 * t.nelements for t in (node.dst, *node.src) if t is not None)


def measurable(node: Node) -> bool:
    """Whether something is computed, in a test's time, at a cost that the server grants."""
    return bool(node.dst.nelements) and validate.check_cost(node) <= 2**31


def of_a_case(name: str, version: Version) -> Iterator[Node]:
    """Each accepted node that stretches a case of an op whose lengths are free."""
    cases = cases_of(name, version)
    yield from of_cases(name, version, (*cases[:2], cases[-1]))


def of_cases(name: str, version: Version, cases: Iterable[Case]) -> Iterator[Node]:
    """Each accepted node that stretches one of the cases."""
    for case in cases:
        for dst, src in stretched(case):
            if (node := accepted(name, version, case, dst, src)) is not None:
                yield node


def accepted(name: str, version: Version, case: Case, dst: Operand, src: tuple[Operand | None, ...]) -> Node | None:
    """The node of a case with other operands, if the server takes it and it can be measured."""
    op = ops_of(version)[name]
    sources = tuple(o and tensor(o.dtype, o.quad) for o in src)
    in_weight = op.name.startswith("OPT_STEP")
    result = sources[0] if in_weight and sources[0] else tensor(dst.dtype, dst.quad)
    try:
        node = op.check(result, sources, op.pack(case.params))
        return node if measurable(node) else None
    except Violation:
        return None


def largest(name: str, version: Version) -> Node:
    """The largest node of an op of TIED that the server grants; a refusal for another reason than its cost fails the test."""
    op, case, found = ops_of(version)[name], cases_of(name, version)[0], None
    for n in (2**exponent for exponent in range(2, LARGE.bit_length())):
        later = TIED_LATER if op.changes else {}
        dst, src, params = {**TIED, **later}.get(name, TIED[name])(n)
        if max(int(np.prod(ne)) for ne in (dst, *src)) > LARGE:
            break
        sources = tuple(tensor(known.dtype, ne) for known, ne in zip(case.src, src, strict=False) if known)
        assert len(sources) == len(src)
        node = op.check(tensor(case.dst.dtype, dst), sources, op.pack({**case.params, **params}))
        try:
            if not measurable(node):
                break
        except Violation as refused:
            if refused.rule != "graph.cost":
                raise
            break
        found = node
    assert found is not None
    return found


def computing() -> list[tuple[str, Version]]:
    """Every op that computes, as it is in SPEC.md's version, and in the newest where it is new or means something else."""

    def differs(name: str, op: Any) -> bool:
        return name not in OPS or op.changes != OPS[name].changes

    names = [(name, DEFAULT) for name, op in OPS.items() if not op.view and name not in CUSTOM_OPS]
    return names + [(name, NEWEST) for name, op in ops_of(NEWEST).items() if differs(name, op) and not op.view]


@pytest.mark.parametrize(("name", "version"), computing(), ids=str)
def test_no_op_needs_more_than_its_operands_and_the_grant(name: str, version: Version) -> None:
    nodes = [largest(name, version)] if name in TIED else list(of_a_case(name, version))
    assert nodes
    for node in nodes:
        peak = peak_of(node)
        assert 0 < peak <= granted(node), (node.dst, node.src)


WEIGHTS = ("F16", "BF16", "Q8_0", "Q4_1", "Q4_K")
"""A type of weights for each partner that activations are rounded to; all types have been tried by hand."""


def one_per_types(name: str) -> list[Case]:
    """The first case of an op for each combination of its operands' types, of those of WEIGHTS."""
    first: dict[tuple[str, ...], Case] = {}
    for case in cases_of(name):
        types = tuple(o.dtype if o else "" for o in (case.dst, *case.src))
        if types[2 if name == "FLASH_ATTN_EXT" else 1] in WEIGHTS:
            first.setdefault(types, case)
    return list(first.values())


@pytest.mark.parametrize("name", ["MUL_MAT", "MUL_MAT_ID", "FLASH_ATTN_EXT"])
def test_what_upstream_cpu_rounds_stays_within_the_grant(name: str) -> None:
    """Its roundings come on top of what the oracle needs: activations narrowed and widened, products in F16's steps."""
    backend, seen = UpstreamCpu(HostMemory(0), half=Native()), 0
    for node in of_cases(name, DEFAULT, one_per_types(name)):
        if name == "FLASH_ATTN_EXT" and node.source(0).nrows * node.source(1).ne[1] > 2**12:
            continue  # a round of Python for each slab of them
        assert peak_of(node, backend) <= granted(node), (node.dst, node.src)
        seen += 1
    assert seen > len(one_per_types(name))


@pytest.mark.parametrize(("dtype", "k", "more"), [("BF16", 640, (192,)), ("Q4_0", 64, (1024, 2)), ("Q8_0", 32, (4096,))])
def test_many_activations_for_few_weights_stay_within_the_grant(dtype: str, k: int, more: Lengths) -> None:
    """The activations outweigh all else here, and were held narrowed and widened, twice the grant."""
    matrices = more[1:]
    src = tensor(dtype, (k, 4, *matrices)), tensor("F32", (k, *more))
    node = OPS["MUL_MAT"].check(tensor("F32", (4, *more)), src, bytes(64))
    assert 0 < peak_of(node, UpstreamCpu(HostMemory(0))) <= granted(node)


@pytest.mark.parametrize(("q", "kv"), [
    ((16, 1, 1024), (16, 8, 2)), ((1, 3, 256), (1, 8, 1)), ((16, 1024, 2), (16, 3, 1)), ((1, 1, 1), (1, 2**13, 1)),
], ids=["many-heads", "heads-of-one-element", "many-queries-few-keys", "many-keys"])  # fmt: skip
@pytest.mark.parametrize("half", [Native(), ThroughFloat32()], ids=["F16", "F32"])
def test_attention_in_f16_takes_heads_queries_and_keys_in_parts(q: Lengths, kv: Lengths, half: Half) -> None:
    dst = (kv[0], q[2], q[1])
    values = (tensor("F16", kv), tensor("F16", kv))
    node = OPS["FLASH_ATTN_EXT"].check(tensor("F32", dst), (tensor("F32", q), *values), bytes(64))
    assert not is_refused(node)
    assert 0 < peak_of(node, UpstreamCpu(HostMemory(0), half=half)) <= granted(node)


def test_a_transform_under_a_hint_takes_its_rows_in_slabs() -> None:
    op = ops_of(NEWEST)["MUL_MAT"]
    rows = (64, 2048)
    node = op.check(tensor("F32", rows), (tensor("F32", (64, 64)), tensor("F32", rows)), op.pack({"hint": 1}))
    assert 0 < peak_of(node, UpstreamCpu(HostMemory(0))) <= GRANT


Made = tuple[Lengths, tuple[Lengths, ...], Params]
TIED: dict[str, Callable[[int], Made]] = {
    "ADD_REL_POS": lambda n: ((16, 4 * n), ((16, 4 * n), (4, 4, n), (4, 4, n)), {}),
    "ARANGE": lambda n: ((n,), (), {"start": 0.0, "stop": float(n), "step": 1.0}),
    "CONV_2D": lambda n: ((n, 9, 4, 2), ((3, 3, 3, 4), (n + 2, 11, 3, 2)), {}),
    "CONV_2D_DW": lambda n: ((n, 9, 3, 2), ((3, 3, 1, 3), (n + 2, 11, 3, 2)), {}),
    "CONV_3D": lambda n: ((n, 3, 2, 8), ((3, 3, 3, 12), (n + 2, 5, 4, 6)), {}),
    "CONV_TRANSPOSE_1D": lambda n: ((n + 2, 2), ((3, 2, 4), (n, 4)), {}),
    "CONV_TRANSPOSE_2D": lambda n: ((n + 2, 7, 2), ((3, 2, 2, 4), (n, 6, 4)), {}),
    "FLASH_ATTN_BACK": lambda n: ((12 * n,), ((4, n), (4, n), (n, 4), (4, n)), {}),
    "GATED_DELTA_NET": lambda n: (
        (64, 2 * n + 32), (*[(16, 4, n, 2)] * 3, (1, 4, n, 2), (1, 4, n, 2), (1024, 2)), {},
    ),
    "GATED_LINEAR_ATTN": lambda n: ((32, n + 16), (*[(16, 2, n)] * 4, (512,)), {}),
    "GET_REL_POS": lambda n: ((5, n, n), ((5, 2 * n - 1),), {}),
    "IM2COL": lambda n: ((27, n, 9, 2), ((3, 3, 3, 2), (n + 2, 11, 3, 2)), {}),
    "IM2COL_3D": lambda n: ((81, n, 3, 2), ((3, 3, 3, 3), (n + 2, 5, 4, 3)), {}),
    "IM2COL_BACK": lambda n: ((n + 2, 11, 3, 2), ((27, n, 9, 2), (3, 3, 3, 2)), {}),
    "PAD": lambda n: ((8, n), ((5, n),), {}),
    "PAD_REFLECT_1D": lambda n: ((n + 15,), ((n + 8,),), {}),
    "POOL_1D": lambda n: ((n, 3, 2, 2), ((n + 1, 3, 2, 2),), {}),
    "POOL_2D": lambda n: ((n, 9, 3, 2), ((n + 1, 11, 3, 2),), {}),
    "POOL_2D_BACK": lambda n: ((n + 1, 11, 3, 2), ((n, 9, 3, 2), (n + 1, 11, 3, 2)), {}),
    "RWKV_WKV6": lambda n: ((32, n + 16), (*[(16, 2, n)] * 3, (16, 2), (16, 2, n), (512,)), {}),
    "RWKV_WKV7": lambda n: ((128, n + 64), (*[(64, 2, n)] * 6, (8192,)), {}),
    "SSM_CONV": lambda n: ((17, n, 2), ((n + 3, 17, 2), (4, 17)), {}),
    "SSM_SCAN": lambda n: (
        (18 * n + 288,), ((16, 1, 9, 2), (1, 9, n, 2), (9, n, 2), (16, 9), (16, 1, n, 2), (16, 1, n, 2), (2,)), {},
    ),
    "TIMESTEP_EMBEDDING": lambda n: ((64, n), ((n,),), {"dim": 64}),
    "WIN_PART": lambda n: ((5, 4, 4, n), ((5, 4 * n, 4),), {"npx": n, "npy": 1, "w": 4}),
    "WIN_UNPART": lambda n: ((5, 4 * n, 4), ((5, 4, 4, n),), {"w": 4}),
    "COL2IM_1D": lambda n: ((n + 2, 4), ((12, n),), {}),
    "DSV4_HC_COMB": lambda n: ((4, 4, n), ((24, n), (3,), (24,)), {}),
    "DSV4_HC_POST": lambda n: ((n, 4, 4), ((n, 4), (n, 4, 4), (4, 4), (4, 4, 4)), {}),
    "DSV4_HC_PRE": lambda n: ((n, 4), ((n, 4, 4), (4, 4)), {}),
    "LIGHTNING_INDEXER": lambda n: ((n, 2), ((256, 4, 2), (256, 1, n), (4, 2), (n, 2)), {}),
}  # fmt: skip
"""Ops whose lengths are tied by sums and products, so that stretching one of them alone may have no meaning: by a length, the
result's ne, the sources' and the parameters that differ from the first case's, whose types these have."""
TIED_LATER: dict[str, Callable[[int], Made]] = {
    "GATED_DELTA_NET": lambda n: (
        (64, 2 * n + 32), (*[(16, 4, n, 2)] * 3, (1, 4, n, 2), (1, 4, n, 2), (16, 16, 4, 2)), {"snapshots": 1},
    ),
}  # fmt: skip
"""Those whose shapes later versions change."""

N = 2**16
WORST: dict[str, tuple[str, Tensor, tuple[Tensor, ...], Params]] = {
    "attention-many-keys": (
        "FLASH_ATTN_EXT", tensor("F32", (1, 8, 2)),
        (tensor("F32", (1, 2, 8)), tensor("F32", (1, N, 1), (4, 0, 0, 0)), tensor("F32", (1, N, 1), (4, 0, 0, 0))), {},
    ),
    "convolution-many-taps": (
        "CONV_2D", tensor("F32", (2**12,)), (tensor("F32", (2**11,)), tensor("F32", (2**12 + 2**11 - 1,))),
        {"s0": 1, "s1": 1, "p0": 0, "p1": 0, "d0": 1, "d1": 1},
    ),
    "attention-fewer-keys": (
        "FLASH_ATTN_EXT", tensor("F32", (1, 8, 2)),
        (tensor("F32", (1, 2, 8)), tensor("F32", (1, N // 16, 1), (4, 0, 0, 0)), tensor("F32", (1, N // 16, 1), (4, 0, 0, 0))), {},
    ),
    "convolution-fewer-taps": (
        "CONV_2D", tensor("F32", (2**8,)), (tensor("F32", (2**6,)), tensor("F32", (2**8 + 2**6 - 1,))),
        {"s0": 1, "s1": 1, "p0": 0, "p1": 0, "d0": 1, "d1": 1},
    ),
    "narrower-window": (
        "POOL_2D", tensor("F32", (2,)), (tensor("F32", (2**9 + 1,)),),
        {"op": 0, "k0": 2**9, "k1": 1, "s0": 1, "s1": 1, "p0": 0, "p1": 0},
    ),
    "many-copies": ("REPEAT_BACK", tensor("F32", (1,)), (tensor("F32", (1, N), (4, 0, 0, 0)),), {}),
    "wide-window": (
        "POOL_2D", tensor("F32", (2,)), (tensor("F32", (2**15 + 1,)),),
        {"op": 0, "k0": 2**15, "k1": 1, "s0": 1, "s1": 1, "p0": 0, "p1": 0},
    ),
    "many-choices": (
        "MUL_MAT_ID", tensor("F32", (1, 64)),
        (tensor("F32", (N, 1, 1), (4, 0, 0, 0)), tensor("F32", (N, 1, 1)), tensor("I32", (64, 1))), {},
    ),
    "one-row": ("UNARY", tensor("F16", (4 * N,)), (tensor("F16", (4 * N,)),), {"kind": 10}),
    "one-row-of-blocks": ("ADD1", tensor("Q8_0", (4 * N,)), (tensor("Q8_0", (4 * N,)), tensor("F32", (1,))), {}),
}  # fmt: skip


TOO_MUCH = {"attention-many-keys", "convolution-many-taps", "wide-window"}
"""Those of WORST that are refused; each has a smaller one beside it that is not, and is measured."""


@pytest.mark.parametrize("shape", WORST)
def test_few_bytes_do_not_cost_gigabytes(shape: str) -> None:
    name, dst, src, params = WORST[shape]
    node = OPS[name].check(dst, src, OPS[name].pack(params))
    assert is_refused(node) == (shape in TOO_MUCH)
    assert shape in TOO_MUCH or 0 < peak_of(node) <= granted(node)


def is_refused(node: Node) -> bool:
    """Whether a node costs more memory than is granted."""
    try:
        validate.check_cost(node)
    except Violation as refused:
        return refused.rule == "graph.cost"
    return False


def test_a_convolution_beyond_the_grant_is_refused() -> None:
    src = (tensor("F32", (2**14,)), tensor("F32", (2**15 + 2**14 - 1,)))
    params = OPS["CONV_2D"].pack({"s0": 1, "s1": 1, "p0": 0, "p1": 0, "d0": 1, "d1": 1})
    with pytest.raises(Violation, match="bytes") as refused:
        validate.check_cost(OPS["CONV_2D"].check(tensor("F32", (2**15,)), src, params))
    assert refused.value.rule == "graph.cost"


@pytest.mark.parametrize(("name", "dtype", "least"), [("CPY", "Q4_K", 700), ("SET_ROWS", "Q8_0", 38), ("ADD", "IQ4_XS", 500)])
def test_quantising_is_counted_for_what_it_takes(name: str, dtype: str, least: int) -> None:
    """A budget of steps is one of time only if a step is about a nanosecond: each of these elements takes so many."""
    rows = tensor("F32", (256, 4))
    second = {"CPY": tensor(dtype, (256, 4)), "SET_ROWS": tensor("I64", (4,)), "ADD": rows}[name]
    node = OPS[name].check(tensor(dtype, (256, 4)), (tensor(dtype, (256, 4)) if name == "ADD" else rows, second), bytes(64))
    assert validate.check_cost(node) >= least * 256 * 4


# ---------------------------------------------------------------------------------------------------- rounds, and stopping


@pytest.mark.parametrize("name", ["SUM", "COUNT_EQUAL", "CROSS_ENTROPY_LOSS"])
def test_rows_of_no_length_are_not_walked_through(name: str) -> None:
    """2^60 rows of no elements fit into no memory but into a few bytes of graph."""
    dtype, result = ("I32", "I64") if name == "COUNT_EQUAL" else ("F32", "F32")
    rows = tensor(dtype, (0, 2**20, 2**20, 2**20))
    op, dst = OPS[name], tensor(result, (1,))
    op.oracle(op.check(dst, (rows,) if name == "SUM" else (rows, rows), bytes(64)))
    assert dst.array.item() == 0


@pytest.mark.parametrize(("name", "ne", "params"), [
    ("SQR", (1, 1, N, 1), {}), ("ADD", (1, 1, N, 1), {}), ("RMS_NORM", (2, 1, N, 1), {"eps": 1e-6}), ("SQR", (1, 2, 1, N), {}),
    ("ROPE", (2, 1, N, 1), {"n_dims": 2, "freq_base": 1e4, "freq_scale": 1.0, "attn_factor": 1.0}),
    ("GROUP_NORM", (1, 1, N, 1), {"n_groups": N, "eps": 0.0}), ("REPEAT_BACK", (1, 1, N, 1), {}),
    ("SOFT_MAX", (1, 1, N, 1), {"scale": 1.0}),
])  # fmt: skip
def test_many_small_matrices_are_few_parts(name: str, ne: tuple[int, ...], params: dict[str, Any]) -> None:
    """An op that walks through 2^16 matrices one by one passes as many checkpoints."""
    second = {"ADD": [tensor("F32", ne)], "ROPE": [tensor("I32", ne[2:3])]}.get(name, [])
    result = (1,) if name == "REPEAT_BACK" else ne
    node = OPS[name].check(tensor("F32", result), (tensor("F32", ne), *second), OPS[name].pack(params))
    asked: list[int] = []

    def count() -> bool:
        asked.append(1)
        return False

    with stoppable(count), np.errstate(all="ignore"):
        node.op.oracle(node)
    assert 0 < len(asked) <= 8 * N * 16 // slabs.SLAB_BYTES


@pytest.mark.parametrize("name", ["SQR", "ADD", "MUL_MAT", "FLASH_ATTN_EXT", "REPEAT_BACK", "CUMSUM", "CPY", "SET_ROWS"])
def test_a_node_stops_between_its_parts(name: str) -> None:
    x, y, keys = tensor("F32", (256, 4096)), tensor("F32", (256, 4096)), tensor("F32", (8, N // 8))
    dst, src = {
        "SQR": (tensor("F32", (256, 4096)), (x,)),
        "ADD": (tensor("F32", (256, 4096)), (x, y)),
        "MUL_MAT": (tensor("F32", (4096, 16)), (tensor("Q8_0", (256, 4096)), tensor("F32", (256, 16)))),
        "FLASH_ATTN_EXT": (
            tensor("F32", (8, 1, 64)),
            (tensor("F32", (8, 64)), keys, keys),
        ),
        "REPEAT_BACK": (tensor("F32", (256,)), (x,)),
        "CUMSUM": (tensor("F32", (2**20,)), (tensor("F32", (2**20,)),)),
        # one slab of the op, four of the quantiser
        "CPY": (tensor("Q4_K", (256, 16)), (tensor("F32", (256, 16)), tensor("Q4_K", (256, 16)))),
        "SET_ROWS": (tensor("IQ4_NL", (256, 16)), (tensor("F32", (256, 16)), tensor("I64", (16,)))),
    }[name]
    node = OPS[name].check(dst, src, bytes(64))
    asked: list[int] = []

    def second_time() -> bool:
        asked.append(1)
        return len(asked) > 2

    with pytest.raises(Stopped), stoppable(second_time), np.errstate(all="ignore"):
        node.op.oracle(node)


def test_sums_in_parts_are_those_of_the_whole_row() -> None:
    """Each sum is rounded before the next number is added, also where a part begins; in place as well."""
    numbers = np.random.default_rng(seeded(1)).standard_normal(2 * 2**18 + 7).astype(np.float32)
    expected = np.add.accumulate(numbers)
    storage = PlainStorage(numbers.copy().view(np.uint8))
    x = replace(tensor("F32", numbers.shape), storage=storage)
    for dst in (tensor("F32", numbers.shape), x):
        OPS["CUMSUM"].oracle(OPS["CUMSUM"].check(dst, (x,), bytes(64)))
        assert np.array_equal(dst.array.ravel(), expected)


@pytest.mark.parametrize("n", [1, 3, 2**18])
def test_copies_are_added_one_after_another(n: int) -> None:
    """5 copies of many elements, each a call of its own, and many copies of few."""
    copies = max(5, 2**20 // n if n < 8 else 5)
    numbers = np.random.default_rng(seeded(2)).standard_normal((copies, n)).astype(np.float32)
    expected = np.zeros(n, np.float32)
    for row in numbers:
        expected += row
    src, dst = replace(tensor("F32", (n, copies)), storage=PlainStorage(numbers.view(np.uint8).ravel())), tensor("F32", (n,))
    OPS["REPEAT_BACK"].oracle(OPS["REPEAT_BACK"].check(dst, (src,), bytes(64)))
    assert np.array_equal(dst.array.ravel(), expected)


@pytest.mark.parametrize(("name", "version"), [
    *((name, DEFAULT) for name in ("RWKV_WKV6", "RWKV_WKV7", "GATED_LINEAR_ATTN", "GATED_DELTA_NET", "SSM_SCAN")),
    ("GATED_DELTA_NET", NEWEST), ("SSM_SCAN", NEWEST), ("DSV4_HC_COMB", NEWEST),
], ids=str)  # fmt: skip
def test_a_recurrence_stops_between_its_tokens(name: str, version: Version) -> None:
    """Each token, or round, is a numpy call that nothing can stop: a hostile graph has millions of them."""
    asked = []
    for case in cases_of(name, version):
        if "many-tokens" in case.id or "iterations-100" in case.id or "for-each-token" in case.id:
            op, (dst, src) = ops_of(version)[name], recipes.build(name, case)
            with stoppable(lambda: bool(asked.append(1)) or len(asked) > 2), pytest.raises(Stopped):  # type: ignore[func-returns-value]
                op.oracle(op.check(dst, src, op.pack(case.params)))
            break
    assert len(asked) == 3


@pytest.mark.parametrize(("name", "case_id"), [("OUT_PROD", "m33-n7-k64"), ("MUL_MAT_ID", "f32"), ("MUL_MAT", "f32-k17-m16-n33")])
def test_products_are_cut(name: str, case_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call of the library that multiplies can't be stopped, so it is given so many products at most; the result is the same."""
    case = next(case for case in cases_of(name) if case.id.startswith(case_id))
    results = []
    for most in (2**34, 500):
        monkeypatch.setattr(f"ggml_rpc_ref.ops.{name.lower()}.MOST_PRODUCTS", most)
        dst, src = recipes.build(name, case)
        asked: list[int] = []
        with stoppable(lambda asked=asked: bool(asked.append(1))):  # type: ignore[misc]
            OPS[name].oracle(OPS[name].check(dst, src, OPS[name].pack(case.params)))
        results.append((len(asked), dst.array.copy()))
    assert results[1][0] > results[0][0]
    assert np.allclose(results[0][1], results[1][1], rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------- overlap


@pytest.mark.parametrize("shift", [0, 4, 8, 36])
@pytest.mark.parametrize(
    ("name", "params"), [("SQR", {}), ("CUMSUM", {}), ("CONT", {}), ("ROLL", {"shift": (1, 0, 0, 0)}), ("DUP", {})]
)
def test_a_result_over_its_source_is_what_it_would_be_elsewhere(name: str, params: dict[str, Any], shift: int) -> None:
    """Ten slabs: within one of them numpy itself reads before it writes."""
    numbers = np.arange(1, 40001, dtype=np.float32) % 9
    storage = PlainStorage(numbers.copy().view(np.uint8))
    src = replace(tensor("F32", (9, 4000)), storage=storage)
    over, apart_from = replace(tensor("F32", (9, 4000)), storage=storage, offset=shift), tensor("F32", (9, 4000))
    op = OPS[name]
    elsewhere = replace(src, storage=PlainStorage(numbers.copy().view(np.uint8)))
    op.oracle(op.check(apart_from, (elsewhere,), op.pack(params)))
    node = op.check(over, (src,), op.pack(params))
    apart(node, op.oracle)()
    assert np.array_equal(over.array, apart_from.array)


def test_a_result_with_gaps_over_its_source_is_set_aside_without_them() -> None:
    """Two elements that lie a gigabyte apart (here: 1 GiB / 2048) are as many bytes of graph as two that are neighbours."""
    storage = PlainStorage(np.zeros(3 * GRANT, np.uint8))
    apart_by = 2 * GRANT
    dst = replace(tensor("F32", (1, 2), (4, apart_by, apart_by, apart_by)), storage=storage)
    src = replace(tensor("F32", (1, 2)), storage=storage, offset=apart_by)
    node = OPS["SQR"].check(dst, (src,), bytes(64))
    src.array[...] = np.array([3, 5], np.float32)[:, None]
    assert 0 < peak_of(node) <= granted(node)
    assert dst.array.ravel().tolist() == [9, 25]


@pytest.mark.parametrize("shift", [0, 4])
def test_the_copy_of_a_result_over_its_source_is_counted(shift: int) -> None:
    """An op that needs just what is granted needs the copy on top."""
    op = replace(OPS["SQR"], in_place=(), cost=lambda node: Cost(GRANT + 8 * node.dst.nelements - 3, 1))
    storage = PlainStorage(np.zeros(64, np.uint8))
    src, over = (replace(tensor("F32", (4,)), storage=storage, offset=at) for at in (0, shift))
    rules = validate._Rules(validate.MAX_STEPS)
    rules.node(op, tensor("F32", (4,)), (src,), bytes(64), b"key")
    with pytest.raises(Violation, match="16 bytes of it a copy of the result") as refused:
        rules.node(op, over, (src,), bytes(64), b"key")
    assert refused.value.rule == "graph.cost"
