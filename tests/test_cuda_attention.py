"""The fast kernels of FLASH_ATTN_EXT on a GPU made of threads, held to the oracle: which one is chosen, what each of them computes.

test_cuda_kernels.py has the recorded cases, whose tolerance is upstream's. Here results must be nearer: `NEAR`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, seed
from hypothesis import strategies as st

from ggml_rpc_ref.backends import DeviceFault
from ggml_rpc_ref.backends.cuda import attention, compiler
from ggml_rpc_ref.backends.cuda.launches import PLANNERS
from ggml_rpc_ref.backends.cuda.plans import Limits
from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.matmul import WEIGHTS
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import PlainStorage, Tensor
from tests.support.gpu import compile_kernels
from tests.support.gpu.devices import Card
from tests.support.gpu.judge import judge, kernels_of
from tests.support.seeds import SEED
from tests.test_cuda_kernels import BACKWARD, DRAWN, FORWARD, ORDERS, SHUFFLED, backend, cases, f32, fill_of, node_of

OP = "FLASH_ATTN_EXT"
NEAR = {"few": Tolerance(nmse=1e-11), "til": Tolerance(nmse=1e-6)}
"""Kernel to what its results may be off by: float32 in another order; queries and weights rounded to F16, 2^-12 of each."""


def attention_of(
    q: tuple[int, int, int, int],
    keys: int,
    dv: int,
    shared: int = 1,
    kinds: tuple[str, str] = ("F16", "F16"),
    mask: Operand | None = None,
    sinks: Operand | None = None,
    **params: float,
) -> Node:
    """Return a node; q: ne of the queries, heads / `shared` of which have the same keys and values."""
    dk, queries, heads, batch = q
    k, v = (Operand(kind, (d, keys, shared, batch), fill=fill_of(kind)) for kind, d in zip(kinds, (dk, dv), strict=True))
    scale = {"scale": dk**-0.5, "max_bias": 0.0, "logit_softcap": 0.0}
    return node_of(OP, Case("made here", f32(dv, heads, queries, batch), (f32(*q), k, v, mask, sinks), scale | params))


def kernel_of(node: Node) -> str:
    """Return the name of the kernel that attends: the last one but for what adds the parts."""
    return kernels_of(backend(FORWARD), node)[-2:][0].removeprefix("flash_attn_ext_")


def fast(node: Node, orders: tuple[int, ...] = ORDERS, limit: Tolerance | None = None) -> str:
    """Fail unless a fast kernel computes what the oracle does, in any order of its threads; return its name."""
    name = kernel_of(node)
    for order in orders:
        assert judge(backend(order), node, limit or NEAR[name[:3]])
    return name


# ------------------------------------------------------------------------------------------------------------------ which

CHOICES = [
    ("one-query", (128, 1, 4, 1), 4, ("F16", "F16"), "few_1"),
    ("heads-share-keys", (128, 1, 32, 1), 8, ("F16", "F16"), "few_4"),
    ("eight-queries", (128, 8, 1, 1), 1, ("F16", "F16"), "few_8"),
    ("nine-rows", (128, 3, 3, 1), 1, ("F16", "F16"), "tile_128"),
    ("two-types", (128, 3, 3, 1), 1, ("Q8_0", "F16"), "few_8"),
    ("many-of-bf16", (128, 64, 1, 1), 1, ("BF16", "BF16"), "tile_128"),
    ("many-of-two-types", (128, 11, 3, 1), 1, ("Q8_0", "F16"), "tile_128"),
    ("not-enough-of-two-types", (128, 4, 8, 1), 1, ("Q8_0", "F16"), "few_8"),
    ("many-k-quants", (256, 40, 1, 1), 1, ("Q4_K", "Q6_K"), "tile_256"),
    ("many", (64, 64, 1, 1), 1, ("F16", "F16"), "tile_64"),
    ("many-80", (80, 64, 1, 1), 1, ("F16", "F16"), "tile_96"),
    ("many-192", (192, 64, 1, 1), 1, ("F16", "F16"), "tile_256"),
    ("long-heads", (512, 64, 1, 1), 1, ("F16", "F16"), "few_8"),
    ("uneven-heads", (33, 64, 1, 1), 1, ("F16", "F16"), "few_8"),
    ("k-quants", (256, 2, 4, 1), 1, ("Q4_K", "Q4_K"), "few_1"),
    ("longest-heads", (1088, 1, 1, 1), 1, ("F16", "F16"), "naive"),
]


@pytest.mark.parametrize(("q", "shared", "kinds", "kernel"), [c[1:] for c in CHOICES], ids=[c[0] for c in CHOICES])
def test_the_kernel_that_fits_is_chosen(q: tuple[int, int, int, int], shared: int, kinds: tuple[str, str], kernel: str) -> None:
    node = attention_of(q, 70, q[0], shared, kinds)
    assert kernel_of(node) == kernel


def test_an_older_card_multiplies_without_tensor_cores() -> None:
    plan = PLANNERS[OP](attention_of((128, 64, 1, 1), 70, 128), Limits(75, 4))
    assert plan is not None
    assert plan.calls[0].kernel == "flash_attn_ext_few_8"


def test_parts_fill_a_gpu_and_are_no_more_than_there_are_keys() -> None:
    """An H200's 132 multiprocessors, four blocks each: 8 groups of heads in 64 parts of 512 of the 32768 keys."""
    plan = PLANNERS[OP](attention_of((128, 1, 32, 1), 32768, 128, 8), Limits(90, 132))
    assert plan is not None
    assert [call.kernel for call in plan.calls] == ["flash_attn_ext_few_4", "flash_attn_ext_combine"]
    assert (plan.calls[0].grid, plan.calls[0].more) == ((64, 8, 1), (512, 4, 64))
    short = PLANNERS[OP](attention_of((128, 1, 32, 1), 100, 128, 8), Limits(90, 132))
    assert short is not None
    assert (short.calls[0].grid, short.calls[0].more) == ((2, 8, 1), (64, 4, 2))


