"""Names for values: types, ops, flags, names and parameters of tensors.

Names and numbers come from a peer, so what is printed of them is plain ASCII: no escape sequence may reach a terminal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ggml_rpc_ref.spec import caps
from ggml_rpc_ref.spec.dialects import recognised
from ggml_rpc_ref.spec.dtypes import BY_NUMBER, DEAD_NUMBERS
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, FLAG_INPUT, FLAG_LOSS, FLAG_OUTPUT, FLAG_PARAM, MAX_OP_PARAMS
from ggml_rpc_ref.spec.opcodes import kinds, op_table
from ggml_rpc_ref.spec.versions import Version

HEXADECIMAL: Final = frozenset(
    {"id", "buffer", "src", "view_src", "data", "remote_ptr", "base_ptr", "hash", "nodes", "uid"},
)
"""Fields that hold addresses, handles, keys or hashes, which are shown in hexadecimal."""
FLAGS: Final = {FLAG_INPUT: "INPUT", FLAG_OUTPUT: "OUTPUT", FLAG_PARAM: "PARAM", FLAG_LOSS: "LOSS", FLAG_COMPUTE: "COMPUTE"}

Values = Mapping[str, Any]
"""A tensor's fields by name."""


def type_name(number: int) -> str:
    """Return ggml's name of a type, e.g. "Q4_0"."""
    if number in BY_NUMBER:
        return BY_NUMBER[number].name
    return f"dead type {number}" if number in DEAD_NUMBERS else f"unknown type {number}"


def op_name(number: int, version: Version) -> str:
    """Return ggml's name of an op, by the op table of a version; a fork numbers ops in its own way, but for NONE."""
    table = op_table(version)
    if number and recognised(version) is not None:
        return f"op {number}"
    return table[number] if number < len(table) else f"unknown op {number}"


def full_op_name(number: int, op_params: Sequence[int], version: Version) -> str:
    """Return the op's name, with the function's name for UNARY and GLU, e.g. "UNARY SILU"."""
    name = op_name(number, version)
    known = kinds(name, version)
    first = op_params[0] if op_params else 0
    return f"{name} {known[first]}" if 0 <= first < len(known) else name


def flags_text(flags: int) -> str:
    """Return the names of the bits that are set, e.g. "OUTPUT COMPUTE"."""
    names = [name for bit, name in FLAGS.items() if flags & bit]
    rest = flags & ~sum(FLAGS)
    return " ".join([*names, f"unknown {rest:#x}"] if rest else names)


def text_of(raw: bytes) -> str:
    """Return a name padded with zero bytes as printable ASCII; every other byte as \\xNN."""
    name = bytes(raw).split(b"\0", 1)[0]
    return "".join(chr(byte) if 32 <= byte < 127 and byte not in b'\\"' else f"\\x{byte:02x}" for byte in name)


def params_text(number: int, op_params: Sequence[int], version: Version) -> str:
    """Return an op's parameters by name, e.g. "eps=1e-06"; "" where it has none or is unknown."""
    from ggml_rpc_ref.ops import ops_of  # imported here: it takes 0.1 s, and few inputs need it

    op = ops_of(version).get(op_name(number, version))
    if op is None or len(op_params) != MAX_OP_PARAMS:
        return ""
    raw = b"".join(value.to_bytes(4, "little", signed=True) for value in op_params)
    return " ".join(f"{param.name}={_number(param.read(raw))}" for param in op.params)


def _number(value: Any) -> str:
    if isinstance(value, tuple):
        return "(" + ", ".join(map(_number, value)) + ")"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def shape_text(ne: Sequence[int]) -> str:
    """Return dimensions in ggml's order without trailing ones, e.g. "[64, 8]"."""
    last = max((index for index, count in enumerate(ne) if count != 1), default=0)
    return str(list(ne[: last + 1]))


def tensor_text(tensor: Values, version: Version) -> str:
    """Return a tensor on one line: type, shape, name, op, flags, address, and the tensor that it is a view of."""
    if not tensor["id"]:
        return "absent"
    parts = [type_name(tensor["type"]), shape_text(tensor["ne"]), f'"{text_of(tensor["name"])}"']
    if tensor["op"]:
        parts.append(full_op_name(tensor["op"], tensor["op_params"], version))
    if tensor["flags"]:
        parts.append(flags_text(tensor["flags"]))
    parts += [f"id {tensor['id']:#x}", f"data {tensor['data']:#x}"]
    if tensor["view_src"]:
        parts.append(f"view of {tensor['view_src']:#x} + {tensor['view_offs']}")
    return "  ".join(parts)


def value_text(name: str, value: Any) -> str:
    """Return a field's value in its usual notation."""
    if isinstance(value, tuple):
        shown = [value_text(name, entry) for entry in value[:16]]
        return "[" + ", ".join(shown) + (f", … {len(value)} in all" if len(value) > 16 else "") + "]"
    if isinstance(value, int):
        return f"{value:#x}" if name in HEXADECIMAL and value else str(value)
    return ""


def word(name: str, value: Any, version: Version) -> str:
    """Return the name of a field's value; "" where it has none."""
    match name, value:
        case "type", int():
            return type_name(value)
        case "op", int():
            return op_name(value, version)
        case "flags", int():
            return flags_text(value)
        case "conn_caps", bytes():
            return caps.describe(value)
        case (("name" | "host"), bytes()):
            return f'"{text_of(value)}"'
    return ""
