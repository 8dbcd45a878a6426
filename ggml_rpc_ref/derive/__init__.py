"""Text from the tables: the parts of SPEC.md, the client's named methods, the C header, the kernels' declarations,
and what the package carries of vectors/.

SPEC.md is written by hand around derived parts, each between two marks:

    <!-- derived: NAME -->
    …
    <!-- end -->

`rewrite` replaces each part by the current one; if that changes nothing, text and tables agree.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from ggml_rpc_ref.derive import operations, tables
from ggml_rpc_ref.derive.carried import carried, superfluous
from ggml_rpc_ref.derive.header import header
from ggml_rpc_ref.derive.named_ops import named_ops
from ggml_rpc_ref.derive.native import declarations, grids, numbers
from ggml_rpc_ref.derive.skew import skew
from ggml_rpc_ref.errors import Misuse
from ggml_rpc_ref.spec.messages import REQUESTS, RpcTensor, command_name
from ggml_rpc_ref.spec.rules import RULES

__all__ = [
    "PARTS", "carried", "declarations", "grids", "header", "named_ops", "numbers", "outdated", "rewrite", "superfluous",
]  # fmt: skip

PARTS: dict[str, Callable[[], str]] = {
    "versions": tables.versions,
    "commands": tables.commands,
    "skew": skew,
    "sizes": tables.sizes,
    "RpcTensor": partial(tables.record, RpcTensor),
    **{command_name(cls): partial(tables.message, cls) for cls in REQUESTS},
    "types": tables.types,
    **{f"blocks {name}": partial(operations.blocks, name) for name in operations.BLOCK_FAMILIES},
    "grids": operations.grids,
    "op numbers": tables.op_numbers,
    "unary numbers": tables.unary_numbers,
    "glu numbers": tables.glu_numbers,
    "shared definitions": operations.shared,
    "operations": operations.operations,
    "later operations": operations.later_operations,
    "op changes": operations.op_changes,
    "support matrix": operations.support_matrix,
    **{f"rules {name}": partial(tables.rules, name) for name in dict.fromkeys(id.partition(".")[0] for id in RULES)},
    "rule links": tables.rule_links,
    "file rules": tables.file_rules,
}
"""The name in a mark to the function that writes the part."""

_MARKED = re.compile(r"<!-- derived: (?P<name>.+?) -->\n.*?<!-- end -->", re.DOTALL)


def rewrite(text: str) -> str:
    """Return a text with every derived part brought up to date.

    Raises:
        Misuse: for a mark that does not name a part.
    """
    return _MARKED.sub(_part, text)


def outdated(text: str) -> list[str]:
    """Return the names of the derived parts of a text that are out of date."""
    return [match["name"] for match in _MARKED.finditer(text) if _part(match) != match[0]]


def _part(match: re.Match[str]) -> str:
    name = match["name"]
    if name not in PARTS:
        raise Misuse(f"the mark {name!r} names no derived part; there are {', '.join(PARTS)}")
    return f"<!-- derived: {name} -->\n\n{PARTS[name]()}\n\n<!-- end -->"
