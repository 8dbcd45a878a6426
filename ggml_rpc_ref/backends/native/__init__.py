"""C kernels, compiled with cffi: a whole graph in one call, on a pool of threads, without the GIL.

    kernels/<op>.c      the op of that name: `plan` says whether it computes a node and how the work is divided
    runtime.c           runs a list of nodes on the threads
    declared.h          what both sides know of each other (`ggml-rpc-ref gen`)
    sources.py          what it is compiled from, as a number by which a module of other sources is recognised
    build.py            how it is compiled: what is written with vectors once for each set of instructions, the rest once
    build_backend.py    brings that to pip

Kernels see nodes that have been checked. The oracle computes those that no kernel does, and says which index is wrong where a
kernel has found one out of range.
"""

from __future__ import annotations

from ggml_rpc_ref.backends.native.backend import Native
from ggml_rpc_ref.backends.native.library import DIRECTORY, VARIABLE, detail, unavailable

__all__ = ["DIRECTORY", "VARIABLE", "Native", "detail", "unavailable"]
