"""The server under test in the course of a run: how long to wait for it, whether it still serves, how it is got back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ggml_rpc_ref.conformance.peer import Facts, Subject
from ggml_rpc_ref.conformance.target import DYING, Target
from ggml_rpc_ref.conformance.verdict import Broken, Verdict

PAUSE = 0.05
"""Seconds between two attempts to reach a server that may be dying."""
SERVES_ON = "the server to answer a new connection afterwards"
HANGS_BELIEVED = 2
"""After so many answers that never came the deadline shrinks: a server that hangs at each of fifty cases is to cost seconds."""
SHORTEST = 0.5
"""Seconds below which no deadline shrinks."""
SLOWER = 10.0
"""A shrunk deadline is so many times what the slowest answer took, so that a slow server is not taken for a hanging one."""
RETURN = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds between attempts to reach a server that is not ours to start, before the remaining cases are given up."""
RETURN_WITHIN = 12.0
"""Seconds after which no further attempt is made."""


@dataclass(slots=True)
class Serving:
    """The server under test for the length of a run.

    Attributes:
        target: the server.
        facts: what is known about it.
        timeout: seconds that one answer may take.
        hangs: how often an answer has not come.
        gone: why no server is left, "" while there is one.
        restarts: how often it was started again.
    """

    target: Target
    facts: Facts
    timeout: float
    hangs: int = 0
    gone: str = ""
    restarts: int = 0

    def deadline(self) -> float:
        """Return the seconds that an answer may take now."""
        if self.hangs < HANGS_BELIEVED:
            return self.timeout
        return min(self.timeout, max(SHORTEST, SLOWER * self.facts.slowest))

    def subject(self, patience: float = 1.0) -> Subject:
        """Return the server for one case, whose answers may take `patience` times as long as usual."""
        self.facts.pid = self.target.pid
        return Subject(self.target.endpoint, self.deadline() * patience, self.facts)

    def note(self, verdict: Verdict) -> None:
        """Take note of a verdict; a hang shortens later deadlines."""
        self.hangs += verdict is Verdict.HANG

    def loss(self) -> Broken | None:
        """Return None if the server serves a new connection, and otherwise what is wrong."""
        deadline = time.monotonic() + DYING
        while True:
            if death := self.target.death():
                return Broken(SERVES_ON, f"the server died: {death}", verdict=Verdict.CRASH)
            subject = self.subject()
            try:
                subject.check_alive()
                return None
            except Broken as broken:
                # it serves, but against another rule, for instance with another version: time will not mend that
                if broken.rule:
                    return broken
                if broken.verdict is Verdict.HANG:
                    return Broken(SERVES_ON, f"it does not answer one: {broken.actual}", verdict=Verdict.HANG)
                # a dying process may still accept connections, and one that is only busy may recover: try again
                if time.monotonic() > deadline:
                    return Broken(SERVES_ON, f"it accepts none: {broken.actual}", verdict=Verdict.CRASH)
            finally:
                subject.close()
            time.sleep(PAUSE)

    def restore(self, after: str, *, lost: bool) -> None:
        """Start the server again where it is ours to start; otherwise wait for it if it is lost, and give it up in the end."""
        if self.target.restartable:
            self.restarts += 1
            try:
                self.target.start()
            except ConnectionError as error:
                self.gone = f"after {after} it did not start again: {error}"
        elif lost and not self._returns():
            self.gone = f"the server was lost in {after}"

    def _returns(self) -> bool:
        """Whether a server that was lost answers again before long: somebody may start it again, and a slow one is not lost."""
        end = time.monotonic() + RETURN_WITHIN
        for pause in RETURN:
            time.sleep(pause)
            if time.monotonic() > end:
                break
            subject = self.subject()
            try:
                subject.check_alive()
                return True
            except Broken:
                pass
            finally:
                subject.close()
        return False
