"""Worst memory and steps of each op: `python -m bench.worst_memory [--scale N] [--most GIB] [--into FILE] [--after FILE] [OP ...]`.

The rule (graph.cost): a node needs at one time no more than its operands as float32 and 1 GiB. tests/test_cost.py holds every op
to it on shapes and limits that are 2,048 times smaller; this measures the same shapes at any scale. At 1, the real one, an op's
largest operand has 2^28 elements, so name some ops, or measure at a smaller scale first and at 1 only what was worst there
(--after). A line for each: what it needed at most (tracemalloc) as a share of what that shape is granted, the steps that the plan
counts, CPU seconds, and the shape. Shapes whose operands and grant are above --most are left out, and counted. Exit status 1 if an
op exceeds its grant.

bench/worst_memory.json keeps what --into wrote: for each op, version and scale a row with the day and the machine. `worst` is the
shape that needed the largest share of what it is granted, `slowest` the one whose steps took longest: `granted` and `peak` are
bytes, `steps` what the plan counts, `seconds` of the processor. Every op has a row at a 1024th of full size (`scale` 1024) and one
at full size (`scale` 1), there of the shapes that were worst and slowest before.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ggml_rpc_ref import blocks
from ggml_rpc_ref.ops import cost, dsv4_hc_comb
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared import slabs, sliding_window
from ggml_rpc_ref.server import validate
from ggml_rpc_ref.spec.versions import Version
from tests import test_cost

FULL = 2**28
"""Elements of the largest operand at full size."""


def set_scale(scale: int) -> None:
    """Divide every limit by a number, as the test does."""
    test_cost.SCALE, test_cost.GRANT, test_cost.LARGE = scale, 2**30 // scale, FULL // scale
    slabs.SLAB_BYTES //= scale
    blocks.SLAB_ELEMENTS = max(256, blocks.SLAB_ELEMENTS // scale)
    sliding_window.BLOCK_BYTES //= scale
    dsv4_hc_comb.TOKENS = max(1, dsv4_hc_comb.TOKENS // scale)
    cost.GRANT = test_cost.GRANT


def nodes(name: str, version: Version) -> Iterator[tuple[str, Node]]:
    """The shapes of an op that are tried, each with what it is called at every scale."""
    if name in test_cost.TIED:
        yield "tied", test_cost.largest(name, version)
        return
    cases = cases_of(name, version)
    for case in (*cases[:2], cases[-1]):
        for number, (dst, src) in enumerate(test_cost.stretched(case)):
            if (node := test_cost.accepted(name, version, case, dst, src)) is not None:
                yield f"{case.id} {number}", node


def worst(name: str, version: Version, most: int, chosen: Collection[str]) -> dict[str, Any]:
    """Return the row of an op: of its shapes (of those chosen) the one that needs the largest share of what it is granted."""
    found, left_out, begun = [], 0, time.process_time()
    for called, node in nodes(name, version):
        if chosen and called not in chosen:
            continue
        granted = test_cost.granted(node)
        if granted > most:
            left_out += 1
            continue
        started = time.process_time()
        peak = test_cost.peak_of(node)
        seconds = time.process_time() - started
        shape = " ".join(f"{t.dtype.name}{t.ne}".replace(" ", "") for t in (node.dst, *node.src) if t is not None)
        measured = {"share": round(peak / granted, 4), "granted": granted, "peak": peak, "seconds": round(seconds, 2)}
        found.append({"name": called, **measured, "steps": validate.check_cost(node), "shape": shape})
    row = {"op": name, "version": str(version), "shapes": len(found), "left_out": left_out}
    if not found:
        return row
    # numpy's part of a step is a nanosecond; a shape far beyond that would let a peer take more time than the budget of steps says
    slowest = max(found, key=lambda shape: shape["seconds"] / max(shape["steps"], 10**8))
    seconds = round(time.process_time() - begun, 1)
    return row | {"worst": max(found, key=lambda shape: shape["share"]), "slowest": slowest, "seconds": seconds}


def line(row: dict[str, Any]) -> str:
    """Return the row as people read it."""
    head = f"{row['op']:<24} {row['version']}"
    if not row["shapes"]:
        return f"{head} nothing measured, {row['left_out']} shapes left out"
    worst, slowest = row["worst"], row["slowest"]
    return (
        f"{head} {worst['share']:5.2f} of {worst['granted'] / 2**20:7.0f} MiB  {worst['steps']:.1e} steps  {row['seconds']:6.1f} s"
        f"  {row['shapes']} shapes, {row['left_out']} left out  {worst['shape']}"
        f"  (slowest: {slowest['seconds']} s for {slowest['steps']:.1e} steps)"
    )


def keep(row: dict[str, Any], scale: int, path: Path) -> None:
    """Write a row into a file, in the place of the one of that op, version and scale."""
    rows = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    new = row | {"scale": scale, "day": time.strftime("%Y-%m-%d", time.gmtime()), "machine": machine()}
    same = [k for k in rows if all(k[key] == new[key] for key in ("op", "version", "scale"))]
    rows = sorted((*(k for k in rows if k not in same), new), key=lambda k: (k["scale"], k["op"], k["version"]))
    path.write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n", encoding="utf-8")


def machine() -> str:
    """Return what this was measured on."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((entry.split(":")[1].strip() for entry in lines if "model name" in entry), platform.machine())
    return f"{os.cpu_count()} x {model}, numpy {np.__version__}"


def main() -> None:
    """Measure the ops that are named, or all."""
    parser = argparse.ArgumentParser(description="Worst memory and steps of each op.")
    parser.add_argument("--scale", type=int, default=1, help="divide sizes and limits by it (default: 1, full size)")
    parser.add_argument("--most", type=float, default=6, metavar="GIB", help="leave out shapes that may need more (default: 6)")
    parser.add_argument("--into", type=Path, metavar="FILE", help="keep the rows in this JSON file as well")
    parser.add_argument("--after", type=Path, metavar="FILE", help="only the shapes that were an op's worst and slowest there")
    parser.add_argument("ops", nargs="*", metavar="OP")
    options = parser.parse_args()
    set_scale(options.scale)
    chosen = [(name, version) for name, version in test_cost.computing() if not options.ops or name in options.ops]
    exceeded, before = False, {}
    if options.after is not None:
        rows = json.loads(options.after.read_text(encoding="utf-8"))
        before = {(row["op"], row["version"]): {row[key]["name"] for key in ("worst", "slowest") if key in row} for row in rows}
    for name, version in chosen:
        row = worst(name, version, int(options.most * 2**30), before.get((name, str(version)), ()))
        print(line(row), flush=True)
        exceeded |= row["shapes"] > 0 and row["worst"]["share"] > 1
        if options.into is not None:
            keep(row, options.scale, options.into)
    sys.exit(0 if chosen and not exceeded else 1)


if __name__ == "__main__":
    main()
