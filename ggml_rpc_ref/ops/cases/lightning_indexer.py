"""Inputs worth trying on LIGHTNING_INDEXER."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.ops.cases.shared.matmul import weights as of_type
from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS
from ggml_rpc_ref.tensor import Quad

NON_FINITE = "values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3"


def _case(
    name: str, n: int, heads: int, tokens: int, keys: int, streams: int = 1, masks: int = 1, *, k: str = "F32",
    fill: str = "normal", apart: bool = False, mask_fill: str = "mask",
) -> Case:  # fmt: skip
    """Return a case; masks: how many the streams share; apart: operands and result lie permuted or with gaps."""
    q_nb: Quad | None = (4, 4 * n * tokens, 4 * n, 4 * n * heads * tokens) if apart else None
    w_nb: Quad | None = (4, 4 * heads + 12, 4, (4 * heads + 12) * tokens) if apart else None
    dst_nb: Quad | None = (4, 4 * keys + 8, 4, (4 * keys + 8) * tokens + 16) if apart else None
    sources = (
        Operand("F32", (n, heads, tokens, streams), q_nb, fill),
        of_type(k, (n, 1, keys, streams)),
        Operand("F32", (heads, tokens, 1, streams), w_nb),
        Operand("F16", (keys, tokens, 1, masks), fill=mask_fill),
    )
    return Case(name, Operand("F32", (keys, tokens, 1, streams), dst_nb), sources)


def cases() -> Iterator[Case]:
    """Every type of keys; lengths around vector widths; streams and shared masks; permuted operands; special values; nothing."""
    for name in (*FLOATS, *READABLE_BLOCKS):
        yield _case(f"k-{name}".lower(), 256, 4, 2, 5, k=name)
    for n, heads, tokens, keys in ((1, 1, 1, 1), (7, 3, 2, 9), (33, 2, 5, 17), (128, 64, 1, 33)):
        yield _case(f"n{n}-heads{heads}-tokens{tokens}-keys{keys}", n, heads, tokens, keys)
    yield _case("streams", 16, 3, 4, 5, 4, 4)
    yield _case("streams-share-a-mask", 16, 3, 4, 5, 4)
    yield _case("streams-share-two-masks", 16, 3, 4, 5, 4, 2)
    yield _case("apart", 16, 3, 4, 5, 2, apart=True)
    yield _case("special", 8, 2, 3, 6, fill=NON_FINITE, mask_fill="normal")
    yield _case("special-mask", 8, 2, 3, 16, mask_fill="special")
    yield _case("no-heads", 8, 0, 3, 4)
    yield _case("no-elements", 0, 2, 3, 4)
    yield _case("no-keys", 8, 2, 3, 0)
