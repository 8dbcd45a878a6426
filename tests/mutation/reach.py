"""Which lines of the server each case reaches: found out once by a traced server, and kept in a file beside the results."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from dataclasses import dataclass
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


@dataclass(slots=True)
class Reach:
    """What was found out.

    Attributes:
        by_line: line to the indices of the questions that reach it.
        seconds: of each question, by index.
        usable: whether the unchanged server passes it in time.
    """

    by_line: dict[str, list[int]]
    seconds: list[float]
    usable: list[bool]


def find_out(asked: list[Question]) -> Reach:
    """Put every question to a traced server."""
    reach = Reach({}, [], [])
    with Zygote() as zygote:
        targets, judges = dict[str, Forked](), dict[Version, Judging]()
        for index, question in enumerate(asked):
            target = targets.setdefault(str(question.request), Forked(zygote, {"trace": True, **question.request}))
            if question.version not in judges:
                judges[question.version] = _judge(target, question.version)
            began = time.monotonic()
            result = judges[question.version].judge(question.case)
            reach.seconds.append(round(time.monotonic() - began, 4))
            reach.usable.append(result.verdict is Verdict.PASS and reach.seconds[-1] < SLOW)
            for line in target.lines():
                reach.by_line.setdefault(line, []).append(index)
            if result.verdict not in NO_FAULT:
                print(f"not used: {question.id} {result.verdict} {result.detail[:150]}", file=sys.stderr)
        for target in targets.values():
            target.stop()
    return reach


def _judge(target: Forked, version: Version) -> Judging:
    if target.pid is None:
        target.start()
    facts = introduce(target.endpoint, TIMEOUT, version)
    return Judging(Serving(target, facts, TIMEOUT), Options(timeout=TIMEOUT, profile="", owned=True))


def known(path: Path, asked: list[Question]) -> Reach:
    """Return what the file says if it is of this code and these questions; else find out and write it."""
    mark = mark_of(asked)
    if path.exists():
        content = json.loads(path.read_text())
        if content["mark"] == mark:
            return Reach(content["by_line"], content["seconds"], content["usable"])
    reach = find_out(asked)
    content = {"mark": mark, "by_line": reach.by_line, "seconds": reach.seconds, "usable": reach.usable}
    path.write_text(json.dumps(content))
    return reach


def mark_of(asked: list[Question]) -> str:
    """Return what a result depends on: the questions and the text of the modules."""
    digest = hashlib.sha256("\n".join(question.id for question in asked).encode())
    for module in MODULES:
        digest.update((ROOT / PACKAGE / module).read_bytes())
    return digest.hexdigest()
