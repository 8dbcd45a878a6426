"""Whether a server of a version can compute a node, by the rules of that version.

What follows from op, kind, types and geometry is remembered: a model asks the same question for each of its layers.
"""

from __future__ import annotations

from functools import lru_cache

from ggml_rpc_ref.client.tensors import RemoteTensor
from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.ops import canonical_ops
from ggml_rpc_ref.spec.dtypes import DType, type_count
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, kinds, op_table
from ggml_rpc_ref.spec.versions import NEWEST, Version
from ggml_rpc_ref.tensor import Quad, Tensor

Layout = tuple[DType, Quad, Quad]


def supports(node: RemoteTensor, version: Version) -> bool:
    """Return whether servers of a version compute a node as it is.

    Raises:
        Misuse: for what is no tensor.
    """
    if not isinstance(node, RemoteTensor):
        raise Misuse(f"{node!r} is not a node of a graph")
    sources = tuple([None if s is None else (s.dtype, s.ne, s.nb) for s in node.src])
    return _supports(node.op, node.op_params, (node.dtype, node.ne, node.nb), sources, version)


@lru_cache(maxsize=2**16)
def _supports(op: str, op_params: bytes, dst: Layout, src: tuple[Layout | None, ...], version: Version) -> bool:
    types = [dst[0], *(source[0] for source in src if source is not None)]
    if op in CUSTOM_OPS or op not in op_table(version) or any(row.number >= type_count(version) for row in types):
        return False
    names, row = kinds(op, NEWEST), canonical_ops(version).get(op)
    if names and names[int.from_bytes(op_params[:4], "little")] not in kinds(op, version):
        return False
    if row is None:
        return False
    try:
        row.check(Tensor(*dst), tuple(None if source is None else Tensor(*source) for source in src), op_params)
    except Violation:
        return False
    return True