def test_the_naive_kernel_still_computes_all_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but lengths that no model has leads there otherwise."""
    monkeypatch.setattr(attention, "MOST_KEYS", -1)
    card = Card(SHUFFLED)
    taken = sum(judge(card.backend, node_of(OP, case, version), case.tolerance) for case, version in cases(OP))
    launched = set(card.gpu.launched)
    card.gpu.close()
    assert (taken, launched) == (84, {"flash_attn_ext_naive"})


# ------------------------------------------------------------------------------------------------------------------ what

MASKS = st.sampled_from([None, "mask", "normal", "window"])
PARAMS = {"max_bias": st.sampled_from([0.0, 8.0]), "logit_softcap": st.sampled_from([0.0, 5.0])}


def masked(node: Node, kind: str | None, rng: np.random.Generator) -> None:
    """Hide all keys but some that follow each other, from all queries, and now and then a whole query's."""
    if kind == "window":
        mask = node.source(3).array
        first, last = sorted(rng.integers(0, mask.shape[-1] + 1, 2))
        mask[..., :first] = mask[..., last:] = -np.inf
        mask[..., rng.integers(0, mask.shape[-2]), :] = -np.inf


def drawn(data: st.DataObject, kinds: tuple[str, str], q: tuple[int, int, int, int], keys: int, dv: int, shared: int) -> Node:
    """Return a node with a mask, slopes, a cap and sinks or without."""
    kind, (_, queries, heads, batch) = data.draw(MASKS), q
    params = {name: data.draw(values) for name, values in PARAMS.items()}
    mask = None
    if kind is None:
        params["max_bias"] = 0.0
    else:
        ne = (keys + data.draw(st.sampled_from([0, 3])), queries + data.draw(st.sampled_from([0, 2])))
        matrices = data.draw(st.sampled_from([(1, 1), (heads, 1), (1, batch)]))
        mask = Operand("F16", (*ne, *matrices), fill="normal" if kind == "window" else kind)
    sinks = f32(heads) if data.draw(st.booleans()) else None
    node = attention_of(q, keys, dv, shared, kinds, mask, sinks, **params)
    masked(node, kind, np.random.default_rng(data.draw(st.integers(0, 2**32 - 1))))
    return node


KEYS = st.one_of(st.integers(1, 70), st.integers(100, 500))


@seed(SEED)
@DRAWN
@given(
    kinds=st.tuples(st.sampled_from(sorted(attention.EIGHTS)), st.sampled_from(sorted(attention.EIGHTS))),
    lengths=st.tuples(st.sampled_from([32, 64, 96, 128]), st.sampled_from([32, 64, 160, 256])),
    queries=st.integers(1, 8), keys=KEYS, heads=st.tuples(st.integers(1, 2), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 2)),
    data=st.data(),
)  # fmt: skip
def test_few_queries_of_any_shape(
    kinds: tuple[str, str], lengths: tuple[int, int], queries: int, keys: int, heads: tuple[int, int, int], data: st.DataObject
) -> None:
    (dk, dv), (shared, each, batch) = lengths, heads
    node = drawn(data, kinds, (dk, queries, shared * each, batch), keys, dv, shared)
    name = fast(node)
    assert name[:3] == ("til" if queries * each > (8 if kinds == ("F16", "F16") else 32) else "few")


