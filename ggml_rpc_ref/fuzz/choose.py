"""What to try next: every op with every mutation first, then more of what led to something new, less of what only kills again."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from random import Random
from typing import Final

from ggml_rpc_ref.fuzz.generate import ACT_WEIGHTS, Generator
from ggml_rpc_ref.fuzz.mutations import MUTATIONS, mutate
from ggml_rpc_ref.fuzz.session import Note, Session

FOCUSED: Final = 0.7
"""The part of the sessions that are about one op."""
ABOUT_AN_ACT: Final = 0.15
"""The part of the sessions that are about one act: among many others the rare ones would hardly ever be the one that is changed."""
PLAIN: Final = 0.04
"""The part of the sessions that are not mutated."""
PLAIN_ACTS: Final = 0.25
"""That part of those about one act: it is known what each of their replies must be, and one that hides a fault is rare."""
KEPT: Final = 512
"""Sessions that are kept to be changed further."""
AGAIN: Final = (0.05, 0.6)
"""The least and the largest part of the sessions that begin with one of those; in between by which kind led to something new."""
SHARPNESS: Final = 4
"""How far the better kind is preferred: as long as new sessions lead to something new twice as often, nearly all are new ones."""
FORGETTING: Final = 0.99
"""What the yield of a kind of session weighs after another one of it: the easy finds of the beginning say little later on."""
MOST_CHANGES: Final = 4
MOST_STEPS: Final = 40
TRIES: Final = 12
"""Mutations that are tried on a session until one has something to change."""
FIRST: Final = {"contents.index": 0.15, "geometry.wide": 0.05}
"""Mutations that are tried before all others, and how often. Of the numbers that an index may be few are right in part: of 6,000
sessions only three had another one for SET_ROWS. What costs much, or goes wrong from a length on, is looked for on purpose: hardly
any other mutation leads there, and of 4,000 sessions one had a CONV_2D with long rows."""
LEAST: Final = 0.5
"""How often these are tried in the order of how seldom a session about the same op or act got them: one that can only change what
few sessions have, such as a sum with another server, would else hardly ever be the one."""

Pair = tuple[str, str]


class Yield:
    """How often, of late, a kind of session led to something new."""

    def __init__(self) -> None:
        self.tries, self.wins = 2.0, 1.0

    def note(self, *, is_new: bool) -> None:
        """Take note of a session of this kind."""
        self.tries, self.wins = self.tries * FORGETTING + 1, self.wins * FORGETTING + is_new

    @property
    def rate(self) -> float:
        """The part of them that did."""
        return self.wins / self.tries


class Chooser:
    """Makes sessions, mutated or not, and learns from what became of them.

    Args:
        generator: of well-formed sessions.
        seed: of all choices.
        mutations: names of those to use; empty: all.
        seeds: sessions to have first, as they are.
        corpus: sessions that led to something new elsewhere, to be changed further.
    """

    def __init__(
        self,
        generator: Generator,
        seed: str,
        mutations: Sequence[str] = (),
        seeds: Sequence[Session] = (),
        corpus: Sequence[Session] = (),
    ) -> None:
        self.generator, self.seed = generator, seed
        self.names = list(mutations or MUTATIONS)
        self.rng = Random(seed)
        self.tried: Counter[Pair] = Counter()
        self.paired: Counter[Pair] = Counter()
        self.asked: Counter[str] = Counter()
        self.deaths: Counter[Pair] = Counter()
        self.news: Counter[Pair] = Counter()
        self.fresh, self.again, self._is_again = Yield(), Yield(), False
        self.made = 0
        self.corpus: deque[Session] = deque(corpus, maxlen=KEPT)
        self.seeds = deque(seeds)
        self._weights: list[float] = []

    def next(self) -> Session:
        """Return the next session."""
        self._is_again = False
        if self.seeds:
            return self.seeds.popleft()
        while True:
            self.made += 1
            focus = self._focus()
            self.asked[focus] += 1
            session = self._from_corpus() or self.generator.session(f"{self.seed}/{self.made}", focus)
            if not self.names or self.rng.random() < (PLAIN_ACTS if focus in ACT_WEIGHTS else PLAIN):
                return session
            for _ in range(self.rng.choice((1, 1, 1, 1, 2, 3))):
                self._mutate(session)
            if session.notes and not self._is_stale(session.notes):
                self.tried.update(note.key for note in session.notes)
                return session

    def _from_corpus(self) -> Session | None:
        """Return, now and then, a copy of a session that led to something new, to be changed further."""
        again, fresh = self.again.rate**SHARPNESS, self.fresh.rate**SHARPNESS
        part = again / (again + fresh)
        self._is_again = bool(self.corpus) and self.rng.random() < min(max(part, AGAIN[0]), AGAIN[1])
        if not self._is_again:
            return None
        old = self.rng.choice(self.corpus)
        return replace(old, steps=list(old.steps), notes=list(old.notes))

    def had(self, *, is_new: bool) -> None:
        """Take note of whether the last session led to something new."""
        (self.again if self._is_again else self.fresh).note(is_new=is_new)

    def keep(self, session: Session) -> bool:
        """Keep a session that led to something new; False where it has been changed too often already."""
        if len(session.notes) >= MOST_CHANGES or len(session.steps) >= MOST_STEPS:
            return False
        self.corpus.append(session)
        self._weights.clear()
        for note in session.notes:
            self.news[note.mutation, ""] += 1
        return True

    def _focus(self) -> str:
        """Return what a session is about: an op, an act, or "" for anything."""
        chance = self.rng.random()
        if chance < FOCUSED:
            return self._op()
        if chance < FOCUSED + ABOUT_AN_ACT:
            return self.rng.choices(list(ACT_WEIGHTS), list(ACT_WEIGHTS.values()))[0]
        return ""

    def _op(self) -> str:
        """Return the least tried of a few ops."""
        some = self.rng.sample(self.generator.names, min(3, len(self.generator.names)))
        return min(some, key=lambda op: self.asked[op])

    def _mutate(self, session: Session) -> None:
        for name, chance in FIRST.items():
            if name in self.names and self.rng.random() < chance and mutate(self.rng, session, name):
                return
        if not self._weights:
            self._weights = list(accumulate(self._weight(name) for name in self.names))
        some = self.rng.choices(self.names, cum_weights=self._weights, k=TRIES)
        if self.rng.random() < LEAST:
            some.sort(key=lambda name: (self.paired[name, session.focus], self.paired[name, ""]))
        for name in some:
            note = mutate(self.rng, session, name)
            self.paired[name, session.focus] += 1
            if note is not None:
                self.paired[name, ""] += bool(session.focus)
                return

    def _weight(self, name: str) -> float:
        return 1.0 + min(4.0, self.news[name, ""] / 4)

    def _is_stale(self, notes: Sequence[Note]) -> bool:
        """Whether to leave out a session since its like has killed often: a death costs as much as hundreds of sessions."""
        deaths = max(self.deaths[note.key] for note in notes)
        return self.rng.random() < 1 - 1 / (1 + deaths * deaths)

    def learn(self, session: Session, *, died: bool, is_new: bool) -> None:
        """Take note of what became of a session."""
        if is_new:
            self._weights.clear()
        for note in session.notes:
            if died:
                self.deaths[note.key] += 1
            if is_new:
                self.news[note.mutation, ""] += 1
                self.deaths[note.key] -= died
