"""Inputs worth trying on CPY."""

from collections.abc import Iterator

from ggml_rpc_ref.ops.cases.case import Case, Operand, since
from ggml_rpc_ref.ops.op import BLOCKS, FLOATS, READABLE_BLOCKS, WRITABLE_BLOCKS
from ggml_rpc_ref.tensor import Quad


def _case(name: str, src: Operand, dtype: str, ne: tuple[int, ...] = (), nb: Quad | None = None) -> Case:
    target = Operand(dtype, ne or src.ne, nb, fill="blocks" if dtype in BLOCKS and dtype not in WRITABLE_BLOCKS else "zeros")
    return Case(name, Operand(dtype, target.ne, nb, alias="src1"), (src, target))


def cases() -> Iterator[Case]:
    """Every pair of types; strides on either side and on both; other dimensions; special values; each block type there and back."""
    for case in _plain_cases():
        source = case.src[0]
        assert source is not None
        apart = (source.dtype, case.dst.dtype) == ("F16", "BF16") and "transposed" in case.id
        change = "CPY.i32" if {source.dtype, case.dst.dtype} == {"F32", "I32"} else "CPY.bf16" if apart else ""
        yield from since(change, [case])
    yield from _block_cases()


def _plain_cases() -> Iterator[Case]:
    transposed: dict[str, Quad] = {
        "F32": (20, 4, 140, 280),
        "F16": (10, 2, 70, 140),
        "BF16": (10, 2, 70, 140),
        "I32": (20, 4, 140, 280),
    }
    pairs = [(a, b) for a in FLOATS for b in FLOATS] + [
        ("F32", "I32"),
        ("I32", "F32"),
        ("I32", "I32"),
        ("I64", "I64"),
        ("I8", "I8"),
    ]
    for a, b in pairs:
        source = Operand(a, (7, 5, 2), fill="normal:1000")
        yield _case(f"{a}-to-{b}".lower(), source, b)
        if a != b or a == "F16":
            yield _case(f"{a}-to-{b}-other-dims".lower(), source, b, (5, 14))
            yield _case(f"{a}-transposed-to-{b}".lower(), Operand(a, (7, 5, 2), transposed[a]), b)
            yield _case(f"{a}-to-{b}-transposed".lower(), Operand(a, (7, 5, 2)), b, nb=transposed[b])
            yield _case(
                f"{a}-transposed-to-{b}-strided-other-dims".lower(),
                Operand(a, (7, 5, 2), transposed[a]),
                b,
                (10, 7),
                (8, 96, 672, 672),
            )
            yield _case(
                f"{a}-to-{b}-special".lower(), Operand(a, (16, 8), fill="values:1.5,-2.5,1e9" if a == "I32" else "special"), b
            )
    halves = "values:65504,65519.9,65520,-65520,6e-8,2.9e-8,2.98023224e-8,6.1e-5,1e-40,1.00048828125,1.00146484375,nan,inf"
    yield _case("f32-to-f16-edges", Operand("F32", (13,), fill=halves), "F16")
    yield _case("f32-to-bf16-edges", Operand("F32", (13,), fill=halves.replace("65520", "3.4e38") + ",1e-40"), "BF16")
    yield _case(
        "f32-to-i32-edges", Operand("F32", (8,), fill="values:2147483647,-2147483648,2147483520,1.9,-1.9,nan,inf,-inf"), "I32"
    )


def _block_cases() -> Iterator[Case]:
    for dtype in WRITABLE_BLOCKS:
        yield _case(f"f32-to-{dtype}".lower(), Operand("F32", (256, 3)), dtype)
        yield _case(f"{dtype}-to-{dtype}".lower(), Operand(dtype, (256, 2)), dtype)
    for dtype in READABLE_BLOCKS:
        fill = "normal" if dtype in WRITABLE_BLOCKS else "blocks"
        yield _case(f"{dtype}-to-f32".lower(), Operand(dtype, (256, 2), fill=fill), "F32")
    for dtype in ("F16", "BF16"):
        for target in ("Q8_0", "Q4_K"):
            yield _case(f"{dtype}-to-{target}".lower(), Operand(dtype, (256, 3)), target)
    rows = Operand("F32", (32, 3, 4), nb=(4, 512, 128, 1536))
    yield _case("f32-rows-permuted-to-q4_0", rows, "Q4_0")
    yield _case("f32-to-q8_0-other-dims", Operand("F32", (64, 3)), "Q8_0", (32, 6))
    yield _case("q8_0-to-f32-other-dims", Operand("Q8_0", (64, 3)), "F32", (16, 12))
    yield _case("q4_0-permuted-to-f32", Operand("Q4_0", (64, 3, 4), nb=(18, 144, 36, 432)), "F32")
    yield _case("q5_0-to-f32-gaps", Operand("Q5_0", (32, 4)), "F32", nb=(4, 160, 640, 640))
    yield _case("q8_0-to-q8_0-gaps", Operand("Q8_0", (64, 3)), "Q8_0", (32, 6), (34, 68, 408, 408))
    yield _case("iq3_s-to-iq3_s", Operand("IQ3_S", (256, 2), fill="blocks"), "IQ3_S")
    yield _case("f32-special-to-q8_0", Operand("F32", (32, 8), fill="values:0,-0.0,1e-40,1e-20,127,-128,1e4,3e4"), "Q8_0")
    edges = Operand("F32", (256, 7), fill=f"values:{','.join(map(str, _edges()))}")
    for dtype in WRITABLE_BLOCKS:
        # of a block without magnitude IQ4_NL's codes are what upstream's array held before: quantize_row_iq4_nl_impl skips it
        if dtype != "IQ4_NL":
            yield _case(f"f32-edges-to-{dtype}".lower(), edges, dtype)
    for dtype in WRITABLE_BLOCKS:  # sums of squares below 1, which a search for a scale compares with 0
        yield _case(f"f32-small-to-{dtype}".lower(), Operand("F32", (256, 2), fill="normal:1e-3"), dtype)
    for dtype in ("MXFP4", "NVFP4"):  # the smallest scales of the latter that are no subnormal numbers
        yield _case(f"f32-tenths-to-{dtype}".lower(), Operand("F32", (256, 2), fill="normal:6e-2"), dtype)
    for dtype in WRITABLE_BLOCKS:  # beyond the largest scale of a type whose scales have few bits
        yield _case(f"f32-large-to-{dtype}".lower(), Operand("F32", (256, 2), fill="normal:1e4"), dtype)


def _edges() -> Iterator[float]:
    """Rows of 256 in which a search for a scale finds nothing, or equals: zeros, constants, halves, one among nearly none."""
    yield from (0.0 for _ in range(256))
    yield from (1.0 for _ in range(256))
    yield from (-1.0 for _ in range(256))
    yield from (step % 32 / 2 - 8 for step in range(256))
    yield from (float(step) for step in range(256))
    yield from (-100.0 if step % 32 == 5 else 1e-9 for step in range(256))
    yield from (1e-20 if step % 2 else -1e-20 for step in range(256))
