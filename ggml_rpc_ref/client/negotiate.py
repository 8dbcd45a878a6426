"""Find the form of HELLO that a server answers, and greet it.

    channel = greet(lambda version: Channel(open_stream(host, port), version), None, lambda: 10.0)

A server closes the connection on a HELLO of another form than its own, without a word about its version; so the newest form is
tried first, and each older one on a new connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ggml_rpc_ref.client.channel import Channel, HelloRefused
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.negotiation import forms, of_form
from ggml_rpc_ref.spec.messages import Hello
from ggml_rpc_ref.spec.versions import Version

C = TypeVar("C", bound=Channel)


def greet(connect: Callable[[Version], C], own: Version | None, left: Callable[[], float]) -> C:
    """Return a channel on which HELLO has been answered.

    Args:
        connect: opens a channel that says HELLO in a version's form.
        own: the only version to try; None: the newest of each form.
        left: gives the seconds that the answer to HELLO may take.

    Raises:
        ConnectionError, TimeoutError: where nobody answers; the sentence names the forms that were tried.
        Unsupported, Violation: as `Channel.greet`.
    """
    refusals: list[str] = []
    for version in (own,) if own is not None else forms():
        channel = connect(version)
        try:
            channel.greet(left())
            return channel
        except HelloRefused as refusal:
            channel.close()
            refusals.append(str(refusal))
        except BaseException:
            channel.close()
            raise
    raise ConnectionError(_sentence(refusals, own))


def _sentence(refusals: list[str], own: Version | None) -> str:
    """Say what was tried and what the reason may be."""
    reason = "a server that does not take clients from this address, or is full, does so"
    if own is None:
        tried = " nor ".join(f"one of {codec.minimum_size(Hello, form)} bytes ({_speakers(form)})" for form in forms())
        return f"{refusals[-1]}; it answers no form of HELLO, neither {tried}: {reason}, and one that is not a ggml RPC server"
    others = " or ".join(_speakers(form) for form in forms() if codec.minimum_size(Hello, form) != codec.minimum_size(Hello, own))
    return f"{refusals[-1]}; a server of {others} does so, and one that does not take clients from this address, or is full"


def _speakers(form: Version) -> str:
    first, last = of_form(codec.minimum_size(Hello, form)) or (form, form)
    return f"{first} to {last}"
