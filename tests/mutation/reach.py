"""Which lines of the server each case reaches: found out once by a traced server, and kept in a file beside the results."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from ggml_rpc_ref.conformance import CASES, NO_FAULT, Case, Options, Verdict
from ggml_rpc_ref.conformance.runner import Judging, introduce
from ggml_rpc_ref.conformance.serving import Serving
from ggml_rpc_ref.golden import omitted
from ggml_rpc_ref.golden import play as playing
from ggml_rpc_ref.spec.op_changes import WITNESSES
from ggml_rpc_ref.spec.versions import AUTO, V2_0_0, V4_0_0, Version
from tests.mutation.forked import Forked, Zygote
from tests.mutation.mutants import MODULES, PACKAGE, ROOT

SLOW = 8.0
"""Seconds (traced) that a case may take to be shown to mutants."""
TIMEOUT = 60.0
OLDER = (V2_0_0, V4_0_0)
"""Versions of which servers are asked besides whether nodes fit their op."""


@dataclass(frozen=True, slots=True)
class Question:
    """A case, put to the server by a client of one version."""

    case: Case
    version: Version

    @property
    def request(self) -> dict[str, str]:
        """What a server that can be asked is forked with."""
        return {} if self.version in AUTO else {"proto": str(self.version)}

    @property
    def id(self) -> str:
        """Its name."""
        return f"{self.case.id} {self.version}"


def questions() -> list[Question]:
    """Return all of them: each case of conform in both versions, each vector in the first that it can be played in.

    Of the cases that ask whether nodes fit their op those of two older versions too, in which some ops mean something else.
    """
    vectors = list(playing.cases(ROOT / "vectors", omitted.Files((), otherwise=[])))
    found = [Question(case, version) for version in AUTO for case in CASES.values() if case.present(version)]
    older = [case for case in CASES.values() if case.id.startswith("graph.shape/of-")]
    found += [Question(case, version) for version in OLDER for case in older if case.present(version)]
    for case in vectors:
        version = next((version for version in (*AUTO, *WITNESSES) if case.present(version)), None)
        if version is not None:
            found.append(Question(case, version))
    return found


def over_the_wire(asked: list[Question]) -> list[Question]:
    """Return those that servers are asked: of the op vectors, all of which are tried without a server, every sixth."""
    vectors = [question for question in asked if question.case.id.startswith("ops/")]
    left_out = {question.id for number, question in enumerate(vectors) if number % 6}
    return [question for question in asked if question.id not in left_out]


@dataclass(frozen=True, slots=True)
class Found:
    """What was found out about a question: the lines that it reaches, how long it takes, whether the unchanged server passes it."""

    lines: list[str]
    seconds: float
    usable: bool


@dataclass(slots=True)
class Reach:
    """What was found out about all questions.

    Attributes:
        by_line: line to the indices of the questions that reach it.
        seconds: of each question, by index.
        usable: whether the unchanged server passes it in time.
    """

    by_line: dict[str, list[int]]
    seconds: list[float]
    usable: list[bool]

    @classmethod
    def of(cls, found: Sequence[Found]) -> Reach:
        """Return what was found out about each question, by line."""
        by_line: dict[str, list[int]] = {}
        for index, one in enumerate(found):
            for line in one.lines:
                by_line.setdefault(line, []).append(index)
        return cls(by_line, [one.seconds for one in found], [one.usable for one in found])


def find_out(asked: Sequence[Question]) -> Iterator[Found]:
    """Put questions to a traced server, one after another."""
    with Zygote() as zygote:
        targets, judges = dict[str, Forked](), dict[Version, Judging]()
        try:
            for question in asked:
                target = targets.setdefault(str(question.request), Forked(zygote, {"trace": True, **question.request}))
                if question.version not in judges:
                    judges[question.version] = _judge(target, question.version)
                began = time.monotonic()
                result = judges[question.version].judge(question.case)
                seconds = round(time.monotonic() - began, 4)
                if result.verdict not in NO_FAULT:
                    print(f"not used: {question.id} {result.verdict} {result.detail[:150]}", file=sys.stderr)
                yield Found(sorted(target.lines()), seconds, result.verdict is Verdict.PASS and seconds < SLOW)
        finally:
            for target in targets.values():
                target.stop()


def _judge(target: Forked, version: Version) -> Judging:
    if target.pid is None:
        target.start()
    facts = introduce(target.endpoint, TIMEOUT, version)
    return Judging(Serving(target, facts, TIMEOUT), Options(timeout=TIMEOUT, profile="", owned=True))


def known(path: Path, asked: list[Question], limit: float = float("inf")) -> Reach | None:
    """Return what the file says of these questions, if it is of this code; what it lacks is found out and written to it.

    Args:
        path: the file.
        asked: the questions.
        limit: seconds after which nothing more is found out.

    Returns:
        What they reach; None where the time was not enough: ask again, it goes on.
    """
    mark, end = mark_of_modules(), time.monotonic() + limit
    found = _read(path, mark)
    missing = [question for question in asked if question.id not in found]
    with contextlib.closing(find_out(missing)) as findings:
        for question, one in zip(missing, findings if missing else (), strict=False):
            found[question.id] = one
            if time.monotonic() > end:
                break
    if missing:
        path.write_text(json.dumps({"mark": mark, "found": {id: astuple(one) for id, one in found.items()}}))
    return Reach.of([found[question.id] for question in asked]) if all(question.id in found for question in asked) else None


def _read(path: Path, mark: str) -> dict[str, Found]:
    content = json.loads(path.read_text()) if path.exists() else {}
    return {id: Found(*one) for id, one in content["found"].items()} if content.get("mark") == mark else {}


def mark_of_modules() -> str:
    """Return what the lines that a question reaches depend on: the text of the modules."""
    digest = hashlib.sha256()
    for module in MODULES:
        digest.update((ROOT / PACKAGE / module).read_bytes())
    return digest.hexdigest()
