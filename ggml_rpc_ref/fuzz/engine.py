"""A campaign against one server: sessions are made, had, judged, and what is wrong is reproduced. It yields events.

    for event in Campaign(Watched(make_target), Options(max_time=60)).run():
        ...

Sessions follow each other as fast as the server takes them. That it lives is seen from its answers, that it died from its process
or from a connection that is not served; then the last sessions are had again on fresh servers, to know which one it was.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.fuzz.choose import Chooser
from ggml_rpc_ref.fuzz.converse import AT_LEAST, TOO_SLOW, End, Heard, Speaker
from ggml_rpc_ref.fuzz.events import PASSED_ON, Began, Count, Ended, Event, Found, Learned, Progressed
from ggml_rpc_ref.fuzz.finds import Find, Key, Store, key_of, key_of_death
from ggml_rpc_ref.fuzz.generate import Generator
from ggml_rpc_ref.fuzz.inside import Inside
from ggml_rpc_ref.fuzz.introduce import free_memory, introduce, shown_address
from ggml_rpc_ref.fuzz.judge import Kind, Suspicion, against, is_complete, suspicions
from ggml_rpc_ref.fuzz.numbers import nodes_of
from ggml_rpc_ref.fuzz.packet import Packet
from ggml_rpc_ref.fuzz.plan import sentinel
from ggml_rpc_ref.fuzz.reproduce import SHRINK_SECONDS, Reproducer
from ggml_rpc_ref.fuzz.seeds import sessions_of
from ggml_rpc_ref.fuzz.session import Buffer, Session, Step
from ggml_rpc_ref.fuzz.watch import Death, Usage, Watched
from ggml_rpc_ref.net.stream import SLOWEST
from ggml_rpc_ref.server.tensor_cache import THRESHOLD
from ggml_rpc_ref.spec.messages import GetTensor, SetTensor, SetTensorHash, command_name, has_field
from ggml_rpc_ref.spec.versions import Version

RECENT: Final = 16
"""Sessions before a death that may have caused it."""
PROGRESS: Final = 1.0
"""Seconds between two `Progressed`."""
TOO_MUCH: Final = 512 * 2**20
"""Bytes of memory that a session may make the server take beyond what it is sent."""
LEAK: Final = 384 * 2**20
"""Bytes that the server may grow over many sessions."""
LOOK_FOR_LEAKS: Final = 10
"""Sessions between two looks at the device's free memory."""
MOMENT: Final = 0.05
"""Seconds below which a session can't have cost too much: to fill that much memory takes longer."""
LOOK_FOR_COSTS: Final = 16
"""Sessions between two looks at what the server's process uses, where they took no longer."""
MOST_PASSED_ON: Final = 2**18
"""Bytes of a session that is passed on to other parts of the campaign."""
LOOKS: Final = 3
PATIENCE: Final = 5.0
"""Times the timeout after which a server that is not ours to start is given up: it ends the campaign."""
SETTLING: Final = 10.0
"""Seconds that the device's memory may take to be free again: a server may see late that its client has left."""
DYING: Final = 1.0
"""Seconds that a dying process may take."""
LATE: Final = {
    End.DONE: 0.0, End.NO_ROOM: 0.0, End.CLOSED: 0.02, End.SILENT: 0.02, End.LOST: 0.02, End.LEFT: 0.3, End.WAITED: 0.02,
}  # fmt: skip
"""Seconds that are waited for a death after a session that is had once more, by how it ended."""
MOST_WAITS: Final = 200
"""How often it is looked whether a server waits for the rest of what it must refuse: each time costs half a second."""
REFUSALS: Final = 0.5
"""The part of the sessions that a server ended early of which the model is asked whether it was right to."""
MODEL_SHARE: Final = 0.3
"""The part of the time that may go into asking the model."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to fuzz.

    Attributes:
        seed: of all choices.
        max_time: seconds; reproducing what was found last may take a little longer.
        max_messages: messages to send; 0: any number.
        ops: names of the ops to use; empty: all.
        mutations: names of the mutations to use; empty: all.
        timeout: seconds that an answer may take.
        rate: messages a second at most; 0: as many as the server takes.
        always_model: whether every session is compared with the model, not only those in which a mutation was accepted.
        shrink: seconds for which a find may be shrunk.
        tries: how often a find is repeated.
        plain: whether to make well-formed sessions only.
        feedback: whether sessions that led to something new are changed further.
        seeds: files and directories of conversations to begin with (`seeds`).
    """

    seed: str = "0"
    max_time: float = 60.0
    max_messages: int = 0
    ops: tuple[str, ...] = ()
    mutations: tuple[str, ...] = ()
    timeout: float = 2.0
    rate: float = 0.0
    always_model: bool = False
    shrink: float = SHRINK_SECONDS
    tries: int = 3
    plain: bool = False
    feedback: bool = True
    seeds: tuple[str, ...] = ()


