"""How far a right answer may lie from the oracle's."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far a right answer may lie from the oracle's, and why.

    A result is right when it has NaN and infinities where the oracle has them and, over the finite rest, either every
    element is within ``atol + rtol * |oracle|`` or the normalised mean squared error is at most `nmse`. All three zero
    means: the same bytes.
    """

    rtol: float = 0.0
    atol: float = 0.0
    nmse: float = 0.0
    reason: str = "the same bytes: nothing is rounded"


EXACT = Tolerance()
FLOAT32 = Tolerance(1e-5, 1e-6, 1e-10, "float32 arithmetic in another order, or another library's exp/tanh/sin")
