"""Where a client is judged: it is run against scripts, and what came of each run is looked at."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from ggml_rpc_ref.conformance.clients.heard import ABORTED, Asked, Ended, Run
from ggml_rpc_ref.conformance.clients.program import Program
from ggml_rpc_ref.conformance.clients.script import HONEST, Script
from ggml_rpc_ref.conformance.verdict import Broken, NotJudged, Verdict
from ggml_rpc_ref.spec.messages import FreeBuffer, command_name
from ggml_rpc_ref.spec.versions import Version

Play = Callable[[Program, Script, Version, float], Run]
"""Runs a client against a script."""


@dataclass(slots=True)
class Bench:
    """What cases get.

    Attributes:
        program: the client.
        play: runs it.
        version: what it speaks.
        timeout: seconds that a run may take.
        last: the run that was looked at last, for the transcript.
    """

    program: Program
    play: Play
    version: Version
    timeout: float
    last: Run | None = None
    _kept: dict[Script, Run] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def for_case(self) -> Bench:
        """Return one that knows the same honest runs, and has run nothing itself."""
        return replace(self, last=None)

    # ------------------------------------------------------------------------------------------------------------ runs

    def honest(self, script: Script = HONEST) -> Run:
        """Return a run against an honest server, the same one for all cases that ask for it."""
        with self._lock:  # of several cases at a time one runs it, and the others wait for it
            if script not in self._kept:
                self.keep(script, self.play(self.program, script, self.version, self.timeout))
        self.last = self._kept[script]
        if not any(talk.asked or talk.violation for talk in self.last.conversations):
            raise NotJudged("the client said nothing to an honest server", Verdict.SKIP, "an honest server")
        return self.last

    def keep(self, script: Script, run: Run) -> None:
        """Remember a run."""
        self._kept[script] = run

    def run(self, script: Script, patience: float = 0.0, most: float = math.inf) -> Run:
        """Run the client against a server that is not honest, and return what came of it.

        Args:
            script: what is different.
            patience: seconds that the run may take beyond the usual.
            most: seconds that it may take at most, where it may cost memory.

        Raises:
            NotJudged: where the client fails with an honest server already, or never came to what is different.
            Broken: session.unharmed, where the client died of it by a fault of memory, or waits for ever.
        """
        self.require_works()
        for change in script.changes:
            self.require_sends(change.command)
        run = self.last = self.play(self.program, script, script.version or self.version, min(self.timeout + patience, most))
        if script.changes and not run.told:
            raise NotJudged("this time the client did not ask what was to be answered otherwise", Verdict.SKIP)
        _require_unharmed(run.ended)
        return run

    def require_works(self) -> None:
        """Judge no further where the client does not get through with an honest server.

        Raises:
            NotJudged.
        """
        if trouble := self.trouble():
            raise NotJudged(trouble, Verdict.SKIP, "an honest server")

    def trouble(self) -> str:
        """Return what is wrong where an honest server is played, as a sentence; "" where nothing is."""
        try:
            run = self.honest()
        except NotJudged as silent:
            death = self.last.ended.death if self.last else ""
            return f"{silent}; {death}" if death else str(silent)
        if run.works:
            return ""
        broken = next((str(violation) for _, violation in run.violations()), "")
        if not broken and not any(talk.goes_on for talk in run.conversations):
            broken = "it says nothing after HELLO"
        return "with an honest server the client fails: " + "; ".join(filter(None, [broken, run.ended.death]))

    def require_sends(self, command: str) -> None:
        """Judge no further where the client does not send a command.

        Raises:
            NotJudged.
        """
        if command and command not in self.honest().commands():
            raise NotJudged(f"the client does not send {command}")

    def require_two(self) -> None:
        """Judge no further where the client is told of one server only.

        Raises:
            NotJudged.
        """
        if self.program.endpoints < 2:
            raise NotJudged("the client is told of one server only: its command does not hold {endpoint2}")


def _require_unharmed(ended: Ended) -> None:
    if ended.hung:
        raise Broken("the client to end", "it did not end in time", "session.unharmed", Verdict.HANG)
    if ended.status is not None and ended.status < 0 and ended.status != -ABORTED:
        raise Broken("the client to end by itself", ended.death, "session.unharmed", Verdict.CRASH)


# --------------------------------------------------------------------------------------------------------------- outcomes


def require_failure(run: Run, command: str) -> None:
    """Require that a client takes a request as failed, and its connection as lost.

    Args:
        run: in which a fault was told.
        command: the request's.

    Raises:
        Broken.
    """
    if later := run.after_fault():
        raise Broken("nothing more on this connection", f"the client sent {_list(later)} after the reply to {command}")
    if command == command_name(FreeBuffer):
        return  # the buffer goes with the connection: nothing is lost, and nobody need be told
    if run.ended.status == 0 and not asked_again(run, command):
        raise Broken("an error, or the request again on another connection", "the client ended as though nothing had happened")


def asked_again(run: Run, command: str) -> bool:
    """Whether a request was made on another connection after it had failed on one, and answered."""
    told = max((talk.told_at for talk in run.conversations), default=0.0)
    again = [asked for talk in run.conversations if not talk.told_at for asked in talk.asked if asked.at > told]
    return any(asked.command == command for asked in again)


def require_right(run: Run, what: str) -> None:
    """Require that a client gets through.

    Args:
        run: in which the server does what it may.
        what: what was different, as half a sentence.

    Raises:
        Broken.
    """
    for _, violation in run.violations():
        raise Broken(f"requests that a server takes though {what}", f"the client broke {violation}")
    if run.ended.status not in (0, None):
        raise Broken(f"the client to get through though {what}", run.ended.death)


def _list(asked: Sequence[Asked]) -> str:
    names = list(dict.fromkeys(one.command for one in asked))
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


# ---------------------------------------------------------------------------------------------------------------- playing


def playing(cache: Path, addresses: Sequence[tuple[str, int]], calm: float) -> Play:
    """Return what runs a client against our server.

    Args:
        cache: the folder of the servers' cache, for scripts that have one.
        addresses: where the servers listen, an address and a port; 0: any free one.
        calm: seconds without a byte after which nothing of the client's is under way.
    """
    # here and not above: whoever lists cases need not load a server
    from ggml_rpc_ref.conformance.clients.player import Player, make_host

    def play(program: Program, script: Script, version: Version, timeout: float) -> Run:
        hosts = [make_host(version, script.devices, cache if script.has_cache else None) for _ in range(program.endpoints)]
        with Player(hosts, script, addresses[: program.endpoints], calm) as player:
            ended = program.run(player.endpoints, timeout, lambda: player.connections if player.conversations else -1)
            _await_end(player)
        if player.defect is not None:
            raise player.defect
        return Run(script, version, tuple(player.conversations), ended, player.told)

    def _await_end(player: Player) -> None:
        # the process has ended, but what it sent last may not have been read
        end = time.monotonic() + LEFT
        while player.connections and time.monotonic() < end:
            time.sleep(0.002)

    return play


LEFT = 2.0
"""Seconds in which the last bytes of a client that has ended are read."""