@dataclass(slots=True)
class _Seen:
    """What a session did to the server."""

    heard: list[Heard]
    suspicions: list[Suspicion] = field(default_factory=list)
    death: Death | None = None
    is_new: bool = False


class Campaign:
    """Fuzzes one server.

    Args:
        server: watched; started and stopped here.
        options: how.
        store: of the finds; those in it are known.
        before: what other parts of the same campaign have learned.
    """

    def __init__(
        self, server: Watched, options: Options | None = None, store: Store | None = None, before: Learned | None = None
    ) -> None:
        self.server, self.options, self.store = server, options or Options(), store or Store()
        self._before, self._new = before or Learned(), deque[Session](maxlen=PASSED_ON)
        self.count, self._begun = Count(), time.monotonic()
        self._recent: deque[Session] = deque(maxlen=RECENT)
        self._modelling, self._reproducing = 0.0, 0.0
        self._idle = Usage()
        self._rejected: dict[Key, int] = {}
        self._free: int | None = None
        self._keeps_memory = False
        self._lacking = 2**64  # so many bytes for a session's buffers even a fresh server has not
        self._is_renewed = False
        self._edges = 0
        self._waits, self._rng = 0, Random(self.options.seed)
        self._kept: set[int] = set()

    def run(self) -> Iterator[Event]:
        """Yield what happens. The last event is `Ended`, an interrupt (KeyboardInterrupt) included.

        Raises:
            ConnectionError, TimeoutError: where the target can't be reached or does not speak the protocol.
            Misuse: where it can't be started, or for ops that its version has not.
        """
        why, is_interrupted = "", False
        try:
            self.server.start()
            self._meet()
            yield Began(self.server.target.name, self.facts.version, self.facts.devices, self.facts.one_client)
            self._begun = time.monotonic()
            try:
                yield from self._first_looks()
                yield from self._sessions()
            except ConnectionError as error:
                why = str(error)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            self.server.stop()
        self._tick()
        self._look_at_edges()
        yield Ended(self.count, why, is_interrupted, self._learned())

    def _learned(self) -> Learned:
        """Return what is worth passing on: sessions with large uploads are not."""
        small = [s for s in self._new if sum(len(step.packet(s.version).template) for step in s.steps) <= MOST_PASSED_ON]
        return Learned(tuple(small), frozenset(self.count.states))

    def _meet(self) -> None:
        self.facts = introduce(self.server.target.endpoint, self.options.timeout)
        version, devices = self.facts.version, self.facts.devices
        self.generator = Generator(version, devices, ops=self.options.ops)
        seeds = sessions_of(map(Path, self.options.seeds), version, devices)
        self.chooser = Chooser(self.generator, self.options.seed, self.options.mutations, seeds, self._before.corpus)
        if self.options.plain:
            self.chooser.names = []
        self.model = Inside(version, devices)
        self._idle, self._free = self.server.usage(), self._free_now()

    def _first_looks(self) -> Iterator[Event]:
        """Yield what was seen when the server was met: that it serves one client at a time, that its handles are addresses."""
        version = self.facts.version
        if self.facts.one_client:
            two = Session("two clients", version, steps=[Step(connection, sentinel(version)) for connection in range(2)])
            words = "a second client is not answered while a first one is connected"
            yield from self._first_look(Suspicion(Kind.WAITS, "session.concurrent", words), two)
        if address := shown_address(self.server.target.endpoint, version, self.options.timeout, self.server.pid):
            one = Session("a buffer", version, buffers=(Buffer(0, 2**20),))
            words = f"a buffer is shown by an address of the server's own memory ({address:#x})"
            yield from self._first_look(Suspicion(Kind.WRONG, "buffer.opaque", words), one)

    def _first_look(self, found: Suspicion, session: Session) -> Iterator[Event]:
        key = key_of(found, session)
        if not self._is_known(key):
            yield Found(self._keep(Find(found.kind, key, found.words, found.rule, [session], reproduced=(1, 1))))

    def _speaker(self, patience: float = 1.0) -> Speaker:
        timeout = self.options.timeout * patience
        # what is had once more on suspicion is given time: a busy machine may take half a second for anything
        early = AT_LEAST if patience <= 1 else 2 * AT_LEAST * patience
        worked = self.server.worked if self.server.pid else None
        return Speaker(self.server.target.endpoint, timeout, self.facts.one_client, early, worked)

    def _sessions(self) -> Iterator[Event]:
        shown = 0.0
        while not self._is_over():
            session = self.chooser.next()
            seen = self._have(session)
            self.chooser.had(is_new=seen.is_new)
            yield from self._consider(session, seen)
            self._tick()
            if self.count.seconds - shown > PROGRESS:
                shown = self.count.seconds
                self._look_at_edges()
                edges = self.count.edges.bit_count()
                self.count.growth.append((round(shown, 1), len(self.store.known), len(self.count.states), edges))
                yield Progressed(self.count, len(self.store.known))
            self._pause()

    def _is_over(self) -> bool:
        enough = self.options.max_messages
        return time.monotonic() - self._begun > self.options.max_time or bool(enough and self.count.messages >= enough)

    def _tick(self) -> None:
        self.count.seconds = time.monotonic() - self._begun
        self.count.restarts = self.server.starts

    def _look_at_edges(self) -> None:
        self.count.edges = self.server.edges.taken if self.server.edges else 0

    def _pause(self) -> None:
        if self.options.rate:
            ahead = self.count.messages / self.options.rate - (time.monotonic() - self._begun)
            time.sleep(max(0.0, min(ahead, 1.0)))

    # ---------------------------------------------------------------------------------------------------------- one session

    def _have(self, session: Session, patience: float = 1.0, *, model: bool = False) -> _Seen:
        """Have a session and judge it."""
        before = self._idle
        heard = self._speaker(patience).have(session, self._refused(session))
        self.count.note(session)
        self.count.bytes += sum(len(one.sent) for one in heard)
        self._recent.append(session)
        seen = _Seen(heard)
        ends = {one.end for one in heard}
        if ends != {End.DONE}:
            seen.death = self.server.death(DYING if End.LOST in ends else 0.05 if End.SILENT in ends else 0.0)
        self._waits += sum(one.waits for one in heard)
        if seen.death is None:
            seen.is_new = self._is_new(session, heard)
            seen.suspicions = [
                *suspicions(session, heard),
                *self._costs(session, before, ends, sum(one.seconds for one in heard)),
                *self._leaks(),
            ]
            if End.NO_ROOM in ends:
                seen.suspicions += self._without_room(session)
            elif self._is_for_the_model(session, heard) or model:
                seen.suspicions += self._model(session, heard)
        self._kept |= hashes_kept(session)
        return seen

    def _refused(self, session: Session) -> list[bool]:
        """Return for each connection whether a right server refuses a message that does not come to its end; empty: not known."""
        is_cut = session.short or any(isinstance(step.message, Packet) for step in session.steps)
        if not is_cut or session.headless or session.leaves or self._waits > MOST_WAITS:
            return []
        said = self.model.have(session)
        return [] if any(one.lacked for one in said) else [one.violation is not None and one.left > 0 for one in said]

    def _is_new(self, session: Session, heard: Sequence[Heard]) -> bool:
        """Whether the server did what it had not done before: edges, ends, replies, memory, words in its log. Such one is kept."""
        target = session.notes[-1].target if session.notes else ""
        grown = ((self._idle.peak >> 20) or 1).bit_length()
        state = f"{target}: {self.server.said}; 2^{grown} MiB; " + ", ".join(outcome_of(one) for one in heard)
        edges = self.server.edges.count if self.server.edges else 0
        is_unseen = not self.count.states[state] and state not in self._before.states
        # where edges are counted they decide: of the genuine 3.6.1, 3,000 sessions took 8,384, and 7,741 with outcomes beside them
        is_new = edges > self._edges if self.server.edges else is_unseen
        if is_new and self.options.feedback and self.chooser.keep(session):
            self._new.append(session)
        self._edges = edges
        self.count.states[state] += 1
        return is_new

    def _costs(self, session: Session, before: Usage, ends: set[End], seconds: float) -> Iterator[Suspicion]:
        """Yield what a session cost out of all proportion to its bytes."""
        after = self._idle = self.server.usage() if seconds > MOMENT or not self.count.sessions % LOOK_FOR_COSTS else before
        if End.SILENT in ends or not after.now:
            return
        subject = session.notes[-1].target if session.notes else ""
        sent = sum(len(step.packet(session.version).template) for step in session.steps)
        if (took := after.seconds - before.seconds) > TOO_SLOW + sent / SLOWEST:
            yield Suspicion(Kind.SLOW, "graph.cost", f"{sent} bytes made it compute for {took:.1f} s", subject=subject)
        if (grown := after.peak - max(before.peak, before.now)) > TOO_MUCH + 4 * sent:
            self.server.forget_peak()
            words = f"{sent} bytes made it use {grown // 2**20} MiB more"
            yield Suspicion(Kind.MEMORY, "frame.size-bounded", words, subject=subject)

    def _leaks(self) -> Iterator[Suspicion]:
        """Yield that memory is missing between two sessions, where what a device has free stands still then."""
        # a device that did not say the same each time while nobody used it will not do so now
        if self._free is None or self.count.sessions % LOOK_FOR_LEAKS:
            return
        if self._is_renewed:  # asked only now: most servers that follow a dead one die before
            self._free, self._is_renewed = self._free_now(), False
            return
        end, free = time.monotonic() + SETTLING, self._free_now()
        while free is not None and free < self._free and time.monotonic() < end:
            time.sleep(0.05)
            free = self._free_now()
        if free is not None and free < self._free:
            words = f"{self._free - free} bytes of the device are not free again after their connections have ended"
            self._free = free  # what is lost once is told once
            yield Suspicion(Kind.LEAK, "session.frees", words)

    def _without_room(self, session: Session) -> Iterator[Suspicion]:
        """Yield that memory for a session's buffers is not given after all others have ended, where a fresh server gives it.

        No server must have memory for everything, and it may see late that a client has left.
        """
        wanted = sum(buffer.size for buffer in session.all_buffers)
        # where it was seen to keep memory it is not waited for again
        patience = 0.0 if self._keeps_memory else SETTLING
        if not self.server.restartable or wanted >= self._lacking or self._gets_room(session, patience):
            return
        recent = list(self._recent)
        self._renew("it has no room")
        self._recent.extend(recent)
        if self._gets_room(session):
            self._keeps_memory = True
            words = f"{wanted} bytes for buffers are not given after all connections have ended; a fresh server gives them"
            yield Suspicion(Kind.LEAK, "session.frees", words)
        else:
            self._lacking = wanted

    def _gets_room(self, session: Session, patience: float = 0.0) -> bool:
        """Whether a session's buffers can be allocated, now or after so many seconds at the most."""
        bare = replace(session, steps=[step for step in session.steps if isinstance(step.message, Buffer)])
        end, pause = time.monotonic() + patience, 0.05
        while any(one.end is End.NO_ROOM for one in self._speaker().have(bare)):
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause *= 2  # a try that got some of the buffers has them until the server gives those back, late as well
        return True

    def _free_now(self) -> int | None:
        """Return what device 0 has free while nobody uses it; None where that is what the machine has, which others change."""
        looks = {free_memory(self.server.target.endpoint, self.facts.version, self.options.timeout) for _ in range(LOOKS)}
        return looks.pop() if len(looks) == 1 else None

    def _is_for_the_model(self, session: Session, heard: Sequence[Heard]) -> bool:
        if self.options.always_model:
            return True
        if any(one.end in (End.LOST, End.SILENT, End.LEFT, End.WAITED) for one in heard):
            return False
        if not session.notes and not any(isinstance(s.message, GetTensor) and s.expected is None for s in session.steps):
            return False  # its right answers are known
        if not any(is_complete(one) and not one.plan.rule for one in heard) and self._rng.random() > REFUSALS:
            return False
        return self._modelling < MODEL_SHARE * (time.monotonic() - self._begun)

    def _model(self, session: Session, heard: Sequence[Heard]) -> list[Suspicion]:
        begun = time.monotonic()
        said = self.model.have(session)
        found = [one for one in against(session, heard, said) if not one.unless_new or self._takes_alike(session)]
        if hashes_asked(session) & self._kept:
            found = [one for one in found if one.rule != "data.hash-miss"]
        for one in said:
            if one.crash is not None:
                words = f"{type(one.crash).__name__} in our own server: {one.crash}"
                found.append(Suspicion(Kind.DEFECT, "", words, subject=type(one.crash).__name__))
        self.count.modelled += 1
        self.count.verdicts.update(f"{one.violation.rule if one.violation else 'accepted'}" for one in said)
        self._modelling += time.monotonic() - begun
        return found

    def _takes_alike(self, session: Session) -> bool:
        """Whether the server takes the session as it was before it was changed, and its nodes are the same."""
        before = self.generator.session(session.seed, session.focus)
        nodes, known = nodes_of(session), nodes_of(before)
        if nodes is None or known is None or not nodes <= known:
            return False
        return all(one.end is End.DONE and is_complete(one) for one in self._speaker().have(before))

    # -------------------------------------------------------------------------------------------------------------- finds

    def _consider(self, session: Session, seen: _Seen) -> Iterator[Event]:
        """Yield a find for what is new among what is wrong, and see to it that there is a server to go on with."""
        if seen.death is not None:
            self.count.deaths += 1
            yield from self._died(session, seen.death)
            return
        if not self.server.restartable and any(one.end in (End.SILENT, End.LOST) for one in seen.heard):
            yield from self._lost(session)
        is_new = False
        for found in seen.suspicions:
            key = key_of(found, session)
            if self._is_known(key):
                continue
            find = self._investigate(key, found, session)
            if find is not None:
                is_new = True
                yield Found(find)
        # one that hangs costs as much as a death
        self.chooser.learn(session, died=any(one.end in (End.SILENT, End.WAITED) for one in seen.heard), is_new=is_new)
        if any(one.end in (End.SILENT, End.LOST) for one in seen.heard):
            self._renew("it hangs")

    def _lost(self, session: Session) -> Iterator[Event]:
        """Yield that a server which is not ours to start serves no more, and end the campaign; nothing where it does serve.

        Raises:
            ConnectionError: where it does not.
        """
        try:
            introduce(self.server.target.endpoint, PATIENCE * self.options.timeout)
        except (ConnectionError, TimeoutError) as error:
            key = (Kind.HANG.value, "session.survives", session.notes[-1].target if session.notes else "")
            if not self._is_known(key):
                sessions = list(self._recent)[-2:]
                yield Found(self._keep(Find(Kind.HANG, key, f"it serves no more: {error}", "session.survives", sessions)))
            raise ConnectionError(f"the server serves no more: {error}") from None

    def _is_known(self, key: Key) -> bool:
        known = self.store.known.get(key)
        if known is not None:
            known.seen += 1
        return key in self.store.known or self._rejected.get(key, 0) >= 3

    def _died(self, session: Session, death: Death) -> Iterator[Event]:
        key = key_of_death(death, session)
        is_new = not self._is_known(key)
        self.chooser.learn(session, died=True, is_new=is_new)
        if not is_new:
            self._renew(death.how)
            return
        recent = list(self._recent)
        if not self.server.restartable:
            self._keep(Find(Kind.CRASH, key, f"the server died: {death.how}", "session.survives", recent[-2:], death=death))
            raise ConnectionError(f"the server died: {death.how}")
        self._renew(death.how)
        again = self._reproducer(fresh=True)
        culprits = again.culprits(key, recent)
        if not culprits:
            self._rejected[key] = self._rejected.get(key, 0) + 1
            return
        shorter, reproduced = self._smaller(again, key, culprits)
        if not reproduced:
            return
        about = f"the server dies: {death.how}{f', in {death.place}' if death.place else ''}"
        find = Find(Kind.CRASH, key, about, "session.survives", shorter, death=death)
        find.reproduced = reproduced, again.tries
        find.steps_before = sum(len(culprit.steps) for culprit in culprits)
        yield Found(self._keep(find))

    def _investigate(self, key: Key, found: Suspicion, session: Session) -> Find | None:
        """Return a find where what seemed wrong is so again."""
        if found.kind is Kind.LEAK:  # of many sessions together
            return self._keep(Find(found.kind, key, found.words, found.rule, list(self._recent), reproduced=(1, 1)))
        again = self._reproducer(fresh=found.kind in (Kind.HANG, Kind.MEMORY, Kind.WAITS))
        if key not in again.attempt([session]):
            self._rejected[key] = self._rejected.get(key, 0) + 1
            return None
        shorter, reproduced = self._smaller(again, key, [session])
        if not reproduced:
            return None
        find = Find(found.kind, key, found.words, found.rule, shorter, steps_before=len(session.steps))
        find.reproduced = reproduced, again.tries
        return self._keep(find)

    def _smaller(self, again: Reproducer, key: Key, sessions: list[Session]) -> tuple[list[Session], int]:
        """Return smaller sessions, and how often they did it again; the ones given where the smaller ones never did."""
        # a smaller one that only seemed to do it is found out afterwards: none of them needs as much time as what counts
        quick = self._reproducer(fresh=False)
        for tried in (quick.shrunk(key, sessions), sessions):
            if count := again.repeated(key, tried):
                return tried, count
        self._rejected[key] = self._rejected.get(key, 0) + 1
        return sessions, 0

    def _keep(self, find: Find) -> Find:
        find.target, find.seconds, find.messages = self.server.target.name, time.monotonic() - self._begun, self.count.messages
        self.store.add(find)
        return find

    def _reproducer(self, *, fresh: bool) -> Reproducer:
        def attempt(sessions: Sequence[Session]) -> set[Key]:
            return self._keys(sessions, fresh=fresh)

        return Reproducer(attempt, self.options.shrink, self.options.tries)

    def _keys(self, sessions: Sequence[Session], *, fresh: bool) -> set[Key]:
        """Have sessions once more; return the keys of all that is wrong, and leave a server that serves."""
        keys: set[Key] = set()
        for session in sessions:
            try:
                seen = self._have(session, patience=2.0 * waiting() if fresh else 1.0, model=True)
            except Misuse:
                return keys  # a session from which too much was taken away
            death = seen.death or self.server.death(LATE[worst(seen.heard)])
            if death is not None:
                self.count.deaths += 1
                self._renew(death.how)
                return keys | {key_of_death(death, session)}
            keys |= {key_of(found, session) for found in seen.suspicions}
            if any(one.end in (End.SILENT, End.LOST) for one in seen.heard):
                self._renew("it hangs")
        return keys

    def _renew(self, why: str) -> None:
        """Go on with a fresh server.

        Raises:
            ConnectionError: where there is none to be had.
        """
        self._recent.clear()
        if not self.server.restartable:
            try:
                introduce(self.server.target.endpoint, self.options.timeout)
            except TimeoutError as error:
                raise ConnectionError(str(error)) from None
            return
        try:
            self.server.renew()
        except Misuse as error:
            raise ConnectionError(f"the server could not be started again after this: {why}: {error}") from None
        # both belong to the process: a new one may give its devices another share of the machine's memory, as ours does
        self._idle = self.server.usage()
        self._is_renewed = True


