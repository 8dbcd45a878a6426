"""The order of a conversation alone: requests and replies as numbers and classes, without a byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol.order import Awaited, Order, awaited
from ggml_rpc_ref.spec import messages as m
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, V1_0_0, V4_0_0, V8_0_0, Version

TENSOR = m.RpcTensor()
HELLO, GET_ALIGNMENT, GET_TENSOR, DEVICE_COUNT, NO_COMMAND = 14, 1, 8, 15, 99


def after_hello(version: Version = DEFAULT) -> Order[object]:
    """An order in which HELLO has been said and answered."""
    order: Order[object] = Order(version)
    order.ask(order.command(HELLO).cls, "hello")
    order.answer()
    return order


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(Violation) as caught:
        action()
    return caught.value.rule


@pytest.mark.parametrize("number", [GET_ALIGNMENT, NO_COMMAND])
def test_hello_comes_first(number: int) -> None:
    assert refused(lambda: Order().command(number)) == "session.hello-first"
    assert not Order().opened


def test_hello_comes_once() -> None:
    order = after_hello()
    assert order.opened
    assert refused(lambda: order.command(HELLO)) == "session.hello-once"


def test_a_conversation_known_from_its_middle_may_begin_with_any_request() -> None:
    order: Order[object] = Order(from_start=False)
    assert order.command(GET_ALIGNMENT).cls is m.GetAlignment
    assert order.command(HELLO).cls is m.Hello
    assert refused(lambda: order.command(NO_COMMAND)) == "frame.command-known"
    order.ask(m.GetAlignment, "alignment")
    assert refused(lambda: order.command(HELLO)) == "session.hello-once"


@pytest.mark.parametrize(("version", "known"), [(V1_0_0, False), (DEFAULT, True)])
def test_a_version_has_certain_commands(version: Version, known: bool) -> None:
    order = after_hello(version)
    if known:
        assert order.command(DEVICE_COUNT).cls is m.DeviceCount
    else:
        assert refused(lambda: order.command(DEVICE_COUNT)) == "frame.command-known"


def test_a_client_must_say_hello_first_and_once() -> None:
    order: Order[object] = Order()
    with pytest.raises(Misuse, match="HELLO is the first"):
        order.check(m.DeviceCount)
    order.check(m.Hello)
    with pytest.raises(Misuse, match="HELLO is the first"):
        after_hello().check(m.Hello)


def test_replies_belong_to_requests_in_their_order() -> None:
    order = after_hello()
    assert order.oldest is None
    for cls, name in ((m.GetAlignment, "first"), (m.GraphRecompute, "unanswered"), (m.FreeBuffer, "second")):
        order.ask(cls, name)
    assert order.waiting == 2
    assert order.due() == Awaited(m.GetAlignment, m.GetAlignmentReply, 8, "first")
    assert order.answer().request == "first"
    assert order.answer() == Awaited(m.FreeBuffer, m.Empty, 0, "second")
    assert order.oldest is None
    assert refused(order.due) == "frame.reply-presence"


def test_a_server_sends_the_reply_that_is_due() -> None:
    order = after_hello()
    with pytest.raises(Misuse, match="not the reply that is due"):
        order.answer_with(m.Empty)
    order.ask(m.GetAlignment, "alignment")
    assert order.answer_with(m.GetAlignmentReply).cls is m.GetAlignment
    with pytest.raises(Misuse, match="not the reply that is due"):
        order.answer_with(m.Empty)


SIZES = [
    (m.GetTensor(tensor=TENSOR, offset=4, size=6), DEFAULT, 6, "frame.reply-presence"),
    (m.GetTensor2d(tensor=TENSOR, offset=4, size=6, n_copies=7, stride=9), V8_0_0, 42, "frame.reply-presence"),
    (m.Hello(), DEFAULT, 3, "frame.size-fixed"),
    (m.Hello(), V4_0_0, 28, "frame.size-fixed"),
    (m.SetTensor(tensor=TENSOR, offset=4), V1_0_0, 0, "frame.size-fixed"),
]


@pytest.mark.parametrize(("request_", "version", "size", "rule"), SIZES, ids=lambda value: type(value).__name__)
def test_how_large_a_reply_must_be(request_: m.Message, version: Version, size: int, rule: str) -> None:
    due = awaited(type(request_), request_, version)
    assert due is not None
    due.check_size(size)
    for wrong in (size + 1, 2**64 - 1, *([size - 1] if size else [])):
        with pytest.raises(Violation) as caught:
            due.check_size(wrong)
        assert (caught.value.rule, caught.value.value) == (rule, wrong)


def test_what_is_not_answered_awaits_nothing() -> None:
    assert awaited(m.SetTensor, m.SetTensor(tensor=TENSOR, offset=4)) is None
    assert Order[str]().ask(m.GraphRecompute, "kept") is None


def test_the_size_of_a_reply_may_be_read_from_elsewhere() -> None:
    order: Order[str] = Order()
    order.ask(m.GetTensor, "kept as text", {"size": 11}.__getitem__)
    assert order.due() == Awaited(m.GetTensor, m.GetTensorReply, 11, "kept as text")


def test_a_version_is_agreed_on_while_nothing_is_awaited() -> None:
    order = after_hello()
    order.ask(m.GetAlignment, "read by 3.6.1")
    with pytest.raises(Misuse, match="GET_ALIGNMENT awaits its reply"):
        order.agree(V8_0_0)
    assert order.version == DEFAULT
    order.answer()
    order.agree(V8_0_0)
    assert (order.version, order.command(19).cls) == (V8_0_0, m.GetTensor2d)


@pytest.mark.parametrize(
    ("start", "size", "version"), [(DEFAULT, 24, V4_0_0), (DEFAULT, 0, DEFAULT), (V8_0_0, 24, V8_0_0), (V8_0_0, 0, V1_0_0)]
)
def test_hello_s_size_is_a_hint_of_the_version(start: Version, size: int, version: Version) -> None:
    order: Order[object] = Order(start, by_hello=PROFILES)
    order.hear_hello(size)
    assert order.version == version


@pytest.mark.parametrize(
    ("by_hello", "size", "words"),
    [
        ((), 24, "protocol 3.6.1 has 0 bytes; clients of 4.0.0 to 8.0.0 send 24"),
        (PROFILES, 23, "protocol 3.6.1 has 0 bytes, 4.0.0 has 24; no version known here"),
        ((V1_0_0, DEFAULT), 24, "clients of 4.0.0"),
        (PROFILES, 2**64 - 1, "no version known here sends 18"),
    ],
)
def test_a_hello_that_nobody_here_says_is_refused(by_hello: Iterable[Version], size: int, words: str) -> None:
    order: Order[object] = Order(by_hello=by_hello)
    with pytest.raises(Violation, match=words) as caught:
        order.hear_hello(size)
    assert (caught.value.rule, caught.value.value, order.version) == ("frame.size-fixed", size, DEFAULT)


def test_what_is_forgotten_is_awaited_no_more() -> None:
    order = after_hello()
    order.ask(m.GetAlignment, "alignment")
    order.forget()
    assert order.waiting == 0
