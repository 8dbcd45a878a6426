"""Servers that break a rule of the section "frame"."""

from __future__ import annotations

from typing import Any, ClassVar

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.server.memory import Region
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.messages import NO_REPLY, Empty, Message, by_number
from tests.support.sabotage.sessions import SMALL, apart
from tests.support.sabotage.table import break_connection, break_session
from tests.support.sabotage.wire import DEVICE_COUNT, HEAD, HELLO, SET_TENSOR, Rewriting, frame


@break_connection("frame.command-known")
class TakesAnyCommand(Rewriting):
    """An unknown command is taken for DEVICE_COUNT."""

    def read_command(self, number: int) -> int:
        return number if number in by_number(self.version) else DEVICE_COUNT


class ForgivesSizes(Rewriting):
    """A size that breaks a rule is not refused: the whole payload is received and the request replaced."""

    rule: ClassVar[str]

    def may_hold(self, command: int) -> bool:
        return command in by_number(self.version) and (self.begun > 0 or command == HELLO)

    def holds(self, command: int, size: int) -> bool:
        try:
            codec.check_size(by_number(self.version)[command].cls, size, self.version)
        except Violation as broken:
            return broken.rule == self.rule and size <= SMALL
        return False


@break_connection("frame.size-fixed")
class FitsSizes(ForgivesSizes):
    """A request of the wrong size is answered as a DEVICE_COUNT is; a HELLO as a HELLO."""

    rule = "frame.size-fixed"

    def replaced(self, command: int, payload: bytes) -> bytes:
        return frame(HELLO if command == HELLO else DEVICE_COUNT)


@break_connection("frame.size-minimum")
class IgnoresShortRequests(ForgivesSizes):
    """A SET_TENSOR or GRAPH_COMPUTE that is too short is ignored."""

    rule = "frame.size-minimum"

    def replaced(self, command: int, payload: bytes) -> bytes:
        return b""


@break_connection("frame.size-bounded", timeout=1.0)
class BelievesSizes(Rewriting):
    """All the data that a SET_TENSOR claims are awaited before its tensor is checked, as upstream does."""

    def may_hold(self, command: int) -> bool:
        return command == SET_TENSOR and self.begun > 0

    def holds(self, command: int, size: int) -> bool:
        return size >= 2**28


class AnswersUploads(Session):
    """SET_TENSOR is answered, as it was in 1.0.0."""

    def placed(self, message: Upload, region: Area) -> object:
        super().placed(message, region)
        return Empty()


@break_connection("frame.reply-presence", session=AnswersUploads)
class SendsUnasked(Rewriting):
    """An empty reply is sent where none is due."""

    def send(self, message: Message) -> bytes:
        try:
            return super().send(message)
        except Misuse:
            if not isinstance(message, Empty):
                raise
            return codec.encode_reply(message)


@break_session("frame.reply-order")
class WritesLate(Session):
    """The data of a SET_TENSOR are written only after the next request has been answered."""

    def __init__(self, host: Any) -> None:
        super().__init__(host)
        self.before = b""
        self.waiting: list[tuple[Upload, Region, bytes]] = []

    def destination(self, message: Upload, size: int) -> Area:
        self.catch_up()
        region = super().destination(message, size)
        self.before = bytes(region.read())
        return region

    def placed(self, message: Upload, region: Area) -> object:
        assert isinstance(region, Region)
        # the server has received the data into their place: take them away again until the next request has been answered
        self.waiting.append((message, region, bytes(region.read())))
        region.allocation.upload(region.start, memoryview(self.before))
        return NO_REPLY

    def source(self, message: Download) -> Area:
        data = apart(bytes(super().source(message).read()))
        self.catch_up()
        return data

    def handle(self, message: object) -> object:
        try:
            return super().handle(message)
        finally:
            self.catch_up()

    def catch_up(self) -> None:
        for message, region, data in self.waiting:
            region.allocation.upload(region.start, memoryview(data))
            super().placed(message, region)
        self.waiting.clear()


@break_connection("frame.segmentation")
class WantsWholeHeads(Rewriting):
    """A message whose first piece is shorter than its head is refused."""

    def receive(self, data: codec.Readable) -> None:
        if self.begun and not self.head and not self.left and len(data) < HEAD:
            raise Violation("frame.segmentation", "read", len(data), "a whole head was expected")
        super().receive(data)


@break_connection("frame.complete")
class AnswersEarly(Rewriting):
    """A message is answered before its last byte has come: that byte is taken to be zero, and dropped when it arrives."""

    early = False

    def receive(self, data: codec.Readable) -> None:
        super().receive(data[1:] if self.early and data else data)
        self.early = self._lacks_one_byte()
        if self.early:
            super().receive(b"\0")

    def _lacks_one_byte(self) -> bool:
        if self.head:  # the requests that are a head alone
            return len(self.head) == HEAD - 1 and self.command in (HELLO, DEVICE_COUNT)
        return self.left == 1 and self.command != SET_TENSOR  # whose data do not come through `receive`
