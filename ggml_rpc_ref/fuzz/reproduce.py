"""Do it again: on fresh servers, with fewer messages, and, where it was not the last session, with the ones before it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ggml_rpc_ref.fuzz.finds import Key
from ggml_rpc_ref.fuzz.marks import restored
from ggml_rpc_ref.fuzz.session import Session, Step
from ggml_rpc_ref.spec.messages import BufferClear, GetTensor

SHRINK_SECONDS: Final = 6.0
"""How long a find may be shrunk while a campaign goes on."""

Try = Callable[[Sequence[Session]], set[Key]]
"""Has sessions with a server that is fresh where need be, and returns the keys of what is wrong."""


@dataclass(slots=True)
class Reproducer:
    """Repeats and shrinks what led to a find.

    Attributes:
        attempt: has sessions and returns what is wrong.
        seconds: how long it may shrink.
        tries: how often a find is repeated.
    """

    attempt: Try
    seconds: float = SHRINK_SECONDS
    tries: int = 3

    def repeated(self, key: Key, sessions: Sequence[Session]) -> int:
        """Return how often of `tries` it happens again."""
        return sum(key in self.attempt(sessions) for _ in range(self.tries))

    def culprits(self, key: Key, recent: Sequence[Session]) -> list[Session]:
        """Return which of the last sessions it takes; empty where it does not happen again.

        The last one alone in most cases; else the shortest tail of them, found by halving, without the ones that it does not need.
        """
        for tail in (recent[-1:], recent[-2:-1], recent):
            if tail and key in self.attempt(tail):
                break
        else:
            return []
        found = list(tail)
        while len(found) > 1 and key in self.attempt(found[len(found) // 2 :]):
            found = found[len(found) // 2 :]
        for session in list(found):
            fewer = [other for other in found if other is not session]
            if fewer and key in self.attempt(fewer):
                found = fewer
        return found

    def shrunk(self, key: Key, sessions: list[Session]) -> list[Session]:
        """Return smaller sessions that still do it."""
        end = time.monotonic() + self.seconds
        best = sessions
        for index in range(len(best)):
            best = self._shrunk_one(key, best, index, end)
        return best

    def _shrunk_one(self, key: Key, sessions: list[Session], index: int, end: float) -> list[Session]:
        best, changed = sessions, True
        while changed and time.monotonic() < end:
            changed = False
            for candidate in smaller(best[index]):
                if time.monotonic() > end:
                    break
                tried = [*best[:index], candidate, *best[index + 1 :]]
                if key in self.attempt(tried):
                    best, changed = tried, True
                    break
        return best


def smaller(session: Session) -> Iterator[Session]:
    """Yield sessions with fewer steps, the boldest first: nothing after the last change, nothing but changes, halves, single steps.

    Then sessions of which one of several changed fields of a message is as a good client sends it.

    The steps that make the contents of the buffers known stay to the last: without them a wrong result proves nothing.
    """
    steps = session.steps
    last = max((index for index, step in enumerate(steps) if step.mutated), default=len(steps) - 1)
    if last + 1 < len(steps):
        yield session.with_steps(steps[: last + 1])
    free = [index for index, step in enumerate(steps) if not is_clear(step)]
    if any(not steps[index].mutated for index in free):
        yield session.with_steps([step for step in steps if step.mutated or is_clear(step)])
    size = (len(free) + 1) // 2
    while size:
        for start in range(0, len(free), size):
            gone = set(free[start : start + size])
            left = [step for index, step in enumerate(steps) if index not in gone]
            if left and len(gone) < len(free):
                yield session.with_steps(left)
        size //= 2
    if not any(step.expected is not None for step in steps):
        yield from _without_clears(session)
    for index, step in enumerate(steps):
        for milder in restored(step, session.version):
            yield session.with_steps([*steps[:index], milder, *steps[index + 1 :]])


def is_clear(step: Step) -> bool:
    """Whether a step makes the contents of a buffer known."""
    return isinstance(step.message, BufferClear) and not step.mutated


def _without_clears(session: Session) -> Iterator[Session]:
    """Yield the session without the steps that make contents known, and without buffers that it does not need."""
    left = [step for step in session.steps if not is_clear(step)]
    if left and len(left) < len(session.steps) and not any(isinstance(step.message, GetTensor) for step in left):
        yield session.with_steps(left)
    if len(session.buffers) > 1:
        for buffer in session.buffers:
            yield replace(session, buffers=tuple(other for other in session.buffers if other is not buffer))
