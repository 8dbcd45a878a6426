"""Print the places of the tensors in a GGUF: `python -m ggml_rpc_ref.golden.gguf_tensors FILE`, run by `omitted`.

The output is a JSON list of [offset, bytes]; on failure the exit status is not 0 and standard error has a sentence.
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.files.gguf import reader_type

MISSING: Final = 3
"""Exit status if the package gguf is not installed."""
MEMORY: Final = 4 * 2**30
"""Bytes that this process may use in addition to the file."""


def main(path: Path) -> int:
    """Print the list; return the exit status."""
    try:
        reader = reader_type(path)
    except Misuse:
        return MISSING
    limit = path.stat().st_size + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        tensors = reader(path).tensors
        print(json.dumps([[int(tensor.data_offset), int(tensor.n_bytes)] for tensor in tensors]))
    except Exception as error:  # whatever the package raises for a damaged file
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
