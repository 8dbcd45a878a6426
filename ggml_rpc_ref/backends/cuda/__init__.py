"""CUDA kernels: nodes recorded once and run again as one piece of work of a GPU.

    kernels/<op>.cu     the op of that name: the kernel that teaches, then the fast ones
    launches.py         which of them compute a node; products.py and attention.py where there are several to choose from
    plans.py            what such an answer is made of
    geometry.py         what a kernel is told of its node
    backend.py          a graph as recorded launches
    trial.py            products by warpgroups, tried when a device is opened
    memory.py           buffers in device memory, and what happens when a device is lost
    device.py           all that is needed of a GPU
    driver.py           the same of a real one, by pycuda
    compiler.py         nvcc, once for each architecture

The tests run all of it on a GPU made of threads (tests/support/gpu); the last but one, which needs pycuda, on a stand-in for the
driver's library.
"""

from __future__ import annotations

from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.driver import unavailable

__all__ = ["Cuda", "unavailable"]
