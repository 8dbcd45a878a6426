"""Backends and servers whose GPU is made of threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from ggml_rpc_ref.backends.cuda.backend import Cuda
from ggml_rpc_ref.backends.cuda.memory import CudaMemory
from ggml_rpc_ref.server.handlers import Device
from tests.support.gpu import Emulated, library
from tests.support.sabotage import InProcess


class Card:
    """A GPU that is opened again after a fault.

    Args:
        order: how the threads of a block take turns (`Emulated`).
        limit: bytes that its buffers may have.
        path: the library with its kernels; None: ours.
        capability: compute capability times ten.
        processors: multiprocessors.
        make: a GPU made of threads, by (order, bytes, capability, processors); None: `Emulated`.

    Attributes:
        contexts: every context there has been.
        gone: whether no more can be made.
    """

    def __init__(
        self,
        order: int = 0,
        limit: int | None = None,
        path: Path | None = None,
        capability: int = 90,
        processors: int = 4,
        make: Callable[[int, int, int, int], Emulated] | None = None,
    ) -> None:
        self._order = order
        self._make = make or partial(Emulated, path or library())
        self._capability, self._processors = capability, processors
        self.contexts: list[Emulated] = []
        self.gone = False
        self.memory = CudaMemory(self._open, limit)
        self.backend = Cuda(self.memory)

    def _open(self) -> Emulated:
        gpu = self._make(self._order, 2**33, self._capability, self._processors)
        if self.gone:
            gpu.dead = "it fell off the bus"
            gpu.memory()
        self.contexts.append(gpu)
        return gpu

    @property
    def gpu(self) -> Emulated:
        """The newest context."""
        return self.contexts[-1]


class OnCards(InProcess):
    """Our server with such GPUs as its devices."""

    def __init__(self, cache: Path, cards: list[Card]) -> None:
        super().__init__(cache)
        devices = [Device("cuda", card.backend.description, card.backend) for card in cards]
        self._server.host = replace(self._server.host, devices=devices)
