"""The golden vectors: what is in them, their lint, and what plays them against a server."""

from __future__ import annotations

from ggml_rpc_ref.golden.form import canonical
from ggml_rpc_ref.golden.lint import KINDS, files, ids, list_ids, load, verify

__all__ = ["KINDS", "canonical", "files", "ids", "list_ids", "load", "verify"]
