"""Ask a genuine library how it numbers and names its ops and types: the witness for spec/opcodes.py and spec/dtypes.py.

    python -m vectors.tools.record_enums [VERSION]...

Runs in a process of its own with the build's library, through ctypes, and writes vectors/upstream-<version>-<build>/enums.json. How
many there are a C compiler says, from the ggml.h of the build's source; the library checks no bounds. The source of 3.6.1 is not
kept: its counts (GGML_OP_COUNT 96, which ggml-rpc.h asserts, GGML_TYPE_COUNT 41, GGML_UNARY_OP_COUNT 22, GGML_GLU_OP_COUNT 6) come
from ggml.h of that release.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

COUNTS = ("OP", "TYPE", "UNARY_OP", "GLU_OP")
OF_3_6_1 = (96, 41, 22, 6)


def ask(directory: str, ops: int, types: int, unary_ops: int, glu_ops: int) -> dict[str, Any]:
    """Return the tables, by asking for each number."""
    base = Path(directory) / "libggml-base.so"
    # ik_llama.cpp has one library for all
    ggml = ctypes.CDLL(str(base if base.exists() else base.with_name("libggml.so")))

    def call(name: str, result: Any, number: int) -> Any:
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, [ctypes.c_int]
        return function(number)

    def names(function: str, count: int) -> list[str]:
        return [call(function, ctypes.c_char_p, number).decode() for number in range(count)]

    found = [
        {
            "number": number,
            "name": (call("ggml_type_name", ctypes.c_char_p, number) or b"").decode(),
            "block": call("ggml_blck_size", ctypes.c_int64, number),
            "size": call("ggml_type_size", ctypes.c_size_t, number),
            "quantised": call("ggml_is_quantized", ctypes.c_bool, number),
        }
        for number in range(types)
    ]
    # older releases do not say which they are
    said = [
        call(name, ctypes.c_char_p, 0).decode() if hasattr(ggml, name) else "unknown" for name in ("ggml_version", "ggml_commit")
    ]
    return {
        "build": f"ggml {said[0]} ({said[1]}), built on the machine that recorded: {platform.machine()}",
        "ops": names("ggml_op_name", ops),
        "unary_ops": names("ggml_unary_op_name", unary_ops),
        "glu_ops": names("ggml_glu_op_name", glu_ops) if glu_ops else [],
        "types": found,
    }


def counts(source: Path) -> tuple[int, ...]:
    """Return how many of each there are, by the ggml.h of a source; a C compiler reads it."""
    if not source.exists():
        return OF_3_6_1
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "counts"
        numbers = ", ".join(f"(int) GGML_{name}_COUNT" for name in COUNTS)
        text = f'#include "ggml.h"\n#include <stdio.h>\nint main(void) {{ printf("%d %d %d %d\\n", {numbers}); return 0; }}\n'
        program.with_suffix(".c").write_text(text)
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, f"-I{source}/include", program.with_suffix(".c"), "-o", program], check=True)
        return tuple(map(int, subprocess.run([program], check=True, capture_output=True, text=True).stdout.split()))


def main() -> None:
    """Ask in a process of the build's own; write."""
    from vectors.tools import builds

    for build in builds.wanted(builds.arguments()):
        command = builds.command(build, __file__, "ask", *counts(builds.source(build)))
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        out = builds.folder(build) / "enums.json"
        out.parent.mkdir(exist_ok=True)
        out.write_text(json.dumps(builds.head(build, __file__) | json.loads(answer), indent=1) + "\n")
        print(out)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(json.dumps(ask(sys.argv[2], *map(int, sys.argv[3:]))))
    else:
        main()
