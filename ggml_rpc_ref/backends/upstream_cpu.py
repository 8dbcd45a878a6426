"""The oracle with the roundings of upstream's CPU backend, so that a stock client sees the numbers that it would see there.

The oracle multiplies activations as they are. Upstream's CPU rounds them first, and a small model's greedy tokens notice: its two
best logits may be 0.01 apart, and the rounding moves them by 0.3. The rounding is not part of what an op means, so it is
here and not in ops:

    MUL_MAT, MUL_MAT_ID     src1 is rounded to the partner type of src0's (`matmul.VEC_DOT_TYPE`), then multiplied; the minimum of a
                            Q4_1 or Q5_1 block meets the sum that Q8_1 keeps of its block, which is an F16
    FLASH_ATTN_EXT          with fewer than 64 queries Q is rounded to the partner of K's type, F16 keys are multiplied and F16
                            values summed in the processor's F16 arithmetic (`half`); with 64 or more, F32 or F16 K and V are
                            computed in F32, as the oracle does
    UNARY, GLU              GELU and GELU_QUICK of an F32 are looked up by its F16, the results are F16

Everything else is the oracle's. What still differs from the genuine server is the order of float32 sums.

Source: ggml-cpu.c (vec_dot_type), ops.cpp (flash_attn_ext_f16_one_chunk, reduce_partials), vec.h (ggml_vec_mad_f16, GELU tables).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial, reduce
from math import gcd, lcm
from typing import Any

import numpy as np

from ggml_rpc_ref.backends import Run, Step, apart, in_turn
from ggml_rpc_ref.backends.copies import WeightCopies, with_source
from ggml_rpc_ref.backends.copies import multiply as multiply_widened
from ggml_rpc_ref.backends.half import STEP, Half, of_this_processor
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import in_host_memory
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.activations import gelu_quick, halves
from ggml_rpc_ref.ops.shared.attention import mask_of, masked_scores
from ggml_rpc_ref.ops.shared.matmul import VEC_DOT_TYPE
from ggml_rpc_ref.ops.shared.slabs import ElementBlock, element_blocks, part, row_blocks, rows_per_slab, spans
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.stopping import checkpoint
from ggml_rpc_ref.tensor import Array, F32Array, Tensor, allocate

TILE = 64
"""With at least so many queries upstream computes attention in tiles, in F32 (GGML_FA_TILE_Q)."""
HADAMARD = 1
"""The hint that src0 is a Hadamard matrix, which is then not read (GGML_HINT_SRC0_IS_HADAMARD)."""
VECTOR = 16
"""Floats in a vector register; tiles need dv to be a multiple of it. 16 is AVX-512's; AVX2 has 8."""
SCORE_BYTES = 48
"""What the scores of one query and key take, their maxima and weights included: ten or so arrays of float32 and of booleans."""
SPLIT = 512
"""With at least so many keys the threads split the keys of a single query among them."""


OTHERWISE = frozenset({"FLASH_ATTN_EXT.hidden"})
"""Ids in `spec.op_changes` of rows that compute what the kernels here do not."""


