"""How far a single element of a result may be off where a mean over all of them decides.

MUL_MAT and its kin round one operand before they multiply, each element of the result is off by a little, and the tolerance is a
mean. Under a mean alone one element among a thousand may be wrong by far more than rounding explains. So a case says how far the
worst one may be off: FACTOR times what the genuine server's own worst element is from the sum in float32 of the operands as they
are, or from ROUNDING of the result's root mean square where that is more: what a processor that adds F16 up in F16 may do.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.tensor import PlainStorage, Tensor

LOOSE: Final = 1e-6
"""An nmse from which on one wrong element among many can hide in it."""
FACTOR: Final = 4.0
"""Another implementation rounds at other places, and then another element is the worst."""
ROUNDING: Final = 1e-5**0.5
"""The bound on the error of sums in F16, as `nmse` says it for ops with an F16 kernel."""


def with_element_bounds(op: Op, document: dict[str, Any], protocol: tuple[int, int, int]) -> dict[str, Any]:
    """Return an op's document in which each case that a mean decides says how far one element may be off."""
    cases = {case.id: case for case in cases_of(op.name, Version(*protocol))}
    rows = []
    for entry in document["cases"]:
        row = {key: value for key, value in entry.items() if key != "element"}
        case = cases.get(entry["id"])
        nmse = entry.get("tolerance", document["tolerance"])["nmse"]
        bound = _bound(op, case, entry) if case is not None and nmse >= LOOSE else None
        rows.append(row if bound is None else row | {"element": bound})
    return document | {"cases": rows}


def _bound(op: Op, case: Case, entry: dict[str, Any]) -> float | None:
    dst, src = recipes.build(op.name, case)
    recorded = entry["expected"].get(case.dst.alias or "dst")
    if recorded is None or not dst.nelements:
        return None
    op.oracle(op.check(dst, src, op.pack(case.params)))
    wanted, found = (np.asarray(t.values(), np.float64) for t in (_recorded(dst, recorded), dst))
    finite = np.isfinite(wanted) & np.isfinite(found)
    if not finite.any():
        return None
    worst = float(np.max(np.abs(wanted[finite] - found[finite])))
    bound = FACTOR * max(worst, ROUNDING * float(np.sqrt(np.mean(wanted[finite] ** 2))))
    return float(f"{bound:.3g}") or None  # a result of zeros is judged as it is


def _recorded(dst: Tensor, text: str) -> Tensor:
    guard = bytes(recipes.GUARD)
    return replace(dst, storage=PlainStorage(np.frombuffer(guard + zlib.decompress(base64.b64decode(text)) + guard, np.uint8)))
