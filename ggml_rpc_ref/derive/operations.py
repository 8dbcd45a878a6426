"""One section per operation, what several share, the block types and the support matrix, derived from `ops` and `blocks`."""

from __future__ import annotations

import inspect
import sys
from itertools import groupby
from types import ModuleType

import numpy as np

from ggml_rpc_ref.backends.registry import ROWS
from ggml_rpc_ref.blocks import few_bits, fp4, iq, iq_tables, k, legacy, plain, ternary
from ggml_rpc_ref.derive.markdown import escape, prose, table
from ggml_rpc_ref.ops import OPS, compare, custom, ops_of
from ggml_rpc_ref.ops.cases import cases_of
from ggml_rpc_ref.ops.op import ANY, BLOCKS, PLAIN, READABLE_BLOCKS, WRITABLE_BLOCKS, Op, Param
from ggml_rpc_ref.ops.shared import activations, arithmetic, copying, recurrence, sliding_window, views
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.spec.dtypes import BY_NAME, type_count
from ggml_rpc_ref.spec.op_changes import OP_CHANGES, WITNESSES, OpChange
from ggml_rpc_ref.spec.opcodes import CUSTOM_OPS, GGML_OP, op_table
from ggml_rpc_ref.spec.versions import DEFAULT, NEWEST

SHARED: dict[str, ModuleType] = {
    "Arithmetic types": arithmetic,
    "Copying": copying,
    "Activations": activations,
    "Sliding windows": sliding_window,
    "Recurrence": recurrence,
    "Views that compute nothing": views,
    "When a result is right": compare,
}
"""Heading to the module whose docstring describes what several ops share."""

REFERENCES = {
    "`arithmetic.TYPES`": "[Arithmetic types](#arithmetic-types)",
    "`copying`": "[Copying](#copying)",
    "recurrence.py": "[Recurrence](#recurrence)",
    "`activations.gelu`": "[Activations](#activations)",
    "`activations.TABLE`": "[Activations](#activations)",
    "`VEC_DOT_TYPE`": "column Partner of the [table of types](#types)",
    "`ROUNDED` has the bound by type": "the bound by type stands below",
    "`op.WRITABLE_BLOCKS`": "[writable](#words-for-types-and-layouts)",
    "`Tolerance`": "tolerance",
}
"""Words in docstrings for readers of the code, to the words for readers of SPEC.md."""

GROUPS = {
    "any type": ANY,
    "any plain type": PLAIN,
    "any block type": BLOCKS,
    "readable block types": READABLE_BLOCKS,
    "writable block types": WRITABLE_BLOCKS,
}
"""Name of a group of types to its members, largest groups first."""


def _known(names: tuple[str, ...]) -> tuple[str, ...]:
    """Drop the types that are newer than the running text."""
    return tuple(name for name in names if BY_NAME[name].number < type_count())


def type_names(names: tuple[str, ...]) -> str:
    """Return types in words: complete groups by the group's name, the rest by name."""
    left, words = set(_known(names)), []
    for group, members in GROUPS.items():
        if left.issuperset(_known(members)):
            words.append(group)
            left -= set(_known(members))
    return ", ".join([*(name for name in BY_NAME if name in left), *words])


def refer(text: str) -> str:
    """Replace words for readers of the code by links within SPEC.md."""
    for word, link in REFERENCES.items():
        text = text.replace(word, link)
    return text


def body(docstring: str) -> tuple[str, str, str]:
    """Split an op file's docstring into its first sentence, the rest, and where upstream has it."""
    title, _, rest = inspect.cleandoc(docstring).partition("\n")
    rest, _, source = rest.partition("\nSource: ")
    return title.partition(": ")[2], rest.strip("\n"), " ".join(source.split())


def operations() -> str:
    """Return a section per op, in the order of their numbers."""
    return "\n\n".join(_section(f"Op {number}", OPS[name]) for number, name in enumerate(op_table()))


def later_operations() -> str:
    """Return a section for each op that only later versions have, in the order of their numbers there."""
    table, first = op_table(NEWEST), {row.name: row.since for row in GGML_OP}
    later = [(number, name) for number, name in enumerate(table) if name not in op_table()]
    return "\n\n".join(_section(f"Op {n}, in {first[name]} and later", ops_of(first[name])[name]) for n, name in later)


def op_changes() -> str:
    """Return what ops mean in some versions only."""
    rows = ((_since(change), f"[{change.op}](#{change.op.lower()})", escape(change.sentence)) for change in OP_CHANGES.values())
    return table(("Versions", "Op", "What it is there"), rows)


def _since(change: OpChange) -> str:
    return f"from {change.since} on" if change.until is None else f"from {change.since} until before {change.until}"


def _section(number: str, op: Op) -> str:
    if op.name in CUSTOM_OPS:
        return f"### {op.name}\n\n{number}. {refer(prose(inspect.cleandoc(custom.__doc__ or '')))}"
    module = sys.modules[f"ggml_rpc_ref.ops.{op.name.lower()}"]
    title, text, source = body(module.__doc__ or "")
    changes = "\n".join(f"- {_since(c)}: {escape(c.sentence)}" for c in OP_CHANGES.values() if c.op == op.name)
    parts = [f"### {op.name}", f"{number}: {escape(title)}", refer(prose(text)), *_tables(op), changes, _witness(op)]
    return "\n\n".join(part for part in (*parts, f"Upstream: {escape(source)}") if part)


def _witness(op: Op) -> str:
    """Return how many cases of an op each genuine build was recorded with."""
    counts, seen = [], set[str]()
    for version, directory in WITNESSES.items():
        mine = {case.id for case in cases_of(op.name, version)} - seen
        seen |= mine
        file = f"{op.name.lower()}.json"
        if mine:
            name = file if version == DEFAULT else f"{file} of {version}"
            counts.append(f"{len(mine)} cases in [{name}]({directory}/ops/{file})")
    return f"Witness: {', '.join(counts)}." if counts else ""


