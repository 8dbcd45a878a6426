"""Servers that break a rule of the section "data" of later versions: MEMSET_TENSOR, the cache flag, rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.session import MAX_OVERLAPPING, Area, Download, Upload
from ggml_rpc_ref.spec.messages import GetTensor2d, MemsetTensor, SetTensor, SetTensor2d
from tests.support.sabotage.sessions import apart, flip
from tests.support.sabotage.table import answering, break_session, lenient

lenient("data.memset-in-tensor", "data.rows-in-tensor", "data.rows-none", "data.rows-length")


def spoil_memset(session: Session, message: MemsetTensor, right: object) -> object:
    """Change the first byte of the tensor as well."""
    flip(session, message.tensor.data, message.tensor.buffer)
    return right


answering("data.memset", MemsetTensor, spoil_memset)


@break_session("data.cache-flag")
class KeepsEverything(Session):
    """What came with cache_flag 0 is kept too, as before the flag."""

    def placed(self, message: Upload, region: Area) -> object:
        flagged = replace(message, cache_flag=1) if isinstance(message, SetTensor) else message
        return super().placed(flagged, region)


@break_session("data.cache-flag-set")
class KnowsOneFlag(Session):
    """What came with a cache_flag above 1 is not written."""

    def destination(self, message: Upload, size: int) -> Area:
        region = super().destination(message, size)
        return apart(bytes(size)) if isinstance(message, SetTensor) and message.cache_flag > 1 else region


def spoilt(rows: Any) -> Area:
    """Return rows of which the last byte is another."""
    data = bytearray(b"".join(rows.pieces()))
    data[-1] ^= 1
    return apart(data)


@break_session("data.rows")
class SpoilsRows(Session):
    """The last byte of rows that lie apart comes back with a bit changed."""

    def source(self, message: Download) -> Area:
        rows = super().source(message)
        return spoilt(rows) if isinstance(message, GetTensor2d) and not _overlap(message) else rows


@break_session("data.rows-overlap")
class SpoilsOverlappingRows(Session):
    """The last byte of rows that overlap comes back with a bit changed."""

    def source(self, message: Download) -> Area:
        rows = super().source(message)
        return spoilt(rows) if isinstance(message, GetTensor2d) and _overlap(message) else rows


@break_session("data.rows-bounded")
class AnswersALittle(Session):
    """Of rows that are more than the server grants, a few bytes come."""

    def source(self, message: Download) -> Area:
        if isinstance(message, GetTensor2d) and message.size * message.n_copies > MAX_OVERLAPPING and not message.stride:
            return apart(bytes(16))
        return super().source(message)


def _overlap(message: SetTensor2d | GetTensor2d) -> bool:
    return message.n_copies > 1 and message.stride < message.size
