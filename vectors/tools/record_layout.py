"""Ask a C++ compiler for the sizes and offsets of 3.6.1's records: the witness for the layouts in spec/messages.py.

    python -m vectors.tools.record_layout

Compiles layout.cpp beside this file, whose structures are written by hand from the facts, and writes what it prints to
vectors/upstream-3.6.1-llama-cpp-python-0.3.20/layout.json. Nothing of ggml_rpc_ref takes part. That the structures are the right
ones is shown by the captured bytes: tests/test_derive.py reads frames.json with these offsets.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve()
OUT = HERE.parents[1] / "upstream-3.6.1-llama-cpp-python-0.3.20" / "layout.json"
COMPILER = os.environ.get("CXX", "g++")


def main() -> None:
    """Compile, run, write."""
    with tempfile.TemporaryDirectory() as directory:
        program = Path(directory) / "layout"
        subprocess.run([COMPILER, "-std=c++17", "-Wall", "-Werror", HERE.with_name("layout.cpp"), "-o", program], check=True)
        structures = json.loads(subprocess.run([program], check=True, capture_output=True, text=True).stdout)
    compiler = subprocess.run([COMPILER, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    head = {"schema_version": 1, "protocol": "3.6.1", "recorded_by": "vectors/tools/record_layout.py", "compiler": compiler}
    OUT.write_text(json.dumps(head | {"structures": structures}, indent=1) + "\n")
    print(OUT)


if __name__ == "__main__":
    main()
