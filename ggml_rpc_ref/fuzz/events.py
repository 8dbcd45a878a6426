"""The events of a campaign; every report is made from them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from ggml_rpc_ref.fuzz.finds import Find
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.spec.versions import Version

PASSED_ON: Final = 256
"""Sessions of a corpus that are passed on from one part of a campaign to others."""


@dataclass(slots=True)
class Count:
    """What a campaign has done so far; counts of several workers are added.

    Attributes:
        seconds: since it began.
        sessions: that were had.
        messages: that were sent.
        bytes: that were sent.
        restarts: servers that were started after the first.
        deaths: of the server, known ones included.
        edges: set of those that the server has taken, an edge a bit; 0 where it does not tell.
        states: how often each outcome was seen, what novelty is judged by: op or command, how it ended, the server's last line.
        verdicts: how often the model named each rule, or accepted.
        ops: op to the graphs that held it.
        commands: command to its messages.
        modelled: sessions that were compared with the model.
        growth: (seconds, finds, states, edges) now and then.
    """

    seconds: float = 0.0
    sessions: int = 0
    messages: int = 0
    bytes: int = 0
    restarts: int = 0
    deaths: int = 0
    modelled: int = 0
    edges: int = 0
    states: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    ops: Counter[str] = field(default_factory=Counter)
    commands: Counter[str] = field(default_factory=Counter)
    growth: list[tuple[float, int, int, int]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds if self.seconds else 0.0

    def plus(self, other: Count) -> Count:
        """Return the sum of two workers' counts; the time is the longer one's."""
        numbers = ("sessions", "messages", "bytes", "restarts", "deaths", "modelled")
        sums = {name: getattr(self, name) + getattr(other, name) for name in numbers}
        counters = {name: getattr(self, name) + getattr(other, name) for name in ("states", "verdicts", "ops", "commands")}
        growth = max(self.growth, other.growth, key=len)
        seconds, edges = max(self.seconds, other.seconds), self.edges | other.edges
        return Count(seconds=seconds, edges=edges, growth=growth, **sums, **counters)

    def note(self, session: Session) -> None:
        """Count a session that was had."""
        self.sessions += 1
        self.messages += len(session.steps)
        for step in session.steps:
            command, _, ops = step.label(session.version).partition(" of ")
            self.commands[command] += 1
            if ops:
                self.ops.update(ops.split(", "))


@dataclass(frozen=True, slots=True)
class Learned:
    """What one part of a campaign has learned, for the parts that come after it, on whatever machine.

    Attributes:
        corpus: sessions that led to something new, to be changed further.
        states: outcomes that were seen; they are new no more.
    """

    corpus: tuple[Session, ...] = ()
    states: frozenset[str] = frozenset()

    def plus(self, other: Learned) -> Learned:
        """Return both; of the sessions the newest, each once."""
        both = (*self.corpus, *other.corpus)
        sessions = {(session.seed, *(note.what for note in session.notes)): session for session in both}
        return Learned(tuple(sessions.values())[-PASSED_ON:], self.states | other.states)


@dataclass(frozen=True, slots=True)
class Began:
    """The target runs and has answered."""

    target: str
    version: Version
    devices: int
    one_client: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A find that is not known yet, reproduced and shrunk as far as time allows."""

    find: Find


@dataclass(frozen=True, slots=True)
class Progressed:
    """Where the campaign is."""

    count: Count
    finds: int


@dataclass(frozen=True, slots=True)
class Ended:
    """It is over, and the target stopped."""

    count: Count
    why: str = ""
    is_interrupted: bool = False
    learned: Learned = Learned()


Event = Began | Found | Progressed | Ended
