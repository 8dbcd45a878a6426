"""Ask the genuine 3.6.1 library how it numbers and names its ops and types: the witness for spec/opcodes.py and spec/dtypes.py.

    python -m vectors.tools.record_enums

Runs in the genuine build's own Python (~/.cache/ggml-rpc-ref/upstream/3.6.1) through ctypes and writes
vectors/upstream-3.6.1-llama-cpp-python-0.3.20/enums.json. How many there are comes from ggml.h of that release (GGML_OP_COUNT 96,
which ggml-rpc.h asserts, GGML_TYPE_COUNT 41, GGML_UNARY_OP_COUNT 22, GGML_GLU_OP_COUNT 6): the library checks no bounds.
"""

from __future__ import annotations

import ctypes
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
OUT = HERE.parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "enums.json"
OPS, TYPES, UNARY_OPS, GLU_OPS = 96, 41, 22, 6


def ask() -> dict[str, Any]:
    """Return the tables, by asking for each number."""
    directory = next(Path(sys.prefix).glob("lib/python3*/site-packages/llama_cpp/lib"))
    ggml = ctypes.CDLL(str(directory / "libggml-base.so"))

    def call(name: str, result: Any, number: int) -> Any:
        function = getattr(ggml, name)
        function.restype, function.argtypes = result, [ctypes.c_int]
        return function(number)

    def names(function: str, count: int) -> list[str]:
        return [call(function, ctypes.c_char_p, number).decode() for number in range(count)]

    types = [
        {
            "number": number,
            "name": (call("ggml_type_name", ctypes.c_char_p, number) or b"").decode(),
            "block": call("ggml_blck_size", ctypes.c_int64, number),
            "size": call("ggml_type_size", ctypes.c_size_t, number),
            "quantised": call("ggml_is_quantized", ctypes.c_bool, number),
        }
        for number in range(TYPES)
    ]
    version, commit = (call(name, ctypes.c_char_p, 0).decode() for name in ("ggml_version", "ggml_commit"))
    return {
        "build": f"ggml {version} ({commit}), built on the machine that recorded: {platform.machine()}",
        "ops": names("ggml_op_name", OPS),
        "unary_ops": names("ggml_unary_op_name", UNARY_OPS),
        "glu_ops": names("ggml_glu_op_name", GLU_OPS),
        "types": types,
    }


def main() -> None:
    """Ask in the genuine build's Python; write."""
    from ggml_rpc_ref import upstream

    build = upstream.find("3.6.1")
    answer = subprocess.run([build.python, "-I", HERE, "ask"], check=True, capture_output=True, text=True).stdout
    head = {
        "schema_version": 1,
        "protocol": "3.6.1",
        "package": "llama-cpp-python 0.3.20",
        "recorded_by": "vectors/tools/record_enums.py",
    }
    OUT.write_text(json.dumps(head | json.loads(answer), indent=1) + "\n")
    print(OUT)


if __name__ == "__main__":
    if sys.argv[1:] == ["ask"]:
        print(json.dumps(ask()))
    else:
        main()
