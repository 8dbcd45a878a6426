"""Ask a C++ compiler for the sizes and offsets of the protocol's records: the witness for the layouts in spec/messages.py.

    python -m vectors.tools.record_layout [VERSION]...

For each installed build that keeps its source, the packed structures are taken word for word from that source's ggml-rpc.cpp, in a
file that is compiled and run and then deleted; what it prints goes to vectors/upstream-<version>-<build>/layout.json. Nothing of
ggml_rpc_ref takes part but what finds the build. A request that ggml-rpc.cpp puts together without a structure (SET_TENSOR,
GRAPH_COMPUTE, SET_TENSOR_2D) has none here: frames.json witnesses it.

The source of 3.6.1 is not kept: its layout.json was made from layout.cpp beside this file, whose structures are written by hand
from the facts (`python -m vectors.tools.record_layout --by-hand`). That those are the right ones is shown by the captured bytes:
tests/test_derive.py reads frames.json with these offsets.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from vectors.tools import builds

HERE = Path(__file__).resolve()
BY_HAND = HERE.parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "layout.json"
COMPILER = os.environ.get("CXX", "g++")

BEGIN = """#include "ggml.h"
#include <cstddef>
#include <cstdint>
#include <cstdio>
%s
"""
STRUCTURE = re.compile(r"^struct (rpc_\w+) \{(.*?)^\};", re.MULTILINE | re.DOTALL)
FIELD = re.compile(r"^\s*\w+\s+(\w+)(?:\[.*\])?;", re.MULTILINE)


def structures(text: str) -> tuple[str, list[tuple[str, list[str]]]]:
    """Return the packed part of ggml-rpc.cpp, and its structures' names with those of their fields."""
    packed = text[text.index("#pragma pack(push, 1)") : text.index("#pragma pack(pop)") + len("#pragma pack(pop)")]
    # one field a line, each with a type of one word; a comment may follow
    return packed, [(name, FIELD.findall(body)) for name, body in STRUCTURE.findall(packed)]


def program(text: str, includes: str) -> str:
    """Return a C++ program that prints the layout of the structures in a ggml-rpc.cpp."""
    packed, found = structures(text)
    lines = [BEGIN % includes, packed, "int main() {", '    printf("{");']
    for index, (name, fields) in enumerate(found):
        comma = "," if index else ""
        lines.append(f'    printf("{comma}\\"{ours(name)}\\": {{\\"size\\": %zu, \\"fields\\": {{", sizeof({name}));')
        for number, field in enumerate(fields):
            comma = "," if number else ""
            place = f"offsetof({name}, {field}), sizeof({name}::{field})"
            lines.append(f'    printf("{comma}\\"{field}\\": {{\\"offset\\": %zu, \\"size\\": %zu}}", {place});')
        lines.append('    printf("}}");')
    return "\n".join([*lines, '    printf("}");', "}", ""])


def ours(name: str) -> str:
    """Return the name that a structure has in layout.json: rpc_msg_get_tensor_2d_req is GetTensor2d, a …_rsp ends in Reply."""
    words = name.removeprefix("rpc_").removeprefix("msg_").split("_")
    kind = words.pop() if words[-1] in ("req", "rsp") else ""
    return "".join(word.capitalize() for word in words) + ("Reply" if kind == "rsp" else "")


def compiled(source: Path, *flags: str) -> Any:
    """Compile a program, run it, and return the JSON that it prints."""
    with tempfile.TemporaryDirectory() as directory:
        binary = Path(directory) / "layout"
        subprocess.run([COMPILER, "-std=c++17", *flags, str(source), "-o", str(binary)], check=True)
        return json.loads(subprocess.run([binary], check=True, capture_output=True, text=True).stdout)


def compiler() -> str:
    """Return the compiler's name and version."""
    return subprocess.run([COMPILER, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]


def write(path: Path, head: dict[str, Any], layout: Any) -> None:
    """Write a layout.json."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(head | {"compiler": compiler(), "structures": layout}, indent=1) + "\n")
    print(path)


def main() -> None:
    """Compile, run, write."""
    if builds.arguments() == ["--by-hand"]:
        head = {"schema_version": 1, "protocol": "3.6.1", "recorded_by": "vectors/tools/record_layout.py"}
        write(BY_HAND, head, compiled(HERE.with_name("layout.cpp"), "-Wall", "-Werror"))
        return
    for build in builds.wanted(builds.arguments()):
        ggml = builds.source(build)
        rpc = ggml / "src" / "ggml-rpc"
        if not rpc.exists():  # ik_llama.cpp
            rpc = ggml / "src"
        includes = '#include "transport.h"' if (rpc / "transport.h").exists() else ""
        with tempfile.TemporaryDirectory() as directory:
            source = Path(directory) / "layout.cpp"
            source.write_text(program((rpc / "ggml-rpc.cpp").read_text(), includes))
            layout = compiled(source, f"-I{ggml}/include", f"-I{ggml}/src", f"-I{rpc}")
        head = builds.head(build, __file__)
        del head["package"]
        write(builds.folder(build) / "layout.json", head, layout)


if __name__ == "__main__":
    main()