def _tables(op: Op) -> list[str]:
    sources = table(
        ("Source", "Name", "Types", "What"),
        ((f"src[{slot}]{' (optional)' if s.optional else ''}", s.name, type_names(s.types), escape(s.doc))
         for slot, s in enumerate(op.sources)),
    )  # fmt: skip
    params = table(
        ("Slot", "op_params", "Type", "Meaning"), ((_slots(p), f"`{p.name}`", _kind(p), escape(p.doc)) for p in op.params)
    )
    place = ", possibly in the memory of " + " or ".join(f"src[{slot}]" for slot in op.in_place) if op.in_place else ""
    facts = f"Result: {type_names(op.types)}{place}. Tolerance: {_tolerance(op.tolerance)}."
    cases = list(cases_of(op.name))
    if others := list(dict.fromkeys(c.tolerance for c in cases if c.tolerance not in (None, op.tolerance))):
        facts += " Some cases otherwise:\n\n" + "\n".join(f"- {_tolerance(t)}" for t in others if t)
    return [part for part, there in ((sources, op.sources), (params, op.params), (facts, True)) if there]


def _slots(param: Param) -> str:
    width = param.count * (2 if param.kind == "i64" else 1)
    return str(param.slot) if width == 1 else f"{param.slot}–{param.slot + width - 1}"


def _kind(param: Param) -> str:
    return param.kind if param.count == 1 else f"{param.kind}[{param.count}]"


def _tolerance(t: Tolerance) -> str:
    if t == Tolerance(reason=t.reason):
        return escape(t.reason)
    bounds = ", ".join(f"{name} {value:g}" for name, value in (("rtol", t.rtol), ("atol", t.atol), ("nmse", t.nmse)) if value)
    return refer(f"{bounds}: {escape(t.reason)}")


# ------------------------------------------------------------------------------------------------------------ shared


def shared() -> str:
    """Return what several ops share, a section each."""
    parts = []
    for heading, module in SHARED.items():
        text = inspect.cleandoc(module.__doc__ or "").partition("\nSource: ")[0].rstrip()
        parts.append(f"### {heading}\n\n{refer(prose(text))}\n\n{_facts(module)}".rstrip())
    return "\n\n".join(parts)


def _facts(module: ModuleType) -> str:
    """Return what the module has beside its docstring."""
    if module is arithmetic:
        return table(("src0", "src1", "Result"), arithmetic.TYPES)
    if module is activations:
        functions = (activations.gelu, activations.gelu_of_f32, activations.gelu_quick, activations.gelu_erf, activations.silu)
        rows = "\n".join(f"- {f.__name__}: {escape((f.__doc__ or '').removeprefix('Return '))}" for f in functions)
        return f"{rows}\n\nTolerance of those that are looked up: {_tolerance(activations.TABLE)}."
    return ""


BLOCK_FAMILIES: dict[str, ModuleType] = {"plain": plain, "legacy": legacy, "k": k, "iq": iq, "ternary": ternary, "fp4": fp4}
BLOCK_FAMILIES["few bits"] = few_bits


def blocks(family: str) -> str:
    """Return the layouts and formulas of a family of types."""
    return prose(inspect.cleandoc(BLOCK_FAMILIES[family].__doc__ or ""))


def grids() -> str:
    """Return the lattices of the IQ types as numbers whose digits are the levels of the elements."""
    parts = []
    for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1"):
        grid = getattr(iq_tables, f"{name}_GRID").astype(int)
        levels, digits = np.unique(grid, return_inverse=True)
        entries, length = grid.shape
        # numpy 1 returns the inverse flat
        numbers = digits.reshape(grid.shape) @ len(levels) ** np.arange(length)
        lines = "\n".join(" ".join(map(str, numbers[start : start + 24])) for start in range(0, entries, 24))
        digits_of = f"digits in base {len(levels)}, levels {' '.join(map(str, levels))}"
        head = f"**{name}**: {entries} entries of {length} elements, {digits_of}."
        parts.append(f"{head}\n\n<details><summary>Entries</summary>\n\n```text\n{lines}\n```\n\n</details>")
    return "\n\n".join(parts)


# ------------------------------------------------------------------------------------------------------------ matrix


def support_matrix() -> str:
    """Return which op takes which types where, and which backend has it; types that all ops treat alike share a column."""
    roles = {name: tuple(_roles(OPS[op], name) for op in op_table()) for name in _known(ANY)}
    # sorted first, since groupby joins neighbours only; then back in the order of the types' numbers
    columns = [(key, [n for n, _ in group]) for key, group in groupby(sorted(roles.items(), key=lambda i: i[1]), lambda i: i[1])]
    columns.sort(key=lambda column: BY_NAME[column[1][0]].number)
    head = ("Op", *(backend.name for backend in ROWS), *("<br>".join(names) for _, names in columns))
    rows = (
        (
            f"[{op}](#{op.lower()})",
            *("refused" if op in CUSTOM_OPS else backend.own if op in backend.kernels() else "yes" for backend in ROWS),
            *("" if op in CUSTOM_OPS else key[row] for key, _ in columns),
        )
        for row, op in enumerate(op_table())
    )
    return table(head, rows)


def _roles(op: Op, name: str) -> str:
    """Return where an op takes a type: the slots of sources, d for the result."""
    slots = [str(slot) for slot, source in enumerate(op.sources) if name in source.types]
    return " ".join([*slots, *(["d"] if name in op.types else [])])
