"""What the log says beside the end of a connection whose client probably speaks another protocol version.

The protocol has no reply for that: such a client leaves after HELLO, or its HELLO is refused by its size. Only the server's log can
tell whoever runs it what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.order import sending_hello_of
from ggml_rpc_ref.spec.messages import Hello
from ggml_rpc_ref.spec.versions import Version, accepts, named


def for_hello(broken: Violation, spoken: Sequence[Version]) -> str:
    """Return what to do about a HELLO of another size, as the end of a sentence; nothing where nothing can be done."""
    if broken.rule != "frame.size-fixed" or not isinstance(broken.value, int):
        return ""
    theirs = sending_hello_of(broken.value)
    if not theirs or set(theirs) & set(spoken):
        return ""
    return f"; to serve such clients too, run `serve --proto auto:{spoken[0]},{theirs[-1]}`"


def for_leaving(answered: Version) -> str:
    """Return what a client that left after HELLO was answered may speak, and how to serve it, as the end of a sentence."""
    others = _not_going_on(answered)
    if not others:
        return ""
    listed = ", ".join(map(named, others))
    return f" right after HELLO was answered with {answered}; if it speaks another version, try `serve --proto` with {listed}"


def _not_going_on(answered: Version) -> list[Version]:
    """Return the versions whose clients say the same HELLO and leave at this answer, newest first, of each minor the last patch."""
    size = codec.minimum_size(Hello, answered)
    last = {version[:2]: version for version in sending_hello_of(size) if not accepts(version, answered)}
    return sorted(last.values(), reverse=True)
