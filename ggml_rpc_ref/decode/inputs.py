"""What every reader of an input returns, and how it gets at a file's bytes."""

from __future__ import annotations

import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from ggml_rpc_ref.decode.model import Fault
from ggml_rpc_ref.decode.streams import Conversation

Kind = Literal["raw", "hex", "recording", "pcap", "vector"]


@dataclass(slots=True)
class Source:
    """An input, read.

    Attributes:
        kind: what it is.
        conversations: what its connections sent, in the order in which they began.
        fault: what is wrong with the file itself; None: nothing.
        notes: what a reader of the result should know, one sentence each.
    """

    kind: Kind
    conversations: list[Conversation] = field(default_factory=list)
    fault: Fault | None = None
    notes: list[str] = field(default_factory=list)


EMPTY: Final = Fault("input", "is empty", "input.bytes", 0)


def mapped(path: Path) -> memoryview:
    """Return a file's bytes without reading them into memory.

    Raises:
        OSError: where it can't be read.
    """
    with path.open("rb") as file:
        if file.seek(0, 2) == 0:  # mmap refuses an empty file
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
