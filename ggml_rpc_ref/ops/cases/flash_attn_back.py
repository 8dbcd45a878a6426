"""Inputs worth trying on FLASH_ATTN_BACK."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.tensor import Quad


def cases() -> Iterator[Case]:
    """Sizes around vector widths, masked and not, keys beyond queries, shared keys, batches, views."""
    for masked in (0, 1):
        for d, queries, keys, heads, shared in (
            (1, 1, 1, 1, 1),
            (8, 3, 3, 2, 2),
            (16, 5, 9, 4, 2),
            (33, 7, 17, 3, 1),
            (5, 1, 2, 1, 1),
        ):
            ne = (d, queries, heads, 1)
            yield gradients(f"d{d}-queries{queries}-keys{keys}-heads{heads}-{shared}-masked{masked}", ne, keys, shared, masked)
        yield gradients(f"batch-masked{masked}", (8, 3, 2, 3), 5, 2, masked)


def gradients(id: str, ne: Quad, keys: int, shared: int, masked: int) -> Case:
    """Return a case whose operands follow from Q's dimensions."""
    d, queries, heads, batch = ne
    src = Operand("F32", ne), Operand("F32", (d, keys, shared, batch)), Operand("F32", (keys, d, shared, batch)), Operand("F32", ne)
    count = d * queries * heads * batch, d * keys * shared * batch
    length = sum(-(-n // 4) * 4 for n in (*count, count[1]))
    return Case(id, Operand("F32", (length,)), src, {"masked": masked})
