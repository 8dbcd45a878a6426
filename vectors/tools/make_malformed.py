"""Write the malformed vectors: bytes that are wrong, why, and what a server does with them.

    python -m vectors.tools.make_malformed [DIRECTORY]

Made by hand from the public record of what has gone wrong with servers of this protocol (SPEC.md, "Public record"); the bytes are
laid out with `struct` in the package `malformed` beside this file, without any code of ggml_rpc_ref. What `observed` says was seen
when each case was played against the genuine server of its version, each in a fresh process:

    ggml-rpc-ref vectors play --spawn 'ggml-rpc-ref upstream serve 3.6.1 -p {port}' --only malformed
    ggml-rpc-ref vectors play --spawn 'ggml-rpc-ref upstream serve 8.0.0 -p {port}' --only malformed/8.0.0

A folder named after a version has cases of the rules that came with it or after 3.6.1.

vectors/README.md says which parts of the record no vector can have, and why.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from vectors.tools.malformed import buffer, data, device, frame, graph, graph_nodes, later, later_data, later_graph, session, tensor
from vectors.tools.malformed.case import Case

OUT = Path(__file__).resolve().parents[1] / "handmade" / "malformed"
SECTIONS: dict[str, Iterable[Case]] = {
    "frame": frame.cases(),
    "session": session.cases(),
    "device": device.cases(),
    "buffer": buffer.cases(),
    "tensor": tensor.cases(),
    "data": data.cases(),
    "graph": chain(graph.cases(), graph_nodes.cases()),
}
"""Section to its cases at 3.6.1."""
LATER: dict[str, Iterable[Case]] = {
    "session": later.session(),
    "tensor": later.tensors(),
    "data": later_data.cases(),
    "graph": later_graph.cases(),
    "comm": later.comm(),
}
"""Section to cases of the rules that 3.6.1 lacks, at 8.0.0."""


def text(protocol: str, build: str, cases: Iterable[Case]) -> str:
    """Return a file: a case, and each of its steps, on a line of its own."""
    head = {
        "schema_version": 1,
        "protocol": protocol,
        "provenance": {
            "made_by": "vectors/tools/make_malformed.py",
            "sources": f"the public record in SPEC.md; observed: {build}, CPU",
        },
    }
    content = json.dumps(head | {"cases": [case.json for case in cases]}, separators=(",", ":"), ensure_ascii=False)
    for start in ('{"connection"', '{"id"'):
        content = content.replace(start, f"\n{start}")
    return content + "\n"


def main() -> None:
    """Write a file for each section, and for each section of the later rules."""
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else OUT
    for directory, protocol, build, sections in (
        (out, "3.6.1", "llama-cpp-python 0.3.20", SECTIONS),
        (out / "8.0.0", "8.0.0", "xllamacpp 2026.10.11549", LATER),
    ):
        directory.mkdir(parents=True, exist_ok=True)
        for section, cases in sections.items():
            (directory / f"{section}.json").write_text(text(protocol, build, cases), encoding="utf-8")


if __name__ == "__main__":
    main()