@seed(SEED)
@DRAWN
@given(
    kinds=st.tuples(*[st.sampled_from(["F16", "F16", *sorted(attention.EIGHTS)])] * 2),
    lengths=st.tuples(*[st.sampled_from([16, 40, 64, 80, 112, 128, 192, 256])] * 2), queries=st.integers(9, 70), keys=KEYS,
    heads=st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 2)), data=st.data(),
)  # fmt: skip
def test_many_queries_of_any_shape(
    kinds: tuple[str, str], lengths: tuple[int, int], queries: int, keys: int, heads: tuple[int, int, int], data: st.DataObject
) -> None:
    """Of F16 from nine rows on, of other types from 33."""
    dk, dv = (-(-d // BY_NAME[kind].block) * BY_NAME[kind].block for d, kind in zip(lengths, kinds, strict=True))
    queries = queries if kinds == ("F16", "F16") else max(queries, attention.FEWEST_HALVED)
    node = drawn(data, kinds, (dk, queries, heads[0] * heads[1], heads[2]), keys, dv, heads[0])
    order = (data.draw(st.sampled_from(ORDERS)),)
    assert fast(node, order).startswith("tile")


@pytest.mark.parametrize(("queries", "kernel"), [(2, "few"), (40, "tile")])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_keys_and_values_of_every_type(kind: str, queries: int, kernel: str) -> None:
    """Two heads that share keys, of which there are two parts."""
    node = attention_of((256, queries, 2, 1), 130, 256, 1, (kind, kind), scale=1 / 1024)
    assert fast(node).startswith(kernel)


@pytest.mark.parametrize("kind", ["F32", "BF16"])
@pytest.mark.parametrize("factor", [1e-38, 1e-20, 1e-6, 1e6, 1e20, 1e37])
def test_keys_and_values_of_any_size(kind: str, factor: float) -> None:
    """F16 holds none of these; each matrix is divided by a power of two of its own."""
    for slot in (1, 2):
        node = attention_of((64, 40, 2, 1), 100, 64, 2, (kind, kind), scale=0.125 / (factor if slot == 1 else 1))
        enlarge(node.source(slot), 0, 1, factor)
        assert fast(node, (SHUFFLED,)) == "tile_64"


def enlarge(tensor: Tensor, head: int, step: int, factor: float) -> None:
    """Multiply every so manieth row of a head."""
    rows = tensor.array[0, head, ::step]
    if tensor.dtype.name == "F32":
        rows *= np.float32(factor)
    else:
        rows[...] = (((rows.astype(np.uint32) << 16).view(np.float32) * np.float32(factor)).view(np.uint32) >> 16).astype(
            rows.dtype
        )


@pytest.mark.parametrize("kind", ["F32", "BF16"])
@pytest.mark.parametrize("factor", [1e-3, 1e-7, 1e-8, 1e-30])
@pytest.mark.parametrize("hidden", [True, False])
def test_rows_of_very_different_sizes(kind: str, factor: float, hidden: bool) -> None:
    """The larger ones are hidden, or so are the smaller ones in the result; what F16 can't hold beside them is computed by rows."""
    for slot in (1, 2):
        node = attention_of((64, 40, 1, 1), 100, 64, 1, (kind, kind), mask=Operand("F16", (100, 40), fill="normal"))
        enlarge(node.source(slot), 0, 2, factor)
        if hidden:
            node.source(3).array[..., 1::2] = -np.inf
        assert fast(node, (SHUFFLED,)) == "tile_64"


@pytest.mark.parametrize("dv", [600, 1024])
def test_values_of_more_than_512_elements(dv: int) -> None:
    """Parts are added by 128 threads with four elements each, in rounds."""
    assert fast(attention_of((64, 1, 2, 1), 300, dv)) == "few_4"


LAYOUTS: list[tuple[str, tuple[int, int, int, int], int]] = [
    ("keys-inside-heads", (2, 64 * 2 * 2, 64 * 2, 64 * 2 * 2 * 90), 0),
    ("gaps-of-sixteen", (2, 144, 144 * 90, 144 * 180), 16),
    ("gaps-of-two", (2, 130, 130 * 90, 130 * 180), 0),
    ("begin-between", (2, 128, 128 * 90, 128 * 180), 2),
]
"""Strides of two heads of 90 keys of 64 elements of F16, and where they begin."""


@pytest.mark.parametrize(("queries", "kind"), [(1, "F16"), (20, "F16"), (40, "BF16")])
@pytest.mark.parametrize(("nb", "offset"), [c[1:] for c in LAYOUTS], ids=[c[0] for c in LAYOUTS])
def test_keys_and_values_that_lie_anyhow(nb: tuple[int, int, int, int], offset: int, queries: int, kind: str) -> None:
    """Rows that begin at no multiple of 16 bytes are read element by element."""
    kv = Operand(kind, (64, 90, 2), nb)
    mask = Operand("F16", (91, queries), (2, 182 + 2 * queries, 8192, 8192), fill="mask")
    case = Case("", f32(64, 4, queries), (f32(64, queries, 4), kv, kv, mask), {"scale": 0.125, "max_bias": 0.0})
    node = node_of(OP, case)
    for slot in (1, 2):
        tensor = node.source(slot)
        assert isinstance(tensor.storage, PlainStorage)
        room = PlainStorage(np.concatenate([np.zeros(offset, np.uint8), tensor.storage.data]))
        there = tensor.at(room, tensor.offset + offset, tensor.name)
        node = replace(node, src=tuple(there if s == slot else t for s, t in enumerate(node.src)))
    fast(node)


# ------------------------------------------------------------------------------------------------ numbers that are not finite


def spoilt(queries: int, slot: int, value: float, key: int, hidden: bool, kind: str = "F16") -> Node:
    """Return attention over 200 keys, one of which has an odd value and is hidden from all queries, or from all but one."""
    mask = Operand("F16", (200, queries), fill="normal")
    node = attention_of((64, queries, 2, 1), 200, 64, 1, (kind, kind), mask)
    node.source(slot).array[0, 0, key, 5] = value
    node.source(3).array[..., 0 if hidden else 1 :, key] = -np.inf
    return node


@pytest.mark.parametrize("hidden", [True, False])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("slot", [1, 2])
@pytest.mark.parametrize(("queries", "kind"), [(2, "F16"), (20, "F16"), (40, "F32")])
def test_what_is_not_finite_stays_behind_the_mask(queries: int, kind: str, slot: int, value: float, hidden: bool) -> None:
    for key in (3, 150):
        assert fast(spoilt(queries, slot, value, key, hidden, kind), (SHUFFLED,))[:3] == ("few" if queries == 2 else "til")


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("weight", [-200.0, -np.inf])
def test_an_infinity_whose_weight_becomes_nothing_is_hidden(queries: int, weight: float) -> None:
    """It was the largest of the first keys, and was summed, before far larger ones came."""
    node = attention_of((64, queries, 1, 1), 500, 64, mask=Operand("F16", (500, queries), fill="zeros"))
    node.source(2).array[0, 0, 2] = np.inf
    node.source(3).array[..., :64] = weight
    fast(node, (SHUFFLED,))


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("factor", [1e-30, 1e-6, 1e6, 1e30])
def test_queries_of_any_size(queries: int, factor: float) -> None:
    """F16 holds none of these; the scale brings the scores back."""
    node = attention_of((64, queries, 1, 1), 100, 64, scale=0.125 / factor)
    node.source(0).array[...] *= np.float32(factor)
    fast(node, (SHUFFLED,))


@pytest.mark.parametrize("queries", [1, 20])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_query_or_a_mask_that_is_not_finite(queries: int, value: float) -> None:
    """In its own row only."""
    for slot in (0, 3):
        node = attention_of((64, queries, 1, 1), 100, 64, mask=Operand("F16", (100, queries), fill="normal"))
        node.source(slot).array[0, 0, -1, 7] = value
        fast(node, (SHUFFLED,))


def test_slopes_that_vanish_make_nan_of_what_is_hidden() -> None:
    for queries in (1, 20):
        mask = Operand("F16", (100, queries), fill="mask")
        node = attention_of((64, queries, 2, 1), 100, 64, mask=mask, max_bias=1e4)
        fast(node, (SHUFFLED,))
        assert np.isnan(node.dst.array).any()


# --------------------------------------------------------------------------------------------------- kernels that are wrong


def some() -> Iterator[tuple[Node, Tolerance | None]]:
    """Yield nodes that together reach every line of the fast kernels."""
    for queries, heads, shared in ((1, 4, 4), (1, 8, 2), (2, 8, 2), (40, 2, 1)):
        mask = Operand("F16", (300, queries), fill="mask")
        node = attention_of((128, queries, heads, 1), 300, 128, shared, mask=mask, sinks=f32(heads))
        # the second half of the keys of a part, and a whole part
        node.source(3).array[..., 190:] = -np.inf
        yield node, NEAR["few" if queries < 3 else "til"]
    yield attention_of((128, 40, 2, 1), 200, 128), NEAR["til"]
    for kinds in (("F32", "F32"), ("F16", "F32")):
        yield uneven(kinds, 2.0**22), NEAR["til"]


def uneven(kinds: tuple[str, str], largest: float) -> Node:
    """Return attention of three matrices, whose exponents fill no sixteen bytes; a hidden row gives each another exponent."""
    node = attention_of((128, 40, 3, 1), 130, 128, 3, kinds, Operand("F16", (130, 40), fill="normal"))
    for slot in (slot for slot in (1, 2) if kinds[slot - 1] == "F32"):
        for head, factor in enumerate((largest, 2.0**5, 2.0**12)):
            enlarge(node.source(slot), head, 200, factor)
    node.source(3).array[..., 0] = -np.inf
    return node


def odd() -> Iterator[tuple[Node, Tolerance | None]]:
    """Yield what tensor cores leave to be computed row by row: a value of NaN that is seen; numbers too small beside others."""
    yield spoilt(20, 2, np.nan, 3, hidden=False), NEAR["til"]
    yield uneven(("F32", "F32"), 2.0**31), NEAR["til"]


FEW, TILE, HALVES = "shared/attention_few.cuh", "shared/attention_tile.cuh", "shared/attention_halves.cuh"
SABOTAGES = {
    "weights that are not all there": (FEW, "            __syncthreads(); /* all weights are there */\n", ""),
    "scores that are not all there": (FEW, "        __syncthreads(); /* all scores are there; `shown` has been read */\n", ""),
    "queries that are not there": (FEW, "__syncthreads(); /* queries and", "if (first > begin) __syncthreads(); /* queries and"),
    "what was summed is not scaled": (FEW, "row->total * *change + sum", "row->total + sum"),
    "values that are not scaled": (FEW, "sum[r][i] = scaled(sum[r][i], change[r]);", ";"),
    "a mask that is not looked at": (FEW, "bias_of(&row[r], key) : -INFINITY", "0 : -INFINITY"),
    "the first row's mask for all": (FEW, "bias_of(&row[r], key)", "bias_of(&row[0], key)"),
    "keys behind the end": (FEW, "r < count && key < end ?", "r < count ?"),
    "a part's sums of one group of threads": (FEW, "n < groups; n++)\n                x", "n < 1; n++)\n                x"),
    "parts that are not scaled": ("flash_attn_ext.cu", "factor[s] = weight_of(partial_of(&g, s, row)->top, top)", "factor[s] = 1"),
    "a part forgotten": ("flash_attn_ext.cu", "int splits = (int)g.more[2]", "int splits = (int)g.more[2] - 1"),
    "a sink forgotten": ("shared/attention.cuh", "present(&g->src[4])", "0"),
    "the keys of another head": ("shared/attention.cuh", "h / (q->ne[2] / k->ne[2])", "h % k->ne[2]"),
    "keys that are not there yet": (TILE, "__syncthreads(); /* the keys are there", "/* the keys are there"),
    "values that are not there yet": (TILE, "__syncthreads(); /* the values are there", "/* the values are there"),
    "copies that nobody waits for": (TILE, "        wait_for_copies();\n        if (clear", "        if (clear"),
    "queries overwritten too soon": (TILE, "    __syncthreads(); /* the queries have been read */\n", ""),
    "a tile's mask that is not looked at": (TILE, "low = high = 0;", "low = high = HIDDEN;"),
    "halves of a mask exchanged": (TILE, "high ? pair >> 16 : pair", "high ? pair : pair >> 16"),
    "a row's other scale": (TILE, "o[n][i] *= change[i / 2];", "o[n][i] *= change[i % 2];"),
    "keys of a fragment exchanged": (TILE, "row = lane / 16 * 8 + lane % 8, column", "row = lane % 16, column"),
    "a lane's share for the sum": (TILE, "step < 4; step *= 2", "step < 2; step *= 2"),
    "numbers that are not divided": (HALVES, "x[k] = ldexpf(x[k], -exponent);", ";"),
    "another matrix's exponent": (HALVES, "to.exponents[p.i2 + t->ne[2] * p.i3]", "to.exponents[0]"),
    "small rows that are trusted": (HALVES, "< FINE_ENOUGH", "< -1000"),
    "values over keys": (HALVES, "if (slot == 2 && k->type != GGML_TYPE_F16)", "if (false)"),
    "keys that are not multiplied": (TILE, "factor[mine] * all_keys.unit", "factor[mine]"),
    "values that are not multiplied": (TILE, "* lowered * unit, o[n]", "* lowered, o[n]"),
    "another matrix": (TILE, "m2 = row % q->ne[2] / (q->ne[2] / h->t.ne[2])", "m2 = 0"),
    "visible keys left out": (TILE, "            end = begin + (end - begin - 1) / KEYS * KEYS;", "            end = begin;"),
}  # fmt: skip
"""What is wrong, to the file, what stands in it, and what stands there instead."""


UNUSED = {
    "shared/eights.cuh": r" X\((?!F16)\w+, \w+\)",
    "flash_attn_ext.cu": r"KERNEL\(flash_attn_ext_tile_(96|256)\) .*",
}
"""What these nodes have no use for, so that the copies are compiled sooner."""


def changed(file: str, right: str, wrong: str, folder: Path) -> Path:
    """Return a library of the op's kernels with one change."""
    kernels = shutil.copytree(compiler.DIRECTORY, folder / "kernels")
    text = (kernels / file).read_text()
    assert text.count(right) == 1
    (kernels / file).write_text(text.replace(right, wrong))
    for name, pattern in UNUSED.items():
        (kernels / name).write_text(re.sub(pattern, "", (kernels / name).read_text()))
    return compile_kernels(folder / "changed.so", kernels, [OP.lower()])


def is_wrong(path: Path, nodes: Iterator[tuple[Node, Tolerance | None]], order: int) -> bool:
    card = Card(order, path=path)
    try:
        for node, tolerance in nodes:
            assert judge(card.backend, node, tolerance)
    except (AssertionError, DeviceFault):
        return True
    finally:
        card.gpu.close()
    return False


@pytest.mark.parametrize("what", SABOTAGES)
def test_a_wrong_kernel_is_found(what: str, tmp_path: Path) -> None:
    path = changed(*SABOTAGES[what], tmp_path)
    assert any(is_wrong(path, chain(some(), odd()), order) for order in (BACKWARD, FORWARD, SHUFFLED)), "nobody noticed"


def test_rows_are_computed_by_themselves_where_they_must_be_and_only_there(tmp_path: Path) -> None:
    """Without that way out the ordinary results are as right as before: they came out of the fast kernels."""
    path = changed("flash_attn_ext.cu", "if (block_max(strange, part) > 0) {", "if (false) {", tmp_path)
    assert not is_wrong(path, some(), FORWARD)
    assert all(is_wrong(path, iter([one]), FORWARD) for one in odd())


def test_heads_that_share_keys_read_them_once() -> None:
    """As many blocks for four heads that share keys as for one."""
    plans: list[Any] = [PLANNERS[OP](attention_of((64, 1, heads, 1), 500, 64), Limits(90, 4)) for heads in (1, 4)]
    assert plans[0].calls[0].grid == plans[1].calls[0].grid == (8, 1, 1)


# ------------------------------------------------------------------------------------------------------------------- nvcc


@pytest.mark.skipif(compiler.nvcc() is None, reason="CUDA's compiler, nvcc, is not here")
def test_nothing_is_spilt_and_as_many_blocks_fit_as_are_planned() -> None:
    """For Hopper: 65536 registers of a multiprocessor, 48 KiB of shared memory of a block without asking for more."""
    kernels = {kernel.kernel.removeprefix("flash_attn_ext_"): kernel for kernel in compiler.usage(OP.lower(), 90)}
    assert {name: kernel.spills for name, kernel in kernels.items() if kernel.spills} == {}
    for size, blocks in attention.FITTING.items():
        kernel = kernels[f"few_{size}"]
        # registers are given out by eight a thread; 32 bytes a row and element of the queries' in dynamic shared memory
        assert -(-kernel.registers // 8) * 8 * attention.ROW_THREADS * blocks <= 65536
        assert kernel.shared + 4 * size * attention.LONGEST_HEAD <= 48 * 1024
    for size in attention.TILE_HEADS:
        assert -(-kernels[f"tile_{size}"].registers // 8) * 8 * attention.ROW_THREADS * 2 <= 65536
        assert kernels[f"tile_{size}"].shared <= 48 * 1024