class UpstreamCpu:
    """Computes nodes as upstream's CPU backend rounds them; it leaves to the oracle what upstream computes as the oracle does.

    Args:
        memory: where its buffers lie.
        threads: number of threads of the upstream server to reproduce: a single query's keys are summed in as many parts.
        half: its processor's F16 arithmetic; by default that of the processor we run on.
        copies: bytes of float32 copies of quantised weights to keep.
    """

    name = "upstream-cpu"

    def __init__(self, memory: HostMemory, threads: int = 1, half: Half | None = None, copies: int = 0) -> None:
        self.memory, self.copies = memory, WeightCopies(copies, memory)
        memory.changed = self.copies.drop
        self.threads, self.half = threads, half or of_this_processor()

    def supports(self, node: Node) -> bool:
        """Whether upstream rounds this node: its op, and of UNARY and GLU the kinds that it looks up for F32."""
        if node.op.name not in self.KERNELS or not in_host_memory(node) or not OTHERWISE.isdisjoint(node.op.changes):
            return False
        return not node.op.kinds or (node.kind in LOOKED_UP and node.dst.dtype.name == "F32")

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run that calls upstream's roundings and the oracle's definitions, each in its turn."""
        return in_turn([(step.node, step.compute or apart(step.node, self._kernel(step.node))) for step in steps])

    def _kernel(self, node: Node) -> Callable[[Node], None]:
        return partial(self.KERNELS[node.op.name], self)

    def _multiply(self, node: Node) -> None:
        """Round src1 to the partner type of src0's, then multiply; under the promise of MUL_MAT.hint, transform src1."""
        if node.op.reads("hint") and node.i32("hint") == HADAMARD:
            transform(node)
            return
        weights = node.source(0).dtype.name
        # both products are taken before anything is written: dst may be src1's own memory
        rest = _sums_rounded(node) if weights in WITH_MINIMA else None
        multiply_widened(with_source(node, 1, rounded(node.source(1), VEC_DOT_TYPE[weights])), self.copies)
        if rest is not None:
            with np.errstate(all="ignore"):
                node.dst.array[...] += rest.array

    def _attend(self, node: Node) -> None:
        attend(node, self.threads, self.half)

    def _activate(self, node: Node) -> None:
        activate(node)

    def _gate(self, node: Node) -> None:
        gate(node)

    KERNELS: Mapping[str, Callable[[Any, Node], None]] = {
        "MUL_MAT": _multiply,
        "MUL_MAT_ID": _multiply,
        "FLASH_ATTN_EXT": _attend,
        "UNARY": _activate,
        "GLU": _gate,
    }


def transform(node: Node) -> None:
    """Multiply each row of src1 by the Hadamard matrix over the root of its length, in the steps of the fast transform.

    Source: ggml_compute_forward_fwht in ggml-cpu/ops.cpp.
    """
    for block in row_blocks(node.dst.ne):
        x = part(node.source(1), block).values()
        x = x * np.float32(1 / np.sqrt(np.float32(x.shape[-1])))
        with np.errstate(all="ignore"):
            for step in (1 << bit for bit in range(x.shape[-1].bit_length() - 1)):
                pairs = x.reshape(*x.shape[:-1], -1, 2, step)
                u, v = pairs[..., 0, :], pairs[..., 1, :]
                x = np.stack((u + v, u - v), axis=-2).reshape(x.shape)
            part(node.dst, block).store(x)


Slabs = Iterator[tuple[ElementBlock, Tensor]]
"""Parts that cover a tensor, each with its place: as a whole, what is made on the way would be larger than the tensor as F32."""


def rounded(tensor: Tensor, type_name: str) -> Tensor:
    """Return a tensor's values rounded to a type, as F32 in memory of their own; the tensor itself where that is F32."""
    if tensor.dtype.name == type_name == "F32":
        return tensor
    wide = allocate(BY_NAME["F32"], tensor.ne)
    for block, narrow in narrowed(tensor, type_name):
        part(wide, block).store(narrow.values())
    return wide


def narrowed(tensor: Tensor, type_name: str) -> Slabs:
    """Yield the slabs of a tensor in another type, in memory of their own; those of the tensor itself where it has the type."""
    for block in element_blocks(tensor.ne):
        slab = part(tensor, block)
        if slab.dtype.name != type_name:
            narrow = allocate(BY_NAME[type_name], slab.ne)
            narrow.store(slab.values())
            slab = narrow
        yield block, slab


# --------------------------------------------------------------------------------------------------- sums kept as F16

Q8_1 = BY_NAME["Q8_1"]
WITH_MINIMA = ("Q4_1", "Q5_1")
"""Types whose blocks have a minimum m beside the step d: their partner is Q8_1, whose blocks keep s, d times the sum of levels."""


