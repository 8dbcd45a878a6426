"""Print how far the oracle lies from the recorded results, op by op, as a Markdown table.

    .venv/bin/python -m vectors.tools.worst_errors              # every op
    .venv/bin/python -m vectors.tools.worst_errors RMS_NORM     # these only

Nothing is run on a server: the expected bytes are those of `vectors/upstream-3.6.1-…/ops/`. nmse is the mean squared error over the
mean square of the expected values; relative is the largest |oracle - expected| / max(1, |expected|). Each column shows the worst
case's figure, and the last names the case of the worst nmse. Elements that are NaN or infinite on both sides count as equal, and as
infinitely wrong where they differ. Tolerance is the op's own and the widest that one of its cases has instead. A case passes when
every element is within atol + rtol * |oracle|, or when the nmse is within its bound: relative may be large where nmse decides.
"""

from __future__ import annotations

import argparse
import base64
import json
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.compare import compare_tensors, normalised_error, worst_error
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import PlainStorage, Tensor

WITNESS = Path(__file__).resolve().parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "ops"


@dataclass
class Row:
    """What is known of an op: cases recorded, the worst figures, the case of the worst nmse, cases beyond their tolerance."""

    cases: int = 0
    nmse: float = 0.0
    relative: float = 0.0
    worst: str = ""
    failed: int = 0


def nmse(expected: Tensor, actual: Tensor) -> float:
    """Return the normalised mean squared error over the elements that are finite on both sides; infinity where classes differ."""
    wanted, found = (np.asarray(tensor.values(), np.float64) for tensor in (expected, actual))
    finite = np.isfinite(wanted) & np.isfinite(found)
    same = (np.isnan(wanted) & np.isnan(found)) | (wanted == found)
    if not (finite | same).all():
        return float("inf")
    return normalised_error(wanted[finite], found[finite]) if finite.any() else 0.0


def recorded(tensor: Tensor, text: str) -> Tensor:
    """Return the tensor's geometry over recorded bytes, which are those between the guard bytes of its memory."""
    guard = bytes(recipes.GUARD)
    return replace(tensor, storage=PlainStorage(np.frombuffer(guard + zlib.decompress(base64.b64decode(text)) + guard, np.uint8)))


def judge(row: Row, op: Op, case: Case, entry: dict[str, Any]) -> None:
    """Run the oracle on a case and add the result to the op's row."""
    dst, src = recipes.build(op.name, case)
    node = op.check(dst, src, op.pack(case.params))
    if dst.nelements:
        op.oracle(node)
    row.cases += 1
    owner, failed = case.dst.alias or "dst", False
    for name, text in entry["expected"].items():
        mine = dst if name == owner else src[int(name.removeprefix("src"))]
        assert mine is not None
        if not mine.nelements:
            continue
        theirs = recorded(mine, text)
        error = nmse(theirs, mine)
        if error > row.nmse:
            row.nmse, row.worst = error, case.id
        row.relative = max(row.relative, worst_error(theirs, mine))
        failed |= compare_tensors(theirs, mine, case.tolerance or op.tolerance) is not None
    row.failed += failed


def tolerance_text(tolerance: Tolerance) -> str:
    """Return a tolerance as text."""
    parts = [f"{name} {value:g}" for name in ("rtol", "atol", "nmse") if (value := getattr(tolerance, name))]
    return ", ".join(parts) or "same bytes"


def widest(op: Op, cases: list[Case]) -> str:
    """Return the op's tolerance, and after a semicolon the widest of its cases' where some have their own."""
    own = [case.tolerance for case in cases if case.tolerance is not None and case.tolerance != op.tolerance]
    text = tolerance_text(op.tolerance)
    if own:
        text += "; some " + tolerance_text(max(own, key=lambda tolerance: (tolerance.nmse, tolerance.rtol, tolerance.atol)))
    return text


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ops", nargs="*", metavar="OP", help="names of ops; none: all")
    names = parser.parse_args().ops or list(OPS)
    if unknown := [name for name in names if name not in OPS]:
        parser.error(f"unknown op {', '.join(unknown)}")
    print("| op | cases | worst nmse | worst relative | beyond tolerance | tolerance | worst case |")
    print("|---|--:|--:|--:|--:|---|---|")
    for name in names:
        op, row, path = OPS[name], Row(), WITNESS / f"{name.lower()}.json"
        cases = list(cases_of(op.name))
        entries = {entry["id"]: entry for entry in json.loads(path.read_text())["cases"]} if path.exists() else {}
        for case in cases:
            if case.id in entries:
                judge(row, op, case, entries[case.id])
            else:
                print(f"{name}: no result is recorded for case {case.id}", file=sys.stderr)
        figures = f"{row.cases} | {row.nmse:.2g} | {row.relative:.2g} | {row.failed}"
        print(f"| {name} | {figures} | {widest(op, cases)} | {row.worst} |", flush=True)


if __name__ == "__main__":
    main()
