"""Inputs worth trying on COL2IM_1D."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand


def _case(
    name: str, taps: int, columns: int, stride: int, channels: int, cut: int = 0, *, dtype: str = "F32", fill: str = "normal"
) -> Case:
    length = (columns - 1) * stride + taps - 2 * cut
    params = {"s0": stride, "oc": channels, "p0": cut}
    return Case(name, Operand(dtype, (length, channels)), (Operand(dtype, (taps * channels, columns), fill=fill),), params)


def cases() -> Iterator[Case]:
    """Strides below, at and above the number of taps; one channel and many; elements cut off; every type; special values."""
    for dtype in ("F32", "F16", "BF16"):
        tail = dtype.lower()
        for stride in (1, 2, 3, 5):
            yield _case(f"stride-{stride}-{tail}", 3, 7, stride, 4, dtype=dtype)
        yield _case(f"one-channel-{tail}", 8, 33, 4, 1, 2, dtype=dtype)
        yield _case(f"many-channels-{tail}", 4, 5, 2, 67, 1, dtype=dtype)
        yield _case(
            f"special-{tail}", 4, 9, 2, 3, 1, dtype=dtype, fill="values:1,-2,nan,0.5,3,-0.25,inf,2,-1,0.125,-inf,4,-0.0,1.5,-3"
        )
    yield _case("one-tap", 1, 6, 1, 3)
    yield _case("one-column", 5, 1, 7, 3)
    yield _case("a-single-element", 5, 1, 1, 2, 2)
    yield _case("cut-of-whole-columns", 3, 9, 2, 2, 6)
    yield _case("cancels", 3, 8, 1, 1, fill="values:1e8,1,-1e8,3")
