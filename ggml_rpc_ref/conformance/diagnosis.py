"""What a server does, found out in a second or two before it is judged: commands, types, ops, clients, cache.

Each command is sent once in its plainest form, on a connection of its own, after those that it needs. A command that gets no
answer, a wrong one, or is refused is the finding; cases that need it for something else are not judged, but wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from ggml_rpc_ref.conformance.arena import Arena, tensor_in
from ggml_rpc_ref.conformance.cases.data import BASIC_TYPES, BULK, fnv1a_of_zeros
from ggml_rpc_ref.conformance.cases.graph_results import COPIES, EXTRAS, SUMS, Sum, kind, place, since
from ggml_rpc_ref.conformance.peer import Facts, Peer
from ggml_rpc_ref.conformance.serving import Serving
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict, require
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.dtypes import BY_NAME, types
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    BufferClear,
    BufferGetBase,
    CommFree,
    CommInit,
    CopyTensor,
    DeviceCount,
    FreeBuffer,
    GetAlignment,
    GetAllocSize,
    GetDeviceMemory,
    GetMaxSize,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    InitTensor,
    MemsetTensor,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    by_number,
    command_name,
)
from ggml_rpc_ref.spec.rules import RULES

CHEAP = 1.0
"""Seconds that an answer may take here, unless the server has shown that it takes longer."""
ASKED_AGAIN = 2
"""So many times a command that has not answered in that time is asked again with the whole time-out."""
ROOM = 8192
"""Bytes of the buffers here: as much as any server has."""


class State(StrEnum):
    """What a server does with something."""

    WORKS = "works"
    LACKING = "lacking"
    """It ends the connection, as servers do with what they do not have."""
    BROKEN = "broken"
    """It does not answer, answers wrongly, or dies."""
    WAITING = "waiting"
    """Not tried, since it needs a command that does not work."""


@dataclass(frozen=True, slots=True)
class Ability:
    """What a server does with one command, type or op; `said`: what was seen, as the rest of a sentence that begins with it."""

    state: State
    said: str = ""


WORKING = Ability(State.WORKS)


@dataclass(slots=True)
class Diagnosis:
    """What a server does.

    Attributes:
        commands: by ggml's names, in the order in which they were tried.
        types: the ggml_types of its version that it takes in SET_TENSOR.
        ops: graphs of one node that it computes, by the words of their cases.
        device: of device 0: alignment, largest buffer, free and total memory, as far as it says.
        several_clients: whether it answers a second client; None: not known.
        keeps_cache: whether it answers SET_TENSOR_HASH for what it was sent; None: not known.
        duration: seconds that it took to find out.
        trouble: of a client, what is wrong where even an honest server is played, as a sentence; "" where nothing is.
    """

    commands: dict[str, Ability] = field(default_factory=dict)
    types: dict[str, Ability] = field(default_factory=dict)
    ops: dict[str, Ability] = field(default_factory=dict)
    device: dict[str, int] = field(default_factory=dict)
    several_clients: bool | None = None
    keeps_cache: bool | None = None
    duration: float = 0.0
    trouble: str = ""

    def faults(self) -> dict[str, Ability]:
        """Return the commands that do not work, those that only wait for another left out."""
        return {name: it for name, it in self.commands.items() if it.state in (State.BROKEN, State.LACKING)}


# ------------------------------------------------------------------------------------------------------------- commands


def _buffer(peer: Peer) -> Any:
    return tensor_in(peer.alloc(ROOM), [16], offset=1024)


def _alloc(peer: Peer) -> None:
    got = peer.ask(AllocBuffer(size=ROOM))
    if (got.remote_ptr, got.remote_size) == (0, 0):
        free = peer.ask(GetDeviceMemory()).free_mem
        require(free < 2 * ROOM, f"a buffer of {ROOM} bytes", f"none, though {free} bytes are free")
        raise peer.no_room(ROOM)
    require(got.remote_size >= ROOM, f"a buffer of {ROOM} bytes", f"one of {got.remote_size}")


def _get(peer: Peer) -> None:
    tensor = _buffer(peer)
    peer.write(tensor, bytes(range(64)))
    got = peer.read(tensor, 64)
    require(got == bytes(range(64)), "the bytes that were written", got[:8].hex())


def _clear(peer: Peer) -> None:
    peer.takes(BufferClear(remote_ptr=peer.alloc(ROOM).remote_ptr, value=1))


def _some_graph(peer: Peer, *, again: bool = False) -> None:
    """Compute a sum, or a product where that is refused: no op is one that every server has."""
    arena = Arena(peer, 2 * ROOM, guarded=False)  # without BUFFER_CLEAR, which may be what is missing
    left = arena.leaf([4], [1.0, 2.0, 3.0, 4.0])
    try:
        _computes(arena, arena.node("ADD", [left, left], [4]), [2.0, 4.0, 6.0, 8.0], again=again)
    except Broken as broken:
        if not broken.refused:
            raise
        arena = Arena(peer.subject.connect(), 2 * ROOM, guarded=False)
        product = arena.node("MUL_MAT", [arena.leaf([2, 2], [1.0, 2.0, 3.0, 4.0]), arena.leaf([2], [1.0, -1.0])], [2])
        _computes(arena, product, [-1.0, -1.0], again=again)


def _computes(arena: Arena, node: Any, result: list[float], *, again: bool) -> None:
    arena.peer.takes(arena.graph(node))
    if again:
        arena.peer.takes(arena.again())
    arena.expect(node, result, 1e-3)


PLACED = (AllocBuffer, BufferGetBase)
"""What is needed to have a tensor somewhere."""

ROWS: Final = {"offset": 0, "size": 4, "n_copies": 8, "stride": 8}

PLAIN: Mapping[type, tuple[tuple[type, ...], Callable[[Peer], object]]] = {
    DeviceCount: ((), lambda peer: peer.ask(DeviceCount())),
    GetAlignment: ((), lambda peer: peer.ask(GetAlignment())),
    GetMaxSize: ((), lambda peer: peer.ask(GetMaxSize())),
    GetDeviceMemory: ((), lambda peer: peer.ask(GetDeviceMemory())),
    AllocBuffer: ((), _alloc),
    BufferGetBase: ((AllocBuffer,), lambda peer: peer.alloc(ROOM)),
    FreeBuffer: ((AllocBuffer,), lambda peer: peer.takes(FreeBuffer(remote_ptr=peer.ask(AllocBuffer(size=ROOM)).remote_ptr))),
    BufferClear: (PLACED, _clear),
    SetTensor: (PLACED, lambda peer: peer.takes(SetTensor(tensor=_buffer(peer), offset=0, data=bytes(64)))),
    GetTensor: ((*PLACED, SetTensor), _get),
    InitTensor: (PLACED, lambda peer: peer.takes(InitTensor(tensor=_buffer(peer)))),
    GetAllocSize: (PLACED, lambda peer: peer.ask(GetAllocSize(tensor=_buffer(peer)))),
    SetTensorHash: (PLACED, lambda peer: peer.ask(SetTensorHash(tensor=_buffer(peer), offset=0, hash=0x1234567))),
    CopyTensor: (PLACED, lambda peer: peer.ask(CopyTensor(src=_buffer(peer), dst=_buffer(peer)))),
    GraphCompute: ((*PLACED, SetTensor, GetTensor), _some_graph),
    GraphRecompute: ((GraphCompute,), lambda peer: _some_graph(peer, again=True)),
    MemsetTensor: (PLACED, lambda peer: peer.takes(MemsetTensor(tensor=_buffer(peer), offset=0, size=64, value=1))),
    SetTensor2d: (PLACED, lambda peer: peer.takes(SetTensor2d(tensor=_buffer(peer), **ROWS, data=bytes(32)))),
    GetTensor2d: (PLACED, lambda peer: peer.ask(GetTensor2d(tensor=_buffer(peer), **ROWS))),
    # of a world of three, so that nobody listens and nobody connects
    CommInit: ((), lambda peer: peer.ask(CommInit(device=0, rank=0, world=3, port=0, host=b""))),
    CommFree: ((), lambda peer: peer.takes(CommFree(device=0))),
}
"""Request class to the commands that must work first, and its plainest use."""


# --------------------------------------------------------------------------------------------------------------- looking


def diagnose(serving: Serving) -> Diagnosis:
    """Find out what a server does; it is started again where it dies of it.

    Raises:
        NotJudged: never; what can't be found out stays unknown.
    """
    began, looking = time.monotonic(), _Looking(serving)
    looking.commands()
    looking.clients()
    looking.types_and_ops()
    looking.details()
    looking.found.duration = time.monotonic() - began
    return looking.found


@dataclass(slots=True)
class _Looking:
    serving: Serving
    found: Diagnosis = field(default_factory=Diagnosis)
    patient: int = ASKED_AGAIN

    def commands(self) -> None:
        """Try every command of the version for which there is a plainest use."""
        for row in sorted(by_number(self.serving.facts.version).values(), key=lambda row: _rank(row.cls)):
            if row.cls not in PLAIN or self.serving.gone or not self._is_plain(row.cls):
                continue
            needed, use = PLAIN[row.cls]
            lacking = [name for name in map(command_name, needed) if self.found.commands[name].state is not State.WORKS]
            self.found.commands[row.name] = (
                Ability(State.WAITING, f"waits for {lacking[0]}") if lacking else self._try(row.name, use)
            )

    def _is_plain(self, cls: type) -> bool:
        """Whether the plainest use is one in this version: the GRAPH_RECOMPUTE of later ones names a graph."""
        return cls is not GraphRecompute or RULES["graph.recompute"].present(self.serving.facts.version)

    def _try(self, name: str, use: Callable[[Peer], object]) -> Ability:
        ability = self._once(use, self._cheap(), name)
        # what looks like no answer may be a slow one: the first few are worth the whole time-out
        if ability.said == NO_ANSWER and self.patient and self._cheap() < self.serving.timeout:
            self.patient -= 1
            ability = self._once(use, self.serving.timeout, name)
        return ability

    def _cheap(self) -> float:
        return min(self.serving.timeout, max(CHEAP, 10 * self.serving.facts.slowest))

    def _once(self, use: Callable[[Peer], object], timeout: float, name: str) -> Ability:
        subject = self.serving.subject()
        subject.timeout = timeout
        try:
            use(subject.connect())
            return WORKING
        except Broken as broken:
            subject.close()  # a server of one client would not serve another one before
            return self._after(broken, name)
        except NotJudged as reason:
            return Ability(State.WAITING, f"not known: {reason}")
        finally:
            subject.close()

    def _after(self, broken: Broken, name: str) -> Ability:
        """Return what a broken attempt shows, after the server has been looked at."""
        if broken.verdict is Verdict.HANG:
            # it may still be waiting for us: only a fresh one, or a fresh connection, says more
            ability = Ability(State.BROKEN, NO_ANSWER)
        elif broken.refused:
            ability = Ability(State.LACKING, "is refused: the connection is closed without an answer")
        else:
            ability = Ability(State.BROKEN, f"is answered wrongly: expected {broken.expected}; {broken.actual}")
        loss = self.serving.loss()
        if loss is not None and not loss.rule:
            silence = f"{ability.said}, nor does anything after it"
            ability = Ability(
                State.BROKEN,
                loss.actual.replace("the server died", "kills the server") if loss.verdict is Verdict.CRASH else silence,
            )
            self.serving.restore(f"a plain {name}", lost=True)
        elif loss is None and broken.verdict is Verdict.HANG and self.serving.target.restartable:
            self.serving.restore(f"a plain {name}", lost=False)
        return ability

    # ------------------------------------------------------------------------------------------------- the rest

    def works(self, *needed: type) -> bool:
        """Whether all of these commands work."""
        return not self.serving.gone and all(
            (it := self.found.commands.get(command_name(cls))) and it.state is State.WORKS for cls in needed
        )

    def clients(self) -> None:
        """Find out whether a second client is answered while a first is connected."""
        if self.serving.gone:
            return
        subject = self.serving.subject()
        try:
            subject.connect()
            self.found.several_clients = subject.answers_second_client()
        except Broken:
            pass  # the cases will say it
        finally:
            subject.close()

    def types_and_ops(self) -> None:
        """Try the version's types with SET_TENSOR, and graphs of one node."""
        names = [dtype.name for dtype in types(self.serving.facts.version).values()]
        if self.works(SetTensor):
            self.found.types = dict(self._each(names, _take_type))
        if self.works(GraphCompute):
            sums = {words: sum for words, sum in GRAPHS.items() if since(sum) <= self.serving.facts.version}
            self.found.ops = dict(self._each(sums, lambda peer, words: _compute(peer, sums[words])))

    def _each(self, names: Iterable[str], use: Callable[[Peer, str], object]) -> Iterator[tuple[str, Ability]]:
        """Try one after another on one connection, and on a new one after each that ends it."""
        subject, peer = self.serving.subject(), None
        subject.timeout = self._cheap()
        for name in names:
            if self.serving.gone:
                return
            try:
                peer = peer or subject.connect()
                use(peer, name)
                yield name, WORKING
            except NotJudged as reason:
                yield name, Ability(State.WAITING, str(reason))
            except Broken as broken:
                peer = None
                subject.close()
                yield name, self._after(broken, name)
                subject = self.serving.subject()
                subject.timeout = self._cheap()
        subject.close()

    def details(self) -> None:
        """Ask for what device 0 says of itself, and whether there is a cache."""
        if self.works():
            subject = self.serving.subject()
            try:
                # one connection for all of it: a server of one client would not answer another one
                peer = subject.connect()
                self.found.device = dict(_device(self, peer))
                if self.works(SetTensor, SetTensorHash):
                    self.found.keeps_cache = _keeps_cache(peer)
            except (Broken, NotJudged):
                pass  # the cases will say it
            finally:
                subject.close()