def _sums_rounded(node: Node) -> Tensor:
    """Return what the rounding of s to F16 adds to a product of WITH_MINIMA with Q8_1: summed over blocks, m * (s - d * sum).

    Upstream's dot product is d0 * d1 * sum(q0 * q1) + m * s (ggml_vec_dot_q4_1_q8_1 in ggml-cpu/quants.c).
    """
    rest, weights, x = allocate(BY_NAME["F32"], node.dst.ne), node.source(0), node.source(1)
    minima, errors = (allocate(BY_NAME["F32"], (tensor.ne[0] // Q8_1.block, *tensor.ne[1:])) for tensor in (weights, x))
    _fill_by_block(minima, 0, _in_place(weights), minima_of)
    _fill_by_block(errors, 0, narrowed(x, Q8_1.name), sum_errors_of)
    node.op.oracle(Node(rest, (minima, errors, *node.src[2:]), node.op_params, node.op))
    return rest


def _in_place(tensor: Tensor) -> Slabs:
    return ((block, part(tensor, block)) for block in element_blocks(tensor.ne))


def _fill_by_block(target: Tensor, column: int, slabs: Slabs, number: Callable[[Tensor], F32Array]) -> None:
    """Write a number for each block of 32 elements into the columns of a tensor from the given one on."""
    for (*rows, columns), slab in slabs:
        first, end = columns.start // Q8_1.block, columns.stop // Q8_1.block
        target.array[(*rows, slice(column + first, column + end))] = number(slab)


def minima_of(tensor: Tensor) -> F32Array:
    """Return m of each block of a tensor of WITH_MINIMA, shape (ne3, ne2, ne1, blocks)."""
    blocks = np.ascontiguousarray(tensor.array)
    minima: F32Array = blocks[..., 2:4].copy().view("<f2")[..., 0].astype(np.float32)
    return minima


def sum_errors_of(tensor: Tensor) -> F32Array:
    """Return s - d * sum of each block of a Q8_1 tensor, shape (ne3, ne2, ne1, blocks)."""
    blocks = np.ascontiguousarray(tensor.array)
    d, s = (blocks[..., at : at + 2].copy().view("<f2")[..., 0].astype(np.float32) for at in (0, 2))
    with np.errstate(all="ignore"):
        errors: F32Array = s - d * blocks[..., 4:].view(np.int8).sum(axis=-1, dtype=np.int32).astype(np.float32)
    return errors


def _with_minima(node: Node) -> Node:
    """Return an attention node whose Q and K have a further element per block, so that their products come out as upstream's."""
    q, k = node.source(0), node.source(1)
    wide_q = _with_column_per_block(q, lambda: narrowed(q, Q8_1.name), sum_errors_of)
    wide_k = _with_column_per_block(k, lambda: _in_place(k), minima_of)
    return with_source(with_source(node, 0, wide_q), 1, wide_k)


def _with_column_per_block(tensor: Tensor, slabs: Callable[[], Slabs], number: Callable[[Tensor], F32Array]) -> Tensor:
    """Return the slabs of a tensor as F32 with a further column for each block of 32 elements."""
    length = tensor.ne[0]
    wide = allocate(BY_NAME["F32"], (length + length // Q8_1.block, *tensor.ne[1:]))
    for block, slab in slabs():
        wide.array[block] = slab.values()
    _fill_by_block(wide, length, slabs(), number)
    return wide


# --------------------------------------------------------------------------------------------------------- activations


def _by_f16(function: Callable[[Array], Array], x: F32Array) -> F32Array:
    """Look a function up by F16: argument and result are rounded to F16."""
    found: F32Array = function(x.astype(np.float16).astype(np.float32)).astype(np.float16).astype(np.float32)
    return found


def _gelu(x: F32Array) -> F32Array:
    """ggml_vec_gelu_f32: the table is not used outside ±10."""
    return np.where(x <= -10, np.float32(0), np.where(x >= 10, x, _by_f16(_gelu_in_f32, x)))


def _gelu_in_f32(x: Array) -> Array:
    """ggml_gelu_f32, from which the table is made: its roundings decide some of the table's."""
    one, half, root, cubic = (np.float32(number) for number in (1, 0.5, 0.79788456080286535587989211986876, 0.044715))
    return half * x * (one + np.tanh(root * x * (one + cubic * x * x)))


LOOKED_UP: dict[str, Callable[[F32Array], F32Array]] = {
    "GELU": _gelu,
    "GEGLU": _gelu,
    "GELU_QUICK": partial(_by_f16, gelu_quick),
    "GEGLU_QUICK": partial(_by_f16, gelu_quick),
}
"""Kinds of UNARY and GLU whose function upstream looks up."""


def activate(node: Node) -> None:
    """Apply a looked-up function, part by part."""
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(LOOKED_UP[node.kind](part(node.source(0), block).values()))


def gate(node: Node) -> None:
    """Gate one half with the looked-up function of the other; GEGLU is 0 where x <= -10, whatever it gates."""
    x, y = halves(node)
    kind = node.kind
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            result = LOOKED_UP[kind](x[block]) * y[block]
            # again here: 0 times an infinite y is NaN, and ggml_vec_geglu_f32 writes 0 without multiplying
            part(node.dst, block).store(np.where(x[block] <= -10, np.float32(0), result) if kind == "GEGLU" else result)


# ----------------------------------------------------------------------------------------------------------- attention


def attend(node: Node, threads: int, half: Half) -> None:
    """Attend the way that upstream takes for these shapes and types."""
    q, k, v = node.source(0), node.source(1), node.source(2)
    alike = k.dtype == v.dtype and k.dtype.name in ("F32", "F16") and q.dtype.name == "F32"
    # use_tiled in ops.cpp
    if alike and q.ne[1] >= TILE and v.ne[0] % VECTOR == 0:
        return node.op.oracle(node)
    if k.dtype.name in WITH_MINIMA:
        narrow = _with_minima(node)
    else:
        narrow = with_source(node, 0, rounded(q, VEC_DOT_TYPE[k.dtype.name]))
    if v.dtype.name != "F16" or k.ne[1] == 0:
        return node.op.oracle(narrow)
    # use_split_kv_path in ops.cpp
    splits = threads if alike and q.ne[1] == q.ne[3] == 1 and k.ne[1] >= SPLIT else 1
    return _attend_in_f16(narrow, splits, half)


def _attend_in_f16(node: Node, splits: int, half: Half) -> None:
    """Attend with the running sum in F16, as many heads and queries at a time as what each needs beside its scores fits a slab."""
    q, k, v = (node.source(slot).values() for slot in range(3))
    # float64 products of F16: those of one key (`Native.dots`) and those of its value
    each = 8 * (4 * STEP + 8 * v.shape[3])
    with np.errstate(all="ignore"):
        for i3 in range(q.shape[0]):
            k3, v3 = (tensor[i3 * len(tensor) // len(q)] for tensor in (k, v))
            for heads in head_spans(q.shape[1], len(k3), len(v3), rows_per_slab(each)):
                keys, values = (_shared(tensor, heads, q.shape[1]) for tensor in (k3, v3))
                for rows in spans(q.shape[2], rows_per_slab(each * (heads.stop - heads.start))):
                    bias = mask_of(node, i3, rows, heads)
                    attended = _attended(node, q[i3, heads, rows], keys, values, bias, heads, splits, half)
                    node.dst.array[i3, rows, heads] = attended.swapaxes(0, 1)


def head_spans(heads: int, k: int, v: int, most: int) -> Iterator[slice]:
    """Yield spans of at most `most` heads whose keys and values are whole numbers of matrices each, or are one matrix each.

    Args:
        heads: how many there are.
        k: matrices of keys that they share, a divisor of it.
        v: matrices of values, likewise.
        most: heads of a span.
    """
    whole, alike = lcm(heads // k, heads // v), gcd(heads // k, heads // v)
    if most >= whole:
        yield from spans(heads, most // whole * whole)
        return
    for first in range(0, heads, alike):
        yield from (slice(first + span.start, first + span.stop) for span in spans(alike, most))


def _shared(matrices: F32Array, span: slice, heads: int) -> F32Array:
    """Return the matrices of K or V, of one batch entry, that a span of the heads shares."""
    return matrices[span.start * len(matrices) // heads : -(-span.stop * len(matrices) // heads)]


def _attended(
    node: Node, q: F32Array, k: F32Array, v: F32Array, bias: F32Array | None, heads: slice, splits: int, half: Half
) -> Array:
    """Return (heads, queries, dv) of a span of the heads, the keys summed in `splits` parts that are joined at the end."""
    keys = k.shape[1]
    # chunk_size is rounded up, so the last threads may have no keys; upstream skips their empty sums (S_chunk == 0)
    length = -(-keys // splits)
    sums = [_summed(node, q, k, v, bias, range(at, min(at + length, keys)), half) for at in range(0, keys, length)]
    if (sinks := node.optional(4)) is not None:
        # only once: "apply only on the first kv-chunk" in flash_attn_ext_f16_one_chunk
        sums[0] = joined(sums[0], (sinks.array[0, 0, 0, heads, None], *_SINK))
    _, total, weighted = reduce(joined, sums)
    return weighted * np.where(total == 0, np.float32(0), np.float32(1) / total)[..., None]


def _summed(node: Node, q: F32Array, k: F32Array, v: F32Array, bias: F32Array | None, keys: range, half: Half) -> Sum:
    """Return the sums over some keys, a slab of scores and what is made of them at a time.

    Neighbouring heads share a matrix of keys and one of values, so their queries are folded into one list for each.
    """
    heads, queries, dk = q.shape
    is_f16 = node.source(1).dtype.name == "F16"
    sums = None
    for span in spans(len(keys), rows_per_slab(SCORE_BYTES * heads * queries)):
        part = slice(keys.start + span.start, keys.start + span.stop)
        shape = (heads, queries, part.stop - part.start)
        dots = half.dots(q.reshape(len(k), -1, dk), k[:, part]).reshape(shape) if is_f16 else None
        added = None if bias is None else bias[..., part]
        hidden = np.broadcast_to(False if added is None else np.isneginf(added), shape).reshape(len(v), -1, shape[2])
        scores = masked_scores(node, q, k[:, part], added, dots).reshape(len(v), -1, shape[2])
        sums = running_sum(scores, hidden, v[:, part], half, sums)
    assert sums is not None
    return unfolded(sums, heads)


def unfolded(sums: Sum, heads: int) -> Sum:
    """Return sums of queries that were listed by shared matrix, by head."""
    top, total, weighted = sums
    return top.reshape(heads, -1), total.reshape(heads, -1), weighted.reshape(heads, -1, weighted.shape[-1])


Sum = tuple[Array, Array, Array]
"""Largest score (heads, queries), sum of weights (heads, queries), weighted sum of values (heads, queries, dv)."""


_SINK = (np.ones((1, 1), np.float32), np.zeros((1, 1, 1), np.float32))
"""A sink's sum of weights, and its weighted sum."""


def running_sum(scores: F32Array, hidden: Array, values: F32Array, half: Half, so_far: Sum | None = None) -> Sum:
    """Return the sums over the keys in their order, the weighted one rounded to F16 at each step.

    Args:
        scores: (heads, queries, keys).
        hidden: of that shape: whether a key takes no part.
        values: (heads, keys, dv), of F16 precision.
        half: how F16 is computed with.
        so_far: the sums over the keys before these; None: these are the first.
    """
    if so_far is None:
        rows = scores.shape[:2]
        so_far = np.full(rows, -np.inf, np.float32), np.zeros(rows, np.float32), np.zeros((*rows, values.shape[-1]), np.float32)
    best, total, weighted = so_far
    top = np.maximum.accumulate(np.concatenate((best[..., None], scores), axis=-1), axis=-1)
    before, top = top[..., :-1], top[..., 1:]
    is_new = scores > before
    # before a row's first visible key before and top are both -inf, and exp(-inf + inf) is NaN: np.where drops it
    kept = np.where(is_new, np.exp(before - top), np.float32(1))
    weights = np.where(is_new, np.float32(1), np.where(hidden, np.float32(0), np.exp(scores - top)))
    # one key at a time: the sum is rounded at each, so their order is part of the result
    for key in np.flatnonzero(~hidden.all(axis=(0, 1))):
        checkpoint()  # of a few bytes' graph there may be millions
        weight, keep = weights[..., key], kept[..., key]
        if is_new[..., key].any():
            # rows without a new maximum are multiplied by 1, which changes no F16
            weighted = half.scale(weighted, keep[..., None])
        added = half.add_scaled(weighted, values[:, None, key], weight[..., None])
        # a hidden key is skipped, not added with weight 0: 0 times an infinite value would be NaN (flash_attn_ext_f16_one_chunk)
        weighted = np.where(hidden[..., key, None], weighted, added) if hidden[..., key].any() else added
        total = total * keep + weight
    return top[..., -1], total, weighted


def joined(one: Sum, other: Sum) -> Sum:
    """Return the sums over the keys of both."""
    top = np.maximum(one[0], other[0])
    # a part that saw no key has -inf here, and -inf - -inf would be NaN
    scales = [np.where(np.isneginf(part[0]), np.float32(0), np.exp(part[0] - top)) for part in (one, other)]
    total = one[1] * scales[0] + other[1] * scales[1]
    return top, total, one[2] * scales[0][..., None] + other[2] * scales[1][..., None]
