"""From which version on, or up to which, a case can be put to a server: read from the marks of the tables.

A case that needs a message, a field, an op or a kind is put to the versions that have it. No case names a version.
"""

from __future__ import annotations

from collections.abc import Iterable

from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import REQUESTS, all_fields
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.spec.opcodes import GGML_OP, KINDS, Name
from ggml_rpc_ref.spec.versions import PROFILES, Version


def request_since(cls: type) -> Version:
    """Return the first version that has a request."""
    return REQUESTS[cls].since


def number_since(number: int) -> Version | None:
    """Return the first version in which a command number means something; None where it never did."""
    return next((row.since for row in REQUESTS.values() if row.number == number), None)


def field_since(cls: type, name: str) -> Version:
    """Return the first version that has a field."""
    return next(field.since for field in all_fields(cls) if field.name == name)


def field_until(cls: type, name: str) -> Version | None:
    """Return the first version without a field; None where every version since has it."""
    return next(field.until for field in all_fields(cls) if field.name == name)


def payload_since(cls: type) -> Version:
    """Return the first version in which a request of fixed size has a payload."""
    return next(version for version in PROFILES if version >= REQUESTS[cls].since and codec.minimum_size(cls, version))


def op_since(op: str) -> Version:
    """Return the first version that has an op."""
    return _named(op, GGML_OP)


def kind_since(op: str, kind: str) -> Version:
    """Return the first version that has a kind of UNARY or GLU."""
    return max(op_since(op), _named(kind, KINDS[op]))


def change_since(change: str) -> Version:
    """Return the first version in which an op has a meaning that a change brought, by its id in `spec.op_changes`."""
    return OP_CHANGES[change].since


def _named(name: str, rows: Iterable[Name]) -> Version:
    return next(row.since for row in rows if row.name == name)
