"""Every mutant of some modules: one change in one function, and the code of a module with it."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import importlib.util
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType

ROOT = Path(__file__).parents[2]
PACKAGE = "ggml_rpc_ref"
SERVER = ("handlers", "session", "memory", "rows", "validate", "plan", "stored_graphs")
PROTOCOL = ("codec", "graph", "order", "connection", "fnv")
BACKENDS = ("__init__", "memory", "oracle", "copies", "staging")


def _below(folder: str) -> list[str]:
    """Return the modules of a folder that have functions, as names below the package."""
    paths = sorted((ROOT / PACKAGE / folder).glob("*.py"))
    return [path.relative_to(ROOT / PACKAGE).as_posix() for path in paths]


NEVER_SERVED = {"compare", "permute", "reshape", "transpose", "view", "shared/views"}
"""Pages of `ops/` that no request reaches: what judges results, and view ops, whose nodes compute nothing and are not looked at."""
ORACLE = [
    name
    for folder in ("ops", "ops/shared", "blocks")
    for name in _below(folder)
    if name.removeprefix("ops/").removesuffix(".py") not in NEVER_SERVED
]
"""What computes."""
MODULES = (
    *(f"server/{name}.py" for name in SERVER),
    *(f"protocol/{name}.py" for name in PROTOCOL),
    "net/channel.py",
    *(f"backends/{name}.py" for name in BACKENDS),
    "tensor.py",
    *ORACLE,
)
"""What a peer's requests pass through."""

