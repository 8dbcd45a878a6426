"""What the cases of the matrix products share: weights of every type, and how far upstream's rounding of activations goes."""

from ggml_rpc_ref.ops.cases.case import Operand
from ggml_rpc_ref.ops.tolerance import FLOAT32, Tolerance

ROUNDED = {
    "F32": FLOAT32,
    "F16": Tolerance(nmse=1e-5, reason="src1 is rounded to F16, and with AVX512-FP16 the products are summed in F16"),
    "BF16": Tolerance(nmse=1e-4, reason="src1 is rounded to BF16 first"),
    "Q8_0": Tolerance(nmse=5e-4, reason="src1 is quantised to Q8_0 first"),
    "Q8_1": Tolerance(nmse=5e-4, reason="src1 is quantised to Q8_1 first, whose sums are rounded to F16"),
    "Q8_K": Tolerance(nmse=5e-4, reason="src1 is quantised to Q8_K first"),
}
"""Partner type to the bound on upstream's rounding. Measured on normal values, k = 256 and 2048, 64 results and more: F16 9e-7,
BF16 4.3e-6, Q8_0 and Q8_1 3.7e-5, Q8_K 1.1e-4 at most; the rest is for cases of few results, where the error of one that is near 0
by cancellation weighs more. A src1 that comes in the partner type is not rounded, the sums still are."""


def weights(name: str, ne: tuple[int, ...]) -> Operand:
    """Return weights of a type; those that no server quantises are random blocks."""
    return Operand(name, ne, fill="blocks" if name.startswith("IQ") else "normal")
