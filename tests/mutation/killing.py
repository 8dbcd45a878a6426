"""Show a mutant the cases that reach its line, until one finds a fault that the server without a change does not show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

from ggml_rpc_ref.conformance import Options, Verdict
from ggml_rpc_ref.conformance.runner import Judging, WrongVersion, introduce
from ggml_rpc_ref.conformance.serving import Serving
from ggml_rpc_ref.spec.versions import Version
from tests.mutation.forked import Forked, Zygote
from tests.mutation.inside import Inside
from tests.mutation.mutants import Mutant
from tests.mutation.reach import Question, Reach
from tests.mutation.zygote import same_closures

TIMEOUT = 4.0
"""Seconds that an answer may take; a hang is confirmed with more."""
PATIENT = 15.0
MOST_VECTORS = 400
"""Of the op vectors that reach a line, so many at most, spread evenly: what all ops pass through is seen by a part of them."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of a mutant.

    Attributes:
        key: the mutant's.
        line: where it was.
        by: what killed it, "" for a survivor.
        verdict: what that found; UNSUPPORTED: the server refuses what it computed before, which a report shows, though no rule
            forbids it.
        shown: how many cases it was shown.
        reaching: how many cases reach its line.
    """

    key: str
    line: int
    by: str
    verdict: str
    shown: int
    reaching: int

    def as_json(self) -> dict[str, object]:
        """Return it as a JSON object."""
        return asdict(self)


class Killer:
    """Judges mutants, one after another; what has killed most is tried first.

    Args:
        zygote: what servers are forked from.
        asked: all questions.
        reach: which lines they reach.
        inside: what judges without a server, where that is possible; None: nothing.
    """

    def __init__(self, zygote: Zygote, asked: list[Question], reach: Reach, inside: Inside | None = None) -> None:
        self._zygote, self._asked, self._reach, self._kills = zygote, asked, reach, Counter[int]()
        self._inside = inside

    def fate(self, mutant: Mutant) -> Fate:
        """Return what becomes of a mutant."""
        line = f"{mutant.module}:{mutant.line}"
        reaching = self._reach.by_line.get(line, [])
        imported = line in self._zygote.imported or not same_closures(mutant.module, mutant.number)
        if self._inside is not None and not imported:
            by, verdict, shown = self._inside.killer(mutant)
            if by:
                return Fate(mutant.key, mutant.line, by, verdict, shown, len(reaching))
        chosen = self._order([index for index in reaching if self._reach.usable[index]], everything=imported)
        if not chosen:
            return Fate(mutant.key, mutant.line, "", "", 0, len(reaching))
        if not imported:
            return self._shown(mutant, self._zygote, {"module": mutant.module, "number": mutant.number}, chosen, len(reaching))
        try:
            with Zygote(mutant) as fresh:
                return self._shown(mutant, fresh, {}, chosen, len(reaching))
        except ConnectionError as error:
            return Fate(mutant.key, mutant.line, "start", str(error), 0, len(reaching))

    def _order(self, reaching: list[int], *, everything: bool) -> list[int]:
        """Return the questions in a good order: what has killed before, one of each rule, the others, the quickest first."""
        # what importing runs makes tables, which other lines use
        found = [index for index, it in enumerate(self._reach.usable) if it] if everything else reaching
        vectors = [index for index in found if self._asked[index].case.id.startswith("ops/")]
        step = -(-len(vectors) // MOST_VECTORS) or 1
        left_out = set(vectors) - set(vectors[::step])
        found = [index for index in found if index not in left_out]
        first = {self._asked[index].case.rule.id: index for index in reversed(found)}
        firsts = set(first.values())
        return sorted(found, key=lambda index: (-self._kills[index], index not in firsts, self._reach.seconds[index]))

    def _shown(self, mutant: Mutant, zygote: Zygote, request: dict[str, object], chosen: Iterable[int], reaching: int) -> Fate:
        targets, judges, shown = dict[str, Forked](), dict[Version, Judging](), 0
        try:
            for index in chosen:
                question, shown = self._asked[index], shown + 1
                target = targets.setdefault(str(question.request), Forked(zygote, {**request, **question.request}))
                if target.pid is None:
                    target.start()
                judge = judges.get(question.version)
                if judge is None:
                    judge = judges[question.version] = _judge(target, question.version, TIMEOUT)
                verdict = judge.judge(question.case).verdict
                if verdict is not Verdict.PASS and self._is_confirmed(target, question, verdict):
                    self._kills[index] += 1
                    return Fate(mutant.key, mutant.line, question.id, verdict, shown, reaching)
        except (ConnectionError, TimeoutError, WrongVersion) as error:
            return Fate(mutant.key, mutant.line, "start", str(error)[:200], shown, reaching)
        finally:
            for target in targets.values():
                target.stop()
        return Fate(mutant.key, mutant.line, "", "", shown, reaching)

    def _is_confirmed(self, target: Forked, question: Question, verdict: Verdict) -> bool:
        """Whether a fault is the change's: the unchanged server does not show it, and what hangs does so for longer too."""
        unchanged = Forked(self._zygote, question.request)
        try:
            unchanged.start()
            if _judge(unchanged, question.version, PATIENT).judge(question.case).verdict is not Verdict.PASS:
                return False
            if verdict not in (Verdict.HANG, Verdict.CRASH):
                return True
            target.start()
            return _judge(target, question.version, PATIENT).judge(question.case).verdict is not Verdict.PASS
        except (ConnectionError, TimeoutError):
            return True  # of the changed one: it serves no longer
        finally:
            unchanged.stop()


def _judge(target: Forked, version: Version, timeout: float) -> Judging:
    facts = introduce(target.endpoint, timeout, version)
    return Judging(Serving(target, replace(facts), timeout), Options(timeout=timeout, profile="", owned=True))
