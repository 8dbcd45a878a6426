"""The backend `cuda`: nodes that have a kernel, recorded once and run again as one piece of work of the GPU."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import Any, Final, NamedTuple
from weakref import finalize

from ggml_rpc_ref.backends import (
    Cancelled,
    DeviceFault,
    Run,
    Step,
    Stopped,
    disturbed,
    in_turn,
    never,
    one_after_the_other,
    out_of_memory,
)
from ggml_rpc_ref.backends.changes import CHANGES
from ggml_rpc_ref.backends.cuda.device import Device, Launch, Recorded
from ggml_rpc_ref.backends.cuda.geometry import argument, layout_of, with_maps
from ggml_rpc_ref.backends.cuda.launches import PLANNERS, is_aligned
from ggml_rpc_ref.backends.cuda.memory import CudaAllocation, CudaMemory
from ggml_rpc_ref.backends.cuda.plans import HOPPER, Limits, Plan
from ggml_rpc_ref.backends.cuda.trial import what_is_wrong
from ggml_rpc_ref.backends.oracle import by_oracle
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.ops.cost import granted
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.tensor import Array, Tensor

log = logging.getLogger(__name__)

NAME: Final = "cuda"
PART: Final = 256
"""Kernels that are recorded together; between two such parts a run can stop."""
MOST_STEPS: Final = 2**38
"""Elementary steps (`Op.cost`) of such a part, unless one node has more."""
MOST_KINDS: Final = 4096
"""Kinds of nodes that are remembered."""
OUTCOME: Final = 256
"""Bytes before the scratch memory of a plan; the first four are the word that says whether an index was out of range."""
MISSING: Any = object()


class Kind(NamedTuple):
    """What nodes of one geometry have in common.

    Attributes:
        plan: the kernels that compute them.
        layout: their `struct geometry` without addresses.
    """

    plan: Plan
    layout: Array


class Cuda:
    """Computes nodes with CUDA kernels.

    Args:
        memory: the GPU, and where its buffers lie.
        name: what `serve -d` calls it.
    """

    KERNELS = MappingProxyType(dict.fromkeys(PLANNERS, "CUDA"))

    def __init__(self, memory: CudaMemory, name: str = NAME) -> None:
        self.memory, self.name = memory, name
        device = memory.device()
        self._limits = Limits(device.capability, device.processors)
        self._kinds: dict[tuple[Any, ...], Kind | None] = {}

    @classmethod
    def on_device(cls, index: int, name: str = NAME, limit: int | None = None) -> Cuda:
        """Return the backend of a GPU.

        Args:
            index: as the driver counts.
            name: what `serve -d` calls it.
            limit: bytes that its buffers may have together; None: all that it has.

        Raises:
            Misuse: where it can't be used.
        """
        from ggml_rpc_ref.backends.cuda.driver import Gpu

        try:
            backend = cls(CudaMemory(lambda: Gpu(index), limit), name)
            backend.try_wgmma()
            backend.memory.device()  # a fault of the trial may be one that the process can't recover from
            return backend
        except DeviceFault as fault:
            raise Misuse(f"the device {name!r} can't be used here: {fault}") from None

    def try_wgmma(self) -> None:
        """Do without products by warpgroups from now on where the device has them but does not compute a few of them right."""
        if self._limits.capability != HOPPER:
            return
        if wrong := what_is_wrong(self.memory, self._limits.processors, lambda node: self.compile([Step(node, self.name)])(never)):
            log.warning("%s computes products without wgmma: %s", self.description, wrong)
            self._limits = replace(self._limits, wgmma=False)
            self._kinds.clear()

    @property
    def description(self) -> str:
        """What computes, for people."""
        return self.memory.description

    def supports(self, node: Node) -> bool:
        """Whether there is a kernel, all lies on this device where a GPU can read it, and no result disturbs a source."""
        if node.op.name not in self.KERNELS or not CHANGES.issuperset(node.op.changes):
            return False
        tensors = [tensor for tensor in (node.dst, *node.src) if tensor is not None]
        apart = not disturbed(node) and not _tangled(node)
        return all(map(self._is_here, tensors)) and apart and self._kind(node) is not None

    def _is_here(self, tensor: Tensor) -> bool:
        storage: object = tensor.storage
        here = isinstance(storage, CudaAllocation) and storage.memory is self.memory
        return here and is_aligned(tensor)

    def _kind(self, node: Node) -> Kind | None:
        described = [t and (t.dtype.number, t.ne, t.nb, t.offset % 16) for t in (node.dst, *node.src)]
        key = (node.op.name, node.op.changes, node.op_params, *described)
        found: Kind | None = self._kinds.get(key, MISSING)
        if found is MISSING:
            if len(self._kinds) >= MOST_KINDS:
                self._kinds.clear()
            plan, layout = PLANNERS[node.op.name](node, self._limits), layout_of(node)
            found = None
            if plan is not None and layout is not None and plan.scratch <= self._most_scratch(node):
                found = Kind(plan, layout)
            self._kinds[key] = found
        return found

    def _most_scratch(self, node: Node) -> int:
        return min(granted(node), self.memory.most_scratch - OUTCOME)

    def compile(self, steps: Sequence[Step]) -> Run:
        """Return a run in which each stretch of steps with kernels is recorded."""
        runs = [self._stretch(list(group), own) for own, group in groupby(steps, lambda step: step.compute is None)]
        return runs[0] if len(runs) == 1 else partial(one_after_the_other, runs)

    def _stretch(self, steps: list[Step], own: bool) -> Run:
        if not own:
            return in_turn([(step.node, step.compute) for step in steps if step.compute is not None])
        nodes = [step.node for step in steps]
        kinds = [kind for kind in map(self._kind, nodes) if kind is not None]
        assert len(kinds) == len(nodes), "a node was given to this backend that it does not support"
        return _Stretch(self.memory, nodes, kinds)


class _Stretch:
    """Nodes that the GPU computes without the processor.

    Args:
        memory: the GPU.
        nodes: what to compute, in order.
        kinds: how each of them is computed.

    Raises:
        Violation: graph.op-supported, where there is no scratch memory.
        DeviceFault: where the device has failed.
    """

    def __init__(self, memory: CudaMemory, nodes: list[Node], kinds: list[Kind]) -> None:
        self._memory, self._nodes, self._device = memory, nodes, memory.device()
        with memory.watched(self._device):
            self._outcome = self._scratch(kinds)
            try:
                self._parts = [self._device.record(launches) for launches in _parts(self._device, nodes, kinds, self._outcome)]
            except MemoryError:
                raise out_of_memory(nodes[0]) from None

    def _scratch(self, kinds: list[Kind]) -> int:
        """Return the address of OUTCOME bytes and the scratch memory behind them, which live as long as this object."""
        size = OUTCOME + max(kind.plan.scratch for kind in kinds)
        try:
            address = self._memory.allocate_scratch(self._device, size)
        except MemoryError:
            most = max(range(len(kinds)), key=lambda index: kinds[index].plan.scratch)
            raise out_of_memory(self._nodes[most]) from None
        # not when the process ends, which frees all of it
        finalize(self, self._memory.release_scratch, self._device, address, size).atexit = False
        return address

    def __call__(self, cancelled: Cancelled = never) -> None:
        """Compute the nodes; see `Run`."""
        with self._memory.watched(self._device):
            self._device.fill(self._outcome, 0, OUTCOME)
            for part in self._parts:
                if cancelled():
                    raise Stopped
                _run(part)
            word = bytearray(4)
            self._device.download(self._outcome, memoryview(word))
        if step := int.from_bytes(word, "little"):
            self._refuse(self._nodes[step - 1])

    def _refuse(self, node: Node) -> None:
        """Raise the Violation for a node whose kernel found an index out of range."""
        # the oracle finds the same index, and says it in its words; what came after that node was not computed
        step = by_oracle(node)
        assert step.compute is not None
        in_turn([(node, step.compute)])(never)
        raise AssertionError(f"{node.op.name} {node.dst.name!r}: its kernel refused an index that the oracle accepts")


def _run(part: Recorded) -> None:
    part.start()
    part.wait()


def _parts(device: Device, nodes: Sequence[Node], kinds: Sequence[Kind], outcome: int) -> Iterator[list[Launch]]:
    """Yield the kernels of some nodes, so many at a time that a run can stop soon."""
    launches: list[Launch] = []
    steps = 0
    for number, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
        cost = node.op.cost(node).steps
        if launches and (len(launches) >= PART or steps + cost > MOST_STEPS):
            yield launches
            launches, steps = [], 0
        launches += _launches(device, node, kind, outcome, number)
        steps += cost
    if launches:
        yield launches


def _launches(device: Device, node: Node, kind: Kind, outcome: int, number: int) -> Iterator[Launch]:
    addresses, scratch = [_address(tensor) for tensor in (node.dst, *node.src)], outcome + OUTCOME
    for call in kind.plan.calls:
        packed = argument(kind.layout, addresses, call.more, scratch, outcome, number)
        maps = [device.tensor_map(scratch if slot is None else addresses[1 + slot], of) for slot, of in call.maps]
        yield Launch(node.op.name.lower(), call.kernel, call.grid, call.block, call.shared, with_maps(packed, maps))


def _tangled(node: Node) -> bool:
    """Whether a source that the op updates shares bytes with another one: threads would read there what others have written."""
    for slot in node.op.writes:
        one = node.source(slot)
        for other, two in enumerate(node.src):
            if two is None or other == slot or two.storage is not one.storage:
                continue
            if one.offset < two.offset + two.nbytes and two.offset < one.offset + one.nbytes:
                return True
    return False


def _address(tensor: Tensor | None) -> int:
    if tensor is None:
        return 0
    assert isinstance(tensor.storage, CudaAllocation)
    return tensor.storage.address + tensor.offset
