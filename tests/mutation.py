"""Mutation testing of the conformance suite: break our server in one place after another and see whether a case notices.

    python -m tests.mutation --count 300                       # a sample of all mutants; the same one for the same --seed
    python -m tests.mutation --module server/memory.py --play  # what conform lets pass is played vectors as well

Each mutant is one change in one function: a comparison, an operator, a constant, a condition, a statement left out. A server with
it runs in a process of its own, the suite in this one, so that a fault in the codec can't hide from itself. A mutant is killed by
the first case that finds a fault. Survivors are printed with their line: some change nothing that a peer can see (a hint to the
allocator, a limit that only memory knows), the others show what the suite lacks. Lines that the suite never reaches, such as those
for other versions, are found out first and left out; their number is said.
"""

from __future__ import annotations

import argparse
import ast
import importlib.abc
import importlib.machinery
import importlib.util
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ggml_rpc_ref.conformance import Case

ROOT = Path(__file__).parent.parent
PACKAGE = "ggml_rpc_ref"
MODULES = (
    *(
        "server/handlers.py",
        "server/session.py",
        "server/memory.py",
        "server/validate.py",
        "server/plan.py",
        "server/tensor_cache.py",
    ),
    *("protocol/codec.py", "protocol/graph.py", "protocol/order.py", "protocol/connection.py", "net/channel.py"),
    *("backends/__init__.py", "backends/memory.py", "backends/oracle.py", "tensor.py"),
)
"""What a peer's requests pass through."""

ENDS = {signal.SIGTERM, signal.SIGINT}
"""What ends a server."""

SWAPS: dict[type, type] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.FloorDiv: ast.Mult,
}


# ---------------------------------------------------------------------------------------------------------------- mutants


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the module, its number among the changes of that module, the line, and what it is."""

    module: str
    number: int
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.what}"


class Changer(ast.NodeTransformer):
    """Walks through a module and makes the change with one number; with none it only counts.

    Attributes:
        made: each change that there is, as (line, what).
    """

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.made, self._functions = wanted, list[tuple[int, str]](), 0

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in ("__repr__", "__str__"):
            return node
        # defaults and annotations are left alone, and so is the docstring
        self._functions += 1
        first = 1 if ast.get_docstring(node) is not None else 0
        node.body[first:] = [self.visit(statement) for statement in node.body[first:]]
        self._functions -= 1
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not self._functions:
            return super().generic_visit(node)
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
                return node
            case ast.Raise() | ast.Expr(value=ast.Call()):
                if self._chosen(node, f"without `{ast.unparse(node)[:60]}`"):
                    return ast.copy_location(ast.Pass(), node)
            case ast.If() | ast.While():
                if self._chosen(node, f"`{ast.unparse(node.test)[:60]}` the other way round"):
                    node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
            case ast.Compare(ops=[op]) if type(op) in SWAPS:
                if self._chosen(node, f"`{ast.unparse(node)[:60]}` with {SWAPS[type(op)].__name__}"):
                    node.ops = [SWAPS[type(op)]()]
            case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS:
                if self._chosen(node, f"`{ast.unparse(node)[:60]}` with {SWAPS[type(op)].__name__}"):
                    node.op = SWAPS[type(op)]()
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                if self._chosen(node, f"{number + 1} for {number}"):
                    return ast.copy_location(ast.Constant(number + 1), node)
            case ast.JoinedStr():
                return node  # what a message says
        return super().generic_visit(node)

    def _chosen(self, node: ast.AST, what: str) -> bool:
        self.made.append((getattr(node, "lineno", 0), what))
        return len(self.made) - 1 == self.wanted


def mutants(modules: Sequence[str]) -> list[Mutant]:
    """Return every mutant of some modules."""
    found = []
    for module in modules:
        changer = Changer()
        changer.visit(ast.parse((ROOT / PACKAGE / module).read_text(encoding="utf-8")))
        found += [Mutant(module, number, line, what) for number, (line, what) in enumerate(changer.made)]
    return found


class Loader(importlib.machinery.SourceFileLoader):
    """Loads one module with a change in it."""

    number = -1

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the changed module."""
        tree = Changer(self.number).visit(ast.parse(Path(self.path).read_text(encoding="utf-8")))
        return compile(ast.fix_missing_locations(tree), self.path, "exec")


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module to change before anything else does."""

    def __init__(self, module: str, number: int) -> None:
        self.path, self.number = ROOT / PACKAGE / module, number
        name = f"{PACKAGE}/{module}".removesuffix(".py").removesuffix("/__init__")
        self.name = name.replace("/", ".")

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Return the changed module's spec, None for any other."""
        if fullname != self.name:
            return None
        loader = Loader(fullname, str(self.path))
        loader.number = self.number
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


def serve(port: int, module: str, number: int) -> None:
    """Serve with one change until a signal comes; with -1 for its number, without a change, and write down the lines reached."""
    # blocked before there are other threads, one of which would otherwise take the signal and end the process
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    reached: set[tuple[str, int]] = set()
    if number < 0:
        threading.settrace(lambda frame, event, argument: _trace(reached, frame))
    else:
        sys.meta_path.insert(0, Finder(module, number))
    _serve(port)
    if number < 0:
        names = {str(ROOT / PACKAGE / name): name for name in MODULES}
        Path(module).write_text("".join(f"{names[path]}:{line}\n" for path, line in sorted(reached) if path in names))


