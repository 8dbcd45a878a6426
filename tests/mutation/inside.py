"""Show mutants of what computes the op vectors and the nodes that do not fit without a wire between: a thousand times as fast.

What a server does with a vector of an op, `vectors play` does here with the same bytes and the same judge: the op's page checks the
node and computes it, and the result is compared with what the genuine server left. Of the nodes that do not fit an op
(`graph.shape/of-…`) the page decides, and so does that of the good node from which each is made. A fault that is found here is
found over the wire; what is not found here is shown to a server.
"""

from __future__ import annotations

import functools
import gc
import os
import select
import signal
import struct
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

import numpy as np

from ggml_rpc_ref.conformance import Verdict
from ggml_rpc_ref.conformance.verdict import Broken
from ggml_rpc_ref.golden import play_ops
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.cases import recipes
from ggml_rpc_ref.ops.cases.case import Case
from ggml_rpc_ref.ops.cases.unfit import unfit
from ggml_rpc_ref.ops.op import Op
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.spec.opcodes import kinds
from ggml_rpc_ref.tensor import PlainStorage, Tensor
from tests.mutation.mutants import PACKAGE, ROOT, Mutant
from tests.mutation.reach import Question
from tests.mutation.zygote import change, same_closures

COMPUTING = ("ops/", "blocks/")
"""The modules of which a mutant can be judged here."""
ALIGNMENT = 64
"""Of memories, as the suite's."""
LIMIT = 60.0
"""Seconds that a mutant may take before it is left to a server."""
MOST = 400
"""Vectors, spread evenly: as a server is shown."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Something to try: a question's id, and what answers with a verdict, PASS where nothing is wrong."""

    id: str
    ask: Callable[[], Verdict]