NO_ANSWER = "gets no answer"
GRAPHS: Final[Mapping[str, Sum]] = SUMS | EXTRAS | COPIES
"""Words to the graphs of one node that are tried."""


def _rank(cls: type) -> int:
    order = list(PLAIN)
    return order.index(cls) if cls in order else len(order)


def _take_type(peer: Peer, name: str) -> None:
    if name not in BASIC_TYPES:
        peer.subject.need_upstreams_numbers("types")
    size = BY_NAME[name].size * 256 // BY_NAME[name].block
    peer.tell(SetTensor(tensor=tensor_in(peer.alloc(ROOM), [256], name), offset=0, data=bytes(size)))


def _compute(peer: Peer, sum: Sum) -> None:
    arena = Arena(peer, 4 * ROOM, guarded=False)
    node = place(arena, sum)
    arena.compute(node)
    arena.expect(node, sum.result, max(sum.tolerance, 1e-3))


def _device(looking: _Looking, peer: Peer) -> Iterator[tuple[str, int]]:
    if looking.works(GetAlignment):
        yield "alignment", peer.ask(GetAlignment()).alignment
    if looking.works(GetMaxSize):
        yield "max_size", peer.ask(GetMaxSize()).max_size
    if looking.works(GetDeviceMemory):
        memory = peer.ask(GetDeviceMemory())
        yield "free_mem", memory.free_mem
        yield "total_mem", memory.total_mem


