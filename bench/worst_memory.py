"""Worst memory and steps of each op: `python -m bench.worst_memory [--scale N] [--most GIB] [OP ...]`.

The rule (graph.cost): a node needs at one time no more than its operands as float32 and 1 GiB. tests/test_cost.py holds every op
to it on shapes and limits that are 2,048 times smaller; this measures the same shapes at any scale. At 1, the real one, an op's
largest operand has 2^28 elements, so name some ops. A line for each: what it needed at most (tracemalloc) as a share of what that
shape is granted, the steps that the plan counts, CPU seconds, and the shape. Shapes whose operands and grant are above --most are
left out, and counted. Exit status 1 if an op exceeds its grant.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from ggml_rpc_ref import blocks
from ggml_rpc_ref.ops import dsv4_hc_comb
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
    validate.MAX_TEMPORARIES = test_cost.GRANT


def nodes(name: str, version: Version) -> Iterator[Node]:
    """The shapes of an op that are tried."""
    if name in test_cost.TIED:
        yield test_cost.largest(name, version)
    else:
        yield from test_cost.of_a_case(name, version)


def worst(name: str, version: Version, most: int) -> bool:
    """Print an op's line; return whether it stays within its grant."""
    found, left_out, begun = [], 0, time.process_time()
    for node in nodes(name, version):
        granted = test_cost.granted(node)
        if granted > most:
            left_out += 1
            continue
        found.append((test_cost.peak_of(node) / granted, granted, validate.check_cost(node), node))
    seconds = time.process_time() - begun
    if not found:
        print(f"{name:<24} {version} nothing measured, {left_out} shapes left out")
        return True
    share, granted, steps, node = max(found, key=lambda row: row[0])
    shape = " ".join(f"{t.dtype.name}{t.ne}".replace(" ", "") for t in (node.dst, *node.src) if t is not None)
    print(
        f"{name:<24} {version} {share:5.2f} of {granted / 2**20:7.0f} MiB  {steps:.1e} steps  {seconds:6.1f} s"
        f"  {len(found)} shapes, {left_out} left out  {shape}",
        flush=True,
    )
    return share <= 1


def main() -> None:
    """Measure the ops that are named, or all."""
    parser = argparse.ArgumentParser(description="Worst memory and steps of each op.")
    parser.add_argument("--scale", type=int, default=1, help="divide sizes and limits by it (default: 1, full size)")
    parser.add_argument("--most", type=float, default=6, metavar="GIB", help="leave out shapes that may need more (default: 6)")
    parser.add_argument("ops", nargs="*", metavar="OP")
    options = parser.parse_args()
    set_scale(options.scale)
    chosen = [(name, version) for name, version in test_cost.computing() if not options.ops or name in options.ops]
    kept = [worst(name, version, int(options.most * 2**30)) for name, version in chosen]
    sys.exit(0 if chosen and all(kept) else 1)


if __name__ == "__main__":
    main()
