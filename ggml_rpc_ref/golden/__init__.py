"""The golden vectors: readers, lint, and players that hold a server to them."""

from __future__ import annotations

from ggml_rpc_ref.golden.canonical import canonical
from ggml_rpc_ref.golden.lint import KINDS, files, ids, list_ids, load, verify

__all__ = ["KINDS", "canonical", "files", "ids", "list_ids", "load", "verify"]