UNSEEN = frozenset({"__repr__", "__str__", "state", "as_json", "description"})
"""Functions whose result no peer sees."""
PORTIONS = {"AT_ONCE", "BLOCK_BYTES", "CHUNK", "COLUMNS", "HANDED_OVER", "IN_PLACE", "MOST_PRODUCTS", "PART", "SHORT"}
PORTIONS |= {"SLAB_BYTES", "SLAB_ELEMENTS"}
"""Constants that say how much is done at a time, or from which size on by another way that comes to the same: an expression that
compares or divides by one decides how long something takes, and how much memory. The loops over the portions are mutated."""
BY_PORTIONS = {"slabs", "row_blocks", "rows_per_slab"}
"""Functions whose arguments say how much is done at a time."""
ESTIMATE = "cost"
"""In the name of a function that estimates memory and work, which only the budget reads; tests/test_cost.py measures them."""

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
    ast.Mod: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change.

    Attributes:
        module: below the package.
        number: among the changes of that module.
        line: where it is.
        what: the change in words.
        key: its name, which says nothing of lines: module, function, the change, and its number among equal ones.
    """

    module: str
    number: int
    line: int
    what: str
    key: str

    def __str__(self) -> str:
        return f"{self.module}:{self.line} {self.what}"


class Changer(ast.NodeTransformer):
    """Walks through a module and makes the change with one number; with none it only counts.

    What a message says is left alone (of a condition that a node is required to meet, all but the condition), and so are defaults,
    annotations, docstrings, what is logged, where a computation may be stopped early (`checkpoint`), how much is computed at a time
    (PORTIONS), and the length -1 that numpy's reshape works out, for which -2 is the same.

    Attributes:
        made: each change that there is, as (line, function, what).
    """

    def __init__(self, wanted: int = -1) -> None:
        self.wanted, self.made, self._functions, self._classes = wanted, list[tuple[int, str, str]](), list[str](), list[str]()

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self._classes.append(node.name)
        super().generic_visit(node)
        self._classes.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if node.name in UNSEEN or ESTIMATE in node.name.split("_"):
            return node
        self._functions.append(node.name)
        first = 1 if ast.get_docstring(node) is not None else 0
        node.body[first:] = [self.visit(statement) for statement in node.body[first:]]
        self._functions.pop()
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        if node.value is not None:
            node.value = self.visit(node.value)
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        if not self._functions:
            return super().generic_visit(node)
        match node:
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))) | ast.JoinedStr() | ast.Assert():
                return node
            case ast.Expr(value=ast.Call(func=ast.Name(id="checkpoint"))):
                return node
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)) if name in BY_PORTIONS:
                return node
            case ast.stmt() if portions := [name for name, value in ast.iter_fields(node) if _is_portion(value)]:
                kept = {name: getattr(node, name) for name in portions}
                for name in portions:
                    setattr(node, name, ast.Constant(None))
                super().generic_visit(node)
                for name, value in kept.items():
                    setattr(node, name, value)
                return node
            case ast.Call(func=ast.Attribute(attr="require"), args=[condition, *words]):
                node.args = [self.visit(condition), *words]
                return node
            case ast.Call(func=ast.Attribute(attr="reshape")):
                node.func = self.visit(node.func)
                node.args = [self._length(argument) for argument in node.args]
                return node
            case ast.Raise():
                return self._left_out(node) or node
            case ast.Expr(value=ast.Call()):
                if changed := self._left_out(node):
                    return changed
            case ast.If() | ast.While() | ast.IfExp():
                if self._chosen(node, f"`{_short(node.test)}` the other way round"):
                    node.test = ast.copy_location(ast.UnaryOp(ast.Not(), node.test), node.test)
            case ast.Compare(ops=[op]) if type(op) in SWAPS:
                if self._chosen(node, f"`{_short(node)}` with {SWAPS[type(op)].__name__}"):
                    node.ops = [SWAPS[type(op)]()]
            case ast.BinOp(op=op) | ast.BoolOp(op=op) if type(op) in SWAPS and not _is_text(node):
                if self._chosen(node, f"`{_short(node)}` with {SWAPS[type(op)].__name__}"):
                    node.op = SWAPS[type(op)]()
            case ast.Constant(value=int(number)) if not isinstance(number, bool):
                if self._chosen(node, f"{number + 1} for {number}"):
                    return ast.copy_location(ast.Constant(number + 1), node)
        return super().generic_visit(node)

    def _length(self, node: ast.expr) -> ast.expr:
        """Visit what reshape gets: lengths, or one tuple of them."""
        if isinstance(node, ast.Tuple):
            node.elts = [self._length(entry) for entry in node.elts]
            return node
        return node if _is_rest(node) else self.visit(node)

    def _left_out(self, node: ast.stmt) -> ast.Pass | None:
        return ast.copy_location(ast.Pass(), node) if self._chosen(node, f"without `{_short(node)}`") else None

    def _chosen(self, node: ast.AST, what: str) -> bool:
        self.made.append((getattr(node, "lineno", 0), ".".join(self._classes + self._functions), what))
        return len(self.made) - 1 == self.wanted


def _short(node: ast.AST) -> str:
    return ast.unparse(node)[:60]


def _is_portion(value: object) -> bool:
    """Whether a field of a statement is an expression that says how much is done at a time."""
    if not isinstance(value, ast.expr):
        return False
    for part in ast.walk(value):
        match part:
            case ast.BinOp(left=ast.Name(id=name), op=ast.FloorDiv()) if name in PORTIONS:
                return True
            case ast.BinOp(left=ast.Attribute(attr=name), op=ast.FloorDiv()) if name in PORTIONS:
                return True
            case ast.Compare(comparators=[ast.Name(id=name) | ast.Attribute(attr=name)]) if name in PORTIONS:
                return True
    return False


def _is_rest(node: ast.expr) -> bool:
    """Whether it is -1."""
    return isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and getattr(node.operand, "value", None) == 1


def _is_text(node: ast.AST) -> bool:
    """Whether an operator joins or formats text."""
    sides = (node.left, node.right) if isinstance(node, ast.BinOp) else ()
    return any(
        isinstance(side, ast.JoinedStr) or (isinstance(side, ast.Constant) and isinstance(side.value, str)) for side in sides
    )


def mutants(modules: Iterable[str]) -> list[Mutant]:
    """Return every mutant of some modules."""
    found = []
    for module in modules:
        changer, equal = Changer(), Counter[str]()
        changer.visit(_tree(module))
        for number, (line, function, what) in enumerate(changer.made):
            name = f"{module} {function}: {what}"
            equal[name] += 1
            found.append(Mutant(module, number, line, what, f"{name} ({equal[name]})" if equal[name] > 1 else name))
    return found


def _tree(module: str) -> ast.Module:
    return ast.parse((ROOT / PACKAGE / module).read_text(encoding="utf-8"))


def code(module: str, number: int) -> CodeType:
    """Return the code of a module with one change in it."""
    tree = Changer(number).visit(_tree(module))
    return compile(ast.fix_missing_locations(tree), str(ROOT / PACKAGE / module), "exec", dont_inherit=True)


# -------------------------------------------------------------------------------------------------- importing a changed one


class _Loader(importlib.machinery.SourceFileLoader):
    mutant = ("", -1)

    def get_code(self, fullname: str) -> CodeType:
        """Return the code of the changed module."""
        return code(*self.mutant)


class Finder(importlib.abc.MetaPathFinder):
    """Finds the module to change before anything else does."""

    def __init__(self, module: str, number: int) -> None:
        self.module, self.number = module, number
        name = f"{PACKAGE}/{module}".removesuffix(".py").removesuffix("/__init__")
        self.name = name.replace("/", ".")

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        """Return the changed module's spec, None for any other."""
        if fullname != self.name:
            return None
        file = ROOT / PACKAGE / self.module
        loader = _Loader(fullname, str(file))
        loader.mutant = self.module, self.number
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=folders)