def waiting() -> float:
    """Return how many processes there are to a processor of this machine, at least 1: a server among them takes so much longer.

    On one with a load of 6 our own server, computing what it may, was twice taken for one that hangs.
    """
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else 1.0


def outcome_of(heard: Heard) -> str:
    """Return in words what happened on a connection, coarsely: how it ended, which message was not answered, how long it took."""
    missing = _unanswered(heard)
    until = f"none to {missing}" if missing else "all replies" if len(heard.replies) == heard.plan.size else "too many"
    slow = "fast" if heard.seconds < 0.1 else "slow" if heard.seconds < 1 else "very slow"
    return f"{heard.end}, {until}, {slow}"


def _unanswered(heard: Heard) -> str:
    """Return the command of the first message whose reply did not come, or not as a whole; "" where all came."""
    left = len(heard.replies)
    for due in heard.plan.dues:
        left -= due.reply
        if left < 0:
            return command_name(due.cls)
    return ""


def hashes_asked(session: Session) -> set[int]:
    """Return the hashes that a session asks for, or asked for before it was changed."""
    messages = (step.origin or step.message for step in session.steps)
    return {message.hash for message in messages if isinstance(message, SetTensorHash)}


def hashes_kept(session: Session) -> set[int]:
    """Return those of them that another session may find later: this one uploads as much as servers keep, and lets them keep it."""
    return hashes_asked(session) if any(_is_to_be_kept(step, session.version) for step in session.steps) else set()


def _is_to_be_kept(step: Step, version: Version) -> bool:
    upload = step.origin or step.message
    if not isinstance(upload, SetTensor) or len(upload.data) <= THRESHOLD:
        return False
    # of one whose bytes were changed we don't know which
    if not has_field(SetTensor, "cache_flag", version) or isinstance(step.message, Packet):
        return True
    return any(isinstance(one, SetTensor) and one.cache_flag for one in (upload, step.message))


def worst(heard: Sequence[Heard]) -> End:
    """Return the end of the connections after which a server may take longest to die."""
    return max((one.end for one in heard), key=LATE.__getitem__)
