"""What the cases of ACC and SET share."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import contiguous_nb


def region_cases(dtype: str) -> Iterator[Case]:
    """Yield a vector, rows, a box in four dimensions, with gaps in src1, in place and not, all of it, nothing."""
    big = Operand(dtype, (11, 5, 4, 2), fill="normal:100")
    layout = dict(zip(("nb1", "nb2", "nb3"), contiguous_nb(BY_NAME[dtype], big.quad)[1:], strict=True))
    regions = {"vector": ((5,), 12), "rows": ((11, 3), 44 * 2), "box": ((4, 3, 2, 2), 8 + 44 + 220), "all": ((11, 5, 4, 2), 0)}
    for name, (ne, offset) in regions.items():
        params = {**layout, "offset": offset}
        small = Operand(dtype, ne, fill="normal:100")
        yield Case(name, Operand(dtype, big.ne), (big, small), params)
        yield Case(f"{name}-in-place", Operand(dtype, big.ne, alias="src0"), (big, small), params | {"inplace": 1})
    gaps = Operand(dtype, (4, 3, 2), (4, 32, 128, 256), "normal:100")
    yield Case("src1-gaps", Operand(dtype, big.ne), (big, gaps), {**layout, "offset": 4})
    every_other = {"nb1": 88, "nb2": 220, "nb3": 880, "offset": 40}
    yield Case("every-other-row", Operand(dtype, big.ne), (big, Operand(dtype, (1, 3, 4), fill="normal:9")), every_other)
    yield Case("not-copied", Operand(dtype, big.ne), (big, Operand(dtype, (4,), fill="normal:9")), {**layout, "inplace": 1})
    # a vector takes no strides
    untaken = {"nb1": 1, "nb2": -7, "nb3": 2**31 - 1, "offset": 12}
    yield Case("any-stride-of-length-1", Operand(dtype, big.ne), (big, Operand(dtype, (5,), fill="normal:9")), untaken)
    yield Case("no-rows", Operand(dtype, big.ne), (big, Operand(dtype, (4, 0))), layout)