def _keeps_cache(peer: Peer) -> bool:
    head = time.time_ns().to_bytes(8, "little")  # what no run before has sent
    tensor = tensor_in(peer.alloc(BULK), [BULK], "I8")
    peer.write(tensor, head + bytes(BULK - len(head)), cached=True)
    return bool(peer.ask(SetTensorHash(tensor=tensor, offset=0, hash=fnv1a_of_zeros(head, BULK - len(head)))).result)


# ---------------------------------------------------------------------------------------------------------- what follows

MINIMAL = {
    *("HELLO", "DEVICE_COUNT", "GET_ALIGNMENT", "GET_MAX_SIZE", "GET_DEVICE_MEMORY", "ALLOC_BUFFER", "BUFFER_GET_BASE"),
    *("FREE_BUFFER", "SET_TENSOR", "GET_TENSOR", "GRAPH_COMPUTE"),
}
"""What a program needs that computes with a server's help."""

PROFILES: Mapping[str, set[str]] = {
    "minimal": MINIMAL,
    # what a stock client sends for one model on one device
    "inference": MINIMAL | {"BUFFER_CLEAR", "SET_TENSOR_HASH", "INIT_TENSOR", "GET_ALLOC_SIZE", "GRAPH_RECOMPUTE"},
    "found": set(),
}
"""Profile to the commands that it asks for; "full" asks for all that the version has, "found" for those that the server answers."""


