"""Memory that a kernel can't leave unseen: each operand between two pages that nobody may touch, sources on pages nobody may write.

    python -m tests.support.guarded avx2        # compute every recorded case so, and name each before it begins
    python -m tests.support.guarded avx2 odd    # each operand at an odd address instead, as a client may place it

A read or write outside ends the process, so tests run this in one of its own. What C leaves undefined at odd addresses shows with
sanitizers only: `.ci/sanitize`.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ggml_rpc_ref.backends import Step, never, written_tensors
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.native import Native
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases import cases_of, recipes
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST
from ggml_rpc_ref.tensor import PlainStorage, Tensor

PAGE = mmap.PAGESIZE
NONE, READ = 0, mmap.PROT_READ

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Guarded:
    """A tensor's bytes in pages of their own.

    Attributes:
        pages: the mapping, with an untouchable page at both ends.
        tensor: the tensor there.
    """

    pages: mmap.mmap
    tensor: Tensor

    def protect(self, begin: int, end: int, rights: int) -> None:
        """Set what may be done with some bytes, whole pages."""
        address = ctypes.addressof(ctypes.c_char.from_buffer(self.pages))
        if _libc.mprotect(ctypes.c_void_p(address + begin), ctypes.c_size_t(end - begin), rights):
            raise OSError(ctypes.get_errno(), "mprotect")

    def close_in(self, *, writable: bool) -> None:
        """Forbid the pages around the bytes, and writing to them unless it is allowed."""
        size = len(self.pages)
        self.protect(0, PAGE, NONE)
        self.protect(size - PAGE, size, NONE)
        if not writable:
            self.protect(PAGE, size - PAGE, READ)


class Place(Enum):
    """Where between its pages a tensor lies."""

    BEGIN = "begin"
    END = "end"
    ODD = "odd"
    """A byte after the first."""


def guarded(tensor: Tensor, place: Place) -> Guarded:
    """Return a copy of a tensor that begins where an untouchable page ends, or a byte later, or ends where one begins."""
    assert tensor.storage is not None
    assert tensor.storage.data is not None
    inner = -(-(tensor.nbytes + 1) // PAGE) * PAGE
    pages = mmap.mmap(-1, inner + 2 * PAGE)
    begin = PAGE + {Place.BEGIN: 0, Place.END: inner - tensor.nbytes, Place.ODD: 1}[place]
    data = np.frombuffer(pages, np.uint8)
    data[begin : begin + tensor.nbytes] = tensor.storage.data[tensor.offset : tensor.offset + tensor.nbytes]
    return Guarded(pages, tensor.at(PlainStorage(data), begin, tensor.name))


def enclosed(node: Node, place: Place) -> Node:
    """Return the node with each tensor enclosed; tensors in one memory stay in one, enclosed by the largest of them."""
    tensors = [tensor for tensor in (node.dst, *node.src) if tensor is not None]
    written = {id(tensor.storage) for tensor in written_tensors(node)}
    homes: dict[int, tuple[Tensor, Guarded]] = {}
    for tensor in sorted(tensors, key=lambda tensor: -tensor.nbytes):
        if id(tensor.storage) not in homes:
            homes[id(tensor.storage)] = tensor, guarded(tensor, place)

    def moved(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        owner, home = homes[id(tensor.storage)]
        return tensor.at(home.tensor.storage, home.tensor.offset + tensor.offset - owner.offset, tensor.name)

    dst = moved(node.dst)
    assert dst is not None
    for identity, (_, home) in homes.items():
        home.close_in(writable=identity in written)
    return Node(dst, tuple(map(moved, node.src)), node.op_params, node.op)


def recorded_nodes() -> Iterator[tuple[str, Node]]:
    """Yield every case that 3.6.1 and the newest version have, with its op's name and id."""
    for version in (DEFAULT, NEWEST):
        for name, op in ops_of(version).items():
            for case in cases_of(name, version):
                if version == DEFAULT or case.since:
                    dst, src = recipes.build(name, case)
                    if dst.nelements:
                        yield f"{name} {case.id}", op.check(dst, src, op.pack(case.params))


def main(variant: str, *places: str) -> None:
    """Compute every case that the variant has a kernel for, at both ends of its pages or where it is said."""
    backend = Native(HostMemory(0), threads=1, variant=variant)
    count = 0
    for name, node in recorded_nodes():
        if backend.supports(node):
            for place in [Place(place) for place in places or ("end", "begin")]:
                sys.stdout.write(f"{name}\n")
                sys.stdout.flush()
                backend.compile([Step(enclosed(node, place), backend.name)])(never)
            count += 1
    sys.stdout.write(f"{count} cases\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
