"""Which edges between basic blocks a server has taken, where it was compiled to say so (`upstream install VERSION --coverage`).

The server and we map the same file; a byte of it is 1 once the edge that hashes to it was taken, in any of the processes that the
campaign has started. A server that knows nothing of this leaves it empty.
"""

from __future__ import annotations

import mmap
from pathlib import Path
from typing import Final

import numpy as np

VARIABLE: Final = "GGML_RPC_REF_COVERAGE"
"""The variable that names the file to a server."""
BITS: Final = 18
"""The file has 2^18 bytes; upstream/coverage.c has the same number."""


class Edges:
    """The file of one campaign.

    Args:
        path: where it is made; it must outlive the servers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_bytes(bytes(2**BITS))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 2**BITS, access=mmap.ACCESS_READ)
        self._seen = np.frombuffer(self._map, np.uint8)

    @property
    def count(self) -> int:
        """How many edges were taken so far; those whose hashes are the same count once."""
        return int(np.count_nonzero(self._seen))

    @property
    def taken(self) -> int:
        """The set of them, an edge a bit: sets of several workers are united by `|`."""
        return int.from_bytes(np.packbits(self._seen, bitorder="little").tobytes(), "little")
