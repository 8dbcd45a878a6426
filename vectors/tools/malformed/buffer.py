"""Buffers: handles that were never given, and sizes that can't be allocated."""

from __future__ import annotations

from collections.abc import Iterator

from vectors.tools.malformed.case import Case, accepted, answered_no, refused
from vectors.tools.malformed.protocol import (
    Request,
    Step,
    address,
    alloc_buffer,
    buffer,
    free,
    handle,
    hear,
    hello,
    on_buffer,
    opened,
    say,
    u64,
)

COMMANDS = {"buffer-get-base": b"", "free-buffer": b"", "buffer-clear": b"\0"}
"""Requests on a buffer to what follows the handle."""


def cases() -> Iterator[Case]:
    """Yield every case of the section."""
    yield from known()
    yield from freed_once()
    yield from alloc()


def _on(words: str, which: int | str) -> Request:
    return on_buffer(words.upper().replace("-", "_"), which, COMMANDS[words])


def known() -> Iterator[Case]:
    """Handles that name no live buffer."""
    handles: dict[str, tuple[int | str, list[Step], str]] = {
        "null": (0, opened(), "handle 0, which no buffer has"),
        "never-given": (2**64 - 8, opened(), "a handle that was never given"),
        "beside-a-live-one": (handle("buf0") + "+1", opened(), "a number just above a live handle"),
        "freed": (handle("buf1"), [*opened(), *buffer("buf1"), *free("buf1")], "a buffer that has been freed"),
    }
    for words in COMMANDS:
        for kind, (which, before, what) in handles.items():
            if (words, kind) == ("free-buffer", "freed"):
                continue  # buffer.freed-once
            request = _on(words, which)
            yield refused(
                f"buffer.known/{words}-{kind}",
                f"{request.command} on {what}. A server that takes the number for a pointer follows it wherever it leads.",
                "SEC-34",
                "stale-handle",
                [*before, say(request)],
            )
    yield refused(
        "buffer.known/buffer-get-base-address",
        "BUFFER_GET_BASE on a buffer's address in place of its handle: the two are different numbers, and only one is a key.",
        "SEC-34",
        "stale-handle type-confusion",
        [*opened(), say(_on("buffer-get-base", address("buf0")))],
    )


def freed_once() -> Iterator[Case]:
    """A buffer freed twice."""
    for words, before in {"at-once": [], "beside-another": buffer("buf1")}.items():
        yield refused(
            f"buffer.freed-once/{words}",
            "FREE_BUFFER a second time for the same handle. A server that frees it again corrupts its heap, or frees what has"
            " been put there since.",
            "SEC-34",
            "stale-handle",
            [*opened(), *before, *free("buf0"), say(_on("free-buffer", handle("buf0")))],
        )


def alloc() -> Iterator[Case]:
    """Sizes that no server has, and no size at all."""
    sizes = {"2-64-less-1": 2**64 - 1, "2-64-less-32": 2**64 - 32, "2-63": 2**63, "2-60": 2**60}
    for words, size in sizes.items():
        yield answered_no(
            f"buffer.alloc-fails/{words}",
            f"ALLOC_BUFFER of {size} bytes, more than any machine has, some of them near where a sum with padding wraps. The answer"
            " is (0, 0), and the connection goes on.",
            "SEC-42",
            "unbounded-allocation null-pointer",
            [*hello(), say(alloc_buffer(size)), hear("ALLOC_BUFFER", u64(0, 0)), *buffer("buf0")],
        )
    yield accepted(
        "buffer.empty/alloc-0",
        "Nothing is wrong: a buffer of no bytes. It has a handle, size 0 and address 0, and it can be freed.",
        "SEC-42",
        "should over-strict",
        [
            *hello(),
            say(alloc_buffer(0)),
            hear("ALLOC_BUFFER", handle("buf0"), u64(0)),
            say(_on("buffer-get-base", handle("buf0"))),
            hear("BUFFER_GET_BASE", u64(0)),
            *free("buf0"),
        ],
    )
