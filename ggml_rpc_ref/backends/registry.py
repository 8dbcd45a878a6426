"""The backends there are: what the command line offers, what a server makes, and what SPEC.md's support matrix shows.

A row names its module, which is imported only when something is asked of the row: a backend may need a compiler or a driver that
this machine lacks. Each such module has the class, and may have `unavailable()`, which says why the backend can't be used here, and
`detail()`, which says what it computes with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any

from ggml_rpc_ref.backends import Backend
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.errors import Misuse


@dataclass(frozen=True, slots=True)
class Row:
    """One backend.

    Attributes:
        name: what `serve -d` calls it.
        doc: what it is, in a sentence.
        module: its module, in ggml_rpc_ref.backends.
        type: its class there.
        own: what the support matrix says of an op that the backend computes itself; an op left to the oracle has "yes".
        index: which of several devices of this kind; `serve -d` calls them "cuda:0", "cuda:1".
    """

    name: str
    doc: str
    module: str
    type: str
    own: str = "yes"
    index: int | None = None

    def unavailable(self) -> str:
        """Return why it can't be used on this machine; nothing where it can."""
        try:
            module = self._module()
        except ImportError as error:
            return str(error)
        if not hasattr(module, "unavailable"):
            return ""
        reason: str = module.unavailable() if self.index is None else module.unavailable(self.index)
        return reason

    def detail(self) -> str:
        """Return what it computes with here, where its module has a choice; else nothing."""
        module: Any = None if self.unavailable() else self._module()
        detail: str = module.detail() if hasattr(module, "detail") else ""
        return detail

    def kernels(self) -> Mapping[str, Any]:
        """Return the ops that it computes itself."""
        kernels: Mapping[str, Any] = self.made().KERNELS
        return kernels

    def make(self, memory: int, copies: int = 0, threads: int = 0, limit: int | None = None) -> Backend:
        """Return a backend of this kind.

        Args:
            memory: bytes of this machine's memory that its buffers may have together.
            copies: bytes of what it keeps beside the buffers to be faster, such as float32 copies of weights.
            threads: threads that compute one node together, for a backend that has some of its own; 0: half the cores.
            limit: bytes that its buffers may have together where they lie in a memory of its own; None: all of that.

        Raises:
            Misuse: where it can't be used here.
        """
        if reason := self.unavailable():
            raise Misuse(f"the device {self.name!r} can't be used here: {reason}")
        made = self.made()
        if hasattr(made, "on_device"):
            found: Backend = made.on_device(self.index, self.name, limit)
            return found
        own = {"threads": threads} if getattr(made, "threaded", False) else {}
        backend: Backend = made(HostMemory(memory), copies=copies, **own)
        return backend

    def made(self) -> Any:
        """Return its class."""
        return getattr(self._module(), self.type)

    def _module(self) -> Any:
        return import_module(f"ggml_rpc_ref.backends.{self.module}")


ROWS = (
    Row("oracle", "the definitions themselves, in numpy", "oracle", "Oracle"),
    Row("upstream-cpu", "the definitions with the roundings of upstream's CPU backend", "upstream_cpu", "UpstreamCpu", "rounds"),
    Row("native", "kernels in C, on several threads", "native", "Native", "C"),
    Row("cuda", "kernels in CUDA, on a GPU", "cuda", "Cuda", "CUDA", index=0),
)
BACKENDS: dict[str, Row] = {row.name: row for row in ROWS}
"""Name to row."""


AUTO = "auto"
"""Stands for the fastest backend that is right by the oracle's tolerances and can be used here."""


def maker(name: str, threads: int = 0) -> Callable[[HostMemory], Backend]:
    """Return what makes the backend of that name in a given host memory.

    Raises:
        Misuse: for an unknown name, one that has memory of its own, or one that can't be used here.
    """
    row = find(name)
    if reason := row.unavailable():
        raise Misuse(f"the device {row.name!r} can't be used here: {reason}")
    made = row.made()
    if hasattr(made, "on_device"):
        raise Misuse(f"the device {row.name!r} has a memory of its own: choose one that computes in this machine's")
    own = {"threads": threads} if getattr(made, "threaded", False) else {}

    def make(memory: HostMemory) -> Backend:
        backend: Backend = made(memory, **own)
        return backend

    return make


def find(name: str) -> Row:
    """Return the row of a backend, by its name or by `AUTO`.

    Raises:
        Misuse: for an unknown name.
    """
    if not isinstance(name, str):
        raise Misuse(f"device = {name!r}: it must be a name, one of {', '.join(BACKENDS)}")
    if name == AUTO:
        return BACKENDS["oracle" if BACKENDS["native"].unavailable() else "native"]
    kind, _, number = name.partition(":")
    if number.isdecimal() and kind in BACKENDS and BACKENDS[kind].index is not None:
        return replace(BACKENDS[kind], name=name, index=int(number))
    if name not in BACKENDS:
        raise Misuse(f"there is no device {name!r}: choose from {', '.join(BACKENDS)}")
    return BACKENDS[name]