class Inside:
    """Judges mutants by what is computed in a process forked from this one.

    Args:
        asked: all questions; those that can be asked here are taken.
    """

    def __init__(self, asked: list[Question]) -> None:
        self._trials: list[Trial] = []
        self._by_line: dict[str, list[int]] = {}
        self._seconds: list[float] = []
        with _quiet():
            for question in asked:
                for trial in _trials(question):
                    self._add(trial)

    def _add(self, trial: Trial) -> None:
        lines = set[str]()
        began = time.process_time()
        verdict = _traced(trial.ask, lines)
        if verdict is not Verdict.PASS:
            return  # results over their sources and empty ones, which a server knows of
        for line in lines:
            self._by_line.setdefault(line, []).append(len(self._trials))
        self._trials.append(trial)
        self._seconds.append(time.process_time() - began)

    def killer(self, mutant: Mutant) -> tuple[str, str, int]:
        """Return what finds a mutant, its verdict, how much was asked; "" and "" where nothing does, or it can't be judged here."""
        reaching = self._by_line.get(f"{mutant.module}:{mutant.line}", [])
        if not mutant.module.startswith(COMPUTING) or not reaching or not same_closures(mutant.module, mutant.number):
            return "", "", 0
        step = -(-len(reaching) // MOST)
        order = sorted(reaching[::step], key=self._seconds.__getitem__)
        out, into = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.close(out)
                os.write(into, self._find(mutant, order).encode())
            finally:
                os._exit(0)
        os.close(into)
        ready, _, _ = select.select([out], [], [], LIMIT)
        said = os.read(out, 4096).decode() if ready else ""
        os.close(out)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        id, _, verdict = said.rpartition(" ")
        return id, verdict, len(order)

    def _find(self, mutant: Mutant, order: list[int]) -> str:
        change(mutant.module, mutant.number)
        with _quiet():
            for index in order:
                trial = self._trials[index]
                if (verdict := trial.ask()) is not Verdict.PASS:
                    return f"{trial.id} {verdict}"
        return ""


class _quiet(warnings.catch_warnings):  # noqa: N801  (a context manager like that which it is)
    """Without numpy's warnings, as a server computes."""

    def __enter__(self) -> Any:
        entered = super().__enter__()
        warnings.simplefilter("ignore")
        return entered


def _trials(question: Question) -> Iterator[Trial]:
    case, version = question.case, question.version
    run = case.run
    if isinstance(run, functools.partial) and run.func is play_ops._play:
        vector = run.args[0]
        if vector.op in ops_of(version):
            yield Trial(question.id, functools.partial(_play, vector, ops_of(version)[vector.op], _params(vector, question)))
    elif case.id.startswith("graph.shape/of-"):
        name = case.id.removeprefix("graph.shape/of-").upper().replace("-", "_")
        op = ops_of(version)[name]
        goods = dict[str, Case]()
        for one in unfit(name, version):
            goods[one.good.id] = one.good
            yield Trial(question.id, functools.partial(_refuses, op, one.node))
        for good in goods.values():
            yield Trial(question.id, functools.partial(_computes, op, good))


def _params(vector: play_ops.Vector, question: Question) -> bytes:
    params, ours, theirs = list(vector.params), kinds(vector.op), kinds(vector.op, question.version)
    if ours and 0 <= params[0] < len(ours):
        params[0] = theirs.index(ours[params[0]])
    return struct.pack(f"<{len(params)}i", *params)


def _play(vector: play_ops.Vector, op: Op, params: bytes) -> Verdict:
    image = play_ops.Image.of(vector, ALIGNMENT)
    memory = np.frombuffer(image.data, np.uint8).copy()
    storage = PlainStorage(memory)

    def tensor(name: str) -> Tensor:
        operand = vector.named[name]
        dtype = BY_NAME[operand["type"]]
        return Tensor(dtype, tuple(operand["ne"]), tuple(operand["nb"]), storage, image.offset(vector, name))

    sources = tuple(None if operand is None else tensor(f"src{slot}") for slot, operand in enumerate(vector.row["src"]))
    try:
        op.oracle(op.check(tensor("dst"), sources, params))
    except Exception:  # whatever it is, it ends the connection, which is what a refusal looks like
        return Verdict.UNSUPPORTED
    try:
        play_ops.judge(vector, image, memory.tobytes())
    except Broken:
        return Verdict.FAIL
    return Verdict.PASS


def _placed(op: Op, case: Case) -> tuple[Tensor, tuple[Tensor | None, ...], bytes]:
    return *recipes.build(op.name, _of_zeros(case)), op.pack(case.params)


def _of_zeros(case: Case) -> Case:
    from dataclasses import replace

    sources = tuple(None if one is None else replace(one, fill="zeros") for one in case.src)
    return replace(case, dst=replace(case.dst, fill="zeros"), src=sources)


def _refuses(op: Op, node: Case) -> Verdict:
    try:
        op.oracle(op.check(*_placed(op, node)))
    except Exception:
        return Verdict.PASS
    return Verdict.FAIL


def _computes(op: Op, good: Case) -> Verdict:
    try:
        op.oracle(op.check(*_placed(op, good)))
    except Exception:
        return Verdict.UNSUPPORTED
    return Verdict.PASS


def _traced(ask: Callable[[], Verdict], lines: set[str]) -> Verdict:
    """Ask, and take note of the lines of the computing modules that are run."""

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        name = _name(frame.f_code)
        if name is None:
            return None

        def line(frame: FrameType, event: str, argument: object) -> Any:
            lines.add(f"{name}:{frame.f_lineno}")
            return line

        return line(frame, event, argument)

    for cached in _caches():
        cached.cache_clear()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return ask()
    finally:
        sys.settrace(before)


@functools.cache
def _name(code: CodeType) -> str | None:
    path = code.co_filename
    name = path.removeprefix(f"{ROOT / PACKAGE}/")
    return name if name != path and name.startswith(COMPUTING) and code.co_name != "<module>" else None


@functools.cache
def _caches() -> list[Any]:
    """Return the functions that remember results: whoever asks first runs their lines, and nobody else would be seen to."""
    return [it for it in gc.get_objects() if isinstance(it, functools._lru_cache_wrapper) and it.__module__.startswith(PACKAGE)]
