"""The graph builder's named methods, one per op and kind, out of the ops' rows and ggml's constructors."""

from __future__ import annotations

import inspect
import keyword
import sys
import textwrap
from collections.abc import Iterator

from ggml_rpc_ref.client.constructors import NE_GIVEN
from ggml_rpc_ref.client.parameters import DEFAULTS, NEEDED_BY_KIND, enum
from ggml_rpc_ref.ops import ops_of
from ggml_rpc_ref.ops.op import Op, Param
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, KINDS
from ggml_rpc_ref.spec.versions import NEWEST

WIDTH = 132
BY_HAND = {"NONE", "RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", *KINDS, *CUSTOM_OPS}
"""Ops without a method of their name here: `Graph` has the views, of UNARY and GLU there is one per kind."""

HEAD = '''"""The named methods of `Graph`: one per operation, and one per kind of UNARY and GLU.

Written by `ggml-rpc-ref gen` from the rows in `ops` and `client.parameters`; change those instead. Sources may be arrays,
which are sent; a parameter that is an enum also takes ggml's names of its values; `name` is for the server's logs. SPEC.md has the
formulas.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy.typing as npt

from ggml_rpc_ref.client.tensors import RemoteTensor

Operand = RemoteTensor | npt.ArrayLike
"""A tensor, or what numpy makes an array of."""


class NamedOps(ABC):
    """What a graph builder can add by name."""

    @abstractmethod
    def op(self, op: str, src: Sequence[Any], *, params: Any = None, ne: Any = None, name: str = "") -> RemoteTensor:
        """Add a node of any op."""
'''


def named_ops() -> str:
    """Return the module `client.named_ops`."""
    methods = [*(method(op) for name, op in ops_of(NEWEST).items() if name not in BY_HAND), *_methods_of_kinds()]
    return HEAD + "".join(f"\n{text}" for text in sorted(methods, key=lambda text: text.split("(")[0]))


def method(op: Op, kind: str = "") -> str:
    """Return the method of an op, or of one of its kinds."""
    name = (kind or op.name).lower()
    sources = {source.name: _python(source.name) for source in op.sources}
    params = {param.name: _python(param.name) for param in _params(op, kind)}
    given = {"kind": f'"{kind}"'} if kind else {}
    arguments = [f'"{op.name}"', f"[{', '.join(sources.values())}]"]
    if pairs := given | params:
        arguments.append("params={" + ", ".join(f'"{key}": {value}' for key, value in pairs.items()) + "}")
    if _takes_ne(op):
        arguments.append("ne=ne")
    arguments.append("name=name")
    lines = [*_signature(op, name, kind), *_docstring(op, kind), *_call(arguments)]
    return "".join(f"    {line}\n" if line else "\n" for line in lines)


def _methods_of_kinds() -> Iterator[str]:
    for name in KINDS:
        op = ops_of(NEWEST)[name]
        for kind in op.kinds:
            yield method(op, kind)


def _python(name: str) -> str:
    """Return a name as an argument's: ggml's "as" is a word of Python's, its IC and is_2D are not in lower case."""
    return f"{name.lower()}_" if keyword.iskeyword(name.lower()) else name.lower()


def _takes_ne(op: Op) -> bool:
    return op.name in NE_GIVEN


def _params(op: Op, kind: str) -> list[Param]:
    """Return the parameters that a caller may give: of kinds, those that they have."""
    special = {name for (of, _), names in NEEDED_BY_KIND.items() if of == op.name for name in names}
    needed = NEEDED_BY_KIND.get((op.name, kind), ())
    return [param for param in op.params if param.name != "kind" and (param.name not in special or param.name in needed)]


def _signature(op: Op, name: str, kind: str) -> list[str]:
    arguments = ["self"]
    for source in op.sources:
        arguments.append(f"{_python(source.name)}: " + ("Operand | None = None" if source.optional else "Operand"))
    if _takes_ne(op) or any(source.optional for source in op.sources):
        arguments.append("*")  # what comes after a source that may be left out is named
    arguments += ["ne: Sequence[int]"] if _takes_ne(op) else []
    arguments += sorted((_argument(op, param, kind) for param in _params(op, kind)), key=lambda text: " = " in text)
    arguments.append('name: str = ""')
    line = f"def {name}({', '.join(arguments)}) -> RemoteTensor:"
    if 4 + len(line) <= WIDTH:
        return [line]
    return [f"def {name}(", *(f"    {argument}," for argument in arguments), ") -> RemoteTensor:"]


def _argument(op: Op, param: Param, kind: str) -> str:
    number = "float" if param.kind == "f32" else "int"
    words = " | str" if enum(op, param.name) else ""
    hint = f"Sequence[{number}]" if param.count > 1 else f"{number}{words}"
    defaults = {} if kind and param.name in NEEDED_BY_KIND.get((op.name, kind), ()) else DEFAULTS.get(op.name, {})
    return f"{_python(param.name)}: {hint}" + (f" = {defaults[param.name]!r}" if param.name in defaults else "")


def _call(arguments: list[str]) -> list[str]:
    line = f"    return self.op({', '.join(arguments)})"
    if 4 + len(line) <= WIDTH:
        return [line]
    return ["    return self.op(", *(f"        {line}" for argument in arguments for line in _broken(argument)), "    )"]


def _broken(argument: str) -> list[str]:
    if 12 + len(argument) + 1 <= WIDTH or not argument.startswith("params={"):
        return [f"{argument},"]
    pairs = argument.removeprefix("params={").removesuffix("}").split(", ")
    return ["params={", *(f"    {pair}," for pair in pairs), "},"]


def _docstring(op: Op, kind: str) -> list[str]:
    summary = _summary(op, kind)
    described = [(_python(source.name), source.doc) for source in op.sources]
    if _takes_ne(op):
        described.append(("ne", "dimensions of the result, in ggml's order"))
    described += [(_python(param.name), _describe(op, param)) for param in _params(op, kind)]
    described = [(name, text) for name, text in described if text]
    if not described:
        return [f'    """{summary}"""']
    lines = [f'    """{summary}', "", "    Args:"]
    for name, text in described:
        lines += textwrap.wrap(f"{name}: {text}.", WIDTH - 4, initial_indent=" " * 8, subsequent_indent=" " * 12)
    return [*lines, '    """']


def _describe(op: Op, param: Param) -> str:
    words = enum(op, param.name)
    return f"{param.doc} ({', '.join(repr(word) for word in words)})" if words else param.doc


def _summary(op: Op, kind: str) -> str:
    if kind:
        return f"{op.name}, kind {kind}; its formula stands under {op.name} in SPEC.md."
    doc = inspect.getdoc(sys.modules[op.shape.__module__]) or ""
    text = (inspect.getdoc(sys.modules.get(f"ggml_rpc_ref.ops.{op.name.lower()}")) or doc).split("\n\n")[0]
    sentence = " ".join(text.split())
    return textwrap.shorten(sentence if sentence.endswith(".") else f"{sentence}.", WIDTH - 16, placeholder=" …")
