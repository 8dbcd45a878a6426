"""GGUF files: the package gguf, with arrays of metadata read in one piece.

The package is an extra, and this is its door (`pip install 'ggml-rpc-ref[gguf]'`).
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.errors import Misuse

_LENGTH: Final = struct.Struct("<Q")


def reader_type(path: Path) -> Any:
    """Return the package's GGUFReader, made faster: arrays of texts or numbers are read in one piece.

    The field of such an array has one part, a list of bytes or a numpy array, where the package's has a part for each element.

    Args:
        path: the file that is to be read, for the message.

    Raises:
        Misuse: if the package is not installed.
    """
    try:
        from gguf import GGUFReader, GGUFValueType
    except ImportError:
        raise Misuse(f"{path} is a GGUF: `pip install 'ggml-rpc-ref[gguf]'` to read it") from None

    class Reader(GGUFReader):  # type: ignore[misc]
        """Reads arrays of metadata in one piece.

        The package makes several numpy arrays of each element: for a vocabulary of 262,144 tokens 19 s and 750 MiB.
        """

        def _get_field_parts(self, orig_offs: int, raw_type: int) -> tuple[int, list[Any], list[int], list[Any]]:
            start = orig_offs + 12
            values: Any = None
            if GGUFValueType(raw_type) == GGUFValueType.ARRAY and self.byte_order == "I":
                kind, count = GGUFValueType(int(self._get(orig_offs, np.uint32)[0])), int(self._get(orig_offs + 4, np.uint64)[0])
                if kind == GGUFValueType.STRING:
                    values, size = _strings(self.data, start, count)
                elif kind in self.gguf_scalar_to_np:
                    values = self._get(start, self.gguf_scalar_to_np[kind], count).copy()
                    size = values.nbytes
                    if len(values) < count:
                        raise ValueError(f"an array of {count} {kind.name} runs past the end of the file")
            if values is None:  # a number, a text, an array of arrays, another byte order
                parts: tuple[int, list[Any], list[int], list[Any]] = super()._get_field_parts(orig_offs, raw_type)
                return parts
            return 12 + size, [values], [0], [GGUFValueType.ARRAY, kind]

    return Reader


def _strings(data: Any, start: int, count: int) -> tuple[list[bytes], int]:
    """Return strings that lie one after another, each after its length in 8 bytes, and the bytes of all."""
    view, found, at = memoryview(data), list[bytes](), start
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(view, at)
        if at + 8 + length > len(view):
            raise ValueError(f"a text of {length} bytes runs past the end of the file")
        found.append(bytes(view[at + 8 : at + 8 + length]))
        at += 8 + length
    return found, at - start