def check_profile(profile: str) -> None:
    """Raise Misuse unless there is such a profile."""
    if profile not in ("full", *PROFILES):
        raise Misuse(f"--profile {profile}: there is full, {', '.join(PROFILES)}")


def is_asked(profile: str, command: str) -> bool:
    """Whether a profile asks for a command."""
    return profile == "full" or command in PROFILES[profile]


def apply(found: Diagnosis, facts: Facts, profile: str) -> None:
    """Write into the facts which commands are useless and which ops are refused, so that cases which need them are not judged."""
    for name, ability in found.faults().items():
        lacks = ability.state is State.LACKING and not is_asked(profile, name)
        verdict = Verdict.UNSUPPORTED if lacks else Verdict.SKIP
        reason = f"it has no {name}" if lacks else f"waits for {name}, which {ability.said}"
        facts.useless[name] = NotJudged(reason, verdict, name)
    lacking = (BY_NAME[name] for name, it in found.types.items() if it.state is State.LACKING and name not in BASIC_TYPES)
    facts.lacking = frozenset(dtype.number for dtype in lacking)
    looked = {words: kind(sum) for words, sum in GRAPHS.items()}
    works = {looked[words] for words, it in found.ops.items() if it.state is State.WORKS}
    facts.refused = frozenset(looked[words] for words, it in found.ops.items() if it.state is State.LACKING) - works
