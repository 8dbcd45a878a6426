"""The named methods of `Graph`: one per operation, and one per kind of UNARY and GLU.

Written by `ggml-rpc-ref gen` from the rows in `ops` and `client.parameters`; change those instead. Sources may be arrays,
which are sent; a parameter that is an enum also takes ggml's names of its values; `name` is for the server's logs. SPEC.md has the
formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ggml_rpc_ref.client.tensors import RemoteTensor

Operand = RemoteTensor | npt.ArrayLike
"""A tensor, or what numpy makes an array of."""


class NamedOps(ABC):
    """What a graph builder can add by name."""

    @abstractmethod
    def op(self, op: str, src: Sequence[Any], *, params: Any = None, ne: Any = None, name: str = "") -> RemoteTensor:
        """Add a node of any op."""

    def abs(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind ABS; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "ABS"}, name=name)

    def acc(
        self,
        a: Operand,
        b: Operand,
        nb1: int,
        nb2: int,
        nb3: int,
        offset: int,
        inplace: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """ACC: src1 added to a region of src0.

        Args:
            a: contiguous.
            b: the region's ne.
            nb1: bytes between rows of the region.
            nb2: bytes between its matrices.
            nb3: bytes between its stacks of matrices.
            offset: byte at which it begins.
            inplace: not 0: dst is src0's memory already; 0: src0 is copied to dst first.
        """
        return self.op("ACC", [a, b], params={"nb1": nb1, "nb2": nb2, "nb3": nb3, "offset": offset, "inplace": inplace}, name=name)

    def add(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """ADD: the sum of two tensors, element by element, with the second one broadcast.

        Args:
            a: ne of the result.
            b: each dimension divides a's; a's ne where a is of a block type.
        """
        return self.op("ADD", [a, b], name=name)

    def add1(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """ADD1: a number added to every element.

        Args:
            a: dense rows.
            b: one element.
        """
        return self.op("ADD1", [a, b], name=name)

    def add_id(self, a: Operand, b: Operand, ids: Operand, name: str = "") -> RemoteTensor:
        """ADD_ID: add to each row of a tensor the row of another tensor that an index picks.

        Args:
            a: ne = (n, m, t, r3).
            b: ne = (n, rows).
            ids: ne = (m, t, ..), each below rows.
        """
        return self.op("ADD_ID", [a, b, ids], name=name)

    def add_rel_pos(self, scores: Operand, columns: Operand, rows: Operand, inplace: int = 0, name: str = "") -> RemoteTensor:
        """ADD_REL_POS: add a term per key row and a term per key column to attention scores over an image.

        Args:
            scores: ne = (n*n, a*b, heads, ..).
            columns: ne = (n, a, b, heads).
            rows: ne = (n, a, b, heads).
            inplace: 0: scores are read from src0; else from dst.
        """
        return self.op("ADD_REL_POS", [scores, columns, rows], params={"inplace": inplace}, name=name)

    def arange(self, start: float, stop: float, step: float, name: str = "") -> RemoteTensor:
        """ARANGE: evenly spaced numbers.

        Args:
            start: the first.
            stop: beyond the last.
            step: distance.
        """
        return self.op("ARANGE", [], params={"start": start, "stop": stop, "step": step}, name=name)

    def argmax(self, x: Operand, name: str = "") -> RemoteTensor:
        """ARGMAX: the index of the largest element of each row.

        Args:
            x: ne = (n, rows).
        """
        return self.op("ARGMAX", [x], name=name)

    def argsort(self, x: Operand, order: int | str, name: str = "") -> RemoteTensor:
        """ARGSORT: the order of each row's elements.

        Args:
            x: any ne.
            order: ggml_sort_order: 0 rising, 1 falling ('asc', 'desc').
        """
        return self.op("ARGSORT", [x], params={"order": order}, name=name)

    def ceil(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind CEIL; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "CEIL"}, name=name)

    def clamp(self, x: Operand, min: float, max: float, name: str = "") -> RemoteTensor:
        """CLAMP: each element limited to the range between two bounds.

        Args:
            x: dense, evenly spaced rows.
            min: lower bound, which wins.
            max: upper bound.
        """
        return self.op("CLAMP", [x], params={"min": min, "max": max}, name=name)

    def col2im_1d(self, columns: Operand, s0: int, oc: int, p0: int, name: str = "") -> RemoteTensor:
        """COL2IM_1D: columns added up to a signal, the second half of a transposed convolution; it undoes IM2COL as …

        Args:
            columns: ne = (K*OC, L).
            s0: distance of the columns' signals, at least 1.
            oc: OC, channels of the signal.
            p0: elements cut off at both ends.
        """
        return self.op("COL2IM_1D", [columns], params={"s0": s0, "oc": oc, "p0": p0}, name=name)

    def concat(self, a: Operand, b: Operand, dim: int, name: str = "") -> RemoteTensor:
        """CONCAT: two tensors joined along a dimension.

        Args:
            a: any strides.
            b: a's type, and ne but for dim.
            dim: along which dimension, 0 to 3.
        """
        return self.op("CONCAT", [a, b], params={"dim": dim}, name=name)

    def cont(self, x: Operand, name: str = "") -> RemoteTensor:
        """CONT: the elements of a tensor without gaps, in order, with the same or other dimensions.

        Args:
            x: any strides.
        """
        return self.op("CONT", [x], name=name)

    def conv_2d(
        self,
        kernel: Operand,
        images: Operand,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        name: str = "",
    ) -> RemoteTensor:
        """CONV_2D: convolution of images with a bank of kernels, computed where IM2COL and MUL_MAT would have been two steps.

        Args:
            kernel: ne = (KW, KH, IC, OC).
            images: ne = (IW, IH, IC, N).
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
        """
        return self.op("CONV_2D", [kernel, images], params={"s0": s0, "s1": s1, "p0": p0, "p1": p1, "d0": d0, "d1": d1}, name=name)

    def conv_2d_dw(
        self,
        kernel: Operand,
        images: Operand,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        name: str = "",
    ) -> RemoteTensor:
        """CONV_2D_DW: depthwise convolution: every channel of an image with a kernel of its own.

        Args:
            kernel: ne = (KW, KH, 1, C).
            images: ne = (IW, IH, C, N).
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
        """
        return self.op(
            "CONV_2D_DW",
            [kernel, images],
            params={"s0": s0, "s1": s1, "p0": p0, "p1": p1, "d0": d0, "d1": d1},
            name=name,
        )

    def conv_3d(
        self,
        kernel: Operand,
        volumes: Operand,
        s0: int,
        s1: int,
        s2: int,
        p0: int,
        p1: int,
        p2: int,
        d0: int,
        d1: int,
        d2: int,
        c: int,
        n: int,
        oc: int,
        name: str = "",
    ) -> RemoteTensor:
        """CONV_3D: convolution of volumes with a bank of kernels.

        Args:
            kernel: ne = (KW, KH, KD, IC*OC).
            volumes: ne = (IW, IH, ID, IC*N).
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            s2: stride, at least 1, along the depth.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            p2: padding on either side along the depth.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
            d2: dilation (distance of neighbouring taps) along the depth.
            c: channels of a volume, IC.
            n: volumes, N.
            oc: outputs, OC.
        """
        return self.op(
            "CONV_3D",
            [kernel, volumes],
            params={
                "s0": s0,
                "s1": s1,
                "s2": s2,
                "p0": p0,
                "p1": p1,
                "p2": p2,
                "d0": d0,
                "d1": d1,
                "d2": d2,
                "c": c,
                "n": n,
                "oc": oc,
            },
            name=name,
        )

    def conv_transpose_1d(self, kernel: Operand, x: Operand, s0: int, p0: int = 0, d0: int = 1, name: str = "") -> RemoteTensor:
        """CONV_TRANSPOSE_1D: every input element adds a scaled copy of the kernel to the output, s0 elements after the …

        Args:
            kernel: ne = (K, Cout, Cin).
            x: ne = (L, Cin).
            s0: stride, at least 1.
            p0: padding, 0.
            d0: dilation, 1.
        """
        return self.op("CONV_TRANSPOSE_1D", [kernel, x], params={"s0": s0, "p0": p0, "d0": d0}, name=name)

    def conv_transpose_2d(self, kernel: Operand, images: Operand, stride: int, name: str = "") -> RemoteTensor:
        """CONV_TRANSPOSE_2D: every pixel adds a scaled copy of the kernel to the output, `stride` pixels after its …

        Args:
            kernel: ne = (KW, KH, Cout, Cin).
            images: ne = (W, H, Cin, N).
            stride: of both axes, at least 1.
        """
        return self.op("CONV_TRANSPOSE_2D", [kernel, images], params={"stride": stride}, name=name)

    def cos(self, x: Operand, name: str = "") -> RemoteTensor:
        """COS: the cosine of each element, in radians.

        Args:
            x: dense rows.
        """
        return self.op("COS", [x], name=name)

    def count_equal(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """COUNT_EQUAL: the number of places at which two tensors are equal.

        Args:
            a: any ne.
            b: a's ne.
        """
        return self.op("COUNT_EQUAL", [a, b], name=name)

    def cpy(self, x: Operand, into: Operand, name: str = "") -> RemoteTensor:
        """CPY: a copy of one tensor into another, which keeps its own type and strides.

        Args:
            x: any strides.
            into: what dst is a view of: its type, ne and nb.
        """
        return self.op("CPY", [x, into], name=name)

    def cross_entropy_loss(self, logits: Operand, labels: Operand, name: str = "") -> RemoteTensor:
        """CROSS_ENTROPY_LOSS: the cross entropy of logits and a distribution, averaged over all rows.

        Args:
            logits: any ne.
            labels: the logits' ne, each row a distribution.
        """
        return self.op("CROSS_ENTROPY_LOSS", [logits, labels], name=name)

    def cross_entropy_loss_back(self, grad: Operand, logits: Operand, labels: Operand, name: str = "") -> RemoteTensor:
        """CROSS_ENTROPY_LOSS_BACK: the gradient of CROSS_ENTROPY_LOSS with respect to its logits.

        Args:
            grad: one element, the gradient of the loss.
            logits: any ne.
            labels: the logits' ne, each row a distribution.
        """
        return self.op("CROSS_ENTROPY_LOSS_BACK", [grad, logits, labels], name=name)

    def cumsum(self, x: Operand, name: str = "") -> RemoteTensor:
        """CUMSUM: running sums along each row.

        Args:
            x: any ne.
        """
        return self.op("CUMSUM", [x], name=name)

    def diag(self, row: Operand, name: str = "") -> RemoteTensor:
        """DIAG: a square matrix with a row on its diagonal.

        Args:
            row: ne = (n, 1, b2, b3).
        """
        return self.op("DIAG", [row], name=name)

    def diag_mask_inf(self, x: Operand, n_past: int, name: str = "") -> RemoteTensor:
        """DIAG_MASK_INF: replace the elements right of a diagonal by -infinity.

        Args:
            x: any ne.
            n_past: columns of the first row, beyond the first column, that are kept; at least 0.
        """
        return self.op("DIAG_MASK_INF", [x], params={"n_past": n_past}, name=name)

    def diag_mask_zero(self, x: Operand, n_past: int, name: str = "") -> RemoteTensor:
        """DIAG_MASK_ZERO: replace the elements right of a diagonal by 0.

        Args:
            x: any ne.
            n_past: columns of the first row, beyond the first column, that are kept; at least 0.
        """
        return self.op("DIAG_MASK_ZERO", [x], params={"n_past": n_past}, name=name)

    def div(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """DIV: the quotient of two tensors, element by element, with the second one broadcast.

        Args:
            a: ne of the result.
            b: each dimension divides a's.
        """
        return self.op("DIV", [a, b], name=name)

    def dsv4_hc_comb(self, mixes: Operand, scale: Operand, base: Operand, eps: float, n_iter: int, name: str = "") -> RemoteTensor:
        """DSV4_HC_COMB: matrices by which DeepSeek V4's hyper-connections mix four streams, made nearly doubly stochastic.

        Args:
            mixes: ne = (24, T), of which the last 16 are read.
            scale: at least three numbers, of which the third is read.
            base: ne = (24), of which the last 16 are read.
            eps: added to every entry after the softmax, and to every sum.
            n_iter: how many times the sums over src are divided by, at least 1.
        """
        return self.op("DSV4_HC_COMB", [mixes, scale, base], params={"eps": eps, "n_iter": n_iter}, name=name)

    def dsv4_hc_post(
        self,
        x: Operand,
        residual: Operand,
        post: Operand,
        comb: Operand | None = None,
        *,
        name: str = "",
    ) -> RemoteTensor:
        """DSV4_HC_POST: a layer's output put back into the streams of DeepSeek V4's hyper-connections, which are mixed with …

        Args:
            x: ne = (n, T).
            residual: ne = (n, streams, T).
            post: ne = (streams, T).
            comb: ne = (streams, streams, T).
        """
        return self.op("DSV4_HC_POST", [x, residual, post, comb], name=name)

    def dsv4_hc_pre(self, x: Operand, weights: Operand, scale: float = 1.0, gated: int = 0, name: str = "") -> RemoteTensor:
        """DSV4_HC_PRE: the streams of DeepSeek V4's hyper-connections joined to one, each with its weight.

        Args:
            x: ne = (n, streams, T).
            weights: ne = (streams, T).
            scale: factor of the sum.
            gated: not 0: src1 has a gate for each element.
        """
        return self.op("DSV4_HC_PRE", [x, weights], params={"scale": scale, "gated": gated}, name=name)

    def dup(self, x: Operand, name: str = "") -> RemoteTensor:
        """DUP: a copy of a tensor.

        Args:
            x: any strides.
        """
        return self.op("DUP", [x], name=name)

    def elu(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind ELU; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "ELU"}, name=name)

    def exp(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind EXP; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "EXP"}, name=name)

    def expm1(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind EXPM1; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "EXPM1"}, name=name)

    def fill(self, like: Operand | None = None, *, c: float, name: str = "") -> RemoteTensor:
        """FILL: every element the same number.

        Args:
            like: of the result's ne, not read.
            c: the number.
        """
        return self.op("FILL", [like], params={"c": c}, name=name)

    def flash_attn_back(self, q: Operand, k: Operand, v: Operand, grad: Operand, masked: int, name: str = "") -> RemoteTensor:
        """FLASH_ATTN_BACK: the gradients of attention with respect to Q, K and V, packed into one row.

        Args:
            q: ne = (d, queries, heads, batch).
            k: ne = (d, keys, heads / r, batch).
            v: ne = (keys, d, heads / r, batch).
            grad: ne = (d, queries, heads, batch), the gradient of the result.
            masked: 1: a query sees no keys that come after it.
        """
        return self.op("FLASH_ATTN_BACK", [q, k, v, grad], params={"masked": masked}, name=name)

    def flash_attn_ext(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        mask: Operand | None = None,
        sinks: Operand | None = None,
        *,
        scale: float,
        max_bias: float = 0.0,
        logit_softcap: float = 0.0,
        prec: int | str = 0,
        name: str = "",
    ) -> RemoteTensor:
        """FLASH_ATTN_EXT: attention in one step, softmax(scale * Q K^T + mask) V for each head.

        Args:
            q: ne = (dk, queries, heads, batch).
            k: ne = (dk, keys, heads / a, batch / b).
            v: ne = (dv, at least keys, heads / c, batch / d).
            mask: ne = (at least keys, at least queries, m2, m3), added to the scores.
            sinks: ne = (heads), one more exponent in each query's sum.
            scale: factor on the scores.
            max_bias: ALiBi's steepest exponent; 0: no slopes.
            logit_softcap: bound that scores approach; 0: none.
            prec: ggml_prec: 0 default, 10 F32 ('default', 'f32').
        """
        return self.op(
            "FLASH_ATTN_EXT",
            [q, k, v, mask, sinks],
            params={"scale": scale, "max_bias": max_bias, "logit_softcap": logit_softcap, "prec": prec},
            name=name,
        )

    def floor(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind FLOOR; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "FLOOR"}, name=name)

    def gated_delta_net(
        self,
        q: Operand,
        k: Operand,
        v: Operand,
        g: Operand,
        beta: Operand,
        state: Operand,
        snapshots: int = 1,
        name: str = "",
    ) -> RemoteTensor:
        """GATED_DELTA_NET: linear attention by the delta rule: the state decays and is corrected by its prediction error.

        Args:
            q: ne = (S, Hq, T, Bq).
            k: ne = (S, Hk, T, Bk).
            v: ne = (S, H, T, B).
            g: ne = (1 or S, H, T, B), its exponential multiplies the state.
            beta: ne = (1, H, T, B).
            state: S*S*H*B elements.
            snapshots: K: after how many of the last tokens the states are kept, at least 1.
        """
        return self.op("GATED_DELTA_NET", [q, k, v, g, beta, state], params={"snapshots": snapshots}, name=name)

    def gated_linear_attn(
        self,
        k: Operand,
        v: Operand,
        q: Operand,
        g: Operand,
        state: Operand,
        scale: float,
        name: str = "",
    ) -> RemoteTensor:
        """GATED_LINEAR_ATTN: linear attention with a gate per key: a state per head that decays and accumulates key times …

        Args:
            k: ne = (S, H, T, ..).
            v: ne = (S, H, T, ..).
            q: ne = (S, H, T, ..).
            g: ne = (S, H, T, ..).
            state: S*S*H*n_seqs elements, ne[1] = n_seqs.
            scale: multiplies q.
        """
        return self.op("GATED_LINEAR_ATTN", [k, v, q, g, state], params={"scale": scale}, name=name)

    def geglu(self, x: Operand, y: Operand | None = None, *, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind GEGLU; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
        """
        return self.op("GLU", [x, y], params={"kind": "GEGLU", "swapped": swapped}, name=name)

    def geglu_erf(self, x: Operand, y: Operand | None = None, *, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind GEGLU_ERF; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
        """
        return self.op("GLU", [x, y], params={"kind": "GEGLU_ERF", "swapped": swapped}, name=name)

    def geglu_quick(self, x: Operand, y: Operand | None = None, *, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind GEGLU_QUICK; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
        """
        return self.op("GLU", [x, y], params={"kind": "GEGLU_QUICK", "swapped": swapped}, name=name)

    def gelu(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind GELU; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "GELU"}, name=name)

    def gelu_erf(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind GELU_ERF; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "GELU_ERF"}, name=name)

    def gelu_quick(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind GELU_QUICK; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "GELU_QUICK"}, name=name)

    def get_rel_pos(self, embeddings: Operand, name: str = "") -> RemoteTensor:
        """GET_REL_POS: pick, for every pair of query and key position, the embedding of their distance.

        Args:
            embeddings: ne = (C, 2n - 1).
        """
        return self.op("GET_REL_POS", [embeddings], name=name)

    def get_rows(self, table: Operand, indices: Operand, name: str = "") -> RemoteTensor:
        """GET_ROWS: rows of a tensor, picked by index, as F32.

        Args:
            table: ne = (n, rows, r2, r3).
            indices: ne = (m, r2, r3, 1), each below rows.
        """
        return self.op("GET_ROWS", [table, indices], name=name)

    def get_rows_back(self, grad: Operand, indices: Operand, *, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """GET_ROWS_BACK: the gradient of GET_ROWS: rows added up where they came from.

        Args:
            grad: ne = (n, m).
            indices: ne = (at most m), each below rows of dst.
            ne: dimensions of the result, in ggml's order.
        """
        return self.op("GET_ROWS_BACK", [grad, indices], ne=ne, name=name)

    def group_norm(self, x: Operand, n_groups: int, eps: float = 1e-06, name: str = "") -> RemoteTensor:
        """GROUP_NORM: groups of channels shifted to mean 0 and scaled to variance 1.

        Args:
            x: ne = (w, h, channels, batch).
            n_groups: how many groups, at least 1.
            eps: added to the variance.
        """
        return self.op("GROUP_NORM", [x], params={"n_groups": n_groups, "eps": eps}, name=name)

    def hardsigmoid(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind HARDSIGMOID; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "HARDSIGMOID"}, name=name)

    def hardswish(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind HARDSWISH; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "HARDSWISH"}, name=name)

    def im2col(
        self,
        kernel: Operand,
        image: Operand,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        is_2d: int,
        name: str = "",
    ) -> RemoteTensor:
        """IM2COL: lay the window of every output of a convolution out as a row, so that the convolution becomes a matrix …

        Args:
            kernel: ne = (KW, KH, IC, OC), or (KW, IC, OC); only its dimensions count.
            image: ne = (IW, IH, IC, N), or (IW, IC, N).
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
            is_2d: 1: two dimensions; else one.
        """
        return self.op(
            "IM2COL",
            [kernel, image],
            params={"s0": s0, "s1": s1, "p0": p0, "p1": p1, "d0": d0, "d1": d1, "is_2D": is_2d},
            name=name,
        )

    def im2col_3d(
        self,
        kernel: Operand,
        volumes: Operand,
        s0: int,
        s1: int,
        s2: int,
        p0: int,
        p1: int,
        p2: int,
        d0: int,
        d1: int,
        d2: int,
        ic: int,
        name: str = "",
    ) -> RemoteTensor:
        """IM2COL_3D: lay the window of every output of a volume's convolution out as a row.

        Args:
            kernel: ne = (KW, KH, KD, OC*IC); only its dimensions count.
            volumes: ne = (IW, IH, ID, N*IC).
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            s2: stride, at least 1, along the depth.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            p2: padding on either side along the depth.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
            d2: dilation (distance of neighbouring taps) along the depth.
            ic: channels of a volume.
        """
        return self.op(
            "IM2COL_3D",
            [kernel, volumes],
            params={"s0": s0, "s1": s1, "s2": s2, "p0": p0, "p1": p1, "p2": p2, "d0": d0, "d1": d1, "d2": d2, "IC": ic},
            name=name,
        )

    def im2col_back(
        self,
        gradient: Operand,
        kernel: Operand,
        *,
        ne: Sequence[int],
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        d0: int,
        d1: int,
        is_2d: int,
        name: str = "",
    ) -> RemoteTensor:
        """IM2COL_BACK: the gradient of an image from the gradient of its IM2COL: every pixel sums the gradients of its copies.

        Args:
            gradient: ne = (IC*KH*KW, OW, OH, N), or (IC*KW, OW, N).
            kernel: ne = (KW, KH, ..), or (KW, ..); only its dimensions count.
            ne: dimensions of the result, in ggml's order.
            s0: stride, at least 1, along the width.
            s1: stride, at least 1, along the height.
            p0: padding on either side along the width.
            p1: padding on either side along the height.
            d0: dilation (distance of neighbouring taps) along the width.
            d1: dilation (distance of neighbouring taps) along the height.
            is_2d: 1: two dimensions; else one.
        """
        return self.op(
            "IM2COL_BACK",
            [gradient, kernel],
            params={"s0": s0, "s1": s1, "p0": p0, "p1": p1, "d0": d0, "d1": d1, "is_2D": is_2d},
            ne=ne,
            name=name,
        )

    def l2_norm(self, x: Operand, eps: float = 1e-06, name: str = "") -> RemoteTensor:
        """L2_NORM: each row divided by its length.

        Args:
            x: dense rows.
            eps: the least length, at least 0.
        """
        return self.op("L2_NORM", [x], params={"eps": eps}, name=name)

    def leaky_relu(self, x: Operand, negative_slope: float, name: str = "") -> RemoteTensor:
        """LEAKY_RELU: negative elements made smaller.

        Args:
            x: dense, evenly spaced rows.
            negative_slope: factor of negative elements.
        """
        return self.op("LEAKY_RELU", [x], params={"negative_slope": negative_slope}, name=name)

    def lightning_indexer(self, q: Operand, k: Operand, weights: Operand, mask: Operand, name: str = "") -> RemoteTensor:
        """LIGHTNING_INDEXER: scores by which DeepSeek's sparse attention picks keys: weighted, rectified products of all …

        Args:
            q: ne = (n, heads, tokens, streams).
            k: ne = (n, 1, keys, streams).
            weights: ne = (heads, tokens, 1, streams).
            mask: ne = (keys, tokens, 1, m), m divides streams.
        """
        return self.op("LIGHTNING_INDEXER", [q, k, weights, mask], name=name)

    def log(self, x: Operand, name: str = "") -> RemoteTensor:
        """LOG: the natural logarithm of each element.

        Args:
            x: dense rows.
        """
        return self.op("LOG", [x], name=name)

    def mean(self, x: Operand, name: str = "") -> RemoteTensor:
        """MEAN: the mean of each row.

        Args:
            x: any ne.
        """
        return self.op("MEAN", [x], name=name)

    def mul(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """MUL: the product of two tensors, element by element, with the second one broadcast.

        Args:
            a: ne of the result.
            b: each dimension divides a's.
        """
        return self.op("MUL", [a, b], name=name)

    def mul_mat(self, a: Operand, b: Operand, prec: int | str = 0, hint: int = 0, name: str = "") -> RemoteTensor:
        """MUL_MAT: multiply matrices, each row of src1 with each row of src0.

        Args:
            a: ne = (k, m, b2, b3), the weights.
            b: ne = (k, n, r2*b2, r3*b3), F32 or the partner type of a's.
            prec: ggml_prec, a hint for accelerators: 0 default, 10 F32; not read ('default', 'f32').
            hint: 1: src0 is known to be a Hadamard matrix, see MUL_MAT.hint; else 0.
        """
        return self.op("MUL_MAT", [a, b], params={"prec": prec, "hint": hint}, name=name)

    def mul_mat_id(self, as_: Operand, b: Operand, ids: Operand, name: str = "") -> RemoteTensor:
        """MUL_MAT_ID: multiply each row of src1 with the matrix of the expert that is chosen for it.

        Args:
            as_: ne = (k, m, experts), the experts' weights.
            b: ne = (k, n, tokens), F32 or the partner type of as.
            ids: ne = (used, tokens), the expert of each row.
        """
        return self.op("MUL_MAT_ID", [as_, b, ids], name=name)

    def neg(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind NEG; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "NEG"}, name=name)

    def norm(self, x: Operand, eps: float = 1e-06, name: str = "") -> RemoteTensor:
        """NORM: each row shifted to mean 0 and scaled to variance 1.

        Args:
            x: dense rows.
            eps: added to the variance, at least 0.
        """
        return self.op("NORM", [x], params={"eps": eps}, name=name)

    def opt_step_adamw(self, w: Operand, g: Operand, m: Operand, v: Operand, settings: Operand, name: str = "") -> RemoteTensor:
        """OPT_STEP_ADAMW: one step of the AdamW optimiser: update a weight and both of its momenta.

        Args:
            w: the weight, written.
            g: its gradient.
            m: its first momentum, written.
            v: its second momentum, written.
            settings: alpha, beta1, beta2, eps, wd, beta1h, beta2h.
        """
        return self.op("OPT_STEP_ADAMW", [w, g, m, v, settings], name=name)

    def opt_step_sgd(self, w: Operand, g: Operand, settings: Operand, name: str = "") -> RemoteTensor:
        """OPT_STEP_SGD: one step of stochastic gradient descent: update a weight.

        Args:
            w: the weight, written.
            g: its gradient.
            settings: alpha, wd.
        """
        return self.op("OPT_STEP_SGD", [w, g, settings], name=name)

    def out_prod(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """OUT_PROD: multiply matrices column by column, the gradient of MUL_MAT with respect to its weights.

        Args:
            a: ne = (m, k, b2, b3).
            b: ne = (n, k, r2*b2, r3*b3), any strides.
        """
        return self.op("OUT_PROD", [a, b], name=name)

    def pad(self, x: Operand, padding: Sequence[int], circular: int = 0, name: str = "") -> RemoteTensor:
        """PAD: put a border around a tensor: zeros, or (circular) repetitions of the tensor.

        Args:
            x: ne = any.
            padding: elements before and after, dimension by dimension: lp0, rp0, lp1, rp1 ….
            circular: 0: zeros; else the tensor repeats.
        """
        return self.op("PAD", [x], params={"padding": padding, "circular": circular}, name=name)

    def pad_reflect_1d(self, x: Operand, p0: int, p1: int, name: str = "") -> RemoteTensor:
        """PAD_REFLECT_1D: pad each row on both sides with its mirror image; the outermost element is not repeated.

        Args:
            x: ne = (ne0, r1, r2, r3).
            p0: elements before, below ne0.
            p1: elements after, below ne0.
        """
        return self.op("PAD_REFLECT_1D", [x], params={"p0": p0, "p1": p1}, name=name)

    def pool_1d(self, x: Operand, op: int | str, k0: int, s0: int, p0: int, name: str = "") -> RemoteTensor:
        """POOL_1D: the largest or the mean of the elements under a window that slides over each row.

        Args:
            x: ne = (W, r1, r2, r3).
            op: 0 max, 1 mean ('max', 'avg').
            k0: window length.
            s0: stride.
            p0: padding on either side.
        """
        return self.op("POOL_1D", [x], params={"op": op, "k0": k0, "s0": s0, "p0": p0}, name=name)

    def pool_2d(
        self,
        x: Operand,
        op: int | str,
        k0: int,
        k1: int,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        name: str = "",
    ) -> RemoteTensor:
        """POOL_2D: the largest or the mean of the elements under a window that slides over each plane.

        Args:
            x: ne = (W, H, C, N).
            op: 0 max, 1 mean ('max', 'avg').
            k0: window width.
            k1: window height.
            s0: stride along the width.
            s1: stride along the height.
            p0: padding left and right.
            p1: padding above and below.
        """
        return self.op("POOL_2D", [x], params={"op": op, "k0": k0, "k1": k1, "s0": s0, "s1": s1, "p0": p0, "p1": p1}, name=name)

    def pool_2d_back(
        self,
        gradient: Operand,
        forward: Operand,
        op: int | str,
        k0: int,
        k1: int,
        s0: int,
        s1: int,
        p0: int,
        p1: int,
        name: str = "",
    ) -> RemoteTensor:
        """POOL_2D_BACK: the gradient of POOL_2D's source from the gradient of its result.

        Args:
            gradient: ne = (OW, OH, C, N).
            forward: ne = (W, H, C, N), the source of POOL_2D.
            op: 0 max, 1 mean ('max', 'avg').
            k0: window width.
            k1: window height.
            s0: stride along the width.
            s1: stride along the height.
            p0: padding left and right.
            p1: padding above and below.
        """
        return self.op(
            "POOL_2D_BACK",
            [gradient, forward],
            params={"op": op, "k0": k0, "k1": k1, "s0": s0, "s1": s1, "p0": p0, "p1": p1},
            name=name,
        )

    def reglu(self, x: Operand, y: Operand | None = None, *, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind REGLU; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
        """
        return self.op("GLU", [x, y], params={"kind": "REGLU", "swapped": swapped}, name=name)

    def relu(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind RELU; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "RELU"}, name=name)

    def repeat(self, x: Operand, *, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """REPEAT: copies of a tensor, side by side, until they fill a larger one.

        Args:
            x: each dimension divides the result's.
            ne: dimensions of the result, in ggml's order.
        """
        return self.op("REPEAT", [x], ne=ne, name=name)

    def repeat_back(self, grad: Operand, *, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """REPEAT_BACK: the gradient of REPEAT: all the copies added up.

        Args:
            grad: each dimension a multiple of the result's.
            ne: dimensions of the result, in ggml's order.
        """
        return self.op("REPEAT_BACK", [grad], ne=ne, name=name)

    def rms_norm(self, x: Operand, eps: float = 1e-06, name: str = "") -> RemoteTensor:
        """RMS_NORM: divide each row by its root mean square.

        Args:
            x: ne = (n, r1, r2, r3).
            eps: added to the mean of squares, at least 0.
        """
        return self.op("RMS_NORM", [x], params={"eps": eps}, name=name)

    def rms_norm_back(self, grad: Operand, x: Operand, eps: float, name: str = "") -> RemoteTensor:
        """RMS_NORM_BACK: the gradient of RMS_NORM.

        Args:
            grad: dense rows.
            x: grad's ne, dense rows.
            eps: as it was given to RMS_NORM.
        """
        return self.op("RMS_NORM_BACK", [grad, x], params={"eps": eps}, name=name)

    def roll(self, x: Operand, shift: Sequence[int], name: str = "") -> RemoteTensor:
        """ROLL: shift all elements along each dimension; those that leave at one end re-enter at the other.

        Args:
            x: ne = any without 0.
            shift: elements to move by, dimension by dimension; negative moves towards index 0.
        """
        return self.op("ROLL", [x], params={"shift": shift}, name=name)

    def rope(
        self,
        x: Operand,
        pos: Operand,
        freq_factors: Operand | None = None,
        *,
        n_dims: int,
        mode: int | str,
        n_ctx_orig: int = 0,
        freq_base: float = 10000.0,
        freq_scale: float = 1.0,
        ext_factor: float = 0.0,
        attn_factor: float = 1.0,
        beta_fast: float = 0.0,
        beta_slow: float = 0.0,
        sections: Sequence[int] = (0, 0, 0, 0),
        n_offs: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """ROPE: rotate pairs of elements by angles that grow with the position (rotary position embedding).

        Args:
            x: ne = (ne0, heads, tokens, batch).
            pos: ne = (tokens), or (4 * tokens) in the sectioned modes.
            freq_factors: ne0 at least n_dims/2, divisors of the angles.
            n_dims: elements of a row that are rotated, even, 0 to ne0.
            mode: 0 normal, 2 neox, 8 mrope, 24 vision, 40 imrope ('normal', 'neox', 'mrope', 'vision', 'imrope').
            n_ctx_orig: context length of the training, for YaRN.
            freq_base: base of the geometric row of frequencies.
            freq_scale: factor on all angles.
            ext_factor: weight of YaRN's mix; 0: no YaRN.
            attn_factor: factor on the result.
            beta_fast: turns within n_ctx_orig above which angles are not scaled.
            beta_slow: turns within n_ctx_orig below which angles are scaled in full.
            sections: pairs for time, height, width, extra.
            n_offs: elements of a row before those that are rotated, even; 0 in vision mode.
        """
        return self.op(
            "ROPE",
            [x, pos, freq_factors],
            params={
                "n_dims": n_dims,
                "mode": mode,
                "n_ctx_orig": n_ctx_orig,
                "freq_base": freq_base,
                "freq_scale": freq_scale,
                "ext_factor": ext_factor,
                "attn_factor": attn_factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "sections": sections,
                "n_offs": n_offs,
            },
            name=name,
        )

    def rope_back(
        self,
        x: Operand,
        pos: Operand,
        freq_factors: Operand | None = None,
        *,
        n_dims: int,
        mode: int | str,
        n_ctx_orig: int = 0,
        freq_base: float = 10000.0,
        freq_scale: float = 1.0,
        ext_factor: float = 0.0,
        attn_factor: float = 1.0,
        beta_fast: float = 0.0,
        beta_slow: float = 0.0,
        sections: Sequence[int] = (0, 0, 0, 0),
        n_offs: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """ROPE_BACK: rotate pairs of elements back, the gradient of ROPE.

        Args:
            x: ne = (ne0, heads, tokens, batch).
            pos: ne = (tokens), or (4 * tokens) in the sectioned modes.
            freq_factors: ne0 at least n_dims/2, divisors of the angles.
            n_dims: elements of a row that are rotated, even, 0 to ne0.
            mode: 0 normal, 2 neox, 8 mrope, 24 vision, 40 imrope ('normal', 'neox', 'mrope', 'vision', 'imrope').
            n_ctx_orig: context length of the training, for YaRN.
            freq_base: base of the geometric row of frequencies.
            freq_scale: factor on all angles.
            ext_factor: weight of YaRN's mix; 0: no YaRN.
            attn_factor: factor on the result.
            beta_fast: turns within n_ctx_orig above which angles are not scaled.
            beta_slow: turns within n_ctx_orig below which angles are scaled in full.
            sections: pairs for time, height, width, extra.
            n_offs: elements of a row before those that are rotated, even; 0 in vision mode.
        """
        return self.op(
            "ROPE_BACK",
            [x, pos, freq_factors],
            params={
                "n_dims": n_dims,
                "mode": mode,
                "n_ctx_orig": n_ctx_orig,
                "freq_base": freq_base,
                "freq_scale": freq_scale,
                "ext_factor": ext_factor,
                "attn_factor": attn_factor,
                "beta_fast": beta_fast,
                "beta_slow": beta_slow,
                "sections": sections,
                "n_offs": n_offs,
            },
            name=name,
        )

    def round(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind ROUND; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "ROUND"}, name=name)

    def rwkv_wkv6(
        self,
        k: Operand,
        v: Operand,
        r: Operand,
        time_first: Operand,
        decay: Operand,
        state: Operand,
        name: str = "",
    ) -> RemoteTensor:
        """RWKV_WKV6: the attention of RWKV 6: a state per head that decays by key and accumulates key times value.

        Args:
            k: ne = (S, H, T, ..).
            v: ne = (S, H, T, ..).
            r: ne = (S, H, T, ..).
            time_first: S*H elements or more.
            decay: ne = (S, H, T, ..).
            state: S*S*H*n_seqs elements, ne[1] = n_seqs.
        """
        return self.op("RWKV_WKV6", [k, v, r, time_first, decay, state], name=name)

    def rwkv_wkv7(
        self,
        r: Operand,
        w: Operand,
        k: Operand,
        v: Operand,
        a: Operand,
        b: Operand,
        state: Operand,
        name: str = "",
    ) -> RemoteTensor:
        """RWKV_WKV7: the attention of RWKV 7: a state per head that decays by key, is corrected along b, accumulates key …

        Args:
            r: ne = (S, H, T, ..).
            w: ne = (S, H, T, ..).
            k: ne = (S, H, T, ..).
            v: ne = (S, H, T, ..).
            a: ne = (S, H, T, ..).
            b: ne = (S, H, T, ..).
            state: S*S*H*n_seqs elements, ne[1] = n_seqs.
        """
        return self.op("RWKV_WKV7", [r, w, k, v, a, b, state], name=name)

    def scale(self, x: Operand, scale: float, bias: float = 0.0, name: str = "") -> RemoteTensor:
        """SCALE: multiply by a number and add a number.

        Args:
            x: contiguous.
            scale: factor.
            bias: summand.
        """
        return self.op("SCALE", [x], params={"scale": scale, "bias": bias}, name=name)

    def set(
        self,
        a: Operand,
        b: Operand,
        nb1: int,
        nb2: int,
        nb3: int,
        offset: int,
        inplace: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """SET: src1 written over a region of src0.

        Args:
            a: contiguous.
            b: the region's ne.
            nb1: bytes between rows of the region.
            nb2: bytes between its matrices.
            nb3: bytes between its stacks of matrices.
            offset: byte at which it begins.
            inplace: not 0: dst is src0's memory already; 0: src0 is copied to dst first.
        """
        return self.op("SET", [a, b], params={"nb1": nb1, "nb2": nb2, "nb3": nb3, "offset": offset, "inplace": inplace}, name=name)

    def set_rows(self, rows: Operand, indices: Operand, into: Operand | None = None, *, name: str = "") -> RemoteTensor:
        """SET_ROWS: rows written into a tensor at given indices.

        Args:
            rows: ne = (n, m, r2, r3).
            indices: ne = (m, r, s, 1), each below rows of dst.
            into: what dst is a view of.
        """
        return self.op("SET_ROWS", [rows, indices, into], name=name)

    def sgn(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind SGN; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "SGN"}, name=name)

    def sigmoid(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind SIGMOID; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "SIGMOID"}, name=name)

    def silu(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind SILU; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "SILU"}, name=name)

    def silu_back(self, grad: Operand, x: Operand, name: str = "") -> RemoteTensor:
        """SILU_BACK: the gradient of SILU.

        Args:
            grad: dense rows.
            x: grad's type and ne.
        """
        return self.op("SILU_BACK", [grad, x], name=name)

    def sin(self, x: Operand, name: str = "") -> RemoteTensor:
        """SIN: the sine of each element, in radians.

        Args:
            x: dense rows.
        """
        return self.op("SIN", [x], name=name)

    def soft_max(
        self,
        x: Operand,
        mask: Operand | None = None,
        sinks: Operand | None = None,
        *,
        scale: float = 1.0,
        max_bias: float = 0.0,
        name: str = "",
    ) -> RemoteTensor:
        """SOFT_MAX: turn each row into weights that sum to 1, with a mask, ALiBi slopes and sinks.

        Args:
            x: ne = (n, rows, heads, batch).
            mask: ne = (n, at least rows, m2, m3), added to x.
            sinks: ne = (heads), one more exponent in each row's sum.
            scale: factor on x.
            max_bias: ALiBi's steepest exponent; 0: no slopes.
        """
        return self.op("SOFT_MAX", [x, mask, sinks], params={"scale": scale, "max_bias": max_bias}, name=name)

    def soft_max_back(self, dy: Operand, y: Operand, scale: float, max_bias: float, name: str = "") -> RemoteTensor:
        """SOFT_MAX_BACK: the gradient of SOFT_MAX with respect to its input.

        Args:
            dy: gradient of the result.
            y: the result, of dy's ne.
            scale: SOFT_MAX's factor on x.
            max_bias: 0.
        """
        return self.op("SOFT_MAX_BACK", [dy, y], params={"scale": scale, "max_bias": max_bias}, name=name)

    def softplus(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind SOFTPLUS; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "SOFTPLUS"}, name=name)

    def solve_tri(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """SOLVE_TRI: solve A X = B for a lower triangular A, by forward substitution.

        Args:
            a: ne = (n, n, b2, b3), lower triangular.
            b: ne = (k, n, b2, b3).
        """
        return self.op("SOLVE_TRI", [a, b], name=name)

    def sqr(self, x: Operand, name: str = "") -> RemoteTensor:
        """SQR: the square of each element.

        Args:
            x: dense rows.
        """
        return self.op("SQR", [x], name=name)

    def sqrt(self, x: Operand, name: str = "") -> RemoteTensor:
        """SQRT: the square root of each element.

        Args:
            x: dense rows.
        """
        return self.op("SQRT", [x], name=name)

    def ssm_conv(self, x: Operand, kernel: Operand, name: str = "") -> RemoteTensor:
        """SSM_CONV: the short convolution of Mamba: every channel with a kernel of its own over the last d_conv tokens.

        Args:
            x: ne = (d_conv - 1 + n_t, d_inner, n_s).
            kernel: ne = (d_conv, d_inner).
        """
        return self.op("SSM_CONV", [x, kernel], name=name)

    def ssm_scan(
        self,
        s: Operand,
        x: Operand,
        dt: Operand,
        a: Operand,
        b: Operand,
        c: Operand,
        ids: Operand,
        snapshots: int = 1,
        name: str = "",
    ) -> RemoteTensor:
        """SSM_SCAN: the recurrence of Mamba: a state per channel that decays and is updated by each token.

        Args:
            s: ne = (d_state, dim, n_head, slots).
            x: ne = (dim, n_head, n_t, n_seqs).
            dt: ne = (n_head, n_t, n_seqs).
            a: ne = (1 or d_state, n_head).
            b: ne = (d_state, n_group, n_t, n_seqs).
            c: ne = (d_state, n_group, n_t, n_seqs).
            ids: ne = (n_seqs), from 0 to slots - 1.
            snapshots: K: after how many of the last tokens the states are kept, at least 1.
        """
        return self.op("SSM_SCAN", [s, x, dt, a, b, c, ids], params={"snapshots": snapshots}, name=name)

    def step(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind STEP; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "STEP"}, name=name)

    def sub(self, a: Operand, b: Operand, name: str = "") -> RemoteTensor:
        """SUB: the difference of two tensors, element by element, with the second one broadcast.

        Args:
            a: ne of the result.
            b: each dimension divides a's.
        """
        return self.op("SUB", [a, b], name=name)

    def sum(self, x: Operand, name: str = "") -> RemoteTensor:
        """SUM: add up all elements.

        Args:
            x: any ne.
        """
        return self.op("SUM", [x], name=name)

    def sum_rows(self, x: Operand, name: str = "") -> RemoteTensor:
        """SUM_ROWS: add up each row.

        Args:
            x: any ne.
        """
        return self.op("SUM_ROWS", [x], name=name)

    def swiglu(self, x: Operand, y: Operand | None = None, *, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind SWIGLU; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
        """
        return self.op("GLU", [x, y], params={"kind": "SWIGLU", "swapped": swapped}, name=name)

    def swiglu_clamp(self, x: Operand, y: Operand | None = None, *, limit: float, swapped: int = 0, name: str = "") -> RemoteTensor:
        """GLU, kind SWIGLU_CLAMP; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
            limit: SWIGLU_OAI, SWIGLU_CLAMP: bound of both halves.
        """
        return self.op("GLU", [x, y], params={"kind": "SWIGLU_CLAMP", "swapped": swapped, "limit": limit}, name=name)

    def swiglu_oai(
        self,
        x: Operand,
        y: Operand | None = None,
        *,
        alpha: float,
        limit: float,
        swapped: int = 0,
        name: str = "",
    ) -> RemoteTensor:
        """GLU, kind SWIGLU_OAI; its formula stands under GLU in SPEC.md.

        Args:
            x: what the function is applied to; without y both halves of it.
            y: what is gated, of x's type and ne.
            swapped: not 0: the second half of x is the gate; ignored with y.
            alpha: SWIGLU_OAI: steepness.
            limit: SWIGLU_OAI, SWIGLU_CLAMP: bound of both halves.
        """
        return self.op("GLU", [x, y], params={"kind": "SWIGLU_OAI", "swapped": swapped, "alpha": alpha, "limit": limit}, name=name)

    def tanh(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind TANH; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "TANH"}, name=name)

    def timestep_embedding(self, timesteps: Operand, dim: int, max_period: int, name: str = "") -> RemoteTensor:
        """TIMESTEP_EMBEDDING: cosines and sines of each time step at frequencies that fall from 1 to nearly 1 / max_period.

        Args:
            timesteps: ne = (N).
            dim: elements of an embedding.
            max_period: steps after which the slowest wave has nearly turned once.
        """
        return self.op("TIMESTEP_EMBEDDING", [timesteps], params={"dim": dim, "max_period": max_period}, name=name)

    def top_k(self, x: Operand, *, ne: Sequence[int], name: str = "") -> RemoteTensor:
        """TOP_K: the indices of the k largest elements of each row.

        Args:
            x: ne = (n, r1, r2, r3).
            ne: dimensions of the result, in ggml's order.
        """
        return self.op("TOP_K", [x], ne=ne, name=name)

    def tri(self, x: Operand, type: int | str, name: str = "") -> RemoteTensor:
        """TRI: a triangle of every matrix, zero elsewhere.

        Args:
            x: ne = (n, n, b2, b3).
            type: ggml_tri_type: 0 upper with diagonal, 1 upper, 2 lower with diagonal, 3 lower ('upper_diag', 'upper',
                'lower_diag', 'lower').
        """
        return self.op("TRI", [x], params={"type": type}, name=name)

    def trunc(self, x: Operand, name: str = "") -> RemoteTensor:
        """UNARY, kind TRUNC; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
        """
        return self.op("UNARY", [x], params={"kind": "TRUNC"}, name=name)

    def upscale(self, x: Operand, *, ne: Sequence[int], mode: int | str, name: str = "") -> RemoteTensor:
        """UPSCALE: resize a tensor: planes by interpolation, the two outer dimensions by nearest neighbour.

        Args:
            x: ne = (W, H, C, N).
            ne: dimensions of the result, in ggml's order.
            mode: 0 nearest, 1 bilinear, 2 bicubic; + 0x100 align corners; + 0x200 antialias ('nearest', 'bilinear', 'bicubic').
        """
        return self.op("UPSCALE", [x], params={"mode": mode}, ne=ne, name=name)

    def win_part(self, image: Operand, npx: int, npy: int, w: int, name: str = "") -> RemoteTensor:
        """WIN_PART: cut an image into square windows, with zeros where the last ones reach beyond it.

        Args:
            image: ne = (C, W, H, 1).
            npx: windows along the width.
            npy: windows along the height.
            w: width and height of a window, at least 1.
        """
        return self.op("WIN_PART", [image], params={"npx": npx, "npy": npy, "w": w}, name=name)

    def win_unpart(self, windows: Operand, *, ne: Sequence[int], w: int, name: str = "") -> RemoteTensor:
        """WIN_UNPART: join the windows of WIN_PART into an image again, cutting off what reached beyond it.

        Args:
            windows: ne = (C, w, w, npx*npy).
            ne: dimensions of the result, in ggml's order.
            w: width and height of a window, at least 1.
        """
        return self.op("WIN_UNPART", [windows], params={"w": w}, ne=ne, name=name)

    def xielu(self, x: Operand, alpha_n: float, alpha_p: float, beta: float, eps: float, name: str = "") -> RemoteTensor:
        """UNARY, kind XIELU; its formula stands under UNARY in SPEC.md.

        Args:
            x: dense rows.
            alpha_n: XIELU: factor where x <= 0 (beta + softplus of the model's parameter).
            alpha_p: XIELU: factor where x > 0 (softplus of the model's parameter).
            beta: XIELU: linear factor.
            eps: XIELU: upper bound of x in the exponential.
        """
        return self.op(
            "UNARY",
            [x],
            params={"kind": "XIELU", "alpha_n": alpha_n, "alpha_p": alpha_p, "beta": beta, "eps": eps},
            name=name,
        )