def _trace(reached: set[tuple[str, int]], frame: FrameType) -> Any:
    """Take note of the lines of a function of ours."""
    path = frame.f_code.co_filename
    if not path.startswith(str(ROOT / PACKAGE)):
        return None

    def line(frame: FrameType, event: str, argument: object) -> Any:
        reached.add((path, frame.f_lineno))
        return line

    return line(frame, "", None)


def _serve(port: int) -> None:
    from ggml_rpc_ref.backends.memory import HostMemory
    from ggml_rpc_ref.backends.oracle import Oracle
    from ggml_rpc_ref.server.handlers import Device, Host
    from ggml_rpc_ref.server.server import Server
    from ggml_rpc_ref.server.tensor_cache import TensorCache

    devices = [Device(f"oracle {n}", "numpy", Oracle(HostMemory(2**30), copies=2**24)) for n in range(2)]
    with tempfile.TemporaryDirectory() as cache, Server(Host(devices, tensors=TensorCache(Path(cache))), "127.0.0.1", port):
        signal.sigwait({signal.SIGTERM, signal.SIGINT})


# ---------------------------------------------------------------------------------------------------------------- judging


def reached() -> set[str]:
    """Return the lines, as "module:line", that the suite reaches in a server without a change."""
    from ggml_rpc_ref.conformance import Options, Spawned, run

    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "lines"
        words = [sys.executable, "-m", "tests.mutation", "serve", "{port}", str(lines), "-1"]
        run(Spawned("ours, traced", words), _cases(play=False), Options(timeout=60.0, profile=""))
        return set(lines.read_text().split())


def killer(mutant: Mutant, *, play: bool) -> str:
    """Return what killed a mutant: a case's id with its verdict, "start" where no server comes up; "" for a survivor."""
    from ggml_rpc_ref.conformance import NO_FAULT, CaseEnded, Options, Spawned, judge

    words = [sys.executable, "-m", "tests.mutation", "serve", "{port}", mutant.module, str(mutant.number)]
    events = judge(Spawned(str(mutant), words), _cases(play), Options(timeout=3.0, profile=""))
    try:
        for event in events:
            if isinstance(event, CaseEnded) and event.result.verdict not in NO_FAULT:
                return f"{event.result.case.id} {event.result.verdict}"
    except (ConnectionError, TimeoutError) as error:
        return f"start: {error}"
    finally:
        events.close()
    return ""


def _cases(play: bool) -> list[Case]:
    """Return the cases: one of each rule first, which kill most; those that take seconds not at all."""
    from ggml_rpc_ref.conformance import CASES
    from ggml_rpc_ref.golden import omitted
    from ggml_rpc_ref.golden import play as playing

    quick = [case for case in CASES.values() if case.patience < 2]
    first = {case.rule.id: case for case in reversed(quick)}
    chosen = [*first.values(), *(case for case in quick if first[case.rule.id] is not case)]
    if play:
        chosen += list(playing.cases(ROOT / "vectors", omitted.Files((), otherwise=[])))
    return list(chosen)


def report(chosen: Sequence[Mutant], *, play: bool, limit: float) -> Iterator[str]:
    """Yield a line for each survivor as it is found, then the score."""
    by_what, survivors, began = Counter[str](), list[Mutant](), time.monotonic()
    for number, mutant in enumerate(chosen, 1):
        by = killer(mutant, play=play)
        by_what[by.partition("/")[0].partition(":")[0]] += 1
        if not by:
            survivors.append(mutant)
            yield f"survives: {mutant}"
        if time.monotonic() - began > limit:
            chosen = chosen[:number]
            break
    killed = len(chosen) - len(survivors)
    yield f"{killed} of {len(chosen)} mutants killed ({100 * killed / len(chosen):.1f} %) in {time.monotonic() - began:.0f} s"
    yield "by rule: " + ", ".join(f"{rule or 'nothing'} {count}" for rule, count in by_what.most_common(12))


def main() -> None:
    """Run from the command line."""
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--module", action="append", default=[], help="below ggml_rpc_ref/; may be repeated")
    parser.add_argument("--count", type=int, default=300, help="so many mutants at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=1e9, metavar="SECONDS", help="stop after this time")
    parser.add_argument("--play", action="store_true", help="play vectors to what conform lets pass")
    parser.add_argument("--list", action="store_true", help="print the mutants and end")
    options = parser.parse_args()
    found = mutants(options.module or MODULES)
    if not options.list:
        lines = reached()
        unreached = [mutant for mutant in found if f"{mutant.module}:{mutant.line}" not in lines]
        print(f"{len(found)} mutants, {len(unreached)} of them on lines that the suite does not reach", flush=True)
        found = [mutant for mutant in found if mutant not in set(unreached)]
    chosen = random.Random(options.seed).sample(found, min(options.count, len(found)))
    if options.list:
        print("\n".join(map(str, chosen)))
    else:
        for line in report(chosen, play=options.play, limit=options.limit):
            print(line, flush=True)


if __name__ == "__main__":
    main()
